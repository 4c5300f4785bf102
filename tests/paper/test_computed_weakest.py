"""Section 6's weakest pixels: what follows in closed form, and a measure that no regression to the mean favours."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.core.randomness import Randomness
from segradius.models.demo import demo
from segradius.paper.computed.subject import Subject, compute, expected_passes
from segradius.paper.computed.weakest import Noise, changes, radii, sums
from segradius.radius.smoothing import pixel_radius

SCENES = "scenes:24x32"


def test_the_radius_is_that_of_the_library():
    sample = sr.open_data(SCENES, limit=1)[0]
    found = radii(demo(), sample, Noise(0.1, 3, 7), 255)
    known = sample.label != 255
    theirs = pixel_radius(demo(), sample.image[None], Randomness(7, (sample.id,)), sigma=0.1, samples=3)
    torch.testing.assert_close(found[0], theirs.normalised[0, known].double(), atol=1e-6, rtol=1e-6)
    right = theirs.prediction[0, known] == sample.label[known]
    assert torch.equal(found[1] > 0, right)


def test_the_change_of_chosen_pixels_in_closed_form():
    """Five equal images of four pixels; the weakest half of before is (1, 2) and becomes (3, 5): +166.7 % of 1.5."""
    before = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, 1.0, 1.0, 1.0], [0.6, 0.7, 0.8, 0.9]]).double()
    after = torch.tensor([[3.0, 5.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [0.8, 0.9, 0.6, 0.7]]).double()
    images = [sums([before, after], 0.5)] * 5
    found = {(each.kind, each.pixels): each for each in changes(images, ("before", "after"))}
    first = found["radius", "weakest of before"]
    assert first.means == (1.5, 4.0)
    assert first.percent == pytest.approx((500 / 3,) * 3)
    assert first.right == (0.5, 1.0)
    assert found["radius", "weakest of after"].means == (3.5, 1.0)
    assert found["radius", "weakest of each"].means == (1.5, 1.0)
    assert found["radius", "all"].means == (2.5, 2.5)
    assert found["signed", "weakest of after"].means == (1.0, -1.0)
    assert math.isnan(found["signed", "weakest of before"].percent[0])  # of a mean of zero


def test_only_the_choice_of_each_network_is_free_of_regression_to_the_mean():
    """Two unrelated networks with radii of one distribution: the weakest of either seem strong under the other."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(2, 1, 500, generator=generator).double().expand(2, 3, 500) for _ in range(20)]
    images = [sums([first, second], 0.2) for first, second in draws]
    found = {each.pixels: each for each in changes(images, ("before", "after")) if each.kind == "radius"}
    assert found["weakest of before"].means == pytest.approx((0.1, 0.5), abs=0.03)
    assert found["weakest of after"].means == pytest.approx((0.5, 0.1), abs=0.03)
    _, low, high = found["weakest of each"].difference
    assert low <= 0 <= high


def test_networks_of_one_family_and_seed_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A network against itself does not change, whoever chose the pixels; other seeds and families stay apart."""
    images, asked, logits = sr.open_data("scenes:16x24", limit=5), [], sr.Segmenter.logits
    roles = [("a", "plain", 0), ("a", "cr_pgd_at", 0), ("a", "clean_more", 0), ("a", "plain", 1), ("b", "plain", 0)]
    subjects = [
        Subject(f"{family}-{role}-{seed}", family, role, seed, "s", images, demo) for family, role, seed in roles
    ]
    monkeypatch.setattr(sr.Segmenter, "logits", lambda self, x, **p: (asked.append(len(x)), logits(self, x, **p))[1])
    found = compute("weakest", subjects, tmp_path, {"samples": 2})
    assert sum(asked) == expected_passes("weakest", subjects, {"samples": 2}) == 3 * 2 * 5
    pairs = {(row["from"], row["to"]) for row in found["rows"]}
    assert pairs == {("before", "after"), ("before", "control"), ("control", "after")}
    for row in found["rows"]:
        assert (row["family"], row["seed"], row["n"]) == ("a", 0, 5)
        assert row["difference"] == {"value": 0, "low": 0, "high": 0}
        assert row["means"][0] == row["means"][1]
    assert compute("weakest", subjects, tmp_path, {"samples": 2}) == found
    with pytest.raises(sr.InputError, match=r"networks are a-plain-1 \(plain\); expected one of role plain and of"):
        compute("weakest", subjects[3:4], tmp_path)
