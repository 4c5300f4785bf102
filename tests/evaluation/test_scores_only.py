"""Running attacks on targets: what is asked, what is counted, and what is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from threshold_model import Memory, grey, threshold

from segradius.core.errors import InputError
from segradius.evaluation import (
    CLEAN,
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Run,
    Store,
    execute,
    make_plans,
    per_image_csv,
    summarise,
    traces_csv,
    work,
)
from segradius.models import wrap
from segradius.targets import Harsh, LabelsOnly, Metered

PLANS = make_plans(["local_search", "pbgd"], [("linf", 0.1)], {"queries": 9, "local_search.tile": 1})
EXPERIMENT = Experiment(ModelChoice("threshold", scores_only=True), DataChoice("memory"), PLANS)
DATA = Memory(
    [
        grey(0, [[0.2, 0.45, 0.55, 0.8]], [[0, 0, 1, 1]]),
        grey(1, [[0.2, 0.45, 0.8, 0.55]], [[1, 0, 1, 255]]),
        grey(2, [[0.45, 0.45], [0.8, 0.8]], [[0, 0], [1, 1]]),
    ]
)
MODEL = wrap(lambda x: 9 * threshold(x), num_classes=2, name="threshold")


def run(store: Store, model, experiment: Experiment = EXPERIMENT, **more) -> Run:
    given = Run(experiment, model, DATA, **more)
    execute(given, store, InProcess(model, DATA))
    return given


def test_every_look_is_in_a_ledger_and_nothing_is_judged_twice():
    target = Metered(MODEL)
    with Store(":memory:") as store:
        run(store, target)
        rows = summarise(EXPERIMENT, store, DATA.ids).rows
    ledgers = [row.ledger for row in rows if not row.name.startswith("worst")]
    assert ledgers[0] == {"judging": {"forward": 3, "backward": 0}}
    assert sum(book["forward"] for ledger in ledgers for book in ledger.values()) == target.answered
    assert rows[1].sanity.disagreement != rows[1].sanity.disagreement  # NaN


def test_a_target_and_its_network_come_to_the_same_figures():
    with Store(":memory:") as asked, Store(":memory:") as seen:
        run(asked, Metered(MODEL))
        run(seen, MODEL, shown=DATA.ids)
        ours, theirs = (per_image_csv(EXPERIMENT, store, DATA.ids).splitlines() for store in (asked, seen))
        assert traces_csv(EXPERIMENT, asked, DATA.ids) == traces_csv(EXPERIMENT, seen, DATA.ids)
        for plan in PLANS:
            key = EXPERIMENT.key(plan)
            for image in DATA.ids:
                assert torch.equal(asked.example(key, image), seen.example(key, image))
                found = MODEL.logits(asked.example(key, image)[None]).argmax(1)[0]
                assert torch.equal(asked.prediction(key, image), found)
        assert [line.split(",")[:10] for line in ours] == [line.split(",")[:10] for line in theirs]


def test_another_attack_and_another_picture_ask_no_more_than_they_must():
    target = Metered(MODEL)
    one = replace(EXPERIMENT, attacks=PLANS[:1])
    with Store(":memory:") as store:
        run(store, target, one)
        before = target.answered
        run(store, target, one, shown=DATA.ids)
        assert target.answered == before
        run(store, target)
        spent = sum(sum(f for f, _ in r.passes.values()) for r in store.results(EXPERIMENT.key(PLANS[1])).values())
        assert target.answered - before == spent
        assert torch.equal(store.prediction(CLEAN, "image 0"), torch.tensor([[0, 0, 1, 1]]))


def test_progress_is_counted_in_queries():
    told = []
    with Store(":memory:") as store:
        given = Run(EXPERIMENT, Metered(MODEL), DATA, 2, progress=lambda job, queries: told.append(queries))
        assert work(given, store) == 2 * 9 * 3
        assert all(job.task.unit == "queries" for job in EXPERIMENT.jobs)
        execute(given, store, InProcess(given.model, DATA))
    assert sum(told) == 2 * 9 * 3


@pytest.mark.parametrize(
    ("names", "target", "message"),
    [
        (["pbgd", "pgd"], Metered(MODEL), "pgd needs the gradients of the model, and threshold gives scores only"),
        (["pbgd"], Harsh(MODEL, (LabelsOnly(),)), "pbgd looks at scores, and the target returns labels only"),
    ],
)
def test_an_attack_that_a_target_cannot_serve_is_refused_before_anything_is_asked(names, target, message):
    meter = target if isinstance(target, Metered) else Metered(target)
    experiment = replace(EXPERIMENT, attacks=make_plans(names, [("linf", 0.1)], {"queries": 9}))
    with Store(":memory:") as store, pytest.raises(InputError, match=message):
        run(store, meter, experiment)
    assert meter.answered == 0


def test_a_network_without_logits_is_found_behind_a_target_too():
    with Store(":memory:") as store, pytest.raises(InputError, match="probabilities"):
        run(store, Metered(wrap(lambda x: threshold(x).softmax(1), num_classes=2)))


def test_options_of_a_target_are_part_of_the_experiment_and_absent_from_that_of_a_network():
    described = Experiment(ModelChoice("demo"), DataChoice("scenes"), PLANS).as_dict()["model"]
    assert list(described) == ["spec", "weights", "num_classes", "normalisation", "outputs", "fingerprint"]
    keys = {
        Experiment(ModelChoice("demo", **given), DataChoice("scenes"), PLANS).key(PLANS[0])
        for given in ({}, {"scores_only": True}, {"answers": "labels"}, {"answers": "top=2"}, {"input": "uint8"})
    }
    assert len(keys) == 5
