"""Both sides of one curve: the file, what is refused, and that no attack is below a certificate beyond chance."""

from __future__ import annotations

import importlib
import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from segradius.core.errors import InputError
from segradius.report.sandwich import Line, Sandwich, draw_sandwich, read_sandwich, sandwich_csv, together
from segradius.report.transfer import as_file

IMAGES, LABELLED = ("a", "b", "c", "d", "e"), (10, 20, 30, 20, 20)


def line(side, how, radius, *pixels):
    return Line(side, "net", "votes", how, radius, pixels)


BOTH = Sandwich(
    IMAGES,
    LABELLED,
    (
        line("certified", "own", 0.0, 9, 18, 27, 18, 18),
        line("certified", "own", 0.2, 5, 10, 15, 10, 10),
        line("certified", "test", 0.1, 8, 16, 24, 16, 16),
        line("attacked", "flips", 0.0, 10, 20, 30, 20, 20),
        line("attacked", "flips", 0.1, 9, 18, 27, 18, 17),
        line("attacked", "flips", 0.2, 8, 19, 27, 18, 18),
        line("lost", "flips", 0.1, 0, 0, 0, 0, 0),
    ),
)


def test_the_table_comes_back_as_it_was_written():
    assert read_sandwich(sandwich_csv(BOTH)) == BOTH


def test_what_is_certified_at_a_radius_is_that_of_the_next_radius_counted():
    certified = {r: BOTH.certified("net", "votes", r) for r in (0, 0.05, 0.1, 0.15, 0.2, 0.3)}
    assert certified == {0: 0.9, 0.05: 0.8, 0.1: 0.8, 0.15: 0.5, 0.2: 0.5, 0.3: 0.0}


def test_what_a_smaller_ball_holds_a_larger_one_holds_too():
    assert [x.pixels for x in BOTH.attacked("net", "votes")][1:] == [(9, 18, 27, 18, 17), (8, 18, 27, 18, 17)]
    assert [(r, low, high) for r, low, high in BOTH.gaps("net", "votes")] == [
        (0.0, 0.9, 1.0),
        (0.1, 0.8, pytest.approx(0.89)),
        (0.2, 0.5, pytest.approx(0.88)),
    ]


def test_sides_of_other_images_are_refused():
    with pytest.raises(InputError, match="sides of different images"):
        together([BOTH, replace(BOTH, images=("a", "b", "c", "d", "f"))])
    with pytest.raises(InputError, match="sides of different images"):
        together([BOTH, replace(BOTH, labelled=(10, 20, 31, 20, 20))])
    with pytest.raises(InputError, match="expected 0 to"):
        Sandwich(IMAGES, LABELLED, (line("certified", "own", 0.1, 9, 18, 27, 18),))
    with pytest.raises(InputError, match="expected 0 to"):
        Sandwich(IMAGES, LABELLED, (line("certified", "own", 0.1, 11, 18, 27, 18, 18),))
    half = together([replace(BOTH, lines=BOTH.lines[:3]), replace(BOTH, lines=BOTH.lines[3:])])
    assert half == BOTH


@pytest.mark.parametrize("text", ["", "side,network\n", sandwich_csv(BOTH).replace("certified,", "proved,")])
def test_another_table_is_refused(text):
    with pytest.raises(InputError):
        read_sandwich(text)


def test_the_picture_says_what_is_literature():
    figure = draw_sandwich(BOTH, "images\nof two lines", literature=True)
    drawn = as_file(figure, "svg").decode()
    assert "literature" in drawn
    assert "Schuchardt" in drawn
    assert "strongest attack" in drawn
    plain = as_file(draw_sandwich(BOTH, "images"), "png")
    assert Image.open(io.BytesIO(plain)).size[0] > 300


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "studies"))
    return importlib.import_module("sandwich")


def test_no_attack_is_below_a_certificate_beyond_chance(study, tmp_path, capsys):
    given = {"data": "scenes:24x32", "split": "val", "limit": 2, "smoothed": "demo@0.1=demo", "radii": "0.05,0.1"}
    study.main(**given, out=tmp_path, n0=10, n=100, copies=60, steps=3, samples=2, until=0.2, bins=4)
    it = read_sandwich((tmp_path / "sandwich.csv").read_text("utf-8"))
    assert len(it.images) == 2
    assert {x.pixels for lines in it.of("demo", it.answers[0][1], "lost").values() for x in lines} == {(0, 0)}
    for network, answer in it.answers:
        for _, low, high in it.gaps(network, answer):
            assert low <= high + 0.01  # near a tie, votes of 60 fresh copies may go either way
        curves = it.of(network, answer, "certified")
        assert all([x.radius for x in lines] == sorted({x.radius for x in lines}) for lines in curves.values())
        for lines in (lines for lines in curves.values() if len(lines) > 1):
            for before, after in pairwise(lines):
                assert all(a >= b for a, b in zip(before.pixels, after.pixels, strict=True))
    assert json.loads((tmp_path / "sandwich.json").read_text("utf-8"))["images"] == 2
    assert "| demo | majority of votes, σ = 0.1 | 0.1 |" in capsys.readouterr().out
    assert (tmp_path / "sandwich.svg").exists()
