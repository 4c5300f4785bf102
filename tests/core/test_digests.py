"""Content is the same or another, whatever names and times say; a file is read again only where it may have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segradius.core import digests
from segradius.core.digests import Mark, changed_part, file_digest, first_of, marks_of, tensor_digest


def settled(file: Path, content: bytes) -> Path:
    """A file that was written a while ago, as far as its time tells."""
    file.write_bytes(content)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    return file


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_digests_of_files_differ_as_their_contents(tmp_path_factory, one: bytes, other: bytes):
    folder = tmp_path_factory.mktemp("files")
    (folder / "a").write_bytes(one), (folder / "b").write_bytes(other)
    assert (file_digest(folder / "a") == file_digest(folder / "b")) is (one == other)


def test_digests_of_tensors_tell_values_shapes_and_types_apart_and_not_layouts():
    x = torch.arange(6, dtype=torch.int32).view(2, 3)
    others = [x + 1, x.view(3, 2), x.float(), x.view(torch.float32), x[:0], torch.zeros(0, 3), torch.tensor(1)]
    assert len({tensor_digest(each) for each in [x, *others]}) == 1 + len(others)
    assert tensor_digest(x.T.contiguous().T) == tensor_digest(x) == tensor_digest(x.clone().requires_grad_(False))
    assert tensor_digest(torch.tensor(0.0)) != tensor_digest(torch.tensor(-0.0))
    assert tensor_digest(torch.ones(2, dtype=torch.bfloat16)) != tensor_digest(torch.ones(2, dtype=torch.float16))


def test_a_file_is_not_read_again_while_size_times_and_place_are_the_same(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(digests, "FRESH", 0)
    parts = {"image": settled(tmp_path / "a.png", b"abc")}
    before = marks_of(parts)
    monkeypatch.setattr(digests, "file_digest", lambda path: pytest.fail("read again"))
    assert marks_of(parts, before) == before


def test_a_file_that_was_just_written_is_read_again_as_its_time_may_stay(tmp_path: Path):
    file = settled(tmp_path / "a.png", b"abc")  # its other time, of the change of the first, is now
    assert marks_of({"image": file})["image"].stamp == ""


@pytest.mark.parametrize("how", ["longer", "as long", "as long, the time put back", "replaced by a rename", "gone"])
def test_other_content_is_seen(tmp_path: Path, monkeypatch, how: str):
    monkeypatch.setattr(digests, "FRESH", 0)
    parts = {"image": settled(tmp_path / "a.png", b"abc"), "mask": settled(tmp_path / "m.png", b"abc")}
    before = marks_of(parts)
    if how == "gone":
        parts["mask"].unlink()
    elif how == "replaced by a rename":
        settled(tmp_path / "other", b"xyz").replace(parts["mask"])
    else:
        settled(parts["mask"], b"abcd" if how == "longer" else b"xyz")
    told = changed_part(parts, marks_of(parts, before), before)
    assert told == f"{parts['mask']} " + ("cannot be read any more" if how == "gone" else "changed")


def test_the_same_content_under_another_time_or_place_is_the_same(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(digests, "FRESH", 0)
    before = marks_of({"image": settled(tmp_path / "a.png", b"abc")})
    os.utime(tmp_path / "a.png", (2_000_000_000, 2_000_000_000))
    for place in (tmp_path / "a.png", settled(tmp_path / "b.png", b"abc")):
        now = marks_of({"image": place}, before)
        assert changed_part({"image": place}, now, before) is None
        assert now["image"].stamp != before["image"].stamp


def test_tensors_are_named_by_their_role_and_what_was_not_looked_at_is_not_compared():
    parts = {"image": torch.zeros(2), "label": torch.ones(2)}
    now = marks_of(parts)
    assert changed_part(parts, now, {}) is None
    assert changed_part(parts, now, now | {"label": Mark("another")}) == "the label changed"
    assert changed_part({}, {}, now) == "the image cannot be read any more"


def test_the_first_of_several_changes_is_told_with_their_number():
    assert [first_of(told) for told in ([], ["a"], ["a", "b", "c"])] == [None, "a", "a (and 2 more did)"]
