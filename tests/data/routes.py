"""The same four images and masks in every kind of data: three classes and void, or two structures that overlap."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from segradius.data import Pairs
from segradius.data.sample import Classes, voc_palette

COUNT, HEIGHT, WIDTH = 4, 8, 12
RNG = np.random.default_rng(5)
GREY = np.repeat(RNG.integers(0, 256, (COUNT, HEIGHT, WIDTH, 1), dtype=np.uint8), 3, -1)
LABELS = RNG.choice(np.array([0, 1, 2, 255], np.uint8), (COUNT, HEIGHT, WIDTH), p=[0.4, 0.3, 0.25, 0.05])
MAPS = RNG.random((COUNT, 2, HEIGHT, WIDTH)) < 0.4
CLASSES, NAMES, IDS = ("background", "cell", "wall"), ("organ", "vessel"), [f"{place:05d}" for place in range(COUNT)]
OF = "classes=[background, cell, wall]"


def png(folder: Path, name: str, arrays: object) -> None:
    """Arrays as pictures NAME/00000.png, …"""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for place, array in zip(IDS, arrays, strict=True):
        Image.fromarray(array).save(folder / name / f"{place}.png")


def deep(folder: Path, name: str) -> None:
    """The images in 16 bits and one band."""
    png(folder, name, GREY[..., 0].astype(np.uint16) * np.uint16(257))


def flat(folder: Path) -> str:
    png(folder, "images", GREY)
    png(folder, "masks", LABELS)
    (folder / "segradius.yaml").write_text("classes: [background, cell, wall]\nignore_index: 255")
    return f"folder:{folder}"


def flat16(folder: Path) -> str:
    flat(folder)
    deep(folder, "images")
    (folder / "segradius.yaml").write_text(
        "classes: [background, cell, wall]\nignore_index: 255\nbands: 3\nrange: [0, 65535]"
    )
    return f"folder:{folder}"


def stack(folder: Path) -> str:
    """One array of all slices, each of which has the name of its place."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    np.save(folder / "images" / "all.npy", GREY[..., 0])
    np.save(folder / "masks" / "all.npy", LABELS)
    (folder / "segradius.yaml").write_text(
        "classes: [background, cell, wall]\nignore_index: 255\nbands: 3\nslices: {axis: 0}"
    )
    return f"folder:{folder}"


def coco(folder: Path, more: str = "") -> str:
    png(folder, "images", GREY)
    shapes = [
        {"image_id": i, "category_id": category, "iscrowd": crowd, "segmentation": runs(LABELS[i] == value)}
        for i in range(COUNT)
        for category, crowd, value in ((1, 0, 1), (2, 0, 2), (1, 1, 255))
    ]
    return _coco(folder, CLASSES[1:], shapes) + more


def coco16(folder: Path) -> str:
    spec = coco(folder)
    deep(folder, "images")
    return spec + ",bands=3,range=[0, 65535]"


def coco_refused(folder: Path) -> str:
    """Categories that overlap, and nothing that says what holds."""
    return structures_coco(folder).partition(",")[0]


def as_list(folder: Path) -> str:
    png(folder, "shots", GREY)
    png(folder, "truth", LABELS)
    rows = [{"id": name, "image": f"shots/{name}.png", "mask": f"truth/{name}.png"} for name in IDS]
    with (folder / "all.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "all.json").write_text(json.dumps(rows))
    return f"list:{folder / 'all.csv'},{OF},ignore_index=255"


def as_json(folder: Path) -> str:
    return as_list(folder).replace("all.csv", "all.json")


def list16(folder: Path) -> str:
    spec = as_list(folder)
    deep(folder, "shots")
    return spec + ",bands=3,range=[0, 65535]"


def list16_refused(folder: Path) -> str:
    """16 bits without a range."""
    return list16(folder).partition(",bands")[0]


class Torch(Dataset):
    """As people write them."""

    classes = CLASSES

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.from_numpy(GREY[place]).permute(2, 0, 1).float().div(255)
        return image, torch.from_numpy(LABELS[place])


class TorchMaps(Torch):
    """With a map a structure."""

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        return super().__getitem__(place)[0], torch.from_numpy(MAPS[place])


def ours() -> Pairs:
    return Pairs(Torch(), Classes(CLASSES, voc_palette(3)))


def python(folder: Path) -> str:
    return "python:data.routes:Torch"


def python_ours(folder: Path) -> str:
    return "python:data.routes:ours"


def saved(folder: Path) -> str:
    _library().save_to_disk(folder / "d")
    return f"hfdata:{folder / 'd'},{OF},ignore_index=255"


def parquet(folder: Path) -> str:
    _library().to_parquet(folder / "data.parquet", batch_size=3)
    return f"hfdata:{folder},{OF},ignore_index=255"


def images(folder: Path) -> str:
    png(folder, "shots", GREY)
    return f"images:{folder / 'shots'}"


def structures(folder: Path) -> str:
    png(folder, "images", GREY)
    for place, name in enumerate(NAMES):
        png(folder, f"masks/{name}", MAPS[:, place].astype(np.uint8) * 255)
    (folder / "segradius.yaml").write_text("structures: [organ, vessel]\nmasks: 'masks/{structure}'")
    return f"folder:{folder}"


def bands(folder: Path) -> str:
    png(folder, "images", GREY)
    (folder / "masks").mkdir()
    for name, maps in zip(IDS, MAPS, strict=True):
        np.save(folder / "masks" / f"{name}.npy", maps)
    (folder / "segradius.yaml").write_text("structures: [organ, vessel]")
    return f"folder:{folder}"


def structures_coco(folder: Path) -> str:
    png(folder, "images", GREY)
    shapes = [
        {"image_id": i, "category_id": k + 1, "segmentation": runs(MAPS[i, k])} for i in range(COUNT) for k in (1, 0)
    ]
    return _coco(folder, NAMES, shapes) + ",overlap=structures"


def structures_list(folder: Path) -> str:
    structures(folder)
    (folder / "segradius.yaml").unlink()
    rows = [f"{name},images/{name}.png,masks/organ/{name}.png,masks/vessel/{name}.png" for name in IDS]
    (folder / "all.csv").write_text("\n".join(["id,image,organ,vessel", *rows]))
    return f"list:{folder / 'all.csv'},structures=[organ, vessel]"


def structures_parquet(folder: Path) -> str:
    content = {"image": [Image.fromarray(each) for each in GREY]}
    for place, name in enumerate(NAMES):
        content[name] = [Image.fromarray(each.astype(np.uint8) * 255) for each in MAPS[:, place]]
    datasets.disable_progress_bars()
    features = datasets.Features(dict.fromkeys(content, datasets.Image()))
    datasets.Dataset.from_dict(content, features=features).to_parquet(folder / "all.parquet")
    return f"hfdata:{folder / 'all.parquet'},structures=[organ, vessel]"


def structures_python(folder: Path) -> str:
    return "python:data.routes:TorchMaps,structures=[organ, vessel]"


def runs(mask: np.ndarray) -> dict[str, object]:
    """COCO's run lengths of a mask, uncompressed."""
    flat_mask = mask.flatten(order="F").astype(int)
    lengths = np.diff([0, *(np.flatnonzero(np.diff(flat_mask)) + 1), flat_mask.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat_mask[0] else lengths}


def _coco(folder: Path, names: tuple[str, ...], shapes: list[dict[str, object]]) -> str:
    told = {
        "images": [
            {"id": place, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            for place, name in enumerate(IDS)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [{"id": number, **shape} for number, shape in enumerate(shapes)],
    }
    (folder / "all.json").write_text(json.dumps(told))
    return f"coco:{folder / 'all.json'}"


def _library() -> datasets.Dataset:
    datasets.disable_progress_bars()
    content = {"image": [Image.fromarray(a) for a in GREY], "label": [Image.fromarray(a) for a in LABELS]}
    return datasets.Dataset.from_dict(content, features=datasets.Features(dict.fromkeys(content, datasets.Image())))


WORKS: dict[str, Callable[[Path], str]] = {
    "folder": flat,
    "folder of 16 bits": flat16,
    "folder of a stack": stack,
    "COCO": coco,
    "COCO of 16 bits": coco16,
    "list (CSV)": as_list,
    "list (JSON)": as_json,
    "list of 16 bits": list16,
    "torch Dataset": python,
    "data set from code": python_ours,
    "save_to_disk": saved,
    "Parquet": parquet,
}
OVERLAPPING: dict[str, Callable[[Path], str]] = {
    "folder of masks": structures,
    "folder of bands": bands,
    "COCO": structures_coco,
    "list (CSV)": structures_list,
    "Parquet": structures_parquet,
    "torch Dataset": structures_python,
}
REFUSED: dict[str, tuple[Callable[[Path], str], str, str]] = {
    "pictures without masks": (images, "evaluate", "no pixel is labelled|--labels predicted|labels"),
    "COCO that overlaps": (coco_refused, "read", "overlap in .* pixels"),
    "16 bits without range": (list16_refused, "read", "range"),
    "code without classes": (lambda folder: "python:data.routes:TorchMaps,classes=3", "open", "a list of names"),
}
"""What is refused, where, and in which words."""
