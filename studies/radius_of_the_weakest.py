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
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import segradius as sr
from segradius.core import text
from segradius.data import open_data
from segradius.models import load_model
from segradius.paper.computed import Change, Noise, changes, summed
from segradius.report import Cells


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
        images = summed(models, data, noise, given.share)
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
