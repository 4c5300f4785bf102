"""Images of 1, 2, 4 and 7 bands: attacked with gradients and without, certified, learnt, drawn and kept.

One network with a closed form for any number of bands: class 1 where the mean of the bands is above one half, so that a
pixel whose mean is m away from there turns at an l2 change of m·√B, and under noise of σ is right with Φ(m·√B/σ).
"""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.data import Classes
from segradius.data.pairs import Pairs
from segradius.evaluation import (
    Certification,
    Checkpoints,
    DataChoice,
    InProcess,
    ModelChoice,
    Run,
    Smoothing,
    Store,
    execute,
)
from segradius.evaluation.record import unpack
from segradius.report import report_certificates
from segradius.report.panels import photo
from segradius.training import Augmentation, Engine, Job, Optimiser, Recipe, fit

BANDS = pytest.mark.parametrize("bands", [1, 2, 4, 7])
CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 255, 255)))
SIZE = (24, 32)


def threshold(bands: int, steepness: float = 40.0) -> sr.Segmenter:
    """Two classes by the mean of the bands."""
    layer = nn.Conv2d(bands, 2, 1)
    with torch.no_grad():
        layer.weight.copy_((torch.tensor([-1.0, 1.0]) * steepness / bands).view(2, 1, 1, 1).expand_as(layer.weight))
        layer.bias.copy_(torch.tensor([0.5, -0.5]) * steepness)
    return sr.wrap(layer, normalisation="none", name="threshold")


def data(bands: int, count: int = 2) -> Pairs:
    """Images of bright and dark squares, 0.1 away from one half in the mean, whose bands differ."""
    g = torch.Generator().manual_seed(3)
    items = []
    for _ in range(count):
        label = (torch.rand(SIZE[0] // 8, SIZE[1] // 8, generator=g) < 0.5).long()
        label = label.repeat_interleave(8, 0).repeat_interleave(8, 1)
        spread = 0.05 * torch.rand(bands, 1, 1, generator=g)
        items.append((0.4 + 0.2 * label + spread - spread.mean(), label))
    return Pairs(items, CLASSES)


@BANDS
@pytest.mark.parametrize(("attack", "options"), [("pgd", {"steps": 4}), ("square", {"queries": 40})])
def test_attacks_on_any_bands_are_measured_drawn_and_kept(bands: int, attack: str, options, tmp_path) -> None:
    model, images = threshold(bands), data(bands)
    found = sr.evaluate(
        model,
        images,
        attack,
        norm="linf",
        eps=0.15,
        keep="last",
        figures=int(attack == "pgd"),
        save_images=True,
        quiet=True,
        **options,
    )
    clean, attacked = found.summary.rows
    assert (clean.pixacc.value, clean.images) == (1.0, 2)
    assert attacked.sanity is not None
    assert 0.99 < attacked.sanity.length_over_eps <= 1 + 1e-6
    assert attacked.sanity.outside == 0
    if attack == "pgd":  # which turns a pixel 0.1 away by 0.15 at once
        assert attacked.pixacc.value == 0
    else:
        assert attacked.pixacc.value < 1
    folder = found.save(tmp_path / "out")
    if attack == "pgd":
        with Image.open(folder / "figure.png") as figure:
            assert figure.size[0] > 100
    lines = list(csv.DictReader((folder / "adversarial" / "manifest.csv").read_text("utf-8").splitlines()))
    assert len(lines) == 2
    for line, (image, _) in zip(lines, images.items, strict=True):
        with np.load(folder / line["npz"]) as file:
            exact = file["adversarial"]
        assert exact.shape == (bands, *SIZE)
        assert float(line["length"]) == pytest.approx(np.abs(exact - image.numpy()).max(), rel=1e-6)
        with Image.open(folder / line["png"]) as png:
            mode, pixels = png.mode, np.asarray(png).reshape(*SIZE, -1).transpose(2, 0, 1)
        shown = exact[: 3 if bands > 2 else 1]
        assert mode == ("RGB" if bands > 2 else "L")
        assert np.abs(pixels / 255 - shown).max() <= 0.5 / 255 + 1e-6
        assert (line["length_png"] == "") == (bands != 1)  # of more than what it shows the file knows nothing


@BANDS
def test_certified_radii_of_any_bands_are_below_the_true_ones(bands: int, tmp_path) -> None:
    model, images = threshold(bands), data(bands)
    smoothing = Smoothing(0.05, n0=10, n=150)
    study = Certification(ModelChoice("threshold"), DataChoice("images"), smoothing)
    run = Run(study, model, images, checkpoints=Checkpoints(tmp_path / "parts"))
    store = Store(":memory:")
    execute(run, store, InProcess(model, images, run.checkpoints))
    for (image, label), name in zip(images.items, images.ids, strict=True):
        record = unpack(store.record(study.jobs[0].key, name))
        true = (image.mean(0) - 0.5).abs() * math.sqrt(bands)
        found = record.kinds["segcertify"]
        right = found.classes == label
        assert right.double().mean() > 0.99
        assert (found.radius[right] > 0).all()
        assert (found.radius[right] <= true[right]).all()
    files = dict(report_certificates(run, store, {}).files)
    assert any(name.endswith(".png") for name in files)
    store.close()


@BANDS
def test_networks_of_any_bands_learn_and_are_hardened(bands: int, tmp_path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(bands, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1))
    model = sr.wrap(network, normalisation=([0.5] * bands, [0.25] * bands))
    augmentation = Augmentation((16, 16), (0.8, 1.2), rotate=5.0, colour=0.1)
    adversary = sr.training.ADVERSARIES["pgd_at"](norm="linf", eps=0.02)
    recipe = Recipe(
        epochs=8, batch_size=4, optimiser=Optimiser("adamw", lr=0.03), augmentation=augmentation, adversary=adversary
    )
    judged = fit(Job(model, data(bands, 8), data(bands, 2), recipe, tmp_path, engine=Engine("cpu"), quiet=True))
    assert judged.pixacc > 0.9


@BANDS
def test_what_can_be_shown_of_bands_is_shown(bands: int) -> None:
    image = torch.rand(bands, 3, 5)
    picture = photo(image)
    assert picture.shape == (3, 5, 3)
    for channel in range(3):
        shown: Tensor = image[channel if bands > 2 else 0]
        assert np.array_equal(picture[..., channel], shown.numpy())


def test_one_image_of_other_bands_among_many_is_set_aside_and_a_whole_set_refused(tmp_path) -> None:
    model, images = threshold(1), data(1, 3)
    images.items[1] = (images.items[1][0].expand(3, -1, -1), images.items[1][1])
    found = sr.evaluate(model, images, "fgsm", eps=0.1, norm="linf", quiet=True)
    assert found.summary.set_aside == {"00001": "the image has 3 bands and the model takes 1"}
    with pytest.raises(InputError, match=r"takes 1 band and the images have 3: colours must be made grey first"):
        sr.evaluate(model, data(3), "fgsm", quiet=True)
    network, still = sr.wrap(nn.Conv2d(1, 2, 1)), Recipe(epochs=1, batch_size=2, augmentation=Augmentation.none())
    job = Job(network, data(3, 4), data(3, 2), still, tmp_path, engine=Engine("cpu"), quiet=True)
    with pytest.raises(InputError, match="takes 1 band and the images have 3"):
        fit(job)


def test_weights_of_bands_are_in_tables_and_files_and_identities_are_without_where_there_are_none(tmp_path) -> None:
    model, images = threshold(4), data(4)
    plain, weighted = (
        sr.evaluate(model, images, "pgd", norm="linf", eps=0.15, steps=3, keep="last", quiet=True, **more)
        for more in ({}, {"band_weights": [1, 1, 2, math.inf]})
    )
    assert "band_weights" not in str(plain.run.experiment.as_dict())
    assert weighted.run.experiment.attacks[0].options["band_weights"] == "1,1,2,inf"
    assert plain.run.experiment.identity != weighted.run.experiment.identity
    row = weighted.summary.rows[1]
    assert (row.weights, row.norm) == ("1,1,2,inf", "linf")
    assert row.sanity is not None
    assert 0.99 < row.sanity.length_over_eps <= 1 + 1e-6
    assert "linf of w ⊙ δ" in str(weighted)
    assert "Bands have weights w = 1,1,2,inf: ε bounds ‖w ⊙ δ‖" in str(weighted)
    assert "⊙" not in str(plain)
    assert '"weights": "1,1,2,inf"' in (weighted.save(tmp_path / "out") / "results.json").read_text(encoding="utf-8")
    # The mean moves by 0.15·(1 + 1 + 1/2)/4 < 0.1: none of the pixels turns, where all did.
    assert (plain.summary.rows[1].pixacc.value, row.pixacc.value) == (0.0, 1.0)
    with pytest.raises(InputError, match=r"band_weights has 3 numbers \(1,1,1\) for images of 4 bands"):
        sr.evaluate(model, images, "pgd", band_weights="1,1,1", quiet=True)
    variants = {"one": {"attack": "pgd", "band_weights": "1,1,1,2"}, "two": {"attack": "pgd"}}
    with pytest.raises(InputError, match=r"band_weights differ between attacks, one \(1,1,1,2\) and two \(none\)"):
        sr.evaluate(model, images, variants, quiet=True)
