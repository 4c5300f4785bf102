"""The trunk and the heads that PSPNet and PSANet share: a dilated ResNet of stride 8 with a deep stem."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError, is_whole


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions around a shortcut, both dilated; the block of ResNet-18 and -34.

    Args:
        inputs: Channels that come in.
        channels: Channels of the block, and that go out.
        stride: Of the first convolution and the shortcut.
        dilation: Of both convolutions.
    """

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, channels, 3, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        short = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)) + short, inplace=True)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 (strided and dilated) and 1 × 1 convolutions around a shortcut; the block of ResNet-50 and deeper.

    Args:
        inputs: Channels that come in.
        channels: Channels of the block; four times as many go out.
        stride: Of the middle convolution and the shortcut.
        dilation: Of the middle convolution.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = convolution(inputs, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, 4·channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        short = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return functional.relu(self.bn3(self.conv3(x)) + short, inplace=True)


Block = type[BasicBlock] | type[Bottleneck]
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
STRIDE = 8


@dataclass(frozen=True, eq=False)
class Stages:
    """The five stages of a trunk, in order.

    Args:
        stages: Stem and stages 1 to 4. A side of s pixels leaves the last two at ⌈s/8⌉.
        early: Channels after stage 3, where the auxiliary head sits.
        deep: Channels after stage 4.
    """

    stages: tuple[nn.Sequential, nn.Sequential, nn.Sequential, nn.Sequential, nn.Sequential]
    early: int
    deep: int


def dilated_resnet(layers: int, width: int = 64) -> Stages:
    """A ResNet (He et al., CVPR 2016) whose last two stages dilate where it would stride.

    The stem is three 3 × 3 convolutions and a pooling. Stages 3 and 4 keep stride 1 with dilation 2 and 4 in their
    3 × 3 convolutions; where a stage strides, its 3 × 3 convolution does. This is the trunk of hszhao/semseg, and
    its state-dict names.

    Args:
        layers: 18, 34, 50, 101 or 152.
        width: Channels of the first convolution, at least 1; every other number of channels scales with it.

    Returns:
        The stages, convolutions drawn from He's normal distribution.

    Raises:
        InputError: If ``layers`` is no known depth, or ``width`` no whole number above zero.

    Example:
        >>> import torch
        >>> trunk = dilated_resnet(18, width=8)
        >>> nn.Sequential(*trunk.stages)(torch.rand(2, 3, 33, 40)).shape
        torch.Size([2, 64, 5, 5])
    """
    if layers not in DEPTHS:
        raise InputError(f"layers={layers!r}: expected a ResNet depth, one of {', '.join(map(str, DEPTHS))}")
    check_count("width", width)
    block, counts = DEPTHS[layers]
    channels = [width * 2**i * block.expansion for i in range(4)]
    stages = (
        _stem(width),
        _stage(block, 2 * width, width, counts[0]),
        _stage(block, channels[0], 2 * width, counts[1], stride=2),
        _stage(block, channels[1], 4 * width, counts[2], dilation=2),
        _stage(block, channels[2], 8 * width, counts[3], dilation=4),
    )
    return Stages(stages, early=channels[2], deep=channels[3])


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size up to its stride, drawn from He's normal distribution."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def rectified(inputs: int, outputs: int, kernel: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """Convolution, normalisation and rectifier, to be put into a sequence."""
    return convolution(inputs, outputs, kernel), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def head(inputs: int, features: int, num_classes: int, dropout: float) -> nn.Sequential:
    """A classifier: 3 × 3 convolution, dropout of whole channels, 1 × 1 convolution.

    Args:
        inputs: Channels that come in.
        features: Channels of the trunk there; a quarter of them, at least 128, lie between the convolutions.
        num_classes: C, at least 1.
        dropout: Chance of each channel to be dropped in training, in [0, 1].

    Returns:
        A network from (N, inputs, h, w) to logits (N, C, h, w).

    Raises:
        InputError: If ``num_classes`` or ``dropout`` is outside its range.

    Example:
        >>> import torch
        >>> head(8, 4, 5, 0.1).eval()(torch.rand(1, 8, 6, 7)).shape
        torch.Size([1, 5, 6, 7])
    """
    check_count("num_classes", num_classes)
    if not 0 <= dropout <= 1:
        raise InputError(f"dropout={dropout!r}: expected a number in [0, 1]")
    middle = max(128, features // 4)
    # The classifier keeps torch's own draw: He's, made for a rectifier after it, would start from confident nonsense.
    return nn.Sequential(*rectified(inputs, middle, 3), nn.Dropout2d(dropout), nn.Conv2d(middle, num_classes, 1))


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of (N, C, h, w) with the corners aligned; ``x`` itself if it has the size."""
    if x.shape[-2:] == (height, width):
        return x
    return functional.interpolate(x, (height, width), mode="bilinear", align_corners=True)


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise `InputError` if a value is not a whole number of at least ``least``."""
    if not is_whole(value, least):
        raise InputError(f"{name}={value!r}: expected a whole number of at least {least}")


def _stem(width: int) -> nn.Sequential:
    first = convolution(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(*first, *rectified(width, width, 3), *rectified(width, 2 * width, 3), pool)


def _stage(block: Block, inputs: int, channels: int, count: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = block(inputs, channels, stride, dilation)
    outputs = channels * first.expansion
    return nn.Sequential(first, *(block(outputs, channels, 1, dilation) for _ in range(count - 1)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(convolution(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))
