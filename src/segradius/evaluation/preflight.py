"""What is probably a mistake though nothing forbids it: found before a pass is spent on attacks, and told everywhere.

A check is a function of `Facts` that is registered in `CHECKS`; it says what it saw and what to do, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import segradius.evaluation.data_checks  # registers its checks
import segradius.evaluation.model_checks  # noqa: F401  likewise
from segradius.core.bands import bands_of
from segradius.core.contracts import SCORES, Seen, surrogate_of
from segradius.data.sample import SegmentationData
from segradius.evaluation.attack import Attacking
from segradius.evaluation.batch import class_names, is_priced, structure_names
from segradius.evaluation.facts import CHECKS, Facts, Finding
from segradius.evaluation.job import DataChoice, Measurement, ModelChoice
from segradius.evaluation.probe import Measured, chosen, measure, of_samples, wanted
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.store import Store
from segradius.metrics.counts import Counts
from segradius.models.decoding import Decoding
from segradius.models.doubts import doubts
from segradius.models.segmenter import Segmenter


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What the model says of itself, then what the checks say, in the order of their names."""
    own = (Finding(doubt.name, doubt.text, doubt.advice) for doubt in facts.doubts)
    return *own, *(found for name in CHECKS if (found := CHECKS[name](facts)) is not None)


def look_at(measurement: Measurement, model: Seen, data: SegmentationData, store: Store) -> Facts:
    """The facts as they are now; the few images are looked at where the store does not have that yet.

    Args:
        measurement: What is run.
        model: Its model.
        data: Its images.
        store: Its results so far; what was measured is noted there.

    Raises:
        InputError: The network gives sigmoids where logits are expected.
    """
    tasks, network = [job.task for job in measurement.jobs], _network(model)
    attacks = [task for task in tasks if isinstance(task, Attacking)]
    plans = [task.plan for task in attacks]
    follows = surrogate_of(model) is None and any(not task.asks for task in attacks)
    judged, aside = store.results(CLEAN), store.all_set_aside()
    mine = [judged[image].pixels for image in data.ids if image in judged]
    all_of_it = measurement.data.limit is None and measurement.data.stride == 1
    ids = data.ids if is_priced(model) and SCORES in model.offers else ()
    sure = [float(kept) for image in ids if (kept := store.record(CLEAN, image)) is not None]
    return Facts(
        measurement.model,
        measurement.data,
        data.ids,
        class_names(data.classes, model.num_classes),
        len(data.classes),
        tuple(dict.fromkeys(plan.threat for plan in plans)),
        follows,
        Counts.of(mine),
        all_of_it and len(mine) + len(aside) == len(data.ids),
        math.fsum(sure) / len(sure) if sure else math.nan,
        _measured(measurement, model, data, store, gradient=follows),
        () if network is None else tuple(doubts(network)),
        tuple(dict.fromkeys((plan.label, plan.options["loss"]) for plan in plans if "loss" in plan.options)),
        data.classes.ignore_index,
        structure_names(data.classes, model),
        _outputs_of(network),
    )


def _network(model: Seen) -> Segmenter | None:
    """A network in this process, also where it is asked as a target."""
    layer: object = model
    while layer is not None and not isinstance(layer, Segmenter):
        layer = getattr(layer, "target", None)
    return layer


def _outputs_of(network: Segmenter | None) -> str:
    return network.decode.kind if network is not None and isinstance(network.decode, Decoding) else ""


def _measured(
    measurement: Measurement, model: Seen, data: SegmentationData, store: Store, *, gradient: bool
) -> Measured:
    """What was noted, if it is of these images; measured anew, and noted, otherwise."""
    predicted = measurement.data.predicted
    kept = store.noted("preflight")
    known = Measured() if kept is None else Measured.of(kept)
    fits, ids = kept is not None and known.gradient >= gradient, data.ids
    if fits and known.images == tuple(ids[place] for place in wanted(len(data))):
        return known  # all could be used: none is read again
    samples = chosen(data, model.num_classes, labels=not predicted, bands=bands_of(model))
    if fits and known.images == tuple(sample.id for sample in samples):
        return known
    found = measure(model, data, samples, measurement.seed, gradient=gradient, predicted=predicted)
    store.note("preflight", found.as_dict())
    return found


def of_data(data: SegmentationData, threat: tuple[str, float] | None = None) -> tuple[Finding, ...]:
    """What the checks say of images and masks to be learnt, and of the threat that a network is hardened against."""
    classes, nothing = data.classes, ModelChoice("")
    seen = of_samples(chosen(data, len(classes)), classes.ignore_index)
    threats = () if threat is None else (threat,)
    choice, none = DataChoice(data.name), Counts.of([])
    facts = Facts(nothing, choice, data.ids, classes.names, len(classes), threats, False, none, False, math.nan, seen)
    return findings(replace(facts, ignore_index=classes.ignore_index))


def told(facts: Facts, found: Sequence[Finding]) -> dict[str, Any]:
    """What goes into ``results.json``: every warning, and what was looked at for them."""
    passes = {"forward": facts.seen.forward, "backward": facts.seen.backward}
    return {
        "warnings": [asdict(each) for each in found],
        "preflight": {"images": list(facts.seen.images), "ledger": {"preflight": passes}},
    }


def warnings(found: Sequence[Finding]) -> list[str]:
    """What stands under a table."""
    return [f"Warning ({each.name}): {each.line}{'' if each.line.endswith('?') else '.'}" for each in found]
