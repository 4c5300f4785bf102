"""How a registry finds its things: by the name of a file, in all files of its room, in plug-ins."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from segradius.core import registry
from segradius.core.errors import InputError
from segradius.core.registry import PLUGINS, Registry

FILES = {
    "__init__": "",
    "table": "from segradius.core.registry import Registry\nSHAPES = Registry('shape', '{room}')\n",
    "square": "from {room}.table import SHAPES\n@SHAPES.register('square', sides=4)\ndef square():\n    'Even.'\n",
    "others": "from {room}.table import SHAPES\n"
    "SHAPES.register('circle')(0)\nSHAPES.register('tri-angle', sides=3)(3)\n",
}


@pytest.fixture
def room(tmp_path, monkeypatch, request):
    """Name of a package with two files of shapes, none of which is imported."""
    name = f"room_of_{abs(hash(request.node.nodeid))}"
    (tmp_path / name).mkdir()
    for file, text in FILES.items():
        (tmp_path / name / f"{file}.py").write_text(text.format(room=name))
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def shapes(room) -> Registry[object]:
    return importlib.import_module(f"{room}.table").SHAPES


def imported(room: str) -> set[str]:
    return {name.partition(".")[2] for name in sys.modules if name.startswith(f"{room}.")} - {"table"}


def test_a_file_named_after_the_thing_is_the_only_one_imported(room, shapes):
    assert "square" in shapes
    assert shapes["square"].__name__ == "square"
    assert imported(room) == {"square"}


def test_another_name_is_found_in_some_file_of_the_room(room, shapes):
    assert shapes["tri-angle"] == 3
    assert imported(room) == {"square", "others"}


def test_listing_imports_all_and_sorts(room, shapes):
    assert list(shapes) == ["circle", "square", "tri-angle"]
    assert len(shapes) == 3


def test_a_file_of_the_room_that_registers_nothing_of_its_name_is_no_thing(shapes):
    assert "others" not in shapes
    with pytest.raises(InputError, match="unknown shape 'others'"):
        shapes["others"]


def test_what_is_no_name_is_not_in_it(shapes):
    assert 3 not in shapes
    assert "../square" not in shapes
    with pytest.raises(InputError, match="unknown shape 'sqare'; did you mean 'square'"):
        shapes["sqare"]


def test_facts_and_summary_are_those_of_the_registration(room, shapes):
    assert dict(shapes.facts("square")) == {"sides": 4}
    assert imported(room) == {"square"}
    assert dict(shapes.facts("circle")) == {}
    assert shapes.summary("square") == "Even."
    with pytest.raises(InputError, match="unknown shape 'cube'"):
        shapes.facts("cube")


def test_a_plug_in_adds_its_things_and_is_not_asked_for_what_is_built_in(shapes, monkeypatch):
    asked = []

    def entry_points(*, group):
        asked.append(group)
        return [EntryPoint("mine", "mine", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda self: shapes.register("star")(5))
    assert "square" in shapes
    assert asked == []
    assert shapes["star"] == 5
    assert list(shapes) == ["circle", "square", "star", "tri-angle"]
    assert asked == [PLUGINS]


def test_a_plug_in_is_imported_by_its_entry_point_once(monkeypatch, tmp_path):
    (tmp_path / "plugged_numbers.py").write_text(
        "from segradius.core.test_numbers import NUMBERS\nNUMBERS.register('seven')(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    numbers: Registry[int] = Registry("number")
    table = ModuleType("segradius.core.test_numbers")
    table.NUMBERS = numbers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, table.__name__, table)
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("n", "plugged_numbers", group)])
    assert "eight" not in numbers
    assert (numbers["seven"], len(numbers), list(numbers)) == (7, 1, ["seven"])
    del sys.modules["plugged_numbers"]


def test_a_plug_in_that_cannot_be_imported_is_named(monkeypatch):
    numbers: Registry[int] = Registry("number")
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("mine", "no_such_module", group)])
    with pytest.raises(InputError, match="the plug-in mine = no_such_module cannot be imported: No module named"):
        list(numbers)


def test_a_name_is_taken_once_built_in_or_plugged_in(shapes):
    assert "square" in shapes
    with pytest.raises(InputError, match="the shape name 'square' is taken already"):
        shapes.register("square")(1)
    assert shapes["square"] != 1


def test_an_empty_registry_without_a_room_knows_nothing(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    empty: Registry[int] = Registry("number")
    assert list(empty) == []
    assert "seven" not in empty
