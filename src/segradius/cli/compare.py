"""``segradius compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.core import text
from segradius.core.errors import InputError
from segradius.core.screen import say
from segradius.core.text import Listed

if TYPE_CHECKING:
    from segradius.report.compare import Network


def compare(folders: list[str], /, labels: Listed | None = None, out: str | None = None) -> int:
    """Put finished runs side by side, networks unattacked or under the same attacks, or certifications.

    Prints tables. Of attacks: accuracy left, paired differences between networks, unattacked and under the worst attack
    of each image; runs with other images, attacks, options, budgets or seeds are refused. Of certifications: what each
    answers, whatever their settings. With out it writes table.md, compare.csv and compare.json, and of attacks
    compare.png, accuracy against budget and clean against robust accuracy.

    Args:
        folders: Folders of finished runs of segradius attack and evaluate, or of segradius certify.
        labels: Names of the networks, commas between them; by default the folders'. Those of certifications
            may be alike, as of one network with several settings.
        out: Folder of the files; by default none are written.
    """
    from segradius.report.cells import page
    from segradius.report.compare import (
        certified_runs_table,
        digest_of_runs,
        network_tables,
        read_network,
        read_report,
        warnings_of,
    )

    names = text.names(labels) if labels else [Path(folder).name for folder in folders]
    if len(names) != len(folders):
        raise InputError(f"labels are {', '.join(names)}; expected one for each of {len(folders)} folders")
    reports = [(name, read_report(Path(folder))) for name, folder in zip(names, folders, strict=True)]
    attacked = [name for name, report in reports if "attacks" in report["experiment"]]
    if attacked and len(attacked) < len(names):
        other = next(name for name in names if name not in attacked)
        raise InputError(f"{attacked[0]} was attacked and {other} certified; expected runs of one command")
    networks = [read_network(Path(folder), name) for name, folder in zip(attacked, folders, strict=False)]
    tables = network_tables(networks) if networks else [certified_runs_table(reports)]
    markdown = page(tables, warnings_of(reports))
    if out is not None:
        _write(Path(out), reports, networks, markdown)
    say(markdown)
    say(f"Digest of the results: {digest_of_runs([report for _, report in reports])}")
    return 0


def _write(folder: Path, reports: Sequence[tuple[str, Any]], networks: Sequence[Network], markdown: str) -> None:
    from segradius.core.locking import owned
    from segradius.core.screen import warn
    from segradius.core.storage import write_atomically
    from segradius.core.sums import sum_of, write_sums
    from segradius.report.compare import draw_trade_off, facts, runs_csv

    folder.mkdir(parents=True, exist_ok=True)
    runs = [facts(name, report) for name, report in reports]
    files: dict[str, str | bytes] = {"table.md": markdown, "compare.csv": runs_csv(runs)}
    files["compare.json"] = json.dumps(runs, indent=1, ensure_ascii=False) + "\n"
    if networks and networks[0].threats:
        files["compare.png"] = draw_trade_off(networks)
    with owned(folder, warn=warn):
        for name, content in files.items():
            write_atomically(folder / name, content)
        write_sums(folder, {name: sum_of(content) for name, content in files.items()})
