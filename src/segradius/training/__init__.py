"""Training and its defences: `fit` a `Job` with a `Recipe`, an adversary from `make_adversary` in it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
