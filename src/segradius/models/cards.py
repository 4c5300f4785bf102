"""Cards of models: one YAML file that says which network, which weights, and what its input is, for a team to share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from segradius.core.errors import InputError
from segradius.core.safe_yaml import read_yaml
from segradius.core.secrets import HIDDEN, is_secret, redacted, without_secrets
from segradius.core.storage import write_atomically
from segradius.core.text import parse_spec, refuse_unknown
from segradius.models.bands import RGB, check_number
from segradius.models.decoding import Decode, Decoding, as_channels, as_decode
from segradius.models.denoising import DenoisedNetwork
from segradius.models.preprocessing import (
    Normalisation,
    SizeRule,
    as_normalisation,
    as_size_rule,
)
from segradius.models.segmenter import Segmenter
from segradius.models.sharded import digest_of
from segradius.models.tiling import TiledNetwork, Tiling, as_tiling
from segradius.models.weight_sets import parted
from segradius.models.wrapping import check_lipschitz

SUFFIXES = (".yaml", ".yml")
TEXTS = ("name", "model", "weights", "sha256", "outputs", "denoiser", "licence", "source", "paper")
#: A source and a name with arguments, the last of which may be a file.
ENDS_IN_ARGUMENT = re.compile(r"[\w.]+:[^,]+,(.*,)?\w+=[^,]*$")
#: What says how an output is understood, in the order of `as_decode`.
DECODED = ("outputs", "threshold", "channels", "output")


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
        >>> from torch import nn
        >>> from segradius.models import wrap
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
