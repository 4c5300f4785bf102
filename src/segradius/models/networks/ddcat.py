"""The PSPNet of DDC-AT: the same trunk and pyramid, with heads for clean and for attacked pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from segradius.models.networks.pspnet import PyramidPooling
from segradius.models.networks.resnet import dilated_resnet, head, resize


class PSPNetDDCAT(nn.Module):
    """PSPNet of "Dynamic Divide-and-Conquer Adversarial Training" (Xu et al., ICCV 2021), as it predicts.

    Its checkpoints have a head for pixels that look clean (``cls1``), one for those that look attacked (``cls2``), and
    one that tells them apart (``mask1``). In evaluation the published code answers with the first alone, so the other
    two have no place here and are left out of a file. The auxiliary head is called ``aux_cls1``.

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
        >>> import torch
        >>> PSPNetDDCAT(5, layers=18, width=8).eval()(torch.rand(1, 3, 33, 41))["out"].shape
        torch.Size([1, 5, 33, 41])
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ("aux_cls1.", "cls2.", "mask1.")
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
        self.cls1 = head(self.ppm.outputs, trunk.deep, num_classes, dropout)
        self.aux_cls1 = head(trunk.early, trunk.early, num_classes, dropout) if aux else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits at the size of the input.

        Args:
            x: Normalised images (N, 3, H, W).

        Returns:
            ``out``, (N, C, H, W), and in training mode ``aux`` of that shape, if there is an auxiliary head.
        """
        height, width = x.shape[-2:]
        early = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        logits = {"out": resize(self.cls1(self.ppm(self.layer4(early))), height, width)}
        if self.training and self.aux_cls1 is not None:
            logits["aux"] = resize(self.aux_cls1(early), height, width)
        return logits
