"""Sanity verdicts: what a reader of robust accuracies must be told of how they were found, each a named check.

A check is a function of `Evidence` that is registered in `SANITY`; it gives a grade, what it saw, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import segradius.evaluation.sanity_attacks  # registers its checks
import segradius.evaluation.sanity_model  # noqa: F401  likewise
from segradius.core.bands import bands_of
from segradius.core.border import in_a_line
from segradius.core.contracts import Seen, surrogate_of
from segradius.evaluation.attack import Attacking
from segradius.evaluation.attack_summary import Summary
from segradius.evaluation.batch import is_priced
from segradius.evaluation.evidence import SANITY, Evidence, SanityVerdict, Tried
from segradius.evaluation.gallery import share_left
from segradius.evaluation.job import Experiment
from segradius.evaluation.run import Run
from segradius.evaluation.sanity_probe import PURPOSE, Probed, first_usable, probe
from segradius.evaluation.store import Store
from segradius.models.segmenter import Segmenter

#: Under which a store has what the look at two images showed.
NOTE = "sanity"


#: Checks that hold of attacks on the network that judges them, and why not of those on another.
BETWEEN = {
    **dict.fromkeys(
        ("iterative", "steps", "converged", "budget"), "what finds more there need not find more on this network"
    ),
    "black_box": "no attack of this run follows the gradient of this network",
    "masked": "no attack of this run follows the gradient of this network",
}
ITSELF = "attack the network itself, without --from"


def gathered(run: Run[Experiment], store: Store, summary: Summary) -> Evidence:
    """What the checks look at; two images are looked at where the store does not have that yet.

    Args:
        run: What was run.
        store: Its results; what two images showed is noted there.
        summary: Made of them.
    """
    experiment, aside = run.experiment, summary.set_aside
    tried = []
    for job in experiment.jobs:
        assert isinstance(job.task, Attacking)
        stored = store.results(job.key)
        results = [stored[image] for image in run.data.ids if image in stored and image not in aside]
        targeted = experiment.aim is not None
        left = {each.image: share_left(each, targeted=targeted) for each in results if each.valid}
        tried.append(Tried(job.task.plan, job.task.attack, job.task.asks, left))
    probed, why = probed_once(run, store)
    made_on = surrogate_of(run.model)
    return Evidence(
        run.facts(store), summary, tuple(tried), probed, why, made_on="" if made_on is None else made_on.name
    )


def probed_once(run: Run[Experiment], store: Store) -> tuple[Probed | None, str]:
    """What two images show, from the store if it was noted there; None, and why, where nothing is to be looked at."""
    model: Seen = surrogate_of(run.model) or run.model  # the one whose gradient is followed
    ids, predicted = run.data.ids, run.experiment.data.predicted
    tasks = [job.task for job in run.experiment.jobs]
    if is_priced(model) or not isinstance(model, Segmenter):
        return None, "every question to a target has its price, and it has no gradient: give the network as --model"
    if not any(isinstance(task, Attacking) and not task.asks for task in tasks):
        return None, "no attack of this run follows the gradient: add pgd to --attack"
    kept = store.noted(NOTE)
    known = None if kept is None else Probed.of(kept)
    if known is not None and known.asked and known.asked == tuple(ids[: len(known.asked)]):
        return known, ""
    samples = first_usable(run.data, model.num_classes, labels=not predicted, bands=bands_of(model))
    if known is None or known.asked != tuple(sample.id for sample in samples):
        try:
            known = probe(model, samples, run.data.classes.ignore_index, run.experiment.seed, predicted=predicted)
        except Exception as error:  # after hours of attacks, whose figures are as good as before
            return None, f"the look itself failed, {in_a_line(error)}: report it"
        store.note(NOTE, known.as_dict())
    return known, ""


def verdicts(evidence: Evidence) -> tuple[SanityVerdict, ...]:
    """What every check says, in the order of their names; one that raises is open, with the error."""
    return tuple(_verdict(name, evidence) for name in SANITY)


def _verdict(name: str, evidence: Evidence) -> SanityVerdict:
    if evidence.made_on and name in BETWEEN:
        return SanityVerdict(
            name, "open", f"adversarial images were made on {evidence.made_on}: {BETWEEN[name]}", ITSELF
        )
    try:
        return SanityVerdict(name, *SANITY[name](evidence))
    except Exception as error:  # what is wrong with a check is no reason to lose a run
        return SanityVerdict(name, "open", f"the check itself failed: {in_a_line(error)}", "report it")


def verdicts_told(found: Sequence[SanityVerdict], probed: Probed | None) -> dict[str, Any]:
    """What goes into ``results.json``: every verdict, and the passes that were made for them."""
    looked, passes = ([], {}) if probed is None else (list(probed.images), vars(probed))
    book = {purpose: passes.get(purpose, 0) for purpose in ("forward", "backward")}
    return {
        "verdicts": [asdict(each) for each in found],
        "checks": {"images": looked, "ledger": {PURPOSE: book}},
    }
