"""The studies of the cross-check and of SegCertify as a defence: numbers that follow elsewhere, and refusals."""

import csv
import importlib
import json
from pathlib import Path

import pytest

import segradius as sr
from segradius.core.errors import InputError
from segradius.metrics.counts import count
from segradius.metrics.statistics import pooled_accuracy
from segradius.models.demo import demo

STUDIES = Path(__file__).resolve().parents[2] / "studies"
SCENES = "scenes:24x32"
FEW = {"model": "demo", "data": SCENES, "limit": 1, "steps": 2, "samples": 2}


@pytest.fixture
def script(monkeypatch, request):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["crosscheck"], indirect=True)
def test_the_cross_check_writes_what_it_prints_and_accounts_for_every_pass(script, tmp_path):
    given = {"certifiers": "sound,twice the radius", "n0": 5, "n": 60, "copies": 10, "tests": 1, "weakest": (1,)}
    script.main(**FEW, **given, out=str(tmp_path))
    rows = json.loads((tmp_path / "crosscheck.json").read_text())["rows"]
    assert [row["certifier"] for row in rows] == ["sound", "twice the radius"] * 2
    for row in rows[2:]:
        aims = len(row["summaries"]) - 1
        assert row["passes"]["certification"]["forward"] == 10 * (1 + aims)
        if aims:
            assert row["passes"]["attack"] == {"forward": 2 * 2 * aims, "backward": 2 * 2 * aims}
    lines = (tmp_path / "crosscheck.md").read_text().splitlines()
    assert len(lines) == 4 + sum(len(row["summaries"]) for row in rows)
    with pytest.raises(InputError, match="unknown certifier 'sounds'; did you mean 'sound'"):
        script.main(certifiers="sounds", out=str(tmp_path))


@pytest.mark.parametrize("script", ["segcertify_defence"], indirect=True)
def test_the_accuracy_of_the_network_is_that_of_the_library_and_certifying_never_raises_it(script, tmp_path):
    script.main(**FEW, eps=1.0, n0=5, n=40, sigma=0.05, out=str(tmp_path))
    clean, base, smoothed = json.loads((tmp_path / "defence.json").read_text())["rows"]
    sample = sr.open_data(SCENES, limit=1)[0]
    found = count(demo().logits(sample.image[None]).argmax(1), sample.label[None], demo().num_classes)
    assert clean["pixacc"]["network"]["value"] == pytest.approx(pooled_accuracy(found))
    assert (clean["forward"], clean["backward"]) == (0, 0)
    assert base["backward"] == 2
    assert (smoothed["forward"], smoothed["backward"]) == (2 * 2 + 2, 2 * 2)
    for row in (clean, base, smoothed):
        assert row["pixacc"]["certified"]["value"] <= 1 - row["abstained"]


@pytest.mark.parametrize("script", ["interval_coverage"], indirect=True)
def test_the_coverage_of_intervals_is_near_the_aim_and_the_bootstraps_is_not(script, tmp_path):
    script.simulate(tmp_path / "coverage.csv", images="2,6", sets=400, resamples=100)
    lines = (tmp_path / "coverage.csv").read_text().splitlines()[1:]
    rows = {(name, int(n)): tuple(map(float, found)) for name, n, *found in (parse(line) for line in lines)}
    assert len(rows) == 14
    for (name, n), (coverage, _, bootstrap) in rows.items():
        assert coverage > 0.85 or name.endswith("two kinds")
        assert coverage > bootstrap
        assert n > 2 or bootstrap < 0.6


@pytest.mark.parametrize("script", ["claim_coverage"], indirect=True)
def test_intervals_over_three_networks_hold_the_truth_where_those_over_images_alone_do_not(script, tmp_path):
    script.simulate(tmp_path / "coverage.csv", tables=200, resamples=50)
    (shown,) = script.tables(tmp_path / "coverage.csv")
    found = {row[:4]: tuple(map(float, row[4:])) for row in shown.rows}
    assert all(ours > 87 for ours, _, _ in found.values())
    assert found["3 × 24", "1", "0", "0"][2] == 0.0
    assert found["3 × 24", "1", "1", "1"][0] > found["3 × 24", "1", "1", "1"][1] > 70


def parse(line):
    (row,) = csv.reader([line])
    return row
