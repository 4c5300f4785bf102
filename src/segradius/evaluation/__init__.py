"""Experiments: what to run, running it so that it can be stopped at any time, and what came out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
