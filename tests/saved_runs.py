"""Folders of finished runs of every kind, small and written once a process: what readers of results are tested with."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

import segradius as sr
from segradius.cli import main
from segradius.data.pairs import Pairs
from segradius.data.sample import Classes

SCENES = ("--data", "scenes:24x32")
GROUPS = "- ground: [road, grass]\n"
#: A name of which a spreadsheet, a browser, a shell and a file system each have their own idea.
HOSTILE = "=cmd|'/c calc'!A1/../<b>\x1b[31mé,\"\n"


class Threshold(nn.Module):
    """Bright or dark, by the mean of the bands; NaN for an image with a value above ``most``."""

    def __init__(self, bands: int = 3, most: float = math.inf) -> None:
        super().__init__()
        self.layer, self.most = nn.Conv2d(bands, 2, 1), most
        with torch.no_grad():
            weight = torch.tensor([-1.0, 1.0]) * 40 / bands
            self.layer.weight.copy_(weight.view(2, 1, 1, 1).expand_as(self.layer.weight))
            self.layer.bias.copy_(torch.tensor([20.0, -20.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where((x.amax((1, 2, 3)) > self.most).view(-1, 1, 1, 1), math.nan, self.layer(x))


def threshold(bands: int = 3, most: float = math.inf) -> sr.Segmenter:
    return sr.wrap(Threshold(bands, most), num_classes=2, normalisation="none", name="threshold")


def squares(count: int = 6, bands: int = 3) -> tuple[Tensor, Tensor]:
    """Images of bright and dark squares, 0.1 from one half, and masks with a void row."""
    g = torch.Generator().manual_seed(3)
    labels = (torch.rand(count, 2, 3, generator=g) < 0.5).long().repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = (0.4 + 0.2 * labels)[:, None].expand(-1, bands, -1, -1) + 0.02 * torch.rand(
        count, bands, 8, 12, generator=g
    )
    labels[:, 0] = 255
    return images, labels


def named(*ids: str) -> Pairs:
    """Squares under names of their own."""
    images, labels = squares(len(ids))
    classes = Classes(("dark", "bright"), ((0, 0, 0), (255, 255, 255)))
    return Pairs(list(zip(images, labels, strict=True)), classes, "squares", ids)


@cache
def runs() -> Mapping[str, Path]:
    """Folders by kind."""
    root = Path(tempfile.mkdtemp(prefix="segradius-runs-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    quick = {"quiet": True, "figures": 1, "names": ["dark", "bright"]}
    three = {name: value for name, value in quick.items() if name != "names"}
    (root / "groups.yaml").write_text(GROUPS)
    both = ["pgd", "fgsm"]
    sr.evaluate(threshold(), squares(), both, eps={"l2": 1, "linf": 4 / 255}, options={"pgd.steps": 3}, **quick).save(
        root / "attack"
    )
    sr.evaluate(threshold(), squares(), (), **quick).save(root / "evaluate")
    sr.evaluate(threshold(), squares(), "pgd", eps=1, aim="bright", steps=2, **quick).save(root / "targeted")
    sr.evaluate(threshold(), squares(), "pgd", eps=1, labels="predicted", steps=2, **quick).save(root / "predicted")
    weighted = {"steps": 2, "band_weights": "1,2,inf,1"}
    sr.evaluate(threshold(4), squares(6, 4), "pgd", eps=1, **weighted, **quick).save(root / "bands")
    masks = torch.stack([squares()[1], torch.zeros(6, 8, 12, dtype=torch.int64)], 1)
    sets = sr.wrap(nn.Conv2d(3, 2, 1), outputs="multilabel_logits", normalisation="none")
    organs = (squares()[0], masks)
    sr.evaluate(sets, organs, both, eps=1, structures=["organ", "vessel"], options={"pgd.steps": 2}, **three).save(
        root / "structures"
    )
    images, labels = squares()
    images[1, 0, 0, 0] = math.nan  # cannot be used
    images[2, 0, 1, 1] = 0.9  # its logits are NaN
    images[3, 0, 1, 1] = 0.7  # they are under attack
    sr.evaluate(threshold(most=0.75), (images, labels), "pgd", eps=1, steps=2, **quick).save(root / "aside")
    sr.evaluate(threshold(), named("plain", HOSTILE, "Plain"), "pgd", eps=1, steps=2, quiet=True, figures=3).save(
        root / "hostile"
    )
    target = ["--target", "demo", "--attack", "local_pbgd", "--eps", "linf=0.05", "--queries", "8", "--marks", "4"]
    certify = ["certify", "--model", "demo", *SCENES, "--limit", "1", "--sigma", "0.1", "--n0", "5", "--n", "60"]
    certain = [*certify[:-6], "--attack", "flips", "--steps", "2"]
    check = ["--attack", "pgd", "--check-copies", "10", "--radii", "one"]
    for name, words in {
        "target": ["attack", *target, *SCENES, "--limit", "2", "--figures", "0"],
        "certify": certify,
        "groups": [*certify, "--hierarchy", str(root / "groups.yaml")],
        "soft": [*certify, "--radii", "soft", "--early-stop", "0.1"],
        "crosscheck": [*certify, *check],
        "lipschitz": [*certain, "--lipschitz", "9"],
        "masks": [*certain, "--patch", "0.05", "--masks", "2x2"],
    }.items():
        assert main([*words, "--device", "cpu", "--out", str(root / name)]) == 0
    return {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
