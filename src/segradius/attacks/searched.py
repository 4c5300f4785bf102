"""Black-box attacks that try a change and keep it if the loss rose: SimBA and Square."""

from __future__ import annotations

from segradius.attacks.black_box import BLACK_BOX, PAPER_QUERIES, QuerySettings
from segradius.attacks.moves import MOVES
from segradius.attacks.queries import Queried
from segradius.attacks.simba import Simba
from segradius.attacks.square import Square
from segradius.errors import InputError
from segradius.gradients import parse_directions
from segradius.threats import Threat


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
