"""The networks and images of a computed block, for `segradius.paper.computed`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segradius.core.text import refuse_unknown, size
from segradius.evaluation import open_images
from segradius.evaluation.job import DataChoice
from segradius.models import Segmenter, load_model
from segradius.paper.block import Block
from segradius.paper.computed import Subject
from segradius.paper.plan import images_of, model_of, networks_of
from segradius.paper.scale import Network, Scale

#: Of images, as ``--data`` and the options beside it have them.
IMAGES = ("data", "split", "size", "protocol", "limit", "stride", "labels", "order", "void")


def subjects_of(block: Block, scale: Scale, out: Path, device: str = "cpu") -> tuple[Subject, ...]:
    """The networks of a block, none of them opened yet, with their images.

    Args:
        block: As it is at the scale.
        scale: Filled, its networks trained.
        out: Folder of all scales.
        device: That networks are opened on.

    Raises:
        InputError: Images cannot be opened.
    """
    images = {label: open_images(choice_of(own)) for label, own in images_of(block, scale).items()}
    return tuple(
        Subject(
            each.label,
            each.family,
            each.role,
            each.seed,
            each.data,
            images[each.data],
            partial(opened, model_of(each, out, scale), device),
            each.norm,
            _facts(each, out, scale),
        )
        for each in networks_of(block, scale)
    )


def opened(model: Mapping[str, Any], device: str = "cpu") -> Segmenter:
    """A network from its options, as a study has them.

    Example:
        >>> opened({"model": "demo"}).num_classes
        8
    """
    options = dict(model)
    return load_model(options.pop("model"), **options, device=device)


def choice_of(images: Mapping[str, Any]) -> DataChoice:
    """Images as an experiment describes them, from the options of a study.

    Example:
        >>> choice_of({"data": "scenes:24x32", "size": "12x16", "limit": 3, "order": "spread"}).size
        (12, 16)
    """
    refuse_unknown("option of images", images, IMAGES)
    rest = {name: value for name, value in images.items() if name not in ("data", "size")}
    return DataChoice(images["data"], size=size(images.get("size")), **rest)


def weights_of(network: Network, out: Path, scale: Scale) -> Path | None:
    """The file of a network's weights; None of one that brings its own."""
    model = model_of(network, out, scale)
    file = Path(model["model"]).with_suffix(".safetensors") if network.train else model.get("weights")
    return None if file is None else Path(file)


def sha256_of(file: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _facts(network: Network, out: Path, scale: Scale) -> dict[str, Any]:
    """What decides what the network says, wherever it lies."""
    file = weights_of(network, out, scale)
    own = {name: value for name, value in network.options.items() if name != "weights"}
    return {"model": network.model, **own, "weights": sha256_of(file) if file is not None and file.is_file() else None}
