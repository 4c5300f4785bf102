"""Tables, heat maps, bars and traces of the paper: cells by hand, what is best, what is marked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paper.made import seen, swept
from paper.test_draw_curves import lines, shown
from segradius.core.errors import InputError
from segradius.paper.draw_traces import at_queries, grid_of, longest
from segradius.paper.measured import Certified, Measured, Traced


def test_a_table_has_rows_and_columns_of_any_keys_and_the_unattacked_once_in_each_row():
    rows = [
        seen(f"{family}-0", attack, right, family=family, norm=norm if attack else None, image=image)
        for family in ("pspnet", "psanet")
        for attack, norm, right in (("", "l2", 90), ("PGD", "l2", 40), ("PGD", "linf", 30), ("FGSM", "l2", 70))
        for image in "ab"
    ]
    found = shown(Measured(seen=tuple(rows)), "table", columns=["attack", "norm"], metrics=["pixacc", "miou"])
    cells = found.tables[0]
    assert list(cells.header[2::2]) == [f"{name}: PixAcc, %" for name in ("clean", "PGD ℓ₂", "PGD ℓ∞", "FGSM ℓ₂")]
    assert list(cells.rows[0]) == ["PSPNet", "CamVid", "90.0", "45.0", "40.0", "20.0", "30.0", "15.0", "70.0", "35.0"]
    loose = shown(Measured(seen=tuple(rows)), "table", rows=["norm"], columns=["attack"], only={"family": "pspnet"})
    assert [list(row) for row in loose.tables[0].rows] == [["ℓ₂", "90.0", "40.0", "70.0"], ["ℓ∞", "90.0", "30.0", ""]]


def test_the_unattacked_in_a_row_are_the_networks_that_are_attacked_in_it():
    rows = [
        seen(f"fast_adt-{norm}-0", attack, right, norm=norm if attack else None, role="fast_adt", image=image)
        for norm, clean, left in (("l2", 80, 40), ("linf", 60, 30))
        for attack, right in (("", clean), ("PGD", left))
        for image in "ab"
    ]
    found = shown(Measured(seen=tuple(rows)), "table", rows=["role", "norm"], columns=["attack"])
    assert [list(row) for row in found.tables[0].rows] == [
        ["FastADT", "ℓ₂", "80.0", "40.0"],
        ["FastADT", "ℓ∞", "60.0", "30.0"],
    ]


def test_a_table_of_the_unattacked_alone_and_the_papers_beside_it():
    paper = {"header": ["network", "PixAcc"], "rows": [["PSPNet", 94.4]]}
    found = shown(Measured(seen=(seen(right=80),)), "table", rows=["series"], columns=["data"], paper=paper)
    assert [list(row) for row in found.tables[0].rows] == [["pspnet", "80.0"]]
    assert found.tables[1].rows == [["PSPNet", "94.4"]]
    with pytest.raises(InputError, match=r"\[1\] cells; expected 2"):
        shown(Measured(seen=(seen(),)), "table", paper={"header": ["a", "b"], "rows": [["c"]]})


def test_pixels_at_the_aim_are_shares_of_those_that_have_one():
    rows = [seen(attack="PGD", reached=r, eligible=n, image=i) for i, r, n in (("a", 10, 40), ("b", 50, 60))]
    found = shown(Measured(seen=tuple(rows)), "table", metrics=["reached"], clean=False)
    assert lines(found)[0]["value"] == "0.6"


def test_certificates_have_tables_of_their_own():
    about = {
        "block": "white-l2",
        "network": "gaussian-0",
        "family": "pspnet",
        "role": "gaussian",
        "seed": 0,
        "data": "camvid",
    }
    rows = tuple(
        Certified(
            **about,
            image=i,
            options={"sigma": 0.25},
            answer="segcertify",
            right=r,
            labelled=100,
            abstained=7,
            copies=100,
        )
        for i, r in (("a", 20), ("b", 40))
    )
    found = shown(
        Measured(certified=rows), "table", certified=True, rows=["series", "sigma"], columns=["answer"],
        metrics=["pixacc", "abstained"],
    )  # fmt: skip
    assert [list(row) for row in found.tables[0].rows] == [["gaussian", "0.25", "30.0", "7.0"]]


def cells(values: dict[tuple[int, int], int]) -> Measured:
    """Attacks with a and b, that leave so many of 100 pixels right in each of six images."""
    return Measured(
        seen=tuple(
            seen(attack="CR-PGD", right=right + place, image=f"i{place}", options={"a": a, "b": b})
            for (a, b), right in values.items()
            for place in range(6)
        )
    )


def test_a_heat_map_marks_the_lowest_cell_and_says_how_far_the_papers_is_away():
    values = {(1, -2): 33, (1, -4): 38, (2, -2): 28, (2, -4): 31}
    found = shown(cells(values), "heat", y="a", x="b", mark={"a": 2, "b": -4})
    assert "best at a = 2, b = -2; the paper's cell is +3.0 [+3.0, +3.0] away from it, paired" in found.caption
    assert found.figure is not None
    image = found.figure.axes[0].images[0].get_array()
    assert np.allclose(image, [[40.5, 35.5], [33.5, 30.5]])  # rows a = 1, 2; columns b = -4, -2
    texts = {text.get_text(): text.get_fontweight() for text in found.figure.axes[0].texts}
    assert texts == {"40.5": "normal", "35.5": "normal", "33.5": "normal", "30.5": "bold"}
    with pytest.raises(InputError, match="expected values of a and b"):
        shown(cells(values), "heat", y="a", x="b", mark={"a": 2})


def test_a_matrix_of_networks_and_surrogates_has_its_own_gradients_on_the_diagonal():
    rows = [
        seen(network, "PGD", right, options={"from": other} if other else {})
        for network, other, right in (("a-0", "", 10), ("a-0", "b-0", 80), ("b-0", "", 20), ("b-0", "a-0", 70))
    ]
    found = shown(Measured(seen=tuple(rows)), "heat", y="network", x="from", panels="data", best="none")
    assert [list(row) for row in found.tables[0].rows] == [
        ["CamVid", "a-0", "10.0", "80.0"],
        ["CamVid", "b-0", "70.0", "20.0"],
    ]


def test_bars_are_as_high_as_what_they_show_and_grey_without_an_attack():
    found = shown(Measured(seen=swept(("pspnet", "psanet"), budgets=(1.0,), images=6)), "bars")
    assert found.figure is not None
    values = {(line["family"], line["attack"]): 100 * float(line["value"]) for line in lines(found)}
    bars = found.figure.axes[0].patches
    drawn = [bar.get_height() for bar in bars]
    order = [(family, attack) for attack in ("clean", "PGD", "CR-PGD") for family in ("pspnet", "psanet")]
    assert drawn == pytest.approx([values[each] for each in order])
    assert [round(part, 2) for part in bars[0].get_facecolor()[:3]] == [0.5, 0.5, 0.5]


def trace(attack: str, image: str, points: list[tuple[int, float, float]], **options: object) -> list[Traced]:
    """Queries, loss and share of right pixels."""
    about = ("white-l2", "pspnet-0", "pspnet", "plain", 0, "camvid", image, attack, options, "l2", 10.0)
    return [Traced(*about, queries, loss, right, math.nan) for queries, loss, right in points]


def test_traces_are_means_over_images_of_the_last_value_known():
    rows = [*trace("TPGE", "a", [(2, 1.0, 0.9), (4, 2.0, 0.8)]), *trace("TPGE", "b", [(3, 3.0, 0.5), (8, 5.0, 0.3)])]
    assert grid_of([rows[:2], rows[2:]]).tolist() == [3, 4, 8]
    assert at_queries(rows[:2], "loss", np.array([1.0, 3.0, 9.0])).tolist()[1:] == [1.0, 2.0]
    found = [line for line in lines(shown(Measured(traced=tuple(rows)), "traces")) if line["metric"] == "loss"]
    assert [(line["queries"], float(line["value"])) for line in found] == [("3", 2.0), ("4", 2.5), ("8", 3.5)]


def test_of_runs_of_one_image_with_other_numbers_of_queries_the_longest_is_shown():
    short, long = (
        trace("PBGD", "a", [(2, 1.0, 0.9)], queries=2),
        trace("PBGD", "a", [(2, 1.0, 0.9), (6, 2.0, 0.8)], queries=6),
    )
    assert longest([*short, *long]) == long
    with pytest.raises(InputError, match="lost"):
        shown(Measured(traced=tuple(long)), "traces", show=["lost"])
