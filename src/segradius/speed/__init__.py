"""The fast path: the same network made cheaper for loops, while the network itself gives every verdict.

Doors: `sped_up`, as ``--speed`` does it; `chosen` tells what pays, `Choice` is that as plain data.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
