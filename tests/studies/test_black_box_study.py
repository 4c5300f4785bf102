"""The study of black-box attacks: cells are made once, budgets are what separate runs find, pairs are over frames."""

import importlib
from pathlib import Path

import pytest
import yaml

STUDIES = Path(__file__).resolve().parents[2] / "studies"
PLAN = {
    "groups": {
        "few": {
            "frames": 2,
            "budgets": [4, 8],
            "networks": ["demo"],
            "threats": {"linf": ["16/255"], "l1": [40]},
            "lines": {
                "once": {"attack": "stripes", "width": {"linf": 4, "l1": 2}},
                "each": {"attack": "stripes", "width": {"linf": 4, "l1": 2}, "each": True},
                "square": {"attack": "square", "each": True},
            },
        }
    }
}


def test_a_cell_is_made_once_and_a_smaller_budget_is_read_from_a_longer_run(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(STUDIES))
    study = importlib.import_module("black_box")
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(PLAN, sort_keys=False))
    given = {"plan": plan, "models": "demo=demo", "data": "scenes:24x32,12", "out": tmp_path, "split": "test"}
    study.main(**given, size="24x32")
    first = (tmp_path / "rows.csv").read_text()
    study.main(**given, size="24x32")
    assert (tmp_path / "rows.csv").read_text() == first
    rows = study.read(tmp_path / "rows.csv")
    assert [(r.line, r.norm, r.budget) for r in rows[:6]] == [
        *(("once", norm, budget) for norm in ("linf", "l1") for budget in (4, 8)),
        *(("each", "linf", budget) for budget in (4, 8)),
    ]
    assert {r.norm for r in rows if r.line == "square"} == {"linf"}  # it is not defined for l1
    found = {(r.line, r.norm, r.budget): r.pixacc for r in rows}
    for norm in ("linf", "l1"):
        for budget in (4, 8):
            assert found["once", norm, budget] == found["each", norm, budget]
        assert found["once", norm, 8] <= found["once", norm, 4]
    difference = study.paired(rows, "square", "once", "linf", "16/255", 8)
    mean = sum(a - b for a, b in zip(found["square", "linf", 8], found["once", "linf", 8], strict=True)) / 2
    assert difference.mean == pytest.approx(100 * mean)
    (table,) = study.tables(tmp_path / "rows.csv")
    assert table.header == ("line", "linf 16/255: 4", "linf 16/255: 8", "l1 40: 4", "l1 40: 8")
    assert [row[0] for row in table.rows] == ["once", "each", "square"]
    assert table.rows[2][3:] == ("", "")
