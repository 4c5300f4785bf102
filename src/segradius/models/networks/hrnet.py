"""HRNet's parallel branches: residual blocks, the exchange between resolutions, and the way to one branch more.

After Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition" (TPAMI 2020). Names in the
state dict are those of the public implementation (HRNet/HRNet-Semantic-Segmentation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError, is_whole

EXPANSION = 4


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the identity; (N, width, H, W) in and out.

    Args:
        width: Number of channels.

    Example:
        >>> BasicBlock(8)(torch.zeros(2, 8, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = convolution(width, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.relu(self.bn1(self.conv1(x)))
        total: Tensor = self.relu(self.bn2(self.conv2(y)) + x)
        return total


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution and the identity, projected where the number of channels changes.

    Args:
        inputs: Channels of the input (N, inputs, H, W).
        width: Channels of the 3×3 convolution; the output is (N, 4·width, H, W).

    Example:
        >>> Bottleneck(6, 4)(torch.zeros(2, 6, 5, 6)).shape
        torch.Size([2, 16, 5, 6])
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = convolution(inputs, width, kernel=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, outputs, kernel=1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Identity() if inputs == outputs else normalised(inputs, outputs, kernel=1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        total: Tensor = self.relu(self.bn3(self.conv3(y)) + self.downsample(x))
        return total


class HighResolutionModule(nn.Module):
    """Residual blocks on each branch, then every branch receives the sum of all, resampled to it.

    From a coarser branch: 1×1 convolution and bilinear upsampling. From a finer one: 3×3 convolutions of stride 2, one
    for each halving, of which the last changes the number of channels and has no ReLU.

    Args:
        widths: Channels of the branches, finest first; each branch has half the resolution of the one before.
        blocks: Residual blocks of each branch.
        align_corners: Whether bilinear upsampling aligns the centres of the corner pixels.

    Example:
        >>> maps = HighResolutionModule((4, 8), 1)([torch.zeros(2, 4, 6, 6), torch.zeros(2, 8, 3, 3)])
        >>> [tuple(y.shape) for y in maps]
        [(2, 4, 6, 6), (2, 8, 3, 3)]
    """

    def __init__(self, widths: Sequence[int], blocks: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w) for _ in range(blocks))) for w in widths)
        branches = range(len(widths))
        self.fuse_layers = nn.ModuleList(nn.ModuleList(_resampling(widths, j, i) for j in branches) for i in branches)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the branches, of the same shapes as those given.

        Args:
            maps: One (N, widths[i], Hᵢ, Wᵢ) for each branch, finest first.
        """
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._fused(maps, i) for i in range(len(maps))]

    def _fused(self, maps: list[Tensor], i: int) -> Tensor:
        row: nn.ModuleList = self.fuse_layers[i]  # type: ignore[assignment]
        total: Tensor = row[0](maps[0])
        for j in range(1, len(maps)):
            received = row[j](maps[j])
            total = total + (upsampled(received, maps[i], self.align_corners) if j > i else received)
        return torch.relu(total)


class Branches(nn.Module):
    """The trunk: a stem of stride 4 and four stages, at whose end four branches lie side by side.

    It is inherited, as published checkpoints name its parts beside those of a head.

    Args:
        width: Channels of the finest branch; the others have 2, 4 and 8 times as many.
        stem: Channels of the stem; the first stage ends in 4 times as many.
        modules: Exchange modules of the stages 2, 3 and 4.
        blocks: Residual blocks on each branch of an exchange module.
        layer1_blocks: Bottlenecks of the first stage.
        align_corners: Whether bilinear upsampling aligns the centres of the corner pixels.

    Raises:
        InputError: If a size is not a whole number of at least 1, or there are not three ``modules``.

    Example:
        >>> trunk = Branches(width=2, stem=4, modules=(1, 1, 1), blocks=1, layer1_blocks=1, align_corners=True)
        >>> trunk.eval().joined(torch.zeros(1, 3, 40, 57)).shape
        torch.Size([1, 30, 10, 15])
    """

    def __init__(
        self, width: int, stem: int, modules: Sequence[int], blocks: int, layer1_blocks: int, align_corners: bool
    ) -> None:
        super().__init__()
        _check({"width": width, "stem": stem, "blocks": blocks, "layer1_blocks": layer1_blocks}, modules)
        self.align_corners = align_corners
        self.conv1 = convolution(3, stem, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = convolution(stem, stem, stride=2)
        self.bn2 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = bottlenecks(layer1_blocks, stem, stem)
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.transition1 = transition((EXPANSION * stem,), widths[:2])
        self.stage2 = stage(modules[0], widths[:2], blocks, align_corners)
        self.transition2 = transition(widths[:2], widths[:3])
        self.stage3 = stage(modules[1], widths[:3], blocks, align_corners)
        self.transition3 = transition(widths[:3], widths)
        self.stage4 = stage(modules[2], widths, blocks, align_corners)

    def joined(self, x: Tensor) -> Tensor:
        """All four branches, upsampled to the finest, one after another.

        Args:
            x: Normalised images (N, 3, H, W).

        Returns:
            (N, 15·width, ⌈H/4⌉, ⌈W/4⌉).
        """
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        maps = self.stage2(carried(self.transition1, [self.layer1(x)]))
        maps = self.stage3(carried(self.transition2, maps))
        maps = self.stage4(carried(self.transition3, maps))
        return torch.cat([maps[0], *(upsampled(y, maps[0], self.align_corners) for y in maps[1:])], 1)

    def initialise(self, *classifiers: nn.Module) -> None:
        """Draw convolutions from He's normal distribution (fan out), classifiers from one of deviation 0.001."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for classifier in classifiers:
            nn.init.normal_(classifier.get_parameter("weight"), std=0.001)


def bottlenecks(count: int, inputs: int, width: int) -> nn.Sequential:
    """``count`` bottlenecks, from (N, inputs, H, W) to (N, 4·width, H, W).

    Example:
        >>> [block.conv1.in_channels for block in bottlenecks(3, 8, 4)]
        [8, 16, 16]
    """
    return nn.Sequential(*(Bottleneck(inputs if i == 0 else EXPANSION * width, width) for i in range(count)))


def stage(count: int, widths: Sequence[int], blocks: int, align_corners: bool = True) -> nn.Sequential:
    """``count`` exchange modules in a row; they take and give a list of maps. See `HighResolutionModule`.

    Example:
        >>> len(stage(3, (4, 8), blocks=2))
        3
    """
    return nn.Sequential(*(HighResolutionModule(widths, blocks, align_corners) for _ in range(count)))


def transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """The way to one branch more: a new branch at half the coarsest resolution, others changed in channels only.

    Args:
        before: Channels of the branches so far, finest first.
        after: Channels of the branches from here on, one more.

    Returns:
        A layer for each branch; the identity where channels do not change. `carried` applies them.

    Example:
        >>> [type(layer).__name__ for layer in transition((8, 16), (8, 24, 32))]
        ['Identity', 'Sequential', 'Sequential']
    """
    kept = [nn.Identity() if a == b else normalised(a, b) for a, b in zip(before, after[:-1], strict=True)]
    return nn.ModuleList([*kept, nn.Sequential(normalised(before[-1], after[-1], stride=2))])


def carried(layers: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    """Maps carried through a `transition`: one more than given, the new one made from the last.

    Example:
        >>> maps = carried(transition((4,), (4, 8)), [torch.zeros(2, 4, 7, 6)])
        >>> [tuple(y.shape) for y in maps]
        [(2, 4, 7, 6), (2, 8, 4, 3)]
    """
    return [layer(x) for layer, x in zip(layers, [*maps, maps[-1]], strict=True)]


def upsampled(x: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    """``x`` (N, C, h, w) bilinearly at the height and width of ``like``.

    Example:
        >>> upsampled(torch.tensor([[[[0.0, 2.0]]]]), torch.zeros(1, 1, 1, 3), align_corners=True).flatten().tolist()
        [0.0, 1.0, 2.0]
    """
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=align_corners)


def convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that a stride of 1 keeps the size.

    Example:
        >>> convolution(3, 8, stride=2)(torch.zeros(1, 3, 9, 8)).shape
        torch.Size([1, 8, 5, 4])
    """
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def normalised(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation and, if asked for, ReLU.

    Example:
        >>> len(normalised(3, 8)), len(normalised(3, 8, relu=False))
        (3, 2)
    """
    layers: list[nn.Module] = [convolution(inputs, outputs, kernel=kernel, stride=stride), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def biased(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution with the bias that public heads have before their batch normalisation, then that and ReLU.

    Example:
        >>> len(biased(3, 8, kernel=1))
        3
    """
    convolved = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    return nn.Sequential(convolved, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise `InputError` on a size that is not a whole number of at least 1."""
    for name, size in sizes.items():
        if not is_whole(size, 1):
            raise InputError(f"{name}={size!r}: expected a whole number of at least 1")


def check_dropout(dropout: float) -> None:
    """Raise `InputError` on what is no probability in [0, 1)."""
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout!r}: expected a probability in [0, 1)")


def _check(sizes: Mapping[str, int], modules: Sequence[int]) -> None:
    if len(modules) != 3 or not all(is_whole(count, 1) for count in modules):
        raise InputError(f"modules={modules!r}: expected three whole numbers of at least 1, for the stages 2, 3 and 4")
    check_sizes(sizes)


def _resampling(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """The layer from branch ``source`` to branch ``target``, without the upsampling."""
    if source == target:
        return nn.Identity()
    inputs, outputs = widths[source], widths[target]
    if source > target:
        return normalised(inputs, outputs, kernel=1, relu=False)
    halvings = [normalised(inputs, inputs, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, normalised(inputs, outputs, stride=2, relu=False))
