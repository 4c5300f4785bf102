"""Sanity verdicts on the network and the data: from what was seen before the attacks, and from a look at two images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from segradius.evaluation.attack_summary import without_gradient
from segradius.evaluation.evidence import SANITY, Evidence, Grade, Said
from segradius.evaluation.sanity_probe import SMALL, TINY, Probed

#: Findings after which figures are not to be believed as they are.
GRAVE = {"constant", "chance", "weights", "unsteady", "state", "batch"}
#: What PGD may leave in the whole box: more is worth a look, and much more a failure.
SOME, MUCH = 0.1, 0.3
#: Between which the loss's own rise over what the gradient promises may lie; of which order it must be.
FAIR, ORDER = (0.6, 1.5), (0.1, 10.0)
#: Of a change in a random direction, what the gradient may miss, over its length.
MISSED = 0.5
#: Between which the response to a tiny change may lie, over that to a small one; what may be common to opposite ones.
EVEN_RATIO, COMMON = (0.6, 1.67), 0.5
#: Share of the largest logit by which another image in the batch may move logits.
STEADY = 1e-3


def of_findings(it: Evidence, names: Sequence[str], fine: Said) -> Said:
    """What the checks before the attacks said under some names, as one verdict; ``fine`` where they said nothing."""
    found = [it.found[name] for name in names if name in it.found]
    if not found:
        return fine
    grade: Grade = "fail" if any(each.name in GRAVE for each in found) else "warn"
    advice = "; ".join(each.advice for each in found)
    return Said(grade, "; ".join(each.text for each in found), advice, found[0].value)


def probing(check: Callable[[Evidence, Probed], Said]) -> Callable[[Evidence], Said]:
    """A check of what two images show, which is open where they were not looked at."""

    def checked(it: Evidence) -> Said:
        if it.probed is None:
            why, _, way = it.unlooked.partition(": ")
            return Said("open", why, way)
        if not it.probed.images:
            return Said("open", f"no image could be looked at: {it.probed.failed}", "run it again with more memory")
        found = check(it, it.probed)
        return found._replace(text=f"{it.made_on}: {found.text}") if it.made_on else found

    return checked


def _looked(it: Evidence) -> Said | None:
    """Open, where the network was not looked at before the attacks either."""
    if it.facts.seen.forward:
        return None
    return Said("open", "the network's answers were not looked at, as each has its price", "give it as --model")


# -- the network --


@SANITY.register("steady")
def _steady(it: Evidence) -> Said:
    moves = it.facts.seen.moves
    fine = Said("pass", f"two passes over one image differ by {moves:.1g} of the largest logit", "", moves)
    return _looked(it) or of_findings(it, ["unsteady"], fine)


@SANITY.register("state")
def _state(it: Evidence) -> Said:
    fine = Said("pass", "no pass changes a buffer, or switches a part of the network to training mode", "", 0.0)
    return _looked(it) or of_findings(it, ["state"], fine)


@SANITY.register("batch")
@probing
def _batch(it: Evidence, probed: Probed) -> Said:
    most = max(probed.mixed)
    text = f"another image in the batch moves logits by {most:.2g} of the largest"
    advice = "images of a batch mix, as in a batch norm in training mode: turn it off, or give --batch-size 1"
    if "batch" in it.found:
        return Said("fail", it.found["batch"].text, it.found["batch"].advice, most)
    if "unsteady" in it.found:
        return Said("open", "two passes over one image differ by themselves", "make the network steady", most)
    return Said("fail", text, advice, most) if most > STEADY else Said("pass", text, "", most)


@SANITY.register("logits")
def _logits(it: Evidence) -> Said:
    seen, sure = it.facts.seen, it.facts.seen.sure if it.facts.seen.forward else it.facts.sure
    if math.isnan(sure) and not seen.forward:
        return Said("open", "no scores were seen", "give the network as --model")
    spread = f"logits from {seen.low:.3g} to {seen.high:.3g}, and " if seen.forward else ""
    fine = Said("pass", f"{spread}{sure:.1%} of the pixels with a confidence of exactly 1", "", sure)
    return of_findings(it, ["outputs", "saturated"], fine)


@SANITY.register("gradient")
def _gradient(it: Evidence) -> Said:
    shares = [len(row.sanity.zero_gradient) / max(1, row.images) for row in it.summary.rows if row.sanity is not None]
    if "gradient" in it.found:
        found = it.found["gradient"]
        grade: Grade = "warn" if found.text.startswith(f"{it.facts.seen.flat:.1%}") else "fail"
        return Said(grade, found.text, found.advice, found.value)
    if still := without_gradient(it.summary):
        most = max(still, key=lambda each: each.value)
        return Said("fail" if 2 * max(shares) >= 1 else "warn", most.text, most.advice, max(shares))
    if it.probed is not None and it.probed.broken:
        text = f"the gradient became NaN or infinite on the way of PGD, on {len(it.probed.broken)} of 2 images"
        return Said("warn", text, "look for a root or a logarithm of zero in the network", len(it.probed.broken))
    if it.made_on:
        return Said("pass", f"no attack met a gradient of {it.made_on} that is zero throughout, or NaN", "", 0.0)
    if not it.facts.seen.gradient:
        return Said("open", "no attack of this run follows the gradient", "add pgd to --attack")
    flat = it.facts.seen.flat
    return Said("pass", f"{flat:.2%} of the gradient's values are exactly zero, and none is NaN", "", flat)


@SANITY.register("masked")
def _masked(it: Evidence) -> Said:
    seen = it.facts.seen
    if not seen.gradient or math.isnan(seen.climb):
        return Said("open", "no step along a gradient was made before the attacks", "add pgd to --attack")
    if "masked" in it.found:
        found = it.found["masked"]
        return Said("fail", found.text, found.advice, found.value)
    text = f"a step along the gradient raises the loss by {seen.climb:.3g}, a random one as long by {seen.noise:.3g}"
    return Said("pass", text, "", seen.climb - seen.noise)


@SANITY.register("huge")
@probing
def _huge(it: Evidence, probed: Probed) -> Said:
    left, right = max(probed.left), max(probed.right)
    text = (
        f"PGD that may change an image into any other leaves up to {left:.1%} of the pixels right, of {right:.1%} "
        f"({len(probed.images)} images)"
    )
    advice = (
        "no network sees through an image that is another: the gradient leads nowhere, so every figure here is too "
        "high; ask it as a --target, by black-box attacks"
    )
    if left > SOME:
        return Said("fail" if left > MUCH else "warn", text, advice, left)
    return Said("pass", text, "", left)


@SANITY.register("rises")
@probing
def _rises(it: Evidence, probed: Probed) -> Said:
    least, of = min(probed.risen), probed.risen.index(min(probed.risen))
    text = f"the cross-entropy rises by {least:.3g} or more along PGD in the whole box"
    if not least > 0 and probed.right[of] > 0:
        text = f"along PGD in the whole box the cross-entropy of {probed.images[of]} never rises above its start"
        return Said("fail", text, "the attack follows a gradient that does not raise what it follows: see huge", least)
    return Said("pass", text, "", least)


def _untold(it: Evidence, probed: Probed) -> Said | None:
    """Why small changes of the answers tell nothing."""
    if "unsteady" in it.found:
        return Said("open", "two passes over one image differ by themselves", "make the network steady")
    if probed.coarse:
        text = f"the network computes in {probed.dtype}, whose own steps hide all others"
        return Said("open", text, "give --dtype float32 for this check")
    if not any(probed.risen) and not any(probed.ratio) and not abs(it.facts.seen.noise) > 0:
        return Said("open", "the answers do not depend on the images that were looked at", "see huge and fit")
    return None


def _has_steps(probed: Probed) -> bool:
    """Whether answers move in steps under tiny changes, of any image."""
    pairs = zip(probed.ratio, probed.even, strict=True)
    return any(not EVEN_RATIO[0] <= ratio <= EVEN_RATIO[1] or even > COMMON for ratio, even in pairs if ratio == ratio)


@SANITY.register("smooth")
@probing
def _smooth(it: Evidence, probed: Probed) -> Said:
    known = [ratio for ratio in probed.ratio if ratio == ratio]
    if untold := _untold(it, probed):
        return untold
    if not known:
        return Said(
            "open", "changes so small are lost in rounding of the logits", "give --dtype float64 for this check"
        )
    worst = max(known, key=lambda ratio: abs(math.log(max(ratio, 1e-9))))
    sizes = f"changes of {255 * TINY:.2g} and {255 * SMALL:.2g} grey levels"
    if not _has_steps(probed):
        return Said("pass", f"{sizes} move the logits in proportion, {worst:.3g} to 1", "", worst)
    text = (
        "changes of an 8-bit image below its grey levels do not move the logits at all"
        if worst == 0
        else f"{sizes} do not move the logits in proportion, but {worst:.3g} to 1, as steps do"
    )
    advice = (
        "something in the network rounds, compresses or thresholds: its gradient is none, or a stand-in (a straight-"
        "through estimator); attack what is behind it too, and add a black-box attack (square)"
    )
    return Said("warn", text, advice, worst)


@SANITY.register("derivative")
@probing
def _derivative(it: Evidence, probed: Probed) -> Said:
    if untold := _untold(it, probed):
        return untold
    if _has_steps(probed):
        return Said("open", "the answers move in steps, of which there is no derivative", "see smooth")
    slopes = [slope for slope in probed.slope if slope == slope]
    across = max((abs(each) for each in probed.across if each == each), default=math.nan)
    if not slopes:
        return Said("open", "the loss hardly moves on the images that were looked at", "see gradient and logits")
    worst = max(slopes, key=lambda slope: abs(math.log(max(slope, 1e-9))))
    text = f"along the gradient the loss rises {worst:.3g} times as much as the gradient says"
    more = f", and across it the gradient misses {across:.2g} of its own length" if across > MISSED else ""
    advice = (
        "the gradient is not that of the network: is a part detached, replaced in the backward pass, or scaled? "
        "Attack it as a --target, by black-box attacks, too"
    )
    if not ORDER[0] < worst < ORDER[1]:
        return Said("fail", text + more, advice, worst)
    if not FAIR[0] <= worst <= FAIR[1] or more:
        return Said("warn", text + more, advice, worst)
    return Said("pass", text, "", worst)


# -- the data, and whether the network is theirs --

#: What the network says of itself, and what its predictions say of it.
FIT = (
    "weights",
    "constant",
    "chance",
    "normalisation",
    "undeclared",
    "swapped",
    "assumed",
    "order",
    "agreement",
    "hooks",
)


@SANITY.register("fit")
def _fit(it: Evidence) -> Said:
    clean = it.summary.rows[0]
    said = "agrees with its own predictions" if it.summary.predicted else "is right"
    fine = f"the network {said} at {clean.pixacc.value:.1%} of the pixels unattacked, MIoU {clean.miou.value:.3f}"
    return of_findings(it, FIT, Said("pass", fine, "", clean.pixacc.value))


@SANITY.register("void")
def _void(it: Evidence) -> Said:
    share = it.facts.seen.void
    if math.isnan(share):
        return Said("open", "no masks were looked at", "give masks; with --labels predicted there are none", share)
    fine = Said("pass", f"{share:.1%} of the pixels looked at have no label, and count nowhere", "", share)
    return of_findings(it, ["void", "one_label"], fine)


@SANITY.register("labels")
def _labels(it: Evidence) -> Said:
    if it.facts.data.predicted:
        return Said("open", "the network's own predictions stand for labels", "give masks")
    absent = [row.name for row in it.summary.rows[0].classes if not row.pixels]
    text = "every class has labelled pixels" if not absent else f"no labelled pixel of {', '.join(absent[:5])}"
    more = ", …" if len(absent) > 5 else ""
    fine = Said("pass", f"{text}{more} in the images of this run", "", len(absent))
    return of_findings(it, ["empty", "unlabelled", "classes"], fine)


@SANITY.register("images")
def _images(it: Evidence) -> Said:
    seen = it.facts.seen
    fine = f"the largest value of the {len(seen.images)} images looked at is {seen.brightest:.3g}, of 1 at most"
    return of_findings(it, ["images", "dark", "split"], Said("pass", fine, "", seen.brightest))
