"""Weights that are no checkpoint: what the file is, what to do, one line, no code run, no advice to run it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

from segradius.core.errors import InputError
from segradius.models import convert, load_state


class Trap:
    """What makes a directory when it is rebuilt."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def scripted():
    buffer = io.BytesIO()
    # Deprecated by torch since 2.9, and still what people have files of.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 2, 2)), buffer)
    return buffer.getvalue()


def pictured(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, kind)
    return buffer.getvalue()


def arrays(save_arrays, content):
    buffer = io.BytesIO()
    save_arrays(buffer, content)
    return buffer.getvalue()


STATE = {"w": torch.zeros(2, 3)}
PYTORCH, OLD, SAFE = saved(STATE), saved(STATE, _use_new_zipfile_serialization=False), save(STATE)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
#: A graph of one node by hand: ir_version 8, producer "pytorch", an empty graph.
ONNX = b"\x08\x08\x12\x07pytorch:\x00"
WRONG = {
    "pointer": (POINTER, "pointer of git-lfs.*git lfs pull"),
    "annex": (b"/annex/objects/MD5E-s3--abc.pth\n", "git-annex"),
    "page": (b"<!DOCTYPE html><html><title>Sign in</title></html>", "HTML page.*link of the file"),
    "page in capitals": (b"\n\n  <HTML><BODY>Moved</BODY></HTML>", "HTML page"),
    "page with a mark": (b"\xef\xbb\xbf<html></html>", "HTML page"),
    "long page": (b"<!doctype html>" + "ä".encode() * 9000, "HTML page"),
    "error in XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML document"),
    "error in JSON": (json.dumps({"error": "Repository not found"}).encode(), "JSON document"),
    "list of shards": (json.dumps({"weight_map": {"w": "model-1.bin"}}).encode(), "list of weight files"),
    "error in words": (b"Invalid username or password.", "text that begins with 'Invalid username"),
    "404": (b"404: Not Found", "text that begins with '404"),
    "list of numbers": (b"0.5 0.25\n", "text that begins with"),
    "words like a pickle": (b"checkpoint moved\nsee the other page\n.", "text that begins with"),
    "Python code": (b"import torch\nprint('x')\n", "text that begins with 'import"),
    "nothing": (b"", "empty.*truncated"),
    "zeros": (bytes(512), "no checkpoint"),
    "noise": (bytes(range(128, 256)) * 9, "no checkpoint|pickle"),
    "cut PyTorch": (PYTORCH[: len(PYTORCH) // 2], "truncated.*download it again"),
    "cut safetensors": (SAFE[:20], "truncated"),
    "zip of a checkpoint": (zipped(**{"net/best.pth": PYTORCH}), r"ZIP archive of net/best\.pth: unpack"),
    "empty zip": (zipped(), "ZIP archive of nothing"),
    "zip of much": (zipped(a="1", b="2", c="3", d="4"), "ZIP archive of a, b, c, …: unpack"),
    "Keras archive": (zipped(**{"metadata.json": "{}", "config.json": "{}", "model.weights.h5": "x"}), "Keras archive"),
    "npz": (arrays(lambda file, x: np.savez(file, w=x), np.zeros(3)), "archive of NumPy arrays"),
    "tar": (tarred("net/best.pth", PYTORCH), r"tar archive of net/best\.pth: unpack"),
    "cut tar": (tarred("net/best.pth", PYTORCH)[:300], "no checkpoint|tar archive"),
    "gzip": (gzip.compress(PYTORCH), "gzip archive: unpack"),
    "zlib": (zlib.compress(PYTORCH), "no checkpoint"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5.*Keras"),
    "ONNX": (ONNX, "ONNX model.*--target onnx:"),
    "TensorFlow Lite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(64), "GGUF"),
    "NumPy": (arrays(np.save, np.zeros(3)), "NumPy array"),
    "TorchScript": (scripted(), "TorchScript.*--model torchscript:"),
    "PNG": (pictured("PNG"), "PNG image"),
    "JPEG": (pictured("JPEG"), "JPEG image"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "PDF document"),
    "pickled arrays": (pickle.dumps({"w": np.zeros(3)}), "Python pickle that torch.save has not written"),
    "pickle of text": (pickle.dumps({"w": [1, 2]}, protocol=5), "Python pickle"),
}


def message(path):
    with pytest.raises(InputError) as caught:
        load_state(path)
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ".h5", ".onnx", ""])
@pytest.mark.parametrize("name", WRONG)
def test_each_is_told_by_its_content_whatever_its_name(tmp_path, name, suffix):
    content, expected = WRONG[name]
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    said = message(path)
    assert "unsafe" not in said
    if "no checkpoint" not in expected:  # bytes that are nothing known are what their name says, or nothing
        assert re.search(expected, said), said


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_with_code_that_torch_has_not_written_is_no_checkpoint_and_does_not_run(tmp_path, protocol):
    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "ran"), protocol))
    said = message(path)
    assert "Python pickle that torch.save has not written" in said
    assert "unsafe" not in said
    with pytest.raises(InputError, match="Python pickle"):
        convert(path, tmp_path / "out.safetensors", allow_unsafe=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_what_torch_has_written_with_code_in_it_is_one_and_does_not_run(tmp_path, options):
    path = tmp_path / "net.pth"
    path.write_bytes(saved({"w": torch.zeros(1), "trap": Trap(tmp_path / "ran")}, **options))
    assert "--allow-unsafe-pickle" in message(path)
    assert not (tmp_path / "ran").exists()


def test_one_format_under_the_name_of_the_other_is_told_and_not_read(tmp_path):
    save_file(STATE, tmp_path / "net.pth")
    assert "is a safetensors file under another name: rename it to net.safetensors" in message(tmp_path / "net.pth")
    torch.save(STATE, tmp_path / "net.safetensors")
    assert "is a PyTorch checkpoint under another name: rename it to net.pth" in message(tmp_path / "net.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar"])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_what_torch_writes_is_read_under_each_of_its_names(tmp_path, suffix, options):
    path = tmp_path / f"net{suffix}"
    torch.save(STATE, path, **options)
    assert torch.equal(load_state(path)["w"], STATE["w"])


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="are an address; download the file"):
        load_state("https://host.example/net.pth")
    with pytest.raises(InputError, match="are an address"):
        load_state(tmp_path / "https://host.example/net.pth")
    with pytest.raises(InputError, match="are a folder"):
        load_state(tmp_path)


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.sampled_from([".pth", ".safetensors"]))
def test_no_bytes_bring_anything_but_one_line(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    said = message(path)
    assert "unsafe" not in said


@pytest.mark.parametrize(("content", "suffix"), [(PYTORCH, ".pth"), (OLD, ".pth"), (SAFE, ".safetensors")])
def test_a_checkpoint_that_ends_anywhere_too_early_is_told(tmp_path, content, suffix):
    path = tmp_path / f"cut{suffix}"
    for end in [*range(64), *range(64, len(content), 5), len(content) - 1]:
        path.write_bytes(content[:end])
        said = message(path)
        assert "truncated" in said, end
        assert "unsafe" not in said, end


@given(st.sampled_from([PYTORCH, OLD]), st.data())
def test_a_checkpoint_with_a_wrong_byte_is_never_advised_to_be_run(tmp_path_factory, whole, data):
    path, content = tmp_path_factory.getbasetemp() / "flipped.pth", bytearray(whole)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        load_state(path)  # many bytes are padding, or a tensor's
    except InputError as error:
        said = str(error)
    else:
        said = ""
    assert whole is OLD or "unsafe" not in said
    assert "\n" not in said
