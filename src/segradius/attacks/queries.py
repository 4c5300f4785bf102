"""The one black-box loop: ask a target that returns nothing but scores, move, judge (Algorithm 2 with any strategy)."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.attacks.base import Result, Task
from segradius.attacks.loop import Room
from segradius.attacks.snapshot import Snapshot, Verdict
from segradius.attacks.strategy import Strategy, Turn
from segradius.core.contracts import ScoreModel
from segradius.core.declared import Decay, Queries, Whole, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import SURROGATE
from segradius.core.prediction import outside_unit
from segradius.gradients.estimator import Stack
from segradius.objectives.losses import ScoreLoss
from segradius.objectives.objective import Objective
from segradius.objectives.view import Feedback, ScoreView, look, prediction_of
from segradius.objectives.weightings import CertifiedRadius, factors
from segradius.radius.smoothing import fitting
from segradius.threats.threat import Threat

# Queries are sent in groups of at most this many images, which bounds memory: the scores of one 1024 × 2048 image of 19
# classes take 160 MB.
_IMAGES_PER_CALL = 16


@dataclass(frozen=True)
class Rounds:
    """A budget in rounds T, as the paper states it: the queries that T rounds and a last verdict take.

    Attributes:
        count: T, at least 1.
    """

    count: Queries

    def __post_init__(self) -> None:
        check_fields(self, count="rounds")


@dataclass(frozen=True)
class Queried:
    """A black-box attack: rounds of one strategy on one objective inside one threat, within a budget of queries.

    Every query counts: the strategy's (entered as ``attack``), noisy ones behind a radius (``radius``) and those that
    judge an iterate (``judging``); the last iterate is judged too. An image leaves the rounds when all its counted
    pixels are known to be fooled.

    Attributes:
        objective: What is maximised; its loss must be a function of scores.
        threat: Where.
        strategy: How.
        queries: The budget of each image, as a number of queries or of `Rounds`.
        memory: What remains, per round, of the running mean of the scores that weights look at; 0 shows them the
            answers of the present round alone.
        keep: ``"best"`` returns the judged iterate, or the queried point inside the threat, that fooled most pixels;
            ``"last"`` the last iterate.
        judge_every: Rounds between verdicts on the iterate, one query each; 0 for none but the last.
        marks: Query counts within which the iterate is judged too, for a curve.
    """

    objective: Objective
    threat: Threat
    strategy: Strategy
    queries: Queries | Rounds
    memory: Decay = 0.7
    keep: Literal["best", "last"] = "best"
    judge_every: Whole = 0
    marks: tuple[Queries, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        self.objective.check_scores()
        least = self.strategy.per_round + self.radius_queries(0) + 1
        if self.budget < least:
            raise InputError(f"queries is {self.queries}; one round and a verdict take {least}")

    def check_memory(self, name: str) -> None:
        """Raise `InputError` if the attack ``name`` was given a memory at which no weight looks."""
        if self.memory != Queried.memory and not self.objective.weighting.watches:
            raise InputError(
                f"memory is {self.memory}, which does nothing in {name}: it is for weights that look at scores, as "
                "weighting=still_correct and cr_… with samples=0"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Scores, or labels if loss and weights make do with those."""
        return self.objective.needs

    @property
    def total_steps(self) -> int:
        """The budget of queries."""
        return self.budget

    @property
    def budget(self) -> int:
        """Queries of each image, everything included."""
        return self._price(self.queries.count) if isinstance(self.queries, Rounds) else self.queries

    @property
    def rounds(self) -> int:
        """T: rounds that fit into the budget, when no iterate is judged but the last."""
        if isinstance(self.queries, Rounds):
            return self.queries.count
        most = (self.queries - 1) // self.strategy.per_round
        return bisect.bisect_right(range(most + 1), self.queries, key=self._price) - 1

    def _price(self, rounds: int) -> int:
        """Queries of so many rounds and a verdict."""
        refreshes = sum(f.samples * -(-rounds // f.interval) for f in self._radii)
        return rounds * self.strategy.per_round + refreshes + 1

    def radius_queries(self, turn: int) -> int:
        """Noisy queries that the weights make in a round."""
        return sum(f.samples for f in self._radii if turn % f.interval == 0)

    def run(self, task: Task[ScoreModel]) -> Result:
        """Go on from the journal, or begin; rounds until the budget is spent; judge the last iterate."""
        task = task.entered(self.threat)
        run = _Run.of(self, task)
        now = Snapshot.new(task, self.strategy.begin(run.room))
        if task.journal and (kept := task.journal.load()):
            now = now.restored(kept)
        task.done(now.spent)
        while now.rows.any() and self._after_another(now) <= self.budget:
            now = run.kept(run.round(now))
        if now.rows.any() and not now.is_judged:
            now = run.kept(run.verdict(now))
        task.done(self.budget - now.spent)  # an attack may finish early
        return now.result(task, last=self.keep == "last")

    @property
    def _radii(self) -> list[CertifiedRadius]:
        return [f for f in factors(self.objective.weighting) if isinstance(f, CertifiedRadius) and f.samples]

    def _after_another(self, now: Snapshot) -> int:
        """Queries when another round and a verdict have been made."""
        return now.spent + self.strategy.per_round + self.radius_queries(now.round) + 1


@dataclass(frozen=True)
class _Run:
    """One attack on one batch.

    A round waits for the device once, to read which images go on: asking about one that is finished would cost a
    query. It waits a second time where an image may just have been finished.

    Attributes:
        share: (N, H, W) what a pixel's loss is multiplied by: ±1 over the counted pixels, 0 where not counted.
    """

    attack: Queried
    task: Task[ScoreModel]
    room: Room
    target: ScoreModel
    share: Tensor

    @staticmethod
    def of(attack: Queried, task: Task[ScoreModel]) -> _Run:
        budgets = attack.threat.budgets(len(task.images), task.images)
        counted = task.goal.counted.to(task.images.dtype)
        share = counted * (task.goal.sign / counted.sum((1, 2), keepdim=True).clamp_min(1))
        return _Run(attack, task, Room(attack.threat, task, budgets, attack.rounds), task.model, share)

    def round(self, now: Snapshot) -> Snapshot:
        """Ask, weigh, tell; then judge the iterate if it is time to."""
        attack, turn, asked_about = self.attack, Turn(now.round, now.spent / self.attack.budget), now.active
        rows = now.rows
        question = attack.strategy.ask(now.state, self.room, turn)
        answers = self._ask(question.points, now, judge="rise" if attack.strategy.feasible else "no")
        feedback = answers.feedback
        now = self._paid(now, "attack", len(question.points))
        if any(question.passes):
            forward, backward = question.passes
            now.ledger.enter(SURROGATE, forward=forward, backward=backward, rows=rows)
        mean = feedback.mean if now.mean is None else feedback.mean.blend(now.mean, attack.memory)
        weights, now = self._weigh(now, mean, turn)
        losses = self._losses(feedback, turn.progress)
        state = attack.strategy.tell(now.state, self.room, turn, question, losses, weights)
        now = self._settled(replace(now, state=state, mean=mean, round=now.round + 1), answers)
        if now.wants_row:
            now = now.noted(asked_about, losses.sum((0, 2, 3)) / len(losses), self._right(feedback))
        return self.verdict(now) if now.rows.any() and not now.is_judged and self._is_time(now) else now

    def verdict(self, now: Snapshot) -> Snapshot:
        """Judge the iterate, at the price of one query of every image that is not finished."""
        asked_about = now.active
        answers = self._ask(now.state["delta"].unsqueeze(0), now, judge="yes")
        now = self._settled(self._paid(now, "judging", 1), answers)
        losses = self._losses(answers.feedback, now.spent / self.attack.budget)
        now = replace(now, last=answers.verdict)
        return now.noted(asked_about, losses.sum((0, 2, 3)), self._right(answers.feedback), judged=True)

    def kept(self, now: Snapshot) -> Snapshot:
        """The same, written into the journal if it is time to."""
        if self.task.journal:
            self.task.journal.save(now.plain)
        return now

    def _is_time(self, now: Snapshot) -> bool:
        """Whether the iterate is to be judged now: a mark would be passed by another round, or the interval is over."""
        attack, coming = self.attack, self.attack._after_another(now)
        if coming > attack.budget:
            return False  # the last verdict follows anyway
        if any(now.spent + 1 <= mark < coming for mark in attack.marks):
            return True
        return attack.judge_every > 0 and now.round % attack.judge_every == 0

    def _paid(self, now: Snapshot, purpose: str, queries: int) -> Snapshot:
        """With queries of every image that is not finished entered."""
        now.ledger.enter(purpose, forward=queries, rows=now.rows)
        self.task.done(queries)
        return replace(now, spent=now.spent + queries)

    def _settled(self, now: Snapshot, answers: _Answers) -> Snapshot:
        """With the verdict's points where they are better, and without the images that are finished or invalid.

        An image all of whose pixels are fooled is finished; one whose scores were not finite is invalid.
        """
        best, active, verdict = now.incumbent, now.active, answers.verdict
        if verdict is not None:
            better = verdict.finite & active & (verdict.fooled > best.fooled)
            best = best.replaced(better, verdict.delta, verdict.prediction, verdict.fooled)
            active = active & (best.fooled < now.pixels)
        fine = answers.feedback.finite.all(0) | ~active
        active = active & fine
        rows = active.cpu().numpy() if answers.rows is None else answers.rows
        return replace(now, incumbent=replace(best, valid=best.valid & fine), active=active, rows=rows)

    def _ask(self, points: Stack, now: Snapshot, *, judge: Literal["no", "rise", "yes"]) -> _Answers:
        """Answers to (K, N, B, H, W) perturbations, 0 for images that are finished.

        With ``judge``, also the verdict on the points, the one that fooled most for each image; with ``"rise"`` unless
        no image can have more pixels fooled than before: predictions cost more than all else that is done to an answer.
        """
        parts, left = [], []
        for images, reference in self._requests(points, now, bound=judge != "no"):
            scores = self._scores(images)
            if now.round == 0:
                check_scores(scores)
            parts.append(look(scores, reference))
            if judge != "no":
                left.append((parts[-1], scores, reference))
        shape = (len(points), *self.task.goal.reference.shape)
        index = self._index(now.rows)
        found = Feedback(*(_spread(list(part), index, shape) for part in zip(*parts, strict=True)))
        rows = None
        if judge == "rise":
            # One reading tells whether a verdict is worth its while, and who goes on if nobody can be finished by it.
            reached = self._reached(found, ties=True).amax(0)
            rise = (reached > now.incumbent.fooled) & now.active
            whole, some, fine = torch.stack([rise & (reached >= now.pixels), rise, found.finite.all(0)]).cpu().numpy()
            rows = None if whole.any() else now.rows & fine
            left = left if some.any() else []
        if not left:
            return _Answers(found, None, rows)
        predictions = _spread([prediction_of(*each) for each in left], index, shape)
        return _Answers(found, self._best(points[:], predictions, found.finite), rows)

    def _requests(self, points: Stack, now: Snapshot, *, bound: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The images to be asked about, (n, B, H, W), and their references, (n, H, W), in groups.

        On a lattice all are of whole levels: in the ball if ``bound``, else rounded at random, all of a round alike.
        """
        index, held = self._index(now.rows), self.task.lattice
        clean, reference = (_taken(t, index) for t in (self.task.images, self.task.goal.reference))
        count = len(clean)
        size = fitting(_IMAGES_PER_CALL)
        if held is not None and not bound:
            like = self.task.images
            dither = self.task.randomness.uniform(
                like.shape[1:], "lattice", now.round, device=like.device, dtype=like.dtype
            )
        for first in range(0, len(points) * count, size):
            last = min(first + size, len(points) * count)
            block = self.task.confine(points[first // count : -(-last // count)])
            part = slice(first % count, first % count + last - first)
            if held is not None:
                block = torch.stack([held.images(each) if bound else held.rounded(each, dither) for each in block])
                images = (block if index is None else block[:, index]).flatten(0, 1)[part]
            else:
                block = self.task.change(block if index is None else block[:, index])
                images = (clean + block).clamp_(0, 1).flatten(0, 1)[part]
            yield images, reference.expand(len(block), *reference.shape).flatten(0, 1)[part]

    def _index(self, rows: NDArray[np.bool_]) -> Tensor | None:
        """Places of the images that take part; None for all, so that no copy is made."""
        if rows.all():
            return None
        return torch.from_numpy(np.flatnonzero(rows)).to(self.task.images.device, non_blocking=True)

    def _best(self, points: Tensor, predictions: Tensor, finite: Tensor) -> Verdict:
        count = torch.stack([self.task.goal.fooled(each).flatten(1).sum(1) for each in predictions])
        if len(points) == 1:
            return Verdict(points[0], predictions[0], count[0], finite[0])
        pick = count.masked_fill(~finite, -1).argmax(0)
        each = torch.arange(len(pick), device=pick.device)
        return Verdict(points[pick, each], predictions[pick, each], count[pick, each], finite[pick, each])

    def _scores(self, images: Tensor) -> Tensor:
        scores = self.target.scores(images)
        if scores.shape[1] != self.target.num_classes:
            raise InputError(
                f"the target answers with {scores.shape[1]} scores a pixel, and its num_classes is "
                f"{self.target.num_classes}"
            )
        return scores.contiguous()

    def _weigh(self, now: Snapshot, mean: Feedback, turn: Turn) -> tuple[Tensor, Snapshot]:
        bill: list[int] = []
        view = ScoreView(
            mean,
            self.task.goal,
            lambda: self.task.seen(now.state["delta"]),
            turn.round,
            turn.progress,
            self.target.num_classes,
            lambda images: self._noisy(images, now.rows),
            self.task.randomness,
            bill.append,
        )
        weights, state = self.attack.objective.weighting.weigh(view, now.weights)
        for queries in bill:
            now = self._paid(now, "radius", queries)
        return weights, replace(now, weights=state)

    def _noisy(self, images: Tensor, rows: NDArray[np.bool_]) -> Tensor:
        """Scores of copies of the whole batch, (c·N, C, H, W); 0 for images that are finished."""
        index = self._index(np.tile(rows, len(images) // len(rows)))
        asked = torch.split(_taken(images, index), fitting(_IMAGES_PER_CALL))
        found = torch.cat([self._scores(part) for part in asked])
        if index is None:
            return found
        return found.new_zeros(len(images), *found.shape[1:]).index_copy_(0, index, found)

    def _losses(self, feedback: Feedback, progress: float) -> Tensor:
        time = 1.0 if self.attack.strategy.remembers else progress
        loss = cast(ScoreLoss, self.attack.objective.loss).of_scores(feedback.own, feedback.rival, time)
        return loss.mul(self.share.to(loss.dtype)).nan_to_num_(0.0)

    def _right(self, feedback: Feedback) -> Tensor:
        """Share of the counted pixels that are not where the attack wants them, mean over the points; (N,)."""
        fooled = self._reached(feedback).double().mean(0)
        return 1 - fooled / self.task.goal.pixels

    def _reached(self, feedback: Feedback, *, ties: bool = False) -> Tensor:
        """Counted pixels that are where the attack wants them, those in a tie too if ``ties``; (K, N)."""
        goal = self.task.goal
        ahead, behind = feedback if goal.targeted else (feedback.rival, feedback.own)
        return ((ahead >= behind if ties else ahead > behind) & goal.counted).flatten(2).sum(2)


class _Answers(NamedTuple):
    """What came back: scores, a verdict if one was wanted, and who goes on where that is known without waiting."""

    feedback: Feedback
    verdict: Verdict | None
    rows: NDArray[np.bool_] | None


def _taken(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values[index]


def _spread(parts: list[Tensor], index: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """(n, H, W) in parts, of the images ``index`` → (K, N, H, W), 0 for the others."""
    values = parts[0] if len(parts) == 1 else torch.cat(parts)
    values = values.view(shape[0], -1, *shape[2:])
    return values if index is None else values.new_zeros(shape).index_copy_(1, index, values)


def check_scores(scores: Tensor) -> None:
    """Raise `InputError` unless scores (N, C, H, W) lie in [0, 1]; a top-k answer may sum to less than one."""
    beyond = outside_unit(scores)
    if beyond:
        raise InputError(f"scores must be probabilities in [0, 1], got {beyond}: are they logits?")
