"""The one black-box loop: ask a target that returns nothing but scores, move, judge (Algorithm 2 with any strategy)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor

from segradius.attacks.base import Result, Task
from segradius.attacks.loop import Room
from segradius.attacks.snapshot import Standing, Verdict
from segradius.attacks.strategy import Strategy, Turn
from segradius.core.contracts import LABELS, SCORES, ScoreModel
from segradius.core.errors import InputError
from segradius.core.prediction import SIMPLEX_TOLERANCE
from segradius.objectives.losses import ScoreLoss
from segradius.objectives.objective import Objective
from segradius.objectives.view import Feedback, ScoreView, look, prediction_of
from segradius.objectives.weightings import CertifiedRadius, factors
from segradius.threats.threat import Threat

# Queries are sent in groups of at most this many images, which bounds memory: the scores of one 1024 × 2048 image of 19
# classes take 160 MB.
_IMAGES_PER_CALL = 16


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
        queries: The budget of each image.
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
    queries: int
    memory: float = 0.7
    keep: Literal["best", "last"] = "best"
    judge_every: int = 0
    marks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.memory < 1:
            raise InputError(f"memory must be in [0, 1), got {self.memory}")
        if self.keep not in ("best", "last"):
            raise InputError(f"keep must be 'best' or 'last', got {self.keep!r}")
        if self.judge_every < 0:
            raise InputError(f"judge_every must be 0 or more, got {self.judge_every}")
        if not hasattr(self.objective.loss, "of_scores"):
            raise InputError(
                f"the loss {type(self.objective.loss).__name__} needs logits; scores give ce, js, margin, hinge, flips "
                "and wrong"
            )
        least = self.strategy.per_round + self.radius_queries(0) + 1
        if self.queries < least:
            raise InputError(f"queries is {self.queries}; one round and a verdict take {least}")

    @property
    def needs(self) -> frozenset[str]:
        """Scores, or labels if the loss makes do with those."""
        return frozenset({LABELS if type(self.objective.loss).__name__ == "Wrong" else SCORES})

    @property
    def total_steps(self) -> int:
        """The budget of queries."""
        return self.queries

    @property
    def rounds(self) -> int:
        """T: rounds that fit into the budget, when no iterate is judged but the last."""
        often = sum(f.samples / f.interval for f in self._radii)
        return int((self.queries - 1) / (self.strategy.per_round + often))

    def radius_queries(self, turn: int) -> int:
        """Noisy queries that the weights make in a round."""
        return sum(f.samples for f in self._radii if turn % f.interval == 0)

    def map_objective(self, change: Callable[[Objective], Objective]) -> Queried:
        """The same attack on a changed objective."""
        return replace(self, objective=change(self.objective))

    def run(self, task: Task) -> Result:
        """Go on from the journal, or begin; rounds until the budget is spent; judge the last iterate."""
        run = _Run.of(self, task)
        kept = task.journal.load() if task.journal else None
        standing = Standing.restored(kept, task) if kept else Standing.new(task, self.strategy.begin(run.room))
        task.done(standing.spent)
        while self._goes_on(standing):
            standing = run.kept(run.round(standing))
        if standing.wants_verdict:
            standing = run.kept(run.verdict(standing))
        task.done(self.queries - standing.spent)  # an attack may finish early
        return standing.result(task, last=self.keep == "last")

    @property
    def _radii(self) -> list[CertifiedRadius]:
        return [f for f in factors(self.objective.weighting) if isinstance(f, CertifiedRadius) and f.samples]

    def _goes_on(self, standing: Standing) -> bool:
        coming = self.strategy.per_round + self.radius_queries(standing.round) + 1
        return standing.spent + coming <= self.queries and bool(standing.active.any())


@dataclass(frozen=True)
class _Run:
    """One attack on one batch.

    Attributes:
        share: (N, H, W) what a pixel's loss is multiplied by: ±1 over the counted pixels, 0 where not counted.
    """

    attack: Queried
    task: Task
    room: Room
    target: ScoreModel
    share: Tensor

    @staticmethod
    def of(attack: Queried, task: Task) -> _Run:
        target = cast(ScoreModel, task.model)
        budgets = attack.threat.budgets(len(task.images), task.images)
        counted = task.goal.counted.to(task.images.dtype)
        share = counted * (task.goal.sign / counted.sum((1, 2), keepdim=True).clamp_min(1))
        return _Run(attack, task, Room(attack.threat, task, budgets, attack.rounds), target, share)

    def round(self, now: Standing) -> Standing:
        """Ask, weigh, tell; then judge the iterate if it is time to."""
        attack, turn, active = self.attack, Turn(now.round, now.spent / self.attack.queries), now.active
        asked = attack.strategy.ask(now.state, self.room, turn)
        feedback, verdict = self._ask(asked.points, now, now.incumbent.fooled if attack.strategy.feasible else None)
        now = now.paid("attack", len(asked.points), self.task)
        mean = feedback.mean
        if now.mean is not None:
            mean = mean.blend(now.mean, attack.memory)
        weights, now = self._weigh(now, mean, turn)
        losses = self._losses(feedback, turn.progress)
        state = attack.strategy.tell(now.state, self.room, turn, asked, losses, weights)
        now = replace(now, state=state, mean=mean, round=now.round + 1)
        if verdict is not None:
            now = now.offered(verdict, self.task.goal)
        now = now.checked(feedback.finite.all(0))
        if now.wants_row:
            now = now.noted(active, losses.sum((0, 2, 3)) / len(losses), self._right(feedback))
        return self.verdict(now) if now.wants_verdict and self._is_time(now) else now

    def kept(self, now: Standing) -> Standing:
        """The same, written into the journal if it is time to."""
        if self.task.journal:
            self.task.journal.save(now.plain)
        return now

    def verdict(self, now: Standing) -> Standing:
        """Judge the iterate, at the price of one query of every image that is not finished."""
        active = now.active
        anything = torch.full_like(now.incumbent.fooled, -1)
        feedback, verdict = self._ask(now.state["delta"].unsqueeze(0), now, anything)
        assert verdict is not None
        now = now.paid("judging", 1, self.task).checked(feedback.finite.all(0))
        losses = self._losses(feedback, now.spent / self.attack.queries)
        last = replace(now.offered(verdict, self.task.goal), last=verdict)
        return last.noted(active, losses.sum((0, 2, 3)), self._right(feedback), judged=True)

    def _is_time(self, now: Standing) -> bool:
        """Whether the iterate is to be judged now: a mark would be passed by another round, or the interval is over."""
        attack = self.attack
        if not attack.strategy.per_round + attack.radius_queries(now.round) + 1 + now.spent <= attack.queries:
            return False  # the last verdict follows anyway
        coming = now.spent + attack.strategy.per_round + attack.radius_queries(now.round) + 1
        if any(now.spent + 1 <= mark < coming for mark in attack.marks):
            return True
        return attack.judge_every > 0 and now.round % attack.judge_every == 0

    def _ask(self, points: Tensor, now: Standing, above: Tensor | None) -> tuple[Feedback, Verdict | None]:
        """Answers to (K, N, 3, H, W) perturbations, (K, N, H, W) each; 0 for images that are finished.

        With ``above``, (N,), also the verdict on the points, the one that fooled most for each image, unless no image
        can have more pixels fooled than that: predictions cost more than all else that is done to an answer.
        """
        rows = now.active.nonzero().flatten()
        whole = len(rows) == len(now.active)  # then no copy is made
        clean, reference = (t if whole else t[rows] for t in (self.task.images, self.task.goal.reference))
        images = (clean + (points if whole else points[:, rows])).clamp_(0, 1).flatten(0, 1)
        reference = reference.repeat(len(points), 1, 1)
        answers, left = [], []
        for first in range(0, len(images), _IMAGES_PER_CALL):
            part = slice(first, first + _IMAGES_PER_CALL)
            scores = self._scores(images[part])
            if now.round == 0:
                check_scores(scores)
            answers.append(look(scores, reference[part]))
            if above is not None:
                left.append(scores)
        shape = (len(points), len(now.active), *reference.shape[1:])
        found = Feedback(*(_spread(_joined(part), rows, shape) for part in zip(*answers, strict=True)))
        if above is None or not bool(((self._reached(found, ties=True).amax(0) > above) & now.active).any()):
            return found, None
        asked = zip(answers, left, torch.split(reference, _IMAGES_PER_CALL), strict=True)
        predictions = _spread(_joined([prediction_of(*each) for each in asked]), rows, shape)
        return found, self._best(points, predictions, found.finite)

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

    def _weigh(self, now: Standing, mean: Feedback, turn: Turn) -> tuple[Tensor, Standing]:
        bill: list[int] = []
        view = ScoreView(
            mean,
            self.task.goal,
            lambda: (self.task.images + now.state["delta"]).clamp_(0, 1),
            turn.round,
            turn.progress,
            self.target.num_classes,
            lambda images: self._noisy(images, now.active),
            self.task.randomness,
            bill.append,
        )
        weights, state = self.attack.objective.weighting.weigh(view, now.weights)
        for queries in bill:
            now = now.paid("radius", queries, self.task)
        return weights, replace(now, weights=state)

    def _noisy(self, images: Tensor, active: Tensor) -> Tensor:
        """Scores of copies of the whole batch, (c·N, C, H, W); 0 for images that are finished."""
        rows = active.repeat(len(images) // len(active)).nonzero().flatten()
        found = torch.cat([self._scores(images[part]) for part in torch.split(rows, _IMAGES_PER_CALL)])
        return (
            found
            if len(rows) == len(images)
            else found.new_zeros(len(images), *found.shape[1:]).index_copy_(0, rows, found)
        )

    def _losses(self, feedback: Feedback, progress: float) -> Tensor:
        time = 1.0 if self.attack.strategy.remembers else progress
        loss = cast(ScoreLoss, self.attack.objective.loss).of_scores(feedback.own, feedback.rival, time)
        return loss.mul(self.share.to(loss.dtype)).nan_to_num_(0.0)

    def _right(self, feedback: Feedback) -> Tensor:
        """Share of the counted pixels that are not where the attack wants them, mean over the points; (N,)."""
        fooled = self._reached(feedback).double().mean(0)
        return 1 - fooled / self.task.goal.counted.flatten(1).sum(1).clamp_min(1)

    def _reached(self, feedback: Feedback, *, ties: bool = False) -> Tensor:
        """Counted pixels that are where the attack wants them, those in a tie too if ``ties``; (K, N)."""
        goal = self.task.goal
        ahead, behind = feedback if goal.targeted else (feedback.rival, feedback.own)
        return ((ahead >= behind if ties else ahead > behind) & goal.counted).flatten(2).sum(2)


def _spread(values: Tensor, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(K·A, H, W) of the images ``rows`` → (K, N, H, W), 0 for the others."""
    values = values.view(shape[0], len(rows), *shape[2:])
    return values if len(rows) == shape[1] else values.new_zeros(shape).index_copy_(1, rows, values)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def check_scores(scores: Tensor) -> None:
    """Raise `InputError` unless scores (N, C, H, W) lie in [0, 1]; a top-k answer may sum to less than one."""
    low, high = scores.amin().item(), scores.amax().item()
    if low < 0 or high > 1 + SIMPLEX_TOLERANCE:
        raise InputError(f"scores must be probabilities in [0, 1], got [{low:.4g}, {high:.4g}]: are they logits?")
