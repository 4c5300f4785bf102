"""UperNet: a pyramid of pooled and of finer maps over a trunk of four stages, here a ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.models.networks.convnext import ConvNeXt
from segradius.models.networks.resnet import check_count

BINS = (1, 2, 3, 6)


class ConvModule(nn.Module):
    """Convolution without bias that keeps the size, batch normalisation, rectifier.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Side of the kernel, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.batch_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, outputs, h, w)."""
        return functional.relu(self.batch_norm(self.conv(x)))


class UperHead(nn.Module):
    """The decoder (Xiao et al., "Unified Perceptual Parsing", ECCV 2018): maps of four stages to logits at the finest.

    Args:
        widths: Channels of the maps, finest first.
        channels: Of every map of the decoder.
        num_classes: C.

    Example:
        >>> maps = [torch.rand(1, 4, 12, 8), torch.rand(1, 6, 6, 4), torch.rand(1, 8, 3, 2), torch.rand(1, 9, 2, 1)]
        >>> UperHead((4, 6, 8, 9), 10, 5).eval()(maps).shape
        torch.Size([1, 5, 12, 8])
    """

    def __init__(self, widths: Sequence[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), ConvModule(widths[-1], channels, 1)) for cells in BINS
        )
        self.bottleneck = ConvModule(widths[-1] + len(BINS) * channels, channels)
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1) for width in widths[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels) for _ in widths[:-1])
        self.fpn_bottleneck = ConvModule(len(widths) * channels, channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (N, C, h, w) at the size of the first map.

        Args:
            maps: One (N, widths[i], hᵢ, wᵢ) for each stage, finest first.
        """
        deepest = maps[-1]
        pooled = [_resized(branch(deepest), deepest) for branch in self.psp_modules]
        rows = [lateral(x) for lateral, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        rows.append(self.bottleneck(torch.cat([deepest, *pooled], 1)))
        for i in range(len(rows) - 1, 0, -1):
            rows[i - 1] = rows[i - 1] + _resized(rows[i], rows[i - 1])
        rows = [*(conv(row) for conv, row in zip(self.fpn_convs, rows[:-1], strict=True)), rows[-1]]
        joined = torch.cat([rows[0], *(_resized(row, rows[0]) for row in rows[1:])], 1)
        found: Tensor = self.classifier(self.fpn_bottleneck(joined))
        return found


class AuxiliaryHead(nn.Module):
    """A classifier on the map of the third stage, for an auxiliary loss.

    Args:
        width: Channels of that map.
        channels: Between its two convolutions.
        num_classes: C.
    """

    def __init__(self, width: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvModule(width, channels))
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) → logits (N, C, h, w)."""
        found: Tensor = self.classifier(self.convs(x))
        return found


class UperNet(nn.Module):
    """UperNet over a ConvNeXt, with the layout and state-dict names of nmndeep/Robust-Segmentation (SEA's models).

    Any size of at least 32 × 32 goes in. Those checkpoints take images in [0, 1] as they are, without normalisation.

    Args:
        num_classes: C, at least 1.
        depths: Blocks of each stage of the trunk.
        widths: Channels of each stage.
        channels: Of the decoder.
        aux_channels: Of the auxiliary head.
        stem: See `segradius.models.networks.convnext.ConvNeXt`.
        drop_path: Likewise.
        aux: Whether there is an auxiliary head on stage 3, for training.

    Raises:
        InputError: If an argument is outside its range.

    Example:
        >>> small = {"depths": (1, 1, 1, 1), "widths": (4, 6, 8, 10), "channels": 8, "aux_channels": 8}
        >>> network = UperNet(5, **small)
        >>> {name: tuple(x.shape) for name, x in network(torch.rand(2, 3, 65, 70)).items()}
        {'out': (2, 5, 65, 70), 'aux': (2, 5, 65, 70)}
        >>> list(network.eval()(torch.rand(1, 3, 65, 70)))
        ['out']
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ("auxiliary_head.",)
    IGNORED: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        num_classes: int = 21,
        *,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        channels: int = 512,
        aux_channels: int = 256,
        stem: str = "cvst",
        drop_path: float = 0.0,
        aux: bool = True,
    ) -> None:
        super().__init__()
        for name, number in {"num_classes": num_classes, "channels": channels, "aux_channels": aux_channels}.items():
            check_count(name, number)
        self.backbone = ConvNeXt(depths, widths, stem=stem, drop_path=drop_path)
        self.decode_head = UperHead(widths, channels, num_classes)
        self.auxiliary_head = AuxiliaryHead(widths[2], aux_channels, num_classes) if aux else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits at the size of the input.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            ``out``, (N, C, H, W), and in training mode ``aux`` of that shape, if there is an auxiliary head.
        """
        maps = self.backbone(x)
        logits = {"out": _resized(self.decode_head(maps), x)}
        if self.training and self.auxiliary_head is not None:
            logits["aux"] = _resized(self.auxiliary_head(maps[2]), x)
        return logits


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
