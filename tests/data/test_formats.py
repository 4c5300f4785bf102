"""The sweep: every type × bands × container × declaration is read exactly, or refused in one line."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data.formats import BANDS, CONTAINERS, DTYPES, Made, mapped
from segradius.core.errors import InputError
from segradius.data.readers import places_of, read_pixels
from segradius.data.reading import reading_of


def read_all(made: Made, keys: dict) -> np.ndarray:
    """All slices (D, H, W, B) of a file."""
    reading = reading_of(made.keys | keys)
    places = places_of(made.path, reading) or [None]
    return np.stack([read_pixels(made.path, reading, place)[0] for place in places])


def outcome(made: Made, keys: dict, expected: np.ndarray | None) -> str:
    try:
        found = read_all(made, keys)
    except InputError as error:
        return "refused" if "\n" not in str(error) else "in several lines"
    right = expected is not None and found.dtype == np.float32 and np.array_equal(found, expected)
    return "right" if right else "wrong"


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.__name__)
def test_every_number_arrives_exactly_or_is_refused(tmp_path, container):
    counts: Counter[str] = Counter()
    unlike = []
    for dtype in DTYPES:
        for bands in BANDS:
            for name, made in container(tmp_path, dtype, bands):
                if made is None:
                    counts["not written"] += 1
                    continue
                volume = made.path.suffix in (".nii", ".gz")
                readable = bands == 1 or not volume  # four axes are refused
                low, high = (float(end) for end in (made.truth.min(), made.truth.max()))
                eight = made.truth.dtype == np.uint8
                inside = {"bands": bands, "range": [low, high]}
                half, plain = (low + high) / 2, eight and readable and bands != 4
                cut = {"bands": bands, "range": [low, half]}
                tries = {
                    "declared right": (inside, mapped(made.truth, low, high) if readable else None),
                    "undeclared": ({}, np.repeat(mapped(made.truth, 0, 255), 3 // bands, -1) if plain else None),
                    "outside the range": (cut, None),
                    "clipped": (
                        cut | {"clip": True},
                        mapped(made.truth.clip(low, half), low, half) if readable else None,
                    ),
                    "other bands": (inside | {"bands": 2}, None),
                }
                for what, (keys, expected) in tries.items():
                    found = outcome(made, keys, expected)
                    counts[found] += 1
                    if found != ("refused" if expected is None else "right"):
                        unlike.append((dtype, bands, name, what, found))
    print(container.__name__, dict(counts))
    assert unlike == []
    assert counts["wrong"] == counts["in several lines"] == 0
