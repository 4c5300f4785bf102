from .hrnet_ocr import HRNetOCR as HRNetOCR
from .psanet import PSANet as PSANet
from .pspnet import PSPNet as PSPNet
