"""Model cards: one YAML file that says which network, which weights, and what its input is, for a team to share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from segradius.core.errors import InputError
from segradius.core.storage import write_atomically
from segradius.core.text import refuse_unknown
from segradius.models.checkpoints import sha256_of
from segradius.models.preprocessing import Normalisation, SizeRule, as_normalisation, as_size_rule
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import TiledNetwork, Tiling, as_tiling

SUFFIXES = (".yaml", ".yml")
TEXTS = ("name", "model", "weights", "sha256", "outputs", "licence", "source", "paper")


@dataclass(frozen=True)
class ModelCard:
    """What a card says; None for what it leaves to the source's defaults.

    Args:
        name: What reports call the model; the file's name without suffix when the card has none.
        model: The network, as `load_model` takes it, but not another card.
        arguments: Keyword arguments for it, beside those in ``model``.
        weights: Path of the weights; in the file relative to the card, here resolved.
        sha256: Of the weights file, checked when it is loaded.
        normalisation: What the network wants done to the colours.
        size: What sizes it takes.
        outputs: ``"logits"`` or ``"probabilities"``.
        inference: The windows, scales and mirroring that it is deployed with.
        classes: Names of the classes, in the order of the logits.
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
    inference: Tiling | None = None
    classes: tuple[str, ...] = ()
    licence: str | None = None
    source: str | None = None
    paper: str | None = None


def is_card(text: str) -> bool:
    """Whether a model text is the path of a card: whether it ends in ``.yaml`` or ``.yml``."""
    return text.endswith(SUFFIXES)


def read_card(path: str | Path) -> ModelCard:
    """The card in a YAML file.

    Args:
        path: The file.

    Returns:
        The card.

    Raises:
        InputError: If it cannot be read, lacks ``model``, or has an unknown key or a bad value; the message names it.
    """
    path = Path(path)
    content = _read(path)
    try:
        return _card(content, path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_digest(card: ModelCard) -> None:
    """Raise `InputError` if the card's weights are not the file whose ``sha256`` it states."""
    if card.weights is None or card.sha256 is None:
        return
    found = sha256_of(card.weights)
    if found != card.sha256.lower():
        raise InputError(f"{str(card.weights)!r} has SHA-256 {found}; its card {card.name!r} says {card.sha256}")


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the model card {str(path)!r}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"the model card {str(path)!r} is not YAML: {error}") from error


def _card(content: Any, path: Path) -> ModelCard:
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), str):
        raise InputError("a model card is a mapping with at least 'model: SOURCE:NAME'")
    refuse_unknown("card key", map(str, content), [item.name for item in fields(ModelCard)])
    for key in TEXTS:
        if not isinstance(content.get(key), str | None):
            raise InputError(f"{key}: {content[key]!r} is not text")
    if is_card(content["model"]):
        raise InputError(f"model: {content['model']!r} is another card")
    given = {"name": path.stem} | {key: value for key, value in content.items() if value is not None}
    return ModelCard(**given | _parsed(given, path))


def _parsed(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    arguments, classes = given.get("arguments", {}), given.get("classes", [])
    if not isinstance(arguments, Mapping):
        raise InputError(f"arguments: {arguments!r} is not a mapping")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"classes: {classes!r} is not a list of names")
    return {
        "arguments": dict(arguments),
        "classes": tuple(classes),
        "weights": path.parent / given["weights"] if "weights" in given else None,
        "normalisation": as_normalisation(given.get("normalisation")),
        "size": as_size_rule(given["size"]) if "size" in given else None,
        "inference": as_tiling(given["inference"]) if "inference" in given else None,
    }


def write_card(path: Path, content: Mapping[str, Any]) -> None:
    """Write a card, whole or not at all, with the digest of its weights.

    Args:
        path: Of the card.
        content: Its entries. ``model`` may itself be the path of a card, whose entries are taken over then; ``weights``
            are in the folder of ``path``; entries that are None are left out.
    """
    base: dict[str, Any] = {}
    if is_card(content["model"]):
        base = {key: value for key, value in _read(Path(content["model"])).items() if key not in ("name", "licence")}
    given = {key: value for key, value in content.items() if value is not None and not (base and key == "model")}
    whole = base | given | {"sha256": sha256_of(path.parent / content["weights"])}
    write_atomically(path, yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))


def fingerprint(model: object) -> str:
    """A hash of the parameters, buffers, normalisation, sizes and tiling of a `Segmenter`, "" of a bare function.

    Example:
        >>> from segradius.models import wrap
        >>> network = torch.nn.Conv2d(3, 2, 1)
        >>> fingerprint(wrap(network)) == fingerprint(wrap(network, normalisation="imagenet"))
        False
    """
    if not isinstance(model, Segmenter) or not isinstance(model.network, nn.Module):
        return ""
    digest = hashlib.sha256()
    inner = model
    while isinstance(inner.network, TiledNetwork):
        digest.update(repr(inner.network.tiling).encode())
        inner = inner.network.model
    digest.update(f"{inner.normalisation} {inner.size}".encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
