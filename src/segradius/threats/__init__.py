"""Threat models: lp balls cut with the pixel box, and exact projections onto them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
