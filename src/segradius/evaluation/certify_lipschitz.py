"""Certificates from a Lipschitz constant of the logits, as a way of certifying: one pass an image, and no noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from segradius.attacks.make import make_attack
from segradius.certification.certificate import Certificate, rounded_down
from segradius.certification.certifiers import Hierarchy
from segradius.certification.lipschitz import Distances, budgets, class_worst, distances, pixel_radii, turnable
from segradius.core.contracts import LOGITS, Journal, Model, Seen
from segradius.core.declared import Positive, Range, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.evaluation.batch import Batch, Bench
from segradius.evaluation.contradicting import Attacks, Found
from segradius.evaluation.record import Kind, Record, score_answer, score_certificate
from segradius.models.decoding import Decoding

#: Intervals of the curves.
BINS = 64

#: Where L comes from, in words.
SOURCES = {
    "stated": "as stated by who ran this",
    "card": "as stated by the model's card",
    "verified": "as bounded layer by layer",
}


@dataclass(frozen=True)
class Lipschitz:
    """How every image is certified from one forward pass.

    Args:
        lipschitz: L, of the logits in images in [0, 1], both in l2: ‖f(x + δ) − f(x)‖₂ ≤ L‖δ‖₂.
        source: Where it comes from.
        eps: l2 lengths of changes that tables tell of; curves go to the largest.
        size: Height and width of the images that it was verified for; None for any.

    Raises:
        InputError: For a value out of range.
    """

    lipschitz: Annotated[float, Range("[1e-6, 1e30]")]
    source: Literal["stated", "card", "verified"] = "stated"
    eps: tuple[Positive, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    size: tuple[int, int] | None = None

    key: ClassVar[str] = "lipschitz"
    unit: ClassVar[str] = ""
    passes: ClassVar[tuple[int, bool]] = (1, False)
    autocast: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if list(self.eps) != sorted(set(self.eps)) or not self.eps:
            raise InputError(f"eps is {self.eps}; expected lengths that grow")

    @property
    def title(self) -> str:
        """For people."""
        return f"certifying L={self.lipschitz:g}"

    @property
    def short(self) -> str:
        """In the heading of a picture."""
        return f"L = {self.lipschitz:g}"

    @property
    def bounds(self) -> list[float]:
        """Radii between which pixels are counted."""
        found: list[float] = torch.linspace(0, self.eps[-1], BINS + 1, dtype=torch.float64).tolist()
        return found

    def heading(self) -> list[str]:
        """What was certified, in parts of a line."""
        return [f"L = {self.lipschitz:.10g}, {SOURCES[self.source]}", "no noise, one pass an image"]

    def groups(self, names: Any) -> Hierarchy | None:
        """None: classes are not grouped."""
        return None

    def promised(self, kind: str, promised: str) -> str:
        """What is promised of an image, in a sentence."""
        return (
            "Every pixel keeps its class in the model itself under every change of l2 length below its radius, with "
            f"certainty{'' if self.source == 'verified' else ', if'}: its logits have a Lipschitz constant of at most "
            f"{self.lipschitz:.10g} in l2, {SOURCES[self.source]}."
        )

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model is a network that gives the logits that L is of."""
        if LOGITS not in model.offers:
            raise InputError("a Lipschitz constant is one of logits, and a target gives scores: use --model")
        kinds = {getattr(model, "dtype", None), getattr(model, "precision", None)}
        if reduced := kinds - {None, torch.float32, torch.float64}:
            raise InputError(
                f"model {model.name!r} computes in {reduced.pop()}, which rounds by more than certificates of a "
                "Lipschitz constant allow for; expected float32"
            )
        decode = getattr(model, "decode", None)
        if isinstance(decode, Decoding) and decode.kind not in EXACT:
            raise InputError(
                f"model {model.name!r} has outputs={decode.kind}, from which logits are undone without a Lipschitz "
                f"constant; expected one of {', '.join(EXACT)}"
            )

    def attacked(self, record: Record, batch: Batch, bench: Bench, asked: Attacks, ledger: Ledger) -> Iterable[Found]:
        """Every attack at every ε, and the steepest change that `steepest` finds."""
        model, ignore = cast(Model, bench.model), batch.ignore_index
        with torch.no_grad(), model.frozen():
            clean = model.logits(batch.images)
        ledger.enter("crosscheck", forward=1)
        held = Held(self.lipschitz, record, batch, clean, channels(bench.model, model.num_classes))
        steep = steepest(model, batch.images, clean, ledger)
        yield held.found("steepest", f"‖δ‖ = {STEEP:g}", steep, model, ledger, held.promised(STEEP))
        for eps in self.eps:
            promised = held.promised(eps)
            for name in asked.attacks:
                attack = make_attack(name, norm="l2", eps=eps, steps=asked.steps)
                made = attack(model, batch.images, batch.labels, ids=batch.ids, seed=bench.seed, ignore_index=ignore)
                ledger.add(made.ledger)
                yield held.found(name, f"ε = {eps:g}", made.adversarial, model, ledger, promised)

    def record(self, batch: Batch, bench: Bench, journal: Journal | None = None) -> Record:
        """The certificates of a batch of one image, and what they are worth."""
        model, labels = cast(Model, bench.model), batch.labels[0]
        classes, ignore, base = model.num_classes, batch.ignore_index, batch.prediction[0]
        score = partial(score_answer, labels=labels, num_classes=classes, ignore_index=ignore,
                        structures=batch.structures)  # fmt: skip
        if self.size is not None and self.size != tuple(labels.shape):
            sizes = ["x".join(map(str, size)) for size in (labels.shape, self.size)]
            raise InputError(
                f"image {batch.ids[0]} is {sizes[0]}, and the Lipschitz constant was verified for {sizes[1]}; expected "
                "images of one size, as by --size"
            )
        with torch.no_grad(), model.frozen():
            logits = model.logits(batch.images)[0]
        bench.progress(1)
        passes = {"judging": (1, 0), "certification": (1, 0)}
        finite = bool(logits.isfinite().all())
        found = distances(logits.nan_to_num(), channels(bench.model, classes))
        radius = rounded_down(pixel_radii(found, self.lipschitz)) * finite
        made = Certificate(found.guess, radius > 0, radius, 0.0, 0.0, "certain")
        worth = score_certificate(made, labels, classes, ignore, self.bounds, structures=batch.structures)
        kinds = {"lipschitz": Kind(made.prediction, radius, None, made.promise, worth)}
        whole = self.whole(found, batch, classes)
        return Record(batch.ids[0], base, score(base), kinds, finite=finite, passes=passes, whole=whole)

    def whole(self, found: Distances, batch: Batch, classes: int) -> dict[str, Any]:
        """What holds of all pixels of a batch of one image together, as plain numbers.

        Returns:
            ``labelled`` pixels; how many of them stay ``right`` at each of `bounds`, and how many ``at`` each of
            ``eps``; and for each of those by class what `class_worst` has.
        """
        labels, ignore = batch.labels[0], batch.ignore_index
        right = (labels != ignore) & (found.guess == labels)
        radii = torch.tensor([*self.bounds, *self.eps], dtype=torch.float64, device=right.device)
        stay = (int(right.sum()) - turnable(found.turn[right].square(), budgets(self.lipschitz, radii))).tolist()
        spent = [(self.lipschitz * eps) ** 2 for eps in self.eps]
        worst = [class_worst(found, labels, c, spent, ignore) for c in range(classes)]
        by = [
            [[each.right, each.union, each.labelled, each.lost, each.won] for each in column]
            for column in zip(*worst, strict=True)
        ]
        labelled, split = int((labels != ignore).sum()), len(self.bounds)
        return {"labelled": labelled, "right": stay[:split], "at": stay[split:], "classes": by}


@dataclass(frozen=True, eq=False)
class Held:
    """What is promised of one image, to be held against what was made of it.

    Args:
        lipschitz: L.
        record: Its certificates.
        batch: Of the image alone.
        clean: Its logits (1, C, H, W).
        structures: As `distances` has it.
    """

    lipschitz: float
    record: Record
    batch: Batch
    clean: Tensor
    structures: int = 0

    def promised(self, eps: float) -> int:
        """Labelled pixels that stay right under every change of length ε."""
        costs = self._distances.turn[self._right].square()
        budget = budgets(self.lipschitz, torch.tensor([eps], dtype=torch.float64, device=costs.device))
        return int(self._right.sum()) - int(turnable(costs, budget))

    def found(self, name: str, at: str, image: Tensor, model: Model, ledger: Ledger, promised: int) -> Found:
        """What became of it in an image (1, B, H, W), by one more pass."""
        with torch.no_grad(), model.frozen():
            moved = model.logits(image)
        ledger.enter("crosscheck", forward=1)
        length = float((image - self.batch.images).double().norm())
        used = float((moved - self.clean).double().norm()) / (self.lipschitz * length) if length else 0.0
        used = used if math.isfinite(used) else math.inf  # a logit that is not finite moved farther than any L allows
        answer = predict(moved)[1][0]
        radius = self.record.kinds["lipschitz"].radius.to(answer.device)
        lost = int(((radius > length) & (answer != self.record.kinds["lipschitz"].classes.to(answer.device))).sum())
        left = int(((answer == self.batch.labels[0]) & (self.batch.labels[0] != self.batch.ignore_index)).sum())
        labelled = int((self.batch.labels != self.batch.ignore_index).sum())
        caught = left < promised or lost > 0 or used > 1 + TOLERANCE
        return Found(name, at, labelled, promised, left, lost, used, caught)

    @cached_property
    def _distances(self) -> Distances:
        return distances(self.clean[0], self.structures)

    @property
    def _right(self) -> Tensor:
        right: Tensor = self.batch.labelled[0] & (self._distances.guess == self.batch.labels[0])
        return right


def steepest(model: Model, image: Tensor, clean: Tensor, ledger: Ledger) -> Tensor:
    """An image (1, B, H, W) at l2 distance `STEEP` at most whose logits lie far from those of an image in [0, 1].

    Power iteration on finite differences: δ follows the gradient of ½‖f(x + δ) − f(x)‖², which is Jᵀ(f(x + δ) − f(x)).

    Args:
        model: Of the logits.
        image: (1, B, H, W).
        clean: Its logits.
        ledger: Of the passes.
    """
    delta = Randomness(0, ("",)).normal(image.shape[1:], "steepest", device=image.device, dtype=image.dtype)
    with model.frozen(), torch.enable_grad():
        for _ in range(POWER):
            delta = (image + STEEP * delta / delta.norm()).clamp(0, 1) - image
            delta = delta.requires_grad_()
            far = (model.logits(image + delta) - clean).square().sum()
            (delta,) = torch.autograd.grad(far, delta)
            ledger.enter("crosscheck", forward=1, backward=1)
            if not bool(delta.any()):
                return image
    found: Tensor = (image + STEEP * delta / delta.norm()).clamp(0, 1)
    return found


#: Length of the change that `steepest` looks for, its steps, and by how much rounding may make logits move farther.
STEEP, POWER, TOLERANCE = 0.05, 10, 1e-3

#: Outputs that are decoded by nothing but a choice or a sum, so that distances are those of the network's own outputs.
EXACT = ("logits", "binary_logit", "multilabel_logits")


def channels(model: Seen, classes: int) -> int:
    """K where the classes are the sets of K yes/no channels of the network; 0 for ordinary classes."""
    decode = getattr(model, "decode", None)
    return decode.structures(classes) if isinstance(decode, Decoding) else 0
