"""Folders of finished runs, copied and changed as if they had come out otherwise."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segradius.core.sums import read_sums, sum_of, write_sums

Line = dict[str, str]


def same(thing: Any) -> Any:
    """As it is."""
    return thing


def changed(
    folder: Path,
    to: Path,
    line: Callable[[Line], Line | None] = same,
    report: Callable[[dict[str, Any]], dict[str, Any]] = same,
    without: Sequence[str] = (),
) -> Path:
    """A copy of a run with other lines in per_image.csv, where None drops one, and another report; checksums agree."""
    shutil.copytree(folder, to)
    lines = list(csv.DictReader(io.StringIO((to / "per_image.csv").read_text())))
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(each for each in map(line, lines) if each is not None)
    files = {"per_image.csv": text.getvalue()}
    files["results.json"] = json.dumps(report(json.loads((to / "results.json").read_text())))
    for name, content in files.items():
        (to / name).write_text(content)
    for name in without:
        (to / name).unlink()
    sums = {name: known for name, known in read_sums(to).items() if name not in without}
    write_sums(to, sums | {name: sum_of(content) for name, content in files.items()})
    return to


def lowered(by: Callable[[Line, int], float], attacks: Sequence[str] = ()) -> Callable[[Line], Line]:
    """A change of lines: from the accuracy is taken what ``by`` says of the line and the number of its image."""

    def lower(line: Line) -> Line:
        if attacks and line["attack"] not in attacks:
            return line
        return line | {"pixacc": str(float(line["pixacc"]) - by(line, int(line["image"][-3:])))}

    return lower


def study(folder: Path, runs: dict[str, Path | None], about: dict[str, dict[str, Any]] | None = None) -> Path:
    """A study's folder of these runs by name; of None nothing is there yet."""
    told = []
    for name, run in runs.items():
        if run is not None:
            shutil.copytree(run, folder / "runs" / name)
        one = {"name": name, "folder": f"runs/{name}", "kind": "attack", "model": "m", "data": "d", "seed": 0}
        told.append(one | (about or {}).get(name, {}))
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps({"schema": 1, "measurements": told}))
    return folder
