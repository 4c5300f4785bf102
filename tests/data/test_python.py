"""Data sets that Python code makes, by their names: what the code gives is what is there."""

from __future__ import annotations

import itertools
import pickle
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from segradius.core.errors import InputError
from segradius.data import BadSampleError, Pairs, Sample, Scenes, open_data
from segradius.data.marks import changed_meaning, meaning_of
from segradius.data.sample import Classes

CODE = """
import torch
from torch.utils.data import Dataset, IterableDataset
from segradius.data import Sample, Scenes
import {helper}

class Stripes(Dataset):
    classes = ["sky", "road"]
    def __init__(self, length=3, shift=0, split="train"):
        if length < 0:
            raise RuntimeError("no such length")
        self.length, self.shift, self.split = length, shift, split
    def __len__(self):
        return self.length
    def __getitem__(self, i):
        if self.split == "broken" and i == 1:
            raise OSError("disk")
        mask = (torch.arange(6).reshape(2, 3) + i + self.shift) % 2
        return torch.full((3, 2, 3), 0.5), mask.to(torch.uint8)

class AsSamples(Stripes):
    def __getitem__(self, i):
        image, mask = super().__getitem__(i)
        return Sample("whatever", image, mask.long())

class Odd(Stripes):
    classes = 7

class WithIds(Stripes):
    ids = [1, 2, 3]

class Nameless(Dataset):
    def __len__(self):
        return 1
    def __getitem__(self, i):
        return torch.zeros(3, 2, 3), torch.tensor([[[1, 1, 0]] * 2, [[0, 1, 255]] * 2])

class Endless(IterableDataset):
    def __iter__(self):
        return iter(())

def make(**options):
    return Stripes(**options)

ready = Stripes(2)
pairs = [ready[0]]
tensors = (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4))
scenes = Scenes((16, 16), length=2)
number = 3
def loader():
    from torch.utils.data import DataLoader
    return DataLoader(ready)
"""
NUMBERS = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the working folder, with the code above, and of what it imports."""
    name = f"data_code_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(CODE.replace("{helper}", f"{name}_helper"))
    (tmp_path / f"{name}_helper.py").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    yield name
    for each in (name, f"{name}_helper"):
        sys.modules.pop(each, None)


@pytest.mark.parametrize("name", ["Stripes", "make", "AsSamples", "WithIds", "ready"])
def test_items_are_those_of_the_code(module, name):
    data = open_data(f"python:{module}:{name}")
    assert len(data) == (2 if name == "ready" else 3)
    assert data.ids[:2] == ("00000", "00001")
    assert data.classes.names == ("sky", "road")
    for place in range(2):
        assert data[place].label.equal((torch.arange(6).reshape(2, 3) + place) % 2)
        assert data[place].image.equal(torch.full((3, 2, 3), 0.5))


def test_arguments_and_split_are_handed_on(module):
    data = open_data(f"python:{module}:Stripes,length=5,shift=1,classes=[a, b]", split="val")
    assert (len(data), data.classes.names, data.name) == (5, ("a", "b"), f"{module}:Stripes/val")
    assert data[0].label.equal((torch.arange(6).reshape(2, 3) + 1) % 2)
    assert data.source.source.items.split == "val"


def test_a_data_set_of_this_library_is_taken_as_it_is(module):
    data, own = open_data(f"python:{module}:scenes"), Scenes((16, 16), length=2)
    assert data.ids == own.ids
    assert data.classes == own.classes
    assert data[1].label.equal(own[1].label)
    with pytest.raises(InputError, match="says itself what its masks mean; expected no classes"):
        open_data(f"python:{module}:scenes,classes=[a]")


def test_lists_and_tensors(module):
    assert len(open_data(f"python:{module}:pairs,classes=[a, b]")) == 1
    assert open_data(f"python:{module}:tensors,classes=[a, b]")[1].image.shape == (3, 4, 4)


def test_masks_of_structures(module):
    data = open_data(f"python:{module}:Nameless,structures=[organ, vessel]")
    assert data.classes.structures == ("organ", "vessel")
    assert data[0].label.tolist() == [[1, 3, 255]] * 2


def test_an_item_that_fails_is_set_aside(module):
    data = open_data(f"python:{module}:Stripes", split="broken")
    assert data[0].id == "00000"
    with pytest.raises(BadSampleError, match="sample '00001': OSError: disk"):
        data[1]


def test_it_goes_to_worker_processes(module):
    data = open_data(f"python:{module}:Stripes")
    assert pickle.loads(pickle.dumps(data))[1].label.equal(data[1].label)
    batches = list(DataLoader(data, batch_size=3, num_workers=1))
    assert batches[0].labels[1].equal(data[1].label)
    sent, label = pickle.dumps(data), data[1].label
    del sys.modules[module], data  # as in a process that is not a copy of this one
    arrived = pickle.loads(sent)
    assert (arrived.name, arrived.source.module) == (f"{module}:Stripes", module)
    assert arrived[1].label.equal(label)


def test_a_change_of_the_code_or_of_what_it_imports_is_seen(module, tmp_path):
    data = open_data(f"python:{module}:Stripes")
    before = meaning_of(data)
    assert changed_meaning(data, before) is None
    assert set(before["code"]) == {f"{module}.py", f"{module}_helper.py"}
    (tmp_path / f"{module}_helper.py").write_text("x = 2")
    assert changed_meaning(data, before) == f"{tmp_path / module}.py changed (code)"


def test_samples_among_pairs_keep_the_ids_of_their_places():
    sample = Sample("x", torch.zeros(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64))
    assert Pairs([sample], Classes(("a", "b"), ((0, 0, 0), (1, 1, 1))))[0].id == "00000"


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (":Strips", r"unknown object in .* 'Strips'; did you mean 'Stripes'"),
        (":Stripes,lenth=3", r"cannot build .* with \(lenth=3\): TypeError: .*unexpected keyword"),
        (":Stripes,length=-1", "RuntimeError: no such length"),
        (":ready,length=3", r"is a data set already; it takes no arguments \(length\)"),
        (":number", "is a int; expected a data set, or a function that makes one"),
        (":Nameless", r"does not name its classes: write ,classes=\[…\]"),
        (":Odd", "the attribute classes of .* is 7; expected a list of names"),
        (":Stripes,classes=3", "classes is 3; expected a list of names"),
        (":Stripes,classes=[a, no]", "quote them"),
        (":Stripes,classes=[a, b],ignore_index=-1", "ignore_index is -1; expected a whole number"),
        (":Stripes,classes=[a, b],ignore_index=1", "ignore_index 1 is the class 'b'"),
        (":Stripes,classes=[a],structures=[b]", "expected none beside structures"),
        (":Endless,classes=[a]", "expected a data set|cannot be used"),
        (":loader,classes=[a]", "expected its dataset"),
        ("", "expected python:package.module:OBJECT"),
        (":", "expected python:package.module:OBJECT"),
    ],
)
def test_what_is_no_data_set_is_told_in_a_line(module, rest, message):
    with pytest.raises(InputError, match=message) as caught:
        open_data(f"python:{module}{rest}")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_or_fails_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="unknown data module 'nowhere_at_all'"):
        open_data("python:nowhere_at_all:X")
    for name, code in (("fails_on_import", "1/0"), ("no_python", "def")):
        (tmp_path / f"{name}.py").write_text(code)
        with pytest.raises(InputError, match=rf"{name} cannot be imported: \w+Error") as caught:
            open_data(f"python:{name}:X")
        assert "\n" not in str(caught.value)
