"""What an attack is given and what it returns; every input is checked here, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from segradius.attacks.inputs import check_batch, check_labels, check_mask
from segradius.core.bands import bands_of, check_bands
from segradius.core.contracts import (
    LOGITS,
    Journal,
    Model,
    Offering,
    ScoreModel,
    check_twins,
    for_answers,
    surrogate_of,
)
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict, predicted
from segradius.core.randomness import Randomness
from segradius.core.registry import Registry
from segradius.objectives.goal import Goal, one_class
from segradius.objectives.losses import losses_for
from segradius.objectives.objective import Objective
from segradius.threats.lattice import Lattice, check_held
from segradius.threats.threat import Threat
from segradius.threats.weighted import factors, finite

M = TypeVar("M")
T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True)
class Trace:
    """How a black-box attack went, in rows of growing query counts.

    Attributes:
        queries: (P,) int64, queries so far, those for the radius and for judging included.
        judged: (P,) bool: the row is the verdict on an iterate; the others show the points that were queried anyway.
        loss: (P, N) mean loss over the counted pixels; NaN for an image that was finished before.
        pixacc: (P, N) share of the counted pixels that the attack does not have where it wants them.
        best: (P, N) the same for the best point so far that lies inside the threat model; NaN before the first.
    """

    queries: Tensor
    judged: Tensor
    loss: Tensor
    pixacc: Tensor
    best: Tensor


@dataclass(frozen=True)
class Task(Generic[M]):
    """One batch to attack.

    Attributes:
        model: The attacked model, or its surrogate: a `Model` for methods that follow gradients, a `ScoreModel` for
            those that ask.
        images: (N, B, H, W) in [0, 1].
        goal: What each pixel should become.
        randomness: Keys of the N images.
        changeable: (N, 1, H, W) 0/1 in the images' dtype: where the perturbation may be non-zero; None for everywhere.
        warm: (N, B, H, W) perturbation to start from, or None for the attack's own start.
        progress: Called with the number of steps just done.
        journal: Keeps the snapshots of a black-box attack; None for nowhere.
        weights: (B, 1, 1) weights w of the bands in the threat, which `entered` sets: all δ of a method are then
            coordinates u = w ⊙ δ, which it need not know. None: δ itself.
        surrogate: A network whose gradients an attack that asks may follow beside; None where there is none.
        lattice: The images of whole levels in the threat, which `entered` sets: what the model sees of a δ, and what is
            returned, is the nearest of them. None: δ itself.
    """

    model: M
    images: Tensor
    goal: Goal
    randomness: Randomness
    changeable: Tensor | None = None
    warm: Tensor | None = None
    progress: Callable[[int], None] | None = None
    journal: Journal | None = None
    weights: Tensor | None = None
    surrogate: Model | None = None
    lattice: Lattice | None = None

    def entered(self, threat: Threat) -> Task[M]:
        """The same task in the coordinates of a threat.

        Raises:
            InputError: It has not a weight for each band, or allows no image of whole levels where it wants one.
        """
        weights, held = factors(threat.weights, self.images) if threat.weights else None, threat.held(self.images)
        if held is not None:
            check_held(held, self.changeable)
        return replace(self, weights=weights, lattice=held)

    def change(self, delta: Tensor) -> Tensor:
        """What coordinates change in the images, u / w; likewise a gradient with respect to u of one to the images."""
        return delta if self.weights is None else delta / self.weights

    def coordinates(self, change: Tensor) -> Tensor:
        """Coordinates of a change of the images, w ⊙ δ; 0 in bands that are never changed."""
        return change if self.weights is None else change * finite(self.weights)

    def warmed(self, warm: Tensor) -> Tensor:
        """Coordinates of a warm start, where it may be."""
        return self.confine(self.coordinates(warm))

    def seen(self, delta: Tensor) -> Tensor:
        """The images after δ, as the model sees them, in [0, 1]; of whole levels where the threat has them."""
        if self.lattice is not None:
            return self.lattice.images(delta)
        return (self.images + self.change(delta)).clamp_(0, 1)

    def made(self, delta: Tensor) -> Tensor:
        """What coordinates change in the images, as it is returned: on the lattice where the threat has one."""
        return self.change(delta) if self.lattice is None else self.lattice.change(delta)

    def confine(self, delta: Tensor) -> Tensor:
        """Zero outside the changeable pixels, and in bands that are never changed."""
        delta = delta if self.changeable is None else delta * self.changeable
        return delta if self.weights is None else delta * self.weights.isfinite()

    def done(self, steps: int) -> None:
        """Report steps."""
        if self.progress is not None:
            self.progress(steps)

    def spawn(self, key: str) -> Task[M]:
        """The same task with independent random numbers."""
        return replace(self, randomness=self.randomness.spawn(key))


@dataclass(frozen=True)
class Result:
    """Outcome of an attack on a batch of N images.

    Attributes:
        adversarial: (N, B, H, W) in [0, 1].
        delta: (N, B, H, W) perturbation inside the threat model; ``adversarial`` is images + delta, clamped to [0, 1]
            against rounding.
        prediction: (N, H, W) int64, the model's classes on ``adversarial``.
        fooled: (N,) int64, counted pixels where the attack has them.
        valid: (N,) bool; False where the logits were not finite at some iterate: such an image is never called robust.
        ledger: Passes over each image.
        members: Results of the members of an ensemble, by name; empty otherwise.
        trace: How a black-box attack went; None otherwise.
        still: (N,) bool: the gradient was exactly zero at every step, so that there was nothing to follow; None where
            no gradient is followed.
        covered: (N, H, W) bool: pixels under a patch, which count nowhere; None where there is none.
    """

    adversarial: Tensor
    delta: Tensor
    prediction: Tensor
    fooled: Tensor
    valid: Tensor
    ledger: Ledger
    members: Mapping[str, Result] = field(default_factory=dict)
    trace: Trace | None = None
    still: Tensor | None = None
    covered: Tensor | None = None


class Method(Protocol):
    """How an attack works, apart from its inputs; a frozen dataclass."""

    @property
    def needs(self) -> frozenset[str]:
        """What the model must offer: ``logits`` with gradients, ``scores``, or both."""

    @property
    def total_steps(self) -> int:
        """Steps, or queries of a black-box attack, that one run reports to ``progress``."""

    def run(self, task: Task[Any]) -> Result:
        """Attack a checked batch inside ``task.model.frozen()``."""


#: Makes the method of an attack: ``recipe(threat, settings, *, own options)``.
Recipe = Callable[..., Method]

#: Attacks that follow gradients, and those that ask for scores; see `segradius.attacks.make` for how one is added.
ATTACKS: Registry[Recipe] = Registry("attack", room="segradius.attacks")
BLACK_BOX: Registry[Recipe] = Registry("black-box attack", room="segradius.attacks")


class Untargeted:
    """Base of a part with which an attack can have no aim."""


class Assisted:
    """Base of a strategy that follows the gradients of a surrogate, where there is one, in what it asks the target."""


def parts(thing: object, kind: type[P]) -> Iterator[P]:
    """Every part of a kind in a method made of frozen dataclasses, however deep: its objectives, say."""
    if isinstance(thing, kind):
        yield thing
        return
    for _, inner in _inside(thing):
        yield from parts(inner, kind)


def changed(thing: T, kind: type[P], change: Callable[[P], Any]) -> T:
    """The same method with every part of a kind changed, however deep; the method itself if it is of the kind."""
    if isinstance(thing, kind):
        return change(thing)  # type: ignore[no-any-return]
    found = {name: changed(inner, kind, change) for name, inner in _inside(thing)}
    if isinstance(thing, Mapping):
        return found  # type: ignore[return-value]
    return replace(thing, **found) if found else thing  # type: ignore[type-var]


def _inside(thing: object) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        yield from thing.items()
    elif is_dataclass(thing):
        yield from ((f.name, getattr(thing, f.name)) for f in fields(thing) if f.init)


@dataclass(frozen=True)
class Attack:
    """A named attack, ready to be called on batches.

    Attributes:
        name: Its name, ``cr_pgd`` say.
        method: How it works.
    """

    name: str
    method: Method

    @property
    def total_steps(self) -> int:
        """Steps that one call reports to ``progress``."""
        return self.method.total_steps

    def check_model(self, model: Offering) -> None:
        """Raise `InputError` unless a model, or a target, offers what this attack needs; nothing is asked of it."""
        offers = getattr(model, "offers", None)
        if offers is None:
            raise InputError(f"a {type(model).__name__} must be wrapped first: attack(segradius.wrap(network), …)")
        if surrogate_of(model) is not None and not self.is_assisted:
            model, offers = _checked_surrogate(self, model)
        if not self.method.needs <= offers:
            raise _lacking(self.name, self.method, model, offers)
        for objective in parts(self.method, Objective):
            objective.check_classes(model.num_classes)

    @property
    def is_assisted(self) -> bool:
        """Whether it asks the attacked model, and follows its surrogate's gradients besides."""
        return any(parts(self.method, Assisted))

    def check_aim(self) -> None:
        """Raise `InputError` if this attack cannot have an aim, a class that it wants pixels to get."""
        if any(parts(self.method, Untargeted)):
            raise InputError(f"{self.name} can have no aim: it moves features away from those of the clean image")

    def __call__(
        self,
        model: Model | ScoreModel,
        images: Tensor,
        labels: Tensor,
        *,
        ids: Sequence[str] | None = None,
        seed: int = 0,
        target: Tensor | int | None = None,
        changeable: Tensor | None = None,
        victims: Tensor | None = None,
        ignore_index: int = 255,
        progress: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> Result:
        """Attack a batch of images; no result depends on what else is in the batch.

        Args:
            model: From `segradius.wrap`; for a black-box attack also from `segradius.targets.open_target`.
            images: (N, B, H, W) float in [0, 1], not normalised; of half precision they are attacked in float32.
            labels: (N, H, W) int64 in [0, C), or ``ignore_index`` for void.
            ids: A name for each image, which keys its random numbers; default "0", "1", …
            seed: Seed of the run.
            target: (N, H, W) int64: the class that each pixel should get (``ignore_index``: any), or one class for
                all; None: untargeted.
            changeable: (N, H, W) bool: only these pixels may be changed.
            victims: (N, H, W) bool: only these pixels must be fooled.
            ignore_index: Value of void pixels.
            progress: Called with the number of steps just done.
            journal: Keeps the snapshots of a black-box attack, so that a killed one goes on.

        Returns:
            Adversarial images, predictions, counts of fooled pixels and the ledger.

        Raises:
            InputError: Naming the value and image for input that is not as said above.
        """
        self.check_model(model)
        if target is not None:
            self.check_aim()
        check_batch(images, labels, model.num_classes, ignore_index)
        check_bands(images.shape[1], bands_of(model), getattr(model, "name", type(model).__name__))
        for name, mask in (("changeable", changeable), ("victims", victims)):
            check_mask(name, mask, labels)
        names = tuple(ids) if ids is not None else tuple(map(str, range(len(images))))
        if len(names) != len(images):
            raise InputError(f"{len(names)} ids for {len(images)} images")
        with torch.inference_mode(False), torch.enable_grad():  # wherever it is called
            # Half precision has too few values between x and x + δ to stay in the ball.
            images = _usual(images).detach().to(torch.promote_types(images.dtype, torch.float32))
            goal = self._goal(_usual(labels), target, victims, model.num_classes, ignore_index)
            room = None if changeable is None else _usual(changeable).unsqueeze(1).to(images.dtype)
            with model.frozen():
                surrogate, assisted = surrogate_of(model), self.is_assisted
                made_on = surrogate if surrogate is not None and not assisted else model
                check_twins(made_on)
                asked = made_on if LOGITS in self.method.needs else for_answers(made_on)
                task = Task(asked, images, goal, Randomness(seed, names), room, progress=progress, journal=journal)
                task = replace(task, surrogate=surrogate) if assisted else task
                found = self.method.run(task)
                return found if made_on is model else judged_by(model, found, goal, made_on)

    def _goal(
        self, labels: Tensor, target: Tensor | int | None, victims: Tensor | None, num_classes: int, ignore_index: int
    ) -> Goal:
        victims = None if victims is None else _usual(victims)
        if isinstance(target, int):
            target = one_class(labels, target, num_classes, ignore_index=ignore_index)
        if target is None:
            return Goal.leave(labels, ignore_index=ignore_index, victims=victims)
        check_labels(target, num_classes, ignore_index, name="target", like=labels)
        return Goal.reach(_usual(target), labels, ignore_index=ignore_index, victims=victims)


@torch.no_grad()
def judged_by(model: Any, found: Result, goal: Goal, surrogate: Any) -> Result:
    """What was found on a surrogate, as the model sees it: one pass, and nothing of what the surrogate made of it.

    Args:
        model: What is attacked; asked once about each image.
        found: Adversarial images from the surrogate.
        goal: What each pixel should have become.
        surrogate: Of which the passes so far are; those of a mean count once for each of its networks.
    """
    network = LOGITS in model.offers
    top, prediction = predicted(model, found.adversarial) if network else predict(model.scores(found.adversarial))
    ledger = found.ledger.times(getattr(getattr(surrogate, "network", None), "passes", 1))
    ledger.enter("transfer", forward=1)
    counted = goal.fooled(prediction)
    fooled = (counted if found.covered is None else counted & ~found.covered).flatten(1).sum(1)
    fine = found.valid & top.isfinite().flatten(1).all(1)
    return replace(found, prediction=prediction, fooled=fooled, valid=fine, ledger=ledger, members={}, trace=None)


def _checked_surrogate(attack: Attack, model: Offering) -> tuple[Offering, frozenset[str]]:
    """What an attack on a model with a surrogate asks instead, and what that offers."""
    if LOGITS not in attack.method.needs:
        raise InputError(
            f"{attack.name} looks at scores, and adversarial images are made on another network, whose gradients are "
            "there to be followed: choose an attack that follows them, as pgd, one that does both, as mosaic, or leave "
            "the surrogate out (--from)"
        )
    surrogate = surrogate_of(model)
    return surrogate, surrogate.offers


def _usual(tensor: Tensor) -> Tensor:
    """The tensor, which autograd can save also where it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def _lacking(name: str, method: Method, model: object, offers: frozenset[str]) -> InputError:
    if LOGITS not in method.needs:
        losses = " or ".join(losses_for(offers))
        return InputError(
            f"{name} looks at scores, and the target returns labels only: give the attack the loss {losses} "
            f"(--options loss={losses})"
        )
    if LOGITS in offers:
        return InputError(
            f"{name} looks at a layer of the network, and {getattr(model, 'name', type(model).__name__)} shows none: "
            "it takes a network of modules in this process, no function or TorchScript program"
        )
    return InputError(
        f"{name} needs the gradients of the model, and {getattr(model, 'name', type(model).__name__)} gives scores "
        f"only: choose a black-box attack, {', '.join(BLACK_BOX)}"
    )
