"""Per-pixel attack losses: logits (N, C, H, W), labels (N, H, W) → (N, H, W), larger is worse for the model.

Each is a small frozen dataclass called as ``loss(logits, labels, progress)``, where ``progress`` in [0, 1] is how far
the attack has run; only annealed losses look at it. Labels must lie in [0, C): void pixels are masked by the caller,
which also turns the sign for a targeted attack. All are finite, with finite gradients, for finite logits.

Those that depend on the probability of the label and of the strongest other class alone have a second form,
``of_scores(own, rival, progress)``, for attacks that see nothing but scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows)
from torch import Tensor

from segradius.core.contracts import LABELS, LOGITS, SCORES
from segradius.core.declared import Positive, Weight, check_fields
from segradius.core.errors import InputError
from segradius.core.registry import Registry
from segradius.radius.gaussian import everywhere, radius_slope, signed_radius


class Loss(Protocol):
    """A per-pixel loss: a frozen dataclass with this base, which says what is otherwise than here."""

    #: What of a model's answers it is computed from.
    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})
    #: Whether it has a gradient to follow.
    differentiable: ClassVar[bool] = True
    #: Whether it changes as the attack runs, so that its values of different steps cannot be compared.
    annealed: ClassVar[bool] = False
    #: Classes that the model must have.
    least_classes: ClassVar[int] = 2

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        """Loss of each pixel, (N, H, W)."""

    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        """The derivative of Σ pull · loss in the logits, which is what a step of an attack needs of a loss.

        By autograd; a loss that knows it in closed form spares working copies of the logits, and their time.

        Args:
            logits: (N, C, H, W); not changed.
            labels: (N, H, W) int64 in [0, C).
            pull: (N, H, W), what each pixel's loss counts for.
            progress: How far the attack has run, in [0, 1].

        Returns:
            (N, C, H, W), the caller's to change.

        Example:
            >>> import torch
            >>> logits, labels = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
            >>> CrossEntropy().slope(logits, labels, torch.ones(1, 1, 1)).flatten().tolist()
            [-0.5, 0.5]
        """
        free = logits.detach().requires_grad_()
        with torch.enable_grad():
            loss = self(free, labels, progress)
        (found,) = torch.autograd.grad(loss, free, pull)
        return found

    def __init_subclass__(cls) -> None:
        """A loss that is computed otherwise than its base has not the base's derivative either."""
        super().__init_subclass__()
        if "__call__" in vars(cls) and "slope" not in vars(cls):
            cls.slope = Loss.slope  # type: ignore[method-assign]

    def check_classes(self, classes: int) -> None:
        """Raise `InputError` unless a model with this many classes will do."""
        if classes < self.least_classes:
            raise InputError(
                f"the loss {LOSSES.name_of(self)!r} needs at least {self.least_classes} classes, the model has "
                f"{classes}: use {_those(lambda loss: loss.least_classes <= classes)}"
            )

    def check_gradient(self) -> None:
        """Raise `InputError` unless it has a gradient."""
        if not self.differentiable:
            raise InputError(
                f"the loss {LOSSES.name_of(self)!r} has no gradient: it is for black-box attacks; a gradient is in "
                f"{_those(lambda loss: loss.differentiable)}"
            )

    def check_scores(self) -> None:
        """Raise `InputError` if scores are not enough."""
        if LOGITS in self.needs:
            raise InputError(
                f"the loss {LOSSES.name_of(self)!r} needs logits; scores give {_those(lambda o: LOGITS not in o.needs)}"
            )


class ScoreLoss(Loss, Protocol):
    """A loss that can be computed from two scores of each pixel."""

    needs: ClassVar[frozenset[str]] = frozenset({SCORES})

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        """Loss from the probability of the label and the largest of the others, any one shape."""


LOSSES: Registry[type[Loss]] = Registry("loss", "segradius.objectives")

#: Scores below it count as this much: rounded or left-out scores are 0, and log 0 is no loss.
SCORE_FLOOR = 1e-6


@LOSSES.register("ce")
@dataclass(frozen=True)
class CrossEntropy(ScoreLoss):
    """Cross-entropy −log p_y, the paper's attack loss (Eq. 1).

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 4, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> round(CrossEntropy()(logits, labels).item(), 4)  # log 4
        1.3863
    """

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        return _off_label(logits.softmax(1), labels, pull)

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        return -own.clamp_min(SCORE_FLOOR).log()


@LOSSES.register("js")
@dataclass(frozen=True)
class JensenShannon(ScoreLoss):
    """Jensen–Shannon divergence of the softmax from the one-hot label (Croce et al. 2024, SEA), in [0, log 2].

    With q one-hot it depends on p_y alone: log 2 + ½(p log p − (1 + p) log(1 + p)). That form has no log of a vanishing
    mixture. Its gradient fades both for p_y → 0 and p_y → 1: pixels that are lost, or safe, stop pulling.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([0.0, 60.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> round(JensenShannon()(logits, labels).item(), 4)  # log 2
        0.6931
    """

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        return _divergence(-F.cross_entropy(logits, labels, reduction="none"))

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        log_p = logits.log_softmax(1)
        own = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        p = own.exp()
        return _off_label(log_p.exp_(), labels, pull * (0.5 * p * (torch.log1p(p) - own)))

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        return _divergence(own.clamp_min(SCORE_FLOOR).log())


@LOSSES.register("margin")
@dataclass(frozen=True)
class Margin(ScoreLoss):
    """Difference of logits: max_{c≠y} z_c − z_y; positive exactly where the pixel is misclassified.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([3.0, 1.0, 2.0]).view(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> Margin()(logits, labels).item()
        -1.0
    """

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        return _margin(logits, labels)

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        return _margin_slope(logits, labels, lambda margin: pull)

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        return _log_ratio(own, rival)


@LOSSES.register("hinge")
@dataclass(frozen=True)
class Hinge(ScoreLoss):
    """Margin capped at ``kappa``: a pixel misclassified by that margin stops pulling (Carlini and Wagner's hinge).

    Args:
        kappa: Confidence at which a pixel is done, in logits, ≥ 0.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([0.0, 5.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> Hinge(kappa=1.0)(logits, labels).item()
        1.0
    """

    kappa: Weight = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        return _margin(logits, labels).clamp_max(self.kappa)

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        return _margin_slope(logits, labels, lambda margin: pull * (margin <= self.kappa))

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        return _log_ratio(own, rival).clamp_max(self.kappa)


@LOSSES.register("dlr")
@dataclass(frozen=True)
class DifferenceOfLogitsRatio(Loss):
    """Difference of logits ratio (Croce and Hein 2020): margin / (largest − third largest logit); needs C ≥ 3.

    Invariant to shift and scale of the logits, without a tolerance.

    Args:
        tolerance: What a rival must be ahead by for a loss above 0, in logits.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([3.0, 1.0, 2.0]).view(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> DifferenceOfLogitsRatio()(logits, labels).item(), DifferenceOfLogitsRatio()(9 * logits, labels).item()
        (-0.5, -0.5)
    """

    least_classes: ClassVar[int] = 3

    tolerance: Weight = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        self.check_classes(logits.shape[1])
        top = logits.topk(3, dim=1).values
        return (_margin(logits, labels) - self.tolerance) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


@LOSSES.register("spherical")
@dataclass(frozen=True)
class Spherical(Loss):
    """Negative cosine of the logits with the one-hot label, −z_y / ‖z‖ (Halmosi et al. 2024), in [−1, 1].

    ``masked_spherical`` is this loss times the still-correct weighting, as every ``masked_…`` name is.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> round(Spherical()(logits, labels).item(), 4)
        -0.6
    """

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        return -own / logits.square().sum(1).clamp_min(1e-24).sqrt()


@LOSSES.register("flips")
@dataclass(frozen=True)
class ExpectedFlips(ScoreLoss):
    """Expected flips Φ(−r/τ), r the signed normalised radius; its sum is a smooth count of flipped pixels (Eq. 5).

    Φ(−r/τ) is the chance that a Gaussian step of scale τ towards the boundary is longer than the pixel's radius. The
    gradient is largest where the radius is small, on either side of the boundary. τ falls linearly from ``tau`` to
    ``tau_end`` over the run: at first every pixel pulls a little, at the end only those that can still be turned.

    Args:
        tau: Scale at the start, in units of the normalised radius, > 0.
        tau_end: Scale at the end, > 0.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> ExpectedFlips()(logits, labels).item()  # on the boundary, at any τ
        0.5
    """

    annealed: ClassVar[bool] = True

    tau: Positive = 4.0
    tau_end: Positive = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        return self._flips(signed_radius(logits, labels), progress)

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        tau = self._tau(progress)
        pulled = pull * (-1 / (tau * math.sqrt(2 * math.pi)))
        # Of Φ(−r/τ) in r. Below e⁻⁸⁷ float32 has no number, and a CPU takes long to say so.
        return radius_slope(logits, labels, lambda r: r.square().div_(-2 * tau * tau).clamp_min_(-87).exp_() * pulled)

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        return self._flips(0.5 * (_quantile(own) - _quantile(rival)), progress)

    def _flips(self, radius: Tensor, progress: float) -> Tensor:
        flips: Tensor = torch.special.ndtr(-radius / self._tau(progress))
        return flips

    def _tau(self, progress: float) -> float:
        return self.tau + (self.tau_end - self.tau) * progress


@LOSSES.register("wrong")
@dataclass(frozen=True)
class Wrong(ScoreLoss):
    """1 where the label does not win, 0 where it does: the count of Eq. 5 itself, which has no gradient.

    For black-box attacks, on targets that return nothing but labels above all.

    Example:
        >>> import torch
        >>> Wrong().of_scores(torch.tensor([0.2, 0.6]), torch.tensor([0.7, 0.3])).tolist()
        [1.0, 0.0]
    """

    needs: ClassVar[frozenset[str]] = frozenset({LABELS})
    differentiable: ClassVar[bool] = False

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        self.check_gradient()
        return logits.argmax(1).ne(labels).to(logits.dtype)  # not reached

    def of_scores(self, own: Tensor, rival: Tensor, progress: float = 0.0) -> Tensor:
        return (rival > own).to(own.dtype)


def losses_for(needs: frozenset[str]) -> list[str]:
    """Names of the losses that make do with these answers.

    Example:
        >>> losses_for(frozenset({LABELS}))
        ['wrong']
    """
    return [name for name in LOSSES if LOSSES[name].needs <= needs]


def _those(fit: Callable[[type[Loss]], bool]) -> str:
    return ", ".join(name for name in LOSSES if fit(LOSSES[name]))


def _divergence(log_p: Tensor) -> Tensor:
    p = log_p.exp()
    return math.log(2) + 0.5 * (p * log_p - (1 + p) * torch.log1p(p))


def _quantile(score: Tensor) -> Tensor:
    """Φ⁻¹ of a score; six times as fast as ndtri, and as exact as float32 tells scores from 1."""
    clamped = score.clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
    return torch.erfinv(clamped.mul_(2).sub_(1)).mul_(math.sqrt(2))


def _log_ratio(own: Tensor, rival: Tensor) -> Tensor:
    """log(rival / own), which is the difference of the logits."""
    return (rival.clamp_min(SCORE_FLOOR) / own.clamp_min(SCORE_FLOOR)).log()


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    at = labels.unsqueeze(1)
    rival = logits.scatter(1, at, -math.inf).amax(1)
    return rival - logits.gather(1, at).squeeze(1)


def _margin_slope(logits: Tensor, labels: Tensor, pull: Callable[[Tensor], Tensor]) -> Tensor:
    """The slope of a function of the margin, ``pull`` its derivative; rivals that tie share, as amax does."""
    at = labels.unsqueeze(1)
    others = logits.scatter(1, at, everywhere(-math.inf, at, logits))
    rival = others.amax(1, keepdim=True)
    pulled = pull((rival - logits.gather(1, at)).squeeze(1)).unsqueeze(1)
    found = torch.eq(others, rival, out=others)
    return found.mul_(pulled / found.sum(1, keepdim=True)).scatter_(1, at, -pulled)


def _off_label(p: Tensor, labels: Tensor, pull: Tensor) -> Tensor:
    """The product pull · (p − one-hot label), in the place of p: the slope of −log p_y."""
    pulled = pull.unsqueeze(1)
    return p.mul_(pulled).scatter_add_(1, labels.unsqueeze(1), -pulled)
