"""Finished runs side by side: the table, and the picture of accuracy without attack against accuracy under it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle, product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from segradius.core import escapes
from segradius.core.errors import InputError
from segradius.core.escapes import from_cell
from segradius.core.seal import read_json, seal
from segradius.core.storage import as_csv
from segradius.core.sums import checked
from segradius.evaluation.certified_by import certified_by, condition, options_of, refutations
from segradius.metrics.intervals import Interval, paired_difference
from segradius.report.cells import Cells, percent
from segradius.report.figures import OWN, Words, words
from segradius.report.panels import empty, png

Plan = tuple[str, str, float]
"""Attack, norm and ε; ("clean", "", 0) for the unattacked images."""

CLEAN: Plan = ("clean", "", 0.0)
CERTIFIED = {"miou": "MIoU %", "abstained": "abstained %", "boundary": "boundary %", "interior": "interior %"}
CERTIFIED_HEADER = ("network", "under", "n", "images", "answer")

#: What is asked with yes or no, where all runs have it.
ASKED = {"dice": "Dice %", "iou": "IoU %"}


@dataclass(frozen=True)
class Network:
    """What `segradius attack` found out about one network.

    Args:
        label: Its name in tables.
        rows: Rows of results.json; ``"worst"`` is of all attacks at a norm and ε, be it only one.
        setting: What must be the same for networks to be compared.
        images: What each attack left of each image, `segradius.evaluation.share_left`; NaN where it is invalid.
    """

    label: str
    rows: Mapping[Plan, Mapping[str, Any]]
    setting: Mapping[str, Any]
    images: Mapping[Plan, Mapping[str, float]]

    @property
    def measure(self) -> str:
        """The figure of results.json by which attacks are ranked."""
        return "pixacc" if self.setting["target"] is None else "success"

    @property
    def measured(self) -> str:
        """What that is, for people."""
        return "pixels where aimed" if self.measure == "success" else self.words.pixacc

    @property
    def words(self) -> Words:
        """What pixels that agree with their labels are called."""
        return words(predicted=self.predicted, structures="structures" in self.rows[CLEAN])

    @property
    def predicted(self) -> bool:
        """Whether the labels are the network's own predictions."""
        return bool(self.setting["data.labels"] == "predicted")

    @property
    def asked(self) -> str | None:
        """What is asked of each pixel with yes or no; None where nothing is, and in runs of earlier versions."""
        found: str | None = self.rows[CLEAN].get("foreground")
        return found

    @property
    def threats(self) -> list[tuple[str, float]]:
        """Norms, each with its budgets ascending."""
        return sorted({plan[1:] for plan in self.rows if plan != CLEAN})

    def attacks(self, norm: str, eps: float) -> list[str]:
        """Attacks at a budget, ``"worst"`` last."""
        return [name for name, *threat in self.rows if threat == [norm, eps]]

    def each_image(self, name: str, norm: str, eps: float) -> list[float]:
        """What is left of every image, NaN where it is invalid; of ``"worst"`` by whichever attack did worst."""
        names = self.attacks(norm, eps)[:-1] if name == "worst" else [name]
        every = [[self.images[each, norm, eps].get(image, math.nan) for image in self.images[CLEAN]] for each in names]
        return [math.nan if any(map(math.isnan, each)) else min(each) for each in zip(*every, strict=True)]


def read_report(folder: Path) -> dict[str, Any]:
    """The results.json of a finished run.

    Raises:
        InputError: There is none, or it is of neither an attack nor a certification.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise InputError(f"{folder} has no results.json; expected the --out folder of a finished run")
    report: dict[str, Any] = read_json(file, checked(folder, file.name))
    ran = report.get("experiment", {})
    if "attacks" not in ran and not certified_by(ran):
        raise InputError(f"{file} is no report of segradius attack or certify")
    return report


def warnings_of(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What was probably a mistake in the runs, by their labels; runs of earlier versions say nothing of it."""
    return [
        f"Warning ({each['name']}) of {label}: {each['text']}: {each['advice']}."
        for label, report in reports
        for each in report.get("warnings", ())
    ]


def read_network(folder: Path, label: str) -> Network:
    """The results in a folder of ``segradius attack``."""
    report, rows = read_report(folder), {}
    for row in report["rows"]:
        name = "worst" if row["name"].startswith("worst of ") else escapes.visible(row["name"])
        rows[name, row["norm"] or "", row["eps"] or 0.0] = row
    for (_, norm, eps), row in list(rows.items())[1:]:
        rows.setdefault(("worst", norm, eps), row)
    setting = _setting(report["experiment"])
    images: dict[Plan, dict[str, float]] = {}
    for line in csv.DictReader(io.StringIO(checked(folder, "per_image.csv").decode())):
        accuracies = images.setdefault((from_cell(line["attack"]), line["norm"], float(line["eps"] or 0)), {})
        left = float(line["pixacc"]) if setting["target"] is None else _not_aimed(line)
        accuracies[from_cell(line["image"])] = left if line["valid"] == "1" else math.nan
        setting[f"labelled pixels of image {line['image']}"] = int(line["pixels"])
    return Network(label, rows, setting, images)


def _not_aimed(line: Mapping[str, str]) -> float:
    eligible = int(line["eligible"])
    return 1 - int(line["hit"]) / eligible if eligible else math.nan


def network_tables(networks: Sequence[Network]) -> list[Cells]:
    """Networks under the same attacks, and their paired differences where there are two.

    Raises:
        InputError: They did not have the same images, attacks, options, budgets, aim and seed, or share a label.
    """
    labels = [network.label for network in networks]
    if len(set(labels)) < len(labels):
        raise InputError(f"labels are {', '.join(labels)}; expected no two alike")
    must_be_alike(networks)
    own = f": {OWN.whole}" if networks[0].predicted and networks[0].measure == "pixacc" else ""
    measures = {networks[0].measure: networks[0].measured + own}
    asked = networks[0].asked
    if asked and all(network.asked == asked for network in networks):
        measures = {"dice": f"Dice: {asked}", "iou": f"IoU: {asked}"} | measures
    tables = [metrics_table(networks, measure, told) for measure, told in measures.items()]
    return [*tables, *([differences_table(networks)] if len(networks) > 1 else [])]


def must_be_alike(networks: Sequence[Network]) -> None:
    """Raise `InputError` unless all networks had the same images, attacks, options, budgets, aim and seed."""
    first, *others = networks
    for other in others:
        for name in [*first.setting, *other.setting]:
            ours, theirs = (each.setting.get(name, "absent") for each in (first, other))
            if ours != theirs:
                what = f"{name} is {ours} for {first.label} and {theirs} for {other.label}"
                raise InputError(f"not comparable: {what}; expected the same images, attacks and budgets")


def metrics_table(networks: Sequence[Network], measure: str, told: str) -> Cells:
    """A row for each norm, ε and network under attack, of one figure of results.json, which is ``told`` to people."""
    threats = networks[0].threats
    columns = list(dict.fromkeys(name for threat in threats for name in networks[0].attacks(*threat)))
    header = ("network", "norm", "ε", "clean", *columns, "images", "passes f+b")
    lines = []
    for (norm, eps), network in product(threats or [CLEAN[1:]], networks):
        found = [network.rows.get(plan) for plan in (CLEAN, *((name, norm, eps) for name in columns))]
        rows = [row for row in found if row]
        passes = ", ".join(f"{row['forward']:g}+{row['backward']:g}" for row in rows[1:-1])
        shares = [share(row and row[measure]) for row in found]
        lines.append(
            [network.label, norm, f"{eps:g}" if norm else "", *shares, str(min(row["images"] for row in rows)), passes]
        )
    title = f"{told}, per cent [95 % interval over images]; passes an image, attack by attack"
    return Cells(title, header, lines)


def differences_table(networks: Sequence[Network]) -> Cells:
    """A row for each two networks, unattacked and at each norm and ε."""
    lines = []
    plans = [CLEAN, *(("worst", *threat) for threat in networks[0].threats)]
    for plan, (other, network) in product(plans, combinations(networks, 2)):
        found = paired_difference(network.each_image(*plan), other.each_image(*plan))
        threat = [plan[0], plan[1], f"{plan[2]:g}" if plan[1] else ""]
        points = percent(found.mean, found, sign="+")
        lines.append([f"{network.label} − {other.label}", *threat, points, f"{found.p_value:.2g}"])
    usual = networks[0].measure == "pixacc"
    left, short = (
        (networks[0].words.whole, networks[0].words.pixacc) if usual else ("pixels not where aimed", "not aimed")
    )
    title = f"Paired over images: {left} of one network minus that of the other; above 0 the first is better"
    return Cells(title, ("network against other", "attack", "norm", "ε", f"{short} difference, points", "p"), lines)


def certified_runs_table(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Cells:
    """A row for each answer of each certification, from labels and reports."""
    lines, asked = [], all("dice" in report["rows"][0] for _, report in runs)
    sets = ["structures" in report for _, report in runs]
    said = {
        words(predicted=_labels(report["experiment"]) == "predicted", structures=of_sets).pixacc
        for (_, report), of_sets in zip(runs, sets, strict=True)
    }
    columns = (ASKED if asked else {}) | {"pixacc": f"{' or '.join(sorted(said))} %"} | CERTIFIED
    if any(sets):  # most sets are rare, and their MIoU says little
        del columns["miou"]
    for label, report in runs:
        it = report["experiment"].get("smoothing", {"n": "", "early_stop": None})
        fixed = it["early_stop"] is None and it.get("minutes") is None
        drawn = f"{it['n']}" if fixed else f"{report['copies'] - it['n0']:.0f} of {it['n']}"
        about = (label, condition(report["experiment"]), drawn, str(report["images"]))
        doubt = ", REFUTED" * bool(refutations(report))
        for row in report["rows"]:
            told = row["name"] + (doubt if row.get("curve") else "")
            lines.append((*about, told, *(share(row.get(name), "") for name in columns)))
        for row in report.get("whole", {}).get("rows", ()):
            known = {name: f"{100 * row[name]:.1f}" for name in ("pixacc", "miou")}
            told = f"whole images, ε = {row['eps']:g}, at least{doubt}"
            lines.append((*about, told, *(known.get(name, "") for name in columns)))
    return Cells("Per cent of labelled pixels [95 % over images]", (*CERTIFIED_HEADER, *columns.values()), lines)


def facts(label: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was and its rows, without a path or an address."""
    ran = report["experiment"]
    about: dict[str, Any] = {"network": label}
    if certified_by(ran):
        about |= {**options_of(ran), "images": report["images"], "copies": report["copies"]}
    return about | {"seed": ran["seed"], "rows": report["rows"]}


def digest_of_runs(reports: Sequence[Mapping[str, Any]]) -> str:
    """Of what runs found, from their reports in order; those of an earlier version, without digests, by their rows."""
    timeless = ([{k: v for k, v in row.items() if k != "seconds"} for row in report["rows"]] for report in reports)
    each = (report.get("digest") or rows for report, rows in zip(reports, timeless, strict=True))
    return seal(*(json.dumps(found, sort_keys=True) for found in each))


def runs_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """A line for each row of each run, from their `facts`: shares in [0, 1], and the ends of their intervals."""
    lines = []
    for run in runs:
        for row in run["rows"]:
            line: dict[str, Any] = {}
            for name, value in (run | row).items():
                if isinstance(value, Mapping) and "low" in value:
                    line |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
                elif value is not None and not isinstance(value, Mapping | list):
                    line[name] = value
            lines.append(line)
    columns = dict.fromkeys(name for line in lines for name in line)
    return as_csv(columns, ([line.get(name) for name in columns] for line in lines))


def share(found: Mapping[str, float | None] | float | None, absent: str = "–") -> str:
    """A share of results.json in per cent with its interval; one of an earlier version may have none."""
    if isinstance(found, float):
        return percent(found, Interval(found, math.nan, math.nan))
    if found is None or found["value"] is None:
        return absent
    ends = Interval(**{name: math.nan if end is None else end for name, end in found.items()})
    return percent(ends.value, ends)


def _labels(ran: Mapping[str, Any]) -> str:
    """``given`` or ``predicted``; a run says it only where they were predicted."""
    found: str = ran["data"].get("labels") or "given"
    return found


def _setting(ran: Mapping[str, Any]) -> dict[str, Any]:
    setting = {name: ran[name] for name in ("seed", "target")}
    setting |= {f"data.{name}": ran["data"][name] for name in ("size", "protocol")}
    setting["data.labels"], setting["data.void"] = _labels(ran), ran["data"].get("void") or "ignore"
    for each in ran["attacks"]:
        name = f"{each.get('label') or each['name']} ({each['norm']}, ε = {each['eps']:g})"
        setting |= {f"{option} of {name}": value for option, value in each["options"].items()}
    return setting


SIGNS = {"l1": "l1", "l2": "l2", "linf": "l∞"}
MAIN = {"l1": 750.0, "l2": 1.5, "linf": 0.006}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
STYLES = tuple(zip(COLOURS, "os^DvPX", strict=True))
LINES: dict[str, tuple[str, Any]] = {"cr_pgd": ("CR-PGD", "-"), "pgd": ("PGD", "--")}
OTHERS: dict[str, tuple[str, Any]] = {"worst": ("worst attack", "-")}


def draw_trade_off(networks: Sequence[Network]) -> bytes:
    """A PNG with a row for each norm: PixAcc against ε as in Figure 11, and clean against worst PixAcc at one ε.

    Args:
        networks: That had the same attacks; colours repeat after the seventh.
    """
    norms = list(dict.fromkeys(norm for norm, _ in networks[0].threats))
    figure = empty(10, 3.9 * len(norms) + 0.7)
    axes = figure.subplots(len(norms), 2, squeeze=False)
    for row, norm in zip(axes, norms, strict=True):
        budgets = [eps for each, eps in networks[0].threats if each == norm]
        main = MAIN[norm] if MAIN[norm] in budgets else budgets[len(budgets) // 2]
        _curves(row[0], networks, norm, budgets)
        _trade_off(row[1], networks, norm, main)
    handles = [Line2D([], [], color=c, marker=m, label=escapes.figure(n.label)) for n, (c, m) in _styled(networks)]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=name) for name, style in _lines(networks).values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.draw_without_rendering()
    for axis in axes[:, 1]:
        name_points(axis, [network.label for network in networks])
    return png(figure, dpi=150)


def name_points(axis: Axes, labels: Sequence[str]) -> None:
    """Each label beside its point, where it hides least of points, intervals and earlier labels."""
    drawn: list[Any] = list(axis.containers)
    points = [bar.lines[0].get_xydata()[0] for bar in drawn]
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in axis.transData.transform(points)]
    bars = [ends for bar in drawn for lines in bar.lines[2] for ends in lines.get_segments()]
    taken += [Bbox.from_extents(*axis.transData.transform(ends).ravel()).padded(2) for ends in bars]
    for point, label, colour in zip(points, labels, cycle(COLOURS), strict=False):
        name = escapes.figure(label)
        text = axis.annotate(name, point, (0, 0), textcoords="offset points", color=colour, in_layout=False)

        def place(spot: tuple[int, int, int], text: Annotation = text) -> float:
            reach, right, up = spot
            text.set(ha="left" if right else "right", va="bottom" if up else "top")
            text.xyann = (reach if right else -reach, reach if up else -reach)
            box = text.get_window_extent()
            outside = _area(box) - _area(Bbox.intersection(box, axis.bbox))
            return sum(_area(Bbox.intersection(box, other)) for other in taken) + 10 * outside + reach

        place(min(product((6, 14, 24), (1, 0), (1, 0)), key=place))
        taken.append(text.get_window_extent())


def _styled(networks: Sequence[Network]) -> zip[tuple[Network, tuple[str, str]]]:
    return zip(networks, cycle(STYLES), strict=False)


def _lines(networks: Sequence[Network]) -> dict[str, tuple[str, Any]]:
    """Attacks with a line in the left panels: PGD and CR-PGD where they ran, else the worst of all."""
    ran = {name for name, *_ in networks[0].rows}
    return {name: line for name, line in LINES.items() if name in ran} or OTHERS


def _curves(axis: Axes, networks: Sequence[Network], norm: str, budgets: Sequence[float]) -> None:
    for network, (colour, marker) in _styled(networks):
        for attack, (_, line) in _lines(networks).items():
            plans = [CLEAN, *((attack, norm, eps) for eps in budgets if (attack, norm, eps) in network.rows)]
            heights = [100 * network.rows[plan][network.measure]["value"] for plan in plans]
            axis.plot([plan[2] for plan in plans], heights, line, color=colour, marker=marker, markersize=5)
    axis.set(xlabel=f"ε, {SIGNS[norm]} (0 is clean)", ylabel=f"{networks[0].measured} (%)")
    axis.set_title(f"{networks[0].measured} against budget")
    axis.set_xticks([0, *budgets], [f"{eps:g}" for eps in (0, *budgets)])
    axis.grid(alpha=0.3)


def _trade_off(axis: Axes, networks: Sequence[Network], norm: str, eps: float) -> None:
    for network, (colour, marker) in _styled(networks):
        clean, worst = network.rows[CLEAN]["pixacc"], network.rows["worst", norm, eps][network.measure]
        ends = [
            [[0.0 if f[end] is None else 100 * abs(f[end] - f["value"])] for end in ("low", "high")]
            for f in (clean, worst)
        ]
        x, y = 100 * clean["value"], 100 * worst["value"]
        axis.errorbar(x, y, ends[1], ends[0], color=colour, fmt=marker, markersize=8, elinewidth=0.8, alpha=0.9)
    title = f"Trade-off, {SIGNS[norm]} ε = {eps:g}"
    axis.set(
        xlabel=f"clean {networks[0].words.pixacc} (%)",
        ylabel=f"{networks[0].measured} (%) under the worst attack",
        title=title,
    )
    axis.grid(alpha=0.3)
    axis.margins(0.12)


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box else 0.0
