"""Pictures and tables of certificates hold the colours and numbers that they should."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from segradius.certification import ABSTAIN, Hierarchy
from segradius.data import Classes
from segradius.evaluation import CertifiedRow, CertifiedSummary
from segradius.evaluation.certify_summary import PerClass, RadiusCurve
from segradius.metrics.intervals import Interval
from segradius.report import Certified, certified_notes, certified_tables, draw_certified, draw_radii, map_png
from segradius.report.certify_curve import steps
from segradius.report.certify_maps import certified_colours, group_colours, stripes

CLASSES = Classes(("sky", "road"), ((0, 0, 250), (128, 64, 128)))
PALETTE = np.array(CLASSES.palette, dtype=np.uint8)
NONE = Interval(math.nan, math.nan, math.nan)
HALF = Interval(0.5, 0.25, 0.75)
PER_CLASS = (PerClass("sky", 3, 1.0, 0.5), PerClass("road", 1, 0.0, 0.0))
BASE = CertifiedRow("base", HALF, HALF, Interval(0, 0, 0), HALF, HALF, math.nan, math.nan, None, PER_CLASS, None)
CURVE = RadiusCurve((0.0, 0.1, 0.2), (1, 2), (1, 1), (0.5, 0.25, 0.0))
FOUND = CertifiedRow("segcertify", HALF, HALF, HALF, HALF, NONE, 0.1686, 0.5, "It holds.", PER_CLASS, CURVE)
OWN = CertifiedRow("radii", HALF, HALF, HALF, HALF, HALF, 0.1, 0.5, "It holds.", PER_CLASS, CURVE)
LEDGER = {"judging": {"forward": 3, "backward": 0}, "certification": {"forward": 330, "backward": 0}}
SMOOTHED = replace(BASE, name="smoothed")
SUMMARY = CertifiedSummary((BASE, SMOOTHED, FOUND), 3, ("x",), 110, LEDGER, {"y": "truncated"}, {})


def test_the_tables_line_by_line():
    answers, classes = (cells.markdown().splitlines()[2:] for cells in certified_tables(SUMMARY))
    half = "50.0 [25.0, 75.0]"
    assert answers[2] == f"| the model | 3 | {half} | {half} |  |  | {half} | {half} |"
    assert answers[-1] == f"| certified | 3 | {half} | {half} | {half} | 0.169 | {half} | – |"
    assert classes[2:] == ["| sky | 3 | 100.0 | 50.0 | 100.0 | 50.0 |", "| road | 1 | 0.0 | 0.0 | 0.0 | 0.0 |"]


def test_notes_hold_the_promise_the_passes_and_what_is_missing():
    assert certified_notes(SUMMARY) == [
        "certified: It holds.",
        "The promise is about every pixel of an image, void ones too; the figures count labelled pixels only.",
        "Passes over all images: 3 forward for judging, 330 forward for certification; 110 noisy copies an image.",
        "1 image(s) gave NaN or infinite answers to noisy copies, not counted: x",
        "1 image(s) set aside and in no figure: y: truncated",
    ]


def test_groups_have_the_mean_of_their_colours_and_abstention_is_white():
    hierarchy = Hierarchy.of(CLASSES.names, [{"all": list(CLASSES.names)}])
    assert group_colours(PALETTE, hierarchy).tolist() == [
        [[0, 0, 250], [128, 64, 128]], [[64, 32, 189]] * 2,
    ]  # fmt: skip
    found, level = torch.tensor([[0, 1, 1, ABSTAIN]]), torch.tensor([[0, 0, 1, 1]])
    expected = [[[0, 0, 250], [128, 64, 128], [64, 32, 189], [255, 255, 255]]]
    assert certified_colours(found, PALETTE, level, hierarchy).tolist() == expected
    with Image.open(io.BytesIO(map_png(found, PALETTE, level, hierarchy))) as picture:
        assert np.array(picture).tolist() == expected


def test_only_abstained_pixels_are_hatched():
    painted = np.full((40, 40, 3), 255, np.uint8)
    where = torch.zeros(40, 40, dtype=torch.bool)
    where[:, :20] = True
    stripes(painted, where)
    assert (painted[:, 20:] == 255).all()
    assert 0.1 < (painted[:, :20] < 255).mean() < 0.5


def example(share: tuple[float, float] = (0.9, 0.5)) -> Certified:
    label = torch.zeros(24, 32, dtype=torch.long)
    label[12:] = 1
    classes = label.clone()
    classes[:, :8] = ABSTAIN
    return Certified("a", torch.rand(3, 24, 32), label, label, classes, None, (classes >= 0) * 0.2, share)


def test_the_figure_grows_with_the_images_and_shows_the_classes_colours():
    three = Classes((*CLASSES.names, "tree"), (*CLASSES.palette, (0, 128, 0)))  # of two the second is an overlay
    one, two = (Image.open(io.BytesIO(draw_certified([example()] * n, three, "t", None))) for n in (1, 2))
    assert one.width == two.width
    assert two.height > 1.5 * one.height
    seen = {tuple(colour) for colour in np.array(one.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(0, 0, 250), (128, 64, 128), (150, 150, 150)} <= seen


def test_nothing_certified_can_be_drawn():
    nothing = example((0.9, 0.0))
    empty = Certified("a", *(getattr(nothing, p) for p in ("image", "label", "base")), nothing.base * 0 + ABSTAIN, None,
                      nothing.radius * 0, (0.9, 0.0))  # fmt: skip
    assert draw_certified([empty], CLASSES, "t", None).startswith(b"\x89PNG")
    row = CertifiedRow("segcertify", HALF, HALF, HALF, HALF, HALF, math.nan, 0, "It.", PER_CLASS,
                       RadiusCurve((0.0, 0.1), (0,), (0,), (0.0, 0.0)))  # fmt: skip
    summary = CertifiedSummary((BASE, SMOOTHED, row), 3, (), 110, LEDGER, {}, {})
    assert draw_radii(summary, "t").startswith(b"\x89PNG")


def test_radii_of_pixels_get_a_histogram_below_the_curve():
    pictures = [
        Image.open(io.BytesIO(draw_radii(CertifiedSummary(rows, 3, (), 110, LEDGER, {}, {}), "t")))
        for rows in ((BASE, SMOOTHED, FOUND), (BASE, SMOOTHED, FOUND, OWN))
    ]
    assert pictures[0].width == pictures[1].width
    assert pictures[1].height > pictures[0].height


def test_the_curve_never_shows_more_than_is_certified_at_a_radius():
    assert steps(FOUND) == ((0.5,), (0.0, 0.1686))
    # Above 0.1 a quarter is certified and right, above 0.2 nothing: between 0 and 0.1 at least a quarter is.
    assert steps(OWN) == ((0.25, 0.0), (0.0, 0.1, 0.2))
