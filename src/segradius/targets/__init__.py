"""What black-box attacks ask: a network here, an ONNX file, a server; counted, budgeted, as harsh as deployed ones."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
