"""Which measurement of a candidate is the partner of which of a baseline, each side a run or a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.evaluation.folders import STUDY, measurements, run_folders
from segradius.report.compare import read_report


@dataclass(frozen=True)
class Measured:
    """A measurement of one side.

    Attributes:
        name: In its study; of a folder by itself the folder's.
        path: Its folder.
        kind: ``attack``, also of images that were not attacked, or ``certify``.
        seed: Of all random numbers; None where it is not known, as it was not measured.
        parts: What else tells it from others of its side: ``data``, ``model`` and ``task``.
    """

    name: str
    path: Path
    kind: str
    seed: int | None
    parts: Mapping[str, str]

    @property
    def is_there(self) -> bool:
        """Whether it has a report."""
        return (self.path / "results.json").is_file()


def measured(folder: Path) -> list[Measured]:
    """The measurements in a folder of a run or of a study.

    Raises:
        InputError: It is neither.
    """
    runs = run_folders([folder])
    said = measurements(folder) if (folder / STUDY).is_file() else [{}] * len(runs)
    found = []
    for run, told in zip(runs, said, strict=True):
        kind = "certify" if run.kind == "certify" else "attack"
        seed = told["seed"] if told else read_report(run.path)["experiment"]["seed"]
        model, data = (str(told.get(part, "")) for part in ("model", "data"))
        task = run.name.removeprefix(f"{model}-{data}-s{seed}") if told else ""
        found.append(Measured(run.name, run.path, kind, seed, {"data": data, "model": model, "task": task}))
    return found


def partners(before: Sequence[Measured], after: Sequence[Measured]) -> list[tuple[Measured, Measured | None]]:
    """Each measurement of the baseline with that of the candidate which has its kind, seed, data, model and task.

    What there is but one of on either side, say one model, needs no equal name.

    Raises:
        InputError: Several of a side are alike in all of that.
    """
    found: list[tuple[Measured, Measured | None]] = []
    for kind in dict.fromkeys(each.kind for each in before):
        ours, theirs = ([each for each in side if each.kind == kind] for side in (before, after))
        telling = [
            part for part in ("data", "model", "task")
            if any(len({each.parts[part] for each in side}) > 1 for side in (ours, theirs))
        ]  # fmt: skip
        keyed = [_keyed(side, telling) for side in (ours, theirs)]
        found += [(each, keyed[1].get(key)) for key, each in keyed[0].items()]
    return found


def _keyed(side: Sequence[Measured], telling: Sequence[str]) -> dict[tuple[Any, ...], Measured]:
    found: dict[tuple[Any, ...], Measured] = {}
    for each in side:
        key = (each.seed, *(each.parts[part] for part in telling))
        if key in found:
            alike = f"{found[key].name} and {each.name}"
            raise InputError(f"{alike} have the same kind, seed, data and model; expected one of them on a side")
        found[key] = each
    return found
