"""A computation: a function of networks with their images, a folder and options that gives what JSON holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segradius.core.declared import kinds_of, read
from segradius.core.names import safe_name
from segradius.core.registry import Registry
from segradius.core.safe_json import read_json
from segradius.core.storage import as_json, write_atomically
from segradius.core.text import refuse_unknown
from segradius.data.sample import SegmentationData
from segradius.models.segmenter import Segmenter


@dataclass(frozen=True)
class Subject:
    """A network of a scale and the images that it is looked at with.

    Attributes:
        label: Of the network, as ``pspnet-0``.
        family: As ``pspnet``.
        role: ``plain``, or the defence.
        seed: Of its training.
        data: Label of the data.
        images: The images, those that are asked for and no other.
        load: Opens the network; it is called when its turn comes, so that one is in memory at a time.
        norm: Of the defence's budget.
        facts: What else decides what is found: digests of weights and data, say.
    """

    label: str
    family: str
    role: str
    seed: int
    data: str
    images: SegmentationData
    load: Callable[[], Segmenter]
    norm: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """What a row about it begins with."""
        return {name: getattr(self, name) for name in ("label", "family", "role", "norm", "seed", "data")}

    @property
    def known(self) -> dict[str, Any]:
        """What it is, as JSON holds it."""
        return {**self.about, "images": list(self.images.ids), **self.facts}


Computation = Callable[..., dict[str, Any]]
"""``run(subjects, folder, **options)``: what was found, as JSON holds it; arrays go into .npz files in the folder."""

#: Computations by name. What is registered with one as ``passes`` is a function of (subjects, **options): passes over
#: an image, forward and backward, that it takes from beginning to end.
COMPUTED: Registry[Computation] = Registry("computation", "segradius.paper.computed")


def compute(
    name: str, subjects: Sequence[Subject], folder: Path, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run a computation; what an earlier call with the same subjects and options finished in the folder is not redone.

    Args:
        name: In `COMPUTED`.
        subjects: Networks with their images; some computations take none.
        folder: For arrays and for what is finished in part; it is made if it is not there.
        options: Of the computation.

    Raises:
        InputError: The name or an option is unknown, or an option or a subject is not what the computation takes.

    Example:
        >>> from tempfile import mkdtemp
        >>> found = compute("regret", (), Path(mkdtemp()), {"first": 2, "last": 4, "seeds": 2})
        >>> [len(each["rounds"]) for each in found["losses"]]
        [2, 2, 2, 2, 2, 2]
    """
    folder.mkdir(parents=True, exist_ok=True)
    return COMPUTED[name](subjects, folder, **_checked(name, options))


def expected_passes(name: str, subjects: Sequence[Subject], options: Mapping[str, Any] | None = None) -> int:
    """Passes over an image, forward and backward, that a computation takes in all.

    Raises:
        InputError: The name or an option is unknown.
    """
    passes = COMPUTED.facts(name).get("passes")
    return 0 if passes is None else int(passes(subjects, **_checked(name, options)))


def _checked(name: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    kinds = {each: kind for each, kind in kinds_of(COMPUTED[name]).items() if each not in ("subjects", "folder")}
    refuse_unknown(f"option of {name}", options or {}, kinds)
    return {each: read(f"{name}.{each}", kinds[each], value) for each, value in (options or {}).items()}


def remembered(
    folder: Path, part: str, given: Mapping[str, Any], make: Callable[[], Any], files: Sequence[str] = ()
) -> Any:
    """A part of a computation: from the file that an earlier call wrote, or made now and written.

    Args:
        folder: Of the computation.
        part: Name of the part.
        given: All that decides what is found; a file that was written for anything else is not used.
        make: Gives what JSON holds.
        files: Names of files in the folder that ``make`` writes; without them it is made anew.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> remembered(folder, "a", {"n": 1}, lambda: [1.0]), remembered(folder, "a", {"n": 1}, lambda: [2.0])
        ([1.0], [1.0])
    """
    key = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
    file = folder / "parts" / f"{safe_name(part)}.json"
    whole = file.exists() and all((folder / name).exists() for name in files)
    if whole and (found := read_json(file)).get("given") == key:
        return found["found"]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, as_json({"given": key, "found": make()}))
    return read_json(file)["found"]
