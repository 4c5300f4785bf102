"""Rows, worst cases and comparisons from stored counts, against arithmetic by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from segradius.core.errors import StorageError
from segradius.core.storage import write_atomically
from segradius.evaluation import (
    CLEAN,
    AttackPlan,
    DataChoice,
    Experiment,
    ImageResult,
    ModelChoice,
    Store,
    per_image_csv,
    results_json,
    summarise,
)
from segradius.metrics.counts import Pixels
from segradius.report.attack import differences_table

PGD, CR, SEA = (AttackPlan(name, "l2", 2.0) for name in ("pgd", "cr_pgd", "sea"))
EXPERIMENT = Experiment(ModelChoice("m"), DataChoice("d"), (PGD, CR, SEA))
IDS = ["a", "b", "c"]


def two_classes(right0: int, right1: int) -> Pixels:
    """Ten pixels, five of each class, with so many right in each."""
    return Pixels([right0, right1], [right0 + 5 - right1, right1 + 5 - right0], [5, 5])


def result(image: str, right0: int, right1: int, **more: object) -> ImageResult:
    passes = {"attack": [3, 2], "judging": [1, 0]}
    return ImageResult(image, two_classes(right0, right1), **{"passes": passes, "seconds": 0.5, "l2": 1.0, **more})


@pytest.fixture
def store():
    with Store(":memory:") as store:
        store.add(CLEAN, [ImageResult(image, two_classes(5, 5), passes={"judging": [1, 0]}) for image in IDS])
        store.add(EXPERIMENT.key(PGD), [result("a", 4, 2), result("b", 2, 4), result("c", 5, 5, l2=1.5)])
        store.add(EXPERIMENT.key(CR), [result("a", 3, 2), result("b", 2, 2), result("c", 5, 5, valid=False)])
        members = [{"x": two_classes(0, 5), "y": two_classes(4, 4)}, {"x": two_classes(5, 0)}, {"x": two_classes(5, 5)}]
        own = [result(i, *right, members=m) for i, right, m in zip(IDS, [(0, 5), (5, 0), (5, 5)], members, strict=True)]
        store.add(EXPERIMENT.key(SEA), own)
        yield store


def test_pooled_accuracy_miou_passes_and_seconds(store):
    row = summarise(EXPERIMENT, store, IDS).rows[1]
    assert (row.name, row.images, row.invalid) == ("pgd", 3, 0)
    assert row.pixacc.value == 22 / 30
    assert math.isnan(row.pixacc.low)  # of three images nothing is said
    assert row.miou.value == pytest.approx(11 / 19)  # 11 right, 15 predicted and 15 of it, for either class
    per_image = [4 / 8, 2 / 6, 2 / 6, 4 / 8, 1, 1]
    assert row.miou_image.value == pytest.approx(sum(per_image) / 6)
    assert (row.forward, row.backward, row.seconds) == (4, 2, 0.5)
    assert row.ledger == {"attack": {"forward": 9, "backward": 6}, "judging": {"forward": 3, "backward": 0}}


def test_an_invalid_image_is_left_out_and_counted(store):
    row = summarise(EXPERIMENT, store, IDS).rows[2]
    assert (row.name, row.images, row.invalid) == ("cr_pgd", 2, 1)
    assert row.pixacc.value == 9 / 20


def test_the_clean_row_has_no_threat_and_no_sanity(store):
    row = summarise(EXPERIMENT, store, IDS).rows[0]
    assert (row.name, row.norm, row.eps, row.sanity, row.pixacc.value) == (CLEAN, None, None, None, 1.0)
    assert math.isnan(row.success.value)


def test_sanity_is_the_worst_over_images(store):
    row = summarise(EXPERIMENT, store, IDS).rows[1]
    assert row.sanity.length_over_eps == 0.75
    assert (row.sanity.outside, row.sanity.disagreement) == (0, 0)


def test_the_miou_of_an_ensemble_is_that_of_its_worst_choice_of_members(store):
    row = summarise(EXPERIMENT, store, IDS).rows[3]
    assert row.pixacc.value == 20 / 30
    assert row.miou.value == pytest.approx(10 / 20)
    choices = [two_classes(0, 5), two_classes(4, 4)]
    assert min(_miou([choice, two_classes(5, 0), two_classes(5, 5)]) for choice in choices) == pytest.approx(
        row.miou.value
    )


def test_the_worst_over_attacks_takes_for_each_image_the_attack_that_did_worst(store):
    row = summarise(EXPERIMENT, store, IDS).rows[4]
    assert (row.name, row.images, row.invalid) == ("worst of 3", 2, 1)
    assert row.pixacc.value == (5 + 4) / 20
    assert (row.forward, row.backward) == (12, 6)
    assert row.miou.value <= min(
        _miou([two_classes(3, 2), two_classes(2, 2)]), _miou([two_classes(0, 5), two_classes(5, 0)])
    )


def test_each_guided_attack_is_compared_with_its_own_and_every_attack_with_pgd_over_common_valid_images(store):
    found = {(c.attack, c.against): c for c in summarise(EXPERIMENT, store, IDS).comparisons}
    assert set(found) == {("cr_pgd", "pgd"), ("sea", "pgd")}
    guided = found["cr_pgd", "pgd"]
    assert guided.images == 2
    assert guided.difference.mean == pytest.approx(((5 - 6) + (4 - 6)) / 2 / 10)


def test_json_has_every_figure_and_no_nan(store):
    summary = summarise(EXPERIMENT, store, IDS)
    report = json.loads(
        results_json(EXPERIMENT, summary, {"pgd": "Attack()"}, {"batch_size": 8}), parse_constant=pytest.fail
    )
    assert report["identity"] == EXPERIMENT.identity
    assert report["rows"][0]["success"] == {"value": None, "low": None, "high": None}
    assert report["rows"][1]["pixacc"]["value"] == 22 / 30
    assert report["experiment"]["attacks"][1] == {"name": "cr_pgd", "norm": "l2", "eps": 2.0, "options": {}}


def test_the_csv_has_a_line_for_each_attack_and_image_in_order(store):
    lines = list(csv.DictReader(io.StringIO(per_image_csv(EXPERIMENT, store, IDS))))
    assert [(line["attack"], line["image"]) for line in lines] == [
        (attack, image) for attack in ("clean", "pgd", "cr_pgd", "sea") for image in IDS
    ]
    assert lines[3] | {"pixacc": "0.6", "right": "6", "forward": "4", "backward": "2", "valid": "1"} == lines[3]
    assert lines[8]["valid"] == "0"


def test_a_file_that_cannot_be_finished_leaves_the_old_one_and_no_debris(tmp_path):
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    with pytest.raises(StorageError, match="cannot be written, and is as it was before"):
        write_atomically(path, "\udcff")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def _miou(images: list[Pixels]) -> float:
    """Data-set MIoU in plain Python."""
    totals = [[sum(image[part][c] for image in images) for c in (0, 1)] for part in range(3)]
    return sum(i / (p + l - i) for i, p, l in zip(*totals, strict=True)) / 2  # noqa: E741


def test_targeted_attacks_are_ranked_by_their_target_and_not_by_accuracy():
    run = replace(EXPERIMENT, attacks=(PGD, CR), aim="sky")
    with Store(":memory:") as store:
        store.add(CLEAN, [ImageResult(i, two_classes(5, 5), hit=1, eligible=10) for i in IDS])
        # PGD leaves less accuracy everywhere; CR-PGD brings more pixels to the target, but for image c.
        store.add(run.key(PGD), [result(i, 1, 1, hit=h, eligible=10) for i, h in zip(IDS, (3, 4, 5), strict=True)])
        store.add(run.key(CR), [result(i, 3, 3, hit=h, eligible=10) for i, h in zip(IDS, (6, 6, 4), strict=True)])
        summary = summarise(run, store, IDS)
    assert [row.success.value for row in summary.rows] == [0.1, 12 / 30, 16 / 30, 17 / 30]
    worst = summary.rows[-1]
    assert (worst.name, worst.pixacc.value) == ("worst of 2", (6 + 6 + 2) / 30)
    (found,) = summary.comparisons
    assert (found.attack, found.against) == ("cr_pgd", "pgd")
    assert found.difference.mean == pytest.approx((-0.3 - 0.2 + 0.1) / 3)
    assert "pixels not where aimed" in differences_table(summary).title
