"""The published layouts, each as a tiny copy on disk."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import Cityscapes, VOCSegmentation

from segradius.core.errors import InputError
from segradius.data import ADE20K, CAMVID, CITYSCAPES, VOC, BadSampleError, open_data
from segradius.data.sample import voc_palette


@pytest.fixture
def voc_folder(tmp_path, write, photo):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for i, name in enumerate(("2007_a", "2007_b", "2007_c")):
        write(root / "JPEGImages" / f"{name}.jpg", photo(seed=i))
        mask = np.full((4, 6), i, np.uint8)
        mask[0], mask[1, 0] = 255, 20
        write(root / "SegmentationClass" / f"{name}.png", mask, "P")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_c\n2007_a\n")
    (lists / "train.txt").write_text("2007_b\n")
    return tmp_path


@pytest.fixture
def cityscapes_folder(tmp_path, write, photo):
    for city, number in (("zurich", 2), ("aachen", 1)):
        stem = f"{city}_00000{number}_000019"
        write(tmp_path / "leftImg8bit" / "val" / city / f"{stem}_leftImg8bit.png", photo(2, 17))
        raw = np.arange(34, dtype=np.uint8).reshape(2, 17)
        write(tmp_path / "gtFine" / "val" / city / f"{stem}_gtFine_labelIds.png", raw)
        write(tmp_path / "gtFine" / "val" / city / f"{stem}_gtFine_instanceIds.png", raw)
    return tmp_path


@pytest.fixture
def ade_folder(tmp_path, write, photo):
    root = tmp_path / "ADEChallengeData2016"
    write(root / "images" / "validation" / "ADE_val_00000001.jpg", photo(1, 151))
    write(root / "annotations" / "validation" / "ADE_val_00000001.png", np.arange(151, dtype=np.uint8)[None])
    return root


def test_voc_keeps_the_order_of_its_list_and_the_index_of_the_palette(voc_folder):
    data = open_data(f"voc:{voc_folder}")
    assert data.name == "voc/val"
    assert data.ids == ("2007_c", "2007_a")
    assert data[0].label.tolist() == [[255] * 6, [20, 2, 2, 2, 2, 2], [2] * 6, [2] * 6]
    assert len(data.classes) == 21


def test_files_that_need_keys_are_told_that_no_benchmark_reads_any(voc_folder, write):
    root = voc_folder / "VOCdevkit" / "VOC2012"
    write(root / "JPEGImages" / "2007_a.png", np.full((4, 6), 3000, np.uint16))
    (root / "JPEGImages" / "2007_a.jpg").unlink()
    (root / "JPEGImages" / "2007_c.jpg").write_bytes(b"no picture")
    data = open_data(f"voc:{voc_folder}")
    assert pickle.loads(pickle.dumps(data)).ids == data.ids
    with pytest.raises(
        BadSampleError, match=r"of voc:PATH no segradius\.yaml is read: .* give folder:PATH \(.*2007_a\.png"
    ):
        data[1]
    with pytest.raises(BadSampleError) as error:
        data[0]
    assert "segradius.yaml" not in str(error.value)


def test_voc_agrees_with_torchvision(voc_folder):
    theirs = VOCSegmentation(voc_folder, image_set="val")
    ours = open_data(f"voc:{voc_folder / 'VOCdevkit' / 'VOC2012'}", split="val")
    assert len(ours) == len(theirs)
    for sample, (image, mask) in zip((ours[i] for i in range(len(ours))), theirs, strict=True):
        assert torch.equal(sample.image, torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
        assert torch.equal(sample.label, torch.from_numpy(np.array(mask)).long())


def test_voc_palette_is_known_and_distinct():
    assert voc_palette(21)[15] == (192, 128, 128)  # person
    assert voc_palette(21)[20] == (0, 64, 128)
    assert voc_palette(256)[255] == (224, 224, 192)
    assert len(set(voc_palette(256))) == 256
    assert VOC.names[15] == "person"


def test_voc_unknown_split_lists_what_there_is(voc_folder):
    with pytest.raises(InputError, match=r"unknown voc split 'vall'; did you mean 'val'"):
        open_data(f"voc:{voc_folder}", split="vall")


def test_train_aug_joins_sbd_without_vocs_val(voc_folder, write, photo):
    savemat = pytest.importorskip("scipy.io").savemat
    sbd = voc_folder / "VOCdevkit" / "VOC2012" / "SBD"
    (sbd / "cls").mkdir(parents=True)
    (sbd / "train.txt").write_text("2008_x\n2007_b\n")
    (sbd / "val.txt").write_text("2007_a\n2008_y\n")
    for name in ("2008_x", "2008_y", "2007_a", "2007_b"):
        write(sbd / "img" / f"{name}.jpg", photo())
        inner = np.zeros((1,), dtype=[("Segmentation", object)])
        inner["Segmentation"][0] = np.full((4, 6), 19, np.uint8)
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": inner})
    data = open_data(f"voc:{voc_folder}", split="train_aug")
    assert data.ids == ("2007_b", "2008_x", "2008_y")
    assert data[0].label[0, 0] == 255  # VOC's own mask has the border
    assert (data[1].label == 19).all()


def test_train_aug_prefers_ready_made_masks(voc_folder, write):
    root = voc_folder / "VOCdevkit" / "VOC2012"
    write(root / "SegmentationClassAug" / "2007_a.png", np.full((4, 6), 3, np.uint8))
    (root / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2007_a\n")
    data = open_data(f"voc:{voc_folder}", split="train_aug")
    assert (data[0].label == 3).all()


def test_train_aug_without_sbd_says_what_is_needed(voc_folder):
    with pytest.raises(InputError, match="Semantic Boundaries Dataset"):
        open_data(f"voc:{voc_folder}", split="train_aug")


def test_cityscapes_label_ids_become_train_ids(cityscapes_folder):
    data = open_data(f"cityscapes:{cityscapes_folder}")
    assert data.ids == ("aachen_000001_000019", "zurich_000002_000019")
    trained = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12}
    trained |= {26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert data[0].label.flatten().tolist() == [trained.get(i, 255) for i in range(34)]


def test_cityscapes_reads_the_files_that_torchvision_reads(cityscapes_folder):
    theirs = Cityscapes(cityscapes_folder, split="val", target_type="semantic")
    ours = open_data(f"cityscapes:{cityscapes_folder}")
    assert sorted(str(p.image) for p in ours.source.pairs) == sorted(theirs.images)
    assert sorted(str(p.mask) for p in ours.source.pairs) == sorted(t[0] for t in theirs.targets)
    assert CITYSCAPES.names[13] == "car"
    assert CITYSCAPES.palette[13] == (0, 0, 142)


def test_ade20k_is_reduced_once(ade_folder):
    data = open_data(f"ade20k:{ade_folder}", split="val")
    label = data[0].label.flatten()
    assert label[0] == 255
    assert label[1:].tolist() == list(range(150))
    assert torch.equal(data[0].label, data[0].label)
    assert len(data.classes) == 150
    assert (ADE20K.names[0], ADE20K.names[12], ADE20K.names[149]) == ("wall", "person", "flag")


def test_ade20k_refuses_masks_that_were_reduced_before(ade_folder, write):
    reduced = np.concatenate([[255], np.arange(150)]).astype(np.uint8)[None]
    write(ade_folder / "annotations" / "validation" / "ADE_val_00000001.png", reduced)
    data = open_data(f"ade20k:{ade_folder.parent}")
    with pytest.raises(BadSampleError, match=r"value 255 in the mask at pixel \(row 0, column 0\); expected 0–150"):
        data[0]


@pytest.fixture
def camvid_copy(tmp_path, write, photo):
    write(tmp_path / "images" / "test" / "one.jpg", photo(2, 6))
    write(tmp_path / "masks" / "test" / "one.png", np.arange(12, dtype=np.uint8).reshape(2, 6))
    return tmp_path


def test_camvid_void_is_ignored(camvid_copy):
    data = open_data(f"camvid:{camvid_copy}")
    assert data[0].label.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 255]]
    assert CAMVID.names[8] == "car"


def test_data_sets_travel_to_workers(camvid_copy):
    data = pickle.loads(pickle.dumps(open_data(f"camvid:{camvid_copy}", size=(4, 4))))
    assert data[0].image.shape == (3, 4, 4)


def test_shared_camvid_has_its_published_counts(camvid_folder):
    lengths = {split: len(open_data(f"camvid:{camvid_folder}", split=split)) for split in ("train", "val", "test")}
    assert lengths == {"train": 367, "val": 101, "test": 156}
    sample = open_data(f"camvid:{camvid_folder}", size=(240, 320), limit=1)[0]
    assert sample.image.shape == (3, 240, 320)
    assert set(sample.label.unique().tolist()) <= {*range(11), 255}


@pytest.mark.parametrize("name", ["voc", "cityscapes", "ade20k", "camvid", "folder"])
def test_absent_and_empty_paths_fail_before_any_work(name, tmp_path):
    with pytest.raises(InputError, match=f"{name}:PATH"):
        open_data(name)
    with pytest.raises(InputError, match="there is no folder"):
        open_data(f"{name}:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match=r"there is no folder|segradius\.yaml"):
        open_data(f"{name}:{tmp_path}")
