"""What the rows of a store were made from, by content: a row is not used again once its image or model has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segradius.core.digests import Mark, Parts, changed_part, first_of, marks_of
from segradius.core.errors import InputError
from segradius.data.marks import changed_meaning, marks, meaning_of, parts_of, plain
from segradius.data.marks import look as look_at
from segradius.data.sample import SegmentationData
from segradius.evaluation.job import Measurement, ModelChoice, described
from segradius.evaluation.store import Store
from segradius.models import code

NOTE = "sources"


@dataclass(frozen=True)
class Look:
    """What a store's rows were made from, against what is there now.

    Attributes:
        changed: What is not what it was, in words that name it; None where all is.
        unknown: Images with results of which an earlier version did not note what they were made from.
        note: What holds for all images now: the classes, and files by name with their digests.
        marks: Of the images that have results.
    """

    changed: str | None
    unknown: int
    note: Mapping[str, Any]
    marks: Mapping[str, Mapping[str, Mark]]

    def keep(self, store: Store) -> None:
        """Note it all, for the next look."""
        store.note(NOTE, self.note)
        store.mark({image: plain(found) for image, found in self.marks.items()})


def look(
    measurement: Measurement,
    data: SegmentationData,
    store: Store,
    earlier: Mapping[str, Any] | None = None,
    *,
    begun: bool = False,
) -> Look:
    """Compare what a run is about to use with what the results in its store were made from.

    Args:
        measurement: Of the run.
        data: Its images, of which those with results are looked at.
        store: The results.
        earlier: The measurement that made them, as `Measurement.as_dict` has it: where it names another model or other
            data, those are not compared.
        begun: Whether work on images without results was begun, and is to go on.
    """
    now = described(measurement.model, measurement.data)
    before = now if earlier is None else dict(earlier)
    noted: Mapping[str, Any] = store.noted(NOTE) or {}
    known = {image: marks(found) for image, found in store.marks().items()}
    done = store.images()
    used = done | (known.keys() if begun else set())
    files = _files(measurement)
    told: list[str] = []
    named = [{key: each.get(key) for key in ("spec", "surrogates")} for each in (now["model"], _part(before, "model"))]
    if used and named[0] == named[1]:
        told += code.changed_files(files, noted.get("files"))
    found: dict[str, Mapping[str, Mark]] = {}
    if _without_limit(now["data"]) == _without_limit(_part(before, "data")):
        told += [changed for changed in [changed_meaning(data, noted.get("meaning", {}))] if changed and used]
        found, images = look_at(data, known, used)
        told += images
    note = {"meaning": meaning_of(data), "files": code.digests(files)}
    return Look(first_of(told), len(done - known.keys()), note, found)


def _files(measurement: Measurement) -> code.Files:
    """The files that decide what a model computes beside its parameters, and what an attack aims at."""
    found = dict(_model_files(measurement.model))
    aim = measurement.clean.aim
    if aim is not None and Path(aim).is_file():
        found |= code.digested({f"aim {Path(aim).name}": Path(aim)})
    return found


def _model_files(choice: ModelChoice) -> code.Files:
    made_on = [(f"surrogate {name}", file) for each in choice.surrogates or () for name, file in _code(each)]
    if not choice.scores_only:
        return dict([*_code(choice.spec), *made_on, *_denoiser(choice.denoiser)])
    from segradius.targets.opening import files_of  # brings every protocol, which a network can do without

    return dict([*files_of(choice.spec).items(), *made_on])


def _code(spec: str) -> list[tuple[str, tuple[Path, str]]]:
    return list(code.files_of(spec).items())


def _denoiser(text: str | None) -> list[tuple[str, tuple[Path, str]]]:
    if text is None:
        return []
    from segradius.models.code import denoiser_files

    return list(denoiser_files(text).items())


def _part(described: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of an experiment that another version may have written."""
    found = described.get(name)
    return found if isinstance(found, Mapping) else {}


def _without_limit(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "limit"}


@dataclass
class Watch:
    """Sees what images are before they are read, and that they are that still when rows are stored, and notes it then.

    A unit may be asked for while the one before is worked on: what is noted is what there is a row of.

    Args:
        data: The images.
        store: Where what they are is noted.
        looked: Whether a `look` found nothing changed. Otherwise all images with results are looked at first.
    """

    data: SegmentationData
    store: Store
    looked: bool = False
    _begun: dict[str, tuple[Parts, Mapping[str, Mark]]] = field(default_factory=dict)
    _new: dict[str, Any] = field(default_factory=dict)

    def over(self, units: Iterable[Any]) -> Iterator[Any]:
        """Units with ``places``, each looked at when it is asked for."""
        known, done = self.store.marks(), self.store.images()
        if not self.looked:
            _, told = look_at(self.data, {image: marks(found) for image, found in known.items()}, done)
            if changed := first_of(told):
                raise InputError(f"{changed} since its results were stored: give another store")
        for unit in units:
            for place in unit.places:
                image, parts = self.data.ids[place], parts_of(self.data, place)
                before = marks(known.get(image, {}))
                now = marks_of(parts, before)
                if image in done and (changed := changed_part(parts, now, before)):
                    raise InputError(
                        f"image {image}: {changed} since its other results were stored: give another store"
                    )
                self._new[image] = plain(now)
                files = {role: part for role, part in parts.items() if isinstance(part, Path)}
                self._begun[image] = files, {role: now[role] for role in files}
            yield unit

    def check(self, images: Iterable[str]) -> None:
        """Note what images are; raise `InputError` for one whose files are not what they were when it was asked for."""
        noted = {}
        for image in images:
            parts, before = self._begun.get(image, ({}, {}))
            if changed := changed_part(parts, marks_of(parts, before), before):
                raise InputError(
                    f"image {image}: {changed} while this run worked on it: what was found was not stored; run the "
                    "same command again once its files stay as they are"
                )
            if image in self._new:
                noted[image] = self._new.pop(image)
        self.store.mark(noted)
