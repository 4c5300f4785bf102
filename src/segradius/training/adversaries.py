"""What the trainer does to images before the network learns from them: the defences, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from segradius.attacks.base import Task
from segradius.attacks.loop import Iterative
from segradius.attacks.make import make_attack
from segradius.core.contracts import Model
from segradius.core.declared import LATER, Count, Noise, Part, check_fields, kinds_of, read
from segradius.core.errors import InputError, must, shown
from segradius.core.randomness import Randomness
from segradius.core.registry import Registry
from segradius.core.text import refuse_unknown
from segradius.objectives.goal import Goal
from segradius.threats.threat import make_threat, norm_name

#: Step of FastADT in units of ε (Wong, Rice and Kolter, ICLR 2020); Algorithm 4 leaves α open.
FAST_ALPHA = 1.25
#: Steps of the multi-step defences (SegPGD3-AT of Gu et al., ECCV 2022), each of 2.5ε/T.
STEPS = 3
PGD_ALPHA = 2.5


@dataclass(frozen=True)
class Lesson:
    """A batch that is about to be learnt.

    Attributes:
        images: (N, B, H, W) in [0, 1].
        labels: (N, H, W) int64, ``ignore_index`` for void.
        ids: A name for each image in this epoch; it keys its random numbers.
        seed: Seed of the run.
        ignore_index: Value of void pixels.
    """

    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    seed: int = 0
    ignore_index: int = 255

    def to(self, device: torch.device) -> Lesson:
        """The lesson on a device."""
        images, labels = (part.to(device, non_blocking=True) for part in (self.images, self.labels))
        return replace(self, images=images, labels=labels)

    def only(self, chosen: Tensor) -> Lesson:
        """The images chosen by a mask (N,) on the CPU."""
        rows = chosen.nonzero().flatten().tolist()
        on = chosen.to(self.images.device)
        return replace(self, images=self.images[on], labels=self.labels[on], ids=[self.ids[i] for i in rows])


class Adversary(Protocol):
    """What becomes of the images of a lesson; a frozen dataclass."""

    def __call__(self, model: Model, lesson: Lesson) -> Tensor:
        """Images (N, B, H, W) to learn from; row i depends on image i only."""


@dataclass(frozen=True)
class Clean:
    """Images as they are."""

    def __call__(self, model: Model, lesson: Lesson) -> Tensor:
        """The images."""
        return lesson.images


@dataclass(frozen=True)
class GaussianNoise:
    """Images plus N(0, σ²) noise, as randomized smoothing wants its base network trained (Cohen et al., ICML 2019).

    Args:
        sigma: σ, images being in [0, 1].
        sigma_max: σ of each image is drawn uniformly between ``sigma`` and this; None: all have ``sigma``.
        clamp: Whether the noisy image is clamped to [0, 1]; smoothing does not.
    """

    sigma: Noise = 0.25
    clamp: bool = False
    sigma_max: Noise | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.sigma_max is not None and self.sigma_max < self.sigma:
            raise InputError(f"sigma_max is {self.sigma_max}; expected at least sigma, {self.sigma}")

    def __call__(self, model: Model, lesson: Lesson) -> Tensor:
        """Noisy images."""
        images, drawn = lesson.images, Randomness(lesson.seed, tuple(lesson.ids))
        noise = drawn.normal(images.shape[1:], "augmentation", device=images.device, dtype=images.dtype)
        sigma: float | Tensor = self.sigma
        if self.sigma_max is not None:
            share = drawn.uniform((1, 1, 1), "noise").to(images)
            sigma = self.sigma + (self.sigma_max - self.sigma) * share
        noisy = images + sigma * noise
        return noisy.clamp_(0, 1) if self.clamp else noisy


@dataclass(frozen=True)
class Attacked:
    """Images attacked anew at every step, by the network as it is: frozen, in evaluation mode.

    The network's batch-norm statistics, its parameters' ``.grad``, and the hooks of a distributed wrapper are not
    touched: gradients are those of the images alone.

    Args:
        method: The attack; its last iterate is taken, unjudged.
    """

    method: Iterative

    def __call__(self, model: Model, lesson: Lesson) -> Tensor:
        """Adversarial images in [0, 1]."""
        goal = Goal.leave(lesson.labels, ignore_index=lesson.ignore_index)
        task = Task(model, lesson.images.detach(), goal, Randomness(lesson.seed, tuple(lesson.ids)))
        with model.frozen():
            return (task.images + self.method.last(task)).clamp_(0, 1)


@dataclass(frozen=True)
class Mixture:
    """A share of the images through an adversary, the others as they are.

    Args:
        adversary: What the share goes through.
        share: Probability of each image, in [0, 1], drawn by its id, so that it does not depend on the batch.
    """

    adversary: Adversary
    share: Part

    def __post_init__(self) -> None:
        check_fields(self, share="mix")

    def __call__(self, model: Model, lesson: Lesson) -> Tensor:
        """Images, some of them changed."""
        chosen = Randomness(lesson.seed, tuple(lesson.ids)).uniform((), "mixture") < self.share
        if not chosen.any():
            return lesson.images
        images = lesson.images.clone()
        images[chosen.to(images.device)] = self.adversary(model, lesson.only(chosen))
        return images


ADVERSARIES: Registry[Callable[..., Adversary]] = Registry("defence")


@ADVERSARIES.register("none", attacks=False)
def none(*, norm: str = "linf", eps: float | None = None) -> Adversary:
    """No defence: clean images."""
    return Clean()


@ADVERSARIES.register("gaussian", attacks=False)
def gaussian(
    *,
    norm: str = "l2",
    eps: float | None = None,
    sigma: Noise = 0.25,
    sigma_max: Noise | None = None,
    clamp: bool = False,
) -> Adversary:
    """Gaussian noise augmentation, for networks and denoisers that will be smoothed and certified."""
    return GaussianNoise(sigma, clamp, sigma_max)


@ADVERSARIES.register("fast_adt")
def fast_adt(*, norm: str = "linf", eps: float | None = None, **options: Any) -> Adversary:
    """FastADT (Algorithm 4; Wong et al. 2020): uniform start, one FGSM step of 1.25ε, projection; any norm."""
    return _attacked("fgsm", norm, eps, FAST_ALPHA, options)


@ADVERSARIES.register("cr_fast_adt")
def cr_fast_adt(*, norm: str = "linf", eps: float | None = None, **options: Any) -> Adversary:
    """CR-FastADT (Section 5.4): FastADT whose step is guided by the certified radius."""
    return _attacked("cr_fgsm", norm, eps, FAST_ALPHA, options)


@ADVERSARIES.register("pgd_at")
def pgd_at(*, norm: str = "linf", eps: float | None = None, steps: Count = STEPS, **options: Any) -> Adversary:
    """Adversarial training with PGD (Madry et al. 2018): uniform start, 3 steps of 2.5ε/T."""
    return _attacked("pgd", norm, eps, PGD_ALPHA / steps, options | {"steps": steps})


@ADVERSARIES.register("cr_pgd_at")
def cr_pgd_at(*, norm: str = "linf", eps: float | None = None, steps: Count = STEPS, **options: Any) -> Adversary:
    """Adversarial training with CR-PGD samples (Section 6)."""
    return _attacked("cr_pgd", norm, eps, PGD_ALPHA / steps, options | {"steps": steps})


@ADVERSARIES.register("segpgd_at")
def segpgd_at(*, norm: str = "linf", eps: float | None = None, steps: Count = STEPS, **options: Any) -> Adversary:
    """Adversarial training with SegPGD (Gu et al. 2022); its paper attacks half of each batch: ``mix=0.5``."""
    return _attacked("segpgd", norm, eps, PGD_ALPHA / steps, options | {"steps": steps})


def make_adversary(
    name: str, *, norm: str | float = "linf", eps: float | str | None = None, mix: Part = 1.0, **options: Any
) -> Adversary:
    """A defence by name.

    Args:
        name: A name in `ADVERSARIES`.
        norm: ``l1``, ``l2`` or ``linf``.
        eps: Budget, images being in [0, 1]; None is the paper's 750, 1.5 or 0.006.
        mix: Share of the images that are attacked; the others are learnt as they are.
        **options: ``sigma``, ``sigma_max`` and ``clamp`` for ``gaussian``; for the others the options of the attack
            behind them, such as ``steps``, ``alpha``, ``samples``.

    Raises:
        InputError: For an unknown name, norm or option, or a bad value.

    Example:
        >>> make_adversary("gaussian", sigma=0.5)
        GaussianNoise(sigma=0.5, clamp=False, sigma_max=None)
    """
    recipe, kinds = ADVERSARIES[name], kinds_of(ADVERSARIES[name])
    if not attacks(name) and eps is not None:
        raise InputError(f"eps is {shown(eps)}, which does nothing here: {name} attacks no image")
    mix = read("mix", Part, mix)
    must(name != "none" or mix == 1, "mix", mix, "1 without a defence")
    if "options" not in kinds:
        refuse_unknown(f"option of {name}", options, kinds.keys() - {"norm", "eps"})
    own = {option: read(option, kinds.get(option, Any), value) for option, value in options.items()}
    made = recipe(norm=norm_name(norm), eps=eps, **own)
    return made if mix == 1 else Mixture(made, mix)


def attacks(name: str) -> bool:
    """Whether a defence is learnt from attacks, which have a norm and a budget.

    Example:
        >>> attacks("fast_adt"), attacks("gaussian")
        (True, False)
    """
    return bool(ADVERSARIES.facts(name).get("attacks", True))


def asks(adversary: Adversary) -> bool:
    """Whether an adversary asks the network; of one of another package that is taken to be so.

    Example:
        >>> asks(make_adversary("fast_adt", mix=0.5)), asks(make_adversary("gaussian", mix=0.5))
        (True, False)
    """
    return not isinstance(adversary.adversary if isinstance(adversary, Mixture) else adversary, Clean | GaussianNoise)


def _attacked(name: str, norm: str, eps: float | None, per_eps: float, options: Mapping[str, Any]) -> Adversary:
    """``per_eps`` is the length of a step in units of ε, where no ``alpha`` is given."""
    radius = make_threat(norm, eps).eps
    defaults = {"start": "uniform", "keep": "last", "alpha": per_eps * radius if isinstance(radius, float) else None}
    attack = make_attack(name, norm=norm, eps=eps, **defaults | dict(options))
    if not isinstance(attack.method, Iterative):
        raise InputError("restarts are for attacks: training takes one run")
    return Attacked(attack.method)
