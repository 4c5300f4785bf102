"""Certificates by randomized smoothing: what a segmentation model answers, with a promise of how far that holds.

Doors: `vote` and a certifier (`SegCertify`, `PixelRadii`, `Adaptive`), as `segradius certify` runs them; `vote_softly`
with `SoftRadii`, which bounds mean confidences of the same passes; `self_test` for a certifier of your own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
