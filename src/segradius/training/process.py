"""What one process of a training holds, and what it writes, tells and refuses between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.models.segmenter import Segmenter
from segradius.training.content import Content
from segradius.training.job import Job
from segradius.training.labels import Tally
from segradius.training.lessons import Share
from segradius.training.mirror import Mirror
from segradius.training.records import CHECKPOINT, Log, Position


@dataclass
class Process:
    """What one process of a run holds.

    Attributes:
        fabric: Of Lightning, which knows the other processes.
        job: What is trained.
        learner: What is called in a step, wrapped by the fabric.
        optimiser: Likewise.
        identity: Of the run, which a snapshot must have to be gone on from.
        content: What is learnt from.
        position: How far it is.
        average: The moving average of the weights; empty without.
        logs: Texts of the logs as the snapshot had them.
        told: What there is to say of the network's pace.
        mirror: What the adversary attacks; None for the network.
        losses: Of the steps since the last `flush`, on the device.
        labelled: Labelled pixels of those steps.
        tally: Labelled pixels of the epoch.
        rows: What else the log says of those steps.
        log: Of the first process; None in the others.
    """

    fabric: Any
    job: Job
    learner: Any
    optimiser: Any
    identity: str
    content: Content
    position: Position
    average: dict[str, Tensor]
    logs: Mapping[str, str]
    told: Sequence[str] = ()
    mirror: Mirror | None = None
    losses: list[Tensor] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    rows: list[dict[str, Any]] = field(default_factory=list)
    log: Log | None = None

    @property
    def share(self) -> Share:
        """Which part of each batch is its own."""
        return Share(self.fabric.global_rank, self.fabric.world_size)

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        network: nn.Module = self.job.model.network  # type: ignore[assignment]
        return network

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        device: torch.device = self.fabric.device
        return device

    def attacked(self) -> Segmenter:
        """What the adversary of this step attacks: the network as it is, but for rounding."""
        if self.mirror is None:
            return self.job.model
        self.mirror.refresh()
        return self.mirror.model

    def averaged(self) -> Any:
        """The context in which the network has the weights that are evaluated and exported."""
        average = self.job.recipe.average
        return nullcontext() if average is None else average.applied(self.network, self.average)


def flush(process: Process) -> None:
    """Write the steps since the last time; the one place where the device is waited for.

    Raises:
        InputError: A loss is not finite.
    """
    if not process.rows:
        return
    losses = torch.stack(process.losses)
    both = torch.stack([losses, losses.new_tensor(process.labelled)])
    if process.fabric.world_size > 1:
        dist.all_reduce(both)
    values, labelled = both.tolist()
    for row, value in zip(process.rows, values, strict=True):
        if not math.isfinite(value):
            raise _diverged(process, "loss is", row["step"], row["epoch"])
    if process.log is not None:  # what has no label has no loss
        values = [value if pixels else math.nan for value, pixels in zip(values, labelled, strict=True)]
        process.log.steps([row | {"loss": value} for row, value in zip(process.rows, values, strict=True)])
    process.rows.clear()
    process.losses.clear()
    process.labelled.clear()


def _diverged(process: Process, what: str, step: int, epoch: int) -> InputError:
    folder = process.job.folder
    kept = f". {folder} keeps what was saved before" if (folder / CHECKPOINT).exists() else ""
    told = f"the {what} not finite at step {step}, in epoch {epoch}"
    return InputError(f"{told}: lower the learning rate, or clip the gradient{kept}")


def check_weights(process: Process, epoch: int) -> None:
    """Raise `InputError` before weights that are not finite take the place of others; the last loss may have been."""
    values = (value for value in process.network.state_dict().values() if value.is_floating_point())
    if not all(bool(value.isfinite().all()) for value in values):
        raise _diverged(process, "weights are", process.position.step, epoch)


def tell_labels(process: Process, epoch: int) -> None:
    """Tell of an epoch without a labelled pixel, and after the first one of classes without any.

    Raises:
        InputError: If the first epoch has none: then nothing was learnt.
    """
    tally = process.tally
    counts = torch.cat([torch.tensor([tally.pixels]), tally.classes]).to(process.device)
    if process.fabric.world_size > 1:
        dist.all_reduce(counts)
    tally.pixels, tally.classes = int(counts[0]), counts[1:].cpu()
    if not tally.pixels:
        told = f"no pixel is labelled in the batches of epoch {epoch}, so nothing was learnt in it"
        if epoch == 1:
            raise InputError(f"{told}: crops, scales and masks leave only void. Give a larger crop, or scale null")
        if process.log is not None:
            process.log.say(f"warning: {told}")
    elif (lacking := tally.lacking()) and process.log is not None:
        named = ", ".join(lacking[:5]) + ", …" * (len(lacking) > 5)
        process.log.say(f"warning: no pixel of the first epoch is labelled as {named}: the network cannot learn that")
