"""What a network might want done to its bands: what people commonly train with, by name."""

from __future__ import annotations

from segradius.models.preprocessing import Normalisation

#: What else a network of three bands might want done to them, by what people call it.
COLOURED = {
    "imagenet": Normalisation.imagenet(),
    "mean 0, std 1, order [2, 1, 0] (BGR)": Normalisation((0.0,) * 3, (1.0,) * 3, (2, 1, 0)),
    "imagenet, order [2, 1, 0] (BGR)": Normalisation((0.406, 0.456, 0.485), (0.225, 0.224, 0.229), (2, 1, 0)),
}
#: What is done to every band alike, as (mean, std), for any number of bands.
ALIKE = {"none": (0.0, 1.0), "mean 0.5, std 0.5": (0.5, 0.5), "mean 0, std 1/255 (images in 0–255)": (0.0, 1 / 255)}
#: Names of all, the commonest first.
PREPARATIONS = ("imagenet", *ALIKE, *(name for name in COLOURED if name != "imagenet"))


def preparations(bands: int) -> dict[str, Normalisation]:
    """What a network of so many bands might want done to them, by name; what is ImageNet's or BGR of three alone.

    Example:
        >>> list(preparations(1)), len(preparations(3)), preparations(2)["mean 0.5, std 0.5"].mean
        (['none', 'mean 0.5, std 0.5', 'mean 0, std 1/255 (images in 0–255)'], 6, (0.5, 0.5))
    """
    alike = {name: Normalisation((mean,) * bands, (std,) * bands) for name, (mean, std) in ALIKE.items()}
    known = alike | (COLOURED if bands == 3 else {})
    return {name: known[name] for name in PREPARATIONS if name in known}


def others(mine: Normalisation | None, bands: int) -> dict[str, Normalisation]:
    """Those of `preparations` that a network has not.

    Example:
        >>> "none" in others(None, 3), "imagenet" in others(Normalisation.imagenet(), 3)
        (False, False)
    """
    own = mine or Normalisation.none()
    return {w: c for w, c in preparations(bands).items() if c != own and not (c.is_identity and own.is_identity)}


def written(colours: Normalisation) -> str:
    """What `--normalisation` takes for it.

    Example:
        >>> written(Normalisation.imagenet()), written(preparations(3)["mean 0.5, std 0.5"])
        ('imagenet', "'{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}'")
    """
    entry = colours.entry
    if isinstance(entry, str):
        return entry
    parts = {name: values for name, values in entry.items() if values != [*range(colours.bands)] or name != "order"}
    told = (f"{name}: [{', '.join(f'{value:.6g}' for value in values)}]" for name, values in parts.items())
    return f"'{{{', '.join(told)}}}'"
