"""The networks of the paper as plain modules: normalised images in, logits out, state-dict names as published."""

from segradius.networks.hrnet_ocr import HRNetOCR
from segradius.networks.psanet import PSANet
from segradius.networks.pspnet import PSPNet

__all__ = ["HRNetOCR", "PSANet", "PSPNet"]
