r"""What a defence does to the radius of the pixels that are easiest to perturb (Section 6 of the paper).

    python studies/radius_of_the_weakest.py --before plain/last.yaml --after hardened/last.yaml \
        --control longer/last.yaml --data camvid:PATH --split test --size 240x320 --stride 8 --limit 20 --out out.json

The paper recalculates the radius of the 20 % of pixels with the least and finds it 11 % larger. But pixels chosen as
ONE network's weakest are stronger under ANY other network, by regression to the mean. So this also prints the change at
the weakest of the network AFTER, and of each network at its own weakest pixels, which has no such bias. With --control,
a network that was trained on without attack, it prints its change too, and that from it to AFTER.

Radii are in units of σ: ``radius`` is Φ⁻¹(p) of Eq. 8, within [0, 4.61], whatever the class; ``signed`` is the
two-class radius with respect to the label, negative for a wrong pixel. Pixels are chosen image by image among the
labelled ones, then pooled; noise belongs to the image's id and is the same for all networks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import segradius as sr
from segradius.core import text
from segradius.data import Sample, SegmentationData, open_data
from segradius.metrics import Interval, jackknife
from segradius.models import Segmenter, load_model
from segradius.radius import CEILING, normalised_radius, signed_radius, smoothed_probabilities
from segradius.report import Cells

Key = tuple[str, int, int]  # kind of radius, the network that chose the pixels, the network they are measured under
KINDS = ("radius", "signed")
ALL = -1
_TINY = 1e-37  # a probability that is 0 in float32 still has a logarithm


@dataclass(frozen=True)
class Noise:
    """Gaussian noise behind a radius, σ in pixel units."""

    sigma: float
    samples: int
    seed: int


@dataclass(frozen=True)
class Change:
    """Chosen pixels under two networks, images pooled: mean radii, the second minus the first with its 95 % interval.

    ``percent`` is NaN where the first mean may not be positive. ``right`` is the share of the pixels whose label wins,
    ``capped`` of those whose unsigned radius is at its ceiling.
    """

    kind: str
    pixels: str
    networks: tuple[str, str]
    means: tuple[float, float]
    difference: tuple[float, float, float]
    percent: tuple[float, float, float]
    right: tuple[float, float]
    capped: tuple[float, float]


def radii(model: Segmenter, sample: Sample, noise: Noise, void: int) -> Tensor:
    """Radius, signed radius and top probability of the K labelled pixels of an image; (3, K) float64."""
    known, label = sample.label != void, sample.label.masked_fill(sample.label == void, 0)
    keys, images = sr.Randomness(noise.seed, (sample.id,)), sample.image[None].to(model.device)
    found = smoothed_probabilities(model, images, keys, sigma=noise.sigma, samples=noise.samples)
    top = found.amax(1)
    signed = signed_radius(found.clamp_min(_TINY).log(), label[None].to(model.device))
    return torch.stack([normalised_radius(top), signed, top])[:, 0].cpu()[:, known].double()


def sums(found: Sequence[Tensor], share: float) -> dict[Key, Tensor]:
    """Sums of (radius, right, capped, 1) over the weakest ``share`` of an image's pixels, and all, from its `radii`."""
    summed, pixels = {}, found[0].shape[1]
    for place, kind in enumerate(KINDS):
        # Top probabilities order pixels as the radius does, and also those at an end of its range.
        ranks = [each[(2, 1)[place]].argsort(stable=True)[: math.ceil(share * pixels)] for each in found]
        for who, chosen in enumerate([*ranks, torch.arange(pixels)]):
            for network, each in enumerate(found):
                radius, right, capped = each[place, chosen], each[1, chosen] > 0, each[2, chosen] >= CEILING
                parts = torch.stack([radius, right.double(), capped.double(), torch.ones_like(radius)])
                summed[kind, ALL if who == len(found) else who, network] = parts.sum(1)
    return summed


def changes(images: Sequence[Mapping[Key, Tensor]], names: Sequence[str]) -> list[Change]:
    """Every comparison of two networks, from the `sums` of each image."""
    pooled = {key: torch.stack([image[key] for image in images]) for key in images[0]}
    found = []
    pairs = sorted(combinations(range(len(names)), 2), key=lambda pair: -pair[1])
    for kind, (i, j) in product(KINDS, pairs):
        choices = {f"weakest of {names[k]}": (k, k) for k in sorted({0, i, j})}
        for pixels, (who, whose) in (choices | {"weakest of each": (i, j), "all": (ALL, ALL)}).items():
            pair = pooled[kind, who, i], pooled[kind, whose, j]
            found.append(_change(kind, pixels, (names[i], names[j]), pair))
    return found


def _change(kind: str, pixels: str, names: tuple[str, str], pair: tuple[Tensor, Tensor]) -> Change:
    first, second = (each.sum(0) / each[:, -1].sum() for each in pair)
    parts = torch.cat([each[:, [0, -1]] for each in pair], 1)
    least = jackknife(parts, lambda sums: _means(sums)[0], shares=False)
    percent = Interval(math.nan, math.nan, math.nan)
    if not min(least.value, least.low) <= 0:
        percent = jackknife(parts, lambda sums: 100 * _gain(sums) / _means(sums)[0], shares=False)
    difference = jackknife(parts, _gain, shares=False)
    both = [(float(first[k]), float(second[k])) for k in range(3)]
    return Change(kind, pixels, names, both[0], astuple(difference), astuple(percent), both[1], both[2])


def _means(sums: Tensor) -> tuple[Tensor, Tensor]:
    return sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]


def _gain(sums: Tensor) -> Tensor:
    first, second = _means(sums)
    return second - first


def table(found: Sequence[Change]) -> Cells:
    """A line for each comparison."""
    header = ("radius", "pixels", "networks", "mean, σ", "difference, σ", "change %", "right %", "at ceiling %")
    lines = []
    for each in found:
        percent = _told(each.percent, 1)
        shares = [f"{100 * first:.1f} → {100 * second:.1f}" for first, second in (each.right, each.capped)]
        means = "{:.3f} → {:.3f}".format(*each.means)
        difference = _told(each.difference, 3)
        lines.append((each.kind, each.pixels, " → ".join(each.networks), means, difference, percent, *shares))
    return Cells("Mean radius, images pooled [95 % interval over images]; in pixel units times σ", header, lines)


def _told(found: Sequence[float], digits: int) -> str:
    """A change and the ends of its interval, as far as there are such."""
    value, low, high = (f"{each:+.{digits}f}" for each in found)
    return "–" if math.isnan(found[0]) else value if math.isnan(found[1]) else f"{value} [{low}, {high}]"


def tables(path: Path) -> list[Cells]:
    """The table of a file that was written."""
    lines = json.loads(path.read_text(encoding="utf-8"))["changes"]
    names = [field.name for field in fields(Change)]
    return [table([Change(**{name: _known(line[name]) for name in names}) for line in lines])]


def _known(value: Any) -> Any:
    """What `report` wrote as null is NaN: a change in per cent as a whole, or the ends of an interval."""
    if value is None:
        return (math.nan,) * 3
    return [math.nan if each is None else each for each in value] if isinstance(value, list) else value


def measure(models: Sequence[Segmenter], data: SegmentationData, noise: Noise, share: float) -> list[dict[Key, Tensor]]:
    """`sums` of each image that has a labelled pixel."""
    if not 0 < share <= 1:
        raise sr.InputError(f"share {share}; expected a number in (0, 1]")
    for model in models:
        if model.num_classes < len(data.classes):
            raise sr.InputError(f"{model.name} predicts {model.num_classes} classes; the data has {len(data.classes)}")
    void, found = data.classes.ignore_index, []
    for sample in (data[place] for place in range(len(data))):
        if (sample.label != void).any():
            each = [radii(model, sample, noise, void) for model in models]
            found.append(sums(each, share))
    if not found:
        raise sr.InputError(f"{data.name}: none of {len(data)} images has a labelled pixel")
    return found


def report(found: Sequence[Change], about: Mapping[str, object], sigma: float) -> str:
    """JSON of the comparisons, means in both units; NaN as null."""
    lines = [asdict(each) | {"means_in_pixel_units": [sigma * mean for mean in each.means]} for each in found]
    for line in lines:
        for name in ("difference", "percent"):
            line[name] = None if math.isnan(line[name][0]) else [None if math.isnan(end) else end for end in line[name]]
    return json.dumps({**about, "changes": lines}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("before", "after", "control"):
        parser.add_argument(f"--{name}", required=name != "control", help="model, as for segradius attack")
    parser.add_argument("--data", required=True, help="images and labels, as for segradius attack")
    texts = {"split": (str, None), "size": (str, None), "stride": (int, 1), "limit": (int, None)}
    numbers = {"share": (float, 0.2), "samples": (int, 8), "sigma": (float, 0.001), "seed": (int, 0)}
    for name, (kind, default) in (texts | numbers).items():
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--out", type=Path, help="JSON file of the same")
    given = parser.parse_args(arguments)
    names = [name for name in ("before", "control", "after") if getattr(given, name)]
    noise = Noise(given.sigma, given.samples, given.seed)
    try:
        part = {name: getattr(given, name) for name in ("split", "stride", "limit")}
        data = open_data(given.data, size=text.size(given.size), **part)
        models = [load_model(getattr(given, name)) for name in names]
        images = measure(models, data, noise, given.share)
    except sr.InputError as error:
        parser.error(str(error))
    found = changes(images, names)
    print(f"{len(images)} images of {data.name}, the weakest {given.share:.0%} of each, σ = {given.sigma:g}\n")
    print(table(found).markdown())
    if given.out:
        about = {name: value for name, value in vars(given).items() if name != "out"} | {"images": len(images)}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(report(found, about, given.sigma))
    return 0


if __name__ == "__main__":
    sys.exit(main())
