"""What the paper shows that no study of attacks gives: estimators, regret, radii, running time, maps, CLEVER."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
