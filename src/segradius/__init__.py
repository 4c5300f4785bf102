"""segradius: measure, attack, certify and harden image-segmentation models, guided by the certified radius.

The names below are loaded when first used, so that ``import segradius`` and ``segradius --help`` are instant.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
