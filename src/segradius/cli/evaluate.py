"""``segradius evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segradius.cli.options import DataOptions, ModelOptions, RunOptions, Subject, open_subject
from segradius.core.declared import Count, Seed

if TYPE_CHECKING:
    from segradius.cli.run_folder import Planned
    from segradius.evaluation import Experiment


def evaluate(
    data: DataOptions,
    model: ModelOptions,
    out: str = "segradius-accuracy",
    seed: Seed = 0,
    device: str = "auto",
    batch_size: Count | Literal["auto"] = 8,
    overwrite: bool = False,
    fail_on_set_aside: bool = False,
) -> int:
    """Measure the accuracy of a segmentation model over the images of a data set, unattacked.

    Prints PixAcc and MIoU with 95 % intervals over images, and accuracy, IoU and Dice of each class, and writes
    results.json, per_image.csv, classes.csv, confusion.csv, table.md and results.sqlite into a folder, in which
    segradius attack goes on. Windows, scales and mirroring stand in a model's card. There is no --speed, as in
    segradius attack: the one pass over each image is the verdict.

    Args:
        data: See `DataOptions`.
        model: See `ModelOptions`.
        out: Folder of the report.
        seed: Seed of a network without weights.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time; changes no result but by rounding. auto: as many as fit into memory and pay, found
            by a trial of seconds.
        overwrite: Replace what another experiment left in the folder.
        fail_on_set_aside: End with exit status 3 where an image was set aside; the report is written all the same.
    """
    from segradius.cli.run_folder import carry_out, status

    at = RunOptions(out, seed, device, batch_size, overwrite=overwrite, fail_on_set_aside=fail_on_set_aside)
    it = planned_accuracy(open_subject(data, model, at), at)
    return status(carry_out(it.run, at, it.report), at)


def planned_accuracy(of: Subject, run: RunOptions, name: str = "") -> Planned[Experiment]:
    """The accuracy of a model over images, as it is measured and told.

    Args:
        of: Model and images.
        run: Where.
        name: Of the measurement in its study.
    """
    from segradius.cli.run_folder import Planned
    from segradius.evaluation import Experiment, Run
    from segradius.report import report_accuracy

    experiment = Experiment(of.model, of.choice, (), None, run.seed)
    return Planned(Run(experiment, of.seen, of.data, run.together or 8), run, report_accuracy, name=name)
