"""Any text gives a file name that every file system takes, and no two texts the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segradius.core.names import LIMIT, safe_name, safe_names

TEXTS = st.text(max_size=200) | st.text("aA.%/", max_size=5) | st.binary(max_size=200).map(
    lambda name: name.decode("utf-8", "surrogateescape")
)  # fmt: skip


@given(TEXTS)
def test_a_name_is_visible_ascii_in_one_folder_and_short(text: str):
    name = safe_name(text)
    assert name.isascii()
    assert 0 < len(name) <= LIMIT
    assert name[0] != "."
    assert not set(name) & set('/\\\0:*?"<>|')


@given(st.lists(TEXTS, max_size=6))
def test_names_in_a_folder_differ_also_where_the_case_of_letters_is_not_kept(texts: list[str]):
    names = safe_names(texts)
    assert names.keys() == set(texts)
    assert len({name.casefold() for name in names.values()}) == len(set(texts))


@given(st.lists(TEXTS, max_size=6), TEXTS)
def test_one_text_more_changes_no_name(texts: list[str], more: str):
    assert safe_names([*texts, more]).items() >= safe_names(texts).items()


@pytest.mark.parametrize("text", ["a", "test-00003", "frankfurt/f_0", "a b", "ä", "a.b", "100%", "n" * 120])
def test_a_short_name_is_the_one_that_earlier_versions_gave(text: str):
    from urllib.parse import quote

    assert safe_name(text) == quote(text, safe=" ")


@pytest.mark.parametrize("text", ["con", "NUL", "com1.png", "Aux", "lpt9", "prn.tar.gz"])
def test_what_windows_takes_for_a_device_is_no_name(text: str):
    name = safe_name(text)
    assert name.partition(".")[0].casefold() not in {"con", "nul", "com1", "aux", "lpt9", "prn"}


@pytest.mark.parametrize("text", ["山" * 85, "n" * 250, "\udcff" * 90, "a/" * 60, "", ".", "..", "a\0b", "\ud800"])
def test_a_file_of_such_a_name_can_be_written(text: str, tmp_path: Path):
    (tmp_path / f"{safe_name(text)}.npz").write_bytes(b"1")
    assert [len(file.name) for file in tmp_path.iterdir()] == [len(safe_name(text)) + 4]


def test_no_encoded_character_is_cut_in_two():
    assert not safe_name("山" * 40).partition("-")[0].endswith(("%", "%E", "%5"))
    for length in range(85, 100):
        start = safe_name("n" * length + "山" * 40).rpartition("-")[0]
        assert start.endswith("n") or start[-3] == "%"
