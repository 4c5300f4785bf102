"""Whether the values that a served network gives are what was promised of them."""

from __future__ import annotations

from torch import Tensor

from segradius.errors import TargetError
from segradius.prediction import SIMPLEX_TOLERANCE


def check_values(values: Tensor, kind: str) -> None:
    """Raise `TargetError` unless values (N, C, h, w) can be of this kind; the message says what to do.

    Args:
        values: An answer.
        kind: ``"probabilities"``, ``"logits"`` or ``"scores"``.

    Example:
        >>> import torch
        >>> check_values(torch.full((1, 2, 1, 1), 3.0), "probabilities")
        Traceback (most recent call last):
        segradius.errors.TargetError: the answers lie in [3, 3]; expected [0, 1]: give outputs=logits if the model ...
    """
    if not values.isfinite().all():
        raise TargetError("the first answer holds NaN or infinite values; expected finite ones")
    low, high = float(values.amin()), float(values.amax())
    inside = low >= -SIMPLEX_TOLERANCE and high <= 1 + SIMPLEX_TOLERANCE
    off = float((values.sum(1) - 1).abs().amax())
    if kind == "logits":
        if inside and off < SIMPLEX_TOLERANCE:
            raise TargetError(
                "the answers are probabilities (in [0, 1], sum one over the classes) where logits were promised: leave "
                "out outputs=logits"
            )
        return
    if not inside:
        raise TargetError(
            f"the answers lie in [{low:.4g}, {high:.4g}]; expected [0, 1]: give outputs=logits if the model has no "
            "softmax"
        )
    if kind == "probabilities" and off >= SIMPLEX_TOLERANCE:
        raise TargetError(
            f"the answers sum to one only within {off:.4g} over the classes: give outputs=logits if the model has no "
            "softmax, outputs=scores if it gives its best classes only or was trained with sigmoids"
        )
