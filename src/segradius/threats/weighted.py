"""A weight for each band: ‖w ⊙ δ‖ ≤ ε, by the coordinates u = w ⊙ δ, in which the ball is that of the norm itself.

An attack on u knows nothing of weights: what the model sees is x + u/w, gradients are those with respect to u, g/w, and
the pixel box is [−w ⊙ x, w ⊙ (1 − x)]. So every step, search and estimate in the norm of u is the one that the weighted
norm asks for. A weight of inf is a band that is never changed: u/w and g/w are 0 there, and the box of u is {0}.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segradius.core.bands import told
from segradius.core.errors import InputError, shown
from segradius.core.text import number

LEAST, MOST = 1e-6, 1e6


def read_weights(given: str | Sequence[float] | None) -> tuple[float, ...]:
    """Weights of bands from what users write; none for None.

    Raises:
        InputError: They are not numbers in [1e-6, 1e6] or inf, or all are inf.

    Example:
        >>> read_weights("1, 1/2,inf"), read_weights([2, 3.0]), read_weights(None)
        ((1.0, 0.5, inf), (2.0, 3.0), ())
    """
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given
    try:
        found = tuple(_weight(part) for part in parts)
    except TypeError:
        raise InputError(f"band_weights is {shown(given)}; expected a number for each band, as 1,1,1,inf") from None
    if found and set(found) == {math.inf}:
        raise InputError(f"band_weights is {shown(given)}: with inf everywhere nothing may be changed")
    return found


def _weight(given: object) -> float:
    text = str(given).strip().lower()
    found = math.inf if text in ("inf", ".inf") else number("band_weights", given if isinstance(given, float) else text)
    if not (LEAST <= found <= MOST or found == math.inf):
        raise InputError(f"band_weights holds {shown(given)}; expected numbers in [{LEAST:g}, {MOST:g}], or inf")
    return float(found)


def check_number_of_weights(weights: Sequence[float], bands: int) -> None:
    """Raise `InputError` unless there is a weight for each of the bands."""
    if len(weights) != bands:
        raise InputError(f"band_weights has {len(weights)} numbers ({written(weights)}) for images of {told(bands)}")


def written(weights: Sequence[float]) -> str:
    """Weights as they are given.

    Example:
        >>> written((1.0, 0.5, math.inf))
        '1,0.5,inf'
    """
    return ",".join(f"{weight:.9g}" for weight in weights)


def factors(weights: tuple[float, ...], images: Tensor) -> Tensor:
    """W to multiply images (…, B, H, W) by, (B, 1, 1), in their type; `InputError` if there are not B of them."""
    check_number_of_weights(weights, images.shape[-3])
    return _column(weights, images.dtype, images.device)


def finite(weights: Tensor) -> Tensor:
    """w, and 0 where it is inf: what the pixel box is multiplied by."""
    return torch.where(weights.isinf(), 0.0, weights)


def weighted(delta: Tensor, weights: Tensor) -> Tensor:
    """W ⊙ δ, and 0 where δ is 0, whatever the weight.

    Example:
        >>> weighted(torch.tensor([0.0, 0.5]).view(2, 1, 1), torch.tensor([math.inf, 2.0]).view(2, 1, 1)).flatten()
        tensor([0., 1.])
    """
    return torch.where(delta == 0, 0.0, delta * weights)


# Kept, as a copy to a GPU at every step would wait for it.
@functools.lru_cache(maxsize=32)
def _column(weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(weights, dtype=dtype, device=device).view(-1, 1, 1)
