"""No row is used again, and none is stored, once the content that it is of has changed."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from threshold_model import TWO, Memory, grey, threshold

from segradius.core.digests import marks_of
from segradius.core.errors import InputError
from segradius.data.files import MaskKey, Pair, PairedFiles
from segradius.data.marks import plain
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
)
from segradius.evaluation.sources import Watch, look
from segradius.models import wrap

ONE = Experiment(ModelChoice("demo"), DataChoice("memory"), make_plans(["fgsm"], [("linf", 0.1)]))
TWO_ATTACKS = replace(ONE, attacks=(*ONE.attacks, *make_plans(["pgd"], [("linf", 0.1)], {"steps": 1})))
SAMPLES = [grey(k, [[0.2, 0.45, 0.55, 0.1 * k]], [[0, 0, 1, 1]]) for k in range(3)]


def run(data, store: Store, experiment=ONE, model=None) -> None:
    model = model or wrap(threshold, num_classes=2)
    execute(Run(experiment, model, data, batch_size=1), store, InProcess(model, data))


@pytest.fixture
def files(tmp_path: Path) -> PairedFiles:
    pairs = []
    for name in ("a", "b"):
        image, mask = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        Image.fromarray(np.full((2, 3, 3), 100, np.uint8)).save(image)
        Image.fromarray(np.array([[0, 1, 1]] * 2, np.uint8)).save(mask)
        pairs.append(Pair(name, image, mask))
    return PairedFiles("files", TWO, MaskKey(((0, 0), (1, 1))), tuple(pairs))


def changed(samples):
    """The last image in another brightness at one pixel."""
    last = replace(samples[-1], image=samples[-1].image.clone())
    last.image[0, 0, 0] += 1e-3
    return [*samples[:-1], last]


def test_an_image_in_memory_that_changed_is_refused_by_name_and_nothing_is_added():
    with Store(":memory:") as store:
        run(Memory(SAMPLES), store)
        before = store.results(CLEAN)
        run(Memory(list(SAMPLES)), store)
        with pytest.raises(InputError, match="image image 2: the image changed since its results were stored"):
            run(Memory(changed(SAMPLES)), store, TWO_ATTACKS)
        assert store.results(CLEAN) == before
        assert store.done(TWO_ATTACKS.jobs[1].key) == set()
        labels = [replace(SAMPLES[0], label=1 - SAMPLES[0].label), *SAMPLES[1:]]
        with pytest.raises(InputError, match="image image 0: the label changed"):
            run(Memory(labels), store)


def test_an_image_without_results_may_change():
    with Store(":memory:") as store:
        run(Memory([*SAMPLES[:2], None]), store)
        assert store.all_set_aside().keys() == {"image 2"}
        run(Memory(SAMPLES), store)
        assert len(store.done(CLEAN)) == 3


def test_a_file_that_changes_while_it_is_worked_on_gives_no_row(files: PairedFiles):
    with Store(":memory:") as store:
        watch = Watch(files, store)
        for unit in watch.over([SimpleNamespace(places=(0, 1))]):
            watch.check(["a", "b"])
            files.pairs[0].image.write_bytes(files.pairs[1].image.read_bytes() + b" ")
            watch.check(["b"])
            with pytest.raises(InputError, match=r"image a: .*a\.png changed while this run worked on it"):
                watch.check(["a", "b"])
            assert unit.places == (0, 1)


def test_what_was_stored_before_anything_was_noted_is_taken_as_it_is_and_noted(files: PairedFiles, tmp_path: Path):
    with Store(tmp_path / "results.sqlite") as store:
        run(files, store)
    with sqlite3.connect(tmp_path / "results.sqlite") as old:
        old.execute("DROP TABLE sources")
        old.execute("DELETE FROM seals WHERE part = 'sources'")
    old.close()
    with Store(tmp_path / "results.sqlite") as store:
        found = look(ONE, files, store)
        assert (found.changed, found.unknown, set(found.marks)) == (None, 2, {"a", "b"})
        found.keep(store)
        assert look(ONE, files, store).unknown == 0
        files.pairs[1].mask.write_bytes(files.pairs[1].image.read_bytes())
        assert look(ONE, files, store).changed == f"image b: {files.pairs[1].mask} changed"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"classes": replace(TWO, names=("bright", "dark"))}, "classes"),
        ({"key": MaskKey(((0, 1), (1, 0)))}, "values"),
        ({"key": MaskKey(((0, 0), (1, 1)), (((1, 2, 3), 0),))}, "colours"),
        ({"classes": replace(TWO, ignore_index=254)}, "ignore_index"),
    ],
)
def test_another_meaning_of_the_same_masks_is_seen(files: PairedFiles, other: dict, named: str):
    files = replace(files, told_by=Path("data/segradius.yaml"))
    with Store(":memory:") as store:
        look(ONE, files, store).keep(store)
        assert look(ONE, replace(files, **other), store).changed is None  # of no result
        run(files, store)
        assert look(ONE, files, store).changed is None
        assert look(ONE, replace(files, **other), store).changed == f"data/segradius.yaml changed ({named})"
        colours = replace(TWO, palette=((9, 9, 9), (8, 8, 8)))
        assert look(ONE, replace(files, classes=colours), store).changed is None  # for pictures


def test_other_data_or_another_model_is_not_compared_with_what_was_there(files: PairedFiles):
    with Store(":memory:") as store:
        run(files, store)
        look(ONE, files, store).keep(store)
        files.pairs[0].image.write_bytes(b"")
        earlier = replace(ONE, data=DataChoice("elsewhere")).as_dict()
        assert look(ONE, files, store, ONE.as_dict()).changed == f"image a: {files.pairs[0].image} changed"
        assert look(ONE, files, store, earlier).changed is None


def test_work_that_was_begun_counts_as_results(files: PairedFiles):
    """A journal or paid answers of an image are no result yet, and would be gone on from."""
    with Store(":memory:") as store:
        store.mark({"a": plain(marks_of(files.parts(0)))})
        files.pairs[0].image.write_bytes(b"")
        assert look(ONE, files, store).changed is None
        assert look(ONE, files, store, begun=True).changed == f"image a: {files.pairs[0].image} changed"
