"""Tables say what the summary says; pictures are made of the right colours."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from segradius.data import Classes
from segradius.evaluation import Comparison, Row, Sanity, Summary
from segradius.evaluation.rounded import EightBit
from segradius.metrics.intervals import Difference, Interval
from segradius.report import Attacked, Shown, draw, notes, tables
from segradius.report.attack import CHANGES, changes, magnification
from segradius.report.panels import VOID, colours, full_palette

CLASSES = Classes(("sky", "road"), ((0, 0, 255), (128, 64, 128)))
THREE = Classes((*CLASSES.names, "tree"), (*CLASSES.palette, (0, 128, 0)))
NONE = Interval(math.nan, math.nan, math.nan)
CLEAN = Row("clean", None, None, 3, 0, *[Interval(0.9, 0.8, 1.0)] * 3, NONE, 1.0, 0.0, 0.02, {}, None)
HALF = [Interval(0.5, 0.25, 0.625)] * 3
PGD = Row("pgd", "l2", 1.5, 2, 1, *HALF, replace(NONE, value=0.4), 51.0, 50.0, 1.234, {}, Sanity(1.0, 0.0, 0.0))
EIGHT = EightBit(Interval(0.6, 0.5, 0.7), HALF[0], 1.53125, 390.47)
SUMMARY = Summary(
    (CLEAN, replace(PGD, rounded=EIGHT), replace(PGD, name="cr_pgd")),
    (Comparison("cr_pgd", "pgd", "l2", 1.5, 2, Difference(-0.0125, -0.02, 0.001, 0.04)),),
    {"b": "truncated"},
)


def test_the_markdown_table_line_by_line():
    metrics, differences = (cells.markdown().splitlines()[2:] for cells in tables(SUMMARY))
    assert metrics == [
        "| attack | norm | ε | images | PixAcc % | MIoU % | MIoU/image % | PixAcc %, 8 bits | ε, 8 bits | success % "
        "| passes f+b | s/image |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        "| clean |  |  | 3 | 90.0 [80.0, 100.0] | 90.0 [80.0, 100.0] | 90.0 [80.0, 100.0] |  |  |  | 1+0 | 0.02 |",
        "| pgd | l2 | 1.5 | 2 | 50.0 [25.0, 62.5] | 50.0 [25.0, 62.5] | 50.0 [25.0, 62.5] | 60.0 [50.0, 70.0] | 1.531 "
        "| 40.0 | 51+50 | 1.23 |",
        "| cr_pgd | l2 | 1.5 | 2 | 50.0 [25.0, 62.5] | 50.0 [25.0, 62.5] | 50.0 [25.0, 62.5] | – | – "
        "| 40.0 | 51+50 | 1.23 |",
    ]
    assert differences[-1] == "| cr_pgd − pgd | l2 | 1.5 | 2 | -1.2 [-2.0, +0.1] | 0.04 |"


def test_the_table_on_screen_has_the_same_cells():
    for cells in tables(SUMMARY):
        console = Console(file=io.StringIO(), width=200)
        console.print(cells.rich())
        shown = console.file.getvalue()
        assert all(cell in shown for row in (cells.header, *cells.rows) for cell in row)


def test_notes_name_images_set_aside_invalid_images_and_broken_promises():
    broken = replace(PGD, name="mine", invalid=0, sanity=Sanity(1.01, 0.25, 0.5))
    found = notes(Summary((CLEAN, PGD, broken), (), {"b": "truncated"}))
    assert found == [
        "1 image(s) set aside and in no figure: b: truncated",
        "pgd (l2): 1 image(s) gave NaN or infinite logits, not counted",
        "mine (l2, ε = 1.5): a perturbation is 1.01 times as long as ε",
        "mine (l2, ε = 1.5): adversarial values lie up to 0.25 outside [0, 1]",
        "mine (l2, ε = 1.5): 50.00% of the predictions differ when the adversarial images are judged again",
    ]
    assert notes(Summary((CLEAN,), (), {})) == []
    named = Summary((PGD,), (), {}, invalid={("pgd", "l2", 1.5): ("x", "y")})
    assert notes(named) == ["pgd (l2): 1 image(s) gave NaN or infinite logits, not counted: x, y"]


@settings(deadline=None)
@given(st.floats(1e-6, 0.5))
def test_the_magnification_is_round_and_brings_the_perturbation_between_a_fifth_and_a_half(size: float):
    factor = magnification(torch.full((3, 2, 2), size))
    assert int(str(factor)[0]) in (1, 2, 5)
    assert set(str(factor)[1:]) <= {"0"}
    assert 0.19 < factor * size <= 0.5 + 1e-6


def test_nothing_is_not_magnified():
    assert magnification(torch.zeros(3, 2, 2)) == 1


def test_classes_have_their_colours_and_void_is_neutral():
    palette = np.array(CLASSES.palette, dtype=np.uint8)
    assert colours(torch.tensor([[0, 1, 255]]), palette, 255).tolist() == [[[0, 0, 255], [128, 64, 128], list(VOID)]]


def test_classes_that_only_the_model_knows_get_colours_of_their_own():
    shown = example(prediction=torch.tensor([[0, 4], [1, 1]]))
    palette = full_palette(CLASSES, [shown.prediction, *(each.prediction for each in shown.attacks)])
    assert palette[:2].tolist() == [[0, 0, 255], [128, 64, 128]]
    assert len({tuple(colour) for colour in palette.tolist()}) == 5


@pytest.mark.parametrize("attacks", [1, 3])
def test_the_picture_holds_the_classes_colours_and_grows_with_attacks_and_images(attacks: int):
    one = example(attacks=attacks)
    small, large = (Image.open(io.BytesIO(draw(list(s), THREE, "title"))) for s in ([one], [one, one]))
    assert large.width == small.width
    assert large.height > 1.8 * small.height
    seen = set(map(tuple, np.asarray(small.convert("RGB")).reshape(-1, 3).tolist()))
    assert set(CLASSES.palette) <= seen  # of two classes the second is drawn over the image: test_asked.py


def test_changed_pixels_have_the_colour_of_what_became_of_them_and_void_has_none():
    label = torch.tensor([[0, 0, 0, 0, 255]])
    before, now = torch.tensor([[0, 0, 1, 1, 0]]), torch.tensor([[0, 1, 2, 0, 1]])
    shown = Shown("a", torch.ones(3, 1, 5), label, before, None, ())
    pale = (255, 255, 255)
    expected = [pale, CHANGES["right, now wrong"], CHANGES["wrong, otherwise"], CHANGES["wrong, now right"], pale]
    assert changes(shown, now, 255)[0].tolist() == list(map(list, expected))


def test_the_same_picture_is_drawn_twice():
    shown = [example()]
    assert draw(shown, CLASSES, "title") == draw(shown, CLASSES, "title")


def example(*, attacks: int = 2, prediction: torch.Tensor | None = None) -> Shown:
    label = torch.tensor([[0, 1], [255, 1]])
    seen = label.clamp_max(1) if prediction is None else prediction
    image = torch.full((3, 2, 2), 0.25)
    return Shown(
        "a", image, label, seen, torch.rand(2, 2), tuple(Attacked(f"a{i}", image + 0.1, seen) for i in range(attacks))
    )
