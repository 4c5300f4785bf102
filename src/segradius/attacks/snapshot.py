"""Where a black-box attack stands between two rounds: all that is needed to go on, also in another process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segradius.attacks.base import Result, Task, Trace
from segradius.attacks.loop import Incumbent
from segradius.core.ledger import Ledger
from segradius.objectives.goal import Goal
from segradius.objectives.view import Feedback

# A row of the trace is kept for every round at first, later for every 2 % more queries.
_TRACE_GROWTH = 1.02


class Verdict(NamedTuple):
    """A point of each image inside the threat model, with what the target sees in it.

    Attributes:
        delta: (N, 3, H, W).
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
class Standing:
    """Between two rounds.

    Attributes:
        state: The strategy's.
        incumbent: The best point known to lie inside the threat.
        active: (N,) bool: images that still take part.
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
    pixels: Tensor
    ledger: Ledger
    round: int = 0
    spent: int = 0
    weights: Any = None
    mean: Feedback | None = None
    last: Verdict | None = None
    trace: tuple[Entry, ...] = ()

    @staticmethod
    def new(task: Task, state: Mapping[str, Any]) -> Standing:
        """Before the first round; an image without counted pixels has nothing to be attacked."""
        pixels = task.goal.counted.flatten(1).sum(1)
        return Standing(state, Incumbent.none(task), pixels > 0, pixels, Ledger(len(task.images)))

    @property
    def wants_row(self) -> bool:
        """Whether the trace's last row is old enough for another."""
        return not self.trace or self.spent >= max(self.trace[-1].queries * _TRACE_GROWTH, 1)

    @property
    def wants_verdict(self) -> bool:
        """Whether an image still takes part, and something was asked since the iterate was judged."""
        judged = bool(self.trace) and self.trace[-1].judged and self.trace[-1].queries == self.spent
        return not judged and bool(self.active.any())

    def paid(self, purpose: str, queries: int, task: Task) -> Standing:
        """With queries of every active image entered."""
        self.ledger.enter(purpose, forward=queries, rows=self.active.cpu().numpy())
        task.done(queries)
        return replace(self, spent=self.spent + queries)

    def checked(self, finite: Tensor) -> Standing:
        """An image whose scores were not finite is invalid, and is asked about no more."""
        fine = finite | ~self.active
        incumbent = replace(self.incumbent, valid=self.incumbent.valid & fine)
        return replace(self, incumbent=incumbent, active=self.active & fine)

    def offered(self, verdict: Verdict, goal: Goal) -> Standing:
        """With a point that may become the incumbent; an image all of whose pixels are fooled is finished."""
        now = self.incumbent
        better = verdict.finite & self.active & (verdict.fooled > now.fooled)
        at = better.view(-1, 1, 1)
        incumbent = Incumbent(
            torch.where(at.unsqueeze(1), verdict.delta, now.delta),
            torch.where(at, verdict.prediction, now.prediction),
            torch.where(better, verdict.fooled, now.fooled),
            now.valid,
        )
        return replace(self, incumbent=incumbent, active=self.active & (incumbent.fooled < self.pixels))

    def noted(self, asked: Tensor, loss: Tensor, right: Tensor, *, judged: bool = False) -> Standing:
        """With a row of the trace for the images that were ``asked``."""
        fooled = self.incumbent.fooled
        best = torch.where(fooled < 0, math.nan, 1 - fooled / self.pixels.clamp_min(1))
        loss, right = (part.float().masked_fill(~asked, math.nan).cpu() for part in (loss, right))
        return replace(self, trace=(*self.trace, Entry(self.spent, judged, loss, right, best.float().cpu())))

    def result(self, task: Task, *, last: bool) -> Result:
        """As an attack's result: the incumbent, or the iterate that was judged last.

        The last point of a finished image is its incumbent; verdicts after that say nothing of it.
        """
        chosen = self.incumbent
        if last and self.last is not None:
            at = self.active.view(-1, 1, 1)
            chosen = Incumbent(
                torch.where(at.unsqueeze(1), self.last.delta, chosen.delta),
                torch.where(at, self.last.prediction, chosen.prediction),
                torch.where(self.active, self.last.fooled, chosen.fooled),
                chosen.valid,
            )
        return replace(chosen.result(task, self.ledger), trace=_joined(self.trace))

    def plain(self) -> dict[str, Any]:
        """As tensors, numbers, tuples and dicts, for a file."""
        kept = {name: value for name, value in vars(self).items() if name not in ("incumbent", "ledger")}
        kept |= {"incumbent": vars(self.incumbent)}
        kept["ledger"] = {name: torch.from_numpy(book.copy()) for name, book in self.ledger.passes.items()}
        return {name: tuple(value) if isinstance(value, tuple) else value for name, value in kept.items()} | {
            "trace": [tuple(entry) for entry in self.trace]
        }

    @staticmethod
    def restored(kept: Mapping[str, Any], task: Task) -> Standing:
        """The standing that `plain` wrote, on the device of the task."""
        moved = _moved(kept, task.images.device)
        ledger = Ledger(len(task.images), {name: book.cpu().numpy() for name, book in moved["ledger"].items()})
        parts = {
            "incumbent": Incumbent(**moved["incumbent"]),
            "ledger": ledger,
            "mean": None if moved["mean"] is None else Feedback(*moved["mean"]),
            "last": None if moved["last"] is None else Verdict(*moved["last"]),
            "trace": tuple(Entry(*entry) for entry in kept["trace"]),
        }
        return Standing(**{**moved, **parts})


def _joined(rows: tuple[Entry, ...]) -> Trace | None:
    if not rows:
        return None
    queries, judged, *curves = zip(*rows, strict=True)
    return Trace(torch.tensor(queries), torch.tensor(judged), *(torch.stack(curve) for curve in curves))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(inner, device) for name, inner in value.items()}
    return tuple(_moved(inner, device) for inner in value) if isinstance(value, tuple | list) else value
