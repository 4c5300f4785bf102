"""Every white-box attack by name: which objective, threat, step and number of steps make it.

A recipe is a function ``(threat, settings, **options) -> method``; `segradius.attacks.making` calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from segradius.attacks.apgd import Apgd, SparseApgd
from segradius.attacks.combine import Ensemble, Guided, ShrinkingBudget
from segradius.attacks.dag import DagAlgorithm3
from segradius.attacks.loop import Iterative, Objective, Step
from segradius.attacks.steps import Dense, Momentum, Steepest, StepSize
from segradius.losses import LOSSES, CrossEntropy, ExpectedFlips, JensenShannon, Loss, Margin
from segradius.registry import Registry
from segradius.threats import Threat
from segradius.weightings import (
    ClassBalanced,
    CosPGD,
    Product,
    SegPGD,
    StillCorrect,
    parse_weighting,
    times,
)

#: The paper's T and α (in units of ε/T) by norm (Section 5.1).
PAPER_STEPS: Mapping[str, int] = {"l1": 50, "l2": 50, "linf": 20}
PAPER_ALPHA: Mapping[str, float] = {"l1": 2.5, "l2": 2.5, "linf": 1.0}


@dataclass(frozen=True)
class Settings:
    """What every recipe understands.

    Args:
        steps: T; None is the recipe's own, the paper's 50, 50, 20 for l1, l2, l∞ unless the recipe says otherwise.
        alpha: Step length in the threat's norm; None is the recipe's own, the paper's 2.5ε/T, 2.5ε/T, ε/T.
        start: ``zero`` or ``uniform``; None is the recipe's own.
        restarts: Runs; those after the first start uniformly in the ball.
        keep: ``best`` iterate by fooled pixels, or the ``last``, as the paper.
        sparse: For l1: share of values that a step moves; None is the dense step of Eq. 22.
    """

    steps: int | None = None
    alpha: float | None = None
    start: Literal["zero", "uniform"] | None = None
    restarts: int = 1
    keep: Literal["best", "last"] = "best"
    sparse: float | None = None

    def size(self, norm: str, per_eps: float | None = None) -> StepSize:
        """Step length, ``per_eps``·ε/T unless ``alpha`` was given."""
        return StepSize(self.alpha, PAPER_ALPHA[norm] if per_eps is None else per_eps)

    def iterate(self, objective: Objective, threat: Threat, step: Step, *, steps: int | None = None) -> Iterative:
        """An iterative attack with these settings; ``steps`` is the recipe's own default T."""
        own = PAPER_STEPS[threat.norm.name] if steps is None else steps
        count = own if self.steps is None else self.steps
        return Iterative(objective, threat, step, count, self.start or "zero", self.keep)


#: Settings that an attack determines by itself.
FIXED: Mapping[str, frozenset[str]] = {
    "fgsm": frozenset({"steps"}),
    "apgd": frozenset({"alpha", "sparse"}),
    "flip_apgd": frozenset({"alpha", "sparse"}),
    "sea": frozenset({"alpha", "sparse"}),
    "dag": frozenset({"sparse"}),
    "dag_alg3": frozenset({"start", "keep", "sparse"}),
    "mi_fgsm": frozenset({"sparse"}),
}

Recipe = Callable[..., Guided]
ATTACKS: Registry[Recipe] = Registry("attack")


def objective(loss: str = "ce", weighting: str = "uniform", **loss_options: Any) -> Objective:
    """An objective by names: ``masked_…`` puts the still-correct mask on a loss, ``a*b`` multiplies weightings.

    Example:
        >>> objective("masked_ce").weighting
        StillCorrect()
    """
    masked = loss.startswith("masked_") and loss not in LOSSES
    kind: Callable[..., Loss] = LOSSES[loss.removeprefix("masked_") if masked else loss]
    weights = parse_weighting(weighting)
    return Objective(kind(**loss_options), times(weights, StillCorrect()) if masked else weights)


@ATTACKS.register("pgd")
def pgd(threat: Threat, settings: Settings, *, loss: str = "ce", weighting: str = "uniform") -> Guided:
    """Projected gradient descent (Madry et al. 2018), the paper's base attack (Eq. 21).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        loss: Name of the loss.
        weighting: Name of the weighting, or a product such as ``cr*still_correct``.
    """
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(objective(loss, weighting), threat, step)


@ATTACKS.register("fgsm")
def fgsm(threat: Threat, settings: Settings, *, loss: str = "ce", weighting: str = "uniform") -> Guided:
    """Fast gradient sign method (Goodfellow et al. 2015) for any norm: one step of length ε."""
    step = Steepest(settings.size(threat.norm.name, 1.0), settings.sparse)
    return settings.iterate(objective(loss, weighting), threat, step, steps=1)


@ATTACKS.register("mi_fgsm")
def mi_fgsm(
    threat: Threat, settings: Settings, *, decay: float = 1.0, loss: str = "ce", weighting: str = "uniform"
) -> Guided:
    """Momentum iterative FGSM (Dong et al. 2018), α = ε/T.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        decay: Momentum μ.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    return settings.iterate(objective(loss, weighting), threat, Momentum(settings.size(threat.norm.name, 1.0), decay))


@ATTACKS.register("segpgd")
def segpgd(threat: Threat, settings: Settings) -> Guided:
    """SegPGD (Gu et al. 2022): PGD that moves weight from correct to fooled pixels as it runs."""
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(CrossEntropy(), SegPGD()), threat, step)


@ATTACKS.register("cospgd")
def cospgd(threat: Threat, settings: Settings) -> Guided:
    """CosPGD (Agnihotri et al. 2024): PGD weighted by the cosine of softmax and one-hot label."""
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(CrossEntropy(), CosPGD()), threat, step)


@ATTACKS.register("flip_pgd")
def flip_pgd(threat: Threat, settings: Settings, *, tau: float = 4.0, tau_end: float = 0.5) -> Guided:
    """PGD on expected flips Φ(−r/τ), r the signed radius, τ annealed: a smooth count of flipped pixels (ours).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        tau: τ at the start.
        tau_end: τ at the end.
    """
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(ExpectedFlips(tau, tau_end)), threat, step)


@ATTACKS.register("dag")
def dag(threat: Threat, settings: Settings) -> Guided:
    """Dense adversary generation (Xie et al. 2017): logit differences of the pixels still correct, dense steps γ·g/‖g‖.

    The original has no ball: pass ``eps=inf`` and γ as ``alpha`` for it. Inside a ball, γ is 2.5ε/T by default, and 4ε
    for l∞, where g/‖g‖∞ is far from ±1 at most pixels.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``alpha`` is γ.
    """
    steps = settings.steps or PAPER_STEPS[threat.norm.name]
    step = Dense(settings.size(threat.norm.name, 4.0 * steps if threat.norm.name == "linf" else 2.5))
    return settings.iterate(Objective(Margin(), StillCorrect()), threat, step)


@ATTACKS.register("dag_alg3")
def dag_alg3(threat: Threat, settings: Settings, *, first: Literal["uniform", "zero"] = "uniform") -> Guided:
    """DAG as the paper's Algorithm 3: differences of two gradients (l∞ only; two passes a step).

    Args:
        threat: An l∞ ball.
        settings: Shared settings; ``alpha`` is γ, 0.5 by default.
        first: Start of the inner perturbation; ``zero``, the letter of the algorithm, never moves.
    """
    steps = settings.steps or PAPER_STEPS["linf"]
    return DagAlgorithm3(Objective(), threat, steps, settings.alpha or 0.5, first)


@ATTACKS.register("apgd")
def apgd(threat: Threat, settings: Settings, *, loss: str = "ce", weighting: str = "uniform") -> Guided:
    """Auto-PGD (Croce and Hein 2020, 2021 for l1), T = 100: no step size.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    goal = objective(loss, weighting)
    annealed = isinstance(goal.loss, ExpectedFlips)
    return _apgd(replace(goal, track=CrossEntropy() if annealed else goal.loss), threat, settings, 100)


@ATTACKS.register("flip_apgd")
def flip_apgd(threat: Threat, settings: Settings, *, tau: float = 4.0, tau_end: float = 0.5) -> Guided:
    """Auto-PGD on expected flips (ours), T = 100: the adaptive step tracks cross-entropy, as τ moves.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        tau: τ at the start.
        tau_end: τ at the end.
    """
    return _apgd(Objective(ExpectedFlips(tau, tau_end), track=CrossEntropy()), threat, settings, 100)


@ATTACKS.register("sea")
def sea(threat: Threat, settings: Settings, *, class_weights: tuple[float, ...] | None = None) -> Guided:
    """SEA (Croce et al. 2024): red-ε Auto-PGD, T = 300, on masked CE, the same class-balanced, and Jensen–Shannon.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``steps`` are those of each loss.
        class_weights: One weight per class, as `segradius.weightings.balanced_weights` computes them; None balances
        each
            image by itself.
    """
    balanced = Product((StillCorrect(), ClassBalanced(class_weights)))
    members = {
        "mce": Objective(CrossEntropy(), StillCorrect(), track=CrossEntropy()),
        "mce_bal": Objective(CrossEntropy(), balanced, track=CrossEntropy()),
        "js": Objective(JensenShannon(), track=CrossEntropy()),
    }
    settings = replace(settings, start=settings.start or "uniform")
    return Ensemble({n: ShrinkingBudget(_apgd(o, threat, settings, 300)) for n, o in members.items()})


def _apgd(goal: Objective, threat: Threat, settings: Settings, steps: int) -> Iterative:
    step: Step = SparseApgd() if threat.norm.name == "l1" else Apgd()
    return settings.iterate(goal, threat, step, steps=steps)
