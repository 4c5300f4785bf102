"""Which images are kept whole because attacks hurt none, or all others, more: the same in whatever order they come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from segradius.evaluation.rows import ImageResult, Rows
from segradius.evaluation.store import Store

V = TypeVar("V")


def share_left(result: ImageResult, *, targeted: bool) -> float:
    """What an attack left undone of an image: labelled pixels that are right or, targeted, not where it aimed.

    Example:
        >>> from segradius.metrics.counts import Pixels
        >>> result = ImageResult("a", Pixels((1, 2), (2, 2), (3, 1)), hit=1, eligible=4)
        >>> share_left(result, targeted=False), share_left(result, targeted=True)
        (0.75, 0.75)
    """
    if targeted:
        return 1 - result.hit / max(1, result.eligible)
    return sum(result.pixels.intersection) / max(1, sum(result.pixels.labelled))


def remaining(results: Iterable[ImageResult], *, targeted: bool) -> dict[str, float]:
    """`share_left` of each image whose logits stayed finite."""
    return {result.image: share_left(result, targeted=targeted) for result in results if result.valid}


def extremes(left: Mapping[str, float], number: int) -> tuple[list[str], list[str]]:
    """The images of which least is left, and those of which most is, the extreme ones first; none is in both.

    Of equal ones those count as more hurt whose ids come first. Of the extremes of some images and those of others the
    extremes are those of all.

    Args:
        left: What is left of each image.
        number: How many of a kind, at most; of few images half of each.

    Example:
        >>> extremes({"a": 0.5, "b": 0.25, "c": 0.5, "d": 0.75, "e": 0.5}, 2)
        (['b', 'a'], ['d', 'e'])
        >>> extremes({"a": 0.5, "b": 0.25, "c": 0.5}, 2)
        (['b', 'a'], ['c'])
    """
    order = sorted(left, key=lambda image: (left[image], image))
    least = min(number, len(order) // 2)
    most = min(number, len(order) - least)
    return order[:most], order[::-1][:least]


class Gallery:
    """Sieves rows as they come, so that of each job no more images are kept whole than a gallery shows.

    Args:
        number: Most hurt and least hurt images of each job.
        store: Where those that were kept before are named.
        spared: Images that are kept whole anyway.
    """

    def __init__(self, number: int, store: Store, spared: Collection[str] = ()) -> None:
        self._number, self._store, self._spared = number, store, frozenset(spared)
        self._held: dict[str, dict[str, float]] = {}

    def sieved(self, rows: Rows) -> tuple[Rows, list[str]]:
        """The rows without what is not kept of them, and the images that fall out of what is kept already."""
        offered = {image: it.remaining for image, it in rows.kept.gallery.items()}
        if not offered:
            return rows, []
        if rows.key not in self._held:
            self._held[rows.key] = self._store.gallery(rows.key)
        before = self._held[rows.key]
        every = before | offered
        chosen = {image for end in extremes(every, self._number) for image in end}
        self._held[rows.key] = {image: every[image] for image in every if image in chosen}
        refused = {image for image in offered if image not in chosen}
        whole, kept = refused - self._spared, rows.kept
        kept = replace(
            kept,
            adversarial=_without(kept.adversarial, whole),
            predictions=_without(kept.predictions, whole),
            gallery=_without(kept.gallery, refused),
        )
        fallen = sorted(image for image in before if image not in chosen and image not in self._spared)
        return replace(rows, kept=kept), fallen


def trim(number: int, store: Store, spared: Collection[str], keys: Iterable[str]) -> None:
    """Drop from a store what a gallery has no more, where it holds more than one run would have kept.

    Args:
        number: As `Gallery` has it, like ``spared``.
        store: That several runs' results are in.
        spared: Images that are kept whole anyway.
        keys: Of the jobs.
    """
    for key in keys:
        held = store.gallery(key)
        chosen = {image for end in extremes(held, number) for image in end}
        store.add(key, [], fallen=sorted(held.keys() - chosen - frozenset(spared)))


def _without(parts: Mapping[str, V], images: Collection[str]) -> dict[str, V]:
    return {image: part for image, part in parts.items() if image not in images}
