"""What albumentations saved of an evaluation's preprocessing, as a normalisation and a rule of sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.core.safe_json import read_json
from segradius.core.screen import warn
from segradius.models.preprocessing import Normalisation, SizeRule

EVAL = "albumentations_config_eval.json"
#: Transforms that change neither colours nor sizes.
NOTHING = ("ToTensorV2", "ToTensor", "NoOp")
NESTED = ("Compose", "Sequential")
#: Of OpenCV: bilinear, and the border that repeats the last row and column.
LINEAR, REPLICATE = 1, 1
MAXIMUM = 255.0


@dataclass(frozen=True)
class Transform:
    """What is done to an 8-bit image before a network sees it.

    Args:
        normalisation: For images in [0, 1].
        size: What sizes it makes; None for any.
    """

    normalisation: Normalisation
    size: SizeRule | None = None


def read_transform(path: Path) -> Transform:
    """The transform in a file that albumentations' ``save_pretrained`` wrote, for RGB or other bands.

    ``Normalize``, ``ToFloat``, bilinear ``Resize``, ``PadIfNeeded`` to a divisor, and what changes nothing are known.
    Without a normalisation the network takes values from 0 to 255.

    Raises:
        InputError: The file cannot be read, or holds another transform or option; the message says what to give.
    """
    content = read_json(path)
    try:
        steps = list(_steps(content["transform"], path))
        found = [each for name, options in steps if (each := _step(name, options, path)) is not None]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no transform of albumentations: {type(error).__name__}: {error}") from error
    colours = [each for each in found if isinstance(each, Normalisation)]
    sizes = [each for each in found if isinstance(each, SizeRule)]
    if len(colours) > 1:
        raise _unknown(path, "two normalisations", "normalisation")
    if any(_off(sizes[0], each) for each in sizes[1:]):
        raise _unknown(path, "several sizes", "size")
    return Transform(colours[0] if colours else _raw(), sizes[0] if sizes else None)


def _steps(transform: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and options of the transforms, one after another."""
    name = transform["__class_fullname__"].rpartition(".")[2]
    if transform.get("p", 1.0) != 1:
        raise _unknown(path, f"{name} with probability {transform['p']}", "normalisation and size")
    if name in NESTED:
        for each in transform["transforms"]:
            yield from _steps(each, path)
    else:
        yield name, transform


def _step(name: str, options: Mapping[str, Any], path: Path) -> Normalisation | SizeRule | None:
    if name in NOTHING:
        return None
    if name == "Normalize":
        return _normalisation(options, path)
    if name == "ToFloat":
        if options.get("max_value") not in (None, MAXIMUM):
            raise _unknown(path, f"ToFloat with max_value {options['max_value']}", "normalisation")
        return Normalisation.none()
    if name == "Resize":
        if options.get("interpolation", LINEAR) != LINEAR or options.get("area_for_downscale"):
            raise _unknown(path, "a Resize that is not bilinear", "size")
        return SizeRule(exact=(options["height"], options["width"]), mode="resize")
    if name == "PadIfNeeded":
        return _padding(options, path)
    raise _unknown(path, f"{name}, which is not known here", "normalisation and size")


def _normalisation(options: Mapping[str, Any], path: Path) -> Normalisation:
    kind, most = options.get("normalization", "standard"), options.get("max_pixel_value", MAXIMUM)
    if kind != "standard" or most != MAXIMUM:
        what = f"normalization {kind!r}" if kind != "standard" else f"max_pixel_value {most}"
        raise _unknown(path, f"Normalize with {what}", "normalisation")
    mean, std = options["mean"], options["std"]
    if not isinstance(mean, list):
        mean, std = [mean] * 3, [std] * 3
    return Normalisation(tuple(mean), tuple(std))


def _padding(options: Mapping[str, Any], path: Path) -> SizeRule:
    sides = [options.get(f"pad_{side}_divisor") for side in ("height", "width")]
    least = [options.get(f"min_{side}") for side in ("height", "width")]
    if sides[0] is None or sides[0] != sides[1] or least != [None, None]:
        raise _unknown(path, f"PadIfNeeded to at least {least} and multiples of {sides}", "size")
    where, border = options.get("position", "center"), options.get("border_mode")
    if where != "top_left" or border != REPLICATE:
        warn(
            f"{path.name} pads with the image at {str(where)!r} and border mode {border} of OpenCV; here rows and "
            "columns are added at the bottom and right, and repeat the last"
        )
    return SizeRule(multiple_of=sides[0])


def _off(first: SizeRule, then: SizeRule) -> bool:
    """Whether a size after another would change it."""
    if first.exact is None or then.exact is not None:
        return first != then
    return any(side % then.multiple_of for side in first.exact)


def _raw() -> Normalisation:
    """Of a network that takes values from 0 to 255."""
    return Normalisation((0.0, 0.0, 0.0), (1 / MAXIMUM,) * 3)


def _unknown(path: Path, what: str, option: str) -> InputError:
    return InputError(f"{path} has {what}: give {option} (in a card or load_model) to say what the network takes")
