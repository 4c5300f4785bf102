"""Table 1, measured: estimators on losses of which everything is known, and what a network's loss is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.core.randomness import Randomness
from segradius.models.demo import demo
from segradius.paper.computed.estimators import (
    ROWS,
    attack_loss,
    closed_form,
    hinge,
    measure,
    problem,
    simba,
    smooth,
)
from segradius.paper.computed.subject import Subject, compute, expected_passes

SCENES = "scenes:16x24"


def test_the_table_of_estimators_in_closed_form():
    """A linear loss of 27 values without a constant: scale 1, the variances of the docstrings, norms free of γ."""
    keys = Randomness(0, tuple(f"image {k}" for k in range(40)))
    slope = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    at = torch.zeros(40, 3, 3, 3).double()
    on = problem("linear", lambda images: (images * slope).sum(1), at, 0.1, 400)
    found = {row.label: measure(row, on, keys) for row in ROWS}
    known = {"ZOO": 0, "NES, pairs": 28 / 50, "NES, one-sided": 28 / 100, "OPGE": 26, "TPGE": 26, "TPGE, tiles of 8": 2}
    for label, variance in known.items():
        row = found[label]
        assert row.scale[0] == pytest.approx(1, abs=max(4.5 * row.scale[1], 1e-9)), label
        assert row.variance == pytest.approx(variance, rel=0.1, abs=1e-9), label
    assert found["ZOO"].cosine_all == pytest.approx(1)
    assert found["ZOO"].kink[0] == pytest.approx(27 / 2)
    assert found["TPGE"].kink[0] == pytest.approx(1, abs=4.5 * found["TPGE"].kink[1])
    assert found["TPGE"].norms == pytest.approx([found["TPGE"].norms[0]] * 5)


def test_simba_finds_every_sign_of_a_linear_loss():
    slope = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    at = torch.zeros(2, 3, 2, 2).double()
    on = problem("linear", lambda images: (images * slope).sum(1), at, 1.0, 100)
    found = simba(on, Randomness(0, ("a", "b")))
    expected = float(slope.abs().sum() / (slope.norm() * math.sqrt(12)))
    assert found.cosine_all == pytest.approx(expected)
    assert found.queries == pytest.approx(2 - float((slope > 0).double().mean()))


def test_the_loss_of_a_network_is_the_mean_over_labelled_pixels_and_images_do_not_mix():
    sample = sr.open_data(SCENES, limit=1)[0]
    images, labels = torch.stack([sample.image] * 2), torch.stack([sample.label] * 2)
    labels[1, :8] = 255
    maps = attack_loss(demo(), images, labels, 255)
    values = maps(torch.zeros_like(images))
    assert not values[1, :8].any()
    alone = attack_loss(demo(), images[:1], labels[:1], 255)(torch.zeros_like(images[:1]))
    torch.testing.assert_close(values[:1], alone)
    plain = torch.nn.functional.cross_entropy(demo().logits(images)[1:], labels[1:], ignore_index=255)
    torch.testing.assert_close(values[1].sum(), plain)


def test_a_hinge_is_the_limit_of_the_softplus_far_from_its_corner():
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    gap = smooth(images) - hinge(images)
    assert (gap > 0).all()
    assert gap.max() <= math.log(2) / 64  # softplus(z) − max(z, 0), at z = 0
    at = closed_form("hinge", 4)
    torch.testing.assert_close(at.probe(at.delta[None])[0], hinge(at.delta))


def test_table_1_as_a_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the paper says of TPGE and OPGE is in the numbers: one is stable as γ falls, the other grows as 1/γ."""
    opened, asked, logits = [], [], sr.Segmenter.logits
    monkeypatch.setattr(sr.Segmenter, "logits", lambda self, x: (asked.append(len(x)), logits(self, x))[1])

    def load() -> sr.Segmenter:
        opened.append(1)
        return demo()

    images = sr.open_data(SCENES, limit=2)
    on = Subject("tiny", "demo", "plain", 0, "scenes", images, load)
    options = {"queries": 200, "network_queries": 4, "images": 1}
    found = compute("estimators", [on], tmp_path, options)
    rows = {(row["loss"], row["label"]): row for row in found["rows"]}
    assert len(rows) == 3 * (len(ROWS) + 1)
    for loss in ("smooth", "hinge"):
        assert 0.5 < rows[loss, "TPGE"]["growth"] < 2
        assert 30 < rows[loss, "OPGE"]["growth"] < 300
        assert rows[loss, "TPGE"]["scale"][0] == pytest.approx(1, abs=4.5 * rows[loss, "TPGE"]["scale"][1])
        assert rows[loss, "ZOO"]["cosine_all"] == pytest.approx(1, abs=1e-2)
    assert rows["network", "TPGE"]["network"] == "tiny"
    assert compute("estimators", [on], tmp_path, options) == found
    # The backward pass is no call; a query that a success of SimBA saves is asked all the same.
    assert sum(asked) + 1 == pytest.approx(expected_passes("estimators", [on], options), abs=4)
    assert opened == [1]  # finished parts are not computed again
    with pytest.raises(sr.InputError, match="unknown option of estimators 'query'; did you mean 'queries'"):
        compute("estimators", [on], tmp_path, {"query": 3})
    with pytest.raises(sr.InputError, match=r"estimators.queries is 0; expected a whole number in \[1, 1e6\]"):
        compute("estimators", [on], tmp_path, {"queries": 0})
