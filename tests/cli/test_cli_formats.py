"""`segradius attack` on images of 16 bits, volumes and DICOM files, whose every number is known."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from data.formats import dicom
from segradius.cli import main

NETWORK = '''
import torch

def threshold():
    """Class 1 where the one band is above one half."""
    return lambda x: torch.cat([0.5 - x, x - 0.5], 1)
'''
COMMAND = ["attack", "--model", "closed_form:threshold", "--num-classes", "2", "--device", "cpu", "--out", "out"]
FGSM = [*COMMAND, "--attack", "fgsm", "--norm", "linf", "--eps", "0.1", "--figures", "0", "--save-images"]
LOW, HIGH = -1000, 3095
STACK = np.random.default_rng(0).integers(LOW + 500, HIGH - 499, (3, 8, 10), dtype=np.int16)
MASKS = ((STACK - LOW) / (HIGH - LOW) > 0.5).astype(np.uint8)


def tiff(root: Path) -> None:
    for number in range(3):
        tifffile.imwrite(root / "images" / f"p{number}.tif", STACK[number], compression="zlib")
        np.save(root / "masks" / f"p{number}.npy", MASKS[number])


def volume(root: Path) -> None:
    for kind, stack in (("images", STACK), ("masks", MASKS)):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(stack, 0, 2), np.diag([2, 2, 2, 1])), root / kind / "p.nii.gz")


def scans(root: Path) -> None:
    for number in range(3):
        stored = (STACK[number] + 1024).astype(np.uint16)[None, ..., None]
        (root / "images" / f"p{number}.dcm").write_bytes(dicom(stored, RescaleSlope="1", RescaleIntercept="-1024"))
        np.save(root / "masks" / f"p{number}.npy", MASKS[number])


@pytest.mark.parametrize(
    ("write", "keys", "ids"),
    [
        (tiff, "", ["p0", "p1", "p2"]),
        (volume, "slices: {axis: 2}\n", ["p#000", "p#001", "p#002"]),
        (scans, "", ["p0", "p1", "p2"]),
    ],
)
def test_an_attack_begins_at_the_numbers_of_the_file_and_keeps_all_their_bits(
    tmp_path, monkeypatch, capsys, write, keys, ids
):
    monkeypatch.chdir(tmp_path)
    Path("closed_form.py").write_text(NETWORK)
    for kind in ("images", "masks"):
        Path("data", kind).mkdir(parents=True)
    write(Path("data"))
    Path("data/segradius.yaml").write_text(f"classes: [dark, bright]\nbands: 1\nrange: [{LOW}, {HIGH}]\n{keys}")
    command = [*FGSM, "--data", "folder:data"]
    assert main(command) == main(command) == 0
    assert "3 images" in capsys.readouterr().err
    for number, name in enumerate(ids):
        clean = ((STACK[number].astype(np.float64) - LOW) / (HIGH - LOW)).astype(np.float32)
        found = np.load(Path("out/adversarial/fgsm linf 0.1", name.replace("#", "%23") + ".npz"))["adversarial"]
        assert found.shape == (1, 8, 10)
        expected = np.where(MASKS[number] == 1, clean - np.float32(0.1), clean + np.float32(0.1))
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-7)
        assert np.abs(found * 255 - np.round(found * 255)).max() > 0.3  # no 8-bit image
    Path("data/segradius.yaml").write_text(f"classes: [dark, bright]\nbands: 1\nrange: [{LOW - 1}, {HIGH}]\n{keys}")
    assert main(command) == 2
    assert "(range)" in capsys.readouterr().err
    assert not [file for file in Path("out").rglob("*.*") if file.is_file() and b"Doe" in file.read_bytes()]
