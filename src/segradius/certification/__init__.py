"""Certificates by randomized smoothing: what a segmentation model answers, with a promise of how far that holds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
