"""Why two deployments do not agree, in words with advice, by what explains most of it; and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from segradius.evaluation.agree_summary import AgreementSummary
from segradius.evaluation.facts import Finding

#: Share of the pixels from which on two deployments agree, unless asked otherwise.
LEAST = 0.99
#: Share of the disagreement that a cause must explain to be told.
EXPLAINS = 0.5
#: Disagreement below which nothing is looked for: rounding at the boundaries of classes.
ROUNDING = 1e-4
#: What a verdict means, in words.
VERDICTS = {
    "agree": "the two deployments agree",
    "shifted": "the second sees everything moved",
    "scaled": "the second sees everything larger or smaller",
    "renamed": "the second has other numbers for the classes",
    "prepared": "the two prepare images in different ways",
    "left out": "the second never says a class that the first says",
    "added": "the second says a class that the first never says",
    "boundary": "the two differ at boundaries of classes only",
    "differ": "the two differ, and nothing that was tried explains it",
}


@dataclass(frozen=True)
class Tried:
    """What another preparation of images comes to, on a few images.

    Attributes:
        images: How many those are.
        of: Whose images were prepared otherwise: ``"first"`` or ``"second"``; empty where nothing was tried.
        as_is: Share of their pixels that agree as things are.
        shares: By name of the preparation, the share that then agrees.
        written: By name, what ``--normalisation`` takes for it.
        why_not: Why nothing was tried.
    """

    images: int = 0
    of: str = ""
    as_is: float = math.nan
    shares: Mapping[str, float] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    why_not: str = ""


def causes_of(it: AgreementSummary, tried: Tried) -> tuple[Finding, ...]:
    """What explains at least half of the disagreement, the cause that explains most first; its ``value`` is how much.

    Args:
        it: What was found.
        tried: Other preparations of images.
    """
    if it.pixacc.value >= 1 - ROUNDING:
        return ()
    found = [cause for cause in (_shifted(it), _scaled(it), _renamed(it), _prepared(it, tried)) if cause]
    found += [cause for cause in (_left_out(it), _added(it)) if cause]
    return tuple(sorted((cause for cause in found if cause.value >= EXPLAINS), key=lambda cause: -cause.value))


def verdict_of(it: AgreementSummary, causes: Sequence[Finding], least: float = LEAST) -> str:
    """One of `VERDICTS`.

    Args:
        it: What was found.
        causes: From `causes_of`.
        least: Share of the pixels that must agree.
    """
    if it.pixacc.value >= least and not it.invalid:
        return "agree"
    if causes:
        return causes[0].name
    return "boundary" if it.interior.value >= least and not it.invalid else "differ"


def _shifted(it: AgreementSummary) -> Finding | None:
    if it.shift == (0, 0):
        return None
    where = f"({it.shift[0]}, {it.shift[1]}) (rows down, columns to the right)"
    text = f"moved by {where}, {_rise(it.unshifted, it.shift_share)}"
    advice = "one of the two crops, pads or resizes otherwise, or is a pixel off (align_corners, half-pixel centres)"
    return Finding("shifted", text, advice, it.cleared(it.shift_share, it.unshifted))


def _scaled(it: AgreementSummary) -> Finding | None:
    (top, left), (_, right), (bottom, _), _ = it.quarters
    if (bottom, right) == (top, left):
        return None
    text = (
        f"the shift is {left:+d} columns at the left and {right:+d} at the right, {top:+d} rows at the top and "
        f"{bottom:+d} below; with each quarter moved by its own, {_rise(it.unshifted, it.quarters_share)}"
    )
    advice = "one of the two resizes images, or its answers, to another size or from another corner (align_corners)"
    # Each quarter has a choice of its own, which rises by chance too: what one shift explains counts for more.
    gain = it.cleared(it.quarters_share, it.unshifted) - 0.05
    return Finding("scaled", text, advice, gain if gain > it.cleared(it.shift_share, it.unshifted) else 0.0)


def _renamed(it: AgreementSummary) -> Finding | None:
    moved = [(c, it.order[c]) for c in it.seen if it.order and it.order[c] != c]
    if not moved:
        return None
    told = ", ".join(f"{it.names[a]} is {b}" for a, b in moved[:6]) + ", …" * (len(moved) > 6)
    text = f"with classes renamed ({told}), {_rise(it.pixacc.value, it.renamed)}"
    steps = {b - a for a, b in moved}
    offset = len(steps) == 1 and len(moved) == len(it.seen)
    advice = (
        "one of the two has another list of classes, or another order of channels: compare both with the training's"
    )
    if offset:
        advice = f"all numbers are {abs(next(iter(steps)))} apart: does one of the two count a background class?"
    elif len(it.names) == 2:
        advice = "yes and no are swapped: does one of the two count the background as the answer?"
    return Finding("renamed", text, advice, it.cleared(it.renamed))


def _prepared(it: AgreementSummary, tried: Tried) -> Finding | None:
    if not tried.shares:
        return None
    name, share = max(tried.shares.items(), key=lambda pair: pair[1])
    whose = f"the {tried.of}'s images prepared as {name}"
    text = f"with {whose}, {_rise(tried.as_is, share)} on {tried.images} image{'s' * (tried.images > 1)}"
    flag = "--normalisation" if tried.of == "first" else "--other-normalisation"
    advice = (
        f"red and blue swapped, or another normalisation: what the {tried.of} would need to be like the other is "
        f"{flag} {tried.written[name]}; if the {tried.of} is right, the other needs what the {tried.of} has"
    )
    return Finding("prepared", text, advice, it.cleared(share, tried.as_is))


def _left_out(it: AgreementSummary) -> Finding | None:
    alone, value = it.only(0)
    if not alone:
        return None
    told = ", ".join(it.names[c] for c in alone[:6])
    text = f"the second never says {told}, which is {value:.0%} of the disagreement"
    rest = [it.names[c] for c in it.seen if c not in alone]
    if len(alone) > 1 and len(rest) == 1:  # of two classes the one that is left may be all that it was made to say
        return Finding("left out", text, f"it says {rest[0]} everywhere: has it the weights of the first?", value)
    which = "that class" if len(alone) == 1 else "those classes"
    advice = f"does it leave {which} out of its argmax, or threshold, or crop its channels?"
    return Finding("left out", text, advice, value)


def _added(it: AgreementSummary) -> Finding | None:
    alone, value = it.only(1)
    if not alone:
        return None
    told = ", ".join(it.names[c] for c in alone[:6])
    text = f"the second says {told}, which the first never says: {value:.0%} of the disagreement"
    return Finding("added", text, "is that an unsure, void or background class of the deployment?", value)


def _rise(before: float, after: float) -> str:
    return f"{after:.2%} of the pixels agree, and {before:.2%} without"
