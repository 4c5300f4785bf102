"""The files of attacks: all figures as JSON, a line for each attack and image, by class, by structure, by query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from segradius.core.storage import as_csv, as_json
from segradius.evaluation.attack_summary import CHECKING, Summary
from segradius.evaluation.class_summary import classes_csv
from segradius.evaluation.foreground import NOTHING_NAMED, Named, of_image
from segradius.evaluation.job import Experiment
from segradius.evaluation.rows import CLEAN, ImageResult, Rounded
from segradius.evaluation.schema import head
from segradius.evaluation.store import Store
from segradius.evaluation.trace import trace_csv

ABOUT = ("attack", "norm", "eps", "image", "valid")
COUNTED = ("pixels", "right", "pixacc", "hit", "eligible")
MEASURED = ("l1", "l2", "linf", "outside", "disagreement", "forward", "backward")
ROUNDED = ("rounded_right", "rounded_pixacc", "rounded_l1", "rounded_l2", "rounded_linf")


def results_json(
    experiment: Experiment,
    summary: Summary,
    attacks: Mapping[str, str],
    runtime: Mapping[str, Any],
    told: Mapping[str, Any] | None = None,
) -> str:
    """The whole report as JSON. ``identity`` depends on the experiment only; NaN is written as null.

    Args:
        experiment: What was run, with every default spelt out.
        summary: What came out.
        attacks: For each attack, the parts that it is made of.
        runtime: What changes no result: versions, device, batch size.
        told: What is probably a mistake, as `segradius.evaluation.preflight.told` has it.
    """
    report = {
        **head(runtime),
        "identity": experiment.identity,
        "experiment": experiment.as_dict(),
        "attacks": dict(attacks),
        "rows": [row.as_dict() for row in summary.rows],
        "paired_differences": [asdict(comparison) for comparison in summary.comparisons],
        "set_aside": summary.set_aside,
        **(told or {}),
        "digest": summary.digest and asdict(summary.digest),
        "runtime": dict(runtime),
    }
    return as_json(report)


def per_image_csv(experiment: Experiment, store: Store, ids: Sequence[str], named: Named = NOTHING_NAMED) -> str:
    """One line for each attack and image, in the order of the experiment and the data; times are left to the store.

    Args:
        experiment: What was run.
        store: Its results.
        ids: Images of the data set, in order.
        named: Names of classes and structures: Dice and IoU of what is asked with yes or no stand first.
    """
    aside = store.all_set_aside()
    ids = [image for image in ids if image not in aside]
    clean = [(CLEAN, "", "", CLEAN)]
    plans = [(plan.label, plan.norm, plan.eps, experiment.key(plan)) for plan in experiment.attacks]
    stored = ((about, store.results(key), store.rounded(key)) for *about, key in clean + plans)
    rows = (
        [*about, *_line(found[image], named), *_rounded(rounded.get(image))]
        for about, found, rounded in stored
        for image in ids
        if image in found
    )
    return as_csv((*ABOUT, *named.columns, *COUNTED, *MEASURED, *ROUNDED), rows)


def summary_structures_csv(summary: Summary) -> str | None:
    """One line for each attack and structure, as `summary_classes_csv` has them; None where there are none."""
    if not summary.structures:
        return None
    rows = (
        ((row.name, row.norm, row.eps), each)
        for row in summary.rows
        for each in (row.foreground.structures if row.foreground else ())
    )
    return classes_csv(rows, ("attack", "norm", "eps"), what="structure")


def summary_classes_csv(summary: Summary) -> str:
    """One line for each attack and class, shares in [0, 1] and the ends of their intervals."""
    rows = (((row.name, row.norm, row.eps), each) for row in summary.rows for each in row.classes)
    return classes_csv(rows, ("attack", "norm", "eps"))


def traces_csv(experiment: Experiment, store: Store, ids: Sequence[str]) -> str | None:
    """The trace of every image under every black-box attack; None where there is none."""
    found = [
        ((plan.label, plan.norm, plan.eps, image), traces[image])
        for plan in experiment.attacks
        if (traces := store.traces(experiment.key(plan)))
        for image in ids
        if image in traces
    ]
    return trace_csv(found) if found else None


def _rounded(seen: Rounded | None) -> list[Any]:
    """Of the image rounded to 8 bits; nothing where it was not looked at."""
    if seen is None or not seen.valid:
        return [""] * len(ROUNDED)
    right = sum(seen.pixels.intersection)
    shares = (right / sum(seen.pixels.labelled), seen.l1, seen.l2, seen.linf)
    return [right, *(f"{value:.9g}" for value in shares)]


def _line(result: ImageResult, named: Named) -> list[Any]:
    pixels, right = sum(result.pixels.labelled), sum(result.pixels.intersection)
    lengths = [f"{value:.9g}" for value in (result.l1, result.l2, result.linf, result.outside)]
    own = [book for purpose, book in result.passes.items() if purpose != CHECKING]
    passes = [sum(each) for each in zip(*own, strict=True)] or [0, 0]
    accuracy = f"{right / pixels:.9g}"
    goal = [result.hit, result.eligible]
    differing = "" if result.disagreement is None else result.disagreement
    asked = ["" if math.isnan(value) else f"{value:.9g}" for value in of_image(result.pixels)] if named.asked else []
    return [result.image, int(result.valid), *asked, pixels, right, accuracy, *goal, *lengths, differing, *passes]
