"""The simulation behind the table of docs/gate.md: it has the drop that it says, and equal models pass."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("gate_power")


@pytest.mark.parametrize("skewed", [False, True])
def test_what_is_drawn_has_the_drop_and_the_spread_that_are_told(power: ModuleType, skewed: bool):
    torch.manual_seed(0)
    before, after = power.draw(20_000, 0.03, 0.02, skewed=skewed)
    assert min(before.min(), after.min()) > -1e-12
    assert max(before.max(), after.max()) < 1 + 1e-12
    gaps = before - after
    torch.testing.assert_close(gaps.mean(0), torch.full((9,), 0.02).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(gaps.std(0), torch.full((9,), 0.03).double(), atol=3e-3, rtol=0)
    assert (before.T.corrcoef() > 0.5).all()


def test_verdicts_are_counted(power: ModuleType, tmp_path: Path):
    power.simulate(tmp_path / "new" / "p.csv", images="8", spreads="0.01,0.02", allowed="0.02", runs=40, others=5)
    equal, lost, skewed = power.tables(tmp_path / "new" / "p.csv")
    for cells, rows in ((equal, 2), (lost, 2), (skewed, 1)):
        assert len(cells.rows) == rows
        for row in cells.rows:
            assert sum(map(float, row[2].split(" / "))) == pytest.approx(100, abs=0.3)
    assert float(equal.rows[0][2].split(" / ")[3]) <= 5
    assert float(lost.rows[0][2].split(" / ")[0]) == 0
