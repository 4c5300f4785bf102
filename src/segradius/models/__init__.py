"""Networks behind one face: `wrap` yours, or `load_model` by name, library or card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
