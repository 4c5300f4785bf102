"""Gradient estimators for black boxes: ZOO, NES, OPGE, TPGE, and the subspaces they search."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
