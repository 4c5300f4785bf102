"""A server that speaks the Open Inference Protocol v2 as a target: what it says of its model, and its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segradius.core.errors import InputError, TargetError, at_least, unknown_name
from segradius.models import Normalisation
from segradius.targets.exchange import BATCH, Exchange, Served, TensorSpec, find_signature
from segradius.targets.oip_http import Line, Policy, RejectedError, Reply, Traffic
from segradius.targets.oip_wire import BINARY_ONLY, DTYPES, LENGTH_HEADER, read_response, request_id, write_request
from segradius.targets.target import TARGETS


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


class OipTarget(Served):
    """A served model that is asked over HTTP. `open_oip` makes one.

    Args:
        line: The connection.
        exchange: As `Served` takes it.
        wire: ``"binary"`` or ``"json"`` tensors; ``"auto"``: binary, and JSON from then on if the first query is
            rejected as binary and answered as JSON.
        prefix: Of the request ids.
        **about: As `Served` takes it.
    """

    def __init__(self, line: Line, exchange: Exchange, *, wire: str = "auto", prefix: str = "", **about: Any) -> None:
        super().__init__(exchange, **about)
        self.line, self.wire, self.prefix = line, wire, prefix

    def __repr__(self) -> str:
        return f"OipTarget({self.line}, {self.exchange}, wire={self.wire!r}, batch={self.batch})"

    @property
    def traffic(self) -> Traffic:
        """What was sent and answered so far."""
        return self.line.traffic

    def _ask(self, images: Tensor, real: int) -> Tensor:
        given = self.exchange.encode(images)
        reply = self._post_in_some_wire(given, real)
        try:
            tensors = read_response(_header(reply.headers, LENGTH_HEADER), reply.body)
        except TargetError as error:
            begins = self.line.policy.redacted(reply.body[:2000].decode("utf-8", "replace"))[:60]
            raise TargetError(f"{self.line.url}: {error}; the answer begins with {begins!r}") from None
        try:
            raw = _named(tensors, self.exchange.signature.output.name)
            scores = self._decoded(raw, images)
        except TargetError as error:
            raise TargetError(f"{self.line.url}: {self.line.policy.redacted(str(error))}") from error
        self.traffic.add(answered=real)
        return scores

    def _post_in_some_wire(self, given: Tensor, real: int) -> Reply:
        if self.wire != "auto":
            return self._post(given, real, binary=self.wire == "binary")
        try:
            reply = self._post(given, real, binary=True)
        except RejectedError as error:
            if error.status not in NOT_UNDERSTOOD or given.dtype in (DTYPES[name] for name in BINARY_ONLY):
                raise
            try:
                reply = self._post(given, real, binary=False)
            except TargetError:
                raise error from None
            self.wire = "json"
            return reply
        self.wire = "binary"
        return reply

    def _post(self, given: Tensor, real: int, *, binary: bool) -> Reply:
        signature = self.exchange.signature
        wanted = signature.output.name or None
        asked = request_id(self.prefix, signature.input.name, given)
        headers, body = write_request(asked, signature.input.name, given, wanted, binary=binary)
        return self.line.post("/infer", headers, body, real)


@TARGETS.register(
    "oip",
    example="oip:http://HOST:PORT/v2/models/NAME,rate=20",
    extra="oip",
    asking=("wire", "batch", "prefix", "connect", "read", "retries", "backoff", "rate", "token_env", "ca"),
)
def open_oip(
    address: str,
    device: torch.device,
    *,
    num_classes: int | None = None,
    normalisation: Normalisation | None = None,
    outputs: str = "probabilities",
    input_name: str | None = None,
    output_name: str | None = None,
    datatype: str | None = None,
    layout: str | None = None,
    wire: str = "auto",
    batch: int = BATCH,
    prefix: str = "",
    connect: float = Policy.connect,
    read: float = Policy.read,
    retries: int = Policy.retries,
    backoff: float = Policy.backoff,
    rate: float | None = None,
    token_env: str | None = None,
    ca: str | None = None,
) -> OipTarget:
    """A model behind an Open Inference Protocol v2 endpoint; its metadata tell the names, shapes and types.

    Args:
        address: ``http://HOST:PORT/v2/models/NAME``, with ``/versions/VERSION`` to keep to one.
        device: Where images are best held.
        num_classes: C, where the metadata do not tell.
        normalisation: Done to the images before they are sent; None where the server sees to it.
        outputs: As `Exchange` takes it.
        input_name: The input for images, where there are several or the metadata have none.
        output_name: The output for answers, likewise.
        datatype: Of the input, as ``FP32``, ``UINT8`` or ``BF16``, where the metadata do not tell.
        layout: ``"nchw"`` or ``"nhwc"``, where the shape of the input does not tell.
        wire: As `OipTarget` takes it.
        batch: Images of one request, at most.
        prefix: Of the request ids, as the name of a run; the rest is a hash of the request's content.
        connect: As `Policy` takes it, and so are the next six.
        read: Seconds to wait for an answer.
        retries: How often a request is sent again.
        backoff: Seconds of waiting before the second repetition, half.
        rate: Images a second.
        token_env: Name of the environment variable that holds the token.
        ca: File of trusted certificates.

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
    at_least(1, batch=batch)
    line = Line(address, Policy(connect, read, retries, backoff, rate, token_env, ca))
    metadata = read_metadata(line)
    try:
        signature = find_signature(
            declared(metadata, "inputs", input_name, datatype, (None,) * 4),
            declared(metadata, "outputs", output_name or "", None, ()),
            input_name=input_name,
            output_name=output_name,
            layout=layout,
            num_classes=num_classes,
        )
        exchange = Exchange(signature, outputs, normalisation)
    except InputError as error:
        raise InputError(f"{line.url}: {error}") from error
    name = line.url.partition("/models/")[2] or line.url
    identity = f"{line.url} {metadata.get('versions')} {exchange}"
    return OipTarget(line, exchange, name=name, wire=wire, batch=batch, device=device, prefix=prefix, identity=identity)


def _named(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name in tensors:
        return tensors[name]
    if not name and len(tensors) == 1:
        return next(iter(tensors.values()))
    raise TargetError(
        f"the response has the outputs {', '.join(map(repr, tensors))}; expected {name or 'one'!r}: give output_name"
    )


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
