"""The networks of the paper as plain modules: normalised images in, logits out, state-dict names as published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
