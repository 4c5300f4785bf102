"""What a pixel weighting may look at in one step: logits of a white-box pass, or scores already paid for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from segradius.clever import Ball, clever_radius
from segradius.errors import InputError
from segradius.feedback import Feedback
from segradius.goal import Goal
from segradius.ledger import Ledger
from segradius.radius import LogitModel, mean_over_noise, smoothed_probabilities
from segradius.randomness import Randomness


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
        ...

    @property
    def step(self) -> int:
        """Index of the step, from 0."""
        ...

    @property
    def progress(self) -> float:
        """How far the attack has run, in [0, 1)."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        ...

    def number(self, value: Tensor) -> Tensor:
        """``value`` in the type of the weights."""
        ...

    def pending(self) -> Tensor:
        """Counted pixels that are not fooled yet, (N, H, W) bool."""
        ...

    def fooled(self) -> Tensor:
        """Counted pixels that are, (N, H, W) bool."""
        ...

    def confidence(self) -> Tensor:
        """Probability of each pixel's predicted class, (N, H, W)."""
        ...

    def smoothed_confidence(self, smoothing: Smoothing) -> Tensor:
        """Largest mean probability over noisy passes, which are made now and entered in the ledger; (N, H, W)."""
        ...

    def clever(self, ball: Ball) -> Tensor:
        """CLEVER's radius in pixel units, from passes that are made now and entered in the ledger; (N, H, W)."""
        ...

    def alignment(self) -> Tensor:
        """Cosine of the probabilities and the one-hot reference, (N, H, W)."""
        ...


@dataclass(frozen=True)
class LogitView:
    """The attack's own forward pass, in a white-box attack.

    Attributes:
        logits: (N, C, H, W) of the attack's own forward pass.
        prediction: (N, H, W) their argmax.
        goal: What the attack wants.
        images: (N, 3, H, W) current adversarial images.
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
        return own / probability.square().sum(1).sqrt()


@dataclass(frozen=True)
class ScoreView:
    """Scores that a black-box attack has paid for: those of this round, or their running mean.

    Attributes:
        feedback: Scores of the reference and of its strongest rival.
        goal: What the attack wants.
        images: Makes the (N, 3, H, W) current adversarial images, for noisy queries.
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

    def _reached(self) -> Tensor:
        return self.feedback.own > self.feedback.rival
