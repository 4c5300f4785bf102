"""The predicted class of each pixel, and its logit, faster than ``torch.max`` over the class dimension."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from segradius.core.contracts import LogitModel

#: Largest distance of a sum of probabilities from one that rounding explains, half precision included.
SIMPLEX_TOLERANCE = 1e-2

# Logits of a part, for each thread: a megabyte in float32.
_PART = 1 << 18


def predict(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit of each pixel and its class, the first in a tie.

    A reduction that also returns indices is not vectorised over the class dimension on a CPU. Finding the largest,
    and then where it stands, is several times as fast, and it is done in every step of an attack.

    Args:
        logits: (N, C, H, W).

    Returns:
        The largest logit (N, H, W), NaN where any logit of the pixel is, and its class (N, H, W) int64 (C − 1 for NaN);
        no gradient.

    Example:
        >>> top, classes = predict(torch.tensor([1.0, 3.0, 3.0]).view(1, 3, 1, 1))
        >>> top.item(), classes.item()
        (3.0, 1)
    """
    logits, shape = logits.detach(), (len(logits), *logits.shape[2:])
    top, classes = logits.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=logits.device)
    for images, rows in _parts(logits):
        part = logits[images, :, rows]
        largest = torch.amax(part, 1, out=top[images, rows])
        classes[images, rows] = _first(part, largest.unsqueeze(1))
    return top, classes


def _first(logits: Tensor, top: Tensor) -> Tensor:
    """The first class whose logit is the largest, (N, H, W), C − 1 where none is."""
    count = logits.shape[1]
    wins = _equal(logits, top).view(torch.uint8)  # a bool is a byte: nothing is copied
    wins = wins if count <= 255 else wins.int()
    rank = torch.arange(count, 0, -1, dtype=wins.dtype, device=logits.device).view(1, -1, 1, 1)
    return wins.mul_(rank).amax(1).neg_().add_(count).clamp_max_(count - 1)


def _equal(logits: Tensor, top: Tensor) -> Tensor:
    """Where a logit is the largest, (N, C, H, W) bool."""
    if logits.device.type != "cpu":
        return logits.eq(top)
    # A CPU compares several numbers at once only if the answer is of their own type.
    return torch.eq(logits, top, out=torch.empty_like(logits)).to(torch.bool)


def _parts(logits: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and rows of the parts whose working copies stay in a CPU's cache; an accelerator takes all at once."""
    count, classes, height, width = logits.shape
    most = _PART * torch.get_num_threads() if logits.device.type == "cpu" else logits.numel()
    together = max(1, most // max(1, classes * height * width))
    rows = max(1, height if together > 1 else most // max(1, classes * width))  # of no rows too
    for first in range(0, count, together):
        for row in range(0, height, rows):
            yield slice(first, first + together), slice(row, row + rows)


def predict_slices(slices: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """As `predict`, of logits that come some classes at a time, so that those of all need not be there at once.

    Args:
        slices: (N, c, H, W) each, which put together over the classes are (N, C, H, W); one or more.

    Example:
        >>> logits = torch.tensor([1.0, 3.0, 3.0]).view(1, 3, 1, 1)
        >>> top, classes = predict_slices(logits.split(1, 1))
        >>> top.item(), classes.item()
        (3.0, 1)
    """
    first, rest = 0, iter(slices)
    part = next(rest)
    top, classes = predict(part)
    for following in rest:
        first += part.shape[1]
        part = following
        larger, found = predict(part)
        classes = torch.where(larger > top, found.add_(first), classes)  # so that a tie stays with the lower class
        top = torch.maximum(top, larger)
    return top, classes.masked_fill_(top.isnan(), first + part.shape[1] - 1)


def predicted(model: LogitModel, images: Tensor, precision: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """As `predict` of a model's logits of images (N, B, H, W); by its own ``top_class``, which may be leaner, if any.

    Example:
        >>> class Pale:
        ...     def logits(self, images, precision=None):
        ...         return torch.cat([images, 1 - images], 1)
        >>> predicted(Pale(), torch.tensor([0.9]).view(1, 1, 1, 1))[1].item()
        0
    """
    own = getattr(model, "top_class", None)
    return predict(model.logits(images, precision)) if own is None else own(images, precision)


def are_probabilities(values: Tensor) -> bool:
    """Whether (N, C, H, W) values lie in [0, 1] and sum to one over the classes, as a softmax's; waits for the device.

    Example:
        >>> z = torch.randn(1, 4, 2, 2)
        >>> are_probabilities(z), are_probabilities(z.softmax(1))
        (False, True)
    """
    return not outside_unit(values) and off_one(values) < SIMPLEX_TOLERANCE


def are_sigmoids(values: Tensor) -> bool:
    """Whether (N, C, H, W) values are those of a sigmoid for each class: in [0, 1], one from below 0.1 to above 0.9.

    Logits keep to [0, 1] at best by chance, and then not up to both ends; one class that does not vary tells nothing.
    Waits for the device.

    Example:
        >>> z = torch.linspace(-4, 4, 16).view(1, 1, 4, 4)
        >>> are_sigmoids(z), are_sigmoids(z.sigmoid()), are_sigmoids(z.sigmoid() / 2)
        (False, True, False)
    """
    if outside_unit(values):
        return False
    by_class = values.transpose(0, 1).flatten(1)
    return bool(((by_class.amin(1) < 0.1) & (by_class.amax(1) > 0.9)).any())


def outside_unit(values: Tensor) -> str:
    """The range of values beyond [0, 1] by more than rounding explains; empty where they are not, or NaN; waits too.

    Example:
        >>> outside_unit(torch.tensor([-1.0, 0.5])), outside_unit(torch.tensor([0.0, 1.0]))
        ('[-1, 0.5]', '')
    """
    low, high = torch.stack(values.aminmax()).tolist()
    beyond = low < -SIMPLEX_TOLERANCE or high > 1 + SIMPLEX_TOLERANCE
    return f"[{low:.4g}, {high:.4g}]" if beyond else ""


def off_one(values: Tensor) -> float:
    """Largest distance from one of the sums over the classes of (N, C, H, W) values; waits for the device.

    Example:
        >>> off_one(torch.tensor([0.5, 0.25]).view(1, 2, 1, 1))
        0.25
    """
    return float((values.sum(1) - 1).abs().amax())
