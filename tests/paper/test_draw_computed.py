"""What is drawn of computed blocks: rows, lines, weights, Figure 1 and Figure 5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paper.test_draw_curves import lines, shown
from segradius.core.errors import InputError
from segradius.paper.computed.allocation import Pixels, binned, statistics
from segradius.paper.computed.spread import difference_of, mean_of
from segradius.paper.draw_maps import read, turned
from segradius.paper.draw_weights import weights_at
from segradius.paper.measured import Measured

FOUND = {
    "reaches": [0.001, 0.1],
    "rows": [
        {"label": "TPGE", "cosine": 0.123456, "queries": 2, "scale": [1.0, 0.25], "norms": [9.0, 8.0], "paper": None},
        {
            "label": "OPGE",
            "cosine": {"value": 0.5, "low": 0.25, "high": 0.75},
            "queries": 12345,
            "scale": None,
            "norms": [900.0, 9.0],
        },
    ],
}


def computed(**found: object) -> Measured:
    """One computed block."""
    return Measured(computed={"white-l2": found})


def test_rows_have_text_first_then_numbers_with_their_ends_and_errors():
    columns = {"queries": "queries", "label": "estimator", "cosine": "cosine", "scale": "scale"}
    found = shown(computed(**FOUND), "rows", columns=columns, errors=["scale"])
    assert list(found.tables[0].header) == ["estimator", "queries", "cosine", "scale"]
    assert [list(row) for row in found.tables[0].rows] == [
        ["TPGE", "2", "0.123", "1 ± 0.25"],
        ["OPGE", "12,345", "0.5 [0.25, 0.75]", ""],
    ]
    assert [line["cosine"] for line in lines(found)] == ["0.123456", "0.5"]
    with pytest.raises(InputError, match="cosines"):
        shown(computed(**FOUND), "rows", columns=["cosines"])
    with pytest.raises(InputError, match="losses"):
        shown(computed(**FOUND), "rows", **{"from": "losses"})


def test_shares_are_in_per_cent_and_rows_can_be_chosen():
    found = shown(computed(**FOUND), "rows", columns=["label", "cosine"], percent=["cosine"], only={"label": "TPGE"})
    assert [list(row) for row in found.tables[0].rows] == [["TPGE", "12.3"]]
    found = shown(computed(**FOUND), "rows", columns=["label", "cosine"], decimals=1)
    assert [row[1] for row in found.tables[0].rows] == ["0.1", "0.5 [0.2, 0.8]"]


def test_lines_take_lists_as_points_and_lists_of_numbers_as_their_mean():
    found = shown(computed(**FOUND), "lines", x="reaches", y="norms", line="label", log="xy")
    assert [(line["label"], line["reaches"], float(line["norms"])) for line in lines(found)] == [
        ("TPGE", "0.001", 9.0), ("TPGE", "0.1", 8.0), ("OPGE", "0.001", 900.0), ("OPGE", "0.1", 9.0),
    ]  # fmt: skip
    regret = [{"loss": "cone", "rounds": [4, 16], "regret": [[1.0, 3.0], [4.0, 4.0]]}]
    drawn = shown(
        computed(losses=regret), "lines", x="rounds", y="regret", line="loss", slopes=[0.5], **{"from": "losses"}
    )
    assert [float(line["regret"]) for line in lines(drawn)] == [2.0, 4.0]
    assert drawn.figure is not None
    assert drawn.figure.axes[0].lines[1].get_ydata().tolist() == [2.0, 4.0]  # √T through the first point
    twice = [{**regret[0], "setting": setting} for setting in ("letter", "norm")]
    with pytest.raises(InputError, match="cone: more than one value at rounds = 4; expected what differs among `line`"):
        shown(computed(losses=twice), "lines", x="rounds", y="regret", line="loss", **{"from": "losses"})
    with pytest.raises(InputError, match="expected 2, as rounds has"):
        shown(
            computed(losses=[{**regret[0], "regret": [1.0]}]),
            "lines",
            x="rounds",
            y="regret",
            line="loss",
            **{"from": "losses"},
        )


def test_weights_are_those_of_the_attack_and_nearly_equal_by_the_letter():
    radius = np.array([0.0, 2.0, 4.61])
    assert weights_at(radius, 2, -4) == pytest.approx(1 / (1 + np.exp(2 * radius - 4)), rel=1e-6)
    letter = weights_at(radius, 2, -4, "pixel")
    assert letter == pytest.approx(1 / (1 + np.exp(2 * 0.001 * radius - 4)), rel=1e-9)
    found = shown(computed(), "weights", also={"steep": {"a": 3, "b": -2}})
    assert "every weight lies between 0.9819 and 0.9820" in found.caption
    assert {line["line"] for line in lines(found)} == {
        "a = 2, b = -4",
        "steep",
        "a = 2, b = -4, radius not in units of σ",
    }


def one_image(folder: Path) -> Measured:
    """Two rows of two pixels, one void; PGD turns the first, CR-PGD the first and the second."""
    arrays = {
        "image": np.zeros((2, 2, 1), np.uint8), "label": np.array([[0, 1], [1, 255]], np.uint8), "void": np.array(255),
        "radius": np.array([[1.0, 2.0], [3.0, 4.0]], np.float16), "prediction": np.array([[0, 1], [0, 0]], np.uint8),
        "prediction_0": np.array([[1, 1], [0, 0]], np.uint8), "prediction_1": np.array([[1, 0], [0, 1]], np.uint8),
        "delta_0": np.array([[[127, 0], [0, 127]], [[0, 0], [0, 127]]], np.int8),
        "delta_1": np.array([[[0, 127], [0, 0]], [[0, 127], [0, 0]]], np.int8),
    }  # fmt: skip
    np.savez(folder / "maps-pspnet-0.npz", **arrays)
    about = {
        "label": "pspnet-0", "data": "camvid", "image": "a <b>", "file": "maps-pspnet-0.npz",
        "classes": ["sky", "$tree$"],
        "palette": [[0, 0, 0], [200, 0, 0]], "attacks": {"PGD": {"scale": 1.0}, "CR-PGD": {"scale": 0.5}},
    }  # fmt: skip
    found = {"networks": [about], "norm": "l2", "eps": 1.5, "sigma": 0.001, "a": 2.0, "b": -4.0}
    return Measured(computed={"white-l2": found}, folders={("white-l2", ""): folder})


def test_figure_1_shows_lengths_over_bands_on_one_scale_and_what_one_attack_alone_turned(tmp_path):
    measured = one_image(tmp_path)
    it = read(measured, "white-l2")
    assert it.perturbation == pytest.approx(np.array([[[1, 0], [0, 2**0.5]], [[0, 0.5**0.5], [0, 0]]]), rel=1e-6)
    assert [it.share(nth) for nth in range(3)] == pytest.approx([2 / 3, 1 / 3, 0])
    assert turned(it).tolist()[0] == [[170] * 3, [213, 94, 0]]  # both, and the second alone
    found = shown(measured, "maps")
    assert found.figure is not None
    titles = [axis.get_title(loc="left") for axis in found.figure.axes]
    assert [title[:3] for title in titles[:12]] == [f"({sign})" for sign in "abcdefghijkl"]
    assert titles[3:6] == ["(d) certified radius, in σ", "(e) |δ| of PGD", "(f) |δ| of CR-PGD"]
    shown_maps = [axis.images[0] for axis in found.figure.axes[4:6]]
    assert shown_maps[0].get_clim() == shown_maps[1].get_clim()
    by_attack = {line["attack"]: line for line in lines(found)}
    assert float(by_attack["PGD"]["mean_radius"]) == pytest.approx((1 + 4 * 2**0.5) / (1 + 2**0.5), rel=1e-6)
    assert float(by_attack["CR-PGD"]["mean_radius"]) == pytest.approx(2.0)


def test_figure_1_without_its_arrays_or_of_another_network_is_an_error_that_names_them(tmp_path):
    measured = one_image(tmp_path)
    with pytest.raises(InputError, match="psanet-0"):
        shown(measured, "maps", network="psanet-0")
    (tmp_path / "maps-pspnet-0.npz").unlink()
    with pytest.raises(InputError, match=r"maps-pspnet-0\.npz is not there"):
        shown(measured, "maps")


def allocated(images: int = 6, pixels: int = 40) -> Measured:
    """PGD spreads evenly, CR-PGD puts all on the half with the least radius."""
    draw = torch.Generator().manual_seed(0)
    known = torch.ones(pixels, dtype=torch.bool)
    found = []
    for _ in range(images):
        radius = torch.rand(pixels, generator=draw).double() + 1
        small = (radius < radius.median()).double()
        found.append(Pixels(radius, known, {"PGD": torch.ones(pixels).double(), "CR-PGD": small}, {}))
    rows = []
    for attack in ("PGD", "CR-PGD"):
        each = [statistics(one.radius, one.size[attack], known) for one in found]
        columns = {name: [one[name] for one in each] for name in each[0]}
        first = [statistics(one.radius, one.size["PGD"], known) for one in found]
        gaps = {name: difference_of(columns[name], [one[name] for one in first]) for name in columns}
        rows.append(
            {
                "label": "n",
                "attack": attack,
                **{k: mean_of(v) for k, v in columns.items()},
                "difference": gaps,
                "each": columns,
            }
        )
    network = {"label": "n", "data": "camvid", "images": [f"i{k}" for k in range(images)], "bins": binned(found, 4)}
    return computed(norm="l2", eps=1.5, quantiles=[0.1, 0.25, 0.5, 0.75, 0.9], networks=[network], rows=rows)


def test_figure_5_has_density_one_where_an_attack_spreads_evenly_and_tests_the_difference():
    found = shown(allocated(), "allocation", statistic="small_half")
    density = [float(line["density"]) for line in lines(found) if line["attack"] == "PGD" and line["density"]]
    assert density == pytest.approx([1.0] * 4)
    guided = [float(line["density"]) for line in lines(found) if line["attack"] == "CR-PGD" and line["density"]]
    assert sum(guided) / 4 == pytest.approx(1.0)
    assert guided[0] > 1.8
    assert guided[3] == 0
    assert "CR-PGD minus PGD: +0.5" in found.caption
    assert "p = 0.0312 (flipped signs of images)" in found.caption  # 2 of the 64 assignments of six signs
    with pytest.raises(InputError, match="small_halves"):
        shown(allocated(), "allocation", statistic="small_halves")
