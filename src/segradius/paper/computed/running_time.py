"""Section 5.2.2 of the paper: what the radius costs an attack in time, and what its passes say that it should.

Attacks take turns on every image, in an order that turns round from repeat to repeat, so that what else the machine
does, and how warm it is, is shared alike. Of the repeats of an image the least time is taken: nothing makes a run
quicker than it is. On a CPU it is time of the process, so that others on the machine are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

from segradius.attacks.base import Attack
from segradius.core.declared import Count, Eps, Seed
from segradius.core.randomness import Randomness
from segradius.models.segmenter import Segmenter
from segradius.paper.computed.attacking import BOTH, Budget, Plans, Shot, passes, shots
from segradius.paper.computed.spread import mean_of, ratio_of
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.radius.smoothing import pixel_radius

#: Copies behind the price of a noisy one, which the library makes some at a time.
COPIES = 8


@dataclass(frozen=True)
class Price:
    """Seconds of passes over an image.

    Attributes:
        forward: Of a forward pass.
        both: Of one with its backward pass.
        noisy: Of a noisy copy behind a radius.
    """

    forward: float
    both: float
    noisy: float


def expected_ratio(first: Mapping[str, int], second: Mapping[str, int], price: Price) -> float:
    """How much longer the second of two attacks should take by its passes alone.

    Args:
        first: Passes of an attack over an image: ``forward``, those for a ``radius`` among them, and ``backward``.
        second: Those of the other.
        price: Of passes.

    Example:
        >>> pgd = {"forward": 16, "backward": 16, "radius": 0}
        >>> cr_pgd = {"forward": 32, "backward": 16, "radius": 16}  # INT = M = 8, T = 16: one copy a step
        >>> expected_ratio(pgd, cr_pgd, Price(1.0, 2.5, 1.0)), expected_ratio(pgd, cr_pgd, Price(1.0, 2.5, 0.5))
        (1.4, 1.2)
    """

    def seconds(passes: Mapping[str, int]) -> float:
        plain = passes["forward"] - passes["backward"] - passes["radius"]
        return passes["backward"] * price.both + plain * price.forward + passes["radius"] * price.noisy

    return seconds(second) / seconds(first)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of the process on a CPU; elsewhere, those of the wall when the device has done what it was given."""
    if device.type == "cpu":
        return time.process_time

    def now() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return now


def _passes(
    subjects: Sequence[Subject] = (), *, attacks: Plans = BOTH, norm: str = "l2", eps: float = 1.5, steps: int = 50,
    preset: str = "", limit: int = 12, repeats: int = 3, **others: Any,
) -> int:  # fmt: skip
    budget = Budget(norm, eps, steps, preset)
    again = passes(subjects, budget, attacks, limit, 3 + COPIES)
    return repeats * again + passes(subjects, budget, attacks, 1, 3 + COPIES)


@COMPUTED.register("running_time", passes=_passes)
def running_time(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    attacks: Mapping[str, Any] = BOTH,
    norm: Literal["l1", "l2", "linf"] = "l2",
    eps: Eps = 1.5,
    steps: Count = 50,
    preset: str = "",
    limit: Count = 12,
    repeats: Count = 3,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Section 5.2.2: seconds an image of attacks, and the ratio to the first of them.

    Args:
        subjects: Networks, each with its images.
        folder: Of the computation.
        attacks: By label; the first is what the others are compared with.
        norm: Of the perturbation.
        eps: Its budget.
        steps: T.
        preset: As of a study.
        limit: How many of a subject's images.
        repeats: Of every attack on every image.
        seed: Of the attacks.

    Returns:
        ``rows``: for each network and attack `Subject.about`, ``attack``, ``n`` images, ``seconds`` an image with their
        interval, ``ratio`` to the first attack and ``overhead``, that less 1, with their intervals over images,
        ``expected`` of the ratio by passes, ``passes`` over an image (forward, of which radius, and backward), and
        ``each``, the seconds of the images. ``passes``: for each network the fields of `Price`. ``clock``: process (the
        seconds of all its threads) or wall.

    Raises:
        InputError: An attack or option is unknown.
    """
    budget = Budget(norm, eps, steps, preset)
    budget.attacks(attacks)
    rows, prices, clock = [], [], ""
    for on in subjects:
        asked = (budget, attacks, limit, repeats, seed)
        given = {"network": on.known, "asked": list(map(str, asked))}
        found = remembered(folder, on.label, given, partial(_of_subject, on, *asked))
        rows += found["rows"]
        prices.append(found["passes"])
        clock = found["clock"]
    return {"steps": steps, "repeats": repeats, "clock": clock, "rows": rows, "passes": prices}


def _of_subject(on: Subject, budget: Budget, plans: Plans, limit: int, repeats: int, seed: int) -> dict[str, Any]:
    model, made = on.load(), budget.attacks(plans)
    clock = clock_of(model.device)
    taken: dict[str, list[float]] = {label: [] for label in made}
    cost: dict[str, list[float]] = {"forward": [], "both": [], "noisy": []}
    told: dict[str, dict[str, int]] = {}
    for place, shot in enumerate(shots(on, model, limit)):
        runs: dict[str, Callable[[], Any]] = {
            label: partial(_attacked, shot, attack, model, seed) for label, attack in made.items()
        }
        parts: dict[str, Callable[[], Any]] = {
            "forward": partial(_passed, shot, model, back=False),
            "both": partial(_passed, shot, model, back=True),
            "noisy": partial(pixel_radius, model, shot.images, Randomness(seed, (shot.id,)), samples=COPIES),
        }
        if not place:  # what is made once is no part of the time
            told = {label: run() for label, run in runs.items()}
            for run in parts.values():
                run()
        for label, seconds in _least(runs, clock, repeats).items():
            taken[label].append(seconds)
        for name, seconds in _least(parts, clock, repeats).items():
            cost[name].append(seconds)
    price = Price(min(cost["forward"]), min(cost["both"]), min(cost["noisy"]) / COPIES)
    first = next(iter(made))
    rows = []
    for label in made:
        ratio = ratio_of(taken[label], taken[first])
        less = {**ratio, **{end: ratio[end] - 1 for end in ("value", "low", "high")}}
        expected = expected_ratio(told[first], told[label], price)
        about = {**on.about, "attack": label, "n": len(taken[label]), "seconds": mean_of(taken[label])}
        rows.append(
            {
                **about,
                "ratio": ratio,
                "overhead": less,
                "expected": expected,
                "passes": told[label],
                "each": taken[label],
            }
        )
    kind = "process" if model.device.type == "cpu" else "wall"
    return {"rows": rows, "passes": {**on.about, **asdict(price)}, "clock": kind}


def _least(runs: Mapping[str, Callable[[], Any]], clock: Callable[[], float], repeats: int) -> dict[str, float]:
    least = dict.fromkeys(runs, float("inf"))
    for repeat in range(repeats):
        for label in list(runs)[:: -1 if repeat % 2 else 1]:
            start = clock()
            runs[label]()
            least[label] = min(least[label], clock() - start)
    return least


def _attacked(shot: Shot, attack: Attack, model: Segmenter, seed: int) -> dict[str, int]:
    book = shot.attacked(attack, model, seed).ledger
    radius = int(book.passes["radius"][0][0]) if "radius" in book.passes else 0
    return {"forward": int(book.forward[0]), "backward": int(book.backward[0]), "radius": radius}


def _passed(shot: Shot, model: Segmenter, *, back: bool) -> None:
    images = shot.images.clone().requires_grad_(back)
    with torch.set_grad_enabled(back), model.frozen():
        logits = model.logits(images)
        if back:
            loss = functional.cross_entropy(logits, shot.labels, ignore_index=shot.void)
            torch.autograd.grad(loss, images)
