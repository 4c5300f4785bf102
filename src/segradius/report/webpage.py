"""Finished runs as one page that needs nothing else: no network, no server, and no trust in the names that it shows."""

from __future__ import annotations

import base64
import hashlib
import importlib
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from segradius import __version__
from segradius.core.errors import missing_extra
from segradius.core.escapes import visible
from segradius.core.storage import null
from segradius.evaluation.certified_by import OWN_RADII, certified_by, condition
from segradius.metrics.intervals import Interval
from segradius.report.album import Album
from segradius.report.cells import percent
from segradius.report.certify_tables import NAMES
from segradius.report.lens import lenses
from segradius.report.plots import DARK, LIGHT, Plot, budget_plots, query_plots, sandwich
from segradius.report.sheets import attacks_sheet, certificates_sheet, least_sheet, left_sheet, overview
from segradius.report.story import Story
from segradius.report.subject import (
    Subject,
    at,
    attack_command,
    certify_command,
    least_of,
    sentences,
    subjects,
)

#: Grades of sanity checks, the worst first, with the sign that stands before each: colour alone tells nothing.
GRADES = {"fail": "✕", "warn": "!", "open": "?", "pass": "✓"}


def webpage(
    stories: Sequence[Story], *, title: str = "", images: int = 4, side: int = 320, findings: Sequence[str] = ()
) -> str:
    """The page that tells finished runs.

    Args:
        stories: At least one, from `segradius.report.story.read_story`.
        title: Above all; by default the models'.
        images: How many images of its gallery each attack has.
        side: Longest side of a picture, in pixels.
        findings: Sentences that go before all figures, the verdict of an assessment first; one that begins with a space
            belongs to that before it.

    Returns:
        The HTML.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    found, album = subjects(stories), Album(side)
    told = [_told(subject, album, images) for subject in found]
    plots = [plot for each in told for plot in each["plots"]]
    models = list(dict.fromkeys(subject.model for subject in found))
    few = " and ".join(models) if len(models) < 3 else f"each of {len(models)} models"
    facts = {
        "plots": [{name: dict(figure) for name, figure in plot.choices.items()} for plot in plots],
        "subjects": [each["lenses"] for each in told],
        "palettes": [_palette(subject) for subject in found],
        "words": [_words(subject) for subject in found],
        "colours": {"light": LIGHT, "dark": DARK},
    }
    scripts = [_part("plotly-basic.min.js"), _part("page.js")]
    page: str = _template().render(
        title=visible(title) or f"How robust is {few}?",
        subjects=told,
        findings=_grouped(findings),
        overview=overview(found) if len(found) > 1 else None,
        style=_part("page.css"),
        scripts=scripts,
        hashes=" ".join(map(_hash, scripts)),
        facts=null(facts),
        pictures=album.pictures,
        grades=GRADES,
        version=__version__,
    )
    return page


def _grouped(findings: Sequence[str]) -> list[list[str]]:
    """Sentences, each with those that belong to it.

    Example:
        >>> _grouped(["PASS", "One", "  of it", "Two"])
        [['PASS'], ['One', 'of it'], ['Two']]
    """
    groups: list[list[str]] = []
    for each in findings:
        if not each.startswith(" ") or not groups:
            groups.append([])
        groups[-1].append(visible(each.strip()))
    return groups


def _template() -> Any:
    try:
        jinja2 = importlib.import_module("jinja2")
    except ModuleNotFoundError as error:
        raise missing_extra("jinja2", "report") from error
    loader = jinja2.DictLoader({"page": _part("page.html.j2")})
    kept: Any = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return kept.get_template("page")


def _part(name: str) -> str:
    return files("segradius.report").joinpath("page", name).read_text("utf-8")


def _hash(script: str) -> str:
    """A script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _told(subject: Subject, album: Album, images: int) -> dict[str, Any]:
    """What the template needs of a subject."""
    queries, between = list(query_plots(subject)), sandwich(subject)
    plots: dict[str, list[Plot]] = {
        "budgets": list(budget_plots(subject)),
        "between": [between] if between else [],
        "queries": queries,
    }
    sheets = (
        (attacks_sheet, subject.attacked),
        (certificates_sheet, subject.certified),
        (least_sheet, [story for story in subject.certified if story.least]),
        (left_sheet, [story for story in subject.certified if story.left]),
    )
    return {
        "model": subject.model,
        "data": subject.data,
        "title": subject.title,
        "sentences": sentences(subject),
        "tiles": _tiles(subject),
        "alarms": [(story.run.name, each) for story, each in subject.alarms],
        "verdicts": sorted(subject.verdicts, key=lambda each: _rank(each[1].grade)),
        "graded": any(story.verdicts is not None for story in subject.stories),
        "groups": plots,
        "plots": [plot for group in plots.values() for plot in group],
        "lenses": lenses(subject, album, images),
        "tables": [sheet(subject) for sheet, there in sheets if there],
        "promises": _promises(subject),
        "absent": [(story.run.name, _lacks(story), story.command) for story in subject.stories if story.absent],
        "aside": [(story.run.name, *each) for story in subject.stories for each in story.set_aside.items()],
        "asks": {"attack": attack_command(subject), "certify": certify_command(subject)},
        "words": subject.words,
        "runs": [(story, visible(story.command)) for story in subject.stories],
        "sets": any(story.structures for story in subject.attacked),
    }


def _lacks(story: Story) -> str:
    """What is not in a folder, and what it would say."""
    return "; ".join(f"{file} ({what})" for file, what in story.absent)


def _promises(subject: Subject) -> list[tuple[str, str]]:
    """What is certified, in words, each once."""
    found = [
        (f"{NAMES.get(name, name)}, {condition(story.experiment)}" + ", REFUTED" * bool(story.refuted), told)
        for story in subject.certified
        for name, told in story.promises.items()
    ]
    return list(dict.fromkeys(found))


def _rank(grade: str) -> int:
    return list(GRADES).index(grade) if grade in GRADES else len(GRADES)


def _words(subject: Subject) -> dict[str, Any]:
    said, aimed = subject.words, subject.targeted
    return {"label": said.label, "right": said.right, "wrong": said.wrong, "pixacc": said.pixacc,
            "accuracy": said.accuracy, "changed": list(said.changed),
            "asked": bool(subject.asked), "left": "not where aimed" if aimed else said.right,
            "part": "structure" if any(story.structures for story in subject.attacked) else "class"}  # fmt: skip


def _palette(subject: Subject) -> dict[str, Any] | None:
    known = next((story.palette for story in subject.attacked if story.palette), None)
    if known is None:
        return None
    return {"names": list(known.names), "colours": [list(each) for each in known.colours], "void": known.void}


def _tiles(subject: Subject) -> list[tuple[str, str, str]]:
    """What is seen from afar: a figure, its interval, and what it is."""
    found = []
    if subject.attacked:
        line = subject.attacked[0].lines[0]
        if subject.asked and "dice" in line.shares:
            found.append((*_large(line.shares["dice"]), "Dice unattacked"))
        found.append((*_large(line.shares["pixacc"]), f"{subject.right} unattacked"))
    for _, line in subject.strongest:
        what = subject.measured if subject.targeted else subject.right
        found.append((*_large(line.shares[subject.measure]), f"{what} at {at(*line.plan[1:])}"))
    if subject.certificate:
        story, row = subject.certificate
        share = row.pixacc
        what = f"own radii, {row.radius:.3g} on average" if row.name in OWN_RADII else f"l2 {row.radius:.3g}"
        if story.whole:
            radius, least = least_of(story)
            share, what = Interval(least, math.nan, math.nan), f"l2 {radius:.3g} of each image, at least"
        elif certified_by(story.experiment) == "masks":
            what = f"one square, {condition(story.experiment)}"
        found.append((*_large(share), f"certified within {what}"))
    return found


def _large(found: Interval) -> tuple[str, str]:
    value, bracket, rest = percent(found.value, found).partition(" [")
    return f"{value} %", f"[{rest}" if bracket else "no interval"
