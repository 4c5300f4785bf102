"""Names are data: nothing in them is obeyed, and two that differ are told apart."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from segradius.core import escapes, screen
from segradius.core.storage import as_csv, as_json
from segradius.data.sample import Classes
from segradius.report.cells import Cells
from segradius.report.panels import empty, legend, png

HOSTILE = (
    "[/red]", "[link=http://x]y[/link]", "$\\frac$", "a$b$", "=1+1", "@SUM(A1)", "+1 cell", "-x", "'=q",
    "<script>alert(1)</script>", "a|b", "`x`", "**b**", "[x](javascript:y)", "\x1b[31m", "\x07", "a\nb", "a\rb",
    "\u202eabc", "\udcff", "_hidden", "\u200b", "\x00", "c" * 300, "ß€漢", "# heading", " - item",
)  # fmt: skip
ANY = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=40))


@given(ANY)
def test_nothing_is_left_that_a_terminal_obeys_or_hides(words: str):
    shown = escapes.visible(words)
    assert not [sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    shown.encode("utf-8")


@given(ANY)
def test_markdown_holds_no_tag_cell_code_or_link_and_says_what_is_seen(words: str):
    written = escapes.markdown(words)
    assert not set(written) & set("<>|`*")
    assert "](" not in written
    assert html.unescape(written) == escapes.visible(words)


@given(st.lists(ANY, min_size=1, max_size=4))
def test_no_cell_of_a_csv_file_is_a_formula_and_every_name_comes_back(names: list[str]):
    (row,) = csv.reader(io.StringIO(as_csv((), [names]).partition("\n")[2], newline=""))
    for name, field in zip(names, row, strict=True):
        assert field[:1] not in ("=", "+", "-", "@", "\t", "\r") or float(field) is not None
        assert escapes.from_cell(field) == escapes.visible(name)


@given(ANY)
def test_json_gives_back_every_name(words: str):
    assert json.loads(as_json({"name": words}).encode()) == {"name": words}


@pytest.mark.parametrize("words", HOSTILE)
def test_tables_on_the_screen_show_the_name_itself(words: str):
    shown = io.StringIO()
    Console(file=shown, width=700, force_terminal=True).print(Cells(words, ("name", words), ((words, "1"),)).rich())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
    assert plain.count(escapes.visible(words)) == 3
    assert "\x1b]" not in shown.getvalue()  # no link


@pytest.mark.parametrize("words", [name for name in HOSTILE if name != "ß€漢"])  # for which the fonts have no sign
def test_a_figure_has_the_name_as_its_title_and_its_entry(words: str):
    figure = empty(3, 2)
    axis = figure.subplots()
    axis.set_title(escapes.figure(words[:40]))
    classes = Classes((words[:40], "b"), ((0, 0, 0), (9, 9, 9)))
    legend(axis, [torch.zeros(2, 2, dtype=torch.int64)], classes, np.zeros((2, 3), np.uint8))
    assert png(figure).startswith(b"\x89PNG")
    (entry,) = axis.get_legend().get_texts()
    assert entry.get_text().replace("\\$", "$").strip() == escapes.visible(words[:40]).strip()


def test_progress_in_a_log_is_a_line_after_ten_seconds_and_then_every_thirty(capsys: pytest.CaptureFixture[str]):
    now = 0.0
    with screen.progress("steps", 100, first="reading", clock=lambda: now) as advance:
        for _ in range(100):
            now += 1.0
            advance(1, "pgd \x1b[31m")
    begun = r"segradius: pgd \x1b[31m: "
    assert capsys.readouterr().err.splitlines() == [
        f"{begun}10 of 100 steps, 0:00:10 gone, 0:01:30 left",
        f"{begun}40 of 100 steps, 0:00:40 gone, 0:01:00 left",
        f"{begun}70 of 100 steps, 0:01:10 gone, 0:00:30 left",
        f"{begun}100 of 100 steps, 0:01:40 gone, 0:00:00 left",
    ]


def test_what_is_left_goes_by_the_time_since_something_was_done_and_not_by_what_opening_a_model_took(
    capsys: pytest.CaptureFixture[str],
):
    now = 20.0
    with screen.progress("steps", 100, clock=lambda: now - 20) as advance:
        now += 60
        for _ in range(41):
            advance(1, "pgd")
            now += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "segradius: pgd: 1 of 100 steps, 0:01:00 gone",
        "segradius: pgd: 31 of 100 steps, 0:01:30 gone, 0:01:09 left",
    ]
