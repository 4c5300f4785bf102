"""Files beside an ONNX file are found as the library that defines the format finds them, and damage ends nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.external_data_helper import _get_all_tensors, uses_external_data

from segradius.targets.onnx_files import files_beside


def tensor(name: str, location: str | None = None) -> TensorProto:
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    if location is None:
        found.raw_data = np.ones(2, np.float32).tobytes()
        return found
    found.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "8")):
        entry = found.external_data.add()
        entry.key, entry.value = key, value
    return found


def model(locations: list[str]) -> onnx.ModelProto:
    """Tensors outside at every depth: initializers, a node's attribute, a graph in an attribute, a function."""
    names = iter(locations)
    take = lambda name: tensor(name, next(names, None))  # noqa: E731
    inner = helper.make_graph([helper.make_node("Identity", ["i"], ["o"])], "inner", [], [], [take("i")])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=take("c")),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
        helper.make_node("Own", [], ["e"], many=[take("m"), take("n")], blob="context.bin", alpha=0.5, axes=[1, 2]),
    ]
    graph = helper.make_graph(nodes, "outer", [], [], [take("w"), tensor("plain"), take("v")])
    inside = [helper.make_node("Constant", [], ["f"], value=take("f"))]
    function = helper.make_function("own", "Own", [], ["f"], inside, [helper.make_opsetid("", 17)])
    return helper.make_model(graph, functions=[function], opset_imports=[helper.make_opsetid("", 17)])


LOCATIONS = ["w.bin", "sub/v.data", "deep.weights", "ä.bin", "w.bin", "x", "gone.bin"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("w.bin", "sub/v.data", "deep.weights", "ä.bin", "x", "context.bin", "unused.bin", "outer", "plain"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "net.onnx").write_bytes(model(LOCATIONS).SerializeToString())
    return tmp_path / "net.onnx"


def test_all_external_tensors_are_found_and_what_else_an_attribute_names(file: Path):
    loaded = onnx.load(file, load_external_data=False)
    theirs = {e.value for t in _get_all_tensors(loaded) if uses_external_data(t) for e in t.external_data}
    theirs = {name for name in theirs if (file.parent / name).is_file()}
    assert len(theirs) >= 4
    ours = files_beside(file)
    assert set(ours) >= theirs
    assert set(ours) == (set(LOCATIONS) - {"gone.bin"}) | {"context.bin"}
    assert all(path == file.parent / name for name, path in ours.items())


def test_a_file_with_its_weights_inside_has_none(tmp_path: Path):
    (tmp_path / "net.onnx").write_bytes(model([]).SerializeToString())
    (tmp_path / "plain").touch()
    assert files_beside(tmp_path / "net.onnx") == {}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_ends_nothing(tmp_path_factory, data):
    whole = bytearray(model(LOCATIONS).SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "net.onnx"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert files_beside(path) == {}  # nothing is beside it
