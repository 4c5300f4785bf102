"""Verdicts on claims: words, how cells join, what is left open, and the page that tells it."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.resources import files

import pytest
from statsmodels.stats.multitest import multipletests

from segradius.core.errors import InputError
from segradius.core.safe_json import read_json
from segradius.core.safe_yaml import from_yaml
from segradius.paper.block import read_blocks
from segradius.paper.claim import Claim, Part, Rule, claims, rule
from segradius.paper.contrasts import Found
from segradius.paper.element import Element, Show, read_elements
from segradius.paper.estimate import Estimate, unknown
from segradius.paper.measured import Measured
from segradius.paper.page import About, figure, here, page, pictures, table, write_verdicts
from segradius.paper.scale import Scale
from segradius.paper.verdict import ABSENT, FAILS, HOLDS, OPEN, judge, judged, label

BEATS = Rule(high=0.0, matters=0.5)


class Given:
    """A contrast that finds what it is given."""

    def __init__(self, *estimates, **cells):
        names = cells or {"norm": [f"l{k}" for k in range(len(estimates))]}
        ((name, values),) = names.items()
        self.cells = tuple(
            Found({name: value, "data": "camvid"}, each) for value, each in zip(values, estimates, strict=True)
        )

    def __call__(self, measured):
        return self.cells


def around(value, half, images=24, seeds=1):
    return Estimate(value, value - half, value + half, 23.0, images, seeds)


def claim(*estimates, networks=1, it=BEATS, parts=None):
    return Claim(
        1,
        "a",
        "Group",
        "A beats B",
        "Section 5",
        "1 %",
        ("figure-3",),
        parts or (Part("", Given(*estimates), it),),
        networks,
    )


def word(*estimates, **more):
    found = judge(claim(*estimates, **more), Measured())
    return found.word, found.why


def test_of_one_cell_the_interval_says_it():
    assert word(around(-2, 1)) == (HOLDS, "")
    assert word(around(2, 1)) == (FAILS, "")
    assert word(around(-1, 1.5)) == (OPEN, "the interval reaches across the limit")
    assert word(around(-0.1, 0.3)) == (FAILS, "")
    assert word(around(-0.3, 0.15)) == (HOLDS, "by less than would matter")
    assert word(around(-0.6, 0.7)) == (OPEN, "the interval reaches across the limit")


def test_likeness_holds_where_the_whole_interval_is_within_the_margin():
    like = Rule(-1.0, 1.0)
    assert word(around(0.3, 0.5), it=like) == (HOLDS, "")
    assert word(around(0.8, 0.5), it=like)[0] == OPEN
    assert word(around(-2.0, 0.5), it=like) == (FAILS, "")


def test_all_cells_have_to_hold_and_the_count_is_told():
    assert word(around(-2, 1), around(-3, 1)) == (HOLDS, "in all 2 cells")
    assert word(around(-2, 1), around(-0.3, 1)) == (
        OPEN, "1 of 2 cells hold, 0 do not, 1 are open; the interval reaches across the limit",
    )  # fmt: skip
    assert word(around(-2, 1), around(3, 1)) == (FAILS, "1 of 2 cells hold, 1 do not, 0 are open")


def test_one_of_many_cells_rejects_only_beside_the_others():
    slight = around(1.0, 1.4)
    assert BEATS.fails(slight)
    others = [around(-2, 2.5)] * 9
    assert word(slight)[0] == FAILS
    assert word(slight, *others) == (
        OPEN,
        "0 of 10 cells hold, 0 do not, 10 are open; rejected alone, not beside the other cells; "
        "the interval reaches across the limit",
    )
    found = judge(claim(slight, *others), Measured())
    alone = [BEATS.p_value(each) for each in (slight, *others)]
    assert [each.p_value for each in found.cells] == pytest.approx(list(multipletests(alone, method="holm")[1]))


def test_a_comparison_of_networks_takes_three_of_each():
    assert word(around(-2, 1, seeds=3), networks=3) == (HOLDS, "")
    assert word(around(-2, 1, seeds=1), networks=3) == (
        OPEN, "1 trained network a group; a comparison of networks or defences takes 3",
    )  # fmt: skip
    assert word(around(9, 1, seeds=2), networks=3)[0] == OPEN


def test_what_has_no_interval_is_open_with_its_reason():
    assert word(unknown("4 images; an interval takes 5", -3.0, 4, 1)) == (OPEN, "4 images; an interval takes 5")
    assert word(unknown("no finite value")) == (OPEN, "no finite value")
    assert word() == (ABSENT, "")


def test_parts_that_were_not_measured_leave_open_what_the_others_do_not_refute():
    there, gone, against = (
        Part("l2", Given(around(-2, 1)), BEATS),
        Part("l1", Given(), BEATS),
        Part("l∞", Given(around(2, 1)), BEATS),
    )
    assert word(parts=(there, gone)) == (OPEN, "not measured: l1")
    assert word(parts=(there, gone, against)) == (FAILS, "1 of 2 cells hold, 1 do not, 0 are open; not measured: l1")
    assert word(parts=(gone, gone))[0] == ABSENT


def test_rules_have_one_region():
    assert rule({"above": 1, "matters": 2}) == Rule(low=1.0, matters=2.0)
    assert [rule({"below": -10}).told("points"), rule({"within": [-1, 1]}).told("")] == [
        "below -10 points",
        "between -1 and 1",
    ]
    for wrong in (
        {},
        {"above": 0, "below": 1},
        {"within": [1, -1]},
        {"within": 3},
        {"below": "x"},
        {"within": [0, 1], "matters": 1},
    ):
        with pytest.raises(InputError):
            rule(wrong)


def test_the_papers_claims_are_read_and_none_is_measured_without_measurements():
    found = judged(Measured())
    assert len(found) >= 22
    assert [each.claim.number for each in found] == list(range(1, len(found) + 1))
    assert {each.word for each in found} == {ABSENT}
    assert all(each.claim.says and each.claim.where and each.claim.paper for each in found)


def test_a_wrong_file_of_claims_is_refused_by_the_claims_name(tmp_path):
    file = tmp_path / "claims.yaml"
    part = "{contrast: computed, block: b, value: v, below: 0}"
    good = f"- {{name: a, group: G, says: S, where: W, paper: P, elements: [e], parts: [{part}]}}\n"
    file.write_text(good)
    assert [each.name for each in claims(file)] == ["a"]
    for wrong, told in (
        (good + good, "one claim of a name"),
        (good.replace("says: S, ", ""), "claim a key"),
        (good.replace("below: 0", "beneath: 0"), "claim a: unknown computed key 'beneath'"),
        (good.replace("value: v, below: 0", "value: v"), "claim a: the rule of a claim"),
        (good.replace("[e]", "[]"), "elements of claim a"),
        (good.replace("says: S", "says: S, notes: {hold: x}"), "did you mean 'holds'"),
        ("a: 1", "expected a list"),
    ):
        file.write_text(wrong)
        with pytest.raises(InputError, match=told):
            claims(file)


def named(part, key):
    """Values of a field that a part of a claim names, in whichever of its choices."""
    found = [part.get(key), *(part.get(side, {}).get(key) for side in ("of", "minus", "where", "one", "to"))]
    return {each for value in found if value for each in (value if isinstance(value, list) else [value])}


def test_claims_are_about_blocks_attacks_and_elements_that_there_are():
    elements, blocks = read_elements(), read_blocks(Scale.read("light"))
    for claim in from_yaml((files("segradius.paper") / "claims.yaml").read_text("utf-8")):
        assert set(claim["elements"]) <= set(elements), claim["name"]
        shown = {block for name in claim["elements"] for block in elements[name].blocks}
        for part in claim["parts"]:
            its = {block for name in named(part, "block") for block in blocks if fnmatchcase(block, name)}
            assert its, claim["name"]
            assert its & shown, claim["name"]
            attacks = {name for block in its for name in (blocks[block].study or {}).get("attacks", {})}
            assert part["contrast"] == "computed" or named(part, "attack") - {"clean"} <= attacks, claim["name"]


def about():
    element = Element(
        "figure-3", "PGD and CR-PGD", "Figure 3", "5.2.2", "…", ("white-l2",), (Show("curves", "figure-3", {}),)
    )
    scale = Scale("light", "Light networks.", (), {}, {})
    return About(
        scale, "segradius paper claims", ("Version 1.",), {"figure-3": element}, {"figure-3": "figures/figure-3.svg"}
    )


def test_the_page_tells_verdicts_cells_pictures_and_commands():
    noted = replace(claim(around(-2, 1), around(3, 1)), reason="How.", notes={FAILS: "Why not.", HOLDS: "Why."})
    two = judge(noted, Measured())
    none = replace(two, claim=replace(two.claim, number=2, name="b", says="C beats D"), word=ABSENT, why="", cells=())
    text = page([two, none], Measured(), about())
    assert "**Of 2 claims**: 0 hold, 1 do not hold, 0 are not decidable at this scale, 1 are not measured." in text
    assert (
        "| 1 | A beats B | Section 5 | 1 % | -2.00 to +3.00 points in 2 cells | does not hold | 24 | 1 | 1.00 |" in text
    )
    assert "![Figure 3: PGD and CR-PGD](figures/figure-3.svg)" in text
    assert "| l0 | -2.00 [-3.00, -1.00] points | below 0 points, by 0.5 to matter | 24 | 1 | holds | 1 |" in text
    assert "**Not measured**: `segradius paper run figure-3 --scale light`" in text
    assert "How.\n\nWhy not.\n\n|" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 180
    assert text == page([two, none], Measured(), about())


def test_numbers_of_the_page():
    assert [figure(value) for value in (-0.004, 0.0, 0.046, -12.34, 4321.0)] == [
        "0.00",
        "0.00",
        "+0.05",
        "-12.3",
        "+4321",
    ]
    one = judge(claim(around(-2, 1)), Measured())
    assert (here(one), one.images, one.seeds) == ("-2.00 [-3.00, -1.00] points", (24, 24), (1, 1))
    assert here(judge(claim(unknown("1 image", -3.0, 1, 1)), Measured())) == "-3.00 points"
    assert table([one]).rows[0][5] == HOLDS


def test_cells_are_named_by_what_tells_them_apart():
    found = judge(claim(around(-2, 1), around(3, 1)), Measured())
    assert [label(each, found.cells) for each in found.cells] == ["l0", "l1"]
    sweep = judge(claim(parts=(Part("PixAcc", Given(around(-2, 1), around(3, 1), samples=[2, 4]), BEATS),)), Measured())
    assert [label(each, sweep.cells) for each in sweep.cells] == ["PixAcc, samples 2", "PixAcc, samples 4"]
    assert label(judge(claim(around(-2, 1)), Measured()).cells[0], ()) == "all"


def test_verdicts_are_written_as_tables_and_as_json(tmp_path):
    found = [judge(claim(around(-2, 1), unknown("1 image", math.nan)), Measured())]
    write_verdicts(found, tmp_path)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "claims.csv").read_text("utf-8"))))
    assert [(each["cell"], each["verdict"], each["why"]) for each in lines] == [
        ("l0", HOLDS, ""), ("l1", OPEN, "1 image"),
    ]  # fmt: skip
    assert [float(lines[0][name]) for name in ("value", "low", "high", "half_width")] == [-2.0, -3.0, -1.0, 1.0]
    (whole,) = read_json(tmp_path / "claims.json")["claims"]
    assert (whole["verdict"], whole["cells"][0]["high"], whole["cells"][1]["value"]) == (OPEN, -1.0, None)
    assert json.dumps(whole)


def test_pictures_are_linked_from_where_the_page_is(tmp_path):
    folder = tmp_path / "figures" / "reproduction"
    folder.mkdir(parents=True)
    (folder / "figure-3.svg").write_text("<svg/>")
    assert pictures(folder, tmp_path / "reproduction.md") == {"figure-3": "figures/reproduction/figure-3.svg"}
