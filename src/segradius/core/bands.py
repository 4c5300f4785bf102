"""Bands of an image, its input channels: how many a model takes, and what is said where an image has another number."""

from __future__ import annotations

from torch import Tensor

from segradius.core.errors import InputError


def bands_of(model: object) -> int | None:
    """The bands B that a model or target takes; None where it is not known, so that it is given what there is.

    Example:
        >>> bands_of(object()) is None
        True
    """
    found = getattr(model, "bands", None)
    return found if isinstance(found, int) else None


def told(bands: int) -> str:
    """A number of bands in words.

    Example:
        >>> told(1), told(3)
        ('1 band', '3 bands')
    """
    return f"{bands} band" if bands == 1 else f"{bands} bands"


def check_bands(found: int, wanted: int | None, name: str, *, coloured: bool = False) -> None:
    """Raise `InputError` where images have another number of bands than the model of this name takes.

    Args:
        found: Of the images.
        wanted: Of the model; None: not known, and nothing is refused.
        name: Of the model.
        coloured: Whether the images are known to be of three bands that are not all the same.

    Example:
        >>> check_bands(3, 1, "net")
        Traceback (most recent call last):
        segradius.core.errors.InputError: model 'net' takes 1 band and the images have 3: where the files are grey, ...
    """
    if wanted is None or found == wanted:
        return
    raise InputError(
        f"model {name!r} takes {told(wanted)} and the images have {found}: {_advice(found, wanted, coloured)}"
    )


def slices(images: Tensor) -> str:
    """What is said more of images in five dimensions; nothing of others."""
    if images.ndim != 5:
        return ""
    return ": a volume (N, B, D, H, W) is taken slice by slice, as images[:, :, d], with neighbours as bands at most"


def _advice(found: int, wanted: int, coloured: bool) -> str:
    wrong = f"if the network does take {told(found)}, say so with bands={found} (bands: {found} in its card)"
    if (found, wanted) == (3, 1):
        grey = "" if coloured else "where the files are grey, give bands=1 with the data (bands: 1 in segradius.yaml); "
        return (
            f"{grey}colours must be made grey first (a tensor: .mean(1, keepdim=True); files: written anew as grey), "
            f"or another model be taken; {wrong}"
        )
    if (found, wanted) == (1, 3):
        return (
            "give bands=3 with the data (bands: 3 in segradius.yaml), which repeats grey as red, green and blue (a "
            f"tensor: .expand(-1, 3, -1, -1)); {wrong}"
        )
    return f"give images of {told(wanted)}; {wrong}"
