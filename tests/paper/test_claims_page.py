"""docs/reproduction.md is what its data say; what no data are there of, it says was not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segradius.cli.paper import _made
from segradius.paper.element import read_elements
from segradius.paper.measured import Measured
from segradius.paper.packed import read_packed
from segradius.paper.page import About, page, pictures
from segradius.paper.scale import Scale
from segradius.paper.verdict import ABSENT, judged

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = DOCS / "data" / "reproduction" / "light"
PAGE = DOCS / "reproduction.md"


@pytest.fixture(scope="module")
def measured():
    return read_packed(DATA, "light") if DATA.exists() else (Measured(), {})


def test_the_page_on_the_claims_is_what_its_data_say(measured):
    found, known = measured
    text = PAGE.read_text("utf-8")
    command = re.search(r"```bash\n(.*?)\n```", text, re.S)[1]
    shown = pictures(DOCS / "figures" / "reproduction", PAGE)
    about = About(Scale.read("light"), command, _made(known), read_elements(), shown)
    assert text == page(judged(found), found, about), f"{PAGE.name} is not what its data say: {command}"


def test_every_claim_whose_rows_are_there_has_a_verdict(measured):
    found, _ = measured
    blocks = {row.block for row in (*found.seen, *found.traced, *found.certified)} | set(found.computed)
    elements = read_elements()
    for verdict in judged(found):
        its = {block for name in verdict.claim.elements for block in elements[name].blocks}
        assert verdict.word != ABSENT or not its <= blocks, verdict.claim.name
