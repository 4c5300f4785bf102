"""Networks of robust and certified checkpoints of the field, by name, in the layout of their published files.

SEA's (nmndeep/Robust-Segmentation): UperNet over a ConvNeXt with a stem of convolutions, Segmenter, and the PSPNet of
DDC-AT that it attacks. SegCertify's (eth-sri/segmentation-smoothing): HRNetV2 without OCR. All have random weights: the
published ones are not included. The data and void pixels of their figures are protocols in `segradius.data.protocols`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from segradius.core.errors import is_whole, must
from segradius.models.networks import HRNetV2, PSPNetDDCAT, UperNet, ViTSegmenter
from segradius.models.preprocessing import Normalisation
from segradius.models.segmenter import INITIALISED, Segmenter
from segradius.models.sources import MODELS


def _ready(network: nn.Module, num_classes: int, name: str, normalisation: Normalisation, fast: bool) -> Segmenter:
    must(is_whole(num_classes, 2), "num_classes", num_classes, "a whole number of at least 2")
    return Segmenter(network.eval(), num_classes, name, normalisation, channels_last=fast, bands=3, weights=INITIALISED)


def _upernet(name: str, num_classes: int, **arguments: Any) -> Segmenter:
    return _ready(UperNet(num_classes, **arguments), num_classes, name, Normalisation.none(), fast=True)


@MODELS.register("upernet_convnext_t")
def upernet_convnext_t(
    num_classes: int = 21, stem: str = "cvst", aux: bool = True, drop_path: float = 0.4
) -> Segmenter:
    """UperNet, ConvNeXt-T, of SEA's PIR-AT. Published for VOC (21 classes) and ADE20K (151). Unnormalised.

    Args:
        num_classes: C, at least 2; the background is one of them.
        stem: ``cvst`` for the two strided convolutions of the robust ones, ``patch`` for ConvNeXt's own.
        aux: With the auxiliary head of training; either way a checkpoint may have it or not.
        drop_path: Chance of the last block's branch to be dropped in training.
    """
    return _upernet("upernet_convnext_t", num_classes, stem=stem, aux=aux, drop_path=drop_path)


@MODELS.register("upernet_convnext_s")
def upernet_convnext_s(
    num_classes: int = 21, stem: str = "cvst", aux: bool = True, drop_path: float = 0.3
) -> Segmenter:
    """UperNet, ConvNeXt-S, of SEA's PIR-AT. Published for VOC (21 classes) and ADE20K (151). Unnormalised.

    Args:
        num_classes: C, at least 2; the background is one of them.
        stem: ``cvst`` for the two strided convolutions of the robust ones, ``patch`` for ConvNeXt's own.
        aux: With the auxiliary head of training; either way a checkpoint may have it or not.
        drop_path: Chance of the last block's branch to be dropped in training.
    """
    deep = (3, 3, 27, 3)
    return _upernet("upernet_convnext_s", num_classes, depths=deep, stem=stem, aux=aux, drop_path=drop_path)


@MODELS.register("segmenter_vit_s")
def segmenter_vit_s(num_classes: int = 151, side: int = 512, dropout: float = 0.1) -> Segmenter:
    """Segmenter, ViT-S/16, of SEA's PIR-AT. Published for ADE20K (151 classes). Unnormalised.

    Args:
        num_classes: C, at least 2; the background is one of them.
        side: Of the square images that its positions were learnt for, in pixels; it belongs to a checkpoint.
        dropout: Of the decoder in training.
    """
    network = ViTSegmenter(num_classes, side=side, dropout=dropout)
    return _ready(network, num_classes, "segmenter_vit_s", Normalisation.none(), fast=False)


@MODELS.register("pspnet50_ddcat")
def pspnet50_ddcat(num_classes: int = 21, aux: bool = True, dropout: float = 0.1) -> Segmenter:
    """PSPNet, ResNet-50, of DDC-AT. Published for VOC (21 classes) and Cityscapes (19).

    It answers by its head for clean pixels, as its published code does; its normalisation is ImageNet's.

    Args:
        num_classes: C, at least 2.
        aux: With the auxiliary head of training; either way a checkpoint may have it or not.
        dropout: Chance of a channel to be dropped before the classifier, in training.
    """
    network = PSPNetDDCAT(num_classes, aux=aux, dropout=dropout)
    return _ready(network, num_classes, "pspnet50_ddcat", Normalisation.imagenet(), fast=True)


@MODELS.register("hrnet_v2_w48")
def hrnet_v2_w48(num_classes: int = 19, align_corners: bool = False) -> Segmenter:
    """HRNetV2-W48 without OCR. SegCertify's, trained with noise: Cityscapes (19 classes), Pascal Context (59).

    Args:
        num_classes: C, at least 2.
        align_corners: How feature maps are resized; as in training.
    """
    network = HRNetV2(num_classes, align_corners=align_corners)
    return _ready(network, num_classes, "hrnet_v2_w48", Normalisation.imagenet(), fast=True)
