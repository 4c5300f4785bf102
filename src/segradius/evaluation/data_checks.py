"""Checks of predictions against labels, of the data, and of the budgets of attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

import torch

from segradius.evaluation.facts import CHECKS, NEAR, Facts, Finding, better_prepared
from segradius.metrics.agreement import kappa, one_class
from segradius.metrics.counts import Counts

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


#: Below it the largest value of several images is hardly that of images in [0, 1].
DARK = 0.25


@CHECKS.register("dark")
def _dark(it: Facts) -> Finding | None:
    top = it.seen.brightest
    if not top < DARK or len(it.seen.images) < 2 or len(it.seen.blank) == len(it.seen.images):
        return None
    text = f"no value of the {len(it.seen.images)} images looked at is above {top:.3g}, of 1 at most"
    advice = "is the range right? Files of 16 bits from a camera of 12 have range: [0, 4095], not that of their type"
    return Finding("dark", text, advice, top)


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
