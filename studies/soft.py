"""Votes against mean confidences: certified accuracy and radii of the same images under every bound.

    python studies/soft.py --model card.yaml --data camvid:PATH --size 240x320 --stride 16 --out soft.json

All certificates of an image come from noisy copies of the same keys, and promise the same: all radii of the image hold
together with probability 1 − α.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import auto_cli
from torch import Tensor

import segradius as sr
from segradius.certification import (
    SOFT_BOUNDS,
    Certificate,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    SoftRadii,
    Votes,
    vote,
)
from segradius.core import text
from segradius.report import Cells


@dataclass
class Sums:
    """Over labelled pixels: how many, how many certified, how many of these right, and the radii of those."""

    pixels: int = 0
    certified: int = 0
    right: int = 0
    radius: float = 0.0

    def add(self, found: Certificate, label: Tensor, void: int) -> None:
        """Count an image."""
        counted = label != void
        right = found.certified & (found.guess == label) & counted
        self.pixels += int(counted.sum())
        self.certified += int((found.certified & counted).sum())
        self.right += int(right.sum())
        self.radius += float(found.radius[right].sum())


def main(
    model: str,
    data: str,
    out: Path,
    weights: str | None = None,
    split: str = "test",
    size: str | None = None,
    stride: int = 16,
    limit: int | None = None,
    sigma: float = 0.25,
    n0: int = 10,
    n: int = 200,
    alpha: float = 0.001,
    precision: Literal["float32", "bfloat16"] = "bfloat16",
    threads: int = 1,
    seed: int = 0,
) -> None:
    """Certify images in every way.

    Args:
        model: As ``segradius certify --model``.
        data: As ``segradius certify --data``.
        out: JSON file.
        weights: File of the weights.
        split: Part of the data set.
        size: Height x width.
        stride: Only every stride-th image.
        limit: Only so many.
        sigma: Standard deviation of the noise.
        n0: Noisy copies that name the class of each pixel.
        n: Noisy copies that test it.
        alpha: Error rate promised for each image.
        precision: ``bfloat16`` or ``float32``: that of the network's weights and activations.
        threads: Of torch.
        seed: Seed.
    """
    torch.set_num_threads(threads)
    opened = sr.open_data(data, split=split, size=text.size(size), stride=stride, limit=limit)
    network = sr.load_model(model, weights=weights, dtype=precision)
    sampling, classes = Sampling(Noise(sigma), n0, n), network.num_classes
    void = opened.classes.ignore_index
    sums: dict[str, Sums] = {}
    with network.frozen():
        for place in range(len(opened)):
            sample = opened[place]
            keys = sr.Randomness(seed, (sample.id,))
            votes = vote(network.logits, sample.image, classes, sampling, keys)
            for name, found in _hard(votes, alpha).items():
                sums.setdefault(name, Sums()).add(found, sample.label, void)
            for bound in SOFT_BOUNDS:
                certify = SoftRadii(alpha, bound)
                found = certify(lambda x: network.logits(x).softmax(1), sample.image, classes, sampling, keys)
                sums.setdefault(f"mean confidence, {bound}", Sums()).add(found, sample.label, void)
            print(f"{place + 1} of {len(opened)}", flush=True)
    rows = {name: vars(each) for name, each in sums.items()}
    facts = {"model": model, "data": data.partition(":")[0], "split": split, "size": size, "images": len(opened)}
    options = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha, "precision": precision, "seed": seed}
    out.write_text(json.dumps(facts | options | {"rows": rows}, indent=1) + "\n")
    lines = []
    for name, each in sums.items():
        shares = [f"{100 * part / each.pixels:.1f}" for part in (each.certified, each.right)]
        lines.append((name, *shares, f"{each.radius / max(each.right, 1):.4f}"))
    header = ("certificate", "certified %", "certified and right %", "their mean radius")
    print(Cells(f"{len(opened)} images", header, lines).markdown())


def _hard(votes: Votes, alpha: float) -> dict[str, Certificate]:
    return {
        "votes, SegCertify (Holm, τ = 0.75)": SegCertify(alpha=alpha)(votes),
        "votes, one class": PixelRadii(alpha)(votes),
        "votes, two classes": PixelRadii(alpha, "two")(votes),
    }


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
