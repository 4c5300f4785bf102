"""PSANet: a dilated ResNet whose positions attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from segradius.models.networks.psa import BOTH, PointwiseSpatialAttention
from segradius.models.networks.resnet import dilated_resnet, head, resize


class PSANet(nn.Module):
    """Point-wise spatial attention network (Zhao et al., ECCV 2018), with the layout and names of hszhao/semseg.

    Any size goes in, unless the masks are compact. With stride 8 and the shrinking of the attention, masks of
    2·⌈⌈H/8⌉/shrink⌉ - 1 by 2·⌈⌈W/8⌉/shrink⌉ - 1 reach everything: (59, 59) for 473 × 473 and shrink 2.

    Args:
        num_classes: C, at least 1.
        layers: Depth of the ResNet: 18, 34, 50, 101 or 152.
        width: Channels of its first convolution; 64 is the published width.
        psa_type: 0 collect, 1 distribute, 2 both.
        compact: Whether masks are maps of the whole image rather than centred on their positions.
        shrink: Factor ≥ 1 by which the sides of the map shrink before the attention.
        mask: (height, width) of the masks; both odd unless ``compact``, where they are those of the shrunk map.
        normalisation_factor: Above zero; the attended values are divided by it.
        softmax: Whether attention weights are normalised.
        dropout: Chance of each channel before the classifier to be dropped in training, in [0, 1].
        aux: Whether there is an auxiliary head on stage 3, for training.

    Raises:
        InputError: If an argument is outside its range.

    Example:
        >>> import torch
        >>> PSANet(5, layers=18, width=8, mask=(3, 5)).eval()(torch.rand(1, 3, 30, 41))["out"].shape
        torch.Size([1, 5, 30, 41])
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ("aux.",)
    IGNORED: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        num_classes: int = 150,
        *,
        layers: int = 50,
        width: int = 64,
        psa_type: int = BOTH,
        compact: bool = False,
        shrink: int = 2,
        mask: Sequence[int] = (59, 59),
        normalisation_factor: float = 1.0,
        softmax: bool = True,
        dropout: float = 0.1,
        aux: bool = True,
    ) -> None:
        super().__init__()
        trunk = dilated_resnet(layers, width)
        self.layer0, self.layer1, self.layer2, self.layer3, self.layer4 = trunk.stages
        self.psa = PointwiseSpatialAttention(
            trunk.deep,
            psa_type=psa_type,
            compact=compact,
            shrink=shrink,
            mask=mask,
            normalisation_factor=normalisation_factor,
            softmax=softmax,
        )
        self.cls = head(self.psa.outputs, trunk.deep, num_classes, dropout)
        self.aux = head(trunk.early, trunk.early, num_classes, dropout) if aux else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits at the size of the input.

        Args:
            x: Normalised images (N, 3, H, W).

        Returns:
            ``out``, (N, C, H, W), and in training mode ``aux`` of that shape, if there is an auxiliary head.

        Raises:
            InputError: If the masks are compact and the image is not of their size.
        """
        height, width = x.shape[-2:]
        early = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        logits = {"out": resize(self.cls(self.psa(self.layer4(early))), height, width)}
        if self.training and self.aux is not None:
            logits["aux"] = resize(self.aux(early), height, width)
        return logits
