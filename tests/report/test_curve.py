"""Curves: the values that are drawn, and labels that do not overlap."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segradius.evaluation import ImageTrace
from segradius.report import Curve, draw_curves
from segradius.report.curve import spread

SEEN = ImageTrace((2, 4, 8), (False, True, True), (1.0, 1.1, 1.2), (0.8, 0.7, 0.75), (math.nan, 0.7, 0.6))
BLIND = ImageTrace((2, 4, 8), (False, False, True), (1.0, 1.1, 1.2), (0.8, 0.7, 0.65), (math.nan, math.nan, 0.6))


def test_a_curve_starts_at_the_clean_accuracy_and_steps_down_at_each_verdict():
    curve = Curve("a", 8, (0.9, 0.5), (SEEN, SEEN))
    assert curve.verified
    assert curve.values([0, 2, 3, 4, 7, 8]).tolist() == [[0.9, 0.9, 0.9, 0.7, 0.7, 0.6], [0.5, 0.5, 0.5, 0.7, 0.7, 0.6]]


def test_without_verdicts_on_the_way_the_points_asked_about_are_shown_and_the_verdict_at_the_end():
    curve = Curve("a", 8, (0.9,), (BLIND,))
    assert not curve.verified
    assert curve.values([0, 2, 5, 8]).tolist() == [[0.9, 0.8, 0.7, 0.6]]


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=10))
def test_labels_keep_their_order_and_distance_and_stay_in_the_picture(heights: list[float]):
    found = spread(heights, gap=6)
    order = np.argsort(heights, kind="stable")
    assert all(b - a >= 6 - 1e-9 for a, b in zip(np.array(found)[order], np.array(found)[order][1:], strict=False))
    assert max(found) <= 100 + 1e-9
    if all(b - a >= 6 for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False)):
        assert np.allclose(found, heights)


def test_one_line_of_ink_for_each_attack_in_colours_of_their_own_on_either_axis():
    curves = [Curve("a", 8, (0.9, 0.8), (SEEN, SEEN)), Curve("b", 8, (0.3, 0.2), (BLIND, BLIND))]
    for log in (False, True):
        png = draw_curves(curves, "title", log=log)
        assert png == draw_curves(curves, "title", log=log)
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
        for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
            assert (pixels == colour).all(1).sum() > 100


def test_the_traces_are_looked_through_once_for_a_picture_however_many_points_it_has():
    walks = []

    class Watched(tuple):
        def __iter__(self):
            walks.append(1)
            return super().__iter__()

    seen = replace(SEEN, best=Watched(SEEN.best))
    Curve("a", 8, (0.9,) * 5, (seen,) * 5).values(range(9))
    assert len(walks) == 5
