"""The wire format: bytes known by hand, round trips of anything, and refusal of everything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segradius.core.errors import AnswerError, InputError
from segradius.targets.oip_wire import DTYPES, pack, read_response, request_id, unpack, write_request

KINDS = {name: dtype for name, dtype in DTYPES.items() if name != "BF16"}
BYTES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "INT8": "i1"} | {
    f"INT{bits}": f"<i{bits // 8}" for bits in (16, 32, 64)
}


@st.composite
def tensors(draw, names=tuple(KINDS)):
    name = draw(st.sampled_from(names))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    array = draw(hnp.arrays(np.dtype(BYTES[name]), shape))
    return name, torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))  # NaN included


@given(tensors())
def test_bytes_are_those_of_numpy_little_endian_row_major(case):
    name, tensor = case
    assert pack(tensor) == tensor.numpy().astype(BYTES[name]).tobytes("C")
    assert same(unpack(pack(tensor), name, tensor.shape), tensor)


@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False)))
def test_bfloat16_is_the_upper_half_of_float32(array):
    tensor = torch.from_numpy(array).bfloat16()
    upper = tensor.float().numpy().view("<u4") >> 16
    assert pack(tensor) == upper.astype("<u2").tobytes()
    assert same(unpack(pack(tensor), "BF16", tensor.shape), tensor)


@given(tensors(), st.text(), st.one_of(st.none(), st.text(min_size=1)))
def test_a_binary_request_is_read_back_as_a_response_is(case, name, output):
    _, tensor = case
    headers, body = write_request("an id", {name: tensor}, output, binary=True)
    head = json.loads(body[: int(headers["Inference-Header-Content-Length"])])
    assert head["id"] == "an id"
    assert [o["name"] for o in head.get("outputs", [])] == ([] if output is None else [output])
    answer = json.dumps({"outputs": head["inputs"]}).encode()
    found = read_response(str(len(answer)), answer + pack(tensor)).outputs
    assert list(found) == [name]
    assert same(found[name], tensor)


@given(tensors(names=("FP32", "FP64", "UINT8", "INT64")))
def test_a_json_request_loses_nothing(case):
    kind, tensor = case
    _, body = write_request("i", {"x": tensor}, "y", binary=False)
    sent = json.loads(body)["inputs"][0]
    assert (sent["datatype"], tuple(sent["shape"])) == (kind, tuple(tensor.shape))
    found = read_response(None, json.dumps({"outputs": [sent]}).encode()).outputs["x"]
    torch.testing.assert_close(found, tensor, rtol=0, atol=0, equal_nan=True)


def test_several_outputs_are_cut_in_their_order_and_nested_lists_are_read():
    head = {
        "outputs": [
            {"name": "a", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}},
            {"name": "b", "datatype": "FP32", "shape": [2, 1], "data": [[1.5], [2]]},
            {"name": "c", "datatype": "INT16", "shape": [1], "parameters": {"binary_data_size": 2}},
        ]
    }
    raw = json.dumps(head).encode()
    found = read_response(str(len(raw)), raw + bytes([7, 8, 9, 1, 1])).outputs
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a": [7, 8, 9],
        "b": [[1.5], [2.0]],
        "c": [257],
    }


GOOD = {"name": "a", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}


@pytest.mark.parametrize(
    ("change", "extra", "message"),
    [
        ({}, b"\x01", "1 bytes of UINT8"),
        ({}, b"\x01\x02\x03", "1 bytes are left over"),
        ({"shape": [3]}, b"\x01\x02", "expected 3"),
        ({"shape": [-2, -1]}, b"\x01\x02", "malformed"),
        ({"shape": "x"}, b"\x01\x02", "malformed"),
        ({"datatype": "FP8"}, b"\x01\x02", "datatype 'FP8'"),
        ({"datatype": 3}, b"\x01\x02", "datatype 3"),
        ({"parameters": {}}, b"", "malformed: KeyError: 'data'"),
        ({"parameters": None, "data": ["x", "y"]}, b"", "not numbers"),
        ({"parameters": None, "data": [1, 2, 3]}, b"", "malformed"),
    ],
)
def test_malformed_outputs_are_refused(change, extra: bytes, message: str):
    head = json.dumps({"outputs": [GOOD | change]}).encode()
    with pytest.raises(AnswerError, match=message):
        read_response(str(len(head)), head + extra)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"outputs": []}', b'{"outputs": 3}', b"[" * 100_000])
def test_what_is_no_response_is_refused(body: bytes):
    with pytest.raises(AnswerError):
        read_response(None, body)


@given(st.one_of(st.none(), st.text(max_size=4)), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(length, body):
    with pytest.raises(AnswerError):
        read_response(length, body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["outputs", "name", "datatype", "shape", "data", "parameters"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(message):
    try:
        found = read_response(None, json.dumps({"outputs": [message]}).encode()).outputs
    except AnswerError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


def test_half_precision_has_no_json():
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(InputError, match="cannot be sent as JSON"):
            write_request("i", {"x": torch.zeros(2, dtype=dtype)}, None, binary=False)


def test_ids_follow_content():
    x = torch.arange(6.0)
    ids = [
        request_id("", "a", x),
        request_id("", "b", x),
        request_id("", "a", x + 1),
        request_id("", "a", x.view(2, 3)),
        request_id("", "a", x.double()),
    ]
    assert len(set(ids)) == 5
    assert request_id("", "a", x.clone()) == ids[0]
    assert request_id("run-", "a", x) == "run-" + ids[0]
