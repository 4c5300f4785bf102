"""HRNetV2 with the plain head of the public code: two 1 × 1 convolutions over the joined branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from segradius.models.networks.hrnet import Branches, biased, check_sizes, upsampled


class HRNetV2(Branches):
    """HRNetV2 (Wang et al., "Deep High-Resolution Representation Learning", TPAMI 2020), without OCR.

    The names and shapes in the state dict are those of ``seg_hrnet`` in HRNet/HRNet-Semantic-Segmentation, of which
    SegCertify's networks (eth-sri/segmentation-smoothing) are. Files of the latter carry, beside the network's names
    under ``model.``, the class weights of the loss (``loss.…``) and the deviation of colours (``std``) that their
    training adds noise by; both are left out. The defaults are HRNetV2-W48's.

    Args:
        num_classes: C, at least 1.
        width: Channels of the finest branch; the others have 2, 4 and 8 times as many.
        stem: Channels of the stem; the first stage ends in 4 times as many.
        modules: Exchange modules of the stages 2, 3 and 4.
        blocks: Residual blocks on each branch of an exchange module.
        layer1_blocks: Bottlenecks of the first stage.
        align_corners: Whether bilinear upsampling, inside and of the output, aligns the centres of the corner pixels.

    Raises:
        InputError: If a size is not a whole number of at least 1, or there are not three ``modules``.

    Example:
        >>> import torch
        >>> network = HRNetV2(5, width=2, stem=4, modules=(1, 1, 1), blocks=1, layer1_blocks=1)
        >>> network.eval()(torch.rand(2, 3, 40, 57)).shape
        torch.Size([2, 5, 40, 57])
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
        align_corners: bool = False,
    ) -> None:
        check_sizes({"num_classes": num_classes})
        super().__init__(width, stem, modules, blocks, layer1_blocks, align_corners)
        total = 15 * width
        self.last_layer = nn.Sequential(*biased(total, total, kernel=1), nn.Conv2d(total, num_classes, 1))
        self.initialise(self.last_layer[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, C, H, W) at the size of normalised images (N, 3, H, W)."""
        return upsampled(self.last_layer(self.joined(x)), x, self.align_corners)
