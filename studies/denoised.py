"""What a denoiser before a network costs in a pass, and its certificates beside those of the network alone.

    python studies/denoised.py --model CARD.yaml --denoiser CARD.yaml --size 96x128 --out denoised.json

Seconds of the processor, not of the clock, of forward passes over noise, in turns; the median of each.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

import torch
from jsonargparse import auto_cli

import segradius as sr
from segradius.core import text
from segradius.report import Cells

ANSWERS = {"base": "the model", "smoothed": "smoothed, uncertified", "segcertify": "certified"}


def main(model: str, denoiser: str, size: str, out: Path, turns: int = 30, together: int = 4) -> int:
    """Measure passes.

    Args:
        model: The network, as for segradius certify.
        denoiser: What goes before it, likewise.
        size: height x width of an image.
        out: Folder to write time.json into.
        turns: Passes of each.
        together: Images in a pass.
    """
    height, width = text.size(size) or (0, 0)
    plain = sr.load_model(model)
    behind = sr.load_model(model, denoiser=denoiser)
    images = torch.rand(together, plain.bands or 3, height, width)
    spent: dict[str, list[float]] = {"plain": [], "denoised": []}
    for _ in range(turns):
        for name, each in (("plain", plain), ("denoised", behind)):
            begun = time.process_time()
            each.top_class(images)
            spent[name].append((time.process_time() - begun) / together)
    found = {name: 1e3 * median(seconds) for name, seconds in spent.items()}
    out.mkdir(parents=True, exist_ok=True)
    content = {"size": [height, width], "together": together, "turns": turns, "threads": torch.get_num_threads()}
    (out / "time.json").write_text(json.dumps({**content, "milliseconds": found}, indent=1) + "\n", encoding="utf-8")
    print(found)
    return 0


def tables(folder: Path, **labels: str) -> list[Cells]:
    """Certificates of runs of ``segradius certify``: folders in this one by label, where + is a space."""
    rows = []
    for label, name in labels.items():
        run = json.loads((folder / name / "results.json").read_text(encoding="utf-8"))
        for row in run["rows"]:
            shares = [_percent(row[what]) if what != "abstained" or row["promise"] else "" for what in SHOWN]
            rows.append([label.replace("+", " "), ANSWERS[row["name"]], *shares])
    return [Cells("Per cent [95 % interval over images]", HEADER, rows)]


SHOWN = ("pixacc", "miou", "abstained")
HEADER = ("network", "answer", "PixAcc %", "MIoU %", "abstained %")


def _percent(found: dict[str, float]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * found[end] for end in ("value", "low", "high")))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
