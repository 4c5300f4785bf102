"""The passes that a dry run tells are those that a run then makes."""

from __future__ import annotations

import math

import pytest

from segradius.evaluation import (
    Certification,
    CrossChecking,
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Run,
    Smoothing,
    Store,
    execute,
    make_plans,
    open_choice,
    open_images,
)
from segradius.evaluation.expecting import Passes, Price, expected, priced
from segradius.evaluation.run import clean_job

MODEL, DATA = ModelChoice("demo"), DataChoice("scenes:24x32", limit=2)
WHITE = ["pgd", "cr_pgd", "fgsm", "segpgd", "dag", "apgd", "flip_apgd", "cr_apgd"]


def made(experiment) -> tuple[list[Passes | None], list[set[tuple[int, int]]]]:
    """Passes that are expected, and those over each image, of every job."""
    run = Run(experiment, open_choice(MODEL), open_images(DATA), 2)
    jobs = (clean_job(run), *experiment.jobs)
    with Store(":memory:") as store:
        execute(run, store, InProcess())
        found = []
        for job in jobs:
            rounded = store.rounded(job.key)
            looks = {image: rounded[image].passes if image in rounded else 0 for image in run.data.ids}
            each = store.results(job.key).items()
            found.append({_sums((*it.passes.values(), (looks[image], 0))) for image, it in each})
    return [expected(job, run) for job in jobs], found


def _sums(books) -> tuple[int, int]:
    return sum(forward for forward, _ in books), sum(backward for _, backward in books)


@pytest.mark.parametrize("options", [{"steps": 3}, {"steps": 3, "restarts": 2}])
def test_of_white_box_attacks_they_are_exact(options):
    told, found = made(Experiment(MODEL, DATA, make_plans(WHITE, [("l2", 1.0), ("linf", 0.01)], options)))
    assert [{(each.forward, each.backward)} for each in told] == found
    assert not any(each.at_most for each in told)


def test_of_black_box_attacks_they_are_at_most():
    told, found = made(Experiment(MODEL, DATA, make_plans(["square", "cr_pbgd"], [("l2", 1.0)], {"queries": 30})))
    for each, (passes,) in zip(told[1:], map(tuple, found[1:]), strict=True):
        assert each.at_most
        assert passes[0] <= each.forward <= passes[0] + 30
        assert passes[1] == each.backward == 0


@pytest.mark.parametrize("radii", ["none", "one"])
def test_of_certificates_they_are_exact_and_of_attacks_on_them_at_most(radii):
    checks = CrossChecking(("pgd",), 2, 3, 9, weakest=(1, 4))
    told, found = made(Certification(MODEL, DATA, Smoothing(0.1, 5, 60, radii=radii), 0, checks))
    assert [(told[0].forward, told[0].backward), (told[1].forward, told[1].backward)] == [(1, 0), (65, 0)]
    assert found[:2] == [{(1, 0)}, {(65, 0)}]
    for forward, backward in found[2]:
        assert 0 < forward <= told[2].forward
        assert 0 < backward <= told[2].backward
    if radii == "none":
        assert found[2] == {(told[2].forward, told[2].backward)}


def test_a_price_is_of_what_is_differentiated_and_what_is_not():
    assert Price(2.0, 5.0).of(Passes(10, 4)) == 6 * 2 + 4 * 5
    assert Price(2.0).of(Passes(10)) == 20
    assert math.isnan(Price(2.0).of(Passes(10, 4)))
    run = Run(Experiment(MODEL, DATA, ()), open_choice(MODEL), open_images(DATA))
    found = priced(run)
    assert 0 < found.forward < math.inf
    assert 0 < found.both < math.inf
    target = ModelChoice("demo", scores_only=True)
    assert priced(Run(Experiment(target, DATA, ()), open_choice(target), open_images(DATA))) is None
