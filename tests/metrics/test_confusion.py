"""What labels were taken for: the sums are the counts by class, however pixels are counted and images pooled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.metrics import confusion
from segradius.metrics.confusion import confusions, pooled
from segradius.metrics.counts import count

VOID = 255


def maps(classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    prediction, labels = torch.randint(classes, (2, 3, 4, 5), generator=g)
    return prediction, labels.where(torch.rand(3, 4, 5, generator=g) < 0.8, VOID)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 200), st.integers(0, 10**6), st.booleans())
def test_pairs_add_up_to_the_counts_by_class(classes: int, seed: int, sorting: bool):
    prediction, labels = maps(classes, seed)
    counts = count(prediction, labels, classes, VOID)
    with pytest.MonkeyPatch.context() as patch:
        if sorting:
            patch.setattr(confusion, "TABLE", 0)
        found = confusions(prediction, labels, classes, VOID)
    for image, cells in enumerate(found):
        whole = np.zeros((classes, classes), np.int64)
        whole[cells[:, 0], cells[:, 1]] = cells[:, 2]
        assert whole.sum(1).tolist() == counts.labelled[image].tolist()
        assert whole.sum(0).tolist() == counts.predicted[image].tolist()
        assert whole.diagonal().tolist() == counts.intersection[image].tolist()
        assert bool((cells[:, 2] > 0).all())
        assert cells.tolist() == sorted(cells.tolist())


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 10**6), max_size=6), st.integers(1, 12))
def test_pooled_pairs_are_those_of_all_pixels_at_once(seeds: list[int], held: int):
    every = [maps(6, seed) for seed in seeds]
    parts = [cells for prediction, labels in every for cells in confusions(prediction, labels, 6, VOID)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confusion, "HELD", held)
        found = pooled(parts)
    if not every:
        assert found.shape == (0, 3)
        return
    together = [torch.cat([each[k].flatten() for each in every]).view(1, 1, -1) for k in (0, 1)]
    assert found.tolist() == confusions(*together, 6, VOID)[0].tolist()


def test_a_class_out_of_range_is_named():
    with pytest.raises(InputError, match="the prediction of image 0 holds class 5"):
        confusions(torch.tensor([[[5]]]), torch.tensor([[[0]]]), 5)
