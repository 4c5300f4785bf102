"""Certified accuracies of two certifications, image by image, at the radii that both speak of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segradius.core.sums import checked, read_sums
from segradius.evaluation.certified_by import OWN_RADII, common_radius, options_of
from segradius.evaluation.drops import CERTIFIED, About, Pairs, of_values
from segradius.evaluation.record import Record, unpack
from segradius.report.certify_tables import NAMES
from segradius.report.compare import read_report

#: Accuracies are certified beyond these multiples of σ, where each pixel has a radius of its own.
MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


def paired_certificates(name: str, before: Path, after: Path, allowed: float, unlike: str = "") -> list[Pairs]:
    """Rows of certified accuracies, and of the accuracy of the models themselves.

    Args:
        name: Of the measurement, where there are several.
        before: Folder of the baseline's certification.
        after: Of the candidate's.
        allowed: How much of a drop may be.
        unlike: Why nothing can be compared, where that is known.
    """
    reports = [read_report(folder) for folder in (before, after)]
    if why := unlike or _unlike(*reports):
        return _missing(name, reports[0], allowed, why)
    records = [read_records(folder) for folder in (before, after)]
    labelled = [{record.image: record.base_score.labelled for record in side} for side in records]
    for image, pixels in labelled[0].items():
        other = labelled[1].get(image, pixels)
        if other != pixels:
            why = f"image {image} has {pixels} labelled pixels for the baseline and {other} for the candidate"
            return _missing(name, reports[0], allowed, why)
    ours, theirs = (_accuracies(name, report, side) for report, side in zip(reports, records, strict=True))
    made = [of_values(about, values, theirs.get(about, {}), allowed) for about, values in ours.items()]
    return [row for row in made if row.before or row.after or not row.gaps]


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What certifies otherwise; empty where all is alike."""
    ours, theirs = ({**options_of(each["experiment"]), **_seen(each)} for each in (one, other))
    told = (
        f"{what} is {ours.get(what)} for the baseline and {theirs.get(what)} for the candidate"
        for what in [*ours, *theirs]
        if ours.get(what) != theirs.get(what)
    )
    return next(told, "")


def _missing(name: str, report: Mapping[str, Any], allowed: float, why: str) -> list[Pairs]:
    kinds = [row["name"] for row in report["rows"] if row["curve"]]
    abouts = [About(name, NAMES.get(kind, kind), "", 0.0, CERTIFIED) for kind in kinds]
    return [Pairs(about, allowed=allowed, missing=why) for about in abouts]


def _seen(report: Mapping[str, Any]) -> dict[str, Any]:
    """What must be alike beside the smoothing."""
    data = report["experiment"]["data"]
    return {f"data.{name}": data.get(name) for name in ("size", "protocol", "labels", "void")}


def read_records(folder: Path) -> list[Record]:
    """What a certification kept of each image.

    Raises:
        DamagedError: A file is not as it was written.
    """
    names = [name for name in read_sums(folder) if name.startswith("certificates/")]
    names = names or [f"certificates/{file.name}" for file in sorted(folder.glob("certificates/[!.]*.npz"))]
    return [unpack(checked(folder, name)) for name in names]


def _accuracies(name: str, report: Mapping[str, Any], records: Sequence[Record]) -> dict[About, dict[str, float]]:
    """By image, the accuracy of the model itself, and what is certified right beyond each radius."""
    ran, found = report["experiment"], dict[About, dict[str, float]]()
    bounds = next(row["curve"]["edges"] for row in report["rows"] if row["curve"])
    for record in records:
        base = record.base_score
        whole = sum(base.pixels.intersection) / base.labelled if record.finite and base.labelled else math.nan
        if report["experiment"]["data"].get("labels") != "predicted":  # then it is right by definition
            found.setdefault(About(name, NAMES["base"], "", 0.0, "PixAcc"), {})[record.image] = whole
        for kind, kept in record.kinds.items():
            score = kept.score
            for place, radius in _radii(kind, bounds, ran):
                beyond = sum(score.right[place:]) / score.labelled if record.finite and score.labelled else math.nan
                found.setdefault(About(name, NAMES[kind], "l2", radius, CERTIFIED), {})[record.image] = beyond
    return found


def _radii(kind: str, bounds: Sequence[float], ran: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Places in ``bounds`` of the radii that are looked at, and those; one where all pixels have the same."""
    if kind not in OWN_RADII:
        return [(0, common_radius(ran) or 0.0)]
    it = options_of(ran)
    wanted = [it["sigma"] * multiple for multiple in MULTIPLES] if "sigma" in it else it["eps"]
    wanted = [radius for radius in wanted if radius < bounds[-1]]
    places = [min(range(len(bounds)), key=lambda k: abs(bounds[k] - radius)) for radius in wanted]
    return [(place, bounds[place]) for place in dict.fromkeys(places)]
