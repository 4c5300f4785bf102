"""The cross-check of certificates as a study of a certification: attacks inside the radius, judged by fresh copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from segradius.attacks import Attack, attack_options, make_attack
from segradius.certification import Noise
from segradius.certification.crosscheck import aims, crosscheck
from segradius.certification.verdicts import CrossCheck, Summary, Verdict, summarise
from segradius.errors import InputError
from segradius.evaluation.certify_runner import Study, Subject
from segradius.evaluation.certifying import Certification, CrossChecking
from segradius.evaluation.records import Record
from segradius.ledger import Ledger
from segradius.models import Segmenter

#: Sizes of the groups of weakest pixels that are attacked beside all.
WEAKEST = (1, 16)


def attackers(checking: CrossChecking) -> dict[str, Callable[..., Attack]]:
    """For each attack what makes it at an ε, keeping its last iterate.

    Raises:
        InputError: For an unknown attack, or one that has no last iterate to keep.
    """
    return {name: _attacker(name, checking.steps) for name in checking.attacks}


def crosscheck_study(experiment: Certification, model: Segmenter) -> Study:
    """A study that attacks every image inside its common radius.

    Args:
        experiment: With a cross-check.
        model: The network.
    """
    it, checking = experiment.smoothing, experiment.crosscheck
    assert checking is not None
    attacks = attackers(checking)

    def study(subject: Subject) -> tuple[Mapping[str, Any], Ledger]:
        certificate, ledger = subject.certificates["segcertify"], Ledger(1)
        within = aims(certificate, subject.votes, weakest=WEAKEST, share=checking.share)
        found = {}
        for name, attack in attacks.items() if within else ():
            check = crosscheck(
                model,
                Noise(it.sigma, it.clamp, subject.where),
                subject.sample.image,
                certificate,
                within,
                attack=attack,
                samples=checking.samples,
                copies=it.n,
                alpha=it.alpha,
                image_id=subject.sample.id,
                seed=experiment.seed,
            )
            ledger.enter("crosscheck", forward=int(check.ledger.forward[0]), backward=int(check.ledger.backward[0]))
            found[name] = {verdict: asdict(each) for verdict, each in check.verdicts.items()}
        return found, ledger

    return study


def crosscheck_summary(experiment: Certification, valid: Sequence[Record]) -> dict[str, dict[str, Summary]]:
    """For each attack the verdicts over images, against what was promised."""
    if experiment.crosscheck is None:
        return {}
    alpha = experiment.smoothing.alpha
    found: dict[str, dict[str, Summary]] = {}
    for name in experiment.crosscheck.attacks:
        kept = [(r.image, r.studies["crosscheck"][name]) for r in valid if name in r.studies.get("crosscheck", {})]
        checks = [
            CrossCheck(image, {aim: Verdict(**each) for aim, each in verdicts.items()}, alpha, Ledger(1))
            for image, verdicts in kept
        ]
        found[name] = summarise(checks, alpha)
    return found


def _attacker(name: str, steps: int) -> Callable[..., Attack]:
    takes = attack_options(name)
    if "keep" not in takes:
        raise InputError(f"{name} has no last iterate to keep, which a cross-check is about; choose cr_pgd, say")
    options: dict[str, Any] = {"steps": steps, "samples": 0, "keep": "last"}
    return partial(make_attack, name, norm="l2", **{o: value for o, value in options.items() if o in takes})
