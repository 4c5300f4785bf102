"""Sanity verdicts on how the attacks of a run went: against each other, against their budgets, and by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from segradius.attacks.make import references
from segradius.evaluation.evidence import SANITY, Evidence, Grade, Said, Tried
from segradius.metrics.intervals import LEAST, Difference, paired_difference

#: By how much an attack must do worse than one that it should beat, as a share of the pixels, and how sure that is.
POINT, ALPHA = 0.005, 0.05
#: What more steps may still gain before an attack is said not to have converged.
GAIN = 0.01
#: Of these, options say how long an attack goes on.
LENGTHS = ("steps", "queries", "marks", "judge_every")
#: Share of an attack's effect that rounding to 8 bits may take, and which effect is one.
HALF, EFFECT = 0.5, 0.02
#: Below it a change by ε is undone by rounding to 8 bits.
HALF_LEVEL = 0.5 / 255


@dataclass(frozen=True)
class Pair:
    """An attack that should be at least as strong as another, and what it left of each image more than that."""

    strong: Tried
    weak: Tried
    images: int
    more: Difference

    @property
    def told(self) -> str:
        """In words."""
        sign, way = (-1, "less") if self.more.mean <= 0 else (1, "more")
        ends = sorted(100 * sign * end for end in (self.more.low, self.more.high))
        around = "" if math.isnan(self.more.low) else f" [{ends[0]:.1f}, {ends[1]:.1f}]"
        points = f"{100 * abs(self.more.mean):.1f}{around} points {way}"
        return f"{self.strong.title} leaves {points} than {self.weak.title}, over {self.images} images"


def paired(pairs: Iterable[tuple[Tried, Tried]]) -> list[Pair]:
    """Pairs of an attack and one that it should beat, tested so that all of them together err in 5 % of runs."""
    chosen = list(pairs)
    found = []
    for strong, weak in chosen:
        ids = [image for image in strong.left if image in weak.left]
        left = ([each.left[image] for image in ids] for each in (strong, weak))
        found.append(Pair(strong, weak, len(ids), paired_difference(*left, level=1 - ALPHA / len(chosen))))
    return found


def judged(pairs: Sequence[Pair], grade: Callable[[Pair], Grade], advice: str, lacking: Said) -> Said:
    """A verdict on pairs: whether any attack does worse than the one that it should beat, by more than chance.

    Args:
        pairs: From `paired`.
        grade: Of one that does.
        advice: For that.
        lacking: Where there is no pair.
    """
    if not pairs:
        return lacking
    known = [pair for pair in pairs if not math.isnan(pair.more.low)]
    if not known:
        images = max(pair.images for pair in pairs)
        return Said("open", f"{images} images are too few to tell", f"give {LEAST} images or more", pairs[0].more.mean)
    wrong = [pair for pair in known if pair.more.low > 0 and pair.more.mean > POINT]
    worst = max(wrong or known, key=lambda pair: (bool(wrong) and grade(pair) == "fail", pair.more.mean))
    return Said(grade(worst) if wrong else "pass", worst.told, advice if wrong else "", worst.more.mean)


def threats(tried: Sequence[Tried]) -> Iterator[list[Tried]]:
    """The attacks of each norm and budget."""
    for threat in dict.fromkeys(each.plan.threat for each in tried):
        yield [each for each in tried if each.plan.threat == threat]


def strongest(tried: Sequence[Tried]) -> Tried:
    """The one that leaves least, over the images that all have."""
    ids = [image for image in tried[0].left if all(image in each.left for each in tried)]
    return min(tried, key=lambda each: math.fsum(each.left[image] for image in ids))


@SANITY.register("iterative")
def _iterative(it: Evidence) -> Said:
    pairs, best = list[tuple[Tried, Tried]](), list[Tried]()
    for alike in threats([each for each in it.tried if not each.asks]):
        longer = [each for each in alike if each.steps > 1]
        best += [strongest(longer)] if longer else []
        for one in (each for each in alike if each.steps == 1 and longer):
            pairs += [(each, one) for each in longer if each is best[-1] or _is_iteration(each, one)]
    return judged(
        paired(pairs),
        lambda pair: "fail" if any(pair.strong is each for each in best) else "warn",
        "an attack of many steps that does worse than one step follows a gradient that leads nowhere, or its step is "
        "too long: try dag or flips, and a black-box attack (square)",
        Said("open", "no single step stands beside an attack of many in one threat model", "add fgsm to --attack"),
    )


def _is_iteration(longer: Tried, one: Tried) -> bool:
    """Whether an attack is the steps of another, many times."""
    mine, theirs = (each.plan.options for each in (longer, one))
    return longer.plan.name in references() and all(mine.get(o) == theirs.get(o) for o in ("loss", "weighting"))


def _longer(tried: Sequence[Tried]) -> list[tuple[Tried, Tried]]:
    """Attacks that are the same but for how long they go on, each with the next shorter one."""
    groups: dict[str, list[Tried]] = {}
    for each in tried:
        rest = {name: value for name, value in each.plan.options.items() if name not in LENGTHS}
        groups.setdefault(repr((each.plan.name, each.plan.threat, sorted(rest.items(), key=str))), []).append(each)
    ordered = (sorted(group, key=lambda each: each.steps) for group in groups.values())
    return [(more, fewer) for group in ordered for fewer, more in pairwise(group) if more.steps > fewer.steps]


NO_LENGTHS = Said(
    "open", "no attack stands beside itself with more steps", "give it twice, with twice the steps, in a --plan"
)


@SANITY.register("steps")
def _steps(it: Evidence) -> Said:
    advice = "more steps find less: choose their length (alpha), or an attack that adapts it (apgd, flip_apgd)"
    return judged(paired(_longer(it.tried)), lambda pair: "warn", advice, NO_LENGTHS)


@SANITY.register("converged")
def _converged(it: Evidence) -> Said:
    pairs = paired(_longer(it.tried))
    last = [pair for pair in pairs if not any(pair.strong is other.weak for other in pairs)]
    known = [pair for pair in last if not math.isnan(pair.more.high)]
    if not known:
        return judged(last, lambda pair: "warn", "", NO_LENGTHS)
    most = min(known, key=lambda pair: pair.more.high)
    if most.more.high < -GAIN:
        return Said("warn", most.told, "it has not converged: give it more steps", most.more.mean)
    return Said("pass", most.told, "", most.more.mean)


@SANITY.register("budget")
def _budget(it: Evidence) -> Said:
    groups: dict[str, list[Tried]] = {}
    for each in it.tried:
        options = sorted(each.plan.options.items(), key=str)
        groups.setdefault(repr((each.plan.name, each.plan.norm, options)), []).append(each)
    ordered = (sorted(group, key=lambda each: each.plan.eps) for group in groups.values())
    pairs = paired((larger, smaller) for group in ordered for smaller, larger in pairwise(group))
    advice = (
        "what lies in the smaller ball lies in the larger one, so the attack does not find what there is: give it more "
        "steps, or one that adapts its step (apgd, flip_apgd)"
    )
    lacking = Said("open", "no attack was run with two budgets of one norm", "give two, as --eps linf=2/255,4/255")
    return judged(pairs, lambda pair: "fail", advice, lacking)


@SANITY.register("black_box")
def _black_box(it: Evidence) -> Said:
    pairs = []
    for alike in threats(it.tried):
        white, black = [each for each in alike if not each.asks], [each for each in alike if each.asks]
        if white and black:
            best = strongest(white)
            pairs += [(best, each) for each in black]
    found = judged(
        paired(pairs),
        lambda pair: "warn" if pair.strong.steps == 1 else "fail",
        "an attack that knows less finds more, so the gradient is masked or the white-box attack is too weak: give it "
        "more steps, dag or flips; believe the smaller figure",
        Said("open", "no black-box attack stands beside a white-box one in one threat model", "add square to --attack"),
    )
    lost = [_beaten(*pair) for pair in pairs]
    if found.verdict == "open" or not lost:
        return found
    images, most = sum(each for each, _ in lost), sum(each for _, each in lost)
    return found._replace(
        text=f"{found.text}; in {images} of {most} pairs of an image the black-box attack leaves less"
    )


def _beaten(white: Tried, black: Tried) -> tuple[int, int]:
    """Of how many images the black-box attack leaves less by a point, and of how many both are known."""
    ids = [image for image in white.left if image in black.left]
    return sum(white.left[image] > black.left[image] + 0.01 for image in ids), len(ids)


# -- each attack by itself --


@SANITY.register("ball")
def _ball(it: Evidence) -> Said:
    rows = [row for row in it.summary.rows if row.sanity is not None and row.images]
    if not rows:
        return Said("open", "nothing was attacked", "give --attack")
    longest = max(row.sanity.length_over_eps for row in rows if row.sanity)
    outside = max(row.sanity.outside for row in rows if row.sanity)
    text = f"the longest perturbation has {longest:.6g} times the length ε, and values lie {outside:.2g} outside [0, 1]"
    if longest > 1 + 1e-4 or outside > 1e-6:
        return Said("fail", text, "the attack leaves its threat model: report it", max(longest - 1, outside))
    return Said("pass", text, "", longest)


@SANITY.register("twice")
def _twice(it: Evidence) -> Said:
    shares = [row.sanity.disagreement for row in it.summary.rows if row.sanity is not None]
    known = [share for share in shares if not math.isnan(share)]
    if not known:
        return Said("open", "no adversarial image was judged twice, as each answer has its price or there is none")
    text = f"at most {max(known):.2%} of the predictions differ when adversarial images are judged again"
    if max(known) > 1e-3:
        return Said("fail", text, "is a dropout or noise left on, or do images of a batch mix?", max(known))
    return Said("pass", text, "", max(known))


@SANITY.register("rounded")
def _rounded(it: Evidence) -> Said:
    clean = it.summary.rows[0].pixacc.value
    rows = [(row, row.rounded) for row in it.summary.rows if row.norm is not None and row.images]
    known = [(row, eight, clean - row.pixacc.value) for row, eight in rows if eight is not None]
    if not known or it.summary.targeted:
        way = "aimed at a class, its effect is not in the accuracy" if known else "each look at a target has its price"
        return Said("open", f"what is left after rounding to 8 bits was not judged: {way}")
    lost = [(eight.pixacc.value - row.pixacc.value) / max(effect, EFFECT) for row, eight, effect in known]
    worst = lost.index(max(lost))
    row, eight, effect = known[worst]
    text = (
        f"in images of 8 bits {row.name} ({row.norm}, ε = {row.eps:.4g}) leaves {eight.pixacc.value:.1%} of the pixels "
        f"right, where it left {row.pixacc.value:.1%}, and ε is {eight.eps:.4g}"
    )
    if lost[worst] > HALF and effect >= EFFECT:
        return Said("warn", text, "such an attack does not survive a camera or a file of 8 bits", lost[worst])
    return Said("pass", text, "", lost[worst])


@SANITY.register("finite")
def _finite(it: Evidence) -> Said:
    if not it.tried:
        return Said("open", "nothing was attacked", "give --attack")
    spoilt = {row.name: row.invalid for row in it.summary.rows if row.norm is not None and row.invalid}
    if not spoilt:
        return Said("pass", "all logits under attack were finite", "", 0.0)
    named = ", ".join(f"{count} under {name}" for name, count in spoilt.items())
    advice = "these images are in no figure, and an attack that finds NaN is not one that fails: look for it"
    return Said("warn", f"logits became NaN or infinite on images: {named}", advice, max(spoilt.values()))


@SANITY.register("eps")
def _eps(it: Evidence) -> Said:
    if "eps" in it.found:
        found = it.found["eps"]
        return Said("warn", found.text, found.advice, found.value)
    budgets = [eps for norm, eps in it.facts.threats if norm == "linf"]
    told = [f"{norm} ε = {eps:.4g}{_levels(norm, eps)}" for norm, eps in it.facts.threats]
    if not told:
        return Said("open", "nothing was attacked", "give --attack")
    low = min(budgets, default=math.nan)
    if low < HALF_LEVEL:
        text = f"linf ε = {low:.4g} is {255 * low:.2g} of a grey level: rounding to 8 bits gives the image back"
        return Said("warn", text, "no camera or file of 8 bits can hold such an attack: take ε of 1/255 or more", low)
    return Said("pass", ", ".join(told), "", low)


def _levels(norm: str, eps: float) -> str:
    return f" ({255 * eps:.3g} grey levels)" if norm == "linf" else ""
