"""The table of kinds of data × what is done with them: the same pixels give the same numbers by every route."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import segradius as sr
from data import routes
from segradius.core.errors import InputError
from segradius.data import open_data
from segradius.data.sample import SegmentationData
from segradius.evaluation import Certification, DataChoice, InProcess, ModelChoice, Run, Smoothing, Store, execute
from segradius.evaluation.record import unpack
from segradius.training import Augmentation, Engine, Job, Optimiser, Recipe, fit

STAGES = ("open", "read", "evaluate", "white-box", "black-box", "certify", "train")


def network(outputs: str) -> sr.Segmenter:
    """A convolution of three classes, or of two structures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kernel = nn.Conv2d(3, 2 if outputs == "multilabel_logits" else 3, 3, padding=1)
    return sr.wrap(kernel, outputs=outputs)


def rows(seen: sr.Segmenter, data: SegmentationData, attacks: str | tuple[str, ...], **options) -> list[str]:
    """All that is counted of each image, without its id."""
    found = sr.evaluate(seen, data, attacks, quiet=True, **options).per_image()
    return [str({key: value for key, value in row.items() if key != "image"}) for row in found]


def certificates(seen: sr.Segmenter, data: SegmentationData) -> list[object]:
    """Of each image the class that was tested, the votes for it, and what that is worth."""
    experiment = Certification(ModelChoice("net"), DataChoice("data"), Smoothing(0.1, 4, 30))
    with Store(":memory:") as store:
        execute(Run(experiment, seen, data, 4), store, InProcess(seen, data))
        assert store.all_set_aside() == {}
        records = [unpack(store.record(experiment.key, image)) for image in data.ids]
    return [
        (each.polled.guess.tolist(), each.polled.votes.tolist(), str(each.polled.majority_score)) for each in records
    ]


def weights(seen: sr.Segmenter, data: SegmentationData, folder: Path) -> list[list[float]]:
    """Of the network, after one step on all images."""
    recipe = Recipe(epochs=1, batch_size=4, optimiser=Optimiser(lr=0.5), augmentation=Augmentation.none())
    fit(Job(seen, data, data, recipe, folder, engine=Engine("cpu"), quiet=True))
    return [value.flatten().tolist() for value in load_file(folder / "last.safetensors").values()]


def stage(name: str, seen: sr.Segmenter, data: SegmentationData, folder: Path) -> object:
    """What one thing that is done with data comes to, as something to compare."""
    if name == "read":
        return [(sample.image.tolist(), sample.label.tolist()) for sample in data]
    if name == "evaluate":
        return rows(seen, data, ())
    if name == "white-box":
        return rows(seen, data, "pgd", eps={"linf": 0.05}, steps=2)
    if name == "black-box":
        return rows(seen, data, "square", eps={"linf": 0.05}, queries=6)
    if name == "certify":
        return certificates(seen, data)
    return weights(seen, data, folder / "trained")


ROWS = [
    *((name, "logits", make) for name, make in routes.WORKS.items()),
    *((f"{name}, overlapping", "multilabel_logits", make) for name, make in routes.OVERLAPPING.items()),
]


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> dict[str, dict[str, object]]:
    """What each stage comes to with pictures in a folder."""
    found = {}
    for outputs, make in (("logits", routes.flat), ("multilabel_logits", routes.structures)):
        folder = tmp_path_factory.mktemp("reference")
        data = open_data(make(folder))
        found[outputs] = {name: stage(name, network(outputs), data, folder) for name in STAGES[1:]}
    return found


@pytest.mark.parametrize(("kind", "outputs", "make"), ROWS, ids=[row[0] for row in ROWS])
def test_the_same_pixels_give_the_same_numbers_by_every_route(kind, outputs, make, tmp_path, references):
    data = open_data(make(tmp_path))
    for name in STAGES[1:]:
        found = stage(name, network(outputs), data, tmp_path)
        # Random numbers are drawn by id, and a slice has one of its own.
        if data.ids == tuple(routes.IDS) or name in ("read", "evaluate", "white-box"):
            assert found == references[outputs][name], name


def test_the_reference_is_what_was_written(references):
    for place, (image, label) in enumerate(references["logits"]["read"]):
        assert np.array_equal(np.array(image, np.float32) * 255, np.moveaxis(routes.GREY[place], -1, 0))
        assert np.array_equal(label, routes.LABELS[place])
    for place, (_, label) in enumerate(references["multilabel_logits"]["read"]):
        assert np.array_equal(label, routes.MAPS[place, 0] + 2 * routes.MAPS[place, 1])


def all_of_it(spec: str, last: str, folder: Path, done: list[str]) -> None:
    """Every stage until one, each noted when it is over."""
    data = open_data(spec)
    for name in STAGES[: STAGES.index(last) + 1]:
        if name == "read":
            data[0]
        elif name != "open":
            stage(name, network("logits"), data, folder)
        done.append(name)


@pytest.mark.parametrize("kind", routes.REFUSED)
def test_what_is_refused_is_refused_in_a_line_at_its_stage(kind, tmp_path):
    make, where, message = routes.REFUSED[kind]
    done: list[str] = []
    with pytest.raises(InputError, match=message) as caught:
        all_of_it(make(tmp_path), where, tmp_path, done)
    assert "\n" not in str(caught.value)
    assert tuple(done) == STAGES[: STAGES.index(where)]
