"""Section 5.4's SegCertify beside a hardened network, where what must come out is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import segradius as sr
from segradius.models.demo import demo
from segradius.paper.computed.segcertify import _rows
from segradius.paper.computed.subject import Subject, compute, expected_passes

FEW = {"eps": 1.0, "steps": 2, "samples": 2, "n0": 4, "n": 60, "limit": 2}


class Fixed(nn.Module):
    """Class 4 everywhere, whatever it is shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.mean(1) * 0 + (c == 4) * 9.0 for c in range(8)], 1)


def subject(role: str, make) -> Subject:
    return Subject(f"{role}-0", "tiny", role, 0, "scenes", sr.open_data("scenes:16x24", limit=3), make)


def test_a_network_that_never_changes_its_mind_is_certified_everywhere_and_no_attack_moves_it(tmp_path: Path):
    fixed = lambda: sr.wrap(Fixed(), num_classes=8)  # noqa: E731
    found = compute("segcertify", [subject("gaussian", fixed), subject("fast_adt", fixed)], tmp_path, FEW)
    labels = [found_at.label for found_at in (sr.open_data("scenes:16x24", limit=3)[k] for k in range(2))]
    share = sum(int((each == 4).sum()) for each in labels) / sum(int((each != 255).sum()) for each in labels)
    assert [row["pixacc"]["value"] for row in found["rows"]] == pytest.approx([share] * 11)
    assert {row["abstained"] for row in found["rows"]} == {0.0}
    assert [gap["difference"]["value"] for gap in found["gaps"]] == [0.0] * 4


def test_the_network_answers_as_the_library_does_and_certifying_never_raises_accuracy(tmp_path: Path):
    on = [subject("gaussian", demo), subject("fast_adt", demo)]
    found = compute("segcertify", on, tmp_path, FEW)
    rows = {(row["role"], row["attack"], row["answer"]): row for row in found["rows"]}
    sample, void = sr.open_data("scenes:16x24", limit=1)[0], 255
    attack = sr.make_attack("cr_pgd", norm="l2", eps=1.0, steps=2)
    seen = attack(demo(), sample.image[None], sample.label[None], ids=(sample.id,), seed=0, ignore_index=void)
    right = int(((seen.prediction[0] == sample.label) & (sample.label != void)).sum())
    alone = compute("segcertify", on, tmp_path / "one", FEW | {"limit": 1})["rows"]
    (base,) = (row for row in alone if (row["role"], row["attack"]) == ("fast_adt", "base"))
    assert base["pixacc"]["value"] == pytest.approx(right / int((sample.label != void).sum()))
    # Two networks that are one: under the attack on the base both answer alike.
    assert rows["gaussian", "base", "network"]["pixacc"] == rows["fast_adt", "base", "network"]["pixacc"]
    for how in ("clean", "base", "smoothed"):
        certified, smoothed = (rows["gaussian", how, answer] for answer in ("certified", "smoothed"))
        assert certified["pixacc"]["value"] <= min(smoothed["pixacc"]["value"], 1 - certified["abstained"])
    gap = found["gaps"][0]
    assert (gap["attack"], gap["answer"], gap["n"]) == ("base", "smoothed", 2)
    assert compute("segcertify", on, tmp_path, FEW) == found


def test_accuracy_is_over_pixels_of_all_images_and_abstention_too():
    lines = [
        {"image": "a", "attack": "clean", "answer": "certified", "right": 6.0, "labelled": 10, "abstained": 4.0},
        {"image": "b", "attack": "clean", "answer": "certified", "right": 0.0, "labelled": 30, "abstained": 0.0},
    ]
    (row,) = _rows(subject("gaussian", demo), lines)
    assert (row["pixacc"]["value"], row["abstained"], row["n"]) == (6 / 40, 4 / 40, 2)


def test_passes_are_those_of_attacks_and_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked, logits = [0], sr.Segmenter.logits

    def counted(self: sr.Segmenter, x: torch.Tensor, **p: torch.dtype | None) -> torch.Tensor:
        asked[0] += len(x)
        return logits(self, x, **p)

    monkeypatch.setattr(sr.Segmenter, "logits", counted)
    on = [subject("gaussian", demo)]
    compute("segcertify", on, tmp_path, FEW)
    forward_alone = asked[0]
    backward = 2 * (2 + 2 * 2)  # T steps through the network and, M = 2, through the smoothed one
    assert forward_alone + backward == pytest.approx(expected_passes("segcertify", on, FEW), abs=8 * 2 + 2 * 4 * 2)


def test_without_a_network_to_be_smoothed_it_says_which_role_is_lacking(tmp_path: Path):
    with pytest.raises(sr.InputError, match="expected one of role gaussian"):
        compute("segcertify", [replace(subject("plain", demo))], tmp_path, FEW)
