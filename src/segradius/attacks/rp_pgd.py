"""RP-PGD: regions of pixels with a memory, and the mean features of classes drawn towards one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows)
from torch import Tensor

from segradius.attacks.base import Method, Untargeted
from segradius.attacks.fspgd import LayerName, passed
from segradius.attacks.loop import Look, Observation, Room, Straight, gradient_in, see
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Steepest
from segradius.attacks.settings import PAPER_STEPS, Settings
from segradius.core.contracts import FEATURES, LOGITS
from segradius.core.declared import Inside, LossName, Range, check_fields, only_with
from segradius.core.ledger import Ledger
from segradius.objectives.objective import Objective, objective
from segradius.objectives.region import Region
from segradius.objectives.weightings import times
from segradius.threats.threat import Threat

Prototype = Annotated[float, Range("[0, 1)")]
PrototypeLayer = Annotated[LayerName, only_with(prototype=Range("(0, 1)"))]


@dataclass(frozen=True)
class Prototypes(Untargeted):
    """RP-PGD's objective, (1 − π)·L + π·P: L that of the logits, P how alike the classes' mean features are.

    P is the mean, over pairs of classes of an image, of the cosine between their prototypes: the mean feature of a
    layer over the pixels of a class that no iterate so far has fooled. A pixel has the feature of the place that it
    lies in. With fewer than two such classes P is 0. Of several networks P is the mean.

    Attributes:
        share: π in (0, 1).
        layer: Name of the layer; empty for the one in the middle.
    """

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS, FEATURES})
    judges: ClassVar[bool] = True

    share: Inside = 0.25
    layer: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    def observe(
        self, objective: Objective, room: Room, delta: Tensor, step: int, state: Any, ledger: Ledger
    ) -> tuple[Observation, Tensor, Tensor, Any]:
        """One forward and one backward pass, the layer being watched."""
        task, maps = room.task, list[Tensor]()

        def watched(logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
            # Of the network itself: a cheaper form of it may have no such layer.
            found, kept = passed(task, images, self.layer)
            maps.extend(kept)
            return found

        sight = see(room, task.seen(delta), step, ledger, watched)
        view, goal = sight.view, task.goal
        unfooled, inner = (goal.counted, None) if state is None else state
        unfooled = unfooled & view.pending()
        weights, inner = objective.weighting.weigh(view, inner)
        alike = torch.stack([similarity(each, goal.reference, unfooled, view.num_classes) for each in maps]).mean(0)
        # Measured in steps that compare iterates alone; the gradient is that of the two together.
        losses = (
            objective.loss(view.logits, goal.reference, view.progress) if room.compares else torch.zeros_like(weights)
        )
        value = (1 - self.share) * goal.mean(losses * weights) + self.share * alike.detach()
        pull = goal.pull(weights) * (1 - self.share)
        sight.slopes.append(objective.loss.slope(view.logits, goal.reference, pull, view.progress))
        gradient = gradient_in(room, sight.images, sight.turn + self.share * alike.sum(), ledger)
        seen = Observation(delta, gradient, value, step, sight.prediction)
        return seen, sight.prediction, sight.finite & torch.isfinite(value), (unfooled, inner)


def similarity(maps: Tensor, labels: Tensor, among: Tensor, classes: int) -> Tensor:
    """Mean cosine of the classes' mean features over pairs of classes, (N,); 0 where there is no pair.

    Args:
        maps: (N, F, h, w) features, with their graph.
        labels: (N, H, W) int64 class of each pixel.
        among: (N, H, W) bool: the pixels that count.
        classes: Number of classes C.

    Example:
        >>> maps = torch.tensor([[3.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)  # two places, at right angles
        >>> labels = torch.tensor([[[0, 0, 1, 1]]])
        >>> similarity(maps, labels, labels >= 0, 2), similarity(maps, labels % 1, labels >= 0, 2)
        (tensor([0.]), tensor([0.]))
    """
    images, places = len(maps), maps.shape[-2] * maps.shape[-1]
    rows, columns = (
        torch.arange(side, device=maps.device) * small // side
        for side, small in zip(labels.shape[-2:], maps.shape[-2:], strict=True)
    )
    place = (rows.unsqueeze(1) * maps.shape[-1] + columns).flatten()
    table = maps.new_zeros(images, classes * places)
    table.scatter_add_(1, labels.flatten(1) * places + place, among.flatten(1).to(maps.dtype))
    table = table.view(images, classes, places)
    counts = table.sum(2, keepdim=True)
    prototypes = torch.bmm(table / counts.clamp_min(1), maps.flatten(2).transpose(1, 2))
    total = F.normalize(prototypes, dim=2).sum(1)
    present = (counts > 0).sum((1, 2)).to(maps.dtype)
    pairs = present * (present - 1)
    # ‖Σ u‖² is the number of unit vectors and every pair of them, twice.
    return torch.where(pairs > 0, (total.square().sum(1) - present) / pairs.clamp_min(1), 0.0)


@white_box("rp_pgd")
def rp_pgd(
    threat: Threat,
    settings: Settings,
    *,
    prototype: Prototype = 0.25,
    layer: PrototypeLayer = "",
    loss: LossName = "ce",
) -> Method:
    """RP-PGD (AAAI 2025): PGD on three regions of pixels with a memory, and on the likeness of the classes' features.

    Args:
        threat: Ball and box.
        settings: Shared settings; α is ε/3 whatever T is, as the authors' 0.01 for ε = 0.03, and the start is uniform.
        prototype: Share of the features' likeness in the objective; 0 leaves it out, and needs no features.
        layer: Name of the layer whose features are meant, as "layer4"; empty for the block in the middle of the
            network's convolutions.
        loss: Name of the loss on the regions.
    """
    norm = threat.norm.name
    count = PAPER_STEPS[norm] if settings.steps is None else settings.steps
    step = Steepest(settings.size(norm, count / 3), settings.sparse)
    look: Look = Prototypes(prototype, layer) if prototype else Straight()
    goal = objective(loss)
    goal = Objective(goal.loss, times(Region(), goal.weighting))
    return settings.iterate(goal, threat, step, look=look, start="uniform")
