"""Where a black-box attack stands between two rounds: all that is needed to go on, also in another process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.attacks.base import Result, Task, Trace
from segradius.attacks.incumbent import Incumbent
from segradius.core.contracts import ScoreModel
from segradius.core.ledger import Ledger
from segradius.objectives.view import Feedback

# A row of the trace is kept for every round at first, later for every 2 % more queries.
_TRACE_GROWTH = 1.02


class Verdict(NamedTuple):
    """A point of each image inside the threat model, with what the target sees in it.

    Attributes:
        delta: (N, B, H, W).
        prediction: (N, H, W).
        fooled: (N,) counted pixels fooled.
        finite: (N,) whether its scores were.
    """

    delta: Tensor
    prediction: Tensor
    fooled: Tensor
    finite: Tensor


class Entry(NamedTuple):
    """A row of the trace: queries, whether it is a verdict, and loss, pixacc and best, (N,) each."""

    queries: int
    judged: bool
    loss: Tensor
    pixacc: Tensor
    best: Tensor


@dataclass(frozen=True)
class Snapshot:
    """Between two rounds.

    Attributes:
        state: The strategy's.
        incumbent: The best point known to lie inside the threat.
        active: (N,) bool: images that still take part.
        rows: (N,) the same, known without waiting for the device.
        pixels: (N,) counted pixels.
        ledger: Queries so far.
        round: Rounds so far.
        spent: Queries so far over each active image.
        weights: State of the weighting.
        mean: Running mean of the scores; None before the first round.
        last: Verdict on the iterate that was judged last.
        trace: Rows so far.
    """

    state: Mapping[str, Any]
    incumbent: Incumbent
    active: Tensor
    rows: NDArray[np.bool_]
    pixels: Tensor
    ledger: Ledger
    round: int = 0
    spent: int = 0
    weights: Any = None
    mean: Feedback | None = None
    last: Verdict | None = None
    trace: tuple[Entry, ...] = ()

    @staticmethod
    def new(task: Task[ScoreModel], state: Mapping[str, Any]) -> Snapshot:
        """Before the first round; an image without counted pixels has nothing to be attacked."""
        pixels = task.goal.counted.flatten(1).sum(1)
        active = pixels > 0
        return Snapshot(state, Incumbent.none(task), active, active.cpu().numpy(), pixels, Ledger(len(task.images)))

    @property
    def wants_row(self) -> bool:
        """Whether the trace's last row is old enough for another."""
        return not self.trace or self.spent >= max(self.trace[-1].queries * _TRACE_GROWTH, 1)

    @property
    def is_judged(self) -> bool:
        """Whether nothing was asked since the iterate was judged."""
        return bool(self.trace) and self.trace[-1].judged and self.trace[-1].queries == self.spent

    def noted(self, asked: Tensor, loss: Tensor, right: Tensor, *, judged: bool = False) -> Snapshot:
        """With a row of the trace for the images that were ``asked``."""
        fooled = self.incumbent.fooled
        best = torch.where(fooled < 0, math.nan, 1 - fooled / self.pixels.clamp_min(1)).float()
        loss, right = (part.float().masked_fill(~asked, math.nan) for part in (loss, right))
        return replace(self, trace=(*self.trace, Entry(self.spent, judged, loss, right, best)))

    def result(self, task: Task[ScoreModel], *, last: bool) -> Result:
        """As an attack's result: the incumbent, or the iterate that was judged last.

        The last point of a finished image is its incumbent; verdicts after that say nothing of it.
        """
        chosen = self.incumbent
        if last and self.last is not None:
            chosen = chosen.replaced(self.active, self.last.delta, self.last.prediction, self.last.fooled)
        return replace(chosen.result(task, self.ledger), trace=_joined(self.trace))

    def plain(self) -> dict[str, Any]:
        """As tensors, numbers, tuples and dicts, for a file."""
        kept = {name: value for name, value in vars(self).items() if name not in ("incumbent", "ledger", "rows")}
        kept |= {"incumbent": vars(self.incumbent)}
        kept["ledger"] = {name: torch.from_numpy(book.copy()) for name, book in self.ledger.passes.items()}
        return {name: tuple(value) if isinstance(value, tuple) else value for name, value in kept.items()} | {
            "trace": [tuple(entry) for entry in self.trace]
        }

    def restored(self, kept: Mapping[str, Any]) -> Snapshot:
        """What `plain` wrote, on the device of this one, which is `new` and gives what a file does not have."""
        moved = _moved(kept, self.active.device)
        parts = {
            "state": {**self.state, **moved["state"]},
            "incumbent": Incumbent(**moved["incumbent"]),
            "rows": moved["active"].cpu().numpy(),
            "ledger": Ledger(self.ledger.images, {n: book.cpu().numpy() for n, book in kept["ledger"].items()}),
            "mean": None if moved["mean"] is None else Feedback(*moved["mean"]),
            "last": None if moved["last"] is None else Verdict(*moved["last"]),
            "trace": tuple(Entry(*entry) for entry in moved["trace"]),
        }
        return replace(self, **{**moved, **parts})


def _joined(rows: tuple[Entry, ...]) -> Trace | None:
    if not rows:
        return None
    queries, judged, *curves = zip(*rows, strict=True)
    return Trace(torch.tensor(queries), torch.tensor(judged), *(torch.stack(curve).cpu() for curve in curves))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(inner, device) for name, inner in value.items()}
    return tuple(_moved(inner, device) for inner in value) if isinstance(value, tuple | list) else value
