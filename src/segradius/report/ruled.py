"""Rules of a policy judged by what finished runs and studies say; what they do not say is not passed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from segradius.core.errors import shown
from segradius.core.escapes import visible
from segradius.evaluation.certified_by import OWN_RADII, common_radius, refutations
from segradius.evaluation.decisions import Verdict, of_bound, worst
from segradius.evaluation.drops import NOTHING
from segradius.evaluation.folders import STUDY, measurements, run_folders
from segradius.metrics.intervals import Interval, jackknife
from segradius.metrics.sign_flips import SignFlips
from segradius.report.compare import read_network, read_report
from segradius.report.paired_certificates import read_records
from segradius.report.policy import ATTACKED, CERTIFIED, REQUIRED, SANITY, Policy, Rule

LEVEL = 0.95


@dataclass(frozen=True)
class Source:
    """A measurement that rules are about.

    Attributes:
        name: Its name, where there are several.
        path: Its folder.
        kind: ``attack``, ``evaluate`` or ``certify``.
        models: What its model is called: its label in a study, and its spec.
        data: The same of its data.
        seed: Of all random numbers; None where it is not known.
        report: Its results.json; None where it is not finished.
    """

    name: str
    path: Path
    kind: str
    models: tuple[str, ...]
    data: tuple[str, ...]
    seed: int | None
    report: Mapping[str, Any] | None


@dataclass(frozen=True)
class Figure:
    """What a rule is about: a figure of a row.

    Attributes:
        title: What it is, for people.
        found: Its value, and its interval.
        images: Behind it.
        missing: Why there is none; empty where there is.
        verdict: Where that is settled already, as of a sanity check; None elsewhere.
        why: What was seen then, and what to do.
    """

    title: str
    found: Interval = NOTHING
    images: int = 0
    missing: str = ""
    verdict: Verdict | None = None
    why: str = ""


@dataclass(frozen=True)
class Judgement:
    """A figure, and what a rule makes of it.

    Attributes:
        figure: The figure.
        verdict: As if the rule were critical.
        why: What is to be said of it; empty for PASS.
    """

    figure: Figure
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Ruled:
    """A rule, and what became of it.

    Attributes:
        rule: The rule.
        judged: All that it is about.
    """

    rule: Rule
    judged: tuple[Judgement, ...]

    @property
    def found(self) -> Verdict:
        """The worst of all, whatever the tier."""
        return worst(each.verdict for each in self.judged)

    @property
    def verdict(self) -> Verdict:
        """That of the rule: of an advisory one WARN at most."""
        return min(self.found, Verdict.WARN, key=list(Verdict).index) if self.rule.tier == "advisory" else self.found

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing to judge."""
        return all(each.figure.missing for each in self.judged)


def sources(folders: Sequence[str | Path]) -> list[Source]:
    """The measurements in folders of runs and of studies.

    Raises:
        InputError: A folder is neither.
    """
    found: list[Source] = []
    for folder in map(Path, folders):
        runs = run_folders([folder])
        said = measurements(folder) if (folder / STUDY).is_file() else [{}] * len(runs)
        for run, told in zip(runs, said, strict=True):
            report = read_report(run.path) if run.is_reported else None
            ran = report["experiment"] if report else {}
            models, data = (
                tuple(str(name) for name in (told.get(part), ran.get(part, {}).get("spec")) if name)
                for part in ("model", "data")
            )
            found.append(Source(run.name, run.path, run.kind, models, data, told.get("seed", ran.get("seed")), report))
    return found


def ruled(policy: Policy, found: Sequence[Source]) -> list[Ruled]:
    """Every rule, in order, over all measurements that it is about.

    Args:
        policy: The rules.
        found: The measurements.
    """
    return [_ruled(rule, policy.least(rule), found) for rule in policy.rules]


def _ruled(rule: Rule, least: int, found: Sequence[Source]) -> Ruled:
    chosen = [source for source in found if _is_meant(rule, source)]
    figures = [figure for source in chosen for figure in _figures(rule, source, len(found) > 1)]
    there = [figure for figure in figures if not figure.missing]
    # What was evaluated alone has no attack, and need not have: other measurements do.
    figures = [figure for figure in figures if figure in there or figure.missing != NOT_ATTACKED] or figures
    if not figures:
        figures = [Figure(rule.metric, missing=_unmet(rule, found))]
    return Ruled(rule, tuple(_judged(rule, least, figure) for figure in figures))


def _unmet(rule: Rule, found: Sequence[Source]) -> str:
    """Why a rule is about none of the measurements: the name that none of them has, where that is it."""
    models, data = [name for each in found for name in each.models], [name for each in found for name in each.data]
    for part, wanted, names in (("model", rule.model, models), ("data", rule.data, data)):
        if wanted is not None and not any(fnmatchcase(name, wanted) for name in names):
            return _unknown(part, wanted, names)
    return "no measurement is of its kind, model, data and seed"


def _judged(rule: Rule, least: int, figure: Figure) -> Judgement:
    if figure.missing:
        return Judgement(figure, Verdict.INCONCLUSIVE, f"missing: {figure.missing}")
    if figure.verdict is not None:
        return Judgement(figure, figure.verdict, figure.why)
    needed = least if rule.metric in (*ATTACKED, *CERTIFIED) else 0
    return Judgement(figure, *of_bound(rule.bound, figure.found, figure.images, needed))


def _is_meant(rule: Rule, source: Source) -> bool:
    kinds = {**dict.fromkeys(CERTIFIED, ("certify",)), **dict.fromkeys(ATTACKED, ("attack", "evaluate"))}
    named = all(
        wanted is None or any(fnmatchcase(name, wanted) for name in names)
        for wanted, names in ((rule.model, source.models), (rule.data, source.data))
    )
    return named and source.kind in kinds.get(rule.metric, (source.kind,)) and rule.seed in (None, source.seed)


NOT_ATTACKED = "nothing was attacked"


def _figures(rule: Rule, source: Source, several: bool) -> list[Figure]:
    """Of a measurement, all that the rule is about."""
    name = f"{source.name}: " if several else ""
    if source.report is None:
        return [Figure(f"{name}{rule.metric}", missing=f"{source.name} has no results")]
    if rule.metric == SANITY:
        if source.kind != "attack" and not source.report.get("verdicts"):
            return [Figure(f"{name}sanity", missing=NOT_ATTACKED)]
        return list(_sanity(rule, name, source.report))
    if rule.metric in ATTACKED:
        return list(_attacked(rule, name, source))
    if rule.metric in CERTIFIED:
        return list(_certified(rule, name, source))
    return [_counted(rule, name, source.report)]


def _sanity(rule: Rule, name: str, report: Mapping[str, Any]) -> Iterator[Figure]:
    """One for each check that breaks the rule; one in all where none does."""
    found = report.get("verdicts")
    if not found:
        yield Figure(f"{name}sanity", missing="the run has no sanity verdicts")
        return
    chosen = [each for each in found if rule.check in (None, each["name"])]
    if not chosen:
        yield Figure(f"{name}sanity", missing=_unknown("check", rule.check, [each["name"] for each in found]))
    broken = [each for each in chosen if each["verdict"] in REQUIRED[rule.require]]
    for each in broken:
        # An open check was not measured, which is not known to be bad.
        verdict = Verdict.INCONCLUSIVE if each["verdict"] == "open" else Verdict.BLOCK
        told = ": ".join(filter(None, (each["text"], each.get("advice"))))
        yield Figure(f"{name}{each['name']} is {each['verdict']}", verdict=verdict, why=told)
    if chosen and not broken:
        yield Figure(f"{name}{len(chosen)} sanity verdicts", verdict=Verdict.PASS)


def _counted(rule: Rule, name: str, report: Mapping[str, Any]) -> Figure:
    first, aside = report["rows"][0], len(report["set_aside"])
    used = int(report["images"] if "images" in report else first["images"])
    invalid = len(report["invalid"]) if isinstance(report.get("invalid"), list) else int(first.get("invalid", 0))
    total = used + invalid + aside
    value = float(used) if rule.metric == "images" else aside / total if total else math.nan
    return Figure(f"{name}{rule.metric}", Interval(value, value, value), total)


def _attacked(rule: Rule, name: str, source: Source) -> Iterator[Figure]:
    report = source.report or {}
    rows = _rows(rule, report)
    if not rows:
        attacked = [row for row in report["rows"] if row["norm"]]
        named = [row for row in attacked if rule.attack in ("worst", "all") or fnmatchcase(row["name"], rule.attack)]
        # Budgets where the attack is there, else attacks: a study has many of both.
        known = ", ".join(dict.fromkeys(_threat(row) if named else str(row["name"]) for row in named or attacked))
        budget = "" if rule.eps is None else f"ε = {rule.eps:g}"
        wanted = " ".join(filter(None, (rule.attack, rule.norm, budget)))
        why = f"no {wanted}; there is {known}" if attacked else NOT_ATTACKED
        yield Figure(f"{name}{rule.metric}", missing=why)
    for row in rows:
        yield _of_row(rule, f"{name}{rule.metric} of {_told(row)}", row, source)


def _rows(rule: Rule, report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of an attack's report that a rule is about."""
    clean, *attacked = report["rows"]
    if rule.attack == "clean":
        return [clean]
    fitting = [
        row for row in attacked
        if rule.norm in (None, row["norm"]) and (rule.eps is None or math.isclose(rule.eps, row["eps"] or math.inf))
    ]  # fmt: skip
    overall = [row for row in fitting if row["name"].startswith("worst of ")]
    single = [row for row in fitting if row not in overall]
    if rule.attack == "worst":
        met = {(row["norm"], row["eps"]) for row in overall}
        return [*overall, *(row for row in single if (row["norm"], row["eps"]) not in met)]
    return [row for row in single if rule.attack == "all" or fnmatchcase(row["name"], rule.attack)]


def _of_row(rule: Rule, title: str, row: Mapping[str, Any], source: Source) -> Figure:
    images = int(row["images"])
    if rule.metric == "drop":
        return _lost(title, row, source.path)
    if rule.of_class is not None:
        classes = {each["name"]: each for each in row["classes"]}
        if rule.of_class not in classes:
            return Figure(title, missing=_unknown("class", rule.of_class, classes))
        return Figure(f"{title}, {rule.of_class}", _interval(classes[rule.of_class][rule.metric]), images)
    place, metric = row, rule.metric
    if metric.endswith("_8bit"):
        place, metric = row.get("rounded") or {}, metric.removesuffix("_8bit")
    if not isinstance(place.get(metric), Mapping):
        return Figure(title, missing=f"the run has no {rule.metric} of it")
    return Figure(title, _interval(place[metric]), images)


def _lost(title: str, row: Mapping[str, Any], folder: Path) -> Figure:
    """What an attack took of the accuracy, paired over images."""
    if not row["norm"]:
        return Figure(title, missing="of what is unattacked there is no drop")
    network = read_network(folder, "")
    label = "worst" if row["name"].startswith("worst of ") else visible(row["name"])
    clean, after = network.each_image("clean", "", 0.0), network.each_image(label, row["norm"], row["eps"] or 0.0)
    gaps = torch.tensor([clean, after], dtype=torch.float64).diff(dim=0).neg().flatten()
    gaps = gaps[~gaps.isnan()]
    if not len(gaps):
        return Figure(title, missing="no image is valid")
    low, high = SignFlips(gaps[:, None]).ends(LEVEL)
    return Figure(title, Interval(float(gaps.mean()), float(low[0]), float(high[0])), len(gaps))


def _certified(rule: Rule, name: str, source: Source) -> Iterator[Figure]:
    report = source.report or {}
    if refuted := refutations(report):
        why = f"the certificates are REFUTED by {refuted[0]}, which found what they exclude"
        yield Figure(f"{name}{rule.metric}", verdict=Verdict.BLOCK, why=why)
        return
    if rule.answer == "whole":
        yield _whole(rule, f"{name}{rule.metric} whole", source)
        return
    rows = [row for row in report["rows"] if row["curve"] and rule.answer in (None, row["name"])]
    if not rows:
        yield Figure(f"{name}{rule.metric}", missing=f"no certificate {rule.answer or ''}".strip())
    for row in rows:
        beyond = "" if rule.radius is None else f" beyond r = {rule.radius:g}"
        title, metric = (
            f"{name}{rule.metric} {row['name']}{beyond}",
            "pixacc" if rule.metric == "certified" else rule.metric,
        )
        whole = Figure(title, _interval(row[metric]), int(report["images"]))
        yield whole if rule.radius is None else _beyond(rule.radius, row["name"], whole, source)


def _whole(rule: Rule, name: str, source: Source) -> Figure:
    """What stays right of whole images at least, by the next of the radii that were counted."""
    report = source.report or {}
    if "whole" not in report or rule.metric != "certified":
        return Figure(name, missing="nothing is certified of whole images")
    if rule.radius is None:
        return Figure(name, missing="of whole images a certificate is one within a radius: the rule needs one")
    title = f"{name} beyond r = {rule.radius:g}"
    place = next((k for k, edge in enumerate(report["whole"]["edges"]) if edge >= rule.radius), None)
    found = [record.whole for record in read_records(source.path) if record.finite]
    parts = [(float(each["right"][place]) if place is not None else 0.0, float(each["labelled"])) for each in found]
    table = torch.tensor(parts, dtype=torch.float64).view(-1, 2)
    return Figure(title, jackknife(table, lambda sums: sums[..., 0] / sums[..., 1]), len(found))


def _beyond(radius: float, kind: str, whole: Figure, source: Source) -> Figure:
    """What is certified right beyond a radius, by the next of the radii that were counted."""
    report = source.report or {}
    common = common_radius(report["experiment"])
    if kind not in OWN_RADII:
        reached = common is not None and radius < common
        return whole if reached else Figure(whole.title, Interval(0.0, 0.0, 0.0), whole.images)
    edges = next(row for row in report["rows"] if row["name"] == kind)["curve"]["edges"]
    place = next((k for k, edge in enumerate(edges) if edge >= radius), None)
    scores = [record.kinds[kind].score for record in read_records(source.path) if record.finite]
    parts = [(float(sum(it.right[place:])) if place is not None else 0.0, float(it.labelled)) for it in scores]
    table = torch.tensor(parts, dtype=torch.float64).view(-1, 2)
    return Figure(whole.title, jackknife(table, lambda sums: sums[..., 0] / sums[..., 1]), len(scores))


def _interval(found: Mapping[str, float | None]) -> Interval:
    return Interval(
        *(math.nan if found.get(end) is None else float(found[end] or 0.0) for end in ("value", "low", "high"))
    )


def _unknown(what: str, name: str | None, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = get_close_matches(str(name), list(known), n=1)
    return f"there is no {what} {shown(name)}" + (f"; did you mean {shown(near[0])}?" if near else "")


def _threat(row: Mapping[str, Any]) -> str:
    return f"{row['norm']} ε = {row['eps'] or math.inf:g}"


def _told(row: Mapping[str, Any]) -> str:
    return f"{row['name']} ({row['norm']}, ε = {row['eps'] or math.inf:g})" if row["norm"] else str(row["name"])
