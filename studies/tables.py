"""Tables of the documentation that are made of committed data, and the runs that make the data.

A line such as ``<!-- table: attacks data/results/l2 rows=pgd;sea -->`` in a page says what the table below it shows: a
kind, a file or folder beside the page, and options: those of the kind, ``table=1`` for the second of its tables,
``titled=yes`` for its title. Kinds are those of `KINDS`, or the name of a study, whose ``tables(path)`` gives its
tables from the file that it wrote.

    python studies/tables.py write            every such table anew
    python studies/tables.py check            exit status 1 if one is not what its data say
    python studies/tables.py run --page results --given camvid=PATH,weights=FILE --only l2

``--instead attack.limit=6,l2.steps=9`` gives all runs of a command, or one run, other options.

docs/data/PAGE/runs.yaml has under ``runs`` the options of a command of segradius, or of a study, by the name of the
run. What is written {NAME} in them is given, or the folder of an earlier run. Beside the file each run leaves what its
tables are made of, without a path of this machine.
"""

from __future__ import annotations

import importlib
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import auto_cli

import segradius as sr
from segradius.core import text
from segradius.evaluation import CertifiedSummary, Row, Summary
from segradius.report import Cells, certified_tables, network_tables, percent, read_network, tables

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"^<!-- table: (?P<what>.+) -->\n(?P<table>(?:\*\*.*\*\*\n\n)?(?:\|.*\n)*)", re.M)
KEPT = ("results.json", "per_image.csv")
SHAPE = ("titled", "table")
#: Options that name no file.
NO_FILES = (*SHAPE, "rows", "against", "digest", "at")


@dataclass(frozen=True)
class Marked:
    """A marked table of a page."""

    page: Path
    what: str
    found: str

    @property
    def parsed(self) -> tuple[str, Path, dict[str, str]]:
        """Kind, file or folder, and options."""
        kind, path, *rest = shlex.split(self.what)
        return kind, self.page.parent / path, {name: value for name, _, value in (each.partition("=") for each in rest)}

    @property
    def has_data(self) -> bool:
        """Whether all that it is made of is there."""
        _, path, options = self.parsed
        parts = [path / value for name, value in options.items() if name not in NO_FILES]
        return all(part.exists() for part in parts or [path])

    @property
    def expected(self) -> str:
        """The table that its data say, in Markdown; as it is where there are none."""
        if not self.has_data:
            return self.found
        kind, path, options = self.parsed
        shape = {name: options.pop(name) for name in SHAPE if name in options}
        make = KINDS[kind] if kind in KINDS else _study(kind)
        whole = make(path, **options)[int(shape.get("table", 0))].markdown() + "\n"
        return whole if shape.get("titled") == "yes" else whole[whole.index("| ") :]


def marked(page: Path) -> list[Marked]:
    """The marked tables of a page, in order."""
    return [Marked(page, m["what"], m["table"]) for m in MARK.finditer(page.read_text(encoding="utf-8"))]


def pages() -> list[Path]:
    """Those that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read_summary(folder: Path) -> Summary:
    """What `segradius attack` or `evaluate` found out, from its results.json.

    Raises:
        InputError: per_image.csv beside it does not have the same accuracies.
    """
    found = sr.load_results(folder).runs[0]
    summary = cast(Summary, found.summary)
    _must_agree(summary.rows, found)
    return summary


def attacks(folder: Path, rows: str = "") -> list[Cells]:
    """Metrics and paired differences of a run of ``segradius attack``; of ``rows`` alone, where given, as pgd;sea."""
    summary = read_summary(folder)
    if rows:
        chosen = rows.split(";")
        text.refuse_unknown(f"row of {folder}", chosen, [row.name for row in summary.rows])
        pairs = tuple(each for each in summary.comparisons if {each.attack, each.against} <= set(chosen))
        summary = replace(summary, rows=tuple(row for row in summary.rows if row.name in chosen), comparisons=pairs)
    return [_without(cells, "s/image", *_never_looked_at(cells)) for cells in tables(summary)]


def networks(folder: Path, **labels: str) -> list[Cells]:
    """What ``segradius compare`` says of several runs: folders in this one by label, where + is a space."""
    return network_tables([read_network(folder / name, label.replace("+", " ")) for label, name in labels.items()])


def accuracies(folder: Path, **labels: str) -> list[Cells]:
    """Of several runs of ``segradius evaluate``, by label as for `networks`."""
    rows = []
    for label, name in labels.items():
        clean = read_summary(folder / name).rows[0]
        found = (percent(each.value, each) for each in (clean.pixacc, clean.miou, clean.miou_image))
        rows.append((label.replace("+", " "), str(clean.images), *found))
    header = ("network", "images", "PixAcc %", "MIoU %", "MIoU/image %")
    return [Cells("Per cent [95 % interval over images]", header, rows)]


def certificates(folder: Path) -> list[Cells]:
    """What ``segradius certify`` found out: answers, whole images, attacks on the certificates, classes."""
    return certified_tables(_certified(folder))


def answers(folder: Path, **labels: str) -> list[Cells]:
    """Right and certified pixels of several runs of ``segradius certify``, a column an answer; labels as `networks`."""
    found = {label.replace("+", " "): _certified(folder / name) for label, name in labels.items()}
    names = dict.fromkeys(row.name for each in found.values() for row in each.rows)
    rows = []
    for label, each in found.items():
        shares = {row.name: percent(row.pixacc.value, row.pixacc) for row in each.rows}
        passes = each.ledger["certification"]["forward"] / each.images
        rows.append((label, str(each.images), *(shares.get(name, "") for name in names), f"{passes:g}"))
    header = ("", "images", *(f"{name} %" for name in names), "passes")
    return [Cells("PixAcc [95 % interval over images]", header, rows)]


def beyond(folder: Path, at: str, **labels: str) -> list[Cells]:
    """Certified accuracy beyond the radii ``at``, as 0.1;0.5, of runs of ``segradius certify`` by label.

    It is that of whole images where a run speaks of those, else of each pixel's own radius; at the next radius counted.
    """
    radii = [float(each) for each in at.split(";")]
    rows = []
    for label, name in labels.items():
        found = _certified(folder / name)
        curve = found.whole or next(row.curve for row in found.rows if row.name == "radii")
        assert curve is not None
        known = list(zip(curve.edges, curve.accuracy, strict=True))
        shares = (next((share for edge, share in known if edge >= radius - 1e-12), 0.0) for radius in radii)
        rows.append((label.replace("+", " "), str(found.images), *(f"{100 * share:.1f}" for share in shares)))
    header = ("certified PixAcc % beyond", "images", *(f"{radius:g}" for radius in radii))
    return [Cells("Certified accuracy by l2 radius", header, rows)]


def _certified(folder: Path) -> CertifiedSummary:
    return cast(CertifiedSummary, sr.load_results(folder).runs[0].summary)


KINDS: Mapping[str, Callable[..., list[Cells]]] = {
    "attacks": attacks,
    "networks": networks,
    "accuracies": accuracies,
    "certificates": certificates,
    "answers": answers,
    "beyond": beyond,
}


def write() -> int:
    """Write every marked table anew."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = before
        for each in marked(page):
            mark = f"<!-- table: {each.what} -->\n"
            after = after.replace(mark + each.found, mark + each.expected)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page)
    return 0


def check() -> int:
    """Name every marked table that is not what its data say, or has none."""
    found = [each for page in pages() for each in marked(page)]
    wrong = [each for each in found if each.found != each.expected]
    for each in found:
        if each in wrong or not each.has_data:
            print(f"{each.page}: {each.what}: {'not what its data say' if each in wrong else 'without data'}")
    return 1 if wrong else 0


def run(page: str, given: str = "", only: str = "", instead: str = "", work: str = "runs", show: bool = False) -> int:
    """Run what makes the data of a page, in order, and keep what its tables are made of beside the file of runs.

    Args:
        page: The page, whose runs are in docs/data/PAGE/runs.yaml.
        given: What is to be filled in, as camvid=PATH,weights=FILE.
        only: Names of runs, commas between them; all by default.
        instead: Other options for all runs of a command, or for one run: attack.limit=6,l2.batch-size=2.
        work: Folder of the runs; one that was stopped goes on there.
        show: Only show the commands.
    """
    file, filled, others = ROOT / "docs" / "data" / page / "runs.yaml", _pairs(given), _pairs(instead)
    listed: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["runs"]
    text.refuse_unknown(f"run of {page}", text.names(only) if only else [], listed)
    filled |= {"root": str(ROOT), "here": str(file.parent)} | {name: str(Path(work) / page / name) for name in listed}
    for name in text.names(only) if only else listed:
        command = _command(name, listed[name], others, filled | {"out": filled[name]})
        print(shlex.join(command), flush=True)
        if not show:
            if status := subprocess.run(command, check=False).returncode:
                return status
            _keep(
                Path(filled[name]), file.parent / name, listed[name].get("keep", KEPT), _pairs(given) | {"runs": work}
            )
    return 0


def _command(run: str, options: Mapping[str, Any], others: Mapping[str, str], filled: Mapping[str, str]) -> list[str]:
    """The arguments of a process, from the options of a run."""
    what = str(options["command"])
    words = [sys.executable, str(ROOT / what)] if what.endswith(".py") else [sys.executable, "-m", "segradius", what]
    flags = {"out": "{out}"} | {name: value for name, value in options.items() if name not in ("command", "keep")}
    for place in (what, run):
        flags |= {key.removeprefix(f"{place}."): v for key, v in others.items() if key.startswith(f"{place}.")}
    for name, value in flags.items():
        try:
            words += [f"--{name}", str(value).format_map(filled)]
        except KeyError as missing:
            raise sr.InputError(f"{name} is {value!r}; expected --given {missing.args[0]}=…") from None
    return words


def _pairs(given: str) -> dict[str, str]:
    return {name: value for name, _, value in (each.partition("=") for each in given.split(",") if each)}


def _keep(source: Path, target: Path, names: Sequence[str], hidden: Mapping[str, str]) -> None:
    """Copy files that are there; what was given to the run goes by its name."""
    for name in names:
        if (source / name).is_file():
            content = (source / name).read_text(encoding="utf-8").replace(f"{ROOT}/", "")
            for title, value in sorted(hidden.items(), key=lambda each: -len(each[1])):
                content = content.replace(value, title.upper())
            target.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(content, encoding="utf-8")


def _must_agree(rows: Sequence[Row], found: sr.SavedRun) -> None:
    right: dict[tuple[Any, ...], list[int]] = {}
    for line in found.per_image():
        if line["valid"]:
            sums = right.setdefault((line["attack"], line["norm"], line["eps"]), [0, 0])
            sums[0] += cast(int, line["right"])
            sums[1] += cast(int, line["pixels"])
    for row in rows:
        key = (row.name, row.norm, row.eps)
        if key in right and not math.isclose(right[key][0] / right[key][1], row.pixacc.value, rel_tol=1e-9):
            raise sr.InputError(f"{found.path}: per_image.csv and results.json differ in the accuracy of {row.name}")


def _study(name: str) -> Callable[..., list[Cells]]:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        found: Callable[..., list[Cells]] = importlib.import_module(name).tables
    finally:
        sys.path.pop(0)
    return found


def _never_looked_at(cells: Cells) -> list[str]:
    """Columns of 8 bits where no row has a figure, as of runs of earlier versions, and with them the grey levels."""
    eight = [(place, name) for place, name in enumerate(cells.header) if name.endswith("8 bits")]
    empty = [name for place, name in eight if {row[place] for row in cells.rows} <= {"", "–"}]
    return [*empty, "ε in 1/255"] if empty else []


def _without(cells: Cells, *columns: str) -> Cells:
    kept = [place for place, name in enumerate(cells.header) if name not in columns]
    return Cells(cells.title, [cells.header[k] for k in kept], [[row[k] for k in kept] for row in cells.rows])


if __name__ == "__main__":
    sys.exit(auto_cli([write, check, run], as_positional=False))
