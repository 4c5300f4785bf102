"""Black-box attacks that climb an estimated gradient: the paper's PBGD and those it is compared with."""

from __future__ import annotations

from typing import Literal

from segradius.attacks.bandit import Bandit
from segradius.attacks.black_box import BLACK_BOX, PAPER_ALPHA, PAPER_QUERIES, QuerySettings, in_norm
from segradius.attacks.loop import Step
from segradius.attacks.queries import Queried
from segradius.attacks.steps import Ascent, Averaged, StepSize
from segradius.errors import unknown_name
from segradius.gradients import NES, OPGE, TPGE, ZOO, Sphere, parse_directions
from segradius.threats import Threat


@BLACK_BOX.register("pbgd")
def pbgd(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: float | None = None,
    alpha: float | None = None,
    step: Literal["ascent", "steepest"] = "ascent",
    momentum: float = 0.0,
    directions: str = "pixel",
    samples_per_round: int = 1,
    loss: str = "ce",
    weighting: str = "uniform",
) -> Queried:
    """Projected bandit gradient descent (Algorithm 2): ascent along the two-point estimate (Eq. 16, 17).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        gamma: Radius γ of the sphere, in the norm of the threat; None is 2 % of ε.
        alpha: Learning rate; None is the paper's 5e-4 for ``ascent``, and 2 % of ε for ``steepest``.
        step: ``ascent`` along the estimate as it is, as the paper, or ``steepest`` by a fixed length.
        momentum: Decay of the running mean of the estimates, for ``steepest``.
        directions: ``pixel``; ``tiles:S`` or ``shifted_tiles:S`` for squares of S pixels (the published code has
            ``tiles:2``); ``dct:F`` for the lowest part F of the frequencies.
        samples_per_round: Pairs of queries of a round, whose estimates are averaged.
        loss: Name of the loss.
        weighting: Name of the weighting, or a product such as ``cr*still_correct``.
    """
    sphere = Sphere(threat.norm, parse_directions(directions))
    estimator = TPGE(in_norm(gamma, threat, 0.02), sphere, samples_per_round)
    bandit = Bandit(estimator, _step(step, alpha, momentum, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


@BLACK_BOX.register("opge")
def opge(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: float | None = None,
    alpha: float | None = None,
    momentum: float = 0.0,
    directions: str = "pixel",
    loss: str = "ce",
    weighting: str = "uniform",
) -> Queried:
    """Steepest ascent along the one-point estimate (Eq. 15), the paper's comparison.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        gamma: Radius γ of the sphere; None is 2 % of ε.
        alpha: Step length; None is 2 % of ε.
        momentum: Decay of the running mean of the estimates.
        directions: As for ``pbgd``.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    sphere = Sphere(threat.norm, parse_directions(directions))
    bandit = Bandit(OPGE(in_norm(gamma, threat, 0.02), sphere), _step("steepest", alpha, momentum, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


@BLACK_BOX.register("nes")
def nes(
    threat: Threat,
    settings: QuerySettings,
    *,
    sigma_nes: float = 0.001,
    population: int = 100,
    alpha: float | None = None,
    momentum: float = 0.0,
    directions: str = "pixel",
    loss: str = "ce",
    weighting: str = "uniform",
) -> Queried:
    """Steepest ascent along natural evolution strategies (Ilyas et al. 2018), antithetic.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        sigma_nes: Standard deviation of the search, in the unit of the images.
        population: Queries of a round, even; the paper's 100.
        alpha: Step length; None is 2 % of ε.
        momentum: Decay of the running mean of the estimates.
        directions: As for ``pbgd``.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    estimator = NES(sigma=sigma_nes, population=population, directions=parse_directions(directions))
    bandit = Bandit(estimator, _step("steepest", alpha, momentum, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


@BLACK_BOX.register("zoo")
def zoo(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: float = 0.01,
    coordinates: int = 64,
    alpha: float | None = None,
    momentum: float = 0.0,
    directions: str = "pixel",
    loss: str = "ce",
    weighting: str = "uniform",
) -> Queried:
    """Steepest ascent along central differences at random coordinates (ZOO, Eq. 13).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        gamma: Step of the difference, in the unit of the images.
        coordinates: Coordinates of a round, two queries each.
        alpha: Step length; None is 2 % of ε.
        momentum: Decay of the running mean of the estimates.
        directions: As for ``pbgd``; the coordinates are theirs.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    estimator = ZOO(gamma=gamma, coordinates=coordinates, directions=parse_directions(directions))
    bandit = Bandit(estimator, _step("steepest", alpha, momentum, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


def _step(step: str, alpha: float | None, momentum: float, threat: Threat) -> Step:
    if step == "ascent":
        return Ascent(PAPER_ALPHA if alpha is None else alpha)
    if step == "steepest":
        return Averaged(StepSize(in_norm(alpha, threat, 0.02)), momentum)
    raise unknown_name("step", step, ("ascent", "steepest"))
