"""What a targeted attack aims at, from a word on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from segradius.core.errors import InputError, unknown_name
from segradius.core.randomness import Randomness
from segradius.data import Classes
from segradius.objectives.goal import one_class, random_classes


def make_target(spec: str, labels: Tensor, classes: Classes, num_classes: int, randomness: Randomness) -> Tensor:
    """Target labels for a batch; void stays void.

    Args:
        spec: ``"random"`` (one class drawn for each image), a class name, a class index, or the path of a mask image
            whose grey values or palette indices are classes, resized to the images by nearest neighbour.
        labels: (N, H, W) int64.
        classes: Names and ignore index.
        num_classes: Classes of the model.
        randomness: Keys of the N images.

    Returns:
        (N, H, W) int64.

    Raises:
        InputError: For an unknown word, an index that is no class, or a mask that cannot be read.

    Example:
        >>> classes = Classes(("sky", "road"), ((0, 0, 255), (128, 64, 128)))
        >>> make_target("road", torch.tensor([[[0, 255]]]), classes, 2, Randomness(0, ("a",))).tolist()
        [[[1, 255]]]
    """
    void = classes.ignore_index
    if spec == "random":
        return random_classes(labels, num_classes, randomness, ignore_index=void)
    names = [name.casefold() for name in classes.names]
    if spec.casefold() in names:
        return one_class(labels, names.index(spec.casefold()), num_classes, ignore_index=void)
    if spec.lstrip("-").isdigit():
        return one_class(labels, int(spec), num_classes, ignore_index=void)
    if not Path(spec).is_file():
        raise unknown_name("target", spec, ["random", *classes.names])
    mask = _mask(Path(spec), labels, num_classes, void)
    return torch.where(labels == void, labels, mask)


def _mask(path: Path, labels: Tensor, num_classes: int, void: int) -> Tensor:
    """The classes in an image file, at the size of ``labels`` and on their device."""
    try:
        with Image.open(path) as image:
            resized = image.resize((labels.shape[2], labels.shape[1]), Image.Resampling.NEAREST)
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"the target mask {path} cannot be read: {error}") from error
    mask = torch.from_numpy(np.array(resized).astype(np.int64)).to(labels.device)
    if mask.ndim != 2:
        raise InputError(f"the target mask {path} has {mask.shape[-1]} channels; expected one, or a palette")
    wrong = mask[(mask != void) & (mask >= num_classes)]
    if len(wrong):
        raise InputError(f"the target mask {path} holds {int(wrong[0])}; classes are 0 to {num_classes - 1}")
    return mask
