"""What deployed models make of an image on its way to them: bytes, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segradius.errors import InputError


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest of 255, halves up.

    Example:
        >>> to_bytes(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    return exact.mul(255).add(0.5).floor().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Uint8:
    """Images rounded to the nearest of 255 steps, halves up, as a PNG holds them.

    Example:
        >>> Uint8()(torch.tensor([0.5])).mul(255).item()
        128.0
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Images like ``images``."""
        return to_bytes(images).to(images.dtype).div_(255)


@dataclass(frozen=True)
class Jpeg:
    """Images as JPEG holds them, each by itself, colour at half the resolution as usual.

    Args:
        quality: 1 to 95.

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 128 / 255)
        >>> bool((Jpeg(90)(grey) == grey).all())
        True
    """

    quality: int

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise InputError(f"jpeg={self.quality}: expected a quality of 1 to 95")

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) like ``images``; waits for the device."""
        pixels = to_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
        decoded = torch.from_numpy(np.stack([self._through(image) for image in pixels]))
        return decoded.permute(0, 3, 1, 2).contiguous().to(images.device, images.dtype).div_(255)

    def _through(self, pixels: NDArray[Any]) -> NDArray[Any]:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality)
        with Image.open(file) as image:
            return np.array(image)
