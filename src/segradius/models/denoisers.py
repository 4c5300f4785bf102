"""Denoisers by name: a small residual network to be trained, and a blur that needs no training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError, is_whole, must
from segradius.models.denoising import DENOISERS


class ResidualDenoiser(nn.Module):
    """x ↦ x − r(x), r a small network of three scales that works on pixels in groups of four.

    As FFDNet (Zhang et al., 2018) it begins by making 2 × 2 pixels one with four times the bands, and as DnCNN (Zhang
    et al., 2017) it predicts the noise; it is not told σ. It begins as the identity. Images of any size are taken:
    sides are made multiples of 8 by repeating the border.

    Args:
        bands: B.
        widths: Channels at a half, a quarter and an eighth of the resolution.

    Example:
        >>> network = ResidualDenoiser(widths=(4, 4, 4))
        >>> images = torch.rand(2, 3, 13, 9)
        >>> torch.equal(network(images), images)
        True
    """

    def __init__(self, bands: int = 3, widths: Sequence[int] = (32, 48, 64)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.bands = bands
        self.enter = nn.Sequential(_conv(4 * bands, half), nn.ReLU(), _conv(half, half), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(half, quarter, 2, 2), nn.ReLU(), _conv(quarter, quarter), nn.ReLU())
        self.deep = nn.Sequential(
            *(nn.Conv2d(quarter, eighth, 2, 2), nn.ReLU(), _conv(eighth, eighth), nn.ReLU()),
            *(nn.ConvTranspose2d(eighth, quarter, 2, 2), nn.ReLU()),
        )
        self.up = nn.Sequential(_conv(quarter, quarter), nn.ReLU(), nn.ConvTranspose2d(quarter, half, 2, 2), nn.ReLU())
        self.leave = nn.Sequential(_conv(half, half), nn.ReLU(), _conv(half, 4 * bands))
        for parameter in self.leave[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Denoised images (N, B, H, W)."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
        half = self.enter(functional.pixel_unshuffle(padded, 2))
        quarter = self.down(half)
        quarter = quarter + self.deep(quarter)
        noise: Tensor = self.leave(half + self.up(quarter))
        return images - functional.pixel_shuffle(noise, 2)[..., :height, :width]


@DENOISERS.register("residual", trained=True)
def residual(bands: int = 3, widths: Sequence[int] = (32, 48, 64)) -> ResidualDenoiser:
    """A residual network of three scales, blind to σ, to be trained: 140 thousand weights.

    Args:
        bands: B.
        widths: Channels at a half, a quarter and an eighth of the resolution.
    """
    must(is_whole(bands, 1), "bands", bands, "a whole number of at least 1")
    if len(widths) != 3 or not all(is_whole(width, 1) for width in widths):
        raise InputError(f"widths is {list(widths)}; expected three whole numbers of at least 1")
    return ResidualDenoiser(bands, tuple(widths))


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur, the border repeated.

    Args:
        width: Its standard deviation in pixels, in (0, 100].

    Example:
        >>> bool((Blur(1.0)(torch.full((1, 3, 5, 7), 0.25)) - 0.25).abs().max() < 1e-6)
        True
    """

    width: float

    def __call__(self, images: Tensor) -> Tensor:
        """Blurred images (N, B, H, W)."""
        reach = math.ceil(3 * self.width)
        at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
        kernel = torch.softmax(-(at**2) / (2 * self.width**2), 0)
        bands = images.shape[1]
        padded = functional.pad(images, (reach,) * 4, mode="replicate")
        rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1).expand(bands, 1, -1, 1), groups=bands)
        return functional.conv2d(rows, kernel.view(1, 1, 1, -1).expand(bands, 1, 1, -1), groups=bands)


@DENOISERS.register("blur", trained=False)
def blur(width: float = 1.0) -> Blur:
    """A Gaussian blur of some pixels' width, without training: what a denoiser must beat.

    Args:
        width: Standard deviation in pixels, in (0, 100].
    """
    good = isinstance(width, int | float) and not isinstance(width, bool) and 0 < width <= 100
    must(good, "width", width, "a number of pixels in (0, 100]")
    return Blur(float(width))


def _conv(given: int, made: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1)
