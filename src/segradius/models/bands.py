"""How many bands a network takes, by its first convolution and by what it makes of a grey image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from segradius.core.errors import InputError, is_whole

RGB = 3
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def first_convolution(network: Callable[..., Any]) -> nn.Module | None:
    """The convolution that a network has first, by the order of its modules; None where there is none to be seen."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    return next((module for module in modules if isinstance(module, CONVOLUTIONS)), None)


def likely_bands(network: Callable[..., Any]) -> int | None:
    """Input channels of a network's first convolution, which are its bands unless it makes others of them before.

    Example:
        >>> likely_bands(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 2, 1))), likely_bands(nn.Flatten())
        (4, None)
    """
    first = first_convolution(network)
    return first.in_channels if isinstance(first, nn.Conv2d) and first.in_channels else None


def candidates(known: int | None, likely: int | None) -> tuple[int, ...]:
    """Numbers of bands to try, the likeliest first.

    Args:
        known: What is said, which leaves nothing to try.
        likely: From `likely_bands`.

    Example:
        >>> candidates(None, 4), candidates(None, None), candidates(2, 4)
        ((3, 4, 1), (3, 1), (2,))
    """
    if known is not None:
        return (known,)
    return tuple(dict.fromkeys(bands for bands in (RGB, likely, 1) if bands is not None))


def found_bands(worked: int, likely: int | None) -> int | None:
    """The bands of a network that took an image of ``worked`` of them; None where it may take any number.

    RGB is tried first, so that another number is one that RGB is not.

    Example:
        >>> found_bands(3, 3), found_bands(1, None), found_bands(3, 64)
        (3, 1, None)
    """
    return worked if worked == likely or worked != RGB else None


def check_number(bands: object) -> None:
    """Raise `InputError` unless ``bands`` is a whole number of at least 1, or None."""
    if bands is not None and not is_whole(bands, 1):
        raise InputError(f"bands={bands!r}: expected a whole number of input channels of at least 1")


def refuse_volumes(network: Callable[..., Any], name: str) -> None:
    """Raise `InputError` for a network that begins with a convolution over three dimensions.

    Example:
        >>> refuse_volumes(nn.Conv3d(1, 2, 3), "net")
        Traceback (most recent call last):
        segradius.core.errors.InputError: model 'net' begins with a Conv3d and takes volumes (N, B, D, H, W); here ...
    """
    if isinstance(first_convolution(network), nn.Conv3d):
        raise InputError(
            f"model {name!r} begins with a Conv3d and takes volumes (N, B, D, H, W); here images are (N, B, H, W), one "
            "slice each, with neighbouring slices as bands at most. If it takes such images all the same, give bands="
        )
