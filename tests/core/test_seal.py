"""Checksums differ where content does, and what is damaged is named."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from segradius.core.errors import DamagedError
from segradius.core.seal import check_archive, check_tensors, labelled, read_json, seal, seal_of_tensors
from segradius.core.sums import SUMS, checked, read_sums, sum_of, write_sums

values = st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4), st.binary(max_size=4))


def typed(row: list[object]) -> list[tuple[type, object]]:
    return [(type(value), value) for value in row]


@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_two_rows_have_one_checksum_only_if_they_are_one(one, other):
    same = typed(one) == typed(other) and str(one) == str(other)  # −0.0 is not 0.0
    assert (seal(*one) == seal(*other)) == same


def test_a_checksum_does_not_tell_where_a_value_ends_for_the_next():
    assert len({seal("ab", "c"), seal("a", "bc"), seal("abc"), seal("abc", ""), seal(b"abc"), seal(1), seal("1")}) == 7


@pytest.mark.parametrize("writer", ["torch", "numpy"])
def test_no_byte_of_an_archive_changes_an_array_unnoticed(writer: str, tmp_path: Path):
    array = np.arange(60, dtype=np.float32).reshape(5, 12)
    if writer == "torch":
        torch.save({"array": torch.from_numpy(array), "name": "a"}, tmp_path / "whole")
    else:
        with (tmp_path / "whole").open("wb") as file:
            np.savez_compressed(file, array=array, name=np.array("a"))
    whole, draw = (tmp_path / "whole").read_bytes(), random.Random(0)
    check_archive(io.BytesIO(whole), "whole")
    caught = 0
    for place in draw.sample(range(len(whole)), min(len(whole), 400)):
        other = bytearray(whole)
        other[place] ^= 1 << draw.randrange(8)
        try:
            check_archive(io.BytesIO(other), "whole")
            stream = io.BytesIO(other)
            found = torch.load(stream) if writer == "torch" else dict(np.load(stream))
            assert np.array_equal(np.asarray(found["array"]), array)
            assert str(found["name"]) == "a"
        except AssertionError:
            raise
        except Exception:  # ours, or what the reader itself refuses
            caught += 1
    assert caught


@pytest.mark.parametrize("cut", [0, 1, 30, -1])
def test_half_an_archive_is_damaged(cut: int):
    file = io.BytesIO()
    np.savez(file, a=np.arange(9))
    with pytest.raises(DamagedError, match=r"x.npz is damaged"):
        check_archive(io.BytesIO(file.getvalue()[:cut]), "x.npz")


def test_tensors_are_told_apart_by_name_type_shape_and_value():
    ones = torch.ones(2, 3)
    others = ({"b": ones}, {"a": ones.double()}, {"a": ones.T}, {"a": ones.flatten()}, {"a": -ones}, {})
    assert len({seal_of_tensors(each) for each in ({"a": ones}, *others)}) == 7
    check_tensors({"a": ones}, labelled({"a": ones.clone()}), "w")
    check_tensors({"a": ones}, {"format": "pt"}, "w")  # of somebody else
    with pytest.raises(DamagedError, match="w is damaged"):
        check_tensors({"a": -ones}, labelled({"a": ones}), "w")


def test_a_checksum_leaves_files_of_weights_equal_in_every_process():
    """Metadata of several entries are written in an order that differs."""
    code = "import torch; from safetensors.torch import save; from segradius.core.sums import sum_of; "
    code += "from segradius.core.seal import labelled; made = {'a': torch.ones(3), 'b': torch.zeros(2)}; "
    code += "print(sum_of(save(made, labelled(made))))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    tensors = {"a": torch.ones(3), "b": torch.zeros(2)}
    assert told.strip() == sum_of(save(tensors, labelled(tensors)))


@pytest.mark.parametrize("content", [b"", b'{"a', b"[" * 100_000, b"3", b"[]", b"\xff\xfe", b'{"a": 1e999999'])
def test_what_is_no_report_is_named(content: bytes, tmp_path: Path):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"results.json is damaged; expected a JSON report"):
        read_json(tmp_path / "results.json")


NAMES = ("a.csv", "maps/b c.png", "new\nline", "back\\slash", "\\n", "ü.npz")


def test_sums_are_read_as_they_were_written_and_as_sha256sum_reads_them(tmp_path: Path):
    (tmp_path / "maps").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    sums = {name: sum_of(name.encode()) for name in NAMES}
    write_sums(tmp_path, sums)
    assert read_sums(tmp_path) == sums
    assert checked(tmp_path, "a.csv") == b"a.csv"
    try:
        done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=tmp_path, check=False)
    except FileNotFoundError:
        return
    assert done.returncode == 0


def test_a_file_that_has_another_sum_is_named_and_one_without_is_read(tmp_path: Path):
    (tmp_path / "a.csv").write_text("1")
    assert checked(tmp_path, "a.csv") == b"1"
    write_sums(tmp_path, {"a.csv": sum_of(b"2")})
    with pytest.raises(DamagedError, match=r"a.csv is damaged or was changed"):
        checked(tmp_path, "a.csv")
    (tmp_path / SUMS).write_text(json.dumps({}))
    with pytest.raises(DamagedError, match="line 1 is no checksum"):
        checked(tmp_path, "a.csv")


def test_the_checksum_is_blake2b_of_kind_length_and_content_of_each_value():
    values = ("pgd", 1, None, 0.5, b"x" * 5000, "é\ud800", True, b"", -3)
    framed = [
        (b"s", b"pgd"), (b"i", b"1"), (b"n", b""), (b"f", struct.pack("<d", 0.5)), (b"b", b"x" * 5000),
        (b"s", "é\ud800".encode("utf-8", "surrogatepass")), (b"i", b"1"), (b"b", b""), (b"i", b"-3"),
    ]  # fmt: skip
    content = b"".join(kind + len(each).to_bytes(8, "little") + each for kind, each in framed)
    assert seal(*values) == hashlib.blake2b(content, digest_size=16).hexdigest()
