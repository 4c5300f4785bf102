"""One table of several certifications, from the folders that ``segradius certify`` wrote.

    python studies/certified.py --folders plain-0.25-100,gaussian-0.25-100 --out docs/data/certification/camvid.json

The name of a folder up to its first hyphen names the network in the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from segradius.core.storage import write_atomically
from segradius.core.text import names
from segradius.metrics.statistics import Interval
from segradius.report.cells import Cells, percent

COLUMNS = ("pixacc", "miou", "abstained", "boundary", "interior")
HEADER = ("network", "σ", "n", "images", "answer", "PixAcc %", "MIoU %", "abstained %", "boundary %", "interior %")


def main(folders: str, out: Path | None = None) -> None:
    """Print the table.

    Args:
        folders: Of ``segradius certify --out``, commas between them.
        out: JSON file with what the table shows and the rest of each row, without paths.
    """
    kept, lines = [], []
    for folder in map(Path, names(folders)):
        report = json.loads((folder / "results.json").read_text())
        network, options = folder.name.partition("-")[0], report["experiment"]["smoothing"]
        facts = {"network": network, **options, "images": report["images"], "copies": report["copies"]}
        kept.append(facts | {"seed": report["experiment"]["seed"], "rows": report["rows"]})
        for row in report["rows"]:
            lines.append(_line(facts, row))
    print(Cells("Per cent of labelled pixels [95 % over images]", HEADER, tuple(lines)).markdown())
    if out is not None:
        write_atomically(out, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _line(facts: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = [_share(row[name]) for name in COLUMNS]
    drawn = f"{facts['n']}" if facts["early_stop"] is None else f"{facts['copies'] - facts['n0']:.0f} of {facts['n']}"
    return (str(facts["network"]), f"{facts['sigma']:g}", drawn, str(facts["images"]), str(row["name"]), *shares)


def _share(found: Mapping[str, float | None] | None) -> str:
    """A share in per cent with its interval; groups of classes have no MIoU."""
    if found is None or found["value"] is None:
        return ""
    ends = Interval(**{name: math.nan if end is None else end for name, end in found.items()})
    return percent(ends.value, ends)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
