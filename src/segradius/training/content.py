"""What a training learns from, by content: it does not go on once images, held-out images or the network's code change.

The recipe and the first weights are in its identity; see `segradius.training.job.Job`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segradius.core.digests import first_of
from segradius.data.marks import changed_meaning, look, marks, meaning_of, plain
from segradius.data.sample import SegmentationData
from segradius.models import code

Content = Mapping[str, Any]


def content_of(
    sets: Mapping[str, SegmentationData], model: str | None, before: Content
) -> tuple[dict[str, Any], str | None]:
    """What is learnt from and judged on now, to be kept in a snapshot, and in words what of it changed.

    Args:
        sets: Data sets by what they are for.
        model: The network, as `segradius.models.load_model` takes it; None where it has no such name.
        before: What a snapshot kept; empty for one of an earlier version.
    """
    files = {} if model is None else code.files_of(model)
    told = code.changed_files(files, before.get("files"))
    now: dict[str, Any] = {"files": code.digests(files)}
    for purpose, data in sets.items():
        known = before.get(purpose, {})
        told += [changed for changed in [changed_meaning(data, known.get("meaning", {}))] if changed]
        found, changes = look(data, {i: marks(m) for i, m in known.get("images", {}).items()}, set(data.ids))
        told += changes
        images = {image: plain(parts) for image, parts in found.items()}
        now[purpose] = {"meaning": meaning_of(data), "images": images}
    return now, first_of(told)
