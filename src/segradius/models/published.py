"""The paper's networks by name, in the layout of their published checkpoints, and light ones for small machines.

Crop sizes are those of the published training configurations (hszhao/semseg; HRNet/HRNet-Semantic-Segmentation, branch
HRNet-OCR); every network takes other sizes as well, except a compact PSANet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from segradius.core.errors import InputError
from segradius.models.networks import HRNetOCR, PSANet, PSPNet
from segradius.models.networks.hrnet_ocr import LIGHT
from segradius.models.segmenter import Segmenter, wrap
from segradius.models.sources import MODELS

PSANET_MASK, PSANET_COMPACT_MASK = (59, 59), (30, 30)
LIGHT_WIDTH = 24
LIGHT_MASK, LIGHT_COMPACT_MASK = (29, 39), (15, 20)


@MODELS.register("pspnet50", random=True)
def pspnet50(num_classes: int = 21, aux: bool = True, dropout: float = 0.1) -> Segmenter:
    """PSPNet, ResNet-50. Published for VOC (21 classes), ADE20K (150), Cityscapes (19).

    Trained on crops of 473 × 473 (VOC, ADE20K) and 713 × 713 (Cityscapes). Weights are not included.

    Args:
        num_classes: C, at least 2.
        aux: With the auxiliary head of training; either way a checkpoint may have it or not.
        dropout: Chance of a channel to be dropped before the classifier, in training.

    Returns:
        The network with ImageNet normalisation, random weights.

    Example:
        >>> pspnet50(num_classes=19).num_classes
        19
    """
    return _ready(PSPNet(num_classes, layers=50, aux=aux, dropout=dropout), num_classes, "pspnet50")


@MODELS.register("pspnet101", random=True)
def pspnet101(num_classes: int = 21, aux: bool = True, dropout: float = 0.1) -> Segmenter:
    """PSPNet, ResNet-101. Published for VOC (21 classes), ADE20K (150), Cityscapes (19).

    Crops and arguments as for `pspnet50`.
    """
    return _ready(PSPNet(num_classes, layers=101, aux=aux, dropout=dropout), num_classes, "pspnet101")


@MODELS.register("pspnet_light", random=True)
def pspnet_light(num_classes: int = 11, aux: bool = True, dropout: float = 0.1) -> Segmenter:
    """PSPNet, ResNet-18 of 3/8 the width, for small machines.

    Arguments as for `pspnet50`.

    Example:
        >>> import torch
        >>> pspnet_light(num_classes=5).logits(torch.rand(1, 3, 33, 41)).shape
        torch.Size([1, 5, 33, 41])
    """
    network = PSPNet(num_classes, layers=18, width=LIGHT_WIDTH, aux=aux, dropout=dropout)
    return _ready(network, num_classes, "pspnet_light")


@MODELS.register("psanet50", random=True)
def psanet50(
    num_classes: int = 150,
    psa_type: int = 2,
    compact: bool = False,
    mask: Sequence[int] | None = None,
    aux: bool = True,
    dropout: float = 0.1,
) -> Segmenter:
    """PSANet, ResNet-50. Published for VOC (21 classes), ADE20K (150), Cityscapes (19, mask=[89,89]).

    Trained on crops of 465 × 465 (VOC, ADE20K) and 705 × 705 (Cityscapes), with attention in both directions. The size
    of the mask decides the number of the attention's channels, so it belongs to a checkpoint. A crop of side s has a
    feature map of (s - 1)/8 + 1, shrunk to m = (s - 1)//16 + 1; the over-complete mask that lets every pixel see the
    whole map has 2m - 1, the compact one m. Weights are not included.

    Args:
        num_classes: C, at least 2.
        psa_type: 0 to collect, 1 to distribute, 2 for both.
        compact: With compact masks, which fit one input size only.
        mask: Height and width of the mask. None: (59, 59), compact (30, 30), of crops of 465 (or 473).
        aux: With the auxiliary head of training; either way a checkpoint may have it or not.
        dropout: Chance of a channel to be dropped before the classifier, in training.

    Returns:
        The network with ImageNet normalisation, random weights.

    Raises:
        InputError: If ``mask`` is not two numbers, or another argument is outside its range.

    Example:
        >>> psanet50(num_classes=21, mask=(89, 89)).network.psa.attention[3].out_channels == 89 * 89
        True
    """
    sides = _sides(mask, PSANET_COMPACT_MASK if compact else PSANET_MASK)
    network = PSANet(num_classes, layers=50, psa_type=psa_type, compact=compact, mask=sides, aux=aux, dropout=dropout)
    return _ready(network, num_classes, "psanet50")


@MODELS.register("psanet101", random=True)
def psanet101(
    num_classes: int = 150,
    psa_type: int = 2,
    compact: bool = False,
    mask: Sequence[int] | None = None,
    aux: bool = True,
    dropout: float = 0.1,
) -> Segmenter:
    """PSANet, ResNet-101. Published for VOC (21 classes), ADE20K (150), Cityscapes (19, mask=[89,89]).

    Crops and arguments as for `psanet50`.
    """
    sides = _sides(mask, PSANET_COMPACT_MASK if compact else PSANET_MASK)
    network = PSANet(num_classes, layers=101, psa_type=psa_type, compact=compact, mask=sides, aux=aux, dropout=dropout)
    return _ready(network, num_classes, "psanet101")


@MODELS.register("psanet_light", random=True)
def psanet_light(
    num_classes: int = 11,
    psa_type: int = 2,
    compact: bool = False,
    mask: Sequence[int] | None = None,
    aux: bool = True,
    dropout: float = 0.1,
) -> Segmenter:
    """PSANet, ResNet-18 of 3/8 the width, for small machines; its mask covers 240 × 320.

    Arguments as for `psanet50`; the mask is (29, 39), compact (15, 20), unless given.

    Example:
        >>> import torch
        >>> psanet_light(num_classes=5).logits(torch.rand(1, 3, 33, 41)).shape
        torch.Size([1, 5, 33, 41])
    """
    sides = _sides(mask, LIGHT_COMPACT_MASK if compact else LIGHT_MASK)
    options: dict[str, Any] = {"psa_type": psa_type, "compact": compact, "mask": sides, "aux": aux, "dropout": dropout}
    network = PSANet(num_classes, layers=18, width=LIGHT_WIDTH, **options)
    return _ready(network, num_classes, "psanet_light")


@MODELS.register("hrnet_ocr_w48", random=True)
def hrnet_ocr_w48(
    num_classes: int = 19, align_corners: bool = True, aux: bool = True, dropout: float = 0.05
) -> Segmenter:
    """HRNetV2-W48 with OCR. Published for Cityscapes (19 classes), ADE20K (150) and others.

    Trained on crops of 512 × 1024 (Cityscapes, evaluated on whole images of 1024 × 2048) and 520 × 520 (ADE20K).
    Weights are not included.

    Args:
        num_classes: C, at least 2.
        align_corners: How feature maps are resized; as in training.
        aux: Whether the logits of the object regions are given in training; the region head is there either way.
        dropout: Chance of a channel to be dropped before the classifier, in training.

    Returns:
        The network with ImageNet normalisation, random weights.
    """
    network = HRNetOCR(num_classes, width=48, align_corners=align_corners, aux=aux, dropout=dropout)
    return _ready(network, num_classes, "hrnet_ocr_w48")


@MODELS.register("hrnet_ocr_w18", random=True)
def hrnet_ocr_w18(
    num_classes: int = 19, align_corners: bool = True, aux: bool = True, dropout: float = 0.05
) -> Segmenter:
    """HRNetV2-W18 with OCR, the same network at three eighths of the width.

    Arguments as for `hrnet_ocr_w48`.
    """
    network = HRNetOCR(num_classes, width=18, align_corners=align_corners, aux=aux, dropout=dropout)
    return _ready(network, num_classes, "hrnet_ocr_w18")


@MODELS.register("hrnet_ocr_light", random=True)
def hrnet_ocr_light(
    num_classes: int = 11, align_corners: bool = True, aux: bool = True, dropout: float = 0.05
) -> Segmenter:
    """HRNetV2 with OCR, narrow and shallow, for small machines.

    Arguments as for `hrnet_ocr_w48`.

    Example:
        >>> import torch
        >>> hrnet_ocr_light(num_classes=5).logits(torch.rand(1, 3, 33, 41)).shape
        torch.Size([1, 5, 33, 41])
    """
    network = HRNetOCR(num_classes, align_corners=align_corners, aux=aux, dropout=dropout, **LIGHT)
    return _ready(network, num_classes, "hrnet_ocr_light")


def _ready(network: nn.Module, num_classes: int, name: str) -> Segmenter:
    network.eval()
    return wrap(network, num_classes=num_classes, normalisation="imagenet", name=name, channels_last=True)


def _sides(mask: Sequence[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if mask is None:
        return default
    if not isinstance(mask, Sequence) or len(mask) != 2:
        raise InputError(f"mask {mask!r}: expected [height, width]")
    return mask[0], mask[1]
