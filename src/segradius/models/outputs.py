"""From what a network returns to logits at the image's size, and what is checked of them once, at the border."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.bands import slices
from segradius.core.errors import InputError, unknown_name
from segradius.core.prediction import SIMPLEX_TOLERANCE, are_probabilities, are_sigmoids


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


def check_logits(logits: object, images: Tensor, num_classes: int, name: str, *, promised_log: bool) -> None:
    """Raise `InputError` unless ``logits`` can be the logits of ``images``.

    Args:
        logits: What came out of the network, decoded, before resizing.
        images: (N, B, H, W).
        num_classes: C.
        name: The model's name, for the message.
        promised_log: Whether they are the logarithm of what was said to be probabilities.

    Raises:
        InputError: If they are not floating (N, C, h, w), have a NaN or +inf, are probabilities or sigmoids, or are
            the logarithm of numbers that are not.
    """
    check_form(logits, len(images), num_classes, name)
    assert isinstance(logits, Tensor)
    bad = ~(logits < torch.inf)
    if bad.any():
        raise InputError(f"model {name!r} gives NaN or infinite logits for images {_rows(bad)} of the batch")
    if promised_log:
        if (logits.logsumexp(1).exp() - 1).abs().max() > SIMPLEX_TOLERANCE:
            raise InputError(
                f"model {name!r} was said to give probabilities, but they do not sum to one over the classes"
            )
        return
    if are_probabilities(logits):
        raise InputError(
            f"model {name!r} gives probabilities (in [0, 1], sum one over the classes) where logits are expected: give "
            'outputs="probabilities" (--outputs probabilities), which takes their logarithm, or remove the softmax'
        )
    refuse_sigmoids(logits, name)


def refuse_sigmoids(logits: Tensor, name: str) -> None:
    """Raise `InputError`, with the way out, for (N, C, h, w) values that are sigmoids where logits were promised.

    Args:
        logits: Of images that are not of one colour, which cannot tell.
        name: The model's name, for the message.
    """
    if are_sigmoids(logits):
        raise InputError(
            f"model {name!r} gives one sigmoid a class (values from end to end of [0, 1] with sums that are not one) "
            'where logits are expected, so attacks find too little: remove the sigmoid, or give outputs="sigmoids" '
            "(--outputs sigmoids), which undoes it"
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
        raise InputError(f"model {name!r} gives shape {tuple(logits.shape)}; {expected}")


def _rows(bad: Tensor) -> str:
    return ", ".join(map(str, bad.flatten(1).any(1).nonzero().flatten().tolist()))


Decode = Callable[[Any], Tensor]


def main_output(raw: Any) -> Tensor:
    """The logits in a network's output.

    Args:
        raw: A tensor; a mapping with ``out`` (torchvision) or ``logits``; an object with ``.logits`` or with
            ``.class_queries_logits`` and ``.masks_queries_logits`` (transformers); a tuple or list whose first entry is
            the main output (auxiliary heads after it).

    Returns:
        The logits. For queries, `query_log_scores`.

    Raises:
        InputError: If it is none of these.

    Example:
        >>> z = torch.zeros(1, 5, 4, 4)
        >>> main_output({"out": z, "aux": z + 1}) is z and main_output((z, z + 1)) is z
        True
    """
    if isinstance(raw, Tensor):
        return raw
    queries, masks = _entry(raw, "class_queries_logits"), _entry(raw, "masks_queries_logits")
    if isinstance(queries, Tensor) and isinstance(masks, Tensor):
        return query_log_scores(queries, masks)
    for key in ("out", "logits"):
        if isinstance(value := _entry(raw, key), Tensor):
            return value
    if isinstance(raw, (tuple, list)) and raw:
        return main_output(raw[0])
    raise InputError(
        f"the network returned {_described(raw)}; expected a tensor (N, C, h, w), a mapping with 'out' or 'logits', an "
        "object with .logits, or a tuple of them with the main output first. Pass outputs=FUNCTION to pick it yourself"
    )


def log_probabilities(raw: Any) -> Tensor:
    """Logarithm of the main output of a network that returns probabilities; finite, as 0 counts as 1.2e-38 (float32).

    Softmax of the result gives the probabilities back.
    """
    p = _at_least_float32(main_output(raw))
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def undo_sigmoids(raw: Any) -> Tensor:
    """The logits z of a network that returns one sigmoid a class, σ(z); NaN where a value is not in [0, 1].

    Finite otherwise, as σ counts as at least 1.2e-7 (float32) away from 0 and 1. Beyond z = 17 a sigmoid has no
    gradient left, which this cannot bring back: without the sigmoid an attack finds more.

    Example:
        >>> undo_sigmoids(torch.tensor([-3.0, 0.0, 3.0]).sigmoid().view(1, 3, 1, 1)).flatten()
        tensor([-3.0000,  0.0000,  3.0000])
    """
    p = _at_least_float32(main_output(raw))
    outside = (p.detach() - 0.5).abs() > 0.5 + SIMPLEX_TOLERANCE
    return torch.logit(p, eps=torch.finfo(p.dtype).eps).masked_fill(outside, torch.nan)


def query_log_scores(queries: Tensor, masks: Tensor) -> Tensor:
    """Log of the class × mask scores of MaskFormer and Mask2Former.

    With q over queries, s_c(i) = Σ_q softmax(queries_q)_c · sigmoid(masks_q(i)), without the last class ("no object"),
    as in Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation" (CVPR 2022). The scores are
    not logits: they lie in (0, Q). Their logarithm has the same argmax, and its softmax is s_c / Σ_c s_c, so losses and
    radii that take logits can take it.

    Args:
        queries: Class logits (N, Q, C + 1) of each query.
        masks: Mask logits (N, Q, h, w) of each query.

    Returns:
        Log scores (N, C, h, w), finite: scores below the dtype's smallest normal number count as it.

    Example:
        >>> one_query = torch.tensor([[[0.0, 0.0, 0.0]]])
        >>> query_log_scores(one_query, torch.zeros(1, 1, 1, 1)).exp().flatten()  # 1/3 · 1/2
        tensor([0.1667, 0.1667])
    """
    log_class = functional.log_softmax(_at_least_float32(queries), dim=-1)[..., :-1]
    log_mask = functional.logsigmoid(_at_least_float32(masks))
    # The largest factors are taken out before the exponential, so that small scores do not underflow.
    top_class, top_mask = log_class.amax(1, keepdim=True).detach(), log_mask.amax(1, keepdim=True).detach()
    scores = torch.einsum("nqc,nqhw->nchw", (log_class - top_class).exp(), (log_mask - top_mask).exp())
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() + top_class.mT[..., None] + top_mask


OUTPUTS: Mapping[str, Decode] = {
    "logits": main_output,
    "probabilities": log_probabilities,
    "sigmoids": undo_sigmoids,
}


def as_decode(outputs: str | Decode) -> Decode:
    """The function that turns raw outputs into logits.

    Args:
        outputs: ``"logits"``, ``"probabilities"``, ``"sigmoids"`` (one a class), or a function from the raw output to
            logits (N, C, h, w).

    Raises:
        InputError: On another name.

    Example:
        >>> as_decode("logits") is main_output
        True
    """
    if callable(outputs):
        return outputs
    if outputs not in OUTPUTS:
        raise unknown_name("kind of outputs", str(outputs), OUTPUTS)
    return OUTPUTS[outputs]


def _entry(raw: Any, key: str) -> Any:
    return raw.get(key) if isinstance(raw, Mapping) else getattr(raw, key, None)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _described(raw: Any) -> str:
    if isinstance(raw, Mapping):
        return f"a {type(raw).__name__} with {', '.join(map(repr, raw)) or 'no entries'}"
    return f"a {type(raw).__name__}"
