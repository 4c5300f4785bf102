from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from segradius.core.errors import InputError
from segradius.data import DATA, PROTOCOLS, BadSampleError, Classes, Sample, class_counts, collate

THREE = Classes(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


@dataclass(frozen=True)
class Listed:
    """Samples that are already there."""

    labels: tuple[torch.Tensor, ...]
    name: str = "listed"
    classes: Classes = THREE

    @property
    def ids(self):
        return tuple(map(str, range(len(self.labels))))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Sample(str(index), torch.zeros(3, *self.labels[index].shape), self.labels[index])


def test_class_counts_counts_labelled_pixels_of_images_of_any_size():
    data = Listed((torch.tensor([[0, 2], [2, 255]]), torch.tensor([[2, 255, 0]])))
    counts = class_counts(data)
    assert counts.tolist() == [2, 0, 3]
    assert counts.dtype == torch.int64


def test_collate_refuses_two_sizes_by_name():
    data = Listed((torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64)))
    with pytest.raises(InputError, match=r"'0' and '1' differ in size, 2×2 and 2×3"):
        collate([data[0], data[1]])
    with pytest.raises(InputError, match="at least one"):
        collate([])


def test_classes_check_palette_and_ignore_index():
    with pytest.raises(InputError, match="1 colours was given for 2 classes"):
        Classes(("a", "b"), ((0, 0, 0),))
    with pytest.raises(InputError, match="ignore_index 1 is the class 'b'"):
        Classes(("a", "b"), ((0, 0, 0), (1, 1, 1)), ignore_index=1)


def test_bad_sample_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(BadSampleError("a", Path("a.png"), "is broken")))
    assert (error.sample_id, error.path, error.reason) == ("a", Path("a.png"), "is broken")
    assert "a.png" in str(error)
    assert isinstance(error, InputError)


def test_every_data_set_and_protocol_has_a_summary():
    assert {"scenes", "folder"} <= set(DATA)
    assert "native" in PROTOCOLS
    assert all(registry.summary(name) for registry in (DATA, PROTOCOLS) for name in registry)
