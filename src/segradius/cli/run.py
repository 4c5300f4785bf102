"""``segradius run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from segradius.cli.options import RunOptions
from segradius.cli.workers import WORKERS, WorkerOptions
from segradius.core import text
from segradius.core.declared import Count, Range
from segradius.core.errors import InputError, shown

if TYPE_CHECKING:
    from segradius.cli.measures import Measure


@dataclass(frozen=True)
class StudyOptions:
    """The study.

    But for speed fast, nothing here changes a number.

    Args:
        out: Folder of the study; each measurement has a folder in its runs.
        only: Names of measurements, commas between them, as --dry-run has them. Default: all.
        dry_run: Say what would be measured, with the passes that are left and an estimate of their time, and run
            nothing.
        shard: Only a part of the images of every measurement, as 3/16 for the third of 16 parts, in the folder
            shard-3-of-16 of out; segradius merge puts them together.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time, or noisy copies of one; changes no result but by rounding. auto: as many as fit
            into memory and pay, found by a trial of seconds. Default: 8 images; 4 copies on a CPU, 32 elsewhere.
        checkpoint_seconds: Seconds between checkpoints of a black-box attack or of an image's votes; 0 for one every
            round or pass.
        figures: Number of images in the picture of each measurement.
        overwrite: Replace what other experiments left in the folders of the measurements.
        fail_on_set_aside: End with exit status 3 where an image was set aside; the reports are written all the same.
        speed: plain; exact: passes made cheaper by what changes nothing but rounding; fast: gradients in reduced
            precision too. Every verdict is the plain model's.
        compile: Try torch.compile too, whose warm-up may take minutes.
    """

    out: str = "segradius-study"
    only: str | list[str] | None = None
    dry_run: bool = False
    shard: str | None = None
    device: str = "auto"
    batch_size: Count | Literal["auto"] | None = None
    checkpoint_seconds: Annotated[float, Range("[0, 1e9]")] = 30.0
    figures: Annotated[int, Range("[0, 1000]")] = 2
    overwrite: bool = False
    fail_on_set_aside: bool = False
    speed: Literal["plain", "exact", "fast"] = "plain"
    compile: bool = False

    @property
    def part(self) -> tuple[int, int]:
        """Which part of how many.

        Raises:
            InputError: It is no such text, or batches of a size that differs from part to part would cut the images.
        """
        if self.shard is None:
            return 1, 1
        mine, slash, of = self.shard.partition("/")
        if not (slash and mine.isdecimal() and of.isdecimal() and len(self.shard) < 16 and 1 <= int(mine) <= int(of)):
            raise InputError(f"shard is {shown(self.shard)}; expected i/n with 1 ≤ i ≤ n, as 3/16")
        if self.batch_size == "auto":
            raise InputError("batch_size auto is for all images: parts are cut by batches; give a number, or none")
        return int(mine), int(of)

    @property
    def run(self) -> RunOptions:
        """How its measurements are run."""
        from segradius.cli.study_folder import shard_folder

        named = {name: value for name, value in vars(self).items() if name not in ("out", "only", "dry_run", "shard")}
        return RunOptions(str(shard_folder(self.out, self.part)), **named)


#: Unless said otherwise.
STUDY = StudyOptions()


def run(study: str, /, options: StudyOptions = STUDY, workers: WorkerOptions = WORKERS) -> int:
    """Measure what a YAML file asks for: models × data × attacks and certifications × budgets × seeds.

    Prints a table, and writes into a folder study.json and study.yaml, and in runs/NAME for each measurement what
    segradius attack, certify or evaluate writes. Started again it goes on where it was stopped; a model, attack,
    budget, seed or image that is added to the file later is all that is run then.

    Args:
        study: The YAML file; see docs/studies.md.
        options: See `StudyOptions`.
        workers: See `WorkerOptions`.

    Returns:
        The exit status.
    """
    from segradius.cli.measures import measures
    from segradius.cli.study_folder import owned_study
    from segradius.cli.study_plan import tell_plan
    from segradius.cli.study_run import carry_out_all, tell
    from segradius.evaluation.sizing import USUAL
    from segradius.evaluation.study import Study

    asked, part = Study.read(study), options.part
    all_of_it = measures(asked, options.run)
    chosen = chosen_of(all_of_it, options.only)
    if options.dry_run:
        tell_plan(asked, chosen, part)
        return 0
    executor = workers.hired(options.device, allow_download=any(each.model.network.allow_download for each in chosen))
    with owned_study(options.run.folder, asked, part, options.run.together or USUAL):
        found, failed = carry_out_all(asked, chosen, part, options.run, executor)
    status = tell(found, options.run, part)
    if failed:
        told = "; ".join(f"{name}: {str(error).removeprefix(f'{name}: ')}" for name, error in failed.items())
        raise InputError(f"{len(failed)} of {len(chosen)} measurements cannot be finished: {told}")
    return status


def chosen_of(all_of_it: Sequence[Measure], only: str | list[str] | None) -> list[Measure]:
    """Those of some names; raises `InputError` for a name that none has."""
    names = text.names(only or [])
    text.refuse_unknown("measurement", names, [each.asked.name for each in all_of_it])
    return [each for each in all_of_it if not names or each.asked.name in names]
