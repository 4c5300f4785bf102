"""The networks of the paper as plain modules: normalised images in, logits out, state-dict names as published."""

from segradius.models.networks.hrnet_ocr import HRNetOCR
from segradius.models.networks.psanet import PSANet
from segradius.models.networks.pspnet import PSPNet

__all__ = ["HRNetOCR", "PSANet", "PSPNet"]
