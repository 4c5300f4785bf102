"""Figures of the page as Plotly takes them: plain data, so that what they show can be compared with results.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from segradius.evaluation.certified_by import condition
from segradius.evaluation.certify_summary import CertifiedRow
from segradius.metrics.intervals import Interval
from segradius.report.cells import percent
from segradius.report.certify_curve import steps
from segradius.report.certify_tables import NAMES
from segradius.report.curve import Curve, band, grid_of
from segradius.report.story import CLEAN, Line, Plan, Story
from segradius.report.subject import SIGNS, WORST, Subject, at, budget

#: Okabe and Ito's on white, and brighter ones of the same hues on dark: told apart by the colour-blind, 3 : 1 to both.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B0468C", "#A66F00", "#4B4B4B", "#2F8FC4")
DARK = ("#56B4E9", "#FF8A4C", "#2FD6A3", "#F0A6D2", "#F0C64A", "#DDDDDD", "#9AD3F5")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
FIGURES = {"pixacc": "{}", "success": "pixels where aimed", "dice": "Dice", "miou": "MIoU",
           "rounded_pixacc": "{}, after rounding to 8 bits"}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A figure, or several of which one is looked at.

    Attributes:
        title: Above it.
        choices: By what to choose them; one has no name.
        note: Under it.
        alt: What it shows, for who does not see it.
    """

    title: str
    choices: Mapping[str, Mapping[str, Any]]
    note: str = ""
    alt: str = ""


def plain(words: str) -> str:
    """Text for Plotly, which takes tags in it for tags.

    Example:
        >>> plain("<b>a & b")
        '&lt;b&gt;a &amp; b'
    """
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def budget_plots(subject: Subject) -> Iterator[Plot]:
    """Accuracy against ε, one plot a norm, one line an attack and seed; from ε = 0, which is unattacked.

    Args:
        subject: What is told.
    """
    for norm in dict.fromkeys(line.plan[1] for _, line in subject.lines):
        known = [name for name in FIGURES if _has(subject, norm, name)]
        choices = {
            FIGURES[name].format(subject.words.pixacc): _budgets(subject, norm, name)
            for name in sorted(known, key=lambda name: name != ("dice" if subject.asked else subject.measure))
        }
        title = f"Against the budget in {SIGNS.get(norm, norm)}"
        note = (
            "Points are measured, at ε = 0 unattacked; lines between them only lead the eye. Bands: 95 % over images."
        )
        yield Plot(
            title, choices, note, f"{title}: {subject.measured} after each attack. The numbers are in the table."
        )


def _has(subject: Subject, norm: str, name: str) -> bool:
    if name == "success" and not subject.targeted:
        return False
    found = [line.shares[name] for _, line in subject.lines if line.plan[1] == norm and name in line.shares]
    return any(not math.isnan(each.value) for each in found)


def _budgets(subject: Subject, norm: str, name: str) -> dict[str, Any]:
    names = list(dict.fromkeys(_called(line) for _, line in subject.lines if line.plan[1] == norm))
    data: list[Mapping[str, Any]] = []
    ticks = {0.0: "0"}
    for story in subject.attacked:
        for place, attack in enumerate(names):
            mine = [line for line in story.lines if line.plan[1] == norm and _called(line) == attack]
            lines = sorted((line for line in mine if name in line.shares), key=lambda line: line.plan[2])
            if not lines:
                continue
            ticks |= {line.plan[2]: budget(norm, line.plan[2]) for line in lines}
            first = name.removeprefix("rounded_")
            clean = [] if name == "success" else [(0.0, story.lines[0].shares[first], story.lines[0])]
            points = [*clean, *((line.plan[2], line.shares[name], line) for line in lines)]
            said = [_told(line, found, story) for _, found, line in points]
            seeds = sum(any(_called(line) == attack for line in each.lines) for each in subject.attacked)
            shown = subject.attacked.index(story) == 0 or not _earlier(subject, story, norm, attack)
            label = attack + (f" ({seeds} runs)" if seeds > 1 else "")
            curve = [(x, found) for x, found, _ in points]
            data += _line(curve, label, said, place, shown=shown, faint=attack.startswith(WORST[:5]))
    measured = FIGURES[name].format(subject.words.pixacc)
    axes = {"xaxis": {"title": {"text": f"ε, {SIGNS.get(norm, norm)}"}, "tickvals": list(ticks),
                      "ticktext": list(ticks.values()), "rangemode": "tozero"},
            "yaxis": _percent(plain(measured))}  # fmt: skip
    return {"data": data, "layout": axes}


def _earlier(subject: Subject, story: Story, norm: str, attack: str) -> bool:
    before = subject.attacked[: subject.attacked.index(story)]
    return any(_called(line) == attack and line.plan[1] == norm for each in before for line in each.lines)


def _called(line: Line) -> str:
    return "worst of all, by image" if line.name.startswith(WORST) else line.name


def _told(line: Line, found: Interval, story: Story) -> str:
    where = "unattacked" if line.plan == CLEAN else f"{line.name}, {at(*line.plan[1:])}"
    return plain(f"{where}: {percent(found.value, found)} %, n = {line.images}, seed {story.seed}")


def _percent(title: str) -> dict[str, Any]:
    return {"title": {"text": f"{title}, %"}, "range": [0, 100]}


def _line(
    points: Sequence[tuple[float, Interval]],
    name: str,
    said: Sequence[str],
    place: int,
    *,
    shown: bool = True,
    faint: bool = False,
    shape: str = "linear",
) -> Iterator[dict[str, Any]]:
    """A line with markers, in its band where there are ends."""
    colour, group = LIGHT[place % len(LIGHT)], plain(name)
    meta = {"colour": place % len(LIGHT)}
    known = [(x, found) for x, found in points if not math.isnan(found.low)]
    if len(known) > 1:
        edge = {"type": "scatter", "mode": "lines", "x": [x for x, _ in known], "line": {"width": 0, "shape": shape},
                "hoverinfo": "skip", "showlegend": False, "legendgroup": group}  # fmt: skip
        yield {**edge, "y": [100 * found.low for _, found in known], "meta": {**meta, "band": "low"}}
        high = {"y": [100 * found.high for _, found in known], "fill": "tonexty", "fillcolor": _faded(colour)}
        yield {**edge, **high, "meta": {**meta, "band": "high"}}
    yield {
        "type": "scatter",
        "mode": "lines+markers",
        "name": group,
        "legendgroup": group,
        "showlegend": shown,
        "x": [x for x, _ in points],
        "y": [None if math.isnan(found.value) else 100 * found.value for _, found in points],
        "text": list(said),
        "hoverinfo": "text",
        "line": {"color": colour, "dash": "dash" if faint else "solid", "shape": shape, "width": 2},
        "marker": {"color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8},
        "meta": meta,
    }


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.1)"


def sandwich(subject: Subject) -> Plot | None:
    """Certified accuracy from below and what attacks left from above, against the l2 radius, both as steps.

    What an attack leaves at ε bounds every larger ball; what is certified at a radius holds for every smaller one. None
    where there is neither side, or attacks had an aim.

    Args:
        subject: What is told.
    """
    mine = [each for each in subject.lines if each[1].plan[1] == "l2" and "pixacc" in each[1].shares]
    below = list(_below(subject))
    if subject.targeted or not (mine or below):
        return None
    data = [*_above(subject, mine), *below]
    reach = max((max(trace["x"]) for trace in data if trace["meta"].get("side") == "below"), default=0.0)
    axes = {
        "xaxis": {"title": {"text": "radius, l2"}, "rangemode": "tozero"},
        "yaxis": _percent(plain(subject.words.pixacc)),
    }
    choices = {"": {"data": data, "layout": axes}}
    if reach and mine and reach < max(line.plan[2] for _, line in mine) / 2:
        near = {**axes, "xaxis": {**axes["xaxis"], "range": [0, 1.3 * reach]}}
        choices = {"near the certificate": {"data": data, "layout": near}, "whole range": choices[""]}
    return Plot(
        "Certified from below, attacked from above, in l2",
        choices,
        _caution(subject, bool(mine)),
        "Certified accuracy from below, and accuracy under attack from above, against the radius, as in the tables.",
    )


def _caution(subject: Subject, attacked: bool) -> str:
    if not attacked:
        return "Only the lower side is there: no attack in l2 was run."
    if not subject.certified:
        return "Only the upper side is there: nothing was certified."
    images = {line.images for _, line in subject.lines} | {story.certified_images for story in subject.certified}
    few = "" if len(images) < 2 else " They are also of different numbers of images."
    return (
        "Below the lower steps is proven, above the upper ones is refuted; the truth lies between. The proof is of the "
        f"smoothed network and the attacks are on the network itself, so the two sides need not meet.{few}"
    )


def _above(subject: Subject, mine: Sequence[tuple[Story, Line]]) -> Iterator[dict[str, Any]]:
    """The least that any attack left, at each ε; flat to the next, as a larger ball holds the smaller one."""
    if not mine:
        return
    story = subject.attacked[0]
    best: list[tuple[float, tuple[Story, Line]]] = []
    for eps in dict.fromkeys(line.plan[2] for _, line in mine):
        at_it = [(eps, each) for each in mine if each[1].plan[2] == eps]
        known = [*best[-1:], *at_it]  # what a smaller ball holds, a larger one holds too
        best.append((eps, min((found for _, found in known), key=lambda each: each[1].shares["pixacc"].value)))
    points = [(0.0, story.lines[0].shares["pixacc"])] + [(eps, line.shares["pixacc"]) for eps, (_, line) in best]
    said = [_told(story.lines[0], points[0][1], story)]
    said += [_told(line, line.shares["pixacc"], whose) for _, (whose, line) in best]
    for trace in _line(points, "strongest attack", said, 1, shape="hv"):
        yield trace | {"meta": {**trace["meta"], "side": "above"}}


def _below(subject: Subject) -> Iterator[dict[str, Any]]:
    for story in subject.certified:
        under = condition(story.experiment) + ", REFUTED" * bool(story.refuted)
        if story.whole:
            yield _whole(f"whole images, {under}", story)
        for row in story.answers:
            if row.curve is not None and not math.isnan(row.radius):
                yield _steps(row, f"{NAMES.get(row.name, row.name)}, {under}", story)


def _steps(row: CertifiedRow, name: str, story: Story) -> dict[str, Any]:
    shares, edges = steps(row)
    place = {"segcertify": 0, "adaptive": 2, "radii": 4, "soft": 3, "lipschitz": 4}.get(row.name, 5)
    x = [end for pair in pairwise(edges) for end in pair]
    y = [100 * share for share in shares for _ in range(2)]
    told = [plain(f"{name}: {value:.1f} % of pixels certified right at {radius:.4g}, n = {story.certified_images}")
            for radius, value in zip(x, y, strict=True)]  # fmt: skip
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": x,
        "y": y,
        "text": told,
        "hoverinfo": "text",
        "fill": "tozeroy",
        "fillcolor": _faded(LIGHT[place]),
        "line": {"color": LIGHT[place], "width": 2},
        "meta": {"colour": place, "side": "below"},
    }


def _whole(name: str, story: Story) -> dict[str, Any]:
    """What stays right of whole images, at least."""
    x, y = [radius for radius, _ in story.whole], [100 * share for _, share in story.whole]
    told = [plain(f"{name}: at least {value:.1f} % of pixels stay right at {radius:.4g}, n = {story.certified_images}")
            for radius, value in zip(x, y, strict=True)]  # fmt: skip
    line = {"color": LIGHT[5], "width": 2, "dash": "dot" if story.refuted else "solid"}
    filled = {} if story.refuted else {"fill": "tozeroy", "fillcolor": _faded(LIGHT[5])}
    more = {"type": "scatter", "mode": "lines", "name": plain(name), "hoverinfo": "text"}
    return {**more, **filled, "x": x, "y": y, "text": told, "line": line, "meta": {"colour": 5, "side": "below"}}


def query_plots(subject: Subject) -> Iterator[Plot]:
    """Accuracy against queries, one plot a norm, one line a black-box attack and ε: the mean over images in its band.

    Args:
        subject: What is told.
    """
    every = [(story, plan) for story in subject.attacked for plan in story.curves]
    said = "pixels not where aimed" if subject.targeted else subject.words.pixacc
    for norm in dict.fromkeys(plan[1] for _, plan in every):
        known = [(story, plan, story.curves[plan]) for story, plan in every if plan[1] == norm]
        names = list(dict.fromkeys(plan for _, plan, _ in known))  # of several seeds one name and colour
        first = {plan: story for story, plan, _ in reversed(known)}
        data = [
            trace
            for story, plan, curve in known
            for trace in _queries(story, plan, curve, names.index(plan), shown=first[plan] is story)
        ]
        budgets = [curve.queries for *_, curve in known]
        log = max(budgets) >= min(5000, 10 * min(budgets))
        axis = {"title": {"text": "queries an image"}, **({"type": "log"} if log else {"rangemode": "tozero"})}
        layout = {"xaxis": axis, "yaxis": _percent(f"{plain(said)}, mean over images")}
        dashed = any(not curve.verified for *_, curve in known)
        note = "Dashed: the points asked about, not judged inside the ball; the last point is the verdict." * dashed
        title = f"Against queries, in {SIGNS.get(norm, norm)}"
        yield Plot(title, {"": {"data": data, "layout": layout}}, note, f"{title}: mean {said} of each attack.")


def _queries(story: Story, plan: Plan, curve: Curve, place: int, *, shown: bool) -> Iterator[dict[str, Any]]:
    name = f"{curve.name}, ε = {budget(*plan[1:])}"
    log = curve.queries >= 5000
    grid = grid_of(curve.queries, log=log)
    values = curve.values(grid)
    mean, (low, high) = values.mean(0), band(values)
    points = [(float(x), Interval(*map(float, each))) for x, *each in zip(grid, mean, low, high, strict=True)]
    about = f"%, n = {len(curve.traces)}, seed {story.seed}"
    said = [plain(f"{name}, {x:,.0f} queries: {percent(found.value, found)} {about}") for x, found in points]
    for trace in _line(points, name, said, place, shown=shown, faint=not curve.verified, shape="hv"):
        yield {**trace, "mode": "lines"}
