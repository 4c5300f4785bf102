"""The task `Contradicting`: attacks on what is promised with certainty, so that one contradiction refutes it.

Certificates by votes are tested in `segradius.evaluation.crosscheck`, as their promises may fail by chance.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, cast

import torch

from segradius.attacks.base import BLACK_BOX
from segradius.attacks.make import make_attack
from segradius.core.contracts import Seen
from segradius.core.declared import Count, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.evaluation.batch import Batch, Bench, is_priced
from segradius.evaluation.record import Record, unpack
from segradius.evaluation.rows import ImageResult, Kept, Rows
from segradius.metrics.counts import Pixels


@dataclass(frozen=True)
class Attacks:
    """Which attacks, and how long.

    Args:
        attacks: Names of white-box attacks.
        steps: Steps T of each.

    Raises:
        InputError: For a value out of range, an unknown attack, or one without gradients.
    """

    attacks: tuple[str, ...] = ("flips",)
    steps: Count = 10

    def __post_init__(self) -> None:
        check_fields(self)
        for attack in self.attacks:
            if attack.removeprefix("cr_") in BLACK_BOX:
                raise InputError(f"{attack} asks for scores; certificates are attacked with gradients, by flips say")
            make_attack(attack, norm="l2", eps=1.0, steps=self.steps)  # checks its name and options

    def task(self, way: Attackable) -> Contradicting:
        """Attacks on certificates of a way."""
        return Contradicting(way, self)


@dataclass(frozen=True)
class Found:
    """What one attack found in one image.

    Args:
        attack: Its name.
        at: What it was allowed, in words.
        labelled: Labelled pixels.
        promised: How many of them stay right at least.
        left: How many of them the attack left right.
        lost: Pixels of the image of which something was promised that does not hold.
        used: How much of what the theory allows was attained, at most 1; None where that has no measure.
        contradicted: Whether anything that was promised does not hold.
    """

    attack: str
    at: str
    labelled: int
    promised: int
    left: int
    lost: int
    used: float | None
    contradicted: bool


class Attackable(Protocol):
    """A way of certifying whose promises are certain."""

    key: ClassVar[str]

    def attacked(self, record: Record, batch: Batch, bench: Bench, asked: Attacks, ledger: Ledger) -> Iterable[Found]:
        """Attack the certificates of a batch of one image, and enter the passes in a ledger."""


@dataclass(frozen=True)
class Contradicting:
    """Attacks on every image's certificates, which come from the task `segradius.evaluation.certify.Certifying`.

    Args:
        way: How they were made.
        asked: How they are attacked.
    """

    way: Attackable
    asked: Attacks

    one_by_one: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    title: ClassVar[str] = "under attack"
    total_steps: ClassVar[int] = 0
    precision: ClassVar[torch.dtype | None] = None

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside model, data and seed."""
        return {self.way.key: asdict(cast(Any, self.way)), "crosscheck": asdict(self.asked)}

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model has gradients."""
        if is_priced(model):
            raise InputError("--attack on a certificate needs gradients of the model, and a target gives scores only")

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """Attack the certificates of a batch of one image."""
        (image,), started, book = batch.ids, time.perf_counter(), Ledger(1)
        record = unpack(bench.certificates[image])
        nothing = Pixels((), (), ())
        if not record.finite:
            return Rows(bench.key, [ImageResult(image, nothing, valid=False)])
        found = [asdict(each) for each in self.way.attacked(record, batch, bench, self.asked, book)]
        passes = int(book.forward.sum()), int(book.backward.sum())
        counted = dict(zip(("forward", "backward"), passes, strict=True))
        study = json.dumps({"attacked": found, "passes": {"crosscheck": counted}}).encode()
        seconds = time.perf_counter() - started
        result = ImageResult(image, nothing, passes={"crosscheck": passes}, seconds=seconds)
        return Rows(bench.key, [result], Kept(records={image: study}))


@dataclass(frozen=True)
class Stood:
    """What one attack found over all images.

    Attributes:
        attack: Its name.
        at: What it was allowed, in words.
        images: How many were attacked.
        promised: Share of the labelled pixels that stay right at least.
        left: Share of them that the attack left right.
        lost: Pixels of which something was promised that does not hold.
        used: How much of what the theory allows was attained in any image; None where that has no measure.
        contradicted: Images in which anything promised does not hold; one of them refutes the certificate.
    """

    attack: str
    at: str
    images: int
    promised: float
    left: float
    lost: int
    used: float | None
    contradicted: int


def stood(studies: Iterable[Mapping[str, Any]]) -> tuple[Stood, ...]:
    """From what `Contradicting` kept of each image to what each attack found.

    Example:
        >>> one = asdict(Found("flips", "ε = 1", 10, 4, 6, 0, 0.5, False))
        >>> stood([{"attacked": [one]}, {"attacked": [{**one, "left": 8, "used": 0.75}]}])[0].left
        0.7
    """
    rows: dict[tuple[str, str], list[Found]] = {}
    for study in studies:
        for each in study["attacked"]:
            rows.setdefault((each["attack"], each["at"]), []).append(Found(**each))
    return tuple(_stood(name, at, found) for (name, at), found in rows.items())


def _stood(name: str, at: str, found: Sequence[Found]) -> Stood:
    labelled = sum(each.labelled for each in found)
    promised, left = (sum(getattr(each, part) for each in found) for part in ("promised", "left"))
    used = [each.used for each in found if each.used is not None]
    shares = (promised / labelled, left / labelled) if labelled else (math.nan, math.nan)
    lost, caught = sum(each.lost for each in found), sum(each.contradicted for each in found)
    return Stood(name, at, len(found), shares[0], shares[1], lost, max(used, default=None), caught)
