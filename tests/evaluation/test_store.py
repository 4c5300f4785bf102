"""The store keeps exactly what it was given, once, through anything."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.evaluation import ImageResult, Kept, Store
from segradius.evaluation.seals import Sealed
from segradius.metrics.counts import Pixels

integers = st.lists(st.integers(0, 2**40), min_size=1, max_size=4)
pixels = st.builds(Pixels, integers, integers, integers, st.just(()) | integers)
lengths = st.floats(0, 1e6)
results = st.builds(
    ImageResult,
    st.text(min_size=1, max_size=8),
    pixels,
    st.dictionaries(st.text(max_size=5), pixels, max_size=2),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    lengths,
    lengths,
    lengths,
    lengths,
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(["attack", "radius"]), st.tuples(st.integers(0, 9), st.integers(0, 9)).map(list)),
    st.booleans(),
    lengths,
)


@settings(deadline=None)  # a busy machine is no failure
@given(results)
def test_a_result_comes_back_as_it_went_in(result: ImageResult):
    with Store(":memory:") as store:
        store.add("key", [result])
        assert store.results("key") == {result.image: result}
        assert store.results("other") == {}


def test_nan_lengths_of_an_invalid_image_come_back_as_nan():
    with Store(":memory:") as store:
        store.add("key", [ImageResult("a", Pixels([0], [1], [1]), l2=math.nan, valid=False)])
        found = store.results("key")["a"]
    assert math.isnan(found.l2)
    assert not found.valid


def test_an_example_comes_back_bit_by_bit():
    image = torch.rand(3, 5, 7)
    with Store(":memory:") as store:
        store.add("key", [], Kept({"a": image}))
        assert store.kept("key") == {"a"}
        assert torch.equal(store.example("key", "a"), image)
        assert store.example("key", "b") is None


def test_a_batch_is_stored_whole_or_not_at_all():
    with Store(":memory:") as store:
        bad = ImageResult("b", Pixels([1], [1], [1]), hit=2**80)  # more than SQLite holds
        with pytest.raises(OverflowError):
            store.add("key", [ImageResult("a", Pixels([1], [1], [1])), bad])
        assert store.done("key") == set()


def test_images_set_aside_are_named_with_the_reason_and_can_be_tried_again():
    with Store(":memory:") as store:
        store.set_aside("b", "first")
        store.set_aside("b", "truncated")
        assert store.all_set_aside() == {"b": "truncated"}
        store.retry_set_aside()
        assert store.all_set_aside() == {}


def test_what_was_added_survives_a_kill_and_what_was_not_committed_is_gone(tmp_path):
    path = tmp_path / "results.sqlite"
    program = """
import os, signal, sys
from segradius.evaluation import ImageResult, Store
from segradius.metrics.counts import Pixels
store = Store(sys.argv[1])
store.add("key", [ImageResult("a", Pixels([1], [2], [3]))])
store._base.put("set_aside", ("b", "half-way"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    with Store(path) as store:
        assert store.results("key")["a"].pixels == Pixels([1], [2], [3])
        assert store.all_set_aside() == {}


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "results.sqlite"
    path.write_text("not a database, though it is long enough to be taken for one" * 20)
    with pytest.raises(InputError, match=r"results\.sqlite cannot be used as a results file"):
        Store(path)


def test_two_that_open_a_new_file_at_the_same_moment_both_have_it(tmp_path, monkeypatch):
    path = tmp_path / "results.sqlite"
    Store(path).close()  # the other one, between our first look and our lock
    looks, is_sealed = [], Sealed.is_sealed
    monkeypatch.setattr(Sealed, "is_sealed", lambda it: bool(looks.append(1)) or (len(looks) > 1 and is_sealed(it)))
    with Store(path) as store:
        store.add("pgd", [ImageResult("a", Pixels([3], [4], [5]))])
        assert not store.adopted
        assert store.done("pgd") == {"a"}
    assert len(looks) == 2
