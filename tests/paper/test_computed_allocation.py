"""Figures 1 and 5 as data: where attacks put their perturbation, in closed form and on the demo network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import segradius as sr
from segradius.core.randomness import Randomness
from segradius.models.demo import demo
from segradius.objectives.weightings import CertifiedRadius
from segradius.paper.computed.allocation import QUANTILES, Pixels, binned, statistics
from segradius.paper.computed.maps import perturbation
from segradius.paper.computed.subject import Subject, compute, expected_passes
from segradius.radius.smoothing import pixel_radius

FEW = {"steps": 3, "samples": 2, "eps": 1.0}


def tiny(limit: int = 5) -> Subject:
    return Subject("tiny-0", "tiny", "plain", 0, "scenes", sr.open_data("scenes:16x24", limit=limit), demo)


def test_what_goes_to_small_radii_in_closed_form():
    """Energies 9, 1, 4, 4 at radii 1, 2, 3, 3: equal radii share alike."""
    radius, size = torch.tensor([3.0, 1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 1.0, 2.0])
    known = torch.tensor([True, True, True, False])
    found = statistics(radius, size, known)
    assert found["small_half"] == pytest.approx(10 / 18)
    assert found["small_fifth"] == pytest.approx(0.8 * 9 / 18)
    assert found["radius_by_square"] == pytest.approx((9 * 1 + 1 * 2 + 8 * 3) / 18 / 2.25)
    assert found["radius_by_size"] == pytest.approx((3 * 1 + 1 * 2 + 4 * 3) / 8 / 2.25)
    assert found["spearman"] == pytest.approx(spearmanr(radius, size).statistic)
    assert found["spearman_known"] == pytest.approx(spearmanr([3, 1, 2], [2, 3, 1]).statistic)
    shuffled = statistics(radius[[1, 3, 0, 2]], size[[1, 3, 0, 2]], known[[1, 3, 0, 2]])
    assert shuffled["small_half"] == pytest.approx(found["small_half"])


def test_an_even_perturbation_prefers_no_radius_and_none_at_all_has_no_preference():
    radius, known = torch.rand(50, generator=torch.Generator().manual_seed(0)), torch.ones(50, dtype=torch.bool)
    even = statistics(radius, torch.full((50,), 0.3), known)
    assert even["small_half"] == pytest.approx(0.5)
    assert even["small_fifth"] == pytest.approx(0.2)
    assert even["radius_by_square"] == pytest.approx(1.0)
    assert math.isnan(even["spearman"])
    assert all(math.isnan(value) for value in statistics(radius, torch.zeros(50), known).values())


def test_bins_hold_as_many_pixels_each_and_their_shares_are_all():
    radius, size = torch.arange(100).double(), torch.arange(100).double()
    pixels = Pixels(radius, torch.ones(100, dtype=torch.bool), {"PGD": size}, {})
    found = binned([pixels, pixels], 4)
    assert found["pixels"] == [50, 50, 50, 50]
    assert found["attacks"]["PGD"]["quantiles"][0][QUANTILES.index(0.5)] == pytest.approx(12.0, abs=0.5)
    assert sum(found["attacks"]["PGD"]["share"]) == pytest.approx(1)
    assert found["attacks"]["PGD"]["share"][0] == pytest.approx(
        sum(k * k for k in range(25)) / sum(k * k for k in range(100))
    )
    same = Pixels(torch.ones(9), torch.ones(9, dtype=torch.bool), {"PGD": torch.ones(9)}, {})
    assert binned([same], 4)["pixels"] == [9]


def test_allocation_is_that_of_the_attacks_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on, asked, logits = tiny(), [], sr.Segmenter.logits
    options = {**FEW, "attacks": {"PGD": {"attack": "pgd"}, "CR-PGD": {"attack": "cr_pgd"}}, "points": 100}
    monkeypatch.setattr(sr.Segmenter, "logits", lambda self, x, **p: (asked.append(len(x)), logits(self, x, **p))[1])
    found = compute("allocation", [on], tmp_path, options)
    assert sum(asked) + 5 * 2 * 3 == expected_passes("allocation", [on], options)  # and so many backward
    assert [row["attack"] for row in found["rows"]] == ["PGD", "CR-PGD"]
    model, sample = demo(), on.images[0]
    images, labels = sample.image[None], sample.label[None]
    attack = sr.make_attack("cr_pgd", norm="l2", eps=1.0, steps=3)
    delta = attack(model, images, labels, ids=(sample.id,)).delta[0]
    radius = pixel_radius(model, images, Randomness(0, (sample.id,)), samples=2).normalised[0].flatten()
    own = statistics(radius, delta.norm(dim=0).flatten(), (labels != 255).flatten())
    for name, value in own.items():
        assert found["rows"][1]["each"][name][0] == pytest.approx(value, rel=1e-4)
    for row in found["rows"]:
        assert row["spearman"]["value"] == pytest.approx(np.mean(row["each"]["spearman"]))
    assert found["rows"][0]["difference"]["small_half"]["value"] == 0
    second, first = (np.array(found["rows"][k]["each"]["small_half"]) for k in (1, 0))
    assert found["rows"][1]["difference"]["small_half"]["value"] == pytest.approx((second - first).mean())
    (network,) = found["networks"]
    assert network["pixacc"]["PGD"] <= network["pixacc"][""]
    with np.load(tmp_path / network["file"]) as arrays:
        assert sorted(arrays) == ["radius", "size_0", "size_1"]
        assert len(arrays["radius"]) == 100
        assert float(arrays["radius"][0]) == pytest.approx(float(radius[0]), rel=1e-2)
    before = (tmp_path / network["file"]).read_bytes()
    assert compute("allocation", [on], tmp_path, options) == found
    (tmp_path / network["file"]).unlink()
    assert compute("allocation", [on], tmp_path, options) == found
    assert (tmp_path / network["file"]).read_bytes() == before


def test_the_maps_of_one_image_are_those_of_the_library(tmp_path: Path):
    on = tiny(2)
    found = compute("maps", [on], tmp_path, {**FEW, "image": 1})
    (network,) = found["networks"]
    sample, model = on.images[1], demo()
    images, labels = sample.image[None], sample.label[None]
    assert network["image"] == sample.id
    assert list(network["attacks"]) == ["PGD", "CR-PGD", "flip-PGD"]
    result = sr.make_attack("pgd", norm="l2", eps=1.0, steps=3)(model, images, labels, ids=(sample.id,))
    radii = pixel_radius(model, images, Randomness(0, (sample.id,)), samples=2)
    told = network["attacks"]["PGD"]
    assert told["length"] == pytest.approx(float(result.delta.norm()), rel=1e-5)
    assert told["right"] == int((result.prediction == labels).sum())
    with np.load(tmp_path / network["file"]) as arrays:
        assert arrays["image"].shape == (16, 24, 3)
        np.testing.assert_array_equal(arrays["label"], labels[0].numpy())
        np.testing.assert_array_equal(arrays["prediction_0"], result.prediction[0].numpy())
        delta = perturbation(arrays["delta_0"], told["scale"])
        np.testing.assert_allclose(delta, result.delta[0].numpy(), atol=told["scale"] / 254 * 1.01)
        np.testing.assert_allclose(arrays["radius"], radii.normalised[0].numpy(), rtol=2e-3, atol=1e-3)
        weights = CertifiedRadius(samples=2).of_probability(radii.probability)[0].numpy()
        np.testing.assert_allclose(arrays["weight"], weights, rtol=2e-3, atol=1e-3)
    with pytest.raises(sr.InputError, match=r"maps\.image is 2; expected a place below 2"):
        compute("maps", [on], tmp_path, {**FEW, "image": 2})
    with pytest.raises(sr.InputError, match="unknown option of pgd 'stepz'"):
        compute("maps", [on], tmp_path, {"attacks": {"PGD": {"attack": "pgd", "stepz": 3}}})
