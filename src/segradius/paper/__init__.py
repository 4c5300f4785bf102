"""The paper, re-made: what each of its tables, figures and claims asks for at a scale, and what was measured of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
