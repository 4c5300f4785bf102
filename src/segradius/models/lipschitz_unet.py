"""The 1-Lipschitz network by name."""

from __future__ import annotations

from collections.abc import Sequence

from segradius.core.errors import must
from segradius.models.networks import LipschitzUNet
from segradius.models.preprocessing import Normalisation
from segradius.models.segmenter import INITIALISED, Segmenter
from segradius.models.sources import MODELS


@MODELS.register("lipschitz_unet")
def lipschitz_unet(
    num_classes: int = 11,
    bands: int = 3,
    first: int = 4,
    widths: Sequence[int] = (48, 96, 96),
    blocks: Sequence[int] = (2, 2, 2),
    order: int = 3,
    level: float | None = None,
    plain: bool = False,
) -> Segmenter:
    """A small U-Net whose logits are 1-Lipschitz in l2, for certificates of one pass; train it with --temperature.

    Args:
        num_classes: C, at least 2.
        bands: Input channels.
        first: Side of the blocks of pixels that it looks at first.
        widths: Channels of its levels, each of half the resolution of the one before.
        blocks: Residual layers of each level, on the way down and as many on the way up.
        order: Highest frequency of what is added at each place, in half waves over a side.
        level: Size, as 0.15, to which larger frequencies of blocks of pixels are lowered first; none are where it is
            not given.
        plain: With the kernels themselves as weights, for a checkpoint of them: faster, and not to be trained. Its L is
            what its card states.

    Raises:
        InputError: A size is out of its range, or there are other numbers of widths than of blocks.
    """
    must(isinstance(num_classes, int) and num_classes > 1, "num_classes", num_classes, "a whole number of at least 2")
    network = LipschitzUNet(
        num_classes, bands, first=first, widths=widths, blocks=blocks, order=order, level=level, plain=plain
    )
    as_they_are = Normalisation.none(bands)
    stated = None if plain else 1.0
    return Segmenter(
        network.eval(), num_classes, "lipschitz_unet", as_they_are, weights=INITIALISED, bands=bands, lipschitz=stated
    )
