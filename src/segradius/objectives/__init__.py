"""What an attack maximises: a loss of each pixel times a weight, towards a goal."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
