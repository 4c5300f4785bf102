"""What is checked once, at the border: images, and the logits that a network makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from segradius.errors import InputError
from segradius.prediction import SIMPLEX_TOLERANCE, are_probabilities


def check_images(images: Tensor) -> None:
    """Raise `InputError` unless ``images`` is floating, (N, 3, H, W), not empty, and within [0, 1].

    Example:
        >>> check_images(torch.full((1, 3, 2, 2), 255.0))
        Traceback (most recent call last):
        segradius.errors.InputError: images have values in [255, 255]; expected [0, 1]: divide 8-bit images by 255
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images are {kind}; expected a floating tensor in [0, 1]: divide 8-bit images by 255")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise InputError(f"images have shape {tuple(images.shape)}; expected (N, 3, H, W), none of them 0")
    low, high = images.aminmax()
    if torch.isnan(low) or torch.isnan(high):
        raise InputError(f"images {_rows(images.isnan())} hold NaN; expected values in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(f"images have values in [{low:g}, {high:g}]; expected [0, 1]: divide 8-bit images by 255")


def check_logits(logits: object, images: Tensor, num_classes: int, name: str, *, promised_log: bool) -> None:
    """Raise `InputError` unless ``logits`` can be the logits of ``images``.

    Args:
        logits: What came out of the network, decoded, before resizing.
        images: (N, 3, H, W).
        num_classes: C.
        name: The model's name, for the message.
        promised_log: Whether they are the logarithm of what was said to be probabilities.

    Raises:
        InputError: If they are not floating (N, C, h, w), have a NaN or +inf, are probabilities, or are the logarithm
            of numbers that are not.
    """
    _check_form(logits, len(images), num_classes, name)
    assert isinstance(logits, Tensor)
    bad = ~(logits < torch.inf)
    if bad.any():
        raise InputError(f"model {name!r} gives NaN or infinite logits for images {_rows(bad)} of the batch")
    if promised_log:
        if (logits.logsumexp(1).exp() - 1).abs().max() > SIMPLEX_TOLERANCE:
            raise InputError(
                f"model {name!r} was said to give probabilities, but they do not sum to one over the classes"
            )
    elif are_probabilities(logits):
        raise InputError(
            f"model {name!r} gives probabilities (in [0, 1], sum one over the classes) where logits are expected: give "
            'outputs="probabilities", which takes their logarithm, or remove the softmax'
        )


def _check_form(logits: object, images: int, num_classes: int, name: str) -> None:
    expected = f"expected floating logits ({images}, {num_classes}, h, w)"
    if not isinstance(logits, Tensor):
        raise InputError(f"model {name!r} gives a {type(logits).__name__}; {expected}")
    if not logits.is_floating_point():
        raise InputError(
            f"model {name!r} gives {logits.dtype} of shape {tuple(logits.shape)}; {expected}, not label maps"
        )
    if logits.ndim != 4 or tuple(logits.shape[:2]) != (images, num_classes) or 0 in logits.shape:
        raise InputError(f"model {name!r} gives shape {tuple(logits.shape)}; {expected}")


def _rows(bad: Tensor) -> str:
    return ", ".join(map(str, bad.flatten(1).any(1).nonzero().flatten().tolist()))
