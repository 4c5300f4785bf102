"""Random brightness, contrast and saturation: the light of another day."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_saturation


def coloured(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """An image after factors of brightness, contrast and saturation, each uniform in 1 ± ``strength``.

    Args:
        image: (3, H, W) in [0, 1].
        strength: In [0, 1]; 0 leaves the image as it is and draws nothing.
        generator: A generator on the CPU; three numbers are drawn.

    Returns:
        The image (3, H, W) in [0, 1].

    Example:
        >>> image = torch.full((3, 2, 2), 0.5)
        >>> changed = coloured(image, 0.4, torch.Generator().manual_seed(0))
        >>> bool((changed == changed[0, 0, 0]).all())  # grey stays grey, and flat
        True
    """
    if not strength:
        return image
    factors = (1 + strength * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)).tolist()
    for adjust, factor in zip((adjust_brightness, adjust_contrast, adjust_saturation), factors, strict=True):
        image = adjust(image, factor)
    return image.clamp(0, 1)
