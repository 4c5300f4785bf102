"""``segradius compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.cli.verdict_files import VerdictFiles
from segradius.core import text
from segradius.core.declared import Part
from segradius.core.errors import InputError
from segradius.core.screen import say
from segradius.core.text import Listed

if TYPE_CHECKING:
    from segradius.report.compare import Network


def compare(
    folders: list[str],
    /,
    labels: Listed | None = None,
    out: str | None = None,
    max_drop: Part | None = None,
    max_class_drop: Part | None = None,
    files: VerdictFiles = VerdictFiles(),  # noqa: B008  # frozen
) -> int:
    """Put finished runs side by side, networks unattacked or under the same attacks, or certifications.

    Prints tables. Of attacks: accuracy left, paired differences between networks, unattacked and under the worst attack
    of each image; runs with other images, attacks, options, budgets or seeds are refused. Of certifications: what each
    answers, whatever their settings. With out it writes table.md, compare.csv and compare.json, and of attacks
    compare.png, accuracy against budget and clean against robust accuracy.

    With max-drop the second folder is a candidate that is judged against the first, the baseline, image by image: per
    attack and budget, with an exact test, adjusted for their number. Folders may be of studies then; what one has and
    the other has not is named, and is not passed. Exit status: 0 PASS or WARN, 4 INCONCLUSIVE, 5 BLOCK, 2 for input
    that cannot be used.

    Args:
        folders: Folders of finished runs of segradius attack and evaluate, or of segradius certify; with max-drop two,
            of those or of studies.
        labels: Names of the networks, commas between them; by default the folders'. Those of certifications
            may be alike, as of one network with several settings.
        out: Folder of the files; by default none are written.
        max_drop: How much the candidate may lose of accuracy, Dice or certified accuracy, as 0.02 for two points.
            Default: nothing is judged.
        max_class_drop: How much of the IoU of any class. Default: classes are told and not judged.
        files: See `VerdictFiles`.
    """
    names = text.names(labels) if labels else [Path(folder).resolve().name for folder in folders]
    if len(names) != len(folders):
        raise InputError(f"labels are {', '.join(names)}; expected one for each of {len(folders)} folders")
    if max_drop is not None:
        return _judged(folders, names, max_drop, max_class_drop, out, files)
    if files.any or max_class_drop is not None:
        raise InputError("max_drop is not given; expected it beside max_class_drop, junit, markdown and json")
    _side_by_side(folders, names, out)
    return 0


def _judged(
    folders: Sequence[str], names: Sequence[str], drop: float, of_class: float | None, out: str | None, at: VerdictFiles
) -> int:
    """The second folder against the first."""
    from segradius.core.screen import console
    from segradius.core.storage import as_json
    from segradius.core.sums import write_files
    from segradius.evaluation.drops import judged
    from segradius.report.cells import page
    from segradius.report.junit import junit
    from segradius.report.paired import Allowed, paired_rows
    from segradius.report.verdict_of_drops import (
        drop_tables,
        drops_cases,
        drops_comment,
        drops_report,
        heading,
        rules,
    )

    if len(folders) != 2:
        raise InputError(f"{len(folders)} folders; with max_drop expected two, the baseline and the candidate")
    before, after = names if names[0] != names[1] else ("baseline", "candidate")
    rows, notes = paired_rows(Path(folders[0]), Path(folders[1]), Allowed(drop, of_class))
    found, sides = judged(rows), (before, after)
    tables, above = drop_tables(found, sides), heading(found, sides, drop)
    report = as_json(drops_report(found, sides, {"max_drop": drop, "max_class_drop": of_class}, notes))
    at.write(
        lambda: junit("segradius compare", drops_cases(found)),
        lambda: drops_comment(found, sides, drop, notes),
        lambda: report,
    )
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_files(Path(out), [("table.md", page(tables, [*notes, rules(found)], above)), ("verdict.json", report)])
    for cells in drop_tables(found, sides, whole=False):
        console().print(cells.rich())
    for line in (*notes, rules(found), above):
        say(line)
    return found.verdict.status


def _side_by_side(folders: Sequence[str], names: Sequence[str], out: str | None) -> None:
    from segradius.report.cells import page
    from segradius.report.compare import (
        certified_runs_table,
        digest_of_runs,
        network_tables,
        read_network,
        read_report,
        warnings_of,
    )

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
