"""Images and masks that cannot be used: set aside by name, and the rest is finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data.kinds import large_png, masks, saved, tiff
from faults.frame import Case, Tried, facts, fault, test_fault

__all__ = ["test_fault"]


@fault("hostile image", expected="set aside", prepared="attack", few=2)
def cut_short(case: Case) -> Tried:
    """One image file ends early."""
    file = case.folder / "data" / "images" / "b.png"
    file.write_bytes(file.read_bytes()[: case.random.randrange(100)])
    return Tried(case.run(), aside=("b",))


@fault("hostile image", expected="set aside", few=2)
def another_kind(case: Case) -> Tried:
    """One image is of a kind that cannot be read as 8-bit RGB: another each time."""
    pixels = np.full((8, 10, 4), 9, np.uint8)
    kinds = (tiff(pixels, 8, t262=5), tiff(pixels[..., :3], 16, t262=2), tiff(pixels[..., 0], pages=2), b"<html>", b"",
             saved(Image.fromarray(pixels), "PNG"), tiff(pixels[..., :3], 8, t262=8), large_png())  # fmt: skip
    (case.folder / "data" / "images" / "b.png").write_bytes(kinds[case.number % len(kinds)])
    return Tried(case.run(), aside=("b",))


@fault("hostile mask", expected="set aside", few=3)
def mask_of_a_kind_that_does_not_come_back(case: Case) -> Tried:
    """One mask is of a kind in which its numbers are lost: another of the sweep each time."""
    mask = np.arange(80, dtype=np.uint8).reshape(8, 10) % 3
    lost = [
        kind for kind in masks(mask) if kind.truth is None and kind.ending in (".png", ".tif", ".jpg", ".gif", ".bmp")
    ]
    kind = lost[case.random.randrange(len(lost))]
    (case.folder / "data" / "masks" / "b.png").unlink()
    (case.folder / "data" / "masks" / f"b{kind.ending}").write_bytes(kind.content)
    return Tried(case.run(), aside=("b",))


@fault("bomb", expected="set aside")
def mask_of_a_hundred_million_pixels(case: Case) -> Tried:
    """One mask is 20 KB and 13000 × 13000."""
    (case.folder / "data" / "masks" / "b.png").write_bytes(large_png())
    return Tried(case.run(), aside=("b",))


@fault("bomb", expected="refused", prepared="certify")
def region_of_a_hundred_million_pixels(case: Case) -> Tried:
    """The region is."""
    Path("large.png").write_bytes(large_png())
    return Tried(case.run("--region", "large.png"), names=("large.png",))


@fault("bomb", expected="refused")
def aim_of_a_hundred_million_pixels(case: Case) -> Tried:
    """The mask that is aimed at is."""
    Path("large.png").write_bytes(large_png())
    return Tried(case.run("--aim", "large.png"), names=("large.png",))


ALIASES = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))])
DEEP = f"a: {'[' * 3000}{']' * 3000}"
YAMLS = {
    "segradius.yaml": ("attack", ()),
    "plan.yaml": ("attack", ("--plan", "plan.yaml")),
    "card.yaml": ("attack", ("--model", "card.yaml")),
    "config.yaml": ("attack", ("--config", "config.yaml")),
    "groups.yaml": ("certify", ("--hierarchy", "groups.yaml")),
}


def _yaml(file: str, words: tuple[str, ...]) -> Callable[[Case], Tried]:
    def strike(case: Case) -> Tried:
        content = (ALIASES, DEEP, "a: &a [*a]", "a: 1\na: 2", "a: [")[case.number % 5]
        path = Path("data" if file == "segradius.yaml" else ".") / file
        path.write_text(content)
        return Tried(case.run(*words), names=(file, "the YAML"))

    return strike


for _file, (_command, _words) in YAMLS.items():
    fault("YAML bomb", expected="refused", prepared=_command, few=2, name=f"yaml {_file}")(_yaml(_file, _words))


@fault("hostile image", expected="right", prepared="train", few=2)
def unreadable_image_in_training(case: Case) -> Tried:
    """One image of the training or held-out part cannot be read: the rest is learnt, as it is without that pair."""
    part = ("train", "val")[case.number % 2]
    files = [case.folder / "data" / kind / part / "b.png" for kind in ("images", "masks")]
    files[0].write_bytes(b"")
    ran = case.run()
    found = facts(case.out)
    for file in files:
        file.unlink()
    without = case.run("--out", "without")
    same = found == facts(case.folder / "without") and without.status == 0
    named = "set aside: b: sample 'b': the file cannot be read: it is empty" in ran.told
    problem = "" if same and named else f"named {named}, as without the image {same}: {ran.told}"
    return Tried(ran, found=case.wanted, problem=problem)
