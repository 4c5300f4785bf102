"""What is checked once, at the border: images before a network is asked, and its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from segradius.core.bands import slices
from segradius.core.errors import InputError
from segradius.core.prediction import SIMPLEX_TOLERANCE, are_probabilities, are_sigmoids
from segradius.models.decoding import one_channel


def check_images(images: Tensor) -> None:
    """Raise `InputError` unless ``images`` is floating, (N, B, H, W), not empty, and within [0, 1].

    Example:
        >>> check_images(torch.full((1, 3, 2, 2), 255.0))
        Traceback (most recent call last):
        segradius.core.errors.InputError: images have values in [255, 255]; expected [0, 1]: divide 8-bit images by 255
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images are {kind}; expected a floating tensor in [0, 1]: divide 8-bit images by 255")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"images have shape {tuple(images.shape)}; expected (N, B, H, W), none of them 0{slices(images)}"
        )
    low, high = images.aminmax()
    if torch.isnan(low) or torch.isnan(high):
        raise InputError(f"images {_rows(images.isnan())} hold NaN; expected values in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(f"images have values in [{low:g}, {high:g}]; expected [0, 1]: divide 8-bit images by 255")


def check_logits(logits: object, images: Tensor, num_classes: int, name: str, *, kind: str = "logits") -> None:
    """Raise `InputError` unless ``logits`` can be the logits of ``images``.

    Args:
        logits: What came out of the network, decoded, before resizing.
        images: (N, B, H, W).
        num_classes: C.
        name: The model's name, for the message.
        kind: What the network was said to give, as `Decoding` has it; empty where a function decides.

    Raises:
        InputError: If they are not floating (N, C, h, w), have a NaN or +inf, are probabilities or sigmoids, or are
            the logarithm of numbers that are not.
    """
    check_form(logits, len(images), num_classes, name)
    assert isinstance(logits, Tensor)
    bad = ~(logits < torch.inf)
    if bad.any():
        raise InputError(f"model {name!r} gives NaN or infinite logits for images {_rows(bad)} of the batch")
    if kind == "probabilities":
        if (logits.logsumexp(1).exp() - 1).abs().max() > SIMPLEX_TOLERANCE:
            raise InputError(
                f"model {name!r} was said to give probabilities, but they do not sum to one over the classes"
            )
        return
    if kind not in ("", "logits", "masked_logits"):
        return  # undone sigmoids, and what has two values a channel, may lie anywhere
    refuse_activations(logits, name)


def refuse_activations(logits: Tensor, name: str) -> None:
    """Raise `InputError`, with the way out, for (N, C, h, w) values of a softmax, or sigmoids, where logits belong.

    Args:
        logits: Of images that are not of one colour, which cannot tell.
        name: The model's name, for the message.
    """
    if are_probabilities(logits):
        raise InputError(
            f"model {name!r} gives probabilities (in [0, 1], sum one over the classes) where logits are expected: give "
            'outputs="probabilities" (--outputs probabilities), which takes their logarithm, or remove the softmax'
        )
    if are_sigmoids(logits):
        raise InputError(
            f"model {name!r} gives one sigmoid a class (values from end to end of [0, 1] with sums that are not one) "
            'where logits are expected, so attacks find too little: remove the sigmoid, or give outputs="sigmoids" '
            "(--outputs sigmoids), which undoes it; or multilabel, if a pixel may be of several classes"
        )


def check_form(logits: object, images: int, num_classes: int, name: str) -> None:
    """Raise `InputError` unless logits are a floating tensor (images, num_classes, h, w) of the model with this name.

    Example:
        >>> check_form(torch.zeros(2, 5), 2, 5, "net")
        Traceback (most recent call last):
        segradius.core.errors.InputError: model 'net' gives shape (2, 5); expected floating logits (2, 5, h, w)
    """
    expected = f"expected floating logits ({images}, {num_classes}, h, w)"
    if not isinstance(logits, Tensor):
        raise InputError(f"model {name!r} gives a {type(logits).__name__}; {expected}")
    if not logits.is_floating_point():
        raise InputError(
            f"model {name!r} gives {logits.dtype} of shape {tuple(logits.shape)}; {expected}, not label maps"
        )
    if logits.ndim != 4 or tuple(logits.shape[:2]) != (images, num_classes) or 0 in logits.shape:
        more = f". {one_channel(logits)}" if logits.ndim == 3 or logits.shape[1:2] == (1,) else ""
        raise InputError(f"model {name!r} gives shape {tuple(logits.shape)}; {expected}{more}")


def _rows(bad: Tensor) -> str:
    return ", ".join(map(str, bad.flatten(1).any(1).nonzero().flatten().tolist()))
