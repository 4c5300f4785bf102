"""What an attack may be given: checked here, once, with the image and the value in every error."""

from __future__ import annotations

import torch
from torch import Tensor

from segradius.core.bands import slices
from segradius.core.errors import InputError


def check_batch(images: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255) -> None:
    """Raise `InputError` unless images are (N, B, H, W) floats in [0, 1] and labels (N, H, W) int64 classes or void."""
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a torch tensor, got a {type(value).__name__}")
    if not images.is_floating_point():
        raise InputError(f"images must be floating point in [0, 1], got {images.dtype}: divide 8-bit images by 255")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"images must be (N, B, H, W), N ≥ 1 and none of them 0, got {tuple(images.shape)}{slices(images)}"
        )
    if not torch.isfinite(images).all():
        raise InputError(f"image {_first(~torch.isfinite(images))} holds NaN or infinity")
    low, high = images.amin().item(), images.amax().item()
    if low < 0 or high > 1:
        raise InputError(
            f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: pass them before normalisation (the "
            "model wrapper normalises) and divide 8-bit images by 255"
        )
    if labels.shape != (len(images), *images.shape[2:]):
        raise InputError(f"labels {tuple(labels.shape)} do not fit images {tuple(images.shape)}: expected (N, H, W)")
    if labels.device != images.device:
        raise InputError(f"labels are on {labels.device}, images on {images.device}")
    check_labels(labels, num_classes, ignore_index)


def check_labels(
    labels: Tensor, num_classes: int, ignore_index: int, *, name: str = "labels", like: Tensor | None = None
) -> None:
    """Raise `InputError`, naming the first bad pixel, unless labels are int64 in [0, C) or ``ignore_index``."""
    if labels.dtype != torch.int64:
        raise InputError(f"{name} must be int64, got {labels.dtype}: use .long()")
    if like is not None and labels.shape != like.shape:
        raise InputError(f"{name} must be {tuple(like.shape)}, got {tuple(labels.shape)}")
    wrong = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    if wrong.any():
        image, row, column = (int(i) for i in wrong.nonzero()[0])
        raise InputError(
            f"{name}: value {labels[image, row, column].item()} in image {image} at row {row}, column {column}; "
            f"expected 0 to {num_classes - 1}, or {ignore_index} for void"
        )


def check_mask(name: str, mask: Tensor | None, labels: Tensor) -> None:
    """Raise `InputError` unless a mask is none or bool of the shape of the labels."""
    if mask is not None and (mask.dtype != torch.bool or mask.shape != labels.shape):
        raise InputError(f"{name} must be bool {tuple(labels.shape)}, got {mask.dtype} {tuple(mask.shape)}")


def _first(where: Tensor) -> int:
    return int(where.flatten(1).any(1).nonzero()[0])
