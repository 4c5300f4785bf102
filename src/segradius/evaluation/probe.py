"""A look at a few images before a run: what a network makes of them, and what its gradient is worth there."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.border import at_border, is_out_of_memory
from segradius.core.contracts import Seen
from segradius.core.errors import ModelError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample, SegmentationData
from segradius.data.usable import usable_samples
from segradius.evaluation.batch import is_priced
from segradius.evaluation.preparations import others
from segradius.metrics.agreement import kappa, renaming
from segradius.metrics.counts import Counts, count
from segradius.metrics.statistics import miou
from segradius.models.decoding import IN_UNIT, Decoding
from segradius.models.holding import kept
from segradius.models.outputs import refuse_activations
from segradius.models.segmenter import Segmenter

NAN = math.nan
#: Void in counts, whatever it is in the data.
VOID = -1
#: Images looked at: one in eight, at least two, at most four.
SAMPLE = (2, 4)
#: Length of the steps along the gradient and at random, in l∞.
STEP = 2 / 255
#: Share of the largest logit by which two passes may differ, as kernels round differently with gradients and without.
STEADY = 1e-3


@dataclass(frozen=True)
class Measured:
    """What a few images show; NaN and empty where it was not looked at, as of a target, whose passes have a price.

    Attributes:
        images: Their ids.
        void: Share of their pixels without label.
        labelled: Classes of the others.
        blank: Those of them that are of one colour.
        same: Whether all of them are one image.
        brightest: Largest value of them all.
        forward: Passes for all this.
        backward: Likewise.
        low: Least logit.
        high: Largest.
        total: Least and largest sum of the logits over the classes.
        sure: Share of the pixels whose confidence is exactly 1, or where a sigmoid that was undone was 0 or 1.
        unsteady: Images of which two passes differ.
        moves: By how much at most, as a share of the largest logit.
        changed: State of the network that a pass changed, by name; it was put back.
        gradient: Whether the gradient was looked at.
        still: Images where that of cross-entropy is exactly zero.
        deaf: Images where that of the logits' margin is, too.
        broken: Images where it has a NaN or an infinity.
        flat: Share of its values on labelled pixels that are exactly zero.
        climb: By how much a step along its sign raises the loss.
        noise: By how much a random step of that length does.
        flipped: Share of the pixels that keep their class in the mirror image.
        brighter: Share that keep it in an image 5 % brighter.
        kappa: Agreement of labels and predictions beyond chance, 1 at best.
        miou: Over these images.
        right: Share of the labelled pixels that are right.
        reordered: The same if the model's classes had the order that suits the labels best.
        order: Of each class, the class that the model calls so in that order.
        reordered_miou: MIoU in that order.
        prepared: Kappa and MIoU under other preparations of the colours, by name.
        bands: Of the images; 0 where there are none.
    """

    images: tuple[str, ...] = ()
    void: float = NAN
    labelled: tuple[int, ...] = ()
    blank: tuple[str, ...] = ()
    same: bool = False
    brightest: float = NAN
    forward: int = 0
    backward: int = 0
    low: float = NAN
    high: float = NAN
    total: tuple[float, float] = (NAN, NAN)
    sure: float = NAN
    unsteady: tuple[str, ...] = ()
    moves: float = NAN
    changed: tuple[str, ...] = ()
    gradient: bool = False
    still: tuple[str, ...] = ()
    deaf: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    flat: float = NAN
    climb: float = NAN
    noise: float = NAN
    flipped: float = NAN
    brighter: float = NAN
    kappa: float = NAN
    miou: float = NAN
    right: float = NAN
    reordered: float = NAN
    order: tuple[int, ...] = ()
    reordered_miou: float = NAN
    prepared: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bands: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        return asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Measured:
        """From its `as_dict`, through JSON or not; an entry of another version is left out.

        Example:
            >>> Measured.of({"images": ["a"], "void": 0.25, "more": 1}).images
            ('a',)
        """
        known: dict[str, Any] = {f.name: kept[f.name] for f in fields(cls) if f.name in kept}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known)


def chosen(data: SegmentationData, num_classes: int, *, labels: bool = True, bands: int | None = None) -> list[Sample]:
    """The images to look at, spread over a data set; those that cannot be used are left out, by the image alone too."""
    return list(usable_samples(data, num_classes, wanted(len(data)), labels=labels, bands=bands))


def wanted(images: int) -> list[int]:
    """Places of those to look at, of so many.

    Example:
        >>> wanted(24)
        [0, 11, 23]
    """
    low, high = SAMPLE
    count = min(images, max(low, min(high, images // 8)))
    return sorted(set(torch.linspace(0, images - 1, count).long().tolist())) if count else []


def of_samples(samples: Sequence[Sample], ignore_index: int) -> Measured:
    """What images and masks show without any network.

    Example:
        >>> one = Sample("a", torch.zeros(3, 2, 2), torch.tensor([[0, 255], [0, 0]]))
        >>> found = of_samples([one, Sample("b", one.image, one.label)], 255)
        >>> found.void, found.labelled, found.blank, found.same
        (0.25, (0,), ('a', 'b'), True)
    """
    void = [(sample.label == ignore_index).double().mean().item() for sample in samples]
    blank = tuple(sample.id for sample in samples if bool((sample.image == sample.image[:, :1, :1]).all()))
    same = len(samples) > 1 and all(torch.equal(sample.image, samples[0].image) for sample in samples)
    classes = {label for sample in samples for label in torch.unique(sample.label).tolist()} - {ignore_index}
    share = math.fsum(void) / len(void) if void else NAN
    top = max((sample.image.max().item() for sample in samples), default=NAN)
    bands = samples[0].image.shape[0] if samples else 0
    return Measured(
        tuple(sample.id for sample in samples), share, tuple(sorted(classes)), blank, same, top, bands=bands
    )


def measure(
    model: Seen,
    data: SegmentationData,
    samples: Sequence[Sample],
    seed: int,
    *,
    gradient: bool,
    predicted: bool = False,
) -> Measured:
    """Look at some images, one by one; of a target at their masks alone, as an answer has its price.

    About a dozen passes over each. An image with which the model fails is left to the run, which says so.

    Args:
        model: A network or a target.
        data: Theirs.
        samples: From `chosen`.
        seed: Of the random step.
        gradient: Whether the gradient is of interest.
        predicted: Whether the model's own predictions stand for the labels, of which nothing is to be told then.

    Raises:
        InputError: The network gives sigmoids where logits are expected.
    """
    known = of_samples(samples, data.classes.ignore_index)
    if predicted:
        known = replace(known, void=NAN, labelled=())
    if is_priced(model) or not isinstance(model, Segmenter):
        return known
    looks, ledger = [], Ledger(1)
    with model.frozen(), kept(model.network) as changed:
        for sample in samples:
            image, labels = (part[None].to(model.device) for part in (sample.image.clone(), sample.label))
            one = _Look(model, sample.id, image, labels, labels != data.classes.ignore_index, ledger)
            try:
                one = one.by_itself() if predicted else one
                looks += [one.seen(seed, gradient=gradient)]
            except ModelError:
                continue  # the run meets it as well, and says so
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
    found = [look for look in looks if look is not None]
    known = replace(
        known,
        changed=tuple(changed),
        gradient=gradient,
        forward=int(ledger.forward.sum()),
        backward=int(ledger.backward.sum()),
    )
    return _together(known, found) if found else known


@dataclass(frozen=True)
class _Seen:
    """What one image shows: numbers by the names of `Measured`, labels against predictions, counts by preparation."""

    image: str
    numbers: Mapping[str, float]
    state: Collection[str]
    confusion: Tensor
    counts: Mapping[str, Counts]


@dataclass(frozen=True)
class _Look:
    """A look at one image (1, B, H, W) with labels (1, H, W), of which those ``counted`` are no void."""

    model: Segmenter
    name: str
    image: Tensor
    labels: Tensor
    counted: Tensor
    ledger: Ledger

    def by_itself(self) -> _Look:
        """The same, with what is predicted as labels."""
        with torch.no_grad():
            labels = predict(self.logits(self.image))[1]
        return replace(self, labels=labels, counted=torch.ones_like(labels, dtype=torch.bool))

    def seen(self, seed: int, *, gradient: bool) -> _Seen | None:
        """All of it; None for an image whose logits are not finite, which the run sets aside."""
        with torch.set_grad_enabled(gradient):
            logits = self.logits(self.image.requires_grad_(gradient))
        if not bool(logits.isfinite().all()):
            return None
        decode = self.model.decode if isinstance(self.model.decode, Decoding) else Decoding()
        if decode.kind in ("logits", "masked_logits"):
            refuse_activations(logits.detach(), self.model.name)
        elif decode.yes_no and decode.kind not in IN_UNIT:
            Decoding(decode.kind).check(decode.channel_logits(logits), f"model {self.model.name!r}")
        saturated = decode.saturated(logits.detach())
        numbers, state, steps = self.slope(logits, seed) if logits.requires_grad else ({}, (), {})
        with torch.no_grad():
            fixed = logits.detach()
            prediction, before = predict(fixed)[1], self.losses(fixed).mean()
            for what, step in steps.items():
                changed = (self.image + STEP * step).clamp(0, 1)
                numbers[what] = (self.losses(self.logits(changed)).mean() - before).item()
            mirrored = predict(self.logits(self.image.flip(-1)).flip(-1))[1]
            brighter = predict(self.logits((self.image * 1.05).clamp(0, 1)))[1]
            numbers["moves"] = _moved(fixed, self.logits(self.image))
            state = [*state, *["unsteady"] * (numbers["moves"] > STEADY)]
            numbers |= _range(fixed) | {
                "sure": _share((fixed.softmax(1).amax(1) >= 1) | saturated),
                "flipped": _share(mirrored == prediction),
                "brighter": _share(brighter == prediction),
            }
            classes, prepared = self.model.num_classes, self.prepared()
            counts = {what: self.counts(seen) for what, seen in {"": prediction, **prepared}.items()}
            pairs = torch.bincount((self.labels * classes + prediction)[self.counted], minlength=classes**2)
        return _Seen(self.name, numbers, state, pairs.view(classes, classes).cpu().double(), counts)

    def slope(self, logits: Tensor, seed: int) -> tuple[dict[str, float], Collection[str], dict[str, Tensor]]:
        """What the gradient is like, what must be said of it, and the directions to step in."""
        first, second = logits.topk(2, dim=1).values.unbind(1)
        with at_border(f"the backward pass of model {self.model.name!r}", self.image.shape):
            (own,) = torch.autograd.grad(self.losses(logits).sum(), self.image, retain_graph=True)
            (margins,) = torch.autograd.grad((first - second).sum(), self.image)  # which no confidence makes flat
        self.ledger.enter("preflight", backward=2)
        flat = {"flat": _share((own == 0).movedim(1, -1)[self.counted])}
        if not bool(own.isfinite().all()):
            return flat, ("broken",), {}
        still, deaf = (not bool(each.any()) for each in (own, margins))
        noise = Randomness(seed, (self.name,)).normal(tuple(own.shape[1:]), "preflight").to(own)
        steps = {"climb": own.sign(), "noise": noise.sign()}
        return flat, ["still"] * still + ["deaf"] * (still and deaf), steps

    def logits(self, images: Tensor, model: Segmenter | None = None) -> Tensor:
        """One forward pass."""
        self.ledger.enter("preflight", forward=1)
        return (model or self.model).logits(images)

    def losses(self, logits: Tensor) -> Tensor:
        """Cross-entropy of each labelled pixel."""
        labels = self.labels.masked_fill(~self.counted, 0)
        return functional.cross_entropy(logits, labels, reduction="none")[self.counted]

    def prepared(self) -> dict[str, Tensor]:
        """What is predicted under each other preparation of the colours."""
        known = others(self.model.normalisation, self.image.shape[1])
        return {w: predict(self.logits(self.image, replace(self.model, normalisation=c)))[1] for w, c in known.items()}

    def counts(self, prediction: Tensor) -> Counts:
        """What a prediction is worth."""
        labels = self.labels.masked_fill(~self.counted, VOID)
        return count(prediction.cpu(), labels.cpu(), self.model.num_classes, VOID)


def _share(which: Tensor) -> float:
    return which.double().mean().item()


def _moved(logits: Tensor, again: Tensor) -> float:
    """Largest difference of two passes, as a share of the largest logit."""
    return float((again - logits).abs().amax() / logits.abs().amax().clamp_min(torch.finfo(logits.dtype).tiny))


def _range(logits: Tensor) -> dict[str, float]:
    total = logits.sum(1)
    ends = {"low": logits.amin(), "high": logits.amax(), "least": total.amin(), "most": total.amax()}
    return {name: value.item() for name, value in ends.items()}


def _together(known: Measured, looks: Sequence[_Seen]) -> Measured:
    """Over the images."""

    def over(what: str) -> list[float]:
        return [look.numbers[what] for look in looks if what in look.numbers]

    means = {what: over(what) for what in ("sure", "flat", "climb", "noise", "flipped", "brighter")}
    named = ("still", "deaf", "broken", "unsteady")
    states = {what: tuple(look.image for look in looks if what in look.state) for what in named}
    counts = {what: Counts.joined(look.counts[what] for look in looks) for what in looks[0].counts}
    own = counts.pop("")
    confusion = torch.stack([look.confusion for look in looks]).sum(0)
    order = list(renaming(confusion.long()))
    right, reordered = (confusion[range(len(order)), columns].sum() for columns in (range(len(order)), order))
    renamed = confusion[:, order].long()
    found: dict[str, Any] = {what: math.fsum(each) / len(each) for what, each in means.items() if each}
    return replace(
        known,
        **found | states,
        moves=max(over("moves")),
        low=min(over("low")),
        high=max(over("high")),
        total=(min(over("least")), max(over("most"))),
        kappa=kappa(own),
        miou=miou(own),
        right=float(right / confusion.sum()),
        reordered=float(reordered / confusion.sum()),
        order=tuple(order),
        reordered_miou=miou(Counts(renamed.diagonal()[None], renamed.sum(0)[None], renamed.sum(1)[None])),
        prepared={what: (kappa(each), miou(each)) for what, each in counts.items()},
    )
