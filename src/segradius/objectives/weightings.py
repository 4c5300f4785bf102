"""Pixel weights of an attack's loss: what it should look at (Eq. 9), each (N, H, W), and products of them.

A weighting is a frozen dataclass with a pure ``weigh(view, state) -> (weights, state)``: most keep no state; the
certified radius keeps its weights between refreshes. Weights carry no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from segradius.core.contracts import LABELS_ALONE, LOGITS
from segradius.core.declared import Count, Part, Plain, Positive, Range, Sigma, Weight, Whole, check_fields, only_with
from segradius.core.errors import InputError
from segradius.core.registry import Registry
from segradius.core.text import parse_call, refuse_unknown
from segradius.objectives.goal import Goal
from segradius.objectives.view import Smoothing, View
from segradius.radius.clever import Ball
from segradius.radius.smoothing import normalised_radius


class Weighting(Protocol):
    """Weights of the pixels in one step: a frozen dataclass with this base, which says what is otherwise than here."""

    @property
    def needs(self) -> frozenset[str]:
        """What of a model's answers it looks at: the predicted class and its rival, as far as they are known."""
        return LABELS_ALONE

    @property
    def watches(self) -> bool:
        """Whether it looks at what the model answers about the iterate, in a black-box attack at the running mean."""
        return True

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Weights (N, H, W) and the state of the next step; ``state`` is None in the first."""

    def check_classes(self, classes: int) -> None:
        """Raise `InputError` unless a model with this many classes will do."""
        return

    def check_scores(self) -> None:
        """Raise `InputError` if scores are not enough."""
        if LOGITS in self.needs:
            enough = ", ".join(name for name in WEIGHTINGS if LOGITS not in WEIGHTINGS[name]().needs)
            raise InputError(f"the weighting {WEIGHTINGS.name_of(self)!r} needs logits; scores give {enough}")


WEIGHTINGS: Registry[type[Weighting]] = Registry("weighting", "segradius.objectives")


@WEIGHTINGS.register("uniform")
@dataclass(frozen=True)
class Uniform(Weighting):
    """Weight 1 for every pixel: plain PGD."""

    watches: ClassVar[bool] = False

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Ones."""
        return view.number(torch.ones((), device=view.goal.reference.device)).expand_as(view.goal.reference), None


@WEIGHTINGS.register("cr")
@dataclass(frozen=True)
class CertifiedRadius(Weighting):
    """Certified radius (Eq. 10): w = 1 / (1 + exp(a·cr + b)), small radius, large weight.

    Args:
        a: Slope.
        b: Offset.
        sigma: Standard deviation σ of the smoothing noise, in pixel units.
        samples: Noisy passes M per refresh; 0 takes the confidences of the attack's own forward pass, in every step.
        every: Refresh interval INT in steps; None is the paper's INT = M.
        radius_unit: ``"normalised"`` weighs by cr/σ = Φ⁻¹(p), as the published code does; ``"pixel"`` by cr itself, the
            paper's letter, under which every weight is 0.982 at σ = 0.001 and the attack is the unguided one.
        precision: ``"bfloat16"`` makes the noisy passes about twice as fast. It ranks pixels as float32 does, but its
            rounding turns differences in the last place, as another batch size brings, into ones of about 1e-3·ε in δ.
        clamp: Whether noisy images are clamped to [0, 1].

    Example:
        >>> import torch
        >>> CertifiedRadius().of_probability(torch.tensor([0.5, 1.0])).tolist()
        [0.982..., 0.0054...]
    """

    a: Plain = 2.0
    b: Plain = -4.0
    sigma: Annotated[Sigma, only_with(samples=Range("[1, inf)"), radius_unit=["pixel"])] = 0.001
    samples: Whole = 8
    every: Count | None = None
    radius_unit: Literal["normalised", "pixel"] = "normalised"
    precision: Annotated[Literal["float32", "bfloat16"], only_with(samples=Range("[1, inf)"))] = "float32"
    clamp: Annotated[bool, only_with(samples=Range("[1, inf)"))] = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def watches(self) -> bool:
        """Only if it has no noisy passes of its own."""
        return self.samples == 0

    @property
    def interval(self) -> int:
        """Steps between refreshes, INT."""
        return max(self.samples, 1) if self.every is None else self.every

    def of_probability(self, probability: Tensor) -> Tensor:
        """Weights of pixels whose smoothed top probability is given, any shape."""
        scale = 1.0 if self.radius_unit == "normalised" else self.sigma
        return torch.sigmoid(-(self.a * scale * normalised_radius(probability) + self.b))

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Weights from noisy passes every ``interval`` steps, kept in between."""
        if state is None or view.step % self.interval == 0:
            state = self.of_probability(self._confidence(view))
        return state, state

    def _confidence(self, view: View) -> Tensor:
        if self.samples == 0:
            return view.confidence()
        precision = torch.bfloat16 if self.precision == "bfloat16" else None
        return view.number(view.smoothed_confidence(Smoothing(self.sigma, self.samples, self.clamp, precision)))


@WEIGHTINGS.register("clever")
@dataclass(frozen=True)
class CleverRadius(Weighting):
    """CLEVER's radius (Weng et al. 2018) in the place of the certified one: w = 1 / (1 + exp(a·z + b)).

    z is the radius in units of half its mean over an image's counted pixels, so that a pixel of mean radius weighs ½
    with the a and b of Eq. 10, and weights spread whatever the network's scale is.

    Args:
        a: Slope.
        b: Offset.
        radius: R of the ball, in pixel units.
        batches: N_b.
        samples: N_s.
        probes: K, random directions at a sample; 0 for exact gradients, for tiny images only.
        every: Refresh interval INT in steps.

    Example:
        >>> CleverRadius(samples=1).of_radius(torch.tensor([0.0, 0.3, 9.0]), torch.tensor(0.3)).tolist()
        [0.982..., 0.5, 0.0]
    """

    a: Plain = 2.0
    b: Plain = -4.0
    radius: Positive = 1.5
    batches: Count = 10
    samples: Count = 32
    probes: Whole = 4
    every: Count = 8

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def ball(self) -> Ball:
        """Where gradients are sampled."""
        return Ball(self.radius, self.batches, self.samples, self.probes)

    def of_radius(self, radius: Tensor, mean: Tensor) -> Tensor:
        """Weights of pixels with these radii, any shape, where their mean is given."""
        unit = mean.clamp_min(torch.finfo(radius.dtype).tiny) / 2
        return torch.sigmoid(-(self.a * (radius / unit) + self.b))

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Weights from sampled gradients every ``every`` steps, kept in between."""
        if state is None or view.step % self.every == 0:
            radius = view.number(view.clever(self.ball))
            state = self.of_radius(radius, view.goal.mean(radius).view(-1, 1, 1))
        return state, state


@WEIGHTINGS.register("still_correct")
@dataclass(frozen=True)
class StillCorrect(Weighting):
    """Still-correct mask: 1 for pixels that are not fooled yet, 0 for the others (SEA's masked cross-entropy).

    Args:
        fooled: Weight of a fooled pixel; above 0 it goes on pulling, so that fewer of them turn back.

    Example:
        >>> parse_weighting("still_correct(fooled=0.3)")
        StillCorrect(fooled=0.3)
    """

    fooled: Part = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """The mask as numbers."""
        pending = view.number(view.pending())
        return pending if self.fooled == 0 else pending + self.fooled * view.number(view.fooled()), None


@WEIGHTINGS.register("segpgd")
@dataclass(frozen=True)
class SegPGD(Weighting):
    """SegPGD's schedule (Gu et al. 2022): 1 − λ for pixels not fooled yet, λ for fooled ones, λ = t / 2T."""

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """λ or 1 − λ."""
        share = view.progress / 2
        return (1 - share) + (2 * share - 1) * view.number(view.fooled()), None


@WEIGHTINGS.register("cospgd")
@dataclass(frozen=True)
class CosPGD(Weighting):
    """CosPGD's alignment (Agnihotri et al. 2024): cosine of softmax and one-hot label; 1 − cosine if targeted."""

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Cosine similarity, in [0, 1]."""
        cosine = view.alignment()
        return (1 - cosine if view.goal.targeted else cosine), None


@WEIGHTINGS.register("balanced")
@dataclass(frozen=True)
class ClassBalanced(Weighting):
    """Class balance: a weight for each true class, so that rare classes pull as hard as common ones.

    Args:
        weights: One weight for each class, as `balanced_weights` computes from the class counts of a data set; None
            balances each image by its own class frequencies.
        power: Exponent of the weights; 0.5 is between balance and none.
    """

    watches: ClassVar[bool] = False

    weights: tuple[Weight, ...] | None = None
    power: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """The weight of each pixel's true class."""
        classes = view.num_classes
        if self.weights is None:
            return view.number(_balance_each(view.goal, classes) ** self.power), None
        self.check_classes(classes)
        table = torch.tensor(self.weights, device=view.goal.labels.device) ** self.power if state is None else state
        return view.number(table)[view.goal.labels], table

    def check_classes(self, classes: int) -> None:
        """There must be a weight for each."""
        if self.weights is not None and len(self.weights) != classes:
            raise InputError(f"class weights: {len(self.weights)} given, the model has {classes} classes")


@dataclass(frozen=True)
class Product(Weighting):
    """The product of several weightings.

    Example:
        >>> parse_weighting("cr*still_correct", samples=0)
        Product(factors=(CertifiedRadius(...samples=0...), StillCorrect(fooled=0.0)))
    """

    factors: tuple[Weighting, ...]

    @property
    def needs(self) -> frozenset[str]:
        """What any factor needs."""
        return frozenset[str]().union(*(factor.needs for factor in self.factors))

    @property
    def watches(self) -> bool:
        """Whether any factor does."""
        return any(factor.watches for factor in self.factors)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Product of the factors' weights."""
        found = [
            factor.weigh(view, s) for factor, s in zip(self.factors, state or (None,) * len(self.factors), strict=True)
        ]
        weights = found[0][0]
        for other, _ in found[1:]:
            weights = weights * other
        return weights, tuple(s for _, s in found)

    def check_classes(self, classes: int) -> None:
        """All factors must do with them."""
        for factor in self.factors:
            factor.check_classes(classes)

    def check_scores(self) -> None:
        """All factors must do with scores."""
        for factor in self.factors:
            factor.check_scores()


def factors(weighting: Weighting) -> tuple[Weighting, ...]:
    """What a weighting is the product of: its factors, or itself."""
    return weighting.factors if isinstance(weighting, Product) else (weighting,)


def times(one: Weighting, other: Weighting) -> Weighting:
    """The product of two weightings, flat; `Uniform` is the unit."""
    kept = tuple(f for f in (*factors(one), *factors(other)) if not isinstance(f, Uniform))
    return Uniform() if not kept else kept[0] if len(kept) == 1 else Product(kept)


def parse_weighting(text: str, **cr_options: Any) -> Weighting:
    """A weighting by name, or a product such as ``"cr*still_correct"``; ``cr_options`` go to the certified radius.

    Options of any one are written behind its name, with semicolons between them.

    Raises:
        InputError: For an unknown name or option, with the nearest.

    Example:
        >>> parse_weighting("clever(batches=10;samples=1)").ball
        Ball(radius=1.5, batches=10, samples=1, probes=4)
    """
    found: Weighting = Uniform()
    for factor in text.split("*"):
        name, given = parse_call(factor, "weighting")
        kind = WEIGHTINGS[name]
        refuse_unknown("option of a weighting", given, (f.name for f in fields(kind)))  # type: ignore[arg-type]
        found = times(found, kind(**({**cr_options, **given} if kind is CertifiedRadius else given)))
    return found


def top_probability(logits: Tensor) -> Tensor:
    """Largest softmax probability of each pixel, (N, C, H, W) → (N, H, W)."""
    return logits.softmax(1).amax(1)


def balanced_weights(counts: Tensor) -> tuple[float, ...]:
    """Weights n / (K·n_c) from labelled-pixel counts (C,): a mean over pixels then weighs the K present classes alike.

    Example:
        >>> import torch
        >>> balanced_weights(torch.tensor([30, 10, 0]))
        (0.666..., 2.0, 0.0)
    """
    counts = counts.double()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp_min(1)) * present
    return tuple(weights.tolist())


def _balance_each(goal: Goal, classes: int) -> Tensor:
    """Per-image class balance, (N, H, W)."""
    flat = goal.labels.flatten(1)
    counted = goal.counted.flatten(1).double()
    counts = counted.new_zeros(len(flat), classes).scatter_add_(1, flat, counted)
    present = (counts > 0).sum(1, keepdim=True).clamp_min(1)
    weights = counts.sum(1, keepdim=True) / (present * counts.clamp_min(1))
    return weights.gather(1, flat).view_as(goal.labels)
