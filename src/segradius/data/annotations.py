"""The three tables of a COCO JSON, every id of which stands once and for something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segradius.core.errors import InputError, is_whole, must, shown
from segradius.data.listing import composed


@dataclass(frozen=True)
class Shape:
    """An annotation.

    Args:
        name: Of its category.
        label: Its class, or its structure; None for a crowd and what is to be ignored.
        told: Its id, in words.
        given: Its segmentation, as the JSON holds it.
    """

    name: str
    label: int | None
    told: str
    given: Any


@dataclass(frozen=True)
class Tables:
    """The three tables of a COCO JSON, checked.

    Args:
        images: By id, in order.
        categories: Names by id, in order of the ids.
        annotations: In order.
    """

    images: Mapping[Any, Mapping[str, Any]]
    categories: Mapping[int, str]
    annotations: Sequence[Mapping[str, Any]]

    @staticmethod
    def of(content: object) -> Tables:
        """Those of a JSON's content.

        Raises:
            InputError: A table is missing, an entry is not as expected, or an id stands twice or for nothing.
        """
        must(isinstance(content, dict), "the JSON", content, "a mapping with images, categories and annotations")
        assert isinstance(content, dict)
        images = _by_id("images", _table(content, "images"), lambda key: is_whole(key, -np.inf) or _is_text(key))
        categories = _by_id("categories", _table(content, "categories"), is_whole)
        annotations = _table(content, "annotations")
        _by_id("annotations", [each for each in annotations if "id" in each], lambda key: True)
        if not images:
            raise InputError("images: there is none")
        for key, image in images.items():
            name = image.get("file_name")
            must(_is_text(name), f"file_name of image {key}", name, "a file")
        _no_two("images", "file_name", [composed(image["file_name"]) for image in images.values()])
        for key, category in categories.items():
            must(_is_text(category.get("name")), f"name of category {key}", category.get("name"), "a text")
        named = {key: categories[key]["name"] for key in sorted(categories)}
        _no_two("categories", "name", list(named.values()))
        for place, each in enumerate(annotations):
            told = _told(each, place)
            for name in ("iscrowd", "ignore"):
                must(each.get(name) in (0, 1, None), f"{name} of {told}", each.get(name), "0 or 1")
            for name, known in (("image_id", images), ("category_id", categories)):
                key = each.get(name)
                if "segments_info" in each:
                    raise InputError(
                        f"{told} has segments_info: a panoptic JSON, of which masks are files of their own"
                    )
                if not isinstance(key, int | str) or isinstance(key, bool) or key not in known:
                    table = "image" if name == "image_id" else "category"
                    raise InputError(f"{told} has {name} {shown(key)}, which is the id of no {table}")
        return Tables(images, named, annotations)

    def shapes(self, numbers: Mapping[int, int]) -> dict[Any, list[Shape]]:
        """The annotations of each image, of the categories with a number."""
        found: dict[Any, list[Shape]] = {}
        for place, each in enumerate(self.annotations):
            category = each["category_id"]
            if category not in numbers:
                continue
            void = each.get("iscrowd") or each.get("ignore")
            shape = Shape(
                self.categories[category],
                None if void else numbers[category],
                _told(each, place),
                each.get("segmentation"),
            )
            found.setdefault(each["image_id"], []).append(shape)
        return found

    def unchosen(self, numbers: Mapping[int, int]) -> list[str]:
        """Annotated categories without a number, each with how many annotations it has."""
        counts: dict[int, int] = {}
        for each in self.annotations:
            if each["category_id"] not in numbers:
                counts[each["category_id"]] = counts.get(each["category_id"], 0) + 1
        return [f"{count} of {self.categories[key]!r}" for key, count in sorted(counts.items())]


def _table(content: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = content.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        lacking = "it is missing" if name not in content else f"it is {shown(found)}"
        raise InputError(f"{name}: {lacking}; expected a list of mappings, as COCO's instances_….json has it")
    return found


def _by_id(name: str, entries: list[Mapping[str, Any]], known: Callable[[Any], bool]) -> dict[Any, Mapping[str, Any]]:
    found: dict[Any, Mapping[str, Any]] = {}
    for entry in entries:
        key = entry.get("id")
        good = isinstance(key, int | str) and not isinstance(key, bool) and known(key)
        must(good, f"id in {name}", key, "a whole number")
        if key in found:
            raise InputError(f"{name}: the id {shown(key)} stands twice")
        found[key] = entry
    return found


def _no_two(table: str, key: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise InputError(f"{table}: the {key} {shown(value)} stands twice")
        seen.add(value)


def _told(annotation: Mapping[str, Any], place: int) -> str:
    key = annotation.get("id")
    if key is None:
        return f"annotation number {place}"
    return f"annotation {key if isinstance(key, int) else shown(key)}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
