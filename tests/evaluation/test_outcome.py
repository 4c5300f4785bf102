"""The digest of results: equal for equal results, another where any number of a row differs."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.evaluation import (
    AttackPlan,
    DataChoice,
    Experiment,
    ImageResult,
    Kept,
    ModelChoice,
    Store,
)
from segradius.evaluation.outcome import Digest, digest_of
from segradius.evaluation.trace import ImageTrace
from segradius.metrics.counts import Pixels

PLAN = AttackPlan("pgd", "l2", 0.5)
IDS = ("a", "b", "c")


def study(spec: str = "demo", data: str = "folder:data") -> Experiment:
    return Experiment(ModelChoice(spec, fingerprint=spec), DataChoice(data), (PLAN,))


def result(image: str, seconds: float = 1.0) -> ImageResult:
    pixels, passes = Pixels([3, 4], [5, 6], [7, 8]), {"attack": [3, 3]}
    return ImageResult(image, pixels, {"m": pixels}, 2, 9, 1.5, 0.25, 0.125, 0.0, 1, passes, True, seconds)


def digest(rows: list[ImageResult], it: Experiment | None = None, aside: tuple[str, ...] = (), trace=None) -> Digest:
    it = it or study()
    with Store(":memory:") as store:
        for row in rows:
            traces = {} if trace is None else {row.image: trace}
            store.add(it.key(it.attacks[0]), [row], Kept(traces=traces))
        for image in aside:
            store.set_aside(image, f"folder/{random.random()} cannot be read")
        return digest_of(it, store, IDS)


def test_order_time_paths_and_reasons_do_not_count():
    rows = [result(image) for image in IDS[:2]]
    whole = digest(rows, aside=("c",))
    assert digest([replace(row, seconds=9.0) for row in reversed(rows)], aside=("c",)) == whole
    assert digest(rows, study(data="folder:/elsewhere/data"), aside=("c",)) == whole
    assert digest([*rows, result("of another run")], aside=("c",)) == whole


def test_last_digits_of_a_length_leave_the_digest_and_shorter_ones_the_counts():
    rows = [result(image) for image in IDS]
    whole = digest(rows)
    assert digest([replace(row, l2=row.l2 * (1 + 1e-12)) for row in rows]) == whole
    other = digest([replace(row, l2=row.l2 * (1 + 1e-6)) for row in rows])
    assert other.results != whole.results
    assert other.counts == whole.counts


def test_an_image_that_is_missing_or_set_aside_makes_another_digest():
    rows = [result(image) for image in IDS]
    found = [digest(rows), digest(rows[:2]), digest(rows[:2], aside=("c",)), digest(rows[1:]), digest([])]
    assert len({each.results for each in found}) == len({each.counts for each in found}) == 5


COUNTED = ("image", "pixels", "members", "hit", "eligible", "passes", "valid")
CHANGED = {
    "image": "c",
    "pixels": Pixels([3, 4], [6, 5], [7, 8]),
    "members": {},
    "passes": {"attack": [3, 2]},
    "valid": False,
    "disagreement": None,
}


@settings(deadline=None)
@given(st.sampled_from([f.name for f in fields(ImageResult) if f.name != "seconds"]), st.integers(1, 10**6))
def test_whatever_differs_in_a_row_makes_another_digest(name: str, by: int):
    rows = [result(image) for image in IDS[:2]]
    whole, old = digest(rows), getattr(rows[1], name)
    new = CHANGED[name] if name in CHANGED else old + (by if isinstance(old, int) else by / 10**6)
    other = digest([rows[0], replace(rows[1], **{name: new})])
    assert other.results != whole.results
    assert (other.counts != whole.counts) == (name in COUNTED)


def test_how_an_attack_went_is_a_result():
    trace = ImageTrace((2,), (True,), (0.25,), (1.0,), (0.5,))
    whole = digest([result("a")], trace=trace)
    assert digest([result("a")], trace=replace(trace, loss=(0.26,))).results != whole.results
    assert digest([result("a")], trace=trace) == whole


@pytest.mark.parametrize("options", [{"steps": 3}, {"eps": 0.6}, {"norm": "linf"}])
def test_an_attack_with_other_options_has_another_digest(options):
    plan = {"name": "pgd", "norm": "l2", "eps": 0.5} | {k: v for k, v in options.items() if k != "steps"}
    other = replace(study(), attacks=(AttackPlan(**plan, options={k: v for k, v in options.items() if k == "steps"}),))
    assert digest([result("a")], other).counts != digest([result("a")]).counts
