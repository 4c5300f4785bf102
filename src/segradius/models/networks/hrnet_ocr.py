"""HRNetV2 with the OCR head: four resolutions side by side, then pixels that look at classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError, is_whole
from segradius.models.networks.hrnet import EXPANSION, bottlenecks, carried, convolution, stage, transition, upsampled
from segradius.models.networks.ocr import SpatialOCR, spatial_gather

# 1.8 million parameters, for small images on a CPU: cuts depth and the head, not the resolution of the finest branch.
LIGHT: Mapping[str, Any] = {
    "width": 16,
    "stem": 32,
    "modules": (1, 1, 1),
    "blocks": 2,
    "layer1_blocks": 2,
    "mid": 96,
    "key": 64,
}


class HRNetOCR(nn.Module):
    """HRNetV2-OCR (Yuan, Chen and Wang, "Object-Contextual Representations for Semantic Segmentation", ECCV 2020).

    Takes normalised images (N, 3, H, W) of any size; the branches work at 1/4, 1/8, 1/16 and 1/32 of it. The names and
    shapes in the state dict are those of HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR, whose checkpoints carry
    the class weights of their loss besides. Convolutions start from He's normal distribution (fan out), the two
    classifiers from a normal one of standard deviation 0.001, as public code has it, so that training starts from
    nearly equal classes. In training mode, an image must be larger than 32 × 32 or the batch than 1. The defaults are
    HRNetV2-W48's; `LIGHT` holds the arguments of a small network.

    Args:
        num_classes: C, at least 1.
        width: Channels of the finest branch; the others have 2, 4 and 8 times as many.
        stem: Channels of the stem; the first stage ends in 4 times as many.
        modules: Exchange modules of the stages 2, 3 and 4.
        blocks: Residual blocks on each branch of an exchange module.
        layer1_blocks: Bottlenecks of the first stage.
        mid: Channels of the OCR head.
        key: Channels of its attention.
        dropout: Probability with which the head drops a channel in training, in [0, 1).
        align_corners: Whether bilinear upsampling, inside and of the output, aligns the centres of the corner pixels.
        aux: Whether training mode returns the coarse logits, for an auxiliary loss. The head needs them in any case.

    Raises:
        InputError: If a size is not a whole number of at least 1, there are not three ``modules``, or ``dropout`` is
            not in [0, 1).

    Example:
        >>> network = HRNetOCR(5, **LIGHT)
        >>> {name: tuple(logits.shape) for name, logits in network(torch.rand(2, 3, 40, 57)).items()}
        {'out': (2, 5, 40, 57), 'aux': (2, 5, 40, 57)}
        >>> list(network.eval()(torch.rand(1, 3, 40, 57)))
        ['out']
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    IGNORED: ClassVar[tuple[str, ...]] = ("loss.",)

    def __init__(
        self,
        num_classes: int = 19,
        *,
        width: int = 48,
        stem: int = 64,
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
        layer1_blocks: int = 4,
        mid: int = 512,
        key: int = 256,
        dropout: float = 0.05,
        align_corners: bool = True,
        aux: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"num_classes": num_classes, "width": width, "stem": stem, "blocks": blocks}
        _check({**sizes, "layer1_blocks": layer1_blocks, "mid": mid, "key": key}, modules, dropout)
        self.align_corners, self.aux = align_corners, aux
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
        total = sum(widths)
        self.conv3x3_ocr = _biased(total, mid, kernel=3)
        self.ocr_distri_head = SpatialOCR(mid, key, dropout)
        self.cls_head = nn.Conv2d(mid, num_classes, 1)
        self.aux_head = nn.Sequential(*_biased(total, total, kernel=1), nn.Conv2d(total, num_classes, 1))
        self._initialise()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits at the size of the input.

        Args:
            x: Normalised images (N, 3, H, W).

        Returns:
            ``out`` (N, C, H, W); in training mode, if ``aux``, also ``aux`` of the same shape.
        """
        out, aux = self.coarse(x)
        logits = {"out": out, "aux": aux} if self.training and self.aux else {"out": out}
        return {name: upsampled(coarse, x, self.align_corners) for name, coarse in logits.items()}

    def coarse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the auxiliary ones that the object regions come from, before upsampling.

        Args:
            x: Normalised images (N, 3, H, W).

        Returns:
            Two tensors (N, C, ⌈H/4⌉, ⌈W/4⌉).
        """
        maps = self._branches(x)
        joined = torch.cat([maps[0], *(upsampled(y, maps[0], self.align_corners) for y in maps[1:])], 1)
        aux = self.aux_head(joined)
        features = self.conv3x3_ocr(joined)
        return self.cls_head(self.ocr_distri_head(features, spatial_gather(features, aux))), aux

    def _branches(self, x: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        maps = self.stage2(carried(self.transition1, [self.layer1(x)]))
        maps = self.stage3(carried(self.transition2, maps))
        return self.stage4(carried(self.transition3, maps))  # type: ignore[no-any-return]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for classifier in (self.cls_head, self.aux_head[-1]):
            nn.init.normal_(classifier.get_parameter("weight"), std=0.001)


def _biased(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution with the bias that the public head has before its batch normalisation, then that and ReLU."""
    convolved = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    return nn.Sequential(convolved, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _check(sizes: Mapping[str, int], modules: Sequence[int], dropout: float) -> None:
    """Raise `InputError` on arguments of `HRNetOCR` outside their range."""
    if len(modules) != 3 or not all(is_whole(count, 1) for count in modules):
        raise InputError(f"modules={modules!r}: expected three whole numbers of at least 1, for the stages 2, 3 and 4")
    for name, size in sizes.items():
        if not is_whole(size, 1):
            raise InputError(f"{name}={size!r}: expected a whole number of at least 1")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout!r}: expected a probability in [0, 1)")
