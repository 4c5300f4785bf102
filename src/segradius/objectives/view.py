"""What a loss or weighting may look at in one step: logits of a white-box pass, or scores already paid for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from segradius.core.contracts import LogitModel
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.objectives.goal import Goal
from segradius.objectives.losses import Margin
from segradius.radius.clever import Ball, clever_radius
from segradius.radius.smoothing import mean_over_noise, smoothed_probabilities


class Feedback(NamedTuple):
    """Two numbers a pixel, all that the losses and weights of black-box attacks need.

    Attributes:
        own: Score of the reference class, (…, H, W).
        rival: Largest score of the other classes, (…, H, W).
    """

    own: Tensor
    rival: Tensor

    @property
    def confidence(self) -> Tensor:
        """Score of the predicted class."""
        return torch.maximum(self.own, self.rival)

    @property
    def finite(self) -> Tensor:
        """Whether all scores of an image were finite, (…)."""
        return torch.isfinite(self.own.sum((-2, -1)) + self.rival.sum((-2, -1)))

    @property
    def mean(self) -> Feedback:
        """Mean over the first dimension."""
        return Feedback(*(part[0] if len(part) == 1 else part.mean(0) for part in self))

    def blend(self, other: Feedback, share: float) -> Feedback:
        """This one moved towards another by ``share`` in [0, 1]."""
        return Feedback(self.own.lerp(other.own, share), self.rival.lerp(other.rival, share))


def look(scores: Tensor, reference: Tensor) -> Feedback:
    """The feedback in scores; these are overwritten, unless they are not contiguous.

    Args:
        scores: (N, C, H, W) probabilities, C ≥ 2. **Changed in place**: a copy would cost as much as all the rest.
        reference: (N, H, W) int64 in [0, C).

    Example:
        >>> scores = torch.tensor([0.5, 0.2, 0.3]).view(1, 3, 1, 1)
        >>> found = look(scores, torch.zeros(1, 1, 1, dtype=torch.long))
        >>> round(found.own.item(), 2), round(found.rival.item(), 2)
        (0.5, 0.3)
    """
    images, classes, *sides = scores.shape
    plane = torch.arange(math.prod(sides), device=scores.device).view(sides)
    first = torch.arange(images, device=scores.device).view(-1, 1, 1) * classes
    # One list of places in memory serves reading and writing, at less than half the time of gather and scatter.
    place = (reference + first).mul_(math.prod(sides)).add_(plane).flatten()
    scores = scores.contiguous()
    flat = scores.view(-1)
    own = flat.index_select(0, place).view_as(reference)
    flat.index_fill_(0, place, -1.0)
    return Feedback(own, scores.amax(1))


def prediction_of(feedback: Feedback, scores: Tensor, reference: Tensor) -> Tensor:
    """The predicted class, the first in a tie, (N, H, W), from what `look` has left of the scores.

    Example:
        >>> scores, reference = torch.tensor([0.5, 0.2, 0.5]).view(1, 3, 1, 1), torch.full((1, 1, 1), 2)
        >>> prediction_of(look(scores, reference), scores, reference).item()
        0
    """
    rival = predict(scores)[1]
    tie = torch.where(feedback.own == feedback.rival, torch.minimum(rival, reference), rival)
    return torch.where(feedback.own > feedback.rival, reference, tie)


@dataclass(frozen=True)
class Smoothing:
    """Noisy passes behind a radius.

    Args:
        sigma: Standard deviation of the noise, in pixel units.
        samples: Noisy copies M.
        clamp: Whether noisy images are clamped to [0, 1].
        precision: Reduced precision of the passes, or None; a score-only target has its own.
    """

    sigma: float
    samples: int
    clamp: bool = True
    precision: torch.dtype | None = None


class View(Protocol):
    """One step as a weighting sees it; nothing here carries a gradient."""

    @property
    def goal(self) -> Goal:
        """What the attack wants."""

    @property
    def step(self) -> int:
        """Index of the step, from 0."""

    @property
    def progress(self) -> float:
        """How far the attack has run, in [0, 1)."""

    @property
    def pace(self) -> float:
        """What a step adds to the progress: 1/T, in a black-box attack the mean so far."""

    @property
    def num_classes(self) -> int:
        """Number of classes C."""

    def number(self, value: Tensor) -> Tensor:
        """``value`` in the type of the weights."""

    def pending(self) -> Tensor:
        """Counted pixels that are not fooled yet, (N, H, W) bool."""

    def fooled(self) -> Tensor:
        """Counted pixels that are, (N, H, W) bool."""

    def confidence(self) -> Tensor:
        """Probability of each pixel's predicted class, (N, H, W)."""

    def margin(self) -> Tensor:
        """How far each pixel is from being fooled, in logits, (N, H, W); negative where it is."""

    def smoothed_confidence(self, smoothing: Smoothing) -> Tensor:
        """Largest mean probability over noisy passes, which are made now and entered in the ledger; (N, H, W)."""

    def clever(self, ball: Ball) -> Tensor:
        """CLEVER's radius in pixel units, from passes that are made now and entered in the ledger; (N, H, W)."""

    def alignment(self) -> Tensor:
        """Cosine of the probabilities and the one-hot reference, (N, H, W)."""

    def log_probabilities(self) -> Tensor:
        """Logarithm of the probability of every class, (N, C, H, W)."""


@dataclass(frozen=True)
class LogitView:
    """The attack's own forward pass, in a white-box attack.

    Attributes:
        logits: (N, C, H, W) of the attack's own forward pass.
        prediction: (N, H, W) their argmax.
        goal: What the attack wants.
        images: (N, B, H, W) current adversarial images.
        step: Index of the step, from 0.
        steps: Steps of the run, T.
        model: The attacked model, for noisy passes.
        randomness: Keys of the images.
        ledger: Where extra passes are entered.
    """

    logits: Tensor
    prediction: Tensor
    goal: Goal
    images: Tensor
    step: int
    steps: int
    model: LogitModel
    randomness: Randomness
    ledger: Ledger

    @property
    def progress(self) -> float:
        """t/T in [0, 1)."""
        return self.step / self.steps

    @property
    def pace(self) -> float:
        """1/T."""
        return 1 / self.steps

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.logits.shape[1]

    def number(self, value: Tensor) -> Tensor:
        """``value`` in the type of the logits."""
        return value.to(self.logits.dtype)

    def pending(self) -> Tensor:
        """Counted pixels that are not fooled yet."""
        return self.goal.pending(self.prediction)

    def fooled(self) -> Tensor:
        """Counted pixels that are."""
        return self.goal.fooled(self.prediction)

    def confidence(self) -> Tensor:
        """Largest softmax probability."""
        return self.logits.softmax(1).amax(1)

    def margin(self) -> Tensor:
        """Difference of the reference's logit and the largest other one; its negative if targeted."""
        return Margin()(self.logits, self.goal.reference) * -self.goal.sign

    def smoothed_confidence(self, smoothing: Smoothing) -> Tensor:
        """Largest mean softmax probability over noisy passes of the model."""
        found = smoothed_probabilities(
            self.model,
            self.images,
            self.randomness,
            sigma=smoothing.sigma,
            samples=smoothing.samples,
            step=self.step,
            clamp=smoothing.clamp,
            precision=smoothing.precision,
            ledger=self.ledger,
        )
        return found.amax(1)

    def clever(self, ball: Ball) -> Tensor:
        """CLEVER's radius, from derivatives of the model at samples of a ball."""
        return clever_radius(self.model, self.images, self.randomness, ball, step=self.step, ledger=self.ledger).radius

    def alignment(self) -> Tensor:
        """Cosine of softmax and one-hot reference."""
        probability = self.logits.softmax(1)
        own = probability.gather(1, self.goal.reference.unsqueeze(1)).squeeze(1)
        return own / probability.square_().sum(1).sqrt_()

    def log_probabilities(self) -> Tensor:
        """Logarithm of the softmax."""
        return self.logits.log_softmax(1)


@dataclass(frozen=True)
class ScoreView:
    """Scores that a black-box attack has paid for: those of this round, or their running mean.

    Attributes:
        feedback: Scores of the reference and of its strongest rival.
        goal: What the attack wants.
        images: Makes the (N, B, H, W) current adversarial images, for noisy queries.
        step: Index of the round, from 0.
        progress: Queries spent over the budget, in [0, 1).
        num_classes: C.
        ask: Scores (n, C, H, W) of images; the caller counts.
        randomness: Keys of the images.
        paid: Told how many queries an image more were made.
    """

    feedback: Feedback
    goal: Goal
    images: Callable[[], Tensor] = field(repr=False)
    step: int
    progress: float
    num_classes: int
    ask: Callable[[Tensor], Tensor] = field(repr=False)
    randomness: Randomness
    paid: Callable[[int], None] = field(repr=False)

    @property
    def pace(self) -> float:
        """Mean progress of a round so far; 0 in the first."""
        return self.progress / self.step if self.step else 0.0

    def number(self, value: Tensor) -> Tensor:
        """``value`` in the type of the scores."""
        return value.to(self.feedback.own.dtype)

    def pending(self) -> Tensor:
        """Counted pixels that are not fooled yet; a tie is no success."""
        won = self.feedback.own >= self.feedback.rival
        return (~self._reached() if self.goal.targeted else won) & self.goal.counted

    def fooled(self) -> Tensor:
        """Counted pixels that are."""
        return self.goal.counted & ~self.pending()

    def confidence(self) -> Tensor:
        """Score of the predicted class."""
        return self.feedback.confidence

    def margin(self) -> Tensor:
        """Difference of the logarithms of the two scores, which is that of the logits; its negative if targeted."""
        return Margin().of_scores(self.feedback.own, self.feedback.rival) * -self.goal.sign

    def smoothed_confidence(self, smoothing: Smoothing) -> Tensor:
        """Largest mean score over noisy queries."""
        found = mean_over_noise(
            self.ask,
            self.images(),
            self.randomness,
            sigma=smoothing.sigma,
            samples=smoothing.samples,
            step=self.step,
            clamp=smoothing.clamp,
        )
        self.paid(smoothing.samples)
        return found.amax(1)

    def clever(self, ball: Ball) -> Tensor:
        """Not to be had from scores."""
        raise InputError("the weighting 'clever' needs derivatives of the model; use cr with a target of scores only")

    def alignment(self) -> Tensor:
        """Not to be had from two scores a pixel."""
        raise InputError("the weighting 'cospgd' needs the scores of all classes; use cr or still_correct instead")

    def log_probabilities(self) -> Tensor:
        """Not to be had from two scores a pixel."""
        raise InputError("the weighting 'transegpgd' needs the scores of all classes; use still_correct instead")

    def _reached(self) -> Tensor:
        return self.feedback.own > self.feedback.rival
