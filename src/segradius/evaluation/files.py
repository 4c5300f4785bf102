"""The contents of the files of an output folder."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from segradius.evaluation.experiment import Experiment
from segradius.evaluation.store import CLEAN, ImageResult, Store
from segradius.evaluation.summary import Summary
from segradius.evaluation.traces import trace_csv

ABOUT = ("attack", "norm", "eps", "image", "valid", "pixels", "right", "pixacc", "hit", "eligible")
MEASURED = ("l1", "l2", "linf", "outside", "disagreement", "forward", "backward")
COLUMNS = (*ABOUT, *MEASURED)


def results_json(
    experiment: Experiment, summary: Summary, attacks: Mapping[str, str], runtime: Mapping[str, Any]
) -> str:
    """The whole report as JSON. ``identity`` depends on the experiment only; NaN is written as null.

    Args:
        experiment: What was run, with every default spelt out.
        summary: What came out.
        attacks: For each attack, the parts that it is made of.
        runtime: What changes no result: versions, device, batch size.
    """
    report = {
        "identity": experiment.identity,
        "experiment": experiment.as_dict(),
        "attacks": dict(attacks),
        "rows": [asdict(row) for row in summary.rows],
        "paired_differences": [asdict(comparison) for comparison in summary.comparisons],
        "set_aside": summary.set_aside,
        "runtime": dict(runtime),
    }
    return json.dumps(null(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def per_image_csv(experiment: Experiment, store: Store, ids: Sequence[str]) -> str:
    """One line for each attack and image, in the order of the experiment and the data; times are left to the store."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    clean = [(CLEAN, "", "", CLEAN)]
    plans = [(plan.name, plan.norm, plan.eps, experiment.key(plan)) for plan in experiment.attacks]
    for name, norm, eps, key in clean + plans:
        stored = store.results(key)
        writer.writerows([name, norm, eps, *_line(stored[image])] for image in ids if image in stored)
    return text.getvalue()


def traces_csv(experiment: Experiment, store: Store, ids: Sequence[str]) -> str | None:
    """The trace of every image under every black-box attack; None where there is none."""
    found = [
        ((plan.name, plan.norm, plan.eps, image), traces[image])
        for plan in experiment.attacks
        if (traces := store.traces(experiment.key(plan)))
        for image in ids
        if image in traces
    ]
    return trace_csv(found) if found else None


def _line(result: ImageResult) -> list[Any]:
    pixels, right = sum(result.pixels.labelled), sum(result.pixels.intersection)
    lengths = [f"{value:.9g}" for value in (result.l1, result.l2, result.linf, result.outside)]
    passes = [sum(each) for each in zip(*result.passes.values(), strict=True)] or [0, 0]
    accuracy = f"{right / pixels:.9g}"
    goal = [result.hit, result.eligible]
    differing = "" if result.disagreement is None else result.disagreement
    return [result.image, int(result.valid), pixels, right, accuracy, *goal, *lengths, differing, *passes]


def null(value: Any) -> Any:
    """``value`` for JSON, with None in place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: null(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
