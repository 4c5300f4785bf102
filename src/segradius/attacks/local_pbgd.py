"""Bandit descent on per-pixel feedback (ours): every part of an image listens to the loss around it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from segradius.attacks.bandit import Averaged, Bandit
from segradius.attacks.begun import Begun
from segradius.attacks.footprint import check_spacing, measured, probe, tallied
from segradius.attacks.loop import Room, StepSize
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import QuerySettings, in_norm
from segradius.attacks.strategy import Question, Strategy, Turn
from segradius.core.declared import (
    Decay,
    DirectionsText,
    Inside,
    Length,
    LossName,
    OddSide,
    Range,
    Share,
    Side,
    WeightingName,
    Whole,
    check_fields,
)
from segradius.core.errors import InputError
from segradius.gradients.directions import parse_directions
from segradius.gradients.estimators import Pairs
from segradius.gradients.local import LocalTPGE, listen
from segradius.gradients.sphere import Sphere
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Listening:
    """A `Bandit` on `LocalTPGE` whose window is the footprint of the target at the image, found with four queries.

    Two rounds ask about the unchanged image and about three patterns of tiles that are far apart; the effect by
    distance gives the window. Then the bandit begins.

    Attributes:
        bandit: Its estimator must be a `LocalTPGE` with one sample; the estimator's own window is not used.
        share: Part of the effect that the window must hold, in (0, 1).
        tile: Side of the tiles that are changed.
        spacing: Their distance.
        size: How much they are changed.
    """

    feasible = False
    remembers = False
    per_round = 2

    bandit: Bandit
    share: Inside = 0.8
    tile: Side = 16
    spacing: Annotated[int, Range("[2, 1e5]")] = 112
    size: Share = 0.05

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.bandit.estimator, LocalTPGE) or self.bandit.estimator.samples != 1:
            raise InputError("window=auto is for per-pixel feedback with one sample a round")

    def begin(self, room: Room) -> dict[str, Any]:
        """The bandit's state, and nothing known of the footprint."""
        images = room.task.images
        spacing, tile = self._layout(images)
        check_spacing(spacing, tile, images.shape)
        tally = images.new_zeros(len(images), 2, spacing // 2)
        return {**self.bandit.begin(room), "clean": None, "tally": tally}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """Patterns of tiles in the first two rounds."""
        if turn.round > 1:
            return self.bandit.ask(state, room, turn)
        images, keys = room.task.images, room.task.randomness
        spacing, tile = self._layout(images)
        patterns = range(1) if turn.round == 0 else range(1, 3)
        found = [probe(images, keys, n, tile, spacing, self.size) for n in patterns]
        points = [room.task.coordinates(change) for change, _ in found]
        if turn.round == 0:
            points.insert(0, torch.zeros_like(images))
        return Question(torch.stack(points), [distance for _, distance in found])

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Add up effects; then estimate with the window that they give, and step."""
        if turn.round > 1:
            estimator = self.bandit.estimator
            assert isinstance(estimator, LocalTPGE)
            reach = measured(state["tally"]).reach(self.share)
            gradient = listen(losses * weights, asked.memo, estimator.gamma, reach)
            return {**state, **self.bandit.move(state, room, turn, gradient, losses)}
        clean = losses[0] if turn.round == 0 else state["clean"]
        changed = losses[1:] if turn.round == 0 else losses
        tally = state["tally"]
        for found, distance in zip(changed, asked.memo, strict=True):
            tally = tally + tallied((found - clean).abs(), distance, room.task.goal.counted, tally.shape[-1])
        return {**state, "clean": clean if turn.round == 0 else None, "tally": tally}

    def _layout(self, images: Tensor) -> tuple[int, int]:
        """Spacing and tile, smaller in images that are too small for them."""
        spacing = min(self.spacing, 2 * min(images.shape[2:]))
        return spacing, max(1, min(self.tile, spacing // 4))


@black_box("local_pbgd", guidance={"samples": 0})
def local_pbgd(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: Length | None = None,
    alpha: Length | None = None,
    alpha_end: Share = 0.1,
    momentum: Decay = 0.8,
    restart: Inside | None = None,
    directions: DirectionsText | None = None,
    window: OddSide | Literal["auto"] = 33,
    samples_per_round: Pairs = 1,
    patterns: Whole = 0,
    loss: LossName = "flips",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Bandit descent on per-pixel feedback: each part of the image listens to the loss around it alone (ours).

    Args:
        gamma: Radius γ of the sphere, in the norm of the threat; None is 20 % of ε (l∞: 50 %).
        alpha: Step length at the start; None is 8 % of ε (l∞: 20 %).
        alpha_end: Part of it that is left at the end; it falls linearly.
        momentum: Decay of the running mean of the estimates.
        restart: Part of the budget after which that mean is forgotten and α falls a second time; None for never.
        directions: As for ``pbgd``; None is ``dct:1/16`` for l2, else ``shifted_tiles:16``.
        window: Side of the window in pixels, odd, or ``auto`` to measure it for each image with the first four queries.
        samples_per_round: Pairs of queries of a round.
        patterns: Stripes that are asked about first; it begins at the mosaic of the best parts of them.
        loss: Name of the loss; ``flips``, a smooth count of flipped pixels, is annealed over the budget.
    """
    far, fast = (0.5, 0.2) if threat.norm.name == "linf" else (0.2, 0.08)
    own = "dct:1/16" if threat.norm.name == "l2" else "shifted_tiles:16"
    sphere = Sphere(threat.norm, parse_directions(own if directions is None else directions))
    side = 1 if window == "auto" else window
    estimator = LocalTPGE(in_norm(gamma, threat, far), sphere, samples_per_round, side)
    bandit = Bandit(estimator, Averaged(StepSize(in_norm(alpha, threat, fast)), momentum, alpha_end, restart))
    if patterns and window == "auto":
        raise InputError("patterns and window=auto both take the first queries: give one of the two")
    strategy: Strategy = Begun(bandit, patterns, side) if patterns else bandit
    strategy = Listening(bandit) if window == "auto" else strategy
    return settings.queried(threat, strategy, loss, weighting, 1000)
