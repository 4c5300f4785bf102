"""The study of what the fast path changes: what it counts, and that its table is made of its file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import segradius as sr

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("speed_parity")


def test_the_exact_form_of_the_demo_gives_every_pixel_its_class(parity: ModuleType, tmp_path: Path):
    few = {"stride": 1, "limit": 3, "batch": 2, "steps": 6, "queries": 5}
    parity.main("demo", "scenes:24x32", tmp_path / "new", split="val", **few)
    report = json.loads((tmp_path / "new" / "parity.json").read_text())
    assert report["forms"]["fast"] == report["forms"]["exact"] + ", bfloat16"
    for found in report["found"].values():
        assert {len(each) for each in found["accuracy"].values()} == {3}
        assert found["pixels"] == 3 * 24 * 32
        assert set(found["differing"].values()) == {0}
    (cells,) = parity.tables(tmp_path / "new" / "parity.json")
    assert [row[0] for row in cells.rows] == list(report["found"])


def test_a_difference_counts_as_small_by_its_mean_or_by_its_interval(parity: ModuleType):
    plain, less = [0.5] * 6, [0.4996, 0.4990] * 3  # 0.07 points less, and between 0.1 and 0.04
    found = parity.Found({"plain": plain, "exact": less, "fast": less})
    assert found.difference("fast").mean == pytest.approx(-0.07)
    assert found.within("fast", 0.3)
    assert not found.within("fast", 0.09)
    assert not found.within("exact", 0.05)
    assert found.within("exact", 0.08)


def test_a_function_has_no_exact_form(parity: ModuleType):
    network = nn.Conv2d(3, 2, 1)
    model = sr.wrap(lambda images: network(images), num_classes=2)
    with pytest.raises(sr.InputError, match="no layers can be seen"):
        parity.choices(model, torch.rand(1, 3, 8, 8))
