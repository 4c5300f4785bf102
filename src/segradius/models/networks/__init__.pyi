from .ddcat import PSPNetDDCAT as PSPNetDDCAT
from .hrnet_ocr import HRNetOCR as HRNetOCR
from .hrnet_v2 import HRNetV2 as HRNetV2
from .lipschitz_unet import LipschitzUNet as LipschitzUNet
from .psanet import PSANet as PSANet
from .pspnet import PSPNet as PSPNet
from .upernet import UperNet as UperNet
from .vit_segmenter import ViTSegmenter as ViTSegmenter
