"""Two sides of a comparison read from their folders: rows of paired figures of all that both measured.

What cannot be paired is a row all the same, which says why: what is missing is not passed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segradius.core.escapes import from_cell, listed
from segradius.core.sums import checked
from segradius.evaluation.drops import About, Pairs, of_counts, of_values
from segradius.evaluation.reread import counts_of, differing_images
from segradius.metrics.counts import Counts, Pixels
from segradius.metrics.statistics import miou
from segradius.report.compare import CLEAN, Network, Plan, read_network
from segradius.report.paired_certificates import paired_certificates
from segradius.report.partners import Measured, measured, partners

DATABASE = "results.sqlite"
#: What must be the same in both for any of their figures to be comparable.
SAME = ("target", "data.size", "data.protocol", "data.labels", "data.void")


@dataclass(frozen=True)
class Allowed:
    """How much of a drop may be, in [0, 1].

    Attributes:
        drop: Of accuracy, Dice or certified accuracy.
        of_class: Of the IoU of a class; None where those are told and not judged.
    """

    drop: float
    of_class: float | None = None


def paired_rows(before: Path, after: Path, allowed: Allowed) -> tuple[list[Pairs], list[str]]:
    """Rows of figures of a baseline and a candidate, and notes on what is not among them.

    Args:
        before: Folder of the baseline, of a run or of a study.
        after: Of the candidate.
        allowed: What may be lost.

    Raises:
        InputError: A folder is neither, or has measurements that are alike.
        DamagedError: A file is not as it was written.
    """
    ours, theirs = measured(before), measured(after)
    pairs = partners(ours, theirs)
    rows: list[Pairs] = []
    notes: list[str] = []
    for one, other in pairs:
        name = one.name if len(ours) > 1 else ""
        if why := _absent(one, other):
            rows.append(Pairs(About(name, one.kind, "", 0.0, "all"), allowed=allowed.drop, missing=why))
        elif other is not None:
            stores = [each.path / DATABASE for each in (one, other)]
            why = differing_images(*stores) if all(store.is_file() for store in stores) else ""
            made, told = (
                (paired_certificates(name, one.path, other.path, allowed.drop, why), [])
                if one.kind == "certify"
                else _attacked(name, one.path, other.path, allowed, why)
            )
            # An image of another data set is another image, whatever it is called.
            rows += [replace(row, gaps={f"{one.parts['data']}/{x}": y for x, y in row.gaps.items()}) for row in made]
            notes += told
    met = {other.name for _, other in pairs if other is not None}
    if more := [each.name for each in theirs if each.name not in met]:
        notes.append(f"Only the candidate has {listed(more)}: compared with nothing.")
    return rows, list(dict.fromkeys(notes))


def _absent(one: Measured, other: Measured | None) -> str:
    if not one.is_there:
        return "the baseline has no results of it"
    if other is None:
        return f"the candidate has no measurement of its kind, data, model and seed ({one.seed})"
    return "" if other.is_there else "the candidate has no results of it"


def _attacked(name: str, before: Path, after: Path, allowed: Allowed, why: str) -> tuple[list[Pairs], list[str]]:
    one, other = read_network(before, "the baseline"), read_network(after, "the candidate")
    plans = [plan for plan in one.images if not (plan == CLEAN and one.predicted)]
    figure = one.measured if one.measure == "pixacc" else "pixels not where aimed"
    if why := _unlike(one, other) or why:
        return [Pairs(_about(name, plan, figure), allowed=allowed.drop, missing=why) for plan in plans], []
    dice = [_dice(folder) for folder in (before, after)]
    rows: list[Pairs] = []
    for plan in plans:
        if why := _not_alike(plan, one, other):
            rows.append(Pairs(_about(name, plan, figure), allowed=allowed.drop, missing=why))
            continue
        rows.append(of_values(_about(name, plan, figure), one.images[plan], other.images[plan], allowed.drop))
        if one.asked and plan in dice[0] and plan in dice[1]:
            rows.append(of_values(_about(name, plan, f"Dice: {one.asked}"), dice[0][plan], dice[1][plan], allowed.drop))
    rows += _worst_of(name, figure, one, other, allowed.drop)
    known = [plan for plan in plans if not _not_alike(plan, one, other)]
    by_class, notes = _classes(name, (before, after), (one, other), known, allowed.of_class)
    if only := [_titled(plan) for plan in other.images if plan not in one.images]:
        notes.append(f"Only the candidate has {listed(only)}: compared with nothing.")
    if more := [image for image in other.images[CLEAN] if image not in one.images[CLEAN]]:
        notes.append(f"Only the candidate has {len(more)} image(s), {listed(more)}: in no figure.")
    return [*rows, *by_class], notes


def _unlike(one: Network, other: Network) -> str:
    """Why no figure of two measurements can be compared; empty where they can."""
    for what in SAME:
        if one.setting[what] != other.setting[what]:
            return f"{what} is {one.setting[what]} for the baseline and {other.setting[what]} for the candidate"
    for image in one.images[CLEAN]:
        ours, theirs = (each.setting.get(f"labelled pixels of image {image}") for each in (one, other))
        if theirs is not None and ours != theirs:
            return f"image {image} has {ours} labelled pixels for the baseline and {theirs} for the candidate"
    if not set(one.images[CLEAN]) & set(other.images[CLEAN]):
        return f"no image is the same: {listed(list(one.images[CLEAN]))} and {listed(list(other.images[CLEAN]))}"
    return ""


def _not_alike(plan: Plan, one: Network, other: Network) -> str:
    """Why an attack has no partner; empty where it has one."""
    label, norm, eps = plan
    if plan not in other.images:
        budgets = [f"ε = {each[2]:g}" for each in other.images if each[:2] == (label, norm)]
        has = f"; it has {listed(budgets)}" if budgets else ""
        return f"the candidate has no {_titled(plan)}{has}"
    ending = f" of {label} ({norm}, ε = {eps:g})"
    mine, theirs = (
        {name.removesuffix(ending): value for name, value in each.setting.items() if name.endswith(ending)}
        for each in (one, other)
    )
    for option in [*mine, *theirs]:
        ours, candidate = (side.get(option, "absent") for side in (mine, theirs))
        if ours != candidate:
            return f"{option} is {ours} for the baseline and {candidate} for the candidate"
    return ""


def _worst_of(name: str, figure: str, one: Network, other: Network, allowed: float) -> Iterator[Pairs]:
    """Of each image what the worst of the attacks leaves that both had alike, at each norm and ε with several."""
    for norm, eps in one.threats:
        plans = [plan for plan in one.images if plan[1:] == (norm, eps) and not _not_alike(plan, one, other)]
        if len(plans) > 1:
            ours, theirs = (
                {image: _least(each, plans, image) for image in each.images[plans[0]]} for each in (one, other)
            )
            yield of_values(About(name, f"worst of {len(plans)}", norm, eps, figure), ours, theirs, allowed)


def _least(network: Network, plans: Sequence[Plan], image: str) -> float:
    values = [network.images[plan].get(image, math.nan) for plan in plans]
    return math.nan if any(map(math.isnan, values)) else min(values)


def _dice(folder: Path) -> dict[Plan, dict[str, float]]:
    """Dice of each image of what is asked with yes or no; NaN where it has none."""
    found: dict[Plan, dict[str, float]] = {}
    for line in csv.DictReader(io.StringIO(checked(folder, "per_image.csv").decode())):
        if "dice" in line:
            plan = (from_cell(line["attack"]), line["norm"], float(line["eps"] or 0))
            value = float(line["dice"]) if line["valid"] == "1" and line["dice"] else math.nan
            found.setdefault(plan, {})[from_cell(line["image"])] = value
    return found


def _classes(
    name: str,
    folders: tuple[Path, Path],
    networks: tuple[Network, Network],
    plans: Sequence[Plan],
    allowed: float | None,
) -> tuple[list[Pairs], list[str]]:
    """The IoU of each class, from the counts in the stores."""
    absent = [str(folder) for folder in folders if not (folder / DATABASE).is_file()]
    if absent:
        missing = f"{' and '.join(absent)} without {DATABASE}"
        why = [] if allowed is None else [Pairs(About(name, "all", "", 0.0, "IoU"), allowed=allowed, missing=missing)]
        return why, [f"Classes are not compared: {missing}."]
    sides = [counts_of(folder / DATABASE) for folder in folders]
    names = [_class_names(network, counts) for network, counts in zip(networks, sides, strict=True)]
    rows = []
    for plan in plans:
        images = [x for x in networks[0].images[plan] if all(x in side.get(plan, {}) for side in sides)]
        counts = [Counts.of([side[plan][image] for image in images]) for side in sides if images]
        if counts and counts[0].intersection.shape == counts[1].intersection.shape:
            for place, label in names[0].items():
                ours, theirs = (_column(each, place) for each in counts)
                rows.append(of_counts(_about(name, plan, f"IoU: {label}"), miou, images, ours, theirs, allowed))
    return rows, [] if rows else ["Classes are not compared: they are not the same in both."]


def _column(counts: Counts, place: int) -> Counts:
    return Counts(*(part[:, place : place + 1] for part in (counts.intersection, counts.predicted, counts.labelled)))


def _class_names(network: Network, counts: Mapping[Plan, Mapping[str, Pixels]]) -> dict[int, str]:
    """By place; a report names those that are labelled or predicted anywhere, in order."""
    found: dict[int, str] = {}
    for plan, images in counts.items():
        kept = [images[image] for image, value in network.images.get(plan, {}).items() if not math.isnan(value)]
        places = Counts.of(kept).union.sum(0).nonzero().flatten().tolist()
        told = [each["name"] for each in network.rows[plan].get("classes", ())] if plan in network.rows else []
        if len(told) == len(places):
            found |= dict(zip(places, told, strict=True))
    return dict(sorted(found.items()))


def _about(name: str, plan: Plan, figure: str) -> About:
    return About(name, plan[0], plan[1], plan[2], figure)


def _titled(plan: Plan) -> str:
    return f"{plan[0]} ({plan[1]}, ε = {plan[2]:g})" if plan[1] else plan[0]
