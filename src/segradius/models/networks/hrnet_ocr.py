"""HRNetV2 with the OCR head: four resolutions side by side, then pixels that look at classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from segradius.models.networks.hrnet import Branches, biased, check_dropout, check_sizes, upsampled
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


class HRNetOCR(Branches):
    """HRNetV2-OCR (Yuan, Chen and Wang, "Object-Contextual Representations for Semantic Segmentation", ECCV 2020).

    Takes normalised images (N, 3, H, W) of any size; the branches work at 1/4, 1/8, 1/16 and 1/32 of it. The names and
    shapes in the state dict are those of HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR, whose checkpoints carry
    the class weights of their loss besides (``loss.…``), and of wrappers with noise ``std``; both are left out.
    Convolutions start from He's normal distribution (fan out), the two classifiers from a normal one of standard
    deviation 0.001, as public code has it, so that training starts from nearly equal classes. In training mode, an
    image must be larger than 32 × 32 or the batch than 1. The defaults are HRNetV2-W48's; `LIGHT` holds the arguments
    of a small network.

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
        >>> import torch
        >>> network = HRNetOCR(5, **LIGHT)
        >>> {name: tuple(logits.shape) for name, logits in network(torch.rand(2, 3, 40, 57)).items()}
        {'out': (2, 5, 40, 57), 'aux': (2, 5, 40, 57)}
        >>> list(network.eval()(torch.rand(1, 3, 40, 57)))
        ['out']
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    IGNORED: ClassVar[tuple[str, ...]] = ("loss.", "std")

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
        check_sizes({"num_classes": num_classes, "mid": mid, "key": key})
        check_dropout(dropout)
        super().__init__(width, stem, modules, blocks, layer1_blocks, align_corners)
        self.aux = aux
        total = 15 * width
        self.conv3x3_ocr = biased(total, mid, kernel=3)
        self.ocr_distri_head = SpatialOCR(mid, key, dropout)
        self.cls_head = nn.Conv2d(mid, num_classes, 1)
        self.aux_head = nn.Sequential(*biased(total, total, kernel=1), nn.Conv2d(total, num_classes, 1))
        self.initialise(self.cls_head, self.aux_head[-1])

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
        joined = self.joined(x)
        aux = self.aux_head(joined)
        features = self.conv3x3_ocr(joined)
        return self.cls_head(self.ocr_distri_head(features, spatial_gather(features, aux))), aux
