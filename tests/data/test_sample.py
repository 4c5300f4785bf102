from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from segradius.core.errors import InputError
from segradius.data import DATA, PROTOCOLS, BadSampleError, Classes, Sample, class_counts, collate, open_data

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


def test_a_data_loader_needs_no_collate_function():
    data = open_data("scenes:16x24", limit=5)
    for workers in (0, 1):
        batches = list(DataLoader(data, batch_size=2, num_workers=workers))
        assert [batch.ids for batch in batches] == [
            ("val-00000", "val-00001"),
            ("val-00002", "val-00003"),
            ("val-00004",),
        ]
        images, labels, _ = batches[0]
        assert torch.equal(images, torch.stack([data[0].image, data[1].image]))
        assert torch.equal(labels, torch.stack([data[0].label, data[1].label]))
    (one, *_) = DataLoader(data, batch_size=None)
    assert torch.equal(one.image, data[0].image)


def test_a_data_loader_says_what_to_do_about_sizes(tmp_path):
    (tmp_path / "segradius.yaml").write_text("classes: [a]")
    for name, width in (("x", 3), ("y", 4)):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new(mode, (width, 2)).save(tmp_path / kind / f"{name}.png")
    data = open_data(f"folder:{tmp_path}")
    with pytest.raises(InputError, match=r"'x' and 'y' differ in size, 2×3 and 2×4 .*give size= or protocol="):
        list(DataLoader(data, batch_size=2))
    sized = open_data(f"folder:{tmp_path}", size=(2, 3))
    assert [tuple(batch.images.shape) for batch in DataLoader(sized, batch_size=2)] == [(2, 3, 2, 3)]


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
