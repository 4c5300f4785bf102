"""Black-box attacks on per-pixel feedback (ours): every part of an image listens to the loss around it alone."""

from __future__ import annotations

from typing import Literal

from segradius.attacks.bandit import Bandit
from segradius.attacks.black_box import BLACK_BOX, QuerySettings, in_norm
from segradius.attacks.listening import Listening
from segradius.attacks.queries import Queried
from segradius.attacks.regions import LocalSearch
from segradius.attacks.steps import Averaged, StepSize
from segradius.gradients import LocalTPGE, Sphere, parse_directions
from segradius.threats import Threat


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
    estimator = LocalTPGE(in_norm(gamma, threat, far), 1 if window == "auto" else window, sphere, samples_per_round)
    bandit = Bandit(estimator, Averaged(StepSize(in_norm(alpha, threat, fast)), momentum, alpha_end, restart))
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
