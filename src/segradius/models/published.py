"""The paper's networks by name, in the layout of their published checkpoints, and light ones for small machines.

Crop sizes are those of the published training configurations (hszhao/semseg; HRNet/HRNet-Semantic-Segmentation, branch
HRNet-OCR); every network takes other sizes as well, except a compact PSANet. All have ImageNet normalisation and random
weights: the published ones are not included.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from segradius.core.errors import InputError, is_whole, must
from segradius.models.networks import HRNetOCR, PSANet, PSPNet
from segradius.models.networks.hrnet_ocr import LIGHT
from segradius.models.preprocessing import Normalisation
from segradius.models.segmenter import INITIALISED, Segmenter
from segradius.models.sources import MODELS

Make = Callable[..., Segmenter]


def _named(name: str, summary: str) -> Callable[[Make], None]:
    """A decorator that registers what makes one network of a family, with the network's own summary."""

    def add(make: Make) -> None:
        make.__name__ = make.__qualname__ = name
        make.__doc__ = f"{summary}\n\n{inspect.getdoc(make)}"
        MODELS.register(name)(make)

    return add


def _ready(network: nn.Module, num_classes: int, name: str) -> Segmenter:
    must(
        is_whole(num_classes, 1), "num_classes", num_classes, "a whole number of at least 2, or 1 for a yes/no channel"
    )
    usual = Normalisation.imagenet()
    return Segmenter(network.eval(), num_classes, name, usual, channels_last=True, weights=INITIALISED)


def _pspnet(name: str, summary: str, classes: int = 21, **trunk: Any) -> None:
    @_named(name, summary)
    def make(num_classes: int = classes, aux: bool = True, dropout: float = 0.1) -> Segmenter:
        """The published ones were trained on crops of 473 × 473 (VOC, ADE20K) and 713 × 713 (Cityscapes).

        Args:
            num_classes: C, at least 2.
            aux: With the auxiliary head of training; either way a checkpoint may have it or not.
            dropout: Chance of a channel to be dropped before the classifier, in training.
        """
        return _ready(PSPNet(num_classes, aux=aux, dropout=dropout, **trunk), num_classes, name)


def _psanet(
    name: str,
    summary: str,
    classes: int = 150,
    wide: tuple[int, int] = (59, 59),
    narrow: tuple[int, int] = (30, 30),
    **trunk: Any,
) -> None:
    @_named(name, summary)
    def make(
        num_classes: int = classes,
        psa_type: int = 2,
        compact: bool = False,
        mask: Sequence[int] | None = None,
        aux: bool = True,
        dropout: float = 0.1,
    ) -> Segmenter:
        """The published ones were trained on crops of 465 × 465 (VOC, ADE20K) and 705 × 705 (Cityscapes).

        They have attention in both directions. The size of the mask decides the number of the attention's channels, so
        it belongs to a checkpoint. A crop of side s has a feature map of (s - 1)/8 + 1, shrunk to m = (s - 1)//16 + 1;
        the over-complete mask that lets every pixel see the whole map has 2m - 1, the compact one m.

        Args:
            num_classes: C, at least 2.
            psa_type: 0 to collect, 1 to distribute, 2 for both.
            compact: With compact masks, which fit one input size only.
            mask: Height and width of the mask. None: (59, 59), compact (30, 30), of crops of 465 (or 473); of the light
                network (29, 39), compact (15, 20), of 240 × 320.
            aux: With the auxiliary head of training; either way a checkpoint may have it or not.
            dropout: Chance of a channel to be dropped before the classifier, in training.

        Raises:
            InputError: If ``mask`` is not two numbers, or another argument is outside its range.
        """
        sides = (narrow if compact else wide) if mask is None else mask
        if not isinstance(sides, Sequence) or len(sides) != 2:
            raise InputError(f"mask {sides!r}: expected [height, width]")
        attention: dict[str, Any] = {"psa_type": psa_type, "compact": compact, "mask": tuple(sides)}
        return _ready(PSANet(num_classes, aux=aux, dropout=dropout, **trunk, **attention), num_classes, name)


def _hrnet_ocr(name: str, summary: str, classes: int = 19, **sizes: Any) -> None:
    @_named(name, summary)
    def make(
        num_classes: int = classes, align_corners: bool = True, aux: bool = True, dropout: float = 0.05
    ) -> Segmenter:
        """The published ones were trained on crops of 512 × 1024 (Cityscapes) and 520 × 520 (ADE20K).

        On Cityscapes they are evaluated on whole images of 1024 × 2048.

        Args:
            num_classes: C, at least 2.
            align_corners: How feature maps are resized; as in training.
            aux: Whether the logits of the object regions are given in training; the region head is there either way.
            dropout: Chance of a channel to be dropped before the classifier, in training.
        """
        network = HRNetOCR(num_classes, align_corners=align_corners, aux=aux, dropout=dropout, **sizes)
        return _ready(network, num_classes, name)


_VOC_ADE = "Published for VOC (21 classes), ADE20K (150), Cityscapes (19"
_pspnet("pspnet50", f"PSPNet, ResNet-50. {_VOC_ADE}).", layers=50)
_pspnet("pspnet101", f"PSPNet, ResNet-101. {_VOC_ADE}).", layers=101)
_pspnet("pspnet_light", "PSPNet, ResNet-18 of 3/8 the width, for small machines.", 11, layers=18, width=24)
_psanet("psanet50", f"PSANet, ResNet-50. {_VOC_ADE}, mask=[89,89]).", layers=50)
_psanet("psanet101", f"PSANet, ResNet-101. {_VOC_ADE}, mask=[89,89]).", layers=101)
_psanet(
    "psanet_light",
    "PSANet, ResNet-18 of 3/8 the width, for small machines; its mask covers 240 × 320.",
    11,
    wide=(29, 39),
    narrow=(15, 20),
    layers=18,
    width=24,
)
_hrnet_ocr(
    "hrnet_ocr_w48",
    "HRNetV2-W48 with OCR. Published for Cityscapes (19 classes), ADE20K (150) and others.",
    width=48,
)
_hrnet_ocr("hrnet_ocr_w18", "HRNetV2-W18 with OCR, the same network at three eighths of the width.", width=18)
_hrnet_ocr("hrnet_ocr_light", "HRNetV2 with OCR, narrow and shallow, for small machines.", 11, **LIGHT)
