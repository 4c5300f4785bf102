"""Results of finished runs and studies, from their folders: objects, rows, and tables for pandas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.core.escapes import listed
from segradius.core.seal import read_json, readable, seal
from segradius.core.sums import checked
from segradius.core.text import refuse_unknown
from segradius.evaluation.attack_summary import Row, Summary
from segradius.evaluation.certify_summary import CertifiedRow, CertifiedSummary
from segradius.evaluation.columns import Cell, as_frame, read_table
from segradius.evaluation.facts import Finding
from segradius.evaluation.folders import RunFolder, run_folders
from segradius.evaluation.outcome import Digest
from segradius.evaluation.saved import certified_summary_of, findings_of, refuse_later, summary_of
from segradius.evaluation.tidy import FILES, names_of, tabled

Line = dict[str, Cell]


@dataclass(frozen=True)
class SavedRun:
    """What a finished run left in its folder.

    Attributes:
        name: Of the measurement in its study; of a folder by itself the folder's own.
        path: Of the folder.
        kind: ``attack``, ``certify`` or ``evaluate``.
        report: All of results.json, as `segradius.evaluation.results_schema` describes it.
    """

    name: str
    path: Path
    kind: str
    report: Mapping[str, Any] = field(repr=False)

    @cached_property
    def summary(self) -> Summary | CertifiedSummary:
        """Rows of metrics with intervals, and all else that the run found out."""
        make = certified_summary_of if self.kind == "certify" else summary_of
        return readable(lambda: make(self.report), self.path / "results.json", "a report")

    @property
    def rows(self) -> tuple[Row, ...] | tuple[CertifiedRow, ...]:
        """One for each attack, the unattacked first; or for each answer of a certification."""
        return self.summary.rows

    @property
    def experiment(self) -> Mapping[str, Any]:
        """What was run: model, data, attacks or smoothing, seed."""
        found: Mapping[str, Any] = self.report["experiment"]
        return found

    @property
    def command(self) -> str:
        """The command that makes it, without secrets; empty where it was run from Python."""
        return str(self.report.get("command") or self.report.get("runtime", {}).get("command", ""))

    @property
    def digest(self) -> Digest | None:
        """Equal for equal results; None of a version that had none."""
        return self.summary.digest

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is probably a mistake."""
        return findings_of(self.report)

    @property
    def verdicts(self) -> tuple[Mapping[str, Any], ...]:
        """Sanity checks of the run: name, verdict, text, advice and value of each; none of a version before them."""
        return tuple(self.report.get("verdicts", ()))

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that `table` gives."""
        made = names_of(self.summary)
        return tuple(name for name in made if name not in FILES or (self.path / FILES[name]).is_file())

    def table(self, name: str) -> Iterator[Line]:
        """Lines of a table, with numbers for numbers and None where there is none.

        Args:
            name: One of `tables`: ``rows``, ``images``, ``classes``, ….

        Raises:
            InputError: There is no such table.
            DamagedError: The file that it is read from is not as it was written.
        """
        refuse_unknown(f"table of {self.path}", [name], self.tables)
        if name not in FILES:
            return iter(tabled(self.summary, name))
        file = self.path / FILES[name]
        return read_table(readable(lambda: checked(self.path, FILES[name]).decode(), file, "a table"), name)

    def per_image(self) -> list[Line]:
        """A row for each attack, or answer, and image, as in per_image.csv."""
        return list(self.table("images"))

    def to_pandas(self, table: str = "images") -> Any:
        """A table as a pandas data frame; by default that of `per_image`."""
        return as_frame(self.table(table), table)


@dataclass(frozen=True)
class SavedResults:
    """What finished runs left in their folders: those of a study, or a single one.

    Attributes:
        runs: In the order of the study.
        missing: Names of the measurements that have no report yet.
    """

    runs: tuple[SavedRun, ...]
    missing: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> SavedRun:
        """The run of a measurement, by name."""
        refuse_unknown("run", [name], [run.name for run in self.runs])
        return next(run for run in self.runs if run.name == name)

    @property
    def rows(self) -> tuple[Row | CertifiedRow, ...]:
        """Those of all runs."""
        return tuple(row for run in self.runs for row in run.rows)

    @property
    def experiment(self) -> Mapping[str, Any]:
        """What was run; raises `InputError` where there are several runs."""
        if len(self.runs) != 1:
            named = listed([run.name for run in self.runs])
            raise InputError(f"there are {len(self.runs)} runs ({named}), each with its own: runs[0].experiment")
        return self.runs[0].experiment

    @property
    def digest(self) -> str:
        """Equal for equal results of equal measurements: of a single run that of its results, of several of all."""
        found = {run.name: run.digest.results if run.digest else "" for run in self.runs}
        return (
            found[self.runs[0].name]
            if len(self.runs) == 1
            else seal(*(part for each in found.items() for part in each))
        )

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """Sanity checks of all runs, each with the name of its run as ``measurement``."""
        return [{"measurement": run.name, **verdict} for run in self.runs for verdict in run.verdicts]

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that any run has."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.tables))

    def table(self, name: str) -> Iterator[Line]:
        """Lines of a table of all runs that have it, each with what it is of: measurement, model, data and seed."""
        refuse_unknown("table", [name], self.tables)
        for run in self.runs:
            if name in run.tables:
                about = about_of(run)
                yield from (about | line for line in run.table(name))

    def per_image(self) -> list[Line]:
        """A row for each run, attack, or answer, and image."""
        return list(self.table("images"))

    def to_pandas(self, table: str = "images") -> Any:
        """A table as a pandas data frame; by default that of `per_image`."""
        return as_frame(self.table(table), table)


def about_of(run: SavedRun) -> Line:
    """What a line of a run is of."""
    it = run.experiment
    return {"measurement": run.name, "model": it["model"]["spec"], "data": it["data"]["spec"], "seed": it["seed"]}


def load_results(folder: str | Path, *more: str | Path, partial: bool = False) -> SavedResults:
    """Results from folders that ``segradius attack``, ``certify``, ``evaluate``, ``run`` or `Results.save` wrote.

    Files are checked against their checksums when they are read. Those of earlier versions are read too.

    Args:
        folder: Of a run or a study.
        *more: Further ones.
        partial: Whether a study may have measurements that are not finished; they are named in ``missing``.

    Raises:
        InputError: A folder is neither, a run is not finished, or its report is of a later version.
        DamagedError: A report is not as it was written.

    Example:
        >>> import tempfile, segradius as sr
        >>> run = sr.evaluate(sr.load_model("demo"), "scenes:24x32,4", "pgd", eps=1.5, steps=3, quiet=True, figures=0)
        >>> found = sr.load_results(run.save(tempfile.mkdtemp()))
        >>> [(row.name, row.images) for row in found.rows], len(found.per_image())
        ([('clean', 4), ('pgd', 4)], 8)
        >>> found.rows == run.summary.rows, found.digest == run.summary.digest.results
        (True, True)
    """
    folders = run_folders([folder, *more])
    lacking = [each.name for each in folders if not each.is_reported]
    if lacking and not partial:
        told = f"{len(lacking)} of {len(folders)} run(s) have no results.json yet ({listed(lacking)})"
        raise InputError(f"{told}: run the command that made them again, or give partial=True")
    runs = tuple(map(_run, (each for each in folders if each.is_reported)))
    return SavedResults(runs, tuple(lacking))


def _run(folder: RunFolder) -> SavedRun:
    file = folder.path / "results.json"
    report = read_json(file, checked(folder.path, file.name))
    refuse_later(report)
    return SavedRun(folder.name, folder.path, folder.kind, report)
