"""The images most and least hurt are the same whatever the order they come in, and no others are kept whole."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threshold_model import Memory, grey, threshold

import segradius as sr
from segradius.data import Sample
from segradius.evaluation import (
    CLEAN,
    DataChoice,
    Experiment,
    ImageResult,
    InProcess,
    Kept,
    ModelChoice,
    Rows,
    Run,
    Store,
    execute,
    make_plans,
)
from segradius.evaluation.confusion import confusion_csv
from segradius.evaluation.gallery import Gallery, extremes
from segradius.evaluation.merging import Part, merge
from segradius.evaluation.rows import Exhibit
from segradius.metrics.counts import Pixels
from segradius.report.gallery import VOID, gallery_files
from segradius.report.shown import Looks

EXPERIMENT = Experiment(
    ModelChoice("threshold"), DataChoice("memory"), make_plans(["fgsm", "pgd"], [("linf", 0.1)], {"steps": 2})
)


def rows(left: dict[str, float]) -> Rows:
    """As a worker gives them."""
    image, seen = torch.zeros(3, 1, 1), torch.zeros(1, 1, dtype=torch.int64)
    results = [ImageResult(each, Pixels([1], [1], [1])) for each in left]
    exhibits = {each: Exhibit(value, seen) for each, value in left.items()}
    kept = Kept(dict.fromkeys(left, image), dict.fromkeys(left, seen), gallery=exhibits)
    return Rows("job", results, kept)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text(max_size=3), st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=14),
    st.integers(0, 3),
    st.integers(0, 10**6),
)
def test_what_is_kept_depends_on_no_order_no_cut_and_no_stop(left: dict[str, float], number: int, seed: int):
    order, at = list(left), random.Random(seed)
    at.shuffle(order)
    with Store(":memory:") as store:
        gallery = Gallery(number, store)
        while order:
            size = at.randint(1, 4)
            some, order = order[:size], order[size:]
            if at.random() < 0.3:
                gallery = Gallery(number, store)  # a run that was stopped
            sieved, fallen = gallery.sieved(rows({image: left[image] for image in some}))
            store.add("job", sieved.results, sieved.kept, fallen)
        by_hand = sorted(left, key=lambda image: (left[image], image))
        wanted = {*by_hand[:number], *by_hand[::-1][:number]} if number else set()
        assert store.kept("job") == set(store.gallery("job")) == wanted
        assert store.done("job") == set(left)
        most, least = extremes(left, number)
        assert {*most, *least} == wanted
        assert not set(most) & set(least)
        assert not list(store._base.damages(store._base.tables()))


def test_images_that_are_kept_anyway_stay_whatever_others_come():
    with Store(":memory:") as store:
        gallery = Gallery(1, store, ["a", "d"])
        for left in ({"a": 0.5}, {"b": 0.25, "c": 0.75, "d": 0.5}, {"e": 0.1, "f": 0.9}):
            sieved, fallen = gallery.sieved(rows(left))
            store.add("job", sieved.results, sieved.kept, fallen)
        assert store.kept("job") == {"a", "d", "e", "f"}


@pytest.fixture
def model() -> sr.Segmenter:
    return sr.wrap(threshold, num_classes=2, name="threshold")


@pytest.fixture
def data() -> Memory:
    """Image k loses k pixels of 8 under l∞ ε = 0.1, image 5 as many as image 4."""
    lost = [0, 1, 2, 3, 4, 4]
    return Memory([grey(k, [[0.55] * n + [0.9] * (8 - n)], [[1] * 7 + [255]]) for k, n in enumerate(lost)])


def files(data, model, *, order: list[int], **options) -> dict[str, bytes]:
    """Of a gallery; the images come in some order."""
    stored = Memory([data.samples[k] for k in range(6)])
    given = Run(EXPERIMENT, model, Shuffled(stored, order), **options)
    with Store(":memory:") as store:
        execute(given, store, InProcess(model, given.data))
        found = contents(gallery_files(replace(given, data=stored), Looks(replace(given, data=stored), store)))
        most = 2 * options.get("gallery", 3)
        assert all(len(store.kept(job.key)) <= most for job in EXPERIMENT.jobs)
        assert not list(store._base.damages(store._base.tables()))
    return found


class Shuffled(Memory):
    """The same samples in another order."""

    def __init__(self, data: Memory, order: list[int]) -> None:
        super().__init__([data.samples[k] for k in order])
        object.__setattr__(self, "order", order)

    @property
    def ids(self) -> list[str]:
        return [f"image {k}" for k in self.order]


def test_files_are_equal_byte_by_byte_for_every_order_and_size_of_batches(data, model):
    first = files(data, model, order=[0, 1, 2, 3, 4, 5], batch_size=8, gallery=2)
    for order, size in (([5, 4, 3, 2, 1, 0], 1), ([3, 0, 5, 2, 4, 1], 2), ([4, 5, 0, 1, 3, 2], 4)):
        assert files(data, model, order=order, batch_size=size, gallery=2) == first
    index = json.loads(first["gallery/index.json"])
    ranked = [(row["rank"], row["image"], round(7 * row["left"])) for row in index if row["attack"] == "pgd"]
    assert ranked == [("most", "image 4", 3), ("most", "image 5", 3), ("least", "image 0", 7), ("least", "image 1", 6)]
    assert {row["file"] for row in index} | {"gallery/index.json", "gallery/classes.json"} == set(first)
    assert all(row["before"] == 1 and row["norm"] == "linf" and row["eps"] == 0.1 for row in index)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_files_are_equal_after_a_stop_and_put_together_of_parts(data, model, tmp_path: Path, after: int):
    first = files(data, model, order=[0, 1, 2, 3, 4, 5], gallery=1)

    def stop(job: object, steps: int) -> None:
        nonlocal after
        after -= 1
        if not after:
            raise KeyboardInterrupt

    run = Run(EXPERIMENT, model, data, 2, gallery=1)
    with Store(tmp_path / "stopped.sqlite") as store:
        with pytest.raises(KeyboardInterrupt):
            execute(replace(run, progress=stop), store, InProcess(model, data))
        execute(run, store, InProcess(model, data))
        assert contents(gallery_files(run, Looks(run, store))) == first
        assert all(len(store.kept(job.key)) == 2 for job in EXPERIMENT.jobs)
    parts = [Part(str(k), tmp_path / f"{k}.sqlite") for k in (1, 2, 3)]
    for k, part in enumerate(parts, 1):
        with Store(part.path) as store:
            store.note("experiment", EXPERIMENT.as_dict())
            execute(replace(run, shard=(k, 3)), store, InProcess(model, data))
    merge(parts, tmp_path / "whole.sqlite", run)
    with Store(tmp_path / "whole.sqlite") as store:
        assert contents(gallery_files(run, Looks(run, store))) == first
        assert all(len(store.kept(job.key)) == 2 for job in EXPERIMENT.jobs)
        assert all(len(store.rounded(job.key)) == 6 for job in EXPERIMENT.jobs)


def contents(found: Iterable[tuple[str, bytes | str]]) -> dict[str, bytes]:
    return {name: content.encode() if isinstance(content, str) else content for name, content in found}


def test_arrays_are_those_of_the_closed_form(data, model):
    found = files(data, model, order=[0, 1, 2, 3, 4, 5], gallery=1)
    row = next(row for row in json.loads(found["gallery/index.json"]) if row["rank"] == "most")
    arrays = np.load(io.BytesIO(found[row["file"]]))
    assert row["image"] == "image 4"
    assert arrays["clean"][0].tolist() == [[140] * 3] * 4 + [[230] * 3] * 4
    assert arrays["adversarial"][0, 0].tolist() == [115] * 3  # 0.45 · 255 = 114.75
    np.testing.assert_allclose(arrays["delta"][:, 0, :4], -0.1, atol=1e-4)
    assert arrays["label"].tolist() == [[1] * 7 + [VOID]]
    assert arrays["before"].tolist() == [[1] * 8]
    assert arrays["after"].tolist() == [[0] * 4 + [1] * 4]
    assert arrays["radius"].shape == (1, 8)
    kinds = {name: arrays[name].dtype.name for name in arrays.files}
    assert kinds == {
        "clean": "uint8", "adversarial": "uint8", "delta": "float16", "label": "int16", "before": "int16",
        "after": "int16", "radius": "float16",
    }  # fmt: skip


def test_no_gallery_is_kept_where_none_is_wanted(data, model):
    given = Run(EXPERIMENT, model, data, gallery=0)
    with Store(":memory:") as store:
        execute(given, store, InProcess(model, data))
        assert not any(store.kept(job.key) for job in EXPERIMENT.jobs)


def test_aims_predicted_labels_bands_structures_and_hostile_names_have_a_gallery(tmp_path: Path):
    images = torch.rand(3, 5, 8, 8)
    net = torch.nn.Conv2d(5, 4, 1)
    hostile = [
        Sample(id, image, torch.zeros(8, 8, dtype=torch.int64)) for id, image in zip(HOSTILE, images, strict=True)
    ]
    many = sr.wrap(net, num_classes=4, bands=5)
    for place, options in enumerate(({"aim": "1"}, {"labels": "predicted"}, {})):
        found = sr.evaluate(many, Named(hostile), "pgd", eps=1.0, steps=2, quiet=True, **options)
        folder = found.save(tmp_path / str(place))
        index = json.loads((folder / "gallery" / "index.json").read_text("utf-8"))
        assert [row["rank"] for row in index] == ["most", "most", "least"]
        assert {row["image"] for row in index} == set(HOSTILE)
        assert {file.name for file in (folder / "gallery").iterdir()} == {
            "index.json", "classes.json", *(Path(row["file"]).name for row in index)
        }  # fmt: skip
        for row in index:
            arrays = np.load(folder / row["file"])
            assert arrays["clean"].shape == arrays["adversarial"].shape == (8, 8, 3)
            assert arrays["delta"].shape == (5, 8, 8)
            if options.get("labels"):
                assert (arrays["label"] == arrays["before"]).all()
                assert row["before"] == 1
            elif "aim" in options:
                assert row["left"] == pytest.approx((arrays["after"] != 1).mean())
    yes_no = sr.wrap(torch.nn.Conv2d(3, 2, 1), outputs="multilabel_logits", num_classes=4)
    masks = torch.randint(2, (2, 2, 8, 8))
    found = sr.evaluate(
        yes_no, (torch.rand(2, 3, 8, 8), masks), "pgd", structures=["a", "b"], eps=1.0, steps=2, quiet=True
    )
    folder = found.save(tmp_path / "sets")
    row = json.loads((folder / "gallery" / "index.json").read_text())[0]
    assert set(np.unique(np.load(folder / row["file"])["label"])) <= {0, 1, 2, 3}


HOSTILE = ("../../etc/passwd", "<img src=x onerror=alert(1)>", "a" * 200)


class Named(Memory):
    """Samples by their own names."""

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples if sample is not None]


def test_confusions_of_a_run_add_up_to_what_was_counted(data, model):
    given = Run(EXPERIMENT, model, data)
    with Store(":memory:") as store:
        execute(given, store, InProcess(model, data))
        text = confusion_csv(EXPERIMENT, store, data.ids, given.names)
        jobs = {"clean": CLEAN} | {plan.label: EXPERIMENT.key(plan) for plan in EXPERIMENT.attacks}
        lines = list(csv.DictReader(io.StringIO(text)))
        for attack, key in jobs.items():
            mine = [line for line in lines if line["attack"] == attack]
            pixels = [result.pixels for result in store.results(key).values()]
            for k, name in enumerate(given.names):
                label = sum(int(line["pixels"]) for line in mine if line["label"] == name)
                right = sum(int(line["pixels"]) for line in mine if line["label"] == line["after"] == name)
                assert (label, right) == (sum(p.labelled[k] for p in pixels), sum(p.intersection[k] for p in pixels))
        store._base.drop("confusions", jobs["pgd"], "image 2")  # as of an earlier version
        assert "pgd" not in confusion_csv(EXPERIMENT, store, data.ids, given.names)
