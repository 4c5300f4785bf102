from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.data import Scenes, class_counts, open_data


@settings(max_examples=10, deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), st.integers(0, 10**6), st.sampled_from(["train", "val", "test"]))
def test_any_size_and_index_gives_a_valid_sample(height, width, index, split):
    sample = Scenes((height, width), length=10**6 + 1, split=split)[index]
    assert sample.image.shape == (3, height, width)
    assert sample.label.shape == (height, width)
    assert 0 <= sample.image.min() <= sample.image.max() <= 1
    assert set(sample.label.unique().tolist()) <= {*range(8), 255}
    assert torch.equal(sample.image * 255, (sample.image * 255).round())


def test_same_scene_every_time_and_in_any_order():
    data, again = Scenes((24, 32)), Scenes((24, 32), length=5)
    assert torch.equal(data[3].image, again[3].image)
    assert torch.equal(data[3].label, again[3].label)


def test_labels_of_the_first_scene_are_pinned():
    label = Scenes((24, 32))[0].label.to(torch.uint8).numpy()
    assert hashlib.sha256(label.tobytes()).hexdigest()[:16] == "6e7ba0feb1745c8e"


def test_splits_and_seeds_are_different_streams():
    firsts = [
        Scenes((24, 32), split=split, seed=seed)[0].image for split in ("train", "val", "test") for seed in (0, 1)
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


def test_the_scene_is_the_same_at_twice_the_size():
    small, large = Scenes((48, 64))[2].label, Scenes((96, 128))[2].label[::2, ::2]
    both = (small != 255) & (large != 255)
    assert (small == large)[both].float().mean() > 0.95


def test_balloon_is_the_rare_class_and_all_occur():
    counts = class_counts(Scenes((48, 64), length=24))
    share = counts / counts.sum()
    assert (counts > 0).all()
    assert share.argmin() == 7
    assert share[7] < 0.03


def test_void_is_thin_and_only_around_objects():
    label = Scenes((120, 160))[0].label
    void = label == 255
    assert 0 < void.float().mean() < 0.12
    near = torch.nn.functional.max_pool2d((label >= 5)[None].float() * ~void, 5, 1, 2)[0].bool()
    assert near[void].float().mean() > 0.95


def test_the_specification_gives_size_and_number():
    data = open_data("scenes:20x30,7", split="train")
    assert (len(data), data[6].id, tuple(data[6].label.shape)) == (7, "train-00006", (20, 30))
    assert open_data("scenes")[0].label.shape == (120, 160)


@pytest.mark.parametrize("spec", ["scenes:20", "scenes:axb", "scenes:8x8", "scenes:20x20,0"])
def test_bad_specifications(spec):
    with pytest.raises(InputError, match="scenes"):
        open_data(spec)
