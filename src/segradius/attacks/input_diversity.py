"""Input diversity: the model is shown a smaller image somewhere on a black ground, and its answer is brought back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows)
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room, observe
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Momentum
from segradius.attacks.settings import Settings
from segradius.core.contracts import LOGITS
from segradius.core.declared import LossName, Part, Share, Weight, WeightingName, check_fields
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.objectives.objective import Objective, objective
from segradius.threats.threat import Threat


class Place(NamedTuple):
    """Where an image lies on the ground, in pixels.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    def put(self, image: Tensor) -> Tensor:
        """The image (B, H, W), resized bilinearly to this place of a black ground of its size."""
        height, width = image.shape[-2:]
        below, right = height - self.top - self.height, width - self.left - self.width
        return F.pad(_resized(image, self.height, self.width), (self.left, right, self.top, below))

    def taken(self, maps: Tensor) -> Tensor:
        """What maps (C, H, W) have at this place, resized bilinearly to their size: the way back of `put`."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        return _resized(maps[:, rows, columns], *maps.shape[-2:])


@dataclass(frozen=True)
class Diverse:
    """DI² (Xie et al. 2019), for dense answers: a random size and place in each step, drawn for each image by itself.

    With probability ``chance`` an image is shown ``shrink`` to 1 times as large, both sides alike, at a random place
    of a black ground of its size. A network that looks at surroundings answers otherwise there, and what moves all
    these answers is less peculiar to it. The logits at that place are brought back to the image's size, so that each
    pixel has its own label, weight and loss, and no label is resized. (Public code for segmentation keeps the labels
    where they were, up to a tenth of the image beside what is shown.)

    Noisy passes of a radius are made on the image as it is.

    Attributes:
        shrink: Least size, as a share of each side; the largest is the side itself.
        chance: Probability p of a transform.
    """

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})
    judges: ClassVar[bool] = False

    shrink: Share = 0.9
    chance: Part = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def observe(
        self, objective: Objective, room: Room, delta: Tensor, step: int, state: Any, ledger: Ledger
    ) -> tuple[Observation, Tensor, Tensor, Any]:
        """The function `observe`, through the transform of this step."""
        height, width = delta.shape[-2:]
        places = self.places(room.task.randomness, step, height, width)
        return observe(objective, room, delta, step, state, ledger, partial(_through, places))

    def places(self, randomness: Randomness, step: int, height: int, width: int) -> list[Place | None]:
        """Where each image is shown in a step; None where it is shown as it is.

        Args:
            randomness: Keys of the images.
            step: The step's index.
            height: Of the images, in pixels.
            width: Likewise.
        """
        drawn = randomness.uniform((4,), "input diversity", step, dtype=torch.float64).tolist()
        return [self._place(numbers, height, width) for numbers in drawn]

    def _place(self, drawn: list[float], height: int, width: int) -> Place | None:
        luck, size, down, aside = drawn
        if luck >= self.chance:
            return None
        share = self.shrink + (1 - self.shrink) * size
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        return Place(int(down * (height - rows + 1)), int(aside * (width - columns + 1)), rows, columns)


def _through(places: list[Place | None], logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    shown = [image if at is None else at.put(image) for at, image in zip(places, images, strict=True)]
    found = zip(places, logits(torch.stack(shown)), strict=True)
    return torch.stack([maps if at is None else at.taken(maps) for at, maps in found])


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(image.unsqueeze(0), size=(height, width), mode="bilinear", align_corners=False).squeeze(0)


@white_box("di_fgsm", fixed=("sparse",))
def di_fgsm(
    threat: Threat,
    settings: Settings,
    *,
    shrink: Share = 0.9,
    chance: Part = 0.5,
    decay: Weight = 1.0,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """M-DI²-FGSM (Xie et al. 2019), α = ε/T: momentum, and each step through a random size and place of the image.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        shrink: Least size of the image, as a share of its sides.
        chance: Probability p of a transform in a step.
        decay: Momentum μ; 0 for DI²-FGSM.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    step = Momentum(settings.size(threat.norm.name, 1.0), decay)
    return settings.iterate(objective(loss, weighting), threat, step, look=Diverse(shrink, chance))
