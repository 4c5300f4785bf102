"""ConvNeXt as the trunk of a segmentation network: four stages, at 1/4 to 1/32 of the image, each with its own norm.

After Liu et al., "A ConvNet for the 2020s" (CVPR 2022); the stem of two strided convolutions after Singh, Croce and
Hein, "Revisiting Adversarial Training for ImageNet" (NeurIPS 2023), whose robust trunks have it. Names in the state
dict are those of nmndeep/Robust-Segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from segradius.core.errors import InputError, one_of
from segradius.models.networks.resnet import check_count

STEMS = ("cvst", "patch")
EPS = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each pixel over its channels; (N, C, H, W) in and out.

    Args:
        channels: C.

    Example:
        >>> ChannelNorm(4)(torch.rand(1, 4, 2, 3)).mean(1).abs().max().item() < 1e-5
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A 7 × 7 convolution of each channel, two linear layers of each pixel, both scaled and added to the input.

    Args:
        channels: Of input and output; four times as many between the linear layers.
        drop: Chance of the whole branch to be dropped for an image in training, in [0, 1).

    Example:
        >>> Block(6)(torch.rand(2, 6, 5, 7)).shape
        torch.Size([2, 6, 5, 7])
    """

    def __init__(self, channels: int, drop: float = 0.0) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.drop_path = StochasticDepth(drop, "row") if drop else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → the same shape."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        total: Tensor = x + self.drop_path(y.permute(0, 3, 1, 2))
        return total


class ConvStem(nn.Module):
    """Two 3 × 3 convolutions of stride 2, each normalised and rectified; (N, 3, H, W) → (N, channels, ⌈H/4⌉, ⌈W/4⌉).

    Args:
        channels: That go out, an even number; half as many lie between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        first = nn.Conv2d(3, half, 3, stride=2, padding=1), ChannelNorm(half), nn.GELU()
        second = nn.Conv2d(half, channels, 3, stride=2, padding=1), ChannelNorm(channels), nn.GELU()
        self.stem = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        """The map that the first stage starts from."""
        found: Tensor = self.stem(x)
        return found


class ConvNeXt(nn.Module):
    """The trunk: a stem and four stages of blocks, between them convolutions of 2 × 2 that halve the map.

    Args:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        stem: ``cvst`` for two strided convolutions, ``patch`` for one of 4 × 4, as ConvNeXt was published.
        drop_path: Chance of the last block's branch to be dropped in training, in [0, 1); earlier ones evenly less.

    Raises:
        InputError: If there are not four depths and widths of at least 1, the first width is odd, or another argument
            is outside its range.

    Example:
        >>> [tuple(y.shape) for y in ConvNeXt((1, 1, 1, 1), (4, 6, 8, 10))(torch.rand(1, 3, 65, 40))]
        [(1, 4, 17, 10), (1, 6, 8, 5), (1, 8, 4, 2), (1, 10, 2, 1)]
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], *, stem: str = "cvst", drop_path: float = 0.0
    ) -> None:
        super().__init__()
        _check(depths, widths, drop_path)
        one_of(STEMS, stem=stem)
        first: nn.Module = ConvStem(widths[0])
        if stem == "patch":
            first = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), ChannelNorm(widths[0]))
        between = (nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, stride=2)) for a, b in pairwise(widths))
        self.downsample_layers = nn.ModuleList([first, *between])
        drops = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, next(drops)) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm0, self.norm1, self.norm2, self.norm3 = (ChannelNorm(width) for width in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The normalised map of each stage, finest first.

        Args:
            x: Images (N, 3, H, W), with sides of at least 32.
        """
        found = []
        for reduce, blocks, norm in zip(
            self.downsample_layers, self.stages, (self.norm0, self.norm1, self.norm2, self.norm3), strict=True
        ):
            x = blocks(reduce(x))
            found.append(norm(x))
        return found


def _check(depths: Sequence[int], widths: Sequence[int], drop_path: float) -> None:
    """Raise `InputError` on arguments of `ConvNeXt` outside their range."""
    for name, numbers in (("depths", depths), ("widths", widths)):
        if not isinstance(numbers, Sequence) or len(numbers) != 4:
            raise InputError(f"{name}={numbers!r}: expected four whole numbers, one a stage")
        for number in numbers:
            check_count(name, number)
    if widths[0] % 2:
        raise InputError(f"widths={tuple(widths)!r}: expected an even number of channels in the first stage")
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path={drop_path!r}: expected a probability in [0, 1)")
