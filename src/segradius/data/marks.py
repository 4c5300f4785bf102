"""What the samples of a data set are made of and what their values mean, so that a change of either is seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from segradius.core.digests import Mark, Parts, changed_part, marks_of
from segradius.data.sample import BadSampleError, SegmentationData


def parts_of(data: SegmentationData, place: int) -> Parts:
    """What a sample is made of: its files, or in memory its tensors; nothing of one that cannot be read.

    A data set says it in a method ``parts`` of the place; the sample is read where it has none.

    Args:
        data: The data set.
        place: Of the sample.

    Example:
        >>> from segradius.data import Scenes
        >>> list(parts_of(Scenes((16, 16)), 0))
        ['image', 'label']
    """
    if hasattr(data, "parts"):
        found: Parts = data.parts(place)
        return found
    try:
        sample = data[place]
    except BadSampleError:
        return {}
    return {"image": sample.image, "label": sample.label}


def meaning_of(data: SegmentationData) -> dict[str, Any]:
    """What the values of all masks mean, as JSON holds it: the classes, and what a data set has as ``meaning`` beside.

    Example:
        >>> from segradius.data import Scenes
        >>> meaning_of(Scenes((16, 16)))["ignore_index"]
        255
    """
    told = {"classes": list(data.classes.names), "ignore_index": data.classes.ignore_index}
    return told | dict(getattr(data, "meaning", {}))


def changed_meaning(data: SegmentationData, before: Mapping[str, Any]) -> str | None:
    """What values do not mean any more, in words; None where they mean what they did.

    Args:
        data: The data set.
        before: `meaning_of` it.
    """
    now = meaning_of(data)
    differing = [name for name in now if name in before and now[name] != before[name]]
    if not differing:
        return None
    where = getattr(data, "told_by", None) or data.name
    return f"{where} changed ({', '.join(differing)})"


def look(
    data: SegmentationData, before: Mapping[str, Mapping[str, Mark]], images: Collection[str]
) -> tuple[dict[str, Mapping[str, Mark]], list[str]]:
    """What samples are made of now, and in words what of it changed.

    Args:
        data: The data set.
        before: What they were made of, by id.
        images: Ids of those that are looked at.
    """
    found: dict[str, Mapping[str, Mark]] = {}
    told = []
    for place, image in enumerate(data.ids):
        if image in images:
            parts, known = parts_of(data, place), before.get(image, {})
            found[image] = marks_of(parts, known)
            if changed := changed_part(parts, found[image], known):
                told.append(f"image {image}: {changed}")
    return found, told


def plain(marks: Mapping[str, Mark]) -> dict[str, list[str]]:
    """Marks by role, as JSON holds them; `marks` reads them."""
    return {role: [mark.digest, mark.stamp] for role, mark in marks.items()}


def marks(plain: Mapping[str, Any]) -> dict[str, Mark]:
    """The marks that `plain` was given."""
    return {role: Mark(*mark) for role, mark in plain.items()}
