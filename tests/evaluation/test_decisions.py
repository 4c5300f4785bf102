"""Verdicts on numbers: each of the four, of a drop and of a bound; and rows that are judged together."""

from __future__ import annotations

import math

import pytest
import torch
from statsmodels.stats.weightstats import DescrStatsW

from segradius.core.errors import InputError
from segradius.evaluation import About, Bound, Pairs, Verdict, judged, of_values
from segradius.evaluation.decisions import of_bound, of_drop, worst
from segradius.evaluation.drops import of_counts
from segradius.metrics import Counts, Interval, count, jackknife, miou


def row(name: str, gaps: list[float], allowed: float | None = 0.02) -> Pairs:
    before = {f"{k}": 0.8 for k in range(len(gaps))}
    return of_values(About("", name, "l2", 1.0, "PixAcc"), before, {x: 0.8 - gaps[int(x)] for x in before}, allowed)


NOISE = [0.004, -0.003, 0.002, -0.004, 0.003, -0.002, 0.001, -0.001, 0.0, 0.001]


@pytest.mark.parametrize(
    ("mean", "scale", "expected"),
    [
        (0.0, 1, Verdict.PASS),
        (-0.1, 1, Verdict.PASS),
        (0.01, 1, Verdict.WARN),
        (0.1, 1, Verdict.BLOCK),
        (0.02, 1, Verdict.INCONCLUSIVE),
        (0.03, 40, Verdict.INCONCLUSIVE),
        (0.0, 40, Verdict.INCONCLUSIVE),
    ],
)
def test_each_verdict_of_a_drop(mean: float, scale: float, expected: Verdict):
    found = judged([row("pgd", [mean + scale * each for each in NOISE])])
    assert found.rows[0].verdict is found.verdict is expected
    assert bool(found.rows[0].why) is (expected is not Verdict.PASS)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_images_are_inconclusive_however_large_the_drop(n: int):
    found = judged([row("pgd", [0.5 + 0.001 * k for k in range(n)])])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too few" in found.rows[0].why


def test_nothing_to_compare_is_inconclusive():
    assert judged([]).verdict is Verdict.INCONCLUSIVE
    found = judged([row("pgd", NOISE), Pairs(About("", "sea", "l2", 1.0, "PixAcc"), allowed=0.02, missing="gone")])
    assert [each.verdict for each in found.rows] == [Verdict.PASS, Verdict.INCONCLUSIVE]
    assert found.rows[1].why == "gone"
    assert math.isnan(found.rows[1].drop.value)


def test_the_overall_verdict_is_the_worst():
    rows = [row("a", NOISE), row("b", [0.2 + each for each in NOISE]), row("c", [0.02 + each for each in NOISE])]
    assert judged(rows).verdict is Verdict.BLOCK
    assert worst(each.verdict for each in judged(rows[::2]).rows if each.verdict) is Verdict.INCONCLUSIVE


def test_an_image_that_the_candidate_lacks_keeps_a_row_from_passing_but_not_from_blocking():
    for mean, expected in ((0.0, Verdict.INCONCLUSIVE), (0.2, Verdict.BLOCK)):
        before = {str(k): 0.8 for k in range(11)}
        after = {str(k): 0.8 - mean - each for k, each in enumerate(NOISE)} | {"10": math.nan}
        found = judged([of_values(About("", "pgd", "l2", 1.0, "PixAcc"), before, after, 0.02)]).rows[0]
        assert found.verdict is expected
    assert of_drop(
        Interval(0.0, 0.0, 0.0), 0.02, beyond=1.0, any_at_all=1.0, level=0.95, images=9, lacking=("a\x1b",)
    ) == (Verdict.INCONCLUSIVE, "1 images of the baseline have no figure of the candidate: a\\x1b")


def test_among_many_rows_one_may_be_beyond_what_is_allowed_by_chance():
    generator = torch.Generator().manual_seed(0)
    rows = [row(str(k), torch.randn(8, generator=generator).double().tolist(), 0.0) for k in range(40)]
    alone = [judged([each]).rows[0].verdict for each in rows]
    assert Verdict.BLOCK in alone
    together = judged(rows)
    assert Verdict.BLOCK not in {each.verdict for each in together.rows}
    assert any("not among all rows" in each.why for each in together.rows)


def test_a_row_without_an_allowance_is_told_and_changes_no_other():
    alone = judged([row("pgd", NOISE)])
    both = judged([row("pgd", NOISE), row("sea", [9 * each for each in NOISE], None)])
    assert both.rows[0] == alone.rows[0]
    assert both.rows[1].verdict is None
    assert math.isfinite(both.rows[1].drop.low)


def test_the_influence_of_images_on_the_iou_has_its_mean_and_the_error_of_the_jackknife():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (9, 4, 6), generator=generator)
    sides = [
        count(labels.where(torch.rand(9, 4, 6, generator=generator) < right, (labels + 1) % 3), labels, 3)
        for right in (0.9, 0.7)
    ]
    pairs = of_counts(About("", "clean", "", 0.0, "MIoU"), miou, list("abcdefghi"), *sides)
    gaps = torch.tensor(list(pairs.gaps.values()))
    assert float(gaps.mean()) == pytest.approx(miou(sides[0]) - miou(sides[1]))
    parts = torch.cat([miou.parts(side) for side in sides], 1)
    theirs = jackknife(
        parts, lambda sums: miou.finish(sums[..., :6]) - miou.finish(sums[..., 6:]), shares=False, least=2
    )
    low, high = DescrStatsW(gaps.numpy()).tconfint_mean()
    assert (theirs.low, theirs.high) == pytest.approx((low, high))


def test_a_class_that_is_in_no_image_of_a_side_is_missing():
    labels = torch.zeros(2, 1, 3, dtype=torch.int64)
    counts = count(labels, labels, 2)
    absent = Counts(*(part[:, 1:] for part in (counts.intersection, counts.predicted, counts.labelled)))
    pairs = of_counts(About("", "clean", "", 0.0, "IoU"), miou, ["a", "b"], absent, absent, 0.1)
    assert judged([pairs]).rows[0].why == "it occurs in no image of one of the two"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("low >= 0.6", Verdict.PASS),
        ("low > 0.6", Verdict.INCONCLUSIVE),
        ("low >= 0.81", Verdict.BLOCK),
        ("high <= 0.8", Verdict.PASS),
        ("high <= 0.7", Verdict.INCONCLUSIVE),
        ("high < 0.6", Verdict.BLOCK),
        ("high >= 0.75", Verdict.PASS),
        ("high >= 0.85", Verdict.BLOCK),
        ("low <= 0.5", Verdict.BLOCK),
        ("value >= 7/10", Verdict.PASS),
        ("value < 0.7", Verdict.BLOCK),
    ],
)
def test_each_verdict_of_a_bound(words: str, expected: Verdict):
    verdict, why = of_bound(Bound.read(words), Interval(0.7, 0.6, 0.8), images=24)
    assert verdict is expected
    assert bool(why) is (expected is not Verdict.PASS)


def test_a_bound_on_an_end_that_is_not_there_is_inconclusive():
    alone = Interval(0.7, math.nan, math.nan)
    assert of_bound(Bound.read("low >= 0.1"), alone, images=24) == (Verdict.INCONCLUSIVE, "there is no low end")
    assert of_bound(Bound.read("value >= 0.1"), alone, images=24)[0] is Verdict.PASS


@pytest.mark.parametrize("words", ["low", "low => 0.5", "low >= half", "mean >= 0.5", 0.5, None, "low >= nan", ""])
def test_what_is_no_bound_is_refused(words: object):
    with pytest.raises(InputError, match="require is"):
        Bound.read(words)
