"""`load_model`: from the text that a user writes, or a card, to a `Segmenter`.

A card is one YAML file that says which network, which weights, and what its input is, for a team to share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Never

import torch
import yaml
from torch import nn

from segradius.core.errors import InputError, unknown_name
from segradius.core.safe_yaml import read_yaml
from segradius.core.secrets import HIDDEN, is_secret, redacted, without_secrets
from segradius.core.storage import write_atomically
from segradius.core.text import Spec, options_of, parse_spec, refuse_unknown
from segradius.models.bands import RGB, check_number
from segradius.models.checkpoints import load_state
from segradius.models.decoding import Decode, Decoding, as_channels, as_decode
from segradius.models.denoising import DenoisedNetwork, trained_part
from segradius.models.downloads import offline
from segradius.models.fitting import load_into
from segradius.models.parameters import check_parameters
from segradius.models.preprocessing import (
    Normalisation,
    NormalisationLike,
    SizeLike,
    SizeRule,
    as_normalisation,
    as_size_rule,
)
from segradius.models.segmenter import Segmenter, Weights
from segradius.models.sharded import digest_of
from segradius.models.sources import open_spec
from segradius.models.tiling import TiledNetwork, Tiling, TilingLike, as_tiling, tiled
from segradius.models.weight_sets import parted
from segradius.models.wrapping import check_lipschitz, wrap

SUFFIXES = (".yaml", ".yml")
TEXTS = ("name", "model", "weights", "sha256", "outputs", "denoiser", "licence", "source", "paper")
#: A source and a name with arguments, the last of which may be a file.
ENDS_IN_ARGUMENT = re.compile(r"[\w.]+:[^,]+,(.*,)?\w+=[^,]*$")
#: What says how an output is understood, in the order of `as_decode`.
DECODED = ("outputs", "threshold", "channels", "output")
#: Types of parameters by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ModelCard:
    """What a card says; None for what it leaves to the source's defaults.

    Args:
        name: What reports call the model; the file's name without suffix when the card has none.
        model: The network, as `load_model` takes it, but not another card.
        arguments: Keyword arguments for it, beside those in ``model``.
        weights: Path of the weights; in the file relative to the card, here resolved.
        sha256: Of the weights file, or of the list of its shards and them; checked when it is loaded.
        normalisation: What the network wants done to the colours.
        size: What sizes it takes.
        outputs: What the network returns: a kind of `Decoding`, as ``"sigmoid"``.
        threshold: A yes/no channel says yes where its probability is above it.
        channels: Which channels of the output count.
        output: Which entry of a tuple, mapping or object is meant.
        bands: Its input channels.
        lipschitz: L that the card states of its logits, as `Segmenter` has it.
        inference: The windows, scales and mirroring that it is deployed with.
        denoiser: What every image goes through first, as ``--denoiser`` takes it; a card in the file relative to this.
        classes: Names of the classes, in the order of the logits; of yes/no channels those of the structures will do.
        licence: Of the weights.
        source: Where they come from.
        paper: To cite.
    """

    name: str
    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    sha256: str | None = None
    normalisation: Normalisation | None = None
    size: SizeRule | None = None
    outputs: str | None = None
    threshold: float | None = None
    channels: tuple[int, ...] | None = None
    output: int | str | None = None
    bands: int | None = None
    lipschitz: float | None = None
    inference: Tiling | None = None
    denoiser: str | None = None
    classes: tuple[str, ...] = ()
    licence: str | None = None
    source: str | None = None
    paper: str | None = None


def is_card(text: str) -> bool:
    """Whether a model text is the path of a card: it ends in ``.yaml`` or ``.yml``, and not as an argument's value.

    Example:
        >>> is_card("runs/best.yaml"), is_card("denoised:residual,base=runs/best.yaml")
        (True, False)
    """
    return text.endswith(SUFFIXES) and ENDS_IN_ARGUMENT.match(text) is None


def read_card(path: str | Path) -> ModelCard:
    """The card in a YAML file.

    Args:
        path: The file.

    Raises:
        InputError: If it cannot be read, lacks ``model``, or has an unknown key or a bad value; the message names it.
    """
    path = Path(path)
    content = _read(path)
    try:
        return _parsed(content, path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_digest(card: ModelCard) -> None:
    """Raise `InputError` if the card's weights are not the file whose ``sha256`` it states."""
    if card.weights is None or card.sha256 is None:
        return
    found = digest_of(parted(card.weights)[0])
    if found != card.sha256.lower():
        raise InputError(f"{str(card.weights)!r} has SHA-256 {found}; its card {card.name!r} says {card.sha256}")


def _read(path: Path) -> Any:
    return read_yaml(path, "the model card")


def _parsed(content: Any, path: Path) -> ModelCard:
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), str):
        raise InputError("a model card is a mapping with at least 'model: SOURCE:NAME'")
    refuse_unknown("card key", map(str, content), [item.name for item in fields(ModelCard)])
    if is_card(content["model"]):
        raise InputError(f"model: {content['model']!r} is another card")
    given = {"name": path.stem} | {key: value for key, value in content.items() if value is not None}
    for key in TEXTS:
        if not isinstance(given.get(key, ""), str):
            raise InputError(f"{key}: {given[key]!r} is not text")
    arguments, classes = given.get("arguments", {}), given.get("classes", [])
    if not isinstance(arguments, Mapping):
        raise InputError(f"arguments: {arguments!r} is not a mapping")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"classes: {classes!r} is not a list of names")
    check_number(given.get("bands"))
    if "channels" in given:
        given["channels"] = as_channels(given["channels"])
    if "outputs" in given:
        as_decode(*(given.get(name) for name in DECODED))
    parts = {
        "classes": tuple(classes),
        "weights": path.parent / given["weights"] if "weights" in given else None,
        "normalisation": as_normalisation(given.get("normalisation")),
        "size": as_size_rule(given["size"]) if "size" in given else None,
        "lipschitz": check_lipschitz(given.get("lipschitz")),
        "inference": as_tiling(given["inference"]) if "inference" in given else None,
        "denoiser": _beside(path, given["denoiser"]) if "denoiser" in given else None,
    }
    return ModelCard(**given | parts)


def _beside(path: Path, denoiser: str) -> str:
    return str(path.parent / denoiser) if is_card(denoiser) else denoiser


def write_card(path: Path, content: Mapping[str, Any]) -> None:
    """Write a card, whole or not at all, with the digest of its weights.

    Args:
        path: Of the card.
        content: Its entries. ``model`` may itself be the path of a card, whose entries are taken over then; ``weights``
            are in the folder of ``path``; entries that are None are left out, and so are secrets.
    """
    base: dict[str, Any] = {}
    if is_card(content["model"]):
        base = {key: value for key, value in _read(Path(content["model"])).items() if key not in ("name", "licence")}
    given = {key: value for key, value in content.items() if value is not None and not (base and key == "model")}
    whole = without_secrets(base | given) | {"sha256": digest_of(parted(path.parent / content["weights"])[0])}
    if HIDDEN in whole["model"]:  # by name it is left out, where it would be no card that can be loaded
        spec = parse_spec(content["model"])
        kept = {key: value for key, value in spec.arguments.items() if not is_secret(key)}
        whole |= {"model": redacted(str(spec)), "arguments": whole.get("arguments", {}) | kept}
    write_atomically(path, yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))


def entries_of(model: Segmenter) -> dict[str, Any]:
    """What a card must say of a model's input and output, so that its weights are the same wherever they are loaded.

    Example:
        >>> entries_of(wrap(nn.Conv2d(3, 2, 1), normalisation="imagenet", size={"multiple_of": 8}))
        {'normalisation': 'imagenet', 'size': {'multiple_of': 8}}
    """
    while isinstance(model.network, TiledNetwork):
        model = model.network.model
    if isinstance(model.network, DenoisedNetwork):
        return {}  # its own are those of the network behind the denoiser
    normalisation, size = model.normalisation or Normalisation.none(), model.size
    usual = vars(SizeRule())
    rule = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(size).items() if v != usual[key]}
    bands = {"bands": model.bands} if model.bands not in (None, RGB) else {}
    return {
        "normalisation": normalisation.entry,
        **({"size": rule} if rule else {}),
        **_told_outputs(model.decode),
        **bands,
        **({} if model.lipschitz is None else {"lipschitz": model.lipschitz}),
    }


def _told_outputs(decode: Decode) -> dict[str, Any]:
    """What is not as it is without a word; a threshold always, which a card that is taken over may have another of."""
    if not isinstance(decode, Decoding):
        return {}
    kind = {} if decode.kind == "logits" else {"outputs": decode.kind}
    threshold = {"threshold": decode.threshold} if decode.yes_no else {}
    channels = {"channels": list(decode.channels)} if decode.channels else {}
    return {**kind, **threshold, **channels, **({"output": decode.output} if decode.output else {})}


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    num_classes: int | None = None,
    normalisation: NormalisationLike = None,
    size: SizeLike = None,
    outputs: str | Decode | None = None,
    threshold: float | None = None,
    channels: Sequence[int] | int | str | None = None,
    output: int | str | None = None,
    bands: int | None = None,
    inference: TilingLike | None = None,
    denoiser: str | None = None,
    dtype: str | torch.dtype | None = None,
    allow_download: bool = False,
    **_unknown: Never,
) -> Segmenter:
    """The network that ``spec`` names, in evaluation mode on ``device``.

    Args:
        spec: A built-in name (``demo``), ``SOURCE:NAME`` of a library in `SOURCES` (``torchvision:fcn_resnet50``),
            ``package.module:OBJECT``, each with ``,key=value`` arguments in YAML, or the path of a card ``FILE.yaml``.
            A card and a Python object can run code: load those that you trust.
        weights: A checkpoint to load into it, strictly; in place of the card's. Of several sets of weights in it
            ``FILE,key=NAME`` says which; shards are given by their list, or the folder of it.
        device: As ``cpu`` or ``cuda:1``.
        num_classes: C; found when None.
        normalisation: In place of the source's: ``"imagenet"``, ``"none"``, (mean, std)…
        size: In place of the source's: a `SizeRule` or a mapping of its arguments.
        outputs: What the network returns, in place of the card's, as `wrap` takes it: ``"probabilities"``,
            ``"sigmoid"``…
        threshold: Of yes/no channels, likewise.
        channels: Which channels of the output count, likewise; also as a text, ``"0,2"``.
        output: Which entry of several is meant, likewise.
        bands: B, its input channels; found when None, as in `wrap`.
        inference: Windows, scales and mirroring, in place of the card's: a `Tiling` or a mapping of its arguments.
        denoiser: What every image goes through first, in place of the card's, as `denoiser_source.behind` takes it.
        dtype: Of the parameters, and so of what the network computes: ``"float32"`` or ``"bfloat16"``; its own when
            None.
        allow_download: Whether libraries may download what is not here; nothing goes out otherwise, and what would have
            to is refused.

    Returns:
        The segmenter. Networks of libraries get the normalisation that their library gives them (ImageNet's where
        nothing else is known), smp networks are padded to their stride; a Python object gets neither, unless the
        options say so.

    Raises:
        InputError: On an unknown name, option or key, a file that is missing, damaged or does not fit, a parameter
            without values, a device that is not there, or what would have to be downloaded.
        MissingExtraError: If the library is not installed.

    Example:
        >>> load_model("torchvision:lraspp_mobilenet_v3_large,num_classes=4").num_classes
        4
    """
    refuse_unknown("option of load_model", _unknown, options_of(load_model))
    card = _card(spec)
    colours = _first(normalisation, card.normalisation)
    said = colours is not None
    file = card.weights if weights is None else Path(weights)
    with offline(card.model.split(",")[0], allowed=allow_download):
        origin = open_spec(_with_arguments(parse_spec(card.model), card))
        if not said:
            colours = origin.normalisation() if callable(origin.normalisation) else origin.normalisation
        fitting = _first(size, card.size)
        if fitting is None:
            fitting = origin.size() if callable(origin.size) else origin.size
        model = wrap(
            _with_weights(origin.network, card, file, torch_device(device), torch_dtype(dtype)),
            num_classes=num_classes,
            normalisation=colours,
            size=fitting,
            outputs=_first(outputs, card.outputs),
            threshold=_first(threshold, card.threshold),
            channels=_first(channels, card.channels),
            output=_first(output, card.output),
            bands=_first(bands, card.bands, origin.bands),
            lipschitz=card.lipschitz if _first(weights, normalisation, size, outputs, output) is None else None,
            name=card.name,
            channels_last=origin.channels_last,
        )
    if torch_dtype(dtype) not in (None, torch.float32):
        model = replace(model, lipschitz=None)  # of other numbers
    known = origin.weights
    if file is not None:
        known = Weights(file.name, whole=True, digest=known.digest if known else "")
    model = replace(model, weights=known or model.weights, assumed=origin.assumed if not said else "")
    if card.classes and len(card.classes) not in (model.num_classes, model.structures):
        raise InputError(f"{spec}: {len(card.classes)} class names for a network of {model.num_classes} classes")
    tiling = _first(inference, card.inference)
    model = model if tiling is None else tiled(model, tiling)
    before = _first(denoiser, card.denoiser)
    if before is None:
        return model
    from segradius.models.denoiser_source import behind  # which reads cards, as this does

    return behind(model, before)


def torch_device(device: str | torch.device) -> torch.device:
    """A device that is there; raises `InputError` for one that is not.

    Example:
        >>> torch_device("cpu")
        device(type='cpu')
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return found


def torch_dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    """A type that parameters may have, from its name.

    Raises:
        InputError: There is none of that name.

    Example:
        >>> torch_dtype("bfloat16")
        torch.bfloat16
    """
    if given is None or isinstance(given, torch.dtype):
        return given
    if given not in DTYPES:
        raise unknown_name("dtype", given, DTYPES)
    return DTYPES[given]


def _card(spec: str) -> ModelCard:
    return read_card(spec) if is_card(spec) else ModelCard(name=spec.split(",")[0], model=spec)


def _with_arguments(spec: Spec, card: ModelCard) -> Spec:
    twice = spec.arguments.keys() & card.arguments.keys()
    if twice:
        raise InputError(f"card {card.name!r} gives {', '.join(sorted(twice))} in model and in arguments")
    return Spec(spec.source, spec.name, spec.arguments | dict(card.arguments))


def _with_weights(
    made: Any, card: ModelCard, file: Path | None, device: torch.device, dtype: torch.dtype | None
) -> Any:
    network = made.network if isinstance(made, Segmenter) else made
    if not isinstance(network, nn.Module):
        if file is not None:
            raise InputError(
                f"weights {str(file)!r} cannot be loaded: {card.model!r} gives a function, not an nn.Module"
            )
        if dtype is not None:
            raise InputError(f"dtype cannot be set: {card.model!r} gives a function, not an nn.Module")
        return made
    if file is not None:
        if file == card.weights:
            check_digest(card)
        load_into(trained_part(network), load_state(file), file)
    check_parameters(network, card.name)  # before they are moved, which those without values cannot be
    network.eval().to(device, dtype)
    return made


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
