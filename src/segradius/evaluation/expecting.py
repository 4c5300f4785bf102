"""What jobs will cost before they are run: passes of each image, and from a measured pass the time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, cast

import torch

from segradius.attacks.base import Attack
from segradius.attacks.make import make_attack
from segradius.core.bands import bands_of
from segradius.core.contracts import LOGITS, Model, Seen, for_answers, for_guidance, surrogate_of
from segradius.evaluation.attack import Attacking
from segradius.evaluation.batch import Clean, is_priced
from segradius.evaluation.certify import Certifying
from segradius.evaluation.crosscheck import Checking
from segradius.evaluation.job import Job, plain
from segradius.evaluation.run import Run, first_usable
from segradius.evaluation.sizing import Trial, answered, differentiated
from segradius.models.wrapping import wrap

#: Side of an image that stands for others when an attack's passes are counted, which depend on no size.
SIDE = 16
#: Looks at what an attack on a network found, beside its own: once more by itself, and rounded to 8 bits.
LOOKS = 2
#: Of more steps than that, passes are told from the number of steps alone.
STEPS = 2000


@dataclass(frozen=True)
class Passes:
    """Over each image.

    Attributes:
        forward: Those of backward passes among them.
        backward: Likewise.
        at_most: Whether it may be fewer.
    """

    forward: int
    backward: int = 0
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'≤ ' if self.at_most else ''}{self.forward}+{self.backward}"


@dataclass(frozen=True)
class Price:
    """Seconds of a pass over one image of a run, measured.

    Attributes:
        forward: Of one forward.
        both: Of one forward and backward; NaN where no gradient is to be had.
    """

    forward: float
    both: float = math.nan

    def of(self, passes: Passes) -> float:
        """Seconds of all passes over an image; NaN where one of them has no price."""
        differentiated = passes.backward * self.both if passes.backward else 0.0
        return max(passes.forward - passes.backward, 0) * self.forward + differentiated


def expected(job: Job, run: Run[Any]) -> Passes | None:
    """Passes of a job over each image; None for a task that does not say.

    A white-box attack is run once on an image of nothing and counted; a black-box attack has its queries, certificates
    their copies, and attacks on certificates at most what they need where every aim has a pixel.

    Example:
        >>> from segradius.evaluation import DataChoice, ModelChoice, open_choice, open_images
        >>> from segradius.evaluation import Experiment, make_plans
        >>> it = Experiment(ModelChoice("demo"), DataChoice("scenes:24x32,1"), make_plans(["pgd"], [("l2", 1)]))
        >>> print(expected(it.jobs[0], Run(it, open_choice(it.model), open_images(it.data))))
        53+50
    """
    task, classes, bands = job.task, run.model.num_classes, bands_of(run.model) or 3
    if isinstance(task, Clean):
        return Passes(1)
    if isinstance(task, Attacking):
        of = _of_attack(task, classes, bands, looks=0)
        looks, made_on = 0 if is_priced(run.model) else LOOKS, surrogate_of(run.model)
        if made_on is None or task.asks:
            return replace(of, forward=of.forward + looks)
        return Passes(networks(run.model) * of.forward + 1 + looks, networks(run.model) * of.backward, of.at_most)
    if isinstance(task, Certifying):
        most, fewer = task.way.passes
        return Passes(most, at_most=fewer)
    if isinstance(task, Checking):
        return _of_checks(task, classes, bands)
    return None


def networks(model: Seen) -> int:
    """In a pass of what adversarial images are made on: several in a mean of them."""
    return getattr(getattr(surrogate_of(model), "network", None), "passes", 1)


def _of_attack(task: Attacking, classes: int, bands: int, *, looks: int) -> Passes:
    if task.asks:
        return Passes(task.total_steps + looks, at_most=True)
    if task.total_steps > STEPS:
        return Passes(task.total_steps + 1 + looks, task.total_steps)
    plan, options = task.plan, json.dumps(plain(task.plan.options), sort_keys=True)
    forward, backward = _counted(plan.name, plan.norm, options, classes, bands)
    return Passes(forward + looks, backward)


def _of_checks(task: Checking, classes: int, bands: int) -> Passes:
    """For each attack the image itself, and each aim once attacked and judged."""
    checks, forward, backward = task.checks, 0, 0
    own = task.smoothing.radii in ("one", "two")  # those of mean confidences are not attacked
    quantiles, kinds = 1 + 2 * own, 1 + own
    for name in checks.attacks:
        steps, steps_back = passes_of(checks.maker(name)(eps=1.0), classes, bands)
        aims = quantiles * (1 + len(checks.weakest))
        forward += aims * (steps * checks.samples + checks.copies) + kinds * checks.copies
        backward += aims * steps_back * checks.samples
    return Passes(forward, backward, at_most=True)


@lru_cache(maxsize=256)
def _counted(name: str, norm: str, options: str, classes: int, bands: int) -> tuple[int, int]:
    """Of an attack, at whatever budget."""
    return passes_of(make_attack(name, norm=norm, **json.loads(options)), classes, bands)


def passes_of(attack: Attack, classes: int, bands: int) -> tuple[int, int]:
    """Passes, forward and backward, that an attack makes over a grey image that a network of one layer looks at.

    Example:
        >>> passes_of(make_attack("pgd", steps=10), classes=5, bands=3)
        (11, 10)
    """
    network = torch.nn.Conv2d(bands, classes, 1).requires_grad_(False)
    weights, bias = network.weight, cast(torch.Tensor, network.bias)
    weights.copy_(torch.linspace(-1, 1, weights.numel()).view_as(weights))
    bias.copy_(10.0 * (torch.arange(classes) == 0))
    images, labels = torch.full((1, bands, SIDE, SIDE), 0.5), torch.zeros(1, SIDE, SIDE, dtype=torch.long)
    found = attack(wrap(network, num_classes=classes), images, labels)
    return int(found.ledger.forward[0]), int(found.ledger.backward[0])


def priced(run: Run[Any]) -> Price | None:
    """What a pass over the first image of a run that can be used takes; None where there is none.

    A target, of which every answer counts, is not asked.
    """
    sample = None if is_priced(run.model) else first_usable(run)
    if sample is None:
        return None
    return price_of(run.model, sample.image.to(run.model.device))


def price_of(model: Seen, image: torch.Tensor) -> Price:
    """What a pass of a model takes over an image (B, H, W), which is on its device."""
    image, device = image[None], model.device

    def seconds(once: Callable[[torch.Tensor], None]) -> float:
        return Trial(lambda images: once(image.expand(images, *image.shape[1:]).contiguous()), device).seconds(1)

    with model.frozen():
        forward = seconds(partial(answered, for_answers(model), None))
        if LOGITS not in model.offers:
            return Price(forward)
        both = seconds(partial(differentiated, for_guidance(cast(Model, model)), None))
        return Price(forward, both / networks(model))
