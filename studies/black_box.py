"""Black-box attacks side by side on the same frames: the search that defaults come from, and the table.

    python studies/tables.py run --page queries --given camvid=PATH,networks=FOLDER --only tuning
    python studies/black_box.py --plan studies/plans/black_box_table.yaml --models a=a.yaml --data camvid:PATH --out new

A plan has groups of lines: attacks with their options, on so many evenly spaced frames of a split, under threats, for
budgets of queries. An attack whose moves follow its budget is run once for each (``each: true``); any other once for
the largest, and read where it has spent the smaller ones. A budget has a query for the verdict in it: where every
point that was asked about may be returned that query tells nothing new, and is counted all the same. An option may be
one value, or one for each norm.

Every cell, a network under a threat with a line, is appended to rows.csv as soon as it is there, and is not made
again. A row of it is an attack with a budget: pixel accuracy before and after, of each frame in order.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml
from jsonargparse import auto_cli
from torch import Tensor

import segradius as sr
from segradius.attacks import BLACK_BOX
from segradius.metrics import paired_difference
from segradius.report import Cells

VOID = 255
HEADER = ("group", "network", "norm", "eps", "line", "budget", "clean", "pixacc")


@dataclass(frozen=True)
class Row:
    """A line on one network under one threat after a budget of queries; accuracies of the frames in order."""

    group: str
    network: str
    norm: str
    eps: str
    line: str
    budget: int
    clean: tuple[float, ...]
    pixacc: tuple[float, ...]

    @property
    def words(self) -> list[str]:
        """As a line of the file."""
        numbers = (";".join(f"{100 * value:.2f}" for value in each) for each in (self.clean, self.pixacc))
        return [self.group, self.network, self.norm, self.eps, self.line, str(self.budget), *numbers]

    @staticmethod
    def read(words: Sequence[str]) -> Row:
        """From a line of the file."""
        clean, pixacc = (tuple(float(value) / 100 for value in each.split(";")) for each in words[6:])
        return Row(*words[:5], int(words[5]), clean, pixacc)


@dataclass(frozen=True)
class Job:
    """A line of a group, on one network, under one threat."""

    group: str
    network: str
    norm: str
    eps: str
    line: str
    attack: str
    options: Mapping[str, Any]
    budgets: tuple[int, ...]
    each: bool
    frames: int

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """Where its rows stand."""
        return self.group, self.network, self.norm, self.eps, self.line


def jobs(plan: Mapping[str, Any]) -> Iterator[Job]:
    """All of a plan: group after group, a line on all networks under all threats before the next line."""
    for name, group in plan["groups"].items():
        threats = [(norm, str(eps)) for norm, each in group["threats"].items() for eps in each]
        for line, given in group["lines"].items():
            options = dict(given)
            attack, each = options.pop("attack"), options.pop("each", False)
            for network, (norm, eps) in itertools.product(group["networks"], threats):
                if norm in BLACK_BOX.facts(attack)["norms"]:
                    own = {k: v[norm] if isinstance(v, Mapping) else v for k, v in options.items()}
                    own = {k: v for k, v in own.items() if v is not None}
                    budgets = tuple(group["budgets"])
                    yield Job(name, network, norm, eps, line, attack, own, budgets, each, group["frames"])


def measured(job: Job, model: Any, images: Tensor, labels: Tensor, ids: Sequence[str]) -> Iterator[Row]:
    """A row for each budget."""
    counted = labels != VOID
    right = ((model.scores(images).argmax(1) == labels) & counted).flatten(1).sum(1)
    clean = tuple((right / counted.flatten(1).sum(1).clamp_min(1)).tolist())
    for budgets in [(budget,) for budget in job.budgets] if job.each else [job.budgets]:
        told = {"queries": budgets[-1], "marks": budgets[:-1]}
        attack = sr.make_attack(job.attack, norm=job.norm, eps=job.eps, **told, **job.options)
        trace = attack(model, images, labels, ids=ids).trace
        assert trace is not None
        for budget in budgets:
            spent = int((trace.queries <= budget).nonzero()[-1])
            yield Row(*job.place, budget, clean, tuple(trace.best[spent].tolist()))


def main(
    plan: Path, models: str, data: str, out: Path, split: str = "val", size: str = "96x128", only: str = ""
) -> None:
    """Run what a plan lists and the file of results does not have yet; print the tables.

    Args:
        plan: A file as those in studies/plans/black_box_*.yaml.
        models: Networks by name, as pspnet-0=FILE,hrnet_ocr-0=FILE.
        data: Data set, as camvid:PATH.
        out: Folder of rows.csv.
        split: Of the data.
        size: Height and width that frames are brought to.
        only: Names of groups, commas between them; all by default.
    """
    files = dict(pair.split("=", 1) for pair in models.split(","))
    listed = list(jobs(yaml.safe_load(plan.read_text(encoding="utf-8"))))
    height, _, width = size.partition("x")
    frames = sr.open_data(data, split=split, size=(int(height), int(width)))
    path = out / "rows.csv"
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(",".join(HEADER) + "\n", encoding="utf-8")
    there = {(row.group, row.network, row.norm, row.eps, row.line) for row in read(path)}
    opened: dict[str, Any] = {}
    for job in listed:
        if job.place in there or (only and job.group not in only.split(",")):
            continue
        chosen = [frames[k] for k in range(0, len(frames), len(frames) // job.frames)][: job.frames]
        images, labels = (torch.stack([getattr(each, part) for each in chosen]) for part in ("image", "label"))
        model = opened.setdefault(job.network, None) or sr.load_model(files[job.network])
        opened[job.network] = model
        ids = [str(k) for k in range(job.frames)]
        rows = [row.words for row in measured(job, model, images, labels, ids)]
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        print(*job.place, *(f"{row[5]}: {mean(map(float, row[7].split(';'))):.1f}" for row in rows), flush=True)
    print(*(each.markdown() for each in tables(path)), sep="\n\n")


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Row.read(words) for words in list(csv.reader(file))[1:]]


def tables(path: Path, against: str = "") -> list[Cells]:
    """A table for each group: lines down; threats and budgets across, means over all frames of all networks.

    Args:
        path: A file of rows.
        against: A line; the others are then told as differences from it, with 95 % intervals over frames.
    """
    rows = read(path)
    groups = {name: [row for row in rows if row.group == name] for name in dict.fromkeys(row.group for row in rows)}
    return [_table(name, found, against) for name, found in groups.items()]


def _table(group: str, rows: Sequence[Row], against: str) -> Cells:
    across = list(dict.fromkeys((row.norm, row.eps, row.budget) for row in rows))
    lines = []
    for line in dict.fromkeys(row.line for row in rows):
        if not against:
            lines.append((line, *(_mean(rows, line, *place) for place in across)))
        elif line != against:
            lines.append((line, *(_difference(paired(rows, line, against, *place)) for place in across)))
    networks, frames = {row.network for row in rows}, len(rows[0].pixacc)
    told = f", less {against}" if against else ""
    title = f"{group}: {len(networks)} networks, {frames} frames each{told}"
    return Cells(title, ("line", *(f"{norm} {eps}: {budget}" for norm, eps, budget in across)), lines)


def _at(rows: Sequence[Row], line: str, norm: str, eps: str, budget: int) -> dict[str, tuple[float, ...]]:
    """Accuracies of a line by network."""
    return {r.network: r.pixacc for r in rows if (r.line, r.norm, r.eps, r.budget) == (line, norm, eps, budget)}


def _mean(rows: Sequence[Row], line: str, norm: str, eps: str, budget: int) -> str:
    found = [value for each in _at(rows, line, norm, eps, budget).values() for value in each]
    return f"{100 * mean(found):.1f}" if found else ""


def _difference(found: Any) -> str:
    return "" if found is None else f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]".replace("-", "−")


def paired(rows: Sequence[Row], line: str, against: str, norm: str, eps: str, budget: int) -> Any:
    """Difference of two lines in points, each frame's mean over the networks that have both, with an interval."""
    mine, theirs = (_at(rows, each, norm, eps, budget) for each in (line, against))
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        return None
    per_frame = (torch.tensor([found[name] for name in both], dtype=torch.float64).mean(0) for found in (mine, theirs))
    return paired_difference(*(100 * each for each in per_frame))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
