"""Running, stopping, going on, and setting aside, on a model whose every number is known."""

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
    work,
)
from segradius.metrics.counts import Pixels
from segradius.models import Segmenter, wrap

EXPERIMENT = Experiment(
    ModelChoice("threshold"), DataChoice("memory"), make_plans(["fgsm", "pgd"], [("linf", 0.1)], {"steps": 1})
)


@pytest.fixture
def model() -> Segmenter:
    return wrap(threshold, num_classes=2, name="threshold")


@pytest.fixture
def data() -> Memory:
    """Clean: all right but one pixel of image 1. l∞ ε = 0.1 turns exactly the pixels with brightness 0.45 and 0.55."""
    return Memory(
        [
            grey(0, [[0.2, 0.45, 0.55, 0.8]], [[0, 0, 1, 1]]),
            grey(1, [[0.2, 0.45, 0.8, 0.55]], [[1, 0, 1, 255]]),
            grey(2, [[0.45, 0.45], [0.8, 0.8]], [[0, 0], [1, 1]]),
        ]
    )


def run(data, model, store, experiment=EXPERIMENT, **more):
    given = Run(experiment, model, data, **more)
    execute(given, store, InProcess(model, data))
    return given


def test_counts_lengths_and_passes_are_those_of_the_closed_form(data, model):
    with Store(":memory:") as store:
        run(data, model, store)
        clean, fgsm = store.results(CLEAN), store.results(EXPERIMENT.key(EXPERIMENT.attacks[0]))
    assert clean["image 0"].pixels == Pixels([2, 2], [2, 2], [2, 2])
    assert clean["image 1"].pixels == Pixels([1, 1], [2, 1], [1, 2])
    assert fgsm["image 0"].pixels == Pixels([1, 1], [2, 2], [2, 2])
    assert (fgsm["image 0"].hit, fgsm["image 0"].eligible) == (2, 4)
    assert (fgsm["image 1"].hit, fgsm["image 1"].eligible) == (1, 2)
    assert fgsm["image 2"].pixels == Pixels([0, 2], [0, 4], [2, 2])
    assert fgsm["image 0"].linf == pytest.approx(0.1, rel=1e-6)
    assert fgsm["image 0"].l1 == pytest.approx(12 * 0.1, rel=1e-6)
    assert fgsm["image 1"].l1 == pytest.approx(9 * 0.1, rel=1e-6)  # nothing is done to the void pixel
    assert all(result.outside == 0 and result.disagreement == 0 and result.valid for result in fgsm.values())
    assert {sum(b for _, b in result.passes.values()) for result in fgsm.values()} == {1}
    assert {tuple(result.passes["checking"]) for result in fgsm.values()} == {(1, 0)}  # judged once more by itself


def test_results_do_not_depend_on_the_batch_size(data, model):
    tables = []
    for size in (1, 2, 8):
        with Store(":memory:") as store:
            run(data, model, store, batch_size=size)
            tables.append(per_image_csv(EXPERIMENT, store, data.ids))
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("after", range(1, 6))
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_results(data, model, after):
    def stop(job, steps):
        nonlocal after
        after -= 1
        if not after:
            raise KeyboardInterrupt

    with Store(":memory:") as whole, Store(":memory:") as parts:
        run(data, model, whole, batch_size=1)
        with pytest.raises(KeyboardInterrupt):
            run(data, model, parts, batch_size=1, progress=stop)
        before = parts.results(EXPERIMENT.key(EXPERIMENT.attacks[0]))
        run(data, model, parts, batch_size=1)
        again = parts.results(EXPERIMENT.key(EXPERIMENT.attacks[0]))
        assert all(
            again[image] == result for image, result in before.items()
        )  # seconds included: nothing is done twice
        assert per_image_csv(EXPERIMENT, parts, data.ids) == per_image_csv(EXPERIMENT, whole, data.ids)


def test_nothing_is_left_to_do_after_a_run_and_progress_adds_up_to_the_work_announced(data, model):
    told = []
    with Store(":memory:") as store:
        given = Run(EXPERIMENT, model, data, 2, progress=lambda job, steps: told.append(steps))
        announced = work(given, store)
        execute(given, store, InProcess(model, data))
        assert announced == sum(told) > 0
        assert work(given, store) == 0


def test_adversarial_images_are_kept_for_pictures_and_made_again_when_more_are_wanted(data, model):
    with Store(":memory:") as store:
        run(data, model, store, shown=("image 0",), gallery=0)
        key = EXPERIMENT.key(EXPERIMENT.attacks[0])
        assert store.kept(key) == {"image 0"}
        change = store.example(key, "image 0") - data[0].image
        expected = torch.tensor([0.1, 0.1, -0.1, -0.1]).expand(3, 1, 4)
        torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)
        before = per_image_csv(EXPERIMENT, store, data.ids)
        run(data, model, store, shown=("image 0", "image 2"), gallery=0)
        assert store.kept(key) == {"image 0", "image 2"}
        assert per_image_csv(EXPERIMENT, store, data.ids) == before


NAN = torch.tensor([[[0.1, torch.nan]], [[0.1, torch.nan]], [[0.1, 0.1]]])

BAD = {
    "truncated": None,
    "pixel values run from 0.2 to 1.5": grey(1, [[0.2, 1.5]], [[0, 1]]),
    "2 values that are NaN": replace(grey(1, [[0.2, 0.8]], [[0, 1]]), image=NAN),
    "holds torch.uint8": replace(grey(1, [[0.2, 0.8]], [[0, 1]]), image=torch.zeros(3, 1, 2, dtype=torch.uint8)),
    "label 7 at row 0, column 1": grey(1, [[0.2, 0.8]], [[0, 7]]),
    "the label is 1×3 and the image 1×2": grey(1, [[0.2, 0.8]], [[0, 1, 1]]),
    "no pixel is labelled": grey(1, [[0.2, 0.8]], [[255, 255]]),
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_an_image_that_cannot_be_used_is_set_aside_by_name_and_the_rest_is_finished(data, model, reason):
    whole = Memory([data[0], BAD[reason], data[2]])
    with Store(":memory:") as store:
        run(whole, model, store)
        summary = summarise(EXPERIMENT, store, whole.ids)
    assert list(summary.set_aside) == ["image 1"]
    assert reason in summary.set_aside["image 1"]
    assert [row.images for row in summary.rows[:3]] == [2, 2, 2]


def test_an_image_with_nan_logits_is_set_aside(data):
    def fragile(x):
        logits = threshold(x)
        return torch.where((x.flatten(1).amax(1) < 0.805).view(-1, 1, 1, 1), logits, torch.nan)

    whole = Memory([data[0], grey(1, [[0.2, 0.9]], [[0, 1]])])
    with Store(":memory:") as store:
        run(whole, wrap(fragile, num_classes=2), store)
        summary = summarise(EXPERIMENT, store, whole.ids)
    assert summary.set_aside == {"image 1": "the model's logits are NaN or infinite on the clean image"}


def test_an_image_whose_logits_become_nan_under_attack_is_counted_as_invalid_and_never_as_robust(data):
    def fragile(x):
        logits = threshold(x)
        return torch.where(((x.amin((1, 2, 3)) - 0.25).abs() > 0.01).view(-1, 1, 1, 1), logits, torch.nan)

    whole = Memory([grey(0, [[0.2, 0.2, 0.8]], [[0, 0, 1]]), grey(1, [[0.15, 0.45, 0.8]], [[0, 0, 1]])])
    with Store(":memory:") as store:
        run(whole, wrap(fragile, num_classes=2), store)
        clean, fgsm, *_ = summarise(EXPERIMENT, store, whole.ids).rows
    assert (clean.images, clean.invalid) == (2, 0)
    assert (fgsm.images, fgsm.invalid) == (1, 1)
    assert fgsm.pixacc.value == 1


def test_a_model_with_too_few_classes_is_refused_before_work(data, model):
    three = replace(data, classes=type(data.classes)(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2))))
    with Store(":memory:") as store, pytest.raises(InputError, match="predicts 2 classes and the data set has 3"):
        run(three, model, store)


def test_probabilities_are_refused_before_work(data):
    with Store(":memory:") as store, pytest.raises(InputError, match="probabilities"):
        run(data, wrap(lambda x: threshold(x).softmax(1), num_classes=2), store)


def test_a_targeted_attack_counts_the_pixels_that_have_the_target(data, model):
    experiment = replace(EXPERIMENT, aim="bright")
    with Store(":memory:") as store:
        run(data, model, store, experiment)
        fgsm = store.results(experiment.key(experiment.attacks[0]))["image 0"]
    assert (fgsm.hit, fgsm.eligible) == (3, 4)
    assert fgsm.pixels == Pixels([1, 2], [1, 3], [2, 2])
