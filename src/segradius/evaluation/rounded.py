"""What is left of an attack when the adversarial image is kept in 8 bits a value, as a PNG, or a camera, would."""

from __future__ import annotations

from torch import Tensor


def levels(images: Tensor) -> Tensor:
    """Images in [0, 1] in grey levels, rounded to whole ones from 0 to 255, halves to even.

    Example:
        >>> import torch
        >>> levels(torch.tensor([0.0, 0.5, 0.004, 1.0])).tolist()
        [0.0, 128.0, 1.0, 255.0]
    """
    return (images * 255).round()
