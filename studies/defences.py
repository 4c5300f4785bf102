"""Tables and a figure of several networks under the same attacks: the paper's Figure 11, and what a defence costs.

    segradius attack --model plain.yaml --data camvid:PATH --attack pgd,cr_pgd --eps l2=0.75,1.5,3 --out plain
    segradius attack --model hardened.yaml --data camvid:PATH --attack pgd,cr_pgd --eps l2=0.75,1.5,3 --out hardened
    python studies/defences.py plain hardened --labels undefended,FastADT --out defences

Reads results.json and per_image.csv of each folder, refuses to compare unlike runs, and writes table.md, defences.csv
and defences.png. "Worst" takes for each image whichever of all the attacks did worst.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from segradius.core.errors import InputError
from segradius.core.storage import write_atomically
from segradius.metrics.statistics import paired_difference
from segradius.report.cells import Cells

Plan = tuple[str, str, float]  # attack, norm, ε; ("clean", "", 0) for the unattacked images
CLEAN: Plan = ("clean", "", 0.0)
SIGNS = {"l1": "l1", "l2": "l2", "linf": "l∞"}
MAIN = {"l1": 750.0, "l2": 1.5, "linf": 0.006}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
STYLES = tuple(zip(COLOURS, "os^DvPX", strict=True))
LINES = {"cr_pgd": ("CR-PGD", "-"), "pgd": ("PGD", "--")}


@dataclass(frozen=True)
class Network:
    """What `segradius attack` found out about one network: its rows, what was run, and accuracies by image."""

    label: str
    rows: Mapping[Plan, Mapping[str, Any]]
    setting: Mapping[str, Any]
    images: Mapping[Plan, Mapping[str, float]]

    @property
    def threats(self) -> list[tuple[str, float]]:
        """Norms, each with its budgets ascending."""
        return sorted({plan[1:] for plan in self.rows if plan != CLEAN})

    def attacks(self, norm: str, eps: float) -> list[str]:
        """Attacks at a budget, ``"worst"`` last."""
        return [name for name, *threat in self.rows if threat == [norm, eps]]

    def each_image(self, name: str, norm: str, eps: float) -> list[float]:
        """Accuracy of every image, NaN where it is invalid."""
        names = self.attacks(norm, eps)[:-1] if name == "worst" else [name]
        every = [[self.images[each, norm, eps].get(image, math.nan) for image in self.images[CLEAN]] for each in names]
        return [math.nan if any(map(math.isnan, each)) else min(each) for each in zip(*every, strict=True)]


def read(folder: Path, label: str) -> Network:
    """The results in a folder of `segradius attack`; its only attack is also the worst one."""
    for name in ("results.json", "per_image.csv"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; expected an --out folder of a finished segradius attack")
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    ran, rows = report["experiment"], {}
    for row in report["rows"]:
        name = "worst" if row["name"].startswith("worst of ") else row["name"]
        rows[name, row["norm"] or "", row["eps"] or 0.0] = row
    for (_, *threat), row in list(rows.items())[1:]:
        rows.setdefault(("worst", *threat), row)
    setting = {name: ran[name] for name in ("seed", "target")}
    setting |= {f"data.{name}": ran["data"][name] for name in ("size", "protocol")}
    for each in ran["attacks"]:
        name = f"{each['name']} ({each['norm']}, ε = {each['eps']:g})"
        setting |= {f"{option} of {name}": value for option, value in each["options"].items()}
    images: dict[Plan, dict[str, float]] = {}
    for line in csv.DictReader((folder / "per_image.csv").read_text(encoding="utf-8").splitlines()):
        accuracies = images.setdefault((line["attack"], line["norm"], float(line["eps"] or 0)), {})
        accuracies[line["image"]] = float(line["pixacc"]) if line["valid"] == "1" else math.nan
        setting[f"labelled pixels of image {line['image']}"] = int(line["pixels"])
    return Network(label, rows, setting, images)


def check(networks: Sequence[Network]) -> None:
    """Raise `InputError` unless all networks had the same images, attacks, options, budgets, target and seed."""
    first, *others = networks
    for other in others:
        for name in [*first.setting, *other.setting]:
            ours, theirs = (each.setting.get(name, "absent") for each in (first, other))
            if ours != theirs:
                what = f"{name} is {ours} for {first.label} and {theirs} for {other.label}"
                raise InputError(f"not comparable: {what}; expected the same images, attacks and budgets")


def metrics_table(networks: Sequence[Network]) -> Cells:
    """A row for each norm, ε and network."""
    threats = networks[0].threats
    columns = list(dict.fromkeys(name for threat in threats for name in networks[0].attacks(*threat)))
    header = ("network", "norm", "ε", "clean", *columns, "images", "passes f+b")
    lines = []
    for (norm, eps), network in product(threats, networks):
        found = [network.rows.get(plan) for plan in (CLEAN, *((name, norm, eps) for name in columns))]
        rows = [row for row in found if row]
        passes = ", ".join(f"{row['forward']:g}+{row['backward']:g}" for row in rows[1:-1])
        count = str(min(row["images"] for row in rows))
        lines.append([network.label, norm, f"{eps:g}", *map(_percent, found), count, passes])
    return Cells("PixAcc, per cent [95 % interval over images]; passes an image, attack by attack", header, lines)


def differences_table(networks: Sequence[Network]) -> Cells:
    """A row for each two networks, unattacked and at each norm and ε."""
    lines = []
    plans = [CLEAN, *(("worst", *threat) for threat in networks[0].threats)]
    for plan, (other, network) in product(plans, combinations(networks, 2)):
        found = paired_difference(network.each_image(*plan), other.each_image(*plan))
        points = f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        threat = [plan[0], plan[1], f"{plan[2]:g}" if plan[1] else ""]
        lines.append([f"{network.label} − {other.label}", *threat, points, f"{found.p_value:.2g}"])
    title = "Paired over images: pixel accuracy of one network minus that of the other; above 0 the first is better"
    return Cells(title, ("network against other", "attack", "norm", "ε", "PixAcc difference, points", "p"), lines)


def as_csv(networks: Sequence[Network]) -> str:
    """One line for each network and attack, PixAcc in [0, 1]."""
    text = io.StringIO()
    columns = ("network", "attack", "norm", "eps", "images", "invalid", "pixacc", "low", "high", "forward", "backward")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for network in networks:
        for (name, *_), row in network.rows.items():
            found = {"network": network.label, "attack": name, "pixacc": row["pixacc"]["value"]}
            writer.writerow({**row, **row["pixacc"], **found})
    return text.getvalue()


def draw(networks: Sequence[Network]) -> bytes:
    """A PNG with a row for each norm: PixAcc against ε as in Figure 11, and clean against worst PixAcc at one ε."""
    norms = list(dict.fromkeys(norm for norm, _ in networks[0].threats))
    figure = Figure(figsize=(10, 3.9 * len(norms) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(norms), 2, squeeze=False)
    for row, norm in zip(axes, norms, strict=True):
        budgets = [eps for each, eps in networks[0].threats if each == norm]
        main = MAIN[norm] if MAIN[norm] in budgets else budgets[len(budgets) // 2]
        _curves(row[0], networks, norm, budgets)
        _trade_off(row[1], networks, norm, main)
    handles = [Line2D([], [], color=c, marker=m, label=n.label) for n, (c, m) in zip(networks, STYLES, strict=False)]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=name) for name, style in LINES.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.draw_without_rendering()
    for axis in axes[:, 1]:
        _name_points(axis, [network.label for network in networks])
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _curves(axis: Axes, networks: Sequence[Network], norm: str, budgets: Sequence[float]) -> None:
    for network, (colour, marker) in zip(networks, STYLES, strict=False):
        for attack, (_, line) in LINES.items():
            plans = [CLEAN, *((attack, norm, eps) for eps in budgets if (attack, norm, eps) in network.rows)]
            heights = [100 * network.rows[plan]["pixacc"]["value"] for plan in plans]
            axis.plot([plan[2] for plan in plans], heights, line, color=colour, marker=marker, markersize=5)
    axis.set(xlabel=f"ε, {SIGNS[norm]} (0 is clean)", ylabel="PixAcc (%)", title="Accuracy against budget")
    axis.set_xticks([0, *budgets], [f"{eps:g}" for eps in (0, *budgets)])
    axis.grid(alpha=0.3)


def _trade_off(axis: Axes, networks: Sequence[Network], norm: str, eps: float) -> None:
    for network, (colour, marker) in zip(networks, STYLES, strict=False):
        clean, worst = (network.rows[plan]["pixacc"] for plan in (CLEAN, ("worst", norm, eps)))
        ends = [[[100 * abs(f[end] - f["value"])] for end in ("low", "high")] for f in (clean, worst)]
        x, y = 100 * clean["value"], 100 * worst["value"]
        axis.errorbar(x, y, ends[1], ends[0], color=colour, fmt=marker, markersize=8, elinewidth=0.8, alpha=0.9)
    title = f"Trade-off, {SIGNS[norm]} ε = {eps:g}"
    axis.set(xlabel="clean PixAcc (%)", ylabel="PixAcc (%) under the worst attack", title=title)
    axis.grid(alpha=0.3)
    axis.margins(0.12)


def _name_points(axis: Axes, labels: Sequence[str]) -> None:
    """Each label beside its point, where it hides least of points, intervals and earlier labels."""
    points = [bar.lines[0].get_xydata()[0] for bar in axis.containers]
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in axis.transData.transform(points)]
    bars = [ends for bar in axis.containers for lines in bar.lines[2] for ends in lines.get_segments()]
    taken += [Bbox.from_extents(*axis.transData.transform(ends).ravel()).padded(2) for ends in bars]
    for point, label, colour in zip(points, labels, COLOURS, strict=False):
        text = axis.annotate(label, point, (0, 0), textcoords="offset points", color=colour, in_layout=False)

        def place(spot: tuple[int, int, int], text: Annotation = text) -> float:
            reach, right, up = spot
            text.set(ha="left" if right else "right", va="bottom" if up else "top")
            text.xyann = (reach if right else -reach, reach if up else -reach)
            box = text.get_window_extent()
            outside = _area(box) - _area(Bbox.intersection(box, axis.bbox))
            return sum(_area(Bbox.intersection(box, other)) for other in taken) + 10 * outside + reach

        place(min(product((6, 14, 24), (1, 0), (1, 0)), key=place))
        taken.append(text.get_window_extent())


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box else 0.0


def _percent(row: Mapping[str, Any] | None) -> str:
    if row is None or row["pixacc"]["value"] is None:
        return "–"
    return "{value:.1f} [{low:.1f}, {high:.1f}]".format(**{name: 100 * end for name, end in row["pixacc"].items()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, check, write; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="--out folders of segradius attack")
    parser.add_argument("--labels", help="names of the networks, commas between them; by default the folders'")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    given = parser.parse_args(arguments)
    labels = given.labels.split(",") if given.labels else [folder.name for folder in given.folders]
    if len(labels) != len(given.folders) or len(labels) > len(STYLES):
        parser.error(f"{len(labels)} labels, {len(given.folders)} folders; expected as many, at most {len(STYLES)}")
    try:
        networks = [read(folder, label) for folder, label in zip(given.folders, labels, strict=True)]
        check(networks)
    except InputError as error:
        parser.error(str(error))
    markdown = "\n\n".join(table(networks).markdown() for table in (metrics_table, differences_table)) + "\n"
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "table.md", markdown)
    write_atomically(given.out / "defences.csv", as_csv(networks))
    write_atomically(given.out / "defences.png", draw(networks))
    print(markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
