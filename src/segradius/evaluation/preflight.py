"""What is probably a mistake though nothing forbids it: found before a pass is spent on attacks, and told everywhere.

A check is a function of `Facts` that is registered in `CHECKS`; it says what it saw and what to do, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import torch

from segradius.core.bands import bands_of
from segradius.core.contracts import SCORES, Seen
from segradius.core.registry import Registry
from segradius.data.sample import SegmentationData
from segradius.evaluation.attack import Attacking
from segradius.evaluation.batch import class_names, is_priced, structure_names
from segradius.evaluation.job import DataChoice, ModelChoice, Study
from segradius.evaluation.probe import PREPARATIONS, Measured, chosen, measure, of_samples
from segradius.evaluation.store import CLEAN, Store
from segradius.metrics.agreement import kappa, one_class
from segradius.metrics.counts import Counts
from segradius.models.decoding import Decoding
from segradius.models.doubts import Doubt, doubts
from segradius.models.segmenter import Segmenter


@dataclass(frozen=True)
class Finding:
    """Something that is probably a mistake.

    Attributes:
        name: Of the check.
        text: What was seen.
        advice: What to do.
        value: The figure behind it; NaN for none.
    """

    name: str
    text: str
    advice: str
    value: float = math.nan

    @property
    def line(self) -> str:
        """For people.

        Example:
            >>> Finding("void", "3 of 4 pixels have no label", "look at the masks", 0.75).line
            '3 of 4 pixels have no label: look at the masks'
        """
        return f"{self.text}: {self.advice}"


@dataclass(frozen=True)
class Facts:
    """All that a check looks at.

    Attributes:
        model: As it was asked for.
        data: As they were asked for.
        ids: Of all images.
        names: Of the model's classes.
        labels: How many classes the data have.
        threats: Norms and budgets of the attacks.
        follows: Whether an attack follows the gradient.
        counts: What the predictions for the unattacked images are worth, of those judged so far.
        whole: Whether those are all images, and all of the data set.
        sure: Share of the pixels of a target's answers that are exactly 1, over the images; NaN where not known.
        seen: What a few images show.
        doubts: What the model knows of itself: no weights, no normalisation.
        losses: Label and loss of each attack that takes one.
        ignore_index: The label of pixels without a class.
        structures: Names of those whose sets the classes are.
        outputs: What a network in this process returns, as `segradius.models.decoding.Decoding` has it.
    """

    model: ModelChoice
    data: DataChoice
    ids: Sequence[str]
    names: tuple[str, ...]
    labels: int
    threats: tuple[tuple[str, float], ...]
    follows: bool
    counts: Counts
    whole: bool
    sure: float
    seen: Measured
    doubts: tuple[Doubt, ...] = ()
    losses: tuple[tuple[str, str], ...] = ()
    ignore_index: int = 255
    structures: tuple[str, ...] = ()
    outputs: str = ""


Check = Callable[[Facts], Finding | None]
#: Checks by the name of what they find.
CHECKS: Registry[Check] = Registry("check")


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What the model says of itself, then what the checks say, in the order of their names."""
    own = (Finding(doubt.name, doubt.text, doubt.advice) for doubt in facts.doubts)
    return *own, *(found for name in CHECKS if (found := CHECKS[name](facts)) is not None)


def look_at(study: Study, model: Seen, data: SegmentationData, store: Store) -> Facts:
    """The facts as they are now; the few images are looked at where the store does not have that yet.

    Args:
        study: What is run.
        model: Its model.
        data: Its images.
        store: Its results so far; what was measured is noted there.

    Raises:
        InputError: The network gives sigmoids where logits are expected.
    """
    tasks, network = [job.task for job in study.jobs], _network(model)
    attacks = [task for task in tasks if isinstance(task, Attacking)]
    plans, follows = [task.plan for task in attacks], any(not task.asks for task in attacks)
    judged, aside = store.results(CLEAN), store.all_set_aside()
    mine = [judged[image].pixels for image in data.ids if image in judged]
    all_of_it = study.data.limit is None and study.data.stride == 1
    ids = data.ids if is_priced(model) and SCORES in model.offers else ()
    sure = [float(kept) for image in ids if (kept := store.record(CLEAN, image)) is not None]
    return Facts(
        study.model,
        study.data,
        data.ids,
        class_names(data.classes, model.num_classes),
        len(data.classes),
        tuple(dict.fromkeys(plan.threat for plan in plans)),
        follows,
        Counts.of(mine),
        all_of_it and len(mine) + len(aside) == len(data.ids),
        math.fsum(sure) / len(sure) if sure else math.nan,
        _measured(study, model, data, store, gradient=follows),
        () if network is None else tuple(doubts(network)),
        tuple(dict.fromkeys((plan.label, plan.options["loss"]) for plan in plans if "loss" in plan.options)),
        data.classes.ignore_index,
        structure_names(data.classes, model),
        _outputs_of(network),
    )


def _network(model: Seen) -> Segmenter | None:
    """A network in this process, also where it is asked as a target."""
    layer: object = model
    while layer is not None and not isinstance(layer, Segmenter):
        layer = getattr(layer, "target", None)
    return layer


def _outputs_of(network: Segmenter | None) -> str:
    return network.decode.kind if network is not None and isinstance(network.decode, Decoding) else ""


def _measured(study: Study, model: Seen, data: SegmentationData, store: Store, *, gradient: bool) -> Measured:
    """What was noted, if it is of these images; measured anew, and noted, otherwise."""
    predicted = study.data.predicted
    samples = chosen(data, model.num_classes, labels=not predicted, bands=bands_of(model))
    kept = store.noted("preflight")
    if kept is not None:
        known = Measured.of(kept)
        if known.images == tuple(sample.id for sample in samples) and known.gradient >= gradient:
            return known
    found = measure(model, data, samples, study.seed, gradient=gradient, predicted=predicted)
    store.note("preflight", found.as_dict())
    return found


def of_data(data: SegmentationData, threat: tuple[str, float] | None = None) -> tuple[Finding, ...]:
    """What the checks say of images and masks to be learnt, and of the threat that a network is hardened against."""
    classes, nothing = data.classes, ModelChoice("")
    seen = of_samples(chosen(data, len(classes)), classes.ignore_index)
    threats = () if threat is None else (threat,)
    choice, none = DataChoice(data.name), Counts.of([])
    facts = Facts(nothing, choice, data.ids, classes.names, len(classes), threats, False, none, False, math.nan, seen)
    return findings(replace(facts, ignore_index=classes.ignore_index))


def told(facts: Facts, found: Sequence[Finding]) -> dict[str, Any]:
    """What goes into ``results.json``: every warning, and what was looked at for them."""
    passes = {"forward": facts.seen.forward, "backward": facts.seen.backward}
    return {
        "warnings": [asdict(each) for each in found],
        "preflight": {"images": list(facts.seen.images), "ledger": {"preflight": passes}},
    }


def warnings(found: Sequence[Finding]) -> list[str]:
    """What stands under a table."""
    return [f"Warning ({each.name}): {each.line}{'' if each.line.endswith('?') else '.'}" for each in found]


#: How near the best MIoU another preparation of the colours, or order of classes, is as likely.
NEAR = 0.02


def better_prepared(it: Facts) -> dict[str, float]:
    """MIoU under the preparations of the colours that are clearly better, and as good as each other.

    A few images do not tell ImageNet's normalisation from ±1, so the order is that of `PREPARATIONS`, not of MIoU.
    """
    fine = {what: it.seen.prepared[what][1] for what in PREPARATIONS if it.seen.prepared.get(what, (0, 0))[0] >= 0.4}
    best = max(fine.values(), default=math.nan)
    if not best >= it.seen.miou + 0.1:
        return {}
    return {what: miou for what, miou in fine.items() if miou >= best - NEAR}


# -- predictions and labels --


@CHECKS.register("constant")
def _constant(it: Facts) -> Finding | None:
    top = one_class(it.counts)
    if top is None:
        return None
    _, predicted, labelled = _totals(it.counts)
    share, rest = ((part / whole).item() for part, whole in (
        (predicted[top], predicted.sum()), (labelled.sum() - labelled[top], labelled.sum())
    ))  # fmt: skip
    text = f"{share:.1%} of the pixels are predicted as {it.names[top]}, and {rest:.1%} are something else"
    advice = "such a model passes as robust; is a normalisation missing, or were the weights not loaded?"
    return Finding("constant", text, advice, share)


@CHECKS.register("chance")
def _chance(it: Facts) -> Finding | None:
    _, _, labelled = _totals(it.counts)
    if not labelled.sum() or labelled.max() > 0.98 * labelled.sum() or one_class(it.counts) is not None:
        return None
    beyond = kappa(it.counts)
    if not beyond < 0.1:
        return None
    text = f"labels and predictions agree no more than by chance (kappa {beyond:.2f})"
    return Finding("chance", text, "are these the labels, the weights and the order of the classes?", beyond)


@CHECKS.register("order")
def _order(it: Facts) -> Finding | None:
    seen = it.seen
    if not seen.reordered > max(seen.right + 0.2, 0.5):
        return None
    prepared = better_prepared(it)
    if prepared and not max(prepared.values()) < seen.reordered_miou - NEAR:
        return None  # that is explained by the colours
    moved = [(c, to) for c, to in enumerate(seen.order) if c != to]
    pairs = ", ".join(f"{it.names[c]} is predicted as {it.names[to]}" for c, to in moved[:3])
    more = ", …" if len(moved) > 3 else ""
    shares = f"{seen.right:.1%} of the pixels are right, and {seen.reordered:.1%}"
    text = f"{shares} in another order of classes ({pairs}{more})"
    return Finding("order", text, "are data and model agreed on the order of the classes?", seen.reordered)


@CHECKS.register("unlabelled")
def _unlabelled(it: Facts) -> Finding | None:
    _, predicted, labelled = _totals(it.counts)
    never = [c for c in range(len(labelled)) if not labelled[c] and predicted[c]]
    share = (predicted[never].sum() / predicted.sum()).item() if never else 0.0
    if share < 0.2 or one_class(it.counts) is not None:
        return None
    named = ", ".join(it.names[c] for c in sorted(never, key=lambda c: -predicted[c])[:3])
    text = f"{share:.1%} of the labelled pixels are predicted as classes that no pixel is labelled as ({named})"
    return Finding("unlabelled", text, "are these the classes of the model, and the masks of these images?", share)


# -- the data --


@CHECKS.register("void")
def _void(it: Facts) -> Finding | None:
    if not it.seen.void > 0.5:
        return None
    text = f"{it.seen.void:.1%} of the pixels looked at have no label and count nowhere"
    return Finding("void", text, "is a class of the masks read as void?", it.seen.void)


@CHECKS.register("one_label")
def _one_label(it: Facts) -> Finding | None:
    judged = _totals(it.counts)[2].nonzero().flatten().tolist()
    labelled = {*it.seen.labelled, *judged}
    if it.labels < 2 or len(labelled) != 1 or not it.seen.void > 0:
        return None
    (only,) = labelled
    text = f"all labelled pixels are of one class ({it.names[only]}), and {it.seen.void:.1%} of all looked at are void"
    advice = (
        f"is that the foreground, which is read as void (label {it.ignore_index})? Then give it a class of its own, by "
        "values in the YAML or by another label"
    )
    return Finding("one_label", text, advice, it.seen.void)


@CHECKS.register("images")
def _images(it: Facts) -> Finding | None:
    blank, looked = len(it.seen.blank), len(it.seen.images)
    if it.seen.same:
        text = f"the {looked} images looked at are one and the same"
    elif blank:
        text = f"{blank} of {looked} images looked at are of one colour"
    else:
        return None
    return Finding("images", text, "are the files read as they should be?", blank)


@CHECKS.register("empty")
def _empty(it: Facts) -> Finding | None:
    if it.structures:
        return _without_structure(it)
    _, predicted, labelled = (total.tolist() for total in _totals(it.counts))
    lacking = [c for c, pixels in enumerate(labelled[: it.labels]) if not pixels]
    if not it.whole or not lacking:
        return None
    verb = "has" if len(lacking) == 1 else "have"
    text = f"{len(lacking)} of {it.labels} classes {verb} no labelled pixel in the data ({_named(it, lacking)})"
    said = [c for c in lacking if predicted[c]]
    if not said:
        enters = "MIoU leaves out what is not predicted either, as here; what an attack has predicted counts with 0"
    elif said == lacking:
        enters = "MIoU counts each with 0, as it is predicted"
    else:
        rest = [c for c in lacking if not predicted[c]]
        enters = (
            f"MIoU counts what is predicted with 0 ({_named(it, said)}), and leaves out the rest ({_named(it, rest)})"
        )
    return Finding("empty", text, f"are the masks read as they should be? {enters}", len(lacking))


def _without_structure(it: Facts) -> Finding | None:
    """Most sets of structures are rare, so it is the structures that are looked for."""
    found = it.counts.foreground
    if not it.whole or found is None:
        return None
    lacking = [name for name, pixels in zip(it.structures, found.labelled.sum(0).tolist(), strict=True) if not pixels]
    if not lacking:
        return None
    text = f"{', '.join(lacking)}: no labelled pixel in the data"
    advice = "are the masks read as they should be? A structure that is not predicted either has no Dice and no IoU"
    return Finding("empty", text, advice, len(lacking))


def _named(it: Facts, classes: Sequence[int]) -> str:
    """At most five of them."""
    return ", ".join(it.names[c] for c in classes[:5]) + ", …" * (len(classes) > 5)


#: Names of folders with images that a network has learnt, and with others.
LEARNT = {"train", "training", "trn"}
HELD_OUT = {"val", "valid", "validation", "test", "testing", "eval", "dev"}


@CHECKS.register("split")
def _split(it: Facts) -> Finding | None:
    first = [PurePosixPath(image).parts[0].casefold() for image in it.ids if "/" in image]
    learnt = sum(part in LEARNT for part in first)
    if it.data.split is not None or not learnt or not HELD_OUT & set(first):
        return None
    text = f"{learnt} of {len(it.ids)} images are of a training part, which the network may have learnt by heart"
    return Finding("split", text, "give --split test, or val", learnt / len(it.ids))


# -- the attacks --

#: Budgets below or above which a mistaken unit is likelier than an attack, for images in [0, 1].
USUAL = {"l1": (10.0, math.inf), "l2": (0.1, math.inf), "linf": (0.0, 0.5)}


@CHECKS.register("eps")
def _eps(it: Facts) -> Finding | None:
    for norm, eps in it.threats:
        low, high = USUAL.get(norm, (0.0, math.inf))
        if eps < low:
            text = f"{norm} ε = {eps:.4g} is the length of the whole change of an image, which is hardly any change"
            return Finding("eps", text, f"for a change of {eps:.4g} in every value give --eps linf={eps:.4g}", eps)
        if math.isfinite(eps) and eps > high:
            text = f"{norm} ε = {eps:.4g} for images in [0, 1] leaves nothing of an image"
            return Finding("eps", text, f"was {eps:.4g}/255 meant?", eps)
    return None


def _totals(counts: Counts) -> tuple[torch.Tensor, ...]:
    """Right, predicted and labelled pixels of each class."""
    return counts.intersection.sum(0), counts.predicted.sum(0), counts.labelled.sum(0)


# Registers its checks; not found by the room, whose other files bring certification.
import segradius.evaluation.model_checks  # noqa: E402, F401
