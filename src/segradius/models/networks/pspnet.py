"""PSPNet: a dilated ResNet that sees its surroundings through a pyramid of averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.models.networks.resnet import check_count, dilated_resnet, head, rectified, resize


class PyramidPooling(nn.Module):
    """Averages over grids of 1 × 1, 2 × 2, … cells, each squeezed, resized back and appended to the input.

    Args:
        channels: Channels that come in; each grid adds channels // len(bins).
        bins: Cells along a side of each grid, each at least 1.

    Raises:
        InputError: If ``bins`` is empty, longer than ``channels``, or holds anything but whole numbers above zero.

    Example:
        >>> PyramidPooling(8, (1, 2)).eval()(torch.rand(1, 8, 5, 7)).shape
        torch.Size([1, 16, 5, 7])
    """

    def __init__(self, channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        if not 0 < len(bins) <= channels:
            raise InputError(f"bins={tuple(bins)!r}: expected between 1 and {channels} grids")
        for cells in bins:
            check_count("bins", cells)
        each = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), *rectified(channels, each)) for cells in bins
        )
        self.outputs = channels + each * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, outputs, h, w), the input first."""
        height, width = x.shape[-2:]
        return torch.cat([x, *(resize(branch(x), height, width) for branch in self.features)], dim=1)


class PSPNet(nn.Module):
    """Pyramid scene parsing network (Zhao et al., CVPR 2017), with the layout and state-dict names of hszhao/semseg.

    Any size of at least 1 × 1 goes in. Training needs two images or more a batch: the average over a whole image is
    normalised over the batch.

    Args:
        num_classes: C, at least 1.
        layers: Depth of the ResNet: 18, 34, 50, 101 or 152.
        width: Channels of its first convolution; 64 is the published width.
        bins: Cells along a side of each pooling grid.
        dropout: Chance of each channel before the classifier to be dropped in training, in [0, 1].
        aux: Whether there is an auxiliary head on stage 3, for training.

    Raises:
        InputError: If an argument is outside its range.

    Example:
        >>> PSPNet(5, layers=18, width=8).eval()(torch.rand(1, 3, 30, 41))["out"].shape
        torch.Size([1, 5, 30, 41])
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ("aux.",)
    IGNORED: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        num_classes: int = 21,
        *,
        layers: int = 50,
        width: int = 64,
        bins: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        aux: bool = True,
    ) -> None:
        super().__init__()
        trunk = dilated_resnet(layers, width)
        self.layer0, self.layer1, self.layer2, self.layer3, self.layer4 = trunk.stages
        self.ppm = PyramidPooling(trunk.deep, bins)
        self.cls = head(self.ppm.outputs, trunk.deep, num_classes, dropout)
        self.aux = head(trunk.early, trunk.early, num_classes, dropout) if aux else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits at the size of the input.

        Args:
            x: Normalised images (N, 3, H, W).

        Returns:
            ``out``, (N, C, H, W), and in training mode ``aux`` of that shape, if there is an auxiliary head.
        """
        height, width = x.shape[-2:]
        early = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        logits = {"out": resize(self.cls(self.ppm(self.layer4(early))), height, width)}
        if self.training and self.aux is not None:
            logits["aux"] = resize(self.aux(early), height, width)
        return logits
