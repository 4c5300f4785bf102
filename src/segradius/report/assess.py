"""What an assessment found, in plain words: what is left under attack, what that means, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segradius.core.escapes import visible
from segradius.metrics.intervals import LEAST, Interval
from segradius.report.cells import Cells, share
from segradius.report.story import as_interval

#: Share of what was right that is still right, and what that is called.
KEPT = (
    (0.95, "keeps nearly all that it got right"),
    (0.8, "loses a noticeable part of what it got right"),
    (0.5, "loses up to half of what it got right"),
    (0.1, "loses most of what it got right"),
    (-math.inf, "has hardly anything left of what it got right"),
)

#: A class whose IoU falls by less is not worth a sentence.
TOLD = 0.01


@dataclass(frozen=True)
class Left:
    """What the attacks left at one budget.

    Attributes:
        norm: Of the budget ε.
        eps: It.
        attack: The strongest, by its label.
        attacks: How many were run.
        pixacc: Share of the pixels that is right under whichever attack did worst on each image.
        rounded: The same of the strongest attack's images rounded to 8 bits; None where it was not measured.
        images: Behind it.
        hardest: The class that lost most, and its IoU unattacked and then; None where none lost a hundredth.
    """

    norm: str
    eps: float
    attack: str
    attacks: int
    pixacc: Interval
    rounded: Interval | None
    images: int
    hardest: tuple[str, Interval, Interval] | None = None

    @property
    def budget(self) -> str:
        """For people, after "changes of".

        Example:
            >>> few, one, long = (Left(*threat, "sea", 3, Interval(0.5, 0.4, 0.6), None, 8) for threat in EXAMPLES)
            >>> few.budget, one.budget, long.budget
            ('at most 4 of 255 grey levels', 'at most 1 of 255 grey levels', 'an l2 length of at most 1.5')
        """
        if self.norm == "linf":
            return f"at most {255 * self.eps:.3g} of 255 grey levels"
        return f"an {self.norm} length of at most {self.eps:.4g}"


EXAMPLES = (("linf", 4 / 255), ("linf", 1 / 255), ("l2", 1.5))


def left_of(rows: Sequence[Mapping[str, Any]]) -> list[Left]:
    """What was left at each budget, from the rows of results.json, by norm and budget.

    Args:
        rows: As they are.
    """
    found = []
    attacked = [row for row in rows if row["norm"] is not None and row["images"]]
    for norm, eps in sorted({(row["norm"], row["eps"]) for row in attacked}, key=_order):
        alike = [row for row in attacked if (row["norm"], row["eps"]) == (norm, eps)]
        own = [row for row in alike if not row["name"].startswith("worst of ")]
        worst = next((row for row in alike if row["name"].startswith("worst of ")), own[0])
        best = min(own, key=lambda row: row["pixacc"]["value"])
        rounded = (best.get("rounded") or {}).get("pixacc")
        found.append(
            Left(
                norm,
                eps,
                best["name"],
                len(own),
                as_interval(worst["pixacc"]),
                None if rounded is None else as_interval(rounded),
                worst["images"],
                _hardest(rows[0], worst),
            )
        )
    return found


def _hardest(clean: Mapping[str, Any], worst: Mapping[str, Any]) -> tuple[str, Interval, Interval] | None:
    """The class that lost most of its IoU: of a few pixels among many a share of right pixels says nothing."""
    before = {each["name"]: as_interval(each["iou"]) for each in clean.get("classes") or ()}
    after = {each["name"]: as_interval(each["iou"]) for each in worst.get("classes") or ()}
    fallen = {name: before[name].value - left.value for name, left in after.items() if name in before}
    found = max((name for name, fall in fallen.items() if fall >= TOLD), key=fallen.__getitem__, default=None)
    return None if found is None else (found, before[found], after[found])


def _order(threat: tuple[str, float]) -> tuple[bool, str, float]:
    """What a camera can tell first."""
    norm, eps = threat
    return norm != "linf", norm, eps


def assessment_table(clean: Interval, left: Sequence[Left], *, predicted: bool) -> Cells:
    """One line for the unattacked images, and one for each budget."""
    what = "kept %" if predicted else "right %"
    header = ("changes of", "attacks", "strongest", what, "after rounding to 8 bits %")
    rows = [["nothing", "", "", share(clean), ""]]
    for each in left:
        rounded = "–" if each.rounded is None else share(each.rounded)
        rows.append([each.budget, str(each.attacks), each.attack, share(each.pixacc), rounded])
    images = left[0].images if left else 0
    return Cells(f"What is left of the pixels, per cent [95 % interval over {counted(images)}]", header, rows)


def assessment_lines(
    clean: Interval,
    left: Sequence[Left],
    verdicts: Sequence[Mapping[str, Any]],
    left_out: Sequence[str],
    *,
    predicted: bool,
    whole: int,
) -> Iterator[str]:
    """What was found, what it means, and what it does not mean, in sentences.

    Args:
        clean: Share of the pixels that is right unattacked.
        left: From `left_of`.
        verdicts: Sanity verdicts of results.json.
        left_out: Attacks for which there was no budget.
        predicted: Whether the model's own predictions are the labels.
        whole: Images of the data set.
    """
    images = left[0].images if left else 0
    what = "keep the class that the model gave them unattacked" if predicted else "are right"
    for each in left:
        kept = each.pixacc.value if predicted else each.pixacc.value / clean.value if clean.value else math.nan
        words = next(words for least, words in KEPT if kept >= least) if not math.isnan(kept) else "is not known"
        words = words.replace("it got right", "it said") if predicted else words
        yield f"Under changes of {each.budget} the model {words}: {share(each.pixacc)} % of the pixels {what}."
        if each.hardest is not None:
            name, before, after = each.hardest
            yield f"  Hit hardest: {visible(name)}, whose IoU falls from {share(before)} to {share(after)} %."
        if each.rounded is not None and each.rounded.value - each.pixacc.value > 0.05:
            yield (
                f"  Stored with 8 bits, the changes do less: {share(each.rounded)} %. That is the figure for images "
                "that go through a camera or a file."
            )
    yield from _checked(verdicts)
    if images < LEAST:
        few = "is" if images == 1 else "are"
        yield f"{counted(images)} {few} too few for an interval: nothing is known of other images. Give more budget."
    elif images < whole:
        told = "from everywhere in the data; the intervals say what others may give."
        yield f"These are {images} of {whole} images, {told}"
    yield (
        "What was found is an upper bound: these attacks succeeded, and a stronger one may find more. It says nothing "
        "of changes of another kind: patches, weather, blur, shifts."
    )
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        yield f"Left out for want of budget: {names}. More of it in the same folder adds them."


def _checked(verdicts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How the sanity checks went, those that failed or warn with advice."""
    by = {grade: [each for each in verdicts if each["verdict"] == grade] for grade in ("pass", "open", "warn", "fail")}
    if not verdicts:
        return
    yield (
        f"Sanity checks: {len(by['pass'])} passed, {len(by['warn'])} warn, {len(by['fail'])} failed, {len(by['open'])} "
        "could not be made."
    )
    for each in (*by["fail"], *by["warn"]):
        advice = f": {each['advice']}" if each["advice"] else ""
        yield f"  {each['name']} ({each['verdict']}): {each['text']}{advice}."
    if by["fail"]:
        yield "  A check that failed means that the figures above may say more of the measurement than of the model."


def certified_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a quick certificate proved, from its results.json."""
    sigma = report["experiment"]["smoothing"]["sigma"]
    for row in report["rows"]:
        if row["name"] == "segcertify":
            yield (
                f"Proved, of the model smoothed by noise of σ = {sigma:g}: {share(as_interval(row['pixacc']))} % of "
                f"the pixels are right, and no change of an l2 length below {row['radius']:.3g} turns them, on "
                f"{counted(report['images'])}."
            )


def counted(images: int) -> str:
    """So many images.

    Example:
        >>> counted(1), counted(8)
        ('1 image', '8 images')
    """
    return f"{images} image{'s' * (images != 1)}"
