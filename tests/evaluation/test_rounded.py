"""After rounding to 8 bits: counted again by NumPy, equal where the image is on the grid, and in the ledger."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from threshold_model import Memory, grey, threshold

import segradius as sr
from segradius.data import Sample
from segradius.evaluation import (
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
)
from segradius.evaluation.attack import Attacking
from segradius.evaluation.batch import Batch, Bench, judge
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.rows import ledger
from segradius.report import tables
from tiny import CLASSES, VOID, Counting, batch, network

#: On the grid of 8 bits, in grey levels; the last image is all void but for a pixel.
GREYS = [[[60, 120, 135, 200]], [[60, 126, 129, 130]], [[90, 128, 127, 255]]]
LABELS = [[[0, 0, 1, 1]], [[0, 0, 1, 1]], [[0, 255, 255, 255]]]


def experiment(norm: str, eps: float, names: tuple[str, ...] = ("fgsm", "pgd"), **options: object) -> Experiment:
    plans = make_plans(names, [(norm, eps)], ({"steps": 3} if "pgd" in names else {}) | options)
    return Experiment(ModelChoice("threshold"), DataChoice("memory"), plans)


def ran(it: Experiment, model: sr.Segmenter, data: Memory, store: Store) -> Run[Experiment]:
    run = Run(it, model, data, save=True, gallery=0)
    execute(run, store, InProcess(model, data))
    return run


@pytest.fixture
def model() -> sr.Segmenter:
    return sr.wrap(threshold, num_classes=2, name="threshold")


@pytest.fixture
def data() -> Memory:
    greys = zip(GREYS, LABELS, strict=True)
    return Memory([grey(k, (np.array(rows) / 255).tolist(), labels) for k, (rows, labels) in enumerate(greys)])


def test_rounding_changes_nothing_where_the_adversarial_image_is_on_the_grid(data, model):
    it = experiment("linf", 9 / 255, ("fgsm",))  # a whole number of levels, and each pixel changes by all of it
    with Store(":memory:") as store:
        run = ran(it, model, data, store)
        rows, key = summarise(it, store, data.ids).rows, it.key(it.attacks[0])
        results, rounded = store.results(key), store.rounded(key)
        for image in run.data.ids:
            assert rounded[image].pixels == results[image].pixels
            assert rounded[image].hit == results[image].hit
            assert rounded[image].linf == pytest.approx(results[image].linf, abs=1e-7)
    assert rows[1].rounded.pixacc == rows[1].pixacc
    assert rows[1].rounded.miou == rows[1].miou
    assert rows[1].rounded.levels == pytest.approx(9, abs=1e-4)
    assert rows[1].eps_levels == pytest.approx(9)


@pytest.mark.parametrize(("eps", "levels", "right"), [(0.4, 0, 1.0), (0.6, 1, 0.0)])
def test_a_change_below_half_a_level_is_gone_and_one_above_is_a_whole_level(eps: float, levels: int, right: float):
    def split(x: torch.Tensor) -> torch.Tensor:
        """Bright from 127.3 levels on."""
        return threshold(x + 0.2 / 255)

    model, data = sr.wrap(split, num_classes=2), Memory([grey(0, [[127 / 255]], [[0]])])
    it = experiment("linf", eps / 255, ("fgsm",))
    with Store(":memory:") as store:
        ran(it, model, data, store)
        row = summarise(it, store, data.ids).rows[1]
    assert row.pixacc.value == 0  # 127.4 and 127.6 levels are both bright
    assert row.rounded.pixacc.value == right
    assert row.rounded.levels == pytest.approx(levels, abs=1e-5)
    assert row.eps_levels == pytest.approx(eps)


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.4), ("linf", 0.004), ("l1", 3.0)])
def test_it_is_what_numpy_counts_of_the_images_that_were_kept(norm: str, eps: float):
    images, labels = batch(count=6, dtype=torch.float32)
    net = sr.wrap(network(dtype=torch.float32), num_classes=CLASSES, name="tiny")
    data = Memory([Sample(f"image {k}", x, y) for k, (x, y) in enumerate(zip(images, labels, strict=True))])
    it = experiment(norm, eps)
    with Store(":memory:") as store:
        run = ran(it, net, data, store)
        summary, right = summarise(it, store, data.ids, run.named), {}
        lines = list(csv.DictReader(io.StringIO(per_image_csv(it, store, data.ids, run.named))))
        for plan, row in zip(it.attacks, summary.rows[1:], strict=False):
            kept = np.stack([store.example(it.key(plan), image).numpy() for image in data.ids])
            levels = np.rint(kept.astype(np.float32) * np.float32(255)).astype(np.uint8)
            with net.frozen(), torch.no_grad():
                seen = net.logits(torch.from_numpy(levels.astype(np.float32) / np.float32(255))).argmax(1).numpy()
            truth = labels.numpy()
            counted = truth != VOID
            right[plan.label] = ((seen == truth) & counted).sum((1, 2))
            assert row.rounded.pixacc.value == pytest.approx(right[plan.label].sum() / counted.sum())
            both = [(seen[counted] == c, truth[counted] == c) for c in range(CLASSES)]
            ious = [(a & b).sum() / (a | b).sum() for a, b in both if (a | b).any()]
            assert row.rounded.miou.value == pytest.approx(np.mean(ious))
            delta = np.abs(levels / 255 - images.double().numpy()).reshape(6, -1)
            length = {"l1": delta.sum(1), "l2": np.sqrt((delta**2).sum(1)), "linf": delta.max(1)}[norm]
            assert row.rounded.eps == pytest.approx(length.max(), rel=1e-5)
            assert row.rounded.levels == pytest.approx(255 * length.max(), rel=1e-5)
            mine = [line for line in lines if line["attack"] == plan.label]
            assert [int(line["rounded_right"]) for line in mine] == right[plan.label].tolist()
            assert [float(line[f"rounded_{norm}"]) for line in mine] == pytest.approx(length.tolist(), rel=1e-5)
        worst = np.minimum(right["fgsm"], right["pgd"]).sum() / counted.sum()
        assert summary.rows[-1].rounded.pixacc.value == pytest.approx(worst)
        assert {line["rounded_right"] for line in lines if line["attack"] == "clean"} == {""}


def test_every_pass_is_in_the_ledger_and_the_digest_is_that_of_runs_without(data, model):
    images, labels = batch(dtype=torch.float32)
    net = Counting(sr.wrap(network(dtype=torch.float32), num_classes=CLASSES))
    task = Attacking(make_plans(["cr_pgd"], [("l2", 0.5)], {"steps": 3, "samples": 2})[0])
    before = judge(net.model, images)[0]
    some = Batch(("a", "b", "c", "d"), images, labels, before, VOID)
    net.forward = net.backward = 0
    rows = task.run(some, Bench(net, Memory([]).classes, "key", 0))
    book = ledger(result.passes for result in rows.results)
    rounding = sum(each.passes for each in rows.kept.rounded.values())
    assert rounding == 4
    assert net.forward == sum(each["forward"] for each in book.values()) + rounding
    assert net.backward == sum(each["backward"] for each in book.values())
    it = experiment("linf", 0.02)
    with Store(":memory:") as store:
        ran(it, model, data, store)
        rows, whole = summarise(it, store, data.ids).rows, digest_of(it, store, data.ids)
        assert [row.ledger["checking"]["forward"] for row in rows[1:]] == [6, 6, 12]  # judged again, and rounded
        assert rows[1].forward == 2
        key = it.key(it.attacks[1])
        store._base.drop("rounded", key, "image 1")  # as of an earlier version
        rows = summarise(it, store, data.ids).rows
        assert digest_of(it, store, data.ids) == whole
        assert [row.rounded is None for row in rows] == [True, False, True, True]
        assert [row.ledger["checking"]["forward"] for row in rows[1:]] == [6, 5, 11]
        found = tables(summarise(it, store, data.ids))[0]
        eight = [row[found.header.index("ε, 8 bits")] for row in found.rows]
        assert (eight[0], eight[2:]) == ("", ["–", "–"])
        assert [row[found.header.index("ε in 1/255")] for row in found.rows] == ["", "5.1", "5.1", "5.1"]


def test_a_target_with_a_price_is_not_asked_again():
    target = sr.targets.open_target("demo")
    found = sr.evaluate(target, "scenes:24x32,2", "square", eps=1.5, queries=20, quiet=True)
    assert target.answered == sum(book["forward"] for row in found.summary.rows for book in row.ledger.values())
    assert found.summary.rows[1].rounded is None
    assert "–" in str(found)


def test_lengths_are_those_of_the_threat_model_and_aims_count_pixels_that_were_hit():
    model, pairs = (
        sr.wrap(threshold, num_classes=2),
        [(torch.full((3, 2, 2), 0.4), torch.zeros(2, 2, dtype=torch.long))],
    )
    found = sr.evaluate(model, pairs, "fgsm", norm="l2", eps=0.3, band_weights="1,2,inf", quiet=True)
    seen = found.store.rounded(found.run.experiment.jobs[0].key)["00000"]
    kept = found.store.example(found.run.experiment.jobs[0].key, "00000").numpy()
    delta = np.rint(255 * kept) / 255 - np.float32(0.4)
    assert seen.l2 == pytest.approx(np.linalg.norm(delta[:2] * np.array([1, 2])[:, None, None]), rel=1e-5)
    assert found.summary.rows[1].rounded.eps == seen.l2
    aimed = sr.evaluate(model, pairs, "fgsm", norm="linf", eps=0.3, aim="1", quiet=True)
    assert aimed.store.rounded(aimed.run.experiment.jobs[0].key)["00000"].hit == 4


def test_images_from_0_to_255_are_refused_where_attacks_and_where_runs_begin(model):
    images, labels = torch.full((2, 3, 4, 4), 200.0), torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(sr.InputError, match=r"in \[0, 1\], got \[200, 200\].* divide 8-bit images by 255"):
        sr.attacks.pgd(norm="l2", eps=1.0)(model, images, labels)
    with pytest.raises(sr.InputError, match=r"run from 200 to 200; they must lie in \[0, 1\]: divide .* 255"):
        sr.evaluate(model, (images, labels), "pgd", eps=1.0, quiet=True)
