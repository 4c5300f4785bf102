"""A look at two images beside a run: is the gradient one, and does an attack that may do anything leave anything?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from segradius.attacks.base import Task
from segradius.attacks.loop import Observation, Room, Sight, StepSize, ascend, is_zero, see
from segradius.attacks.pgd import Steepest
from segradius.core.border import at_border, in_a_line, is_out_of_memory, release
from segradius.core.contracts import Model
from segradius.core.errors import SegradiusError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample, SegmentationData
from segradius.data.usable import usable_samples
from segradius.models.holding import kept
from segradius.models.segmenter import Segmenter
from segradius.objectives.goal import Goal
from segradius.objectives.losses import CrossEntropy
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import StillCorrect
from segradius.threats.threat import make_threat

#: Images looked at, of the first so many; and what its passes are called in a report.
IMAGES, FIRST, PURPOSE = 2, 8, "checks"
#: Steps of PGD in the whole box, which is l∞ with an ε of nearly 1.
STEPS, WHOLE = 8, 1 - 2**-12
#: Lengths in l∞ of the changes by which derivatives and steps in the answers are told: a 128th of a grey level, an
#: eighth, and one between for the derivative.
TINY, SMALL, BETWEEN = 2.0**-15, 2.0**-11, 2.0**-13
#: Of the pixels, what is as good as nothing: PGD goes no further.
NOTHING = 0.01
#: How many times rounding a difference must be to tell anything.
LOUD = 32.0


@dataclass(frozen=True)
class Probed:
    """What two images show; a figure for each image, NaN where it cannot be told.

    Attributes:
        images: Their ids.
        right: Share of the labelled pixels that are right.
        left: Share that PGD in the whole box leaves right, at its best iterate.
        risen: By how much the mean cross-entropy is higher at its highest than at the start.
        still: Images at which every gradient of PGD was exactly zero though pixels were left.
        broken: Images at which one had a NaN or an infinity.
        slope: What the loss rises by along the sign of the gradient, over what the gradient says: 1.
        across: What the gradient misses of the loss's change in a random direction, over the length of the gradient: 0.
        ratio: How much a change by `TINY` moves the logits for its length, over how much one by `SMALL` does: 1.
        even: What two opposite changes by `TINY` have in common, over what they differ by: 0.
        mixed: By how much logits differ when another image is in the batch, as a share of the largest.
        forward: Passes for all this, over all the images.
        backward: Likewise.
        dtype: Of the network's numbers.
        failed: Why it was not looked at, or not at all of it.
        asked: Ids of the images that were to be looked at.
    """

    images: tuple[str, ...] = ()
    right: tuple[float, ...] = ()
    left: tuple[float, ...] = ()
    risen: tuple[float, ...] = ()
    still: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    slope: tuple[float, ...] = ()
    across: tuple[float, ...] = ()
    ratio: tuple[float, ...] = ()
    even: tuple[float, ...] = ()
    mixed: tuple[float, ...] = ()
    forward: int = 0
    backward: int = 0
    dtype: str = ""
    failed: str = ""
    asked: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        return asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Probed:
        """From its `as_dict`, through JSON or not; an entry of another version is left out.

        Example:
            >>> Probed.of({"images": ["a"], "left": [0.0], "more": 1})
            Probed(images=('a',), right=(), left=(0.0,), ...)
        """
        known: dict[str, Any] = {f.name: kept[f.name] for f in fields(cls) if f.name in kept}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known)

    @property
    def coarse(self) -> bool:
        """Whether the network's own numbers have steps as large as those looked for."""
        return self.dtype in ("float16", "bfloat16")


def first_usable(data: SegmentationData, num_classes: int, *, labels: bool, bands: int | None) -> list[Sample]:
    """The first images of a data set that can be used, two at most, of the first eight."""
    places = range(min(FIRST, len(data)))
    return list(islice(usable_samples(data, num_classes, places, labels=labels, bands=bands), IMAGES))


def probe(
    model: Segmenter, samples: Sequence[Sample], ignore_index: int, seed: int, *, predicted: bool = False
) -> Probed:
    """Look at some images, with at most 16 forward and 8 backward passes over each, and one more for its own labels.

    Nothing is raised: what a model does not bear is told in `Probed.failed`.

    Args:
        model: The network; what is made cheaper for attacks is not looked through.
        samples: From `first_usable`.
        ignore_index: The label of pixels without a class.
        seed: Of the random direction.
        predicted: Whether the network's own predictions stand for labels.

    Example:
        >>> import segradius as sr
        >>> data = sr.open_data("scenes:48x64,2")
        >>> found = probe(sr.load_model("demo"), [data[0], data[1]], 255, 0)
        >>> max(found.left) < 0.02, [round(slope, 1) for slope in found.slope], found.forward <= 36
        (True, [1.0, 1.0], True)
    """
    model = replace(model, twins=None)
    ledger, looks = Ledger(1), list[dict[str, float]]()
    failed = "" if samples else f"none of the first {FIRST} images can be used"
    marks: dict[str, list[str]] = {"images": [], "still": [], "broken": []}
    with model.frozen(), kept(model.network), whole_float32(model.device):
        for sample in samples:
            try:
                numbers, said = _Look.at(model, sample, ignore_index, seed, ledger, predicted=predicted).seen()
            except (SegradiusError, RuntimeError, MemoryError) as error:
                if not isinstance(error, SegradiusError) and not is_out_of_memory(error):
                    raise
                failed = f"{sample.id}: {in_a_line(error)}"
                release()
                continue
            looks.append(numbers)
            for name in ("images", *said):
                marks[name].append(sample.id)
    told: dict[str, Any] = {name: tuple(look[name] for look in looks) for name in (looks[0] if looks else ())}
    told |= {name: tuple(ids) for name, ids in marks.items()}
    told |= {"forward": int(ledger.forward.sum()), "backward": int(ledger.backward.sum())}
    told |= {"dtype": str(model.dtype).removeprefix("torch."), "asked": tuple(sample.id for sample in samples)}
    return Probed(**told, failed=failed)


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """A context in which accelerators compute float32 in all of its 24 bits: TF32 rounds inputs to steps of its own.

    Example:
        >>> before = torch.backends.cudnn.allow_tf32
        >>> with whole_float32(torch.device("cuda")):
        ...     torch.backends.cudnn.allow_tf32
        False
        >>> torch.backends.cudnn.allow_tf32 is before
        True
    """
    if device.type != "cuda":
        yield
        return
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


@dataclass(frozen=True)
class _Look:
    """A look at one image, (1, B, H, W), which PGD may change as it likes.

    Attributes:
        room: The image, the whole box, and the steps.
        inside: The image a little nearer to grey, so that it can be changed to both sides.
        ledger: Of one image.
    """

    room: Room
    inside: Tensor
    ledger: Ledger

    @classmethod
    def at(cls, model: Segmenter, sample: Sample, void: int, seed: int, ledger: Ledger, *, predicted: bool) -> _Look:
        """The whole box around an image."""
        image, labels = (part[None].to(model.device) for part in (sample.image.clone(), sample.label))
        if predicted:
            with torch.no_grad():
                labels, void = predict(model.logits(image))[1], -1
            ledger.enter(PURPOSE, forward=1)
        keys = Randomness(seed, (sample.id,))
        task = Task(cast(Model, model), image, Goal.leave(labels, ignore_index=void), keys)
        threat = make_threat("linf", WHOLE)
        room = Room(threat, task, threat.budgets(1, image), STEPS, compares=False)
        return cls(room, image * (1 - 2 * SMALL) + SMALL, ledger)

    def seen(self) -> tuple[dict[str, float], list[str]]:
        """Figures by the names of `Probed`, and what must be said of the image."""
        task, goal, objective = self.room.task, self.room.task.goal, Objective(CrossEntropy(), StillCorrect())
        step, delta = Steepest(StepSize(None, 1.0)), self.inside - task.images
        left, losses, said, still = list[float](), list[float](), list[str](), True
        numbers: dict[str, float] = {}
        for t in range(STEPS):
            sight = see(self.room, task.seen(delta), t, self.ledger)
            left.append(goal.mean((sight.prediction == goal.reference).double()).item())
            losses.append(goal.mean(objective.loss(sight.view.logits.double(), goal.reference)).item())
            weights, _ = objective.weighting.weigh(sight.view, None)
            if left[-1] <= NOTHING and numbers:
                break
            gradient = ascend(objective, self.room, sight, weights, self.ledger)
            if not numbers:
                numbers = self.local(sight, objective, weights, gradient)
            if not bool(gradient.isfinite().all()):
                said.append("broken")
                break
            still = still and bool(is_zero(gradient).all())
            delta, _ = step.advance(Observation(delta, gradient, torch.zeros(1), t), self.room, None)
            del sight
        said += ["still"] * (still and "broken" not in said and left[0] > 0)
        finite = [loss for loss in losses[1:] if math.isfinite(loss)]
        risen = max(finite, default=losses[0]) - losses[0]
        return {"right": left[0], "left": min(left), "risen": risen, **numbers}, said

    @torch.no_grad()
    def local(self, sight: Sight, objective: Objective, weights: Tensor, gradient: Tensor) -> dict[str, float]:
        """What the answers do when the image is changed a little, against what the gradient says."""
        task, goal, base, logits = self.room.task, self.room.task.goal, sight.images.detach(), sight.view.logits

        def loss(seen: Tensor) -> float:
            return goal.mean(objective.loss(seen.double(), goal.reference) * weights).item()

        random = task.randomness.normal(tuple(base.shape[1:]), "sanity").to(base).sign()
        tiny, small, along = (
            [self.logits(base + side * length * way) for side in (1, -1)]
            for length, way in ((TINY, random), (SMALL, random), (BETWEEN, gradient.sign()))
        )
        rounding = LOUD * torch.finfo(logits.dtype).eps * _size(logits)
        rates = [_rate(pair, length, rounding) for pair, length in ((tiny, TINY), (small, SMALL))]
        even = _size(tiny[0] + tiny[1] - 2 * logits) / max(_size(tiny[0] - tiny[1]), 1e-30)
        steep, length = gradient.abs().sum().item(), gradient.double().norm().item()
        missed = (loss(small[0]) - loss(small[1])) / (2 * SMALL) - (gradient * random).sum().item()
        rises = (loss(along[0]) - loss(along[1])) / (2 * BETWEEN)
        both = torch.cat([base, base.flip(-1)])
        mixed = (self.logits(both)[:1] - logits).abs().amax() / logits.abs().amax().clamp_min(1e-30)
        heard = rounding / math.sqrt(goal.pixels.item())
        return {
            "slope": rises / steep if max(steep, abs(rises)) * BETWEEN > heard and steep > 0 else math.nan,
            "across": missed / length if max(length, abs(missed)) * SMALL > heard and length > 0 else math.nan,
            "ratio": 0.0 if rates[0] == 0 else rates[0] / max(rates[1], 1e-30),
            "even": 0.0 if rates[0] == 0 else even if rates[0] == rates[0] else math.nan,
            "mixed": mixed.item(),
        }

    def logits(self, images: Tensor) -> Tensor:
        """Of images beside this one."""
        model: Any = self.room.task.model
        self.ledger.enter(PURPOSE, forward=len(images))
        with at_border(f"model {model.name!r}", images.shape):
            found: Tensor = model.logits(images)
        return found


def _size(values: Tensor) -> float:
    """Root of the mean square."""
    return values.double().square().mean().sqrt().item()


def _rate(pair: Sequence[Tensor], length: float, rounding: float) -> float:
    """How far two opposite changes are apart for their length; NaN where rounding would tell the same."""
    apart = _size(pair[0] - pair[1])
    return math.nan if 0 < apart < rounding else apart / (2 * length)
