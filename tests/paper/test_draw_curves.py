"""Curves of the paper: values by hand, axes with the data's ends, lines told apart, equal bytes for equal data."""

from __future__ import annotations

import csv
import io
import math

import pytest
from matplotlib.colors import to_hex

from paper.made import seen, swept
from segradius.core.errors import InputError
from segradius.metrics.intervals import jackknife
from segradius.paper.draw_data import METRICS, chosen, difference, pooled
from segradius.paper.kinds import KINDS
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown, picture, table, write_shown
from segradius.report.panels import LINES


class Element:
    """One with the block of `seen`."""

    blocks = ("white-l2",)


def shown(measured: Measured, kind: str = "curves", **options: object) -> Shown:
    """What is drawn of it."""
    return KINDS[kind](measured, None, Element(), **{"name": "figure-3", **options})


def lines(found: Shown) -> list[dict[str, str]]:
    """Its CSV file."""
    return list(csv.DictReader(io.StringIO(table(found))))


def test_pixels_are_pooled_over_images_and_networks_and_images_are_what_the_interval_is_over():
    import torch

    rows = [
        seen(right=right, image=image, labelled=n)
        for image, right, n in zip("abcdef", (9, 8, 2, 7, 6, 5), (10, 10, 20, 10, 10, 10), strict=True)
    ]
    found = pooled(rows)
    assert found.found.value == 37 / 70
    assert found.images == 6
    parts = torch.tensor([[row.right, row.labelled] for row in rows], dtype=torch.float64)
    assert found.found == jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1])
    twice = [
        *rows,
        *(seen("pspnet-1", right=row.right, image=row.image, labelled=row.labelled, seed=1) for row in rows),
    ]
    assert pooled(twice).found == found.found  # the same images on a second network tell nothing of other images
    assert (pooled(twice).images, pooled(twice).networks) == (6, 2)


def test_the_miou_of_images_is_a_mean_over_pairs_of_an_image_and_a_class():
    rows = [
        seen(image="a", miou=0.5, classes=2),
        seen(image="b", miou=0.25, classes=4),
        seen(image="c", miou=math.nan, classes=0),
    ]
    assert pooled(rows, "miou").found.value == pytest.approx((0.5 * 2 + 0.25 * 4) / 6)


def test_a_difference_is_paired_and_leaves_out_what_one_side_lacks():
    cr = [seen(attack="CR-PGD", right=r, image=i) for i, r in zip("abc", (10, 20, 90), strict=True)]
    pgd = [seen(attack="PGD", right=r, image=i) for i, r in zip("ab", (15, 30), strict=True)]
    assert difference(cr, pgd).value == pytest.approx((30 - 45) / 200)


def test_two_measurements_of_an_image_in_one_cell_are_refused_and_what_differs_is_named():
    rows = [seen(attack="PGD", eps=eps, options={"steps": steps}) for eps, steps in ((0.5, 5), (1.0, 9))]
    with pytest.raises(InputError, match=r"image a: measured more than once in one cell, with other eps, steps;"):
        pooled(rows)


def test_what_two_blocks_share_is_taken_once_and_what_differs_is_not():
    rows = [seen(block=block, attack=attack, right=40) for block in ("one", "two") for attack in ("", "PGD")]
    assert [(row.block, row.attack) for row in chosen(rows)] == [("one", ""), ("one", "PGD")]
    assert len(chosen([*rows, seen(block="three", attack="PGD", right=41)])) == 3


def test_only_leaves_in_what_was_unattacked_unless_it_asks_for_attacks_or_networks():
    rows = [seen(), seen(attack="PGD", eps=0.5), seen(attack="PGD", eps=1.0), seen("psanet-0")]
    assert len(chosen(rows, only={"eps": 1.0})) == 3
    assert len(chosen(rows, only={"attack": "PGD"})) == 2
    assert len(chosen(rows, only={"family": ["pspnet"]})) == 3


def test_the_file_of_a_curve_holds_each_point_with_its_ends_and_sizes():
    measured = Measured(seen=swept(budgets=(0.5, 1.5), images=6))
    points = {(line["line"], line["eps"]): line for line in lines(shown(measured)) if line["metric"] == "pixacc"}
    assert {eps for _, eps in points} == {"0.0", "0.5", "1.5"}
    mine = [row for row in measured.seen if row.attack == "PGD" and row.eps == 1.5]
    found = points["PGD", "1.5"]
    assert float(found["value"]) == sum(row.right for row in mine) / 600
    assert float(found["low"]) == pooled(mine).found.low
    assert (found["images"], found["networks"]) == ("6", "1")
    clean = [row.right for row in measured.seen if not row.attack]
    assert float(points["CR-PGD", "0.0"]["value"]) == sum(clean) / 600


def test_the_lower_axis_ends_where_the_data_end_and_lines_have_colours_dashes_and_markers_of_their_own():
    figure = shown(Measured(seen=swept(budgets=(0.5, 1.0, 2.0)))).figure
    assert figure is not None
    axis = figure.axes[0]
    assert axis.get_xlim()[0] == 0
    assert 2.0 < axis.get_xlim()[1] < 2.2
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "0.5", "1", "2"]
    drawn = [line for line in axis.lines if len(line.get_xdata()) == 4]
    assert [to_hex(line.get_color()).upper() for line in drawn] == list(LINES[:2])
    assert len({line.get_marker() for line in drawn}) == len({str(line.get_linestyle()) for line in drawn}) == 2


def test_several_networks_have_thin_lines_and_a_panel_for_each_family_and_data():
    measured = Measured(seen=swept(("pspnet", "psanet"), seeds=3, images=5))
    found = shown(measured)
    assert found.figure is not None
    titles = [axis.get_title(loc="left") for axis in found.figure.axes if axis.get_title(loc="left")]
    assert titles == ["PSPNet, CamVid", "PSANet, CamVid"]
    assert len(found.figure.axes[0].lines) == 2 * (1 + 3)
    assert "5 images, 6 networks, up to 3 seeds of each" in found.caption


def test_below_stands_what_an_attack_leaves_more_than_another_paired_over_images():
    measured = Measured(seen=swept(budgets=(1.0,), images=6))
    gaps = [line for line in lines(shown(measured, against="PGD")) if line["metric"] == "pixacc minus PGD"]
    by_attack = [[row for row in measured.seen if row.attack == attack] for attack in ("CR-PGD", "PGD")]
    expected = difference(*by_attack)
    assert [(line["line"], float(line["value"]), float(line["low"])) for line in gaps] == [
        ("CR-PGD", expected.value, expected.low)
    ]


def test_panels_have_one_left_axis_and_start_with_the_same_images_unattacked():
    rows = [row for row in swept(("pspnet",), images=4) if row.image != "image-3" or not row.attack]
    found = shown(Measured(seen=(*rows, *swept(("psanet",), images=4))), line="family", panels=["norm", "attack"])
    assert found.figure is not None
    assert len({axis.get_ylim() for axis in found.figure.axes}) == 1
    start = [line for line in lines(found) if line["line"] == "PSPNet" and line["eps"] == "0.0"]
    clean = [row.right for row in rows if not row.attack and row.image != "image-3"]
    assert [(float(line["value"]), line["images"]) for line in start] == [(sum(clean) / 300, "3")] * 2


def test_what_is_not_swept_is_a_level_beside_a_swept_option():
    cr = [seen(attack="CR-PGD", right=30 + m, image=i, options={"samples": m}) for m in (1, 8) for i in "abcde"]
    found = shown(
        Measured(seen=(*cr, *(seen(attack="PGD", right=60, image=i) for i in "abcde"))), x="samples", against="PGD"
    )
    assert {
        (line["line"], line["samples"], line["metric"]): float(line["value"]) for line in lines(found)
    } == pytest.approx(
        {
            ("PGD", "", "pixacc"): 0.60,
            ("CR-PGD", "1", "pixacc"): 0.31,
            ("CR-PGD", "8", "pixacc"): 0.38,
            ("CR-PGD", "1", "pixacc minus PGD"): -0.29,
            ("CR-PGD", "8", "pixacc minus PGD"): -0.22,
        }
    )


def test_pictures_are_equal_byte_by_byte_for_equal_data_and_hold_no_date(tmp_path):
    measured = Measured(seen=swept(images=5))
    for end in ("svg", "pdf", "png"):
        once, again = (picture(shown(measured).figure, end) for _ in range(2))  # type: ignore[arg-type]
        assert once == again
        assert b"Date" not in once.replace(b"<dc:date", b"Date")
    written = write_shown(shown(measured), tmp_path / "demo", "Figure 3", ["What it finds"])
    assert sorted(file.name for file in written) == [f"figure-3.{end}" for end in ("csv", "md", "pdf", "png", "svg")]
    assert (tmp_path / "demo" / "figure-3.svg").read_bytes() == picture(shown(measured).figure, "svg")  # type: ignore[arg-type]


def test_names_with_markup_stay_text_in_pictures_and_pages(tmp_path):
    name = "<b>$x^2$</b> | [a](b)"
    rows = [
        row if not row.attack else seen(**{**vars(row), "attack": name}) for row in swept(attacks=("PGD",), images=5)
    ]
    found = shown(Measured(seen=tuple(rows)))
    assert found.figure is not None
    assert [text.get_text() for text in found.figure.legends[0].get_texts()] == [r"<b>\$x^2\$</b> | [a](b)"]
    page = write_shown(found, tmp_path)[0].read_text("utf-8")
    assert "<b>" not in page
    assert "[a](b)" not in page


def test_where_nothing_was_measured_that_is_said_and_old_pictures_go(tmp_path):
    write_shown(shown(Measured(seen=swept(images=2))), tmp_path)
    written = write_shown(shown(Measured(seen=())), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [file.name for file in written] == ["figure-3.md"]
    assert "Nothing is shown" in written[0].read_text("utf-8")


def test_an_unknown_option_or_metric_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="pannels"):
        shown(Measured(seen=swept(images=2)), pannels=["family"])
    with pytest.raises(InputError, match=r"pixac.*pixacc"):
        shown(Measured(seen=swept(images=2)), metric="pixac")
    with pytest.raises(InputError, match="heat figure-3 lacks y, x"):
        shown(Measured(seen=swept(images=2)), "heat")
    assert set(METRICS) >= {"pixacc", "miou", "reached", "seconds", "passes"}
