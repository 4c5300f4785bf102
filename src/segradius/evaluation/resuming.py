"""What lets a run with queries go on: checkpoints, a spool for answers with a price, and what was paid so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segradius.data import SegmentationData
from segradius.evaluation.certifying import Certification
from segradius.evaluation.journal import Checkpoints
from segradius.evaluation.records import Records
from segradius.evaluation.runner import Job
from segradius.evaluation.seeing import Seen
from segradius.evaluation.store import CLEAN, Store
from segradius.targets import Metered, Spooled, traffic_of


def resumable(
    model: Seen, jobs: Sequence[Job], store: Store, folder: Path, seconds: float, warn: Callable[[str], None] = print
) -> tuple[Seen, Checkpoints]:
    """A model as a run needs it that may be killed at any time, and where it keeps its checkpoints.

    A counted target goes on counting where the earlier run stopped. One behind a wire gets a spool, so that no answer
    is asked for twice; a network or file in this process is asked again what came after the last checkpoint.

    Args:
        model: A network or a target.
        jobs: What is to be run.
        store: Of the results so far.
        folder: Of the checkpoints.
        seconds: Between checkpoints.
        warn: Told when a checkpoint cannot be used.
    """
    Checkpoints(folder, warn=warn).drop_finished(store.done)
    return lasting(model, folder, seconds, lambda kept: _paid(store, jobs) + kept.paid(), warn)


def lasting(
    model: Seen, folder: Path, seconds: float, paid: Callable[[Checkpoints], int], warn: Callable[[str], None] = print
) -> tuple[Seen, Checkpoints]:
    """As above, with the queries paid for so far counted by ``paid`` in the checkpoints and elsewhere."""
    if not isinstance(model, Metered):
        return model, Checkpoints(folder, seconds, warn=warn)
    served = traffic_of(model) is not None
    spool = Spooled(model.target, folder / "spool") if served else None
    checkpoints = Checkpoints(folder, seconds, spool, warn)
    return Metered(spool or model.target, model.budget, used=paid(checkpoints)), checkpoints


def resumable_certification(
    experiment: Certification,
    model: Seen,
    data: SegmentationData,
    records: Records,
    folder: Path,
    seconds: float,
    warn: Callable[[str], None],
) -> tuple[Seen, Checkpoints]:
    """The model and the checkpoints of a run that may go on from an earlier one; see `resumable`.

    Args:
        experiment: What is run.
        model: A network or a target.
        data: The images.
        records: Of the images so far.
        folder: Of the checkpoints.
        seconds: Between checkpoints.
        warn: Told when a checkpoint cannot be used.
    """
    found = {image: record for image in data.ids if (record := records.get(image)) is not None}
    done = {image for image, record in found.items() if record.done}
    Checkpoints(folder, warn=warn).drop_finished(lambda key: done if key == experiment.key else set())
    paid = sum(book["forward"] for record in found.values() for book in record.passes.values())
    return lasting(model, folder, seconds, lambda kept: paid + kept.total(lambda standing: standing["done"]), warn)


def _paid(store: Store, jobs: Sequence[Job]) -> int:
    """Queries behind the stored results."""
    results = [result for key in (CLEAN, *(job.key for job in jobs)) for result in store.results(key).values()]
    return sum(forward for result in results for forward, _ in result.passes.values())
