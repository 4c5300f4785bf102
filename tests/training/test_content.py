"""A training goes on with what it began to learn from, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from segradius.core.errors import InputError
from segradius.core.locking import owned
from segradius.training import fit
from segradius.training.records import CHECKPOINT


def with_another(data: small.InMemory, place: int, part: str) -> small.InMemory:
    """The data set with one pixel of one image, or of its labels, changed."""
    sample = data.samples[place]
    changed = getattr(sample, part).clone()
    changed[..., 0, 0] = 0 if changed[..., 0, 0].any() else 1
    samples = list(data.samples)
    samples[place] = replace(sample, **{part: changed})
    return small.InMemory(samples, data)


@pytest.mark.parametrize("part", ["image", "label"])
@pytest.mark.parametrize(("field", "data"), [("train", small.TRAIN), ("held_out", small.HELD_OUT)])
def test_another_image_or_label_under_the_same_name_is_refused(
    tmp_path: Path, field: str, data: small.InMemory, part: str
):
    fit(small.job(tmp_path, epochs=1))
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match=f"^image {data.ids[2]}: the {part} changed since {tmp_path} was begun"):
        fit(small.job(tmp_path, epochs=1, **{field: with_another(data, 2, part)}))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_snapshot_of_an_earlier_version_is_taken_as_it_is_and_that_is_said_once(tmp_path: Path, capsys):
    fit(small.job(tmp_path, epochs=1))
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert set(kept["content"]["training"]["images"]) == set(small.TRAIN.ids)
    old = {name: value for name, value in kept.items() if name not in ("content", "seal")}
    torch.save(old, tmp_path / CHECKPOINT)
    for said in (1, 0):
        fit(small.job(tmp_path, epochs=1))
        assert capsys.readouterr().err.count("did not note what it learnt from") == said
    with pytest.raises(InputError, match="the label changed"):
        fit(small.job(tmp_path, epochs=1, train=with_another(small.TRAIN, 0, "label")))


def test_one_training_at_a_time(tmp_path: Path):
    with owned(tmp_path), pytest.raises(InputError, match="is in use: process"):
        fit(small.job(tmp_path, epochs=1))
    assert not (tmp_path / CHECKPOINT).exists()
