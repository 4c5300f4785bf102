"""Norms of attacks without a ball: closed form on lengths that are known, and from a run to its files and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import segradius as sr
from saved_runs import squares, threshold
from segradius.evaluation import median_norm, norm_curve, norms_reached, pixel_success, results_schema
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.norms import norms_of
from segradius.evaluation.rows import ImageResult
from segradius.metrics.counts import Pixels

#: Image, pixels of 200 that are right, length: the second misses 99 % by a pixel.
KNOWN = (("a", 2, 0.5), ("b", 3, 0.1), ("c", 0, 2.0), ("d", 1, 0.5))


def lines(**more: object) -> list[dict[str, object]]:
    found = {"attack": "fmn", "norm": "l2", "eps": None, "valid": 1, "pixels": 200, "l1": 9.0, "linf": 9.0}
    return [found | {"image": image, "right": right, "l2": length} | more for image, right, length in KNOWN]


def test_norms_curve_median_and_apsr_of_known_lengths():
    found = norms_reached(lines())
    assert found == {"a": 0.5, "b": math.inf, "c": 2.0, "d": 0.5}
    assert norm_curve(found.values()) == ([0.5, 2.0], [0.5, 0.75])
    assert median_norm(found.values()) == (0.5 + 2.0) / 2
    assert norms_reached(lines(), 0.985)["b"] == 0.1
    assert list(norms_reached(lines(), 1.0).values()) == [math.inf, math.inf, 2.0, math.inf]
    assert median_norm(norms_reached(lines(), 1.0).values()) == math.inf
    assert pixel_success(lines()) == pytest.approx({"a": 0.99, "b": 0.985, "c": 1.0, "d": 0.995}, abs=1e-15)
    assert norm_curve([math.inf]) == ([], [])
    assert math.isnan(median_norm([]))


def test_an_aim_counts_where_it_led_and_what_is_no_image_of_the_attack_is_passed_over():
    aimed = lines(hit=198, eligible=200)
    assert math.inf not in norms_reached(aimed, targeted=True).values()
    assert set(pixel_success(aimed, targeted=True).values()) == {0.99}
    assert norms_reached([*lines(valid=0), *lines(norm=None)]) == {}
    with pytest.raises(sr.InputError, match=r"lines are of 2 attacks \(ddn l2, fmn l2\); expected those of one attack"):
        norms_reached([*lines(), *lines(attack="ddn")])
    with pytest.raises(sr.InputError, match="share is 0; expected"):
        norms_reached(lines(), 0)


def test_of_several_attacks_each_image_has_the_shortest_and_none_in_a_ball():
    results = {i: ImageResult(i, Pixels((right,), (200,), (200,)), l2=length) for i, right, length in KNOWN}
    other = {image: ImageResult(image, Pixels((0,), (200,), (200,)), l2=1.0) for image in results}
    fmn, ddn = (AttackPlan(name, "l2", math.inf, {"share": 0.99}) for name in ("fmn", "ddn"))
    one, both = (norms_of(each, "abcd", targeted=False) for each in ([(fmn, results)], [(fmn, results), (ddn, other)]))
    assert one is not None
    assert both is not None
    assert (one.median, one.reached, one.share, one.apsr) == (1.25, 0.75, 0.99, pytest.approx(0.9925, abs=1e-15))
    assert (both.median, both.reached, both.apsr) == ((0.5 + 1.0) / 2, 1.0, 1.0)
    unlike = AttackPlan("ddn", "l2", math.inf, {"share": 0.5})
    assert norms_of([(fmn, results), (unlike, other)], "abcd", targeted=False) is None
    assert norms_of([(AttackPlan("fmn", "l2", 1.5), results)], "abcd", targeted=False) is None


def test_from_a_run_without_a_ball_to_tables_files_and_back(tmp_path: Path):
    given = {"norm": "l2", "share": 0.3, "steps": 4, "quiet": True, "figures": 0, "gallery": 0}
    found = sr.evaluate(threshold(), squares(3), ["fmn", "ddn"], eps=math.inf, **given)
    clean, fmn, *_, worst = found.summary.rows
    assert clean.norms is None
    assert fmn.norms is not None
    assert fmn.norms.share == 0.3
    assert worst.norms is not None
    own = norms_reached([line for line in found.per_image() if line["attack"] == "fmn"], 0.3)
    assert fmn.norms.reached == sum(length < math.inf for length in own.values()) / 3 == 1
    assert fmn.norms.median == pytest.approx(median_norm(own.values()), rel=1e-8)
    assert worst.norms.median is not None
    assert worst.norms.median <= fmn.norms.median
    told = str(found)
    assert "| median norm | reached % | APSR % |" in told
    assert f"| {fmn.norms.median:.4g} | 100 |" in told
    assert "at least 30 % of the pixels are fooled" in told
    folder = found.save(tmp_path / "out")
    report = json.loads((folder / "results.json").read_text("utf-8"))
    assert [error.message for error in Draft202012Validator(results_schema()).iter_errors(report)] == []
    assert report["rows"][1]["norms"].keys() == {"median", "reached", "share", "apsr"}
    assert "norms" not in report["rows"][0]
    assert (folder / "norms.png").read_bytes().startswith(b"\x89PNG")
    read = sr.load_results(folder).runs[0]
    assert read.rows == found.summary.rows
    assert next(line for line in read.table("rows") if line["attack"] == "fmn")["norms_median"] == fmn.norms.median
    inside = sr.evaluate(threshold(), squares(3), "fmn", eps=1.0, **given)
    assert inside.summary.rows[1].norms is None
    assert "median norm" not in str(inside)
