"""A server that speaks the Open Inference Protocol v2 as a target: what it says of its model, and its answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.core.declared import Images
from segradius.core.declared import read as read_option
from segradius.core.errors import AnswerError, InputError, TargetError, unknown_name
from segradius.core.escapes import visible
from segradius.targets.answers import Raw
from segradius.targets.exchange import Exchange
from segradius.targets.oip_http import Line, Policy, RejectedError, Reply, Traffic
from segradius.targets.oip_wire import (
    BINARY_ONLY,
    DTYPES,
    LENGTH_HEADER,
    Response,
    largest_response,
    read_response,
    request_id,
    write_request,
)
from segradius.targets.served import BATCH, Served
from segradius.targets.signature import TensorSpec
from segradius.targets.target import TARGETS
from segradius.targets.told import Told


def read_metadata(line: Line) -> Mapping[str, Any]:
    """What the server says of the model; raises `TargetError` where that is not a JSON object."""
    body = line.get().body
    try:
        metadata = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TargetError(
            f"{line.url} answered with no JSON; expected the metadata of a model at http://HOST:PORT/v2/models/NAME"
        ) from error
    if not isinstance(metadata, Mapping):
        raise TargetError(f"{line.url} answered with {type(metadata).__name__}; expected the metadata of a model")
    return metadata


def declared(
    metadata: Mapping[str, Any], key: str, name: str | None, datatype: str | None, shape: tuple[None, ...]
) -> Sequence[TensorSpec]:
    """The inputs or outputs that the metadata declare, or else one tensor.

    Args:
        metadata: From `read_metadata`.
        key: ``"inputs"`` or ``"outputs"``.
        name: Of the tensor where nothing is declared; None for no such tensor.
        datatype: Of all of them, in place of the declared.
        shape: Of the tensor where nothing is declared.

    Returns:
        The tensors, float32 where no datatype is said.

    Raises:
        TargetError: If the metadata are malformed.
    """
    tensors = metadata.get(key) or ([] if name is None else [{"name": name, "shape": shape}])
    try:
        return [
            TensorSpec(
                tensor["name"],
                DTYPES.get(datatype or tensor.get("datatype") or "FP32", torch.complex64),
                tuple(side if isinstance(side, int) and side > 0 else None for side in tensor["shape"]),
            )
            for tensor in tensors
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"the server's metadata have malformed {key}: {error!r}") from error


WIRES = ("auto", "binary", "json")
# With what servers answer a body that they cannot read.
NOT_UNDERSTOOD = (400, 411, 415, 422, 500, 501)


#: Pixels a side by which maps may be larger than their image, of a server that fills it up.
MARGIN = 128
#: Channels that an answer may have of which some are picked and nobody says how many there are.
MANY = 32


@dataclass(frozen=True)
class Declared:
    """What the metadata and the address say of every answer.

    Args:
        name: Of the model; empty where that is not told.
        versions: Of which every answer is one; empty for any.
        outputs: How many outputs the model has.
    """

    name: str = ""
    versions: tuple[str, ...] = ()
    outputs: int = 1

    @staticmethod
    def of(metadata: Mapping[str, Any], url: str) -> Declared:
        """From metadata, and an address that may name a version."""
        name, given, outputs = metadata.get("name"), metadata.get("versions"), metadata.get("outputs")
        asked = url.partition("/versions/")[2]
        versions = (asked,) if asked else tuple(map(str, given)) if isinstance(given, list) else ()
        return Declared(name if isinstance(name, str) else "", versions, len(outputs) if outputs else 1)

    def check(self, response: Response, asked: str) -> None:
        """Raise `AnswerError` unless a response is this model's to the question with this id."""
        said = response.said
        if said.get("id", asked) != asked:
            raise AnswerError(f"it answers the question {said['id']!r}; expected {asked!r}, which was asked")
        if self.name and said.get("model_name", self.name) != self.name:
            raise AnswerError(f"it is of the model {said['model_name']!r}; expected {self.name!r}")
        if self.versions and said.get("model_version", self.versions[0]) not in self.versions:
            known = " or ".join(self.versions)
            raise AnswerError(f"it is of the model's version {said['model_version']!r}; expected {known}")


class OipTarget(Served):
    """A served model that is asked over HTTP. `open_oip` makes one.

    Args:
        line: The connection.
        exchange: As `Served` takes it.
        wire: ``"binary"`` or ``"json"`` tensors; ``"auto"``: binary, and JSON from then on if the first query is
            rejected as binary and answered as JSON.
        prefix: Of the request ids.
        declared: What every answer says of itself.
        **about: As `Served` takes it.
    """

    def __init__(
        self,
        line: Line,
        exchange: Exchange,
        *,
        wire: str = "auto",
        prefix: str = "",
        declared: Declared | None = None,
        **about: Any,
    ) -> None:
        super().__init__(exchange, **about)
        self.line, self.wire, self.prefix, self.declared = line, wire, prefix, declared or Declared()

    def __repr__(self) -> str:
        return f"OipTarget({self.line}, {self.exchange}, wire={self.wire!r}, batch={self.batch})"

    @property
    def called(self) -> str:
        """Its address."""
        return self.line.url

    @property
    def traffic(self) -> Traffic:
        """What was sent and answered so far."""
        return self.line.traffic

    def _answered(self, real: int, *, refused: bool) -> None:
        self.traffic.add(**{"refused" if refused else "answered": real})

    def _ask(self, images: Tensor, real: int) -> Raw:
        given = self.exchange.encode(images)
        asked = request_id(self.prefix, self.exchange.signature.input.name, given)
        reply = self._post_in_some_wire(asked, given, real)
        try:
            response = read_response(_header(reply.headers, LENGTH_HEADER), reply.body)
        except AnswerError as error:
            begins = self.line.policy.redacted(reply.body[:2000].decode("utf-8", "replace"))[:60]
            raise AnswerError(f"{visible(str(error))}; the answer begins with {begins!r}") from None
        try:
            self.declared.check(response, asked)
            raw = _named(response.outputs, self.exchange.signature.output.name)
        except AnswerError as error:
            raise AnswerError(visible(self.line.policy.redacted(str(error)))) from None
        about = {name: said for name, said in response.said.items() if name != "id"}
        about |= {"id": "the question's"} if "id" in response.said else {}
        return Raw(raw, about | {"list of outputs": ", ".join(response.outputs)})

    def _post_in_some_wire(self, asked: str, given: Tensor, real: int) -> Reply:
        if self.wire != "auto":
            return self._post(asked, given, real, binary=self.wire == "binary")
        try:
            reply = self._post(asked, given, real, binary=True)
        except RejectedError as error:
            if error.status not in NOT_UNDERSTOOD or given.dtype in (DTYPES[name] for name in BINARY_ONLY):
                raise
            try:
                reply = self._post(asked, given, real, binary=False)
            except TargetError:
                raise error from None
            self.wire = "json"
            return reply
        self.wire = "binary"
        return reply

    def _post(self, asked: str, given: Tensor, real: int, *, binary: bool) -> Reply:
        signature = self.exchange.signature
        wanted = signature.output.name or None
        inputs = {signature.input.name: given, **dict(self.exchange.constants)}
        headers, body = write_request(asked, inputs, wanted, binary=binary)
        return self.line.post("/infer", headers, body, real, self._largest(given))

    def _largest(self, given: Tensor) -> Callable[[Mapping[str, str]], int]:
        """From headers to the bytes that an answer to this question has at most."""
        signature = self.exchange.signature
        declared = signature.output.shape
        fixed = math.prod(side or 0 for side in declared[1:]) if declared else 0
        height, width = given.shape[-2:] if signature.layout == "nchw" else given.shape[1:3]
        channels = signature.channels.count or max(signature.channels.least, MANY)
        maps = (height + MARGIN) * (width + MARGIN) * channels
        values = len(given) * max(fixed, maps) * self.declared.outputs
        return lambda headers: largest_response(values, binary=_header(headers, LENGTH_HEADER) is not None)


@TARGETS.register(
    "oip",
    example="oip:http://HOST:PORT/v2/models/NAME,rate=20",
    extra="oip",
    asking=("wire", "batch", "prefix", "connect", "read", "total", "retries", "backoff", "rate", "token_env", "ca"),
    options=Told,
)
def open_oip(
    address: str,
    device: torch.device,
    *,
    datatype: str | None = None,
    wire: str = "auto",
    batch: int = BATCH,
    prefix: str = "",
    connect: float = Policy.connect,
    read: float = Policy.read,
    total: float | None = Policy.total,
    retries: int = Policy.retries,
    backoff: float = Policy.backoff,
    rate: float | None = None,
    token_env: str | None = None,
    ca: str | None = None,
    **told: Any,
) -> OipTarget:
    """A model behind an Open Inference Protocol v2 endpoint; its metadata tell the names, shapes and types.

    Args:
        address: ``http://HOST:PORT/v2/models/NAME``, with ``/versions/VERSION`` to keep to one.
        device: Where images are best held.
        datatype: Of the input, as ``FP32``, ``UINT8`` or ``BF16``, where the metadata do not tell.
        wire: As `OipTarget` takes it.
        batch: Images of one request, at most.
        prefix: Of the request ids, as the name of a run; the rest is a hash of the request's content.
        connect: As `Policy` takes it, and so are the next seven.
        read: Seconds to wait for the next piece of an answer.
        total: Seconds to wait for all of it; None for five times ``read``.
        retries: How often a request is sent again.
        backoff: Seconds of waiting before the second repetition, half.
        rate: Images a second.
        token_env: Name of the environment variable that holds the token.
        ca: File of trusted certificates.
        **told: What the metadata do not tell, as `Told` takes it.

    Returns:
        The target.

    Raises:
        InputError: If an option is missing or does not fit.
        TargetError: If the server cannot be reached or does not know the model.
        MissingExtraError: If urllib3 is not installed.
    """
    if wire not in WIRES:
        raise unknown_name("wire", str(wire), WIRES)
    if datatype is not None and datatype not in DTYPES:
        raise unknown_name("datatype", str(datatype), DTYPES)
    batch = read_option("batch", Images, batch)
    line = Line(address, Policy(connect, read, retries, backoff, rate, token_env, ca, total))
    metadata = read_metadata(line)
    try:
        wanted = Told(**told)
        output = wanted.answer if isinstance(wanted.answer, str) else ""
        named = None if wanted.input_name is None else str(wanted.input_name)
        exchange = wanted.exchange(
            declared(metadata, "inputs", named, datatype, (None,) * 4),
            declared(metadata, "outputs", output, None, ()),
        )
    except InputError as error:
        raise InputError(f"{line.url}: {error}") from error
    name = line.url.partition("/models/")[2] or line.url
    identity = f"{line.url} {metadata.get('versions')} {exchange.identity}"
    return OipTarget(
        line,
        exchange,
        name=name,
        wire=wire,
        batch=batch,
        device=device,
        prefix=prefix,
        identity=identity,
        dtype=_declared_type(metadata, exchange.signature.output.name),
        declared=Declared.of(metadata, line.url),
    )


def _declared_type(metadata: Mapping[str, Any], output: str) -> torch.dtype | None:
    """Of an output, where the metadata tell it."""
    said = next((each.get("datatype") for each in metadata.get("outputs") or () if each.get("name") == output), None)
    return DTYPES.get(said) if isinstance(said, str) else None


def _named(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name in tensors:
        return tensors[name]
    if not name and len(tensors) == 1:
        return next(iter(tensors.values()))
    raise AnswerError(
        f"the response has the outputs {', '.join(map(repr, tensors))}; expected {name or 'one'!r}: give output_name"
    )


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
