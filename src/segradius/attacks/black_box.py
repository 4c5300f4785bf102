"""Every black-box attack by name: which estimator or search, step and budget make it.

A recipe is a function ``(threat, settings, **options) -> method``, as a white-box one is; settings differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segradius.attacks.bandit import Bandit
from segradius.attacks.listening import Listening
from segradius.attacks.loop import Step
from segradius.attacks.moves import MOVES
from segradius.attacks.queries import Queried, Strategy
from segradius.attacks.recipes import objective
from segradius.attacks.regions import LocalSearch
from segradius.attacks.simba import Simba
from segradius.attacks.square import Square
from segradius.attacks.steps import Ascent, Averaged, StepSize
from segradius.errors import InputError, unknown_name
from segradius.gradients import DIRECTIONS, NES, OPGE, TPGE, ZOO, Directions, LocalTPGE, Sphere
from segradius.registry import Registry
from segradius.threats import Threat

#: The paper's budgets ε for black-box attacks by norm (Section 5.1).
PAPER_EPS: Mapping[str, float] = {"l1": 10000.0, "l2": 10.0, "linf": 0.05}

#: The paper's learning rate α, and T = 15,000 rounds of two queries (Section 5.1) with a last one that judges.
PAPER_ALPHA = 5e-4
PAPER_QUERIES = 30_001


@dataclass(frozen=True)
class QuerySettings:
    """What every black-box recipe understands.

    Args:
        queries: Budget of each image, everything included; None is the recipe's own, the paper's 30,000 for pbgd.
        keep: ``best`` iterate, or queried point inside the ball, by fooled pixels, or the ``last`` iterate.
        judge_every: Rounds between verdicts on the iterate, one query each; 0 judges the last one only.
        memory: What remains per round of the running mean of the scores behind still-correct and radius weights.
        marks: Query counts within which the iterate is judged too, for a curve of accuracy against queries.
    """

    queries: int | None = None
    keep: Literal["best", "last"] = "best"
    judge_every: int = 0
    memory: float = 0.7
    marks: tuple[int, ...] = ()

    def queried(self, threat: Threat, strategy: Strategy, loss: str, weighting: str, queries: int) -> Queried:
        """A black-box attack with these settings; ``queries`` is the recipe's own default."""
        count = queries if self.queries is None else self.queries
        marks = tuple(self.marks)
        return Queried(
            objective(loss, weighting), threat, strategy, count, self.memory, self.keep, self.judge_every, marks
        )


BLACK_BOX: Registry[Callable[..., Queried]] = Registry("black-box attack")

#: Settings that a black-box attack determines by itself.
FIXED: Mapping[str, frozenset[str]] = {}

#: How ``cr_`` guides an attack where nothing else is said: the paper's attacks by M = 8 noisy queries every 2M rounds,
#: ours by the running mean of the scores that were paid for anyway.
GUIDANCE: Mapping[str, Mapping[str, Any]] = {
    "local_pbgd": {"samples": 0},
    "local_search": {"samples": 0},
}


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
    estimator = TPGE(_length(gamma, threat, 0.02), sphere, samples_per_round)
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
    bandit = Bandit(OPGE(_length(gamma, threat, 0.02), sphere), _step("steepest", alpha, momentum, threat))
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


@BLACK_BOX.register("local_pbgd")
def local_pbgd(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: float | None = None,
    alpha: float | None = None,
    alpha_end: float = 0.1,
    momentum: float = 0.8,
    restart: float | None = None,
    directions: str | None = None,
    window: int | Literal["auto"] = 33,
    samples_per_round: int = 1,
    loss: str = "flips",
    weighting: str = "uniform",
) -> Queried:
    """Bandit descent on per-pixel feedback: each part of the image listens to the loss around it alone (ours).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        gamma: Radius γ of the sphere, in the norm of the threat; None is 20 % of ε (l∞: 50 %).
        alpha: Step length at the start; None is 8 % of ε (l∞: 20 %).
        alpha_end: Part of it that is left at the end; it falls linearly.
        momentum: Decay of the running mean of the estimates.
        restart: Part of the budget after which that mean is forgotten and α falls a second time; None for never.
        directions: As for ``pbgd``; None is ``dct:1/16`` for l2, else ``shifted_tiles:16``.
        window: Side of the window in pixels, odd, or ``auto`` to measure it for each image with the first four queries.
        samples_per_round: Pairs of queries of a round.
        loss: Name of the loss; ``flips``, a smooth count of flipped pixels, is annealed over the budget.
        weighting: Name of the weighting.
    """
    far, fast = (0.5, 0.2) if threat.norm.name == "linf" else (0.2, 0.08)
    own = "dct:1/16" if threat.norm.name == "l2" else "shifted_tiles:16"
    sphere = Sphere(threat.norm, parse_directions(own if directions is None else directions))
    estimator = LocalTPGE(_length(gamma, threat, far), 1 if window == "auto" else window, sphere, samples_per_round)
    bandit = Bandit(estimator, Averaged(StepSize(_length(alpha, threat, fast)), momentum, alpha_end, restart))
    strategy = Listening(bandit) if window == "auto" else bandit
    return settings.queried(threat, strategy, loss, weighting, 1000)


@BLACK_BOX.register("local_search")
def local_search(
    threat: Threat,
    settings: QuerySettings,
    *,
    tile: int = 16,
    window: int = 49,
    share: float = 0.1,
    refresh: int = 0,
    loss: str = "margin",
    weighting: str = "uniform",
) -> Queried:
    """Random search that decides region by region, by the loss around each (ours); one query a round, no step size.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        tile: Side of a tile in pixels.
        window: Side of the window in pixels that decides, odd.
        share: Part of the tiles that propose in a round.
        refresh: Rounds between queries of the iterate itself; 0 for never.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    return settings.queried(threat, LocalSearch(tile, window, share, refresh), loss, weighting, 1000)


@BLACK_BOX.register("simba")
def simba(
    threat: Threat,
    settings: QuerySettings,
    *,
    alpha: float | None = None,
    directions: str = "dct:1/8",
    loss: str = "ce",
    weighting: str = "uniform",
) -> Queried:
    """SimBA (Guo et al. 2019): one direction of a basis after another, kept if the loss rises.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        alpha: Length of a step, in l2; None is 0.5, for l∞ 1.
        directions: The basis: ``dct:F`` for the lowest part F of the frequencies, or ``pixel``.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    own = {"l1": 0.5, "l2": 0.5, "linf": 1.0}[threat.norm.name]
    return settings.queried(
        threat, Simba(own if alpha is None else alpha, parse_directions(directions)), loss, weighting, PAPER_QUERIES
    )


@BLACK_BOX.register("square")
def square(
    threat: Threat,
    settings: QuerySettings,
    *,
    p_init: float = 0.1,
    loss: str = "margin",
    weighting: str = "uniform",
) -> Queried:
    """Square attack (Andriushchenko et al. 2020), l2 and l∞: one square drawn anew, kept if the loss rises.

    Args:
        threat: An l2 or l∞ ball.
        settings: Shared settings.
        p_init: Share of the pixels that the first squares cover.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
        weighting: Name of the weighting.

    Raises:
        InputError: For l1.
    """
    if threat.norm.name not in MOVES:
        raise InputError(f"square is defined for l2 and linf, got {threat.norm.name}: choose simba or local_search")
    return settings.queried(threat, Square(MOVES[threat.norm.name], p_init), loss, weighting, PAPER_QUERIES)


def parse_directions(text: str) -> Directions:
    """Directions from ``"pixel"``, ``"tiles:16"``, ``"shifted_tiles:16"`` or ``"dct:0.125"``.

    Raises:
        InputError: For an unknown name or a number that does not fit.

    Example:
        >>> parse_directions("tiles:2"), parse_directions("dct:1/8")
        (Tiles(side=2), Dct(fraction=0.125))
    """
    name, colon, number = text.partition(":")
    if name not in DIRECTIONS:
        raise unknown_name("set of directions", name, DIRECTIONS)
    kind: Callable[..., Directions] = DIRECTIONS[name]
    if not colon:
        return kind()
    numerator, slash, denominator = number.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1.0)
        return kind(int(value) if value.is_integer() and name != "dct" else value)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        expected = "pixel, tiles:16, shifted_tiles:16 or dct:1/8"
        raise InputError(f"directions {text!r}: {error}; expected {expected}") from error


def _length(given: float | None, threat: Threat, share: float) -> float:
    """A length in the norm of the threat: as given, or a share of ε (of the paper's, for one ε an image or none)."""
    if given is not None:
        return given
    single = isinstance(threat.eps, float) and threat.eps != float("inf")
    return share * (threat.eps if single else PAPER_EPS[threat.norm.name])  # type: ignore[operator]


def _step(step: str, alpha: float | None, momentum: float, threat: Threat) -> Step:
    if step == "ascent":
        return Ascent(PAPER_ALPHA if alpha is None else alpha)
    if step == "steepest":
        return Averaged(StepSize(_length(alpha, threat, 0.02)), momentum)
    raise unknown_name("step", step, ("ascent", "steepest"))
