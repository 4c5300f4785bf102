"""``segradius merge``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.core.errors import InputError
from segradius.core.locking import owned, refuse_owned
from segradius.core.screen import say, warn

if TYPE_CHECKING:
    from segradius.cli.options import RunOptions
    from segradius.cli.run_folder import Planned
    from segradius.cli.study_run import Outcome
    from segradius.evaluation.store import Store
    from segradius.evaluation.study import Study

#: The exit status where images are missing.
UNFINISHED = 3


@dataclass(frozen=True)
class Shard:
    """A part of a study in its folder.

    Attributes:
        folder: Of it.
        index: Which part, from 1.
        of: How many there are.
        batch_size: By which they are cut.
    """

    folder: Path
    index: int
    of: int
    batch_size: int


def merge(folders: list[str], /, out: str, study: str | None = None, device: str = "auto", figures: int = 2) -> int:
    """Put the parts of a study together, which segradius run --shard has left, and write the reports.

    Every row is checked against its checksum, and no row is changed. What parts lack is told, with the command that
    makes it, and the exit status is 3 then. May be ended at any moment, and done again when more parts are there.

    Args:
        folders: Folders of the parts, as DIR/shard-*.
        out: Folder of the study.
        study: Its YAML file, where the one in the folders is not enough, as secrets are left out of that.
        device: Of the passes that reports need: auto, cpu, cuda or cuda:N.
        figures: Number of images in the picture of each measurement.

    Returns:
        The exit status: 0, or 3 where images are missing.
    """
    from segradius.cli.options import RunOptions
    from segradius.cli.study_folder import owned_study
    from segradius.cli.study_run import tell
    from segradius.evaluation.folders import ASKED
    from segradius.evaluation.study import Study

    shards = shards_of(map(Path, folders))
    asked = Study.read(study or shards[0].folder / ASKED)
    at = RunOptions(out, device=device, figures=figures, batch_size=shards[0].batch_size)
    for shard in shards:
        refuse_owned(shard.folder)
    with owned_study(at.folder, asked):
        found, missing = _merged(asked, shards, at)
    status = tell(found, at, (1, 1)) if found else 0
    for line in _advice(missing, shards, study or str(shards[0].folder / ASKED)):
        warn(line)
    return UNFINISHED if missing else status


def shards_of(folders: Iterator[Path]) -> tuple[Shard, ...]:
    """The parts in folders, by their place.

    Raises:
        InputError: A folder holds none, or they are of different studies or cut differently; the message names two.
    """
    from segradius.core.safe_yaml import read_yaml
    from segradius.evaluation.folders import ASKED, STUDY, described

    found: list[Shard] = []
    first: tuple[Path, Any, Any] | None = None
    for folder in folders:
        if not (folder / STUDY).is_file():
            raise InputError(
                f"{folder} holds no {STUDY}; expected the folder of a part, which segradius run --shard made"
            )
        said = described(folder)
        if "shard" not in said:
            raise InputError(f"{folder} is a whole study, no part of one; expected what segradius run --shard made")
        one = Shard(folder, *(int(said["shard"][name]) for name in ("index", "of", "batch_size")))
        asked, cut = read_yaml(folder / ASKED, "the study"), (one.of, one.batch_size)
        first = first or (folder, asked, cut)
        if asked != first[1]:
            raise InputError(f"{folder} is of another study than {first[0]}: {_differing(asked, first[1])} differs")
        if cut != first[2]:
            told = [f"one of {of}, cut by batches of {size}" for of, size in (cut, first[2])]
            raise InputError(f"{folder} is {told[0]}, and {first[0]} is {told[1]}: they are not parts of one whole")
        if twin := next((other for other in found if other.index == one.index), None):
            raise InputError(f"{folder} and {twin.folder} are both part {one.index}; expected each once")
        found.append(one)
    return tuple(sorted(found, key=lambda shard: shard.index))


def _differing(one: Any, other: Any) -> str:
    """The first key of two mappings whose values differ."""
    return next((str(key) for key in {**one, **other} if one.get(key) != other.get(key)), "the order")


def _merged(
    study: Study, shards: Sequence[Shard], at: RunOptions
) -> tuple[list[Outcome], dict[int, list[tuple[str, int]]]]:
    """What came of every measurement that is whole; by part, the images that others lack, with their names."""
    from segradius.cli.measures import Opener, measures
    from segradius.cli.run_folder import begun, reported
    from segradius.cli.run_store import DATABASE, WRITTEN
    from segradius.cli.study_run import outcome_of
    from segradius.evaluation import Store
    from segradius.evaluation.folders import RUNS
    from segradius.evaluation.merging import Part, merge

    opener, found, missing = Opener(study), list[Any](), dict[int, list[tuple[str, int]]]()
    for measure in measures(study, at):
        planned, name = opener.open(measure), measure.asked.name
        places = [shard.folder / RUNS / name / DATABASE for shard in shards]
        parts = [Part(f"{file.parent}", file) for file in places if file.is_file()]
        folder = planned.at.folder
        if parts:
            folder.mkdir(parents=True, exist_ok=True)
            with owned(folder, WRITTEN, warn):
                merge(parts, folder / DATABASE, planned.run)
        lacking = {}
        if (folder / DATABASE).is_file():
            with Store(folder / DATABASE) as store:
                lacking = _lacking(planned, store, shards[0].of)
        else:
            lacking = {part: len(batch) for part, batch in _all(planned, shards[0].of).items()}
        for part, images in lacking.items():
            missing.setdefault(part, []).append((name, images))
        if not lacking:
            with begun(planned) as going:
                reported(going)
                found.append(outcome_of(planned, going.store, new=True))
    return found, missing


def _all(planned: Planned[Any], of: int) -> dict[int, list[str]]:
    """Ids of images by the part that they are of; parts without any are left out."""
    parts = {part: list(replace(planned.run, shard=(part, of)).ids) for part in range(1, of + 1)}
    return {part: ids for part, ids in parts.items() if ids}


def _lacking(planned: Planned[Any], store: Store, of: int) -> dict[int, int]:
    """How many images of each part lack a result, those set aside apart."""
    from segradius.evaluation import CLEAN

    done = [store.done(key) for key in (CLEAN, *(job.key for job in planned.run.experiment.jobs))]
    there = set.intersection(*done) | set(store.all_set_aside())
    counts = {part: len(set(ids) - there) for part, ids in _all(planned, of).items()}
    return {part: count for part, count in counts.items() if count}


def _advice(missing: dict[int, list[tuple[str, int]]], shards: Sequence[Shard], study: str) -> Iterator[str]:
    """For each part that lacks images, how many, and what makes them, where the part is or the first one lies."""
    of, size, there = shards[0].of, shards[0].batch_size, {shard.index: shard.folder for shard in shards}
    for part, lacking in sorted(missing.items()):
        images, names = sum(count for _, count in lacking), len(lacking)
        state = "is not finished" if part in there else "is missing"
        out = there.get(part, shards[0].folder).parent
        command = ["segradius", "run", study, "--out", str(out), "--shard", f"{part}/{of}", "--batch-size", str(size)]
        yield f"part {part} of {of} {state}: {images} images in {names} measurements; {shlex.join(command)}"
    if missing:
        say("When that is done, merge again.")
