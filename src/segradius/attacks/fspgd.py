"""FSPGD: features of a middle layer are moved away from the clean ones, and apart where those were alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows)
from torch import Tensor

from segradius.attacks.base import Method, Task, Untargeted
from segradius.attacks.incumbent import is_finite
from segradius.attacks.loop import Observation, Room, check_output, gradient_in
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Steepest
from segradius.attacks.settings import PAPER_ALPHA, Settings
from segradius.core.contracts import FEATURES, LOGITS
from segradius.core.declared import Range, See, WeightingName, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.objectives.objective import Objective, objective
from segradius.objectives.view import LogitView
from segradius.threats.threat import Threat

#: Entries of the table of pairs that are held at once.
_ENTRIES = 1 << 22

Angle = Annotated[float, Range("(0, 180)")]
LayerName = Annotated[str, See("docs/attacks.md")]


@dataclass(frozen=True)
class Features(Untargeted):
    """FSPGD's loss (arXiv 2502.01262), −λ·same − (1 − λ)·alike, λ = t/T, of unit features f at each place of a layer.

    *same* is the mean over places of the cosine between f and the clean feature there; *alike* half the mean of f_i·f_j
    over the pairs of places whose clean features are less than ``angle`` apart. No label is looked at. A place counts
    by the mean weight of its pixels, pixels that do not count having none; in public code all do. Layers of several
    networks count alike.

    The loss is that of the features alone: an objective's loss has no part in it, its weighting has.

    Attributes:
        layer: Name of the layer; empty for the one in the middle.
        angle: Of clean features that are a pair, in degrees.
    """

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS, FEATURES})
    judges: ClassVar[bool] = True

    layer: str = ""
    angle: Angle = 60.0

    def __post_init__(self) -> None:
        check_fields(self)

    def observe(
        self, objective: Objective, room: Room, delta: Tensor, step: int, state: Any, ledger: Ledger
    ) -> tuple[Observation, Tensor, Tensor, Any]:
        """One forward pass, and one backward pass from the layer; in the first step another forward pass at x."""
        task, model = room.task, room.task.model
        if state is None:
            with torch.no_grad():
                state = passed(task, task.images.clone(), self.layer)[1], None
            ledger.enter("attack", forward=1)
        clean, weights_state = state
        images = task.seen(delta).requires_grad_()
        logits, maps = passed(task, images, self.layer)
        check_output(task, logits)
        ledger.enter("attack", forward=1)
        fixed = logits.detach()
        del logits
        top, prediction = predict(fixed)
        view = LogitView(
            fixed, prediction, task.goal, images.detach(), step, room.steps, model, task.randomness, ledger
        )
        weights, weights_state = objective.weighting.weigh(view, weights_state)
        weights = weights.masked_fill(~task.goal.counted, 0)
        share = step / room.steps
        loss = sum(similarity_loss(*pair, weights, share, self.angle) for pair in zip(clean, maps, strict=True))
        assert isinstance(loss, Tensor)
        value = loss.detach()
        gradient = gradient_in(room, images, loss.sum(), ledger)
        finite = is_finite(top) & torch.isfinite(value)
        return Observation(delta, gradient, value, step, prediction), prediction, finite, (clean, weights_state)


def passed(task: Task[Any], images: Tensor, layer: str) -> tuple[Tensor, list[Tensor]]:
    """One forward pass of a task's model with a layer being watched, which the caller enters in the ledger.

    Args:
        task: Whose model offers features.
        images: (N, B, H, W).
        layer: Name of the layer; empty for the one in the middle, or one of each of several networks.

    Returns:
        The logits, and the maps (N, F, h, w), both with their graph.

    Raises:
        InputError: The layer sees images in parts.
    """
    with task.model.watching(layer) as maps:
        logits = task.model.logits(images)
    for one in maps:
        if len(one) != len(images):
            raise InputError(
                f"the watched layer gives {len(one)} maps for {len(images)} images, as it sees them in parts; "
                "expected a layer that sees every image once"
            )
    return logits, [one.to(images.dtype) for one in maps]


def similarity_loss(clean: Tensor, maps: Tensor, weights: Tensor, share: float, angle: float) -> Tensor:
    """FSPGD's loss of each image, to be raised; see `Features`.

    Args:
        clean: (N, C, h, w) features of the clean images.
        maps: (N, C, h, w) features at the iterate, with their graph.
        weights: (N, H, W) weights of the pixels.
        share: λ in [0, 1].
        angle: In degrees.

    Returns:
        (N,).
    """
    places = F.adaptive_avg_pool2d(weights.unsqueeze(1).to(maps.dtype), (maps.shape[2], maps.shape[3])).flatten(1)
    before, now = (F.normalize(each, dim=1).flatten(2) for each in (clean.detach(), maps))
    same = ((before * now).sum(1) * places).sum(1) / _at_least(places.sum(1))
    return -share * same - (1 - share) * _alike(before, now, places, math.cos(math.radians(angle)))


def _alike(before: Tensor, now: Tensor, places: Tensor, least: float) -> Tensor:
    """Half the mean of f_i·f_j over pairs, (N,), some rows of the table of pairs at a time, none of which is kept."""
    images, _, count = now.shape
    fixed, rows = now.detach(), max(1, _ENTRIES // (images * count))
    pulls, total = torch.empty_like(fixed), places.new_zeros(images)
    for first in range(0, count, rows):
        here = slice(first, first + rows)
        table = (before[..., here].transpose(1, 2) @ before > least).to(now.dtype)
        table.diagonal(first, 1, 2).zero_()
        table = table * places[:, here, None] * places[:, None]
        total += table.sum((1, 2))
        pulls[..., here] = fixed @ table.transpose(1, 2)
    total = _at_least(total)
    # The table is symmetric, so that the slope of ½ Σ_ij W_ij f_i·f_j is W f; its value is half of that of (W f)·f.
    halved = (now * pulls).sum((1, 2)) / total
    return halved - halved.detach() / 2


def _at_least(total: Tensor) -> Tensor:
    return total.clamp_min(torch.finfo(total.dtype).tiny)


@white_box("fspgd")
def fspgd(
    threat: Threat,
    settings: Settings,
    *,
    layer: LayerName = "",
    angle: Angle = 60.0,
    weighting: WeightingName = "uniform",
) -> Method:
    """FSPGD (arXiv 2502.01262): PGD on the similarity of a middle layer's features, made to transfer; uniform start.

    Args:
        threat: Ball and box.
        settings: Shared settings; α is 1.5ε/T for l∞, as the authors' 0.01 for ε = 0.03 and T = 20 in normalised units.
        layer: Name of the layer, as "layer3.1"; empty for the block in the middle of the network's convolutions.
        angle: Places whose clean features are less than that apart, in degrees, are a pair to be parted.
        weighting: Name of the weighting, of which a place has the mean over its pixels.
    """
    norm = threat.norm.name
    step = Steepest(settings.size(norm, 1.5 if norm == "linf" else PAPER_ALPHA[norm]), settings.sparse)
    return settings.iterate(objective("ce", weighting), threat, step, look=Features(layer, angle), start="uniform")
