"""Section 5.4: SegCertify as a defence against CR-PGD, beside networks that were hardened, at the same l2 budget.

Attacks: ``base`` climbs the network itself, and what it finds is carried over to the smoothed model; ``smoothed``
climbs that model, the mean over noisy copies. Answers: of the network; of the smoothed model, the majority of all
votes, which never abstains; of SegCertify, where an abstained pixel is wrong. The paper's budget is far beyond the
certified radius, so here a certificate speaks of the attacked image only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from segradius.attacks.make import make_attack
from segradius.certification.certificate import certified_counts
from segradius.certification.certifiers import SegCertify
from segradius.certification.smoothed import Smoothed
from segradius.certification.votes import Noise, Sampling, vote
from segradius.core.declared import Copies, Count, Eps, Inside, Majority, Seed, Sigma
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample
from segradius.metrics.counts import Counts, count
from segradius.models.segmenter import Segmenter
from segradius.paper.computed.spread import difference_of, ratio_of
from segradius.paper.computed.subject import COMPUTED, Subject, remembered

ATTACKS = ("clean", "base", "smoothed")
ANSWERS = ("network", "smoothed", "certified")


@dataclass(frozen=True)
class Defence:
    """What attacks, and what defends.

    Attributes:
        attack: A white-box attack.
        eps: Its l2 budget.
        steps: Its steps.
        samples: Noisy copies behind a gradient of the smoothed model.
        sampling: Noise and number of the copies that vote.
        test: The certificate.
        seed: Of all random numbers.
    """

    attack: str
    eps: float
    steps: int
    samples: int
    sampling: Sampling
    test: SegCertify
    seed: int


def attacked(model: Segmenter, sample: Sample, void: int, how: str, setting: Defence) -> tuple[torch.Tensor, Ledger]:
    """The image (3, H, W) under an attack of `ATTACKS`, and passes over the network."""
    image = sample.image.to(model.device)
    if how == "clean":
        return image, Ledger(1)
    options: dict[str, Any] = {"steps": setting.steps}
    smoothed = Smoothed(model, setting.sampling.noise, setting.samples, setting.seed)
    if how == "smoothed" and setting.attack.startswith("cr_"):
        options["samples"] = 0  # the smoothed probabilities that it climbs are those of the radius
    attack = make_attack(setting.attack, norm="l2", eps=setting.eps, **options)
    labels = sample.label[None].to(model.device)
    against = smoothed if how == "smoothed" else model
    found = attack(against, image[None], labels, ids=(sample.id,), seed=setting.seed, ignore_index=void)
    return found.adversarial[0], smoothed.charged(found.ledger) if how == "smoothed" else found.ledger


def judged(
    model: Segmenter, image: torch.Tensor, sample: Sample, void: int, setting: Defence
) -> tuple[dict[str, Counts], float]:
    """Counts of an image by answer, and the share of its labelled pixels that are abstained from."""
    keys, label = Randomness(setting.seed, (sample.id,)), sample.label
    with torch.no_grad(), model.frozen():
        votes = vote(model.logits, image, model.num_classes, setting.sampling, keys)
    certificate = setting.test(votes)
    found = {
        "network": network_counts(model, image, label, void),
        "smoothed": count(votes.majority.cpu()[None], label[None], model.num_classes, void),
        "certified": certified_counts(certificate, label.to(image.device), model.num_classes, void),
    }
    known = (label != void).to(image.device)
    return found, float((~certificate.certified[known]).double().mean())


def network_counts(model: Segmenter, image: torch.Tensor, label: torch.Tensor, void: int) -> Counts:
    """Counts of what the network itself answers on an image (3, H, W)."""
    with torch.no_grad(), model.frozen():
        answer = model.logits(image[None]).argmax(1)[0].cpu()
    return count(answer[None], label[None], model.num_classes, void)


def _passes(
    subjects: Sequence[Subject] = (), *, steps: int = 50, samples: int = 8, n0: int = 10, n: int = 100,
    limit: int = 12, smoothed: str = "gaussian", **others: Any,
) -> int:  # fmt: skip
    each = {True: 3 * (n0 + n + 1) + 2 * steps * (2 + samples), False: 2 + 3 * steps}
    return sum(each[on.role == smoothed] * min(limit, len(on.images)) for on in subjects)


@COMPUTED.register("segcertify", passes=_passes)
def segcertify(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    smoothed: str = "gaussian",
    attack: str = "cr_pgd",
    eps: Eps = 10.0,
    steps: Count = 50,
    samples: Count = 8,
    sigma: Sigma = 0.25,
    tau: Majority = 0.75,
    alpha: Inside = 0.001,
    n0: Copies = 10,
    n: Copies = 100,
    limit: Count = 12,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Section 5.4: pixel accuracy of smoothed networks and of others under the same attack at the same l2 budget.

    Args:
        subjects: Networks, each with its images.
        folder: Of the computation.
        smoothed: Role of those that are smoothed; the others answer for themselves.
        attack: A white-box attack.
        eps: Its l2 budget.
        steps: Its steps, T.
        samples: Noisy copies behind a gradient of the smoothed model.
        sigma: Noise of the smoothed model.
        tau: Threshold of SegCertify.
        alpha: Error rate of an image's certificate.
        n0: Noisy copies that name the classes.
        n: Noisy copies that test them.
        limit: How many of a subject's images.
        seed: Of all random numbers.

    Returns:
        ``rows``: for each network, attack (clean, base, smoothed) and answer (network, smoothed, certified) what the
        network is, ``pixacc`` in [0, 1] with its interval over images, ``abstained`` and ``n`` images. ``gaps``: the
        accuracy of each other network under ``base`` minus that of each smoothed one on the same data, under each
        attack and for each answer of `ANSWERS` but the network's, in points and paired over images: ``of``, ``minus``,
        ``attack``, ``answer``, ``difference``.

    Raises:
        InputError: No network is of the role that is smoothed.
    """
    if not any(on.role == smoothed for on in subjects):
        there = ", ".join(f"{on.label} ({on.role})" for on in subjects) or "none"
        raise InputError(f"segcertify: the networks are {there}; expected one of role {smoothed}, which is smoothed")
    setting = Defence(attack, eps, steps, samples, Sampling(Noise(sigma), n0, n), SegCertify(tau, alpha), seed)
    found: dict[str, list[dict[str, Any]]] = {}
    for on in subjects:
        given = {"network": on.known, "asked": repr(setting), "limit": limit, "smoothed": on.role == smoothed}
        work = partial(_of_subject, on, setting, limit, smooth=on.role == smoothed)
        found[on.label] = remembered(folder, on.label, given, work)
    rows = [line for on in subjects for line in _rows(on, found[on.label])]
    pairs = [
        (one, other)
        for one, other in product(subjects, subjects)
        if one.role != smoothed and other.role == smoothed and one.data == other.data
    ]
    gaps = [line for one, other in pairs for line in _gaps(one.label, other.label, found)]
    about = {"attack": attack, "eps": eps, "steps": steps, "sigma": sigma, "tau": tau, "n0": n0, "n": n}
    return {**about, "rows": rows, "gaps": gaps}


def _of_subject(on: Subject, setting: Defence, limit: int, *, smooth: bool) -> list[dict[str, Any]]:
    """For each image, attack and answer, pixels that are right and all labelled ones."""
    model, void, lines = on.load(), on.images.classes.ignore_index, list[dict[str, Any]]()
    for sample in _labelled(on, limit):
        for how in ATTACKS if smooth else ATTACKS[:2]:
            image, _ = attacked(model, sample, void, how, setting)
            if smooth:
                answers, abstained = judged(model, image, sample, void, setting)
            else:
                answers, abstained = {"network": network_counts(model, image, sample.label, void)}, 0.0
            known = int((sample.label != void).sum())
            for answer, each in answers.items():
                right = float(each.intersection.sum())
                share = abstained if answer == "certified" else 0.0
                line = {"image": sample.id, "attack": how, "answer": answer, "right": right, "labelled": known}
                lines.append({**line, "abstained": share * known})
    return lines


def _labelled(on: Subject, limit: int) -> list[Sample]:
    """The first images of a subject that have a labelled pixel."""
    found: list[Sample] = []
    for place in range(len(on.images)):
        if len(found) == limit:
            break
        sample = on.images[place]
        if bool((sample.label != on.images.classes.ignore_index).any()):
            found.append(sample)
    return found


def _rows(on: Subject, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    about = {name: getattr(on, name) for name in ("label", "family", "role", "seed", "norm", "data")}
    found = []
    for attack, answer in dict.fromkeys((line["attack"], line["answer"]) for line in lines):
        mine = [line for line in lines if (line["attack"], line["answer"]) == (attack, answer)]
        known = [line["labelled"] for line in mine]
        pixacc = ratio_of([line["right"] for line in mine], known)
        abstained = sum(line["abstained"] for line in mine) / sum(known)
        what = {"attack": attack, "answer": answer, "pixacc": pixacc, "abstained": abstained, "n": len(mine)}
        found.append({**about, **what})
    return found


def _gaps(one: str, other: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    def shares(label: str, attack: str, answer: str) -> dict[str, float]:
        mine = (line for line in found[label] if (line["attack"], line["answer"]) == (attack, answer))
        return {line["image"]: 100 * line["right"] / line["labelled"] for line in mine}

    lines = []
    for attack, answer in product(ATTACKS[1:], ANSWERS[1:]):
        first, second = shares(one, "base", "network"), shares(other, attack, answer)
        both = [image for image in first if image in second]
        gap = difference_of([first[image] for image in both], [second[image] for image in both])
        what = {"of": one, "minus": other, "attack": attack, "answer": answer}
        lines.append({**what, "difference": gap, "n": gap["n"]})
    return lines
