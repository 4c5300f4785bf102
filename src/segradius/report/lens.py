"""What a page shows of one attack at a time: its classes, what becomes what, its images; as plain data for a script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segradius.metrics.intervals import Interval
from segradius.report.album import Album, chosen
from segradius.report.story import CLEAN, Line, Part, Story
from segradius.report.subject import WORST, Subject, at

#: Classes in a table of what becomes what; all others are put together.
MOST = 14
OTHERS = "other classes"


def lenses(subject: Subject, album: Album, images: int) -> list[dict[str, Any]]:
    """Of each attack at each budget, the strongest first and then by norm; what has no images of its own stands last.

    Args:
        subject: What is told.
        album: Takes the pictures.
        images: How many of the gallery an attack has.
    """
    order = sorted(subject.lines, key=lambda each: _place(subject, each[1]))
    order = [*order[:1], *sorted(order[1:], key=_by_norm)]
    shots = {story.run: chosen(story, images) for story in subject.attacked}
    found = []
    for story, line in order:
        mine = [shot for shot in shots[story.run] if shot.plan == line.plan]
        pictures = [
            {"image": s.image, "rank": s.rank, "shares": [s.before, s.left], **album.add(story, s)} for s in mine
        ]
        found.append(
            {
                "label": _label(subject, story, line),
                "classes": classes(story.lines[0].parts, line.parts),
                "confusion": confusion(story, line),
                "shots": pictures,
                "images": _images(story, line),
            }
        )
    return found


def _place(subject: Subject, line: Line) -> tuple[bool, float]:
    sign = -1 if subject.targeted else 1
    return line.name.startswith(WORST), sign * line.shares[subject.measure].value


def _by_norm(each: tuple[Story, Line]) -> tuple[bool, str, float]:
    line = each[1]
    return line.name.startswith(WORST), line.plan[1], -line.plan[2]


def _label(subject: Subject, story: Story, line: Line) -> str:
    seeds = {each.seed for each in subject.attacked}
    runs = f", seed {story.seed}" if len(seeds) > 1 else f", {story.run.name}" if len(subject.attacked) > 1 else ""
    return f"{line.name}, {at(*line.plan[1:])}{runs}"


def classes(before: Sequence[Part], after: Sequence[Part]) -> list[dict[str, Any]]:
    """Each class before and after an attack, that which lost most IoU first.

    Args:
        before: Unattacked.
        after: Under attack.
    """
    known = {part.name: part for part in before}
    rows = [
        {
            "name": part.name,
            "pixels": part.pixels,
            "before": ends(known[part.name].iou),
            "after": ends(part.iou),
            "accuracy": [ends(known[part.name].accuracy), ends(part.accuracy)],
            "dice": [ends(known[part.name].dice), ends(part.dice)],
        }
        for part in after
        if part.name in known
    ]
    return sorted(rows, key=lambda row: _lost(row["before"][0], row["after"][0]))


def _lost(before: float | None, after: float | None) -> float:
    return 1.0 if before is None or after is None else after - before


def ends(found: Interval) -> list[float | None]:
    """Value, low and high end, for JSON.

    Example:
        >>> ends(Interval(0.5, float("nan"), 0.75))
        [0.5, None, 0.75]
    """
    return [None if part != part else part for part in (found.value, found.low, found.high)]


def confusion(story: Story, line: Line) -> dict[str, Any] | None:
    """Pixels by label and by what is seen, before and after: the classes that lose most to others, and the rest.

    Args:
        story: Of the run.
        line: The attack.

    Returns:
        ``names``, and the matrices ``before`` and ``after``, a row a label; None where the run has no such file.
    """
    after = story.confusion.get(line.plan)
    if not after:
        return None
    before = story.confusion.get(CLEAN, ())
    moved: Counter[str] = Counter()
    for label, seen, pixels in after:
        if label != seen:
            moved[label] += pixels
            moved[seen] += pixels
    every = list(dict.fromkeys(name for label, seen, _ in (*before, *after) for name in (label, seen)))
    names = [name for name, _ in moved.most_common(MOST)] if len(every) > MOST else every
    rest = [OTHERS] if len(every) > len(names) else []
    return {
        "names": [*names, *rest],
        "before": _matrix(before, names, bool(rest)),
        "after": _matrix(after, names, bool(rest)),
    }


def _matrix(cells: Sequence[tuple[str, str, int]], names: Sequence[str], rest: bool) -> list[list[int]]:
    place = {name: at for at, name in enumerate(names)}
    size = len(names) + rest
    found = [[0] * size for _ in range(size)]
    for label, seen, pixels in cells:
        found[place.get(label, len(names))][place.get(seen, len(names))] += pixels
    return found


def _images(story: Story, line: Line) -> list[tuple[str, float, float]]:
    """Name, share that is right before, and share that is left, of each image; those that lost most first."""
    before: Mapping[str, float] = story.images.get(CLEAN, {})
    found = story.images.get(line.plan, {})
    rows = [(image, before[image], left) for image, left in found.items() if image in before]
    return sorted(rows, key=lambda row: row[2] - row[1])
