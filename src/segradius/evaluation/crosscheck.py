"""The task `Checking`: attacks on every image's certificates, and what they found over the images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor

from segradius.attacks.base import BLACK_BOX, Attack
from segradius.attacks.make import make_attack
from segradius.certification.certificate import Certificate
from segradius.certification.crosscheck import (
    STATEMENTS,
    CrossCheck,
    Tested,
    Verdict,
    aims,
    bar_of,
    crosscheck,
    refuted,
    summarise,
)
from segradius.certification.crosscheck import Summary as CheckSummary
from segradius.core.contracts import Model, Seen
from segradius.core.declared import Count, Images, Inside, Range, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predicted
from segradius.evaluation.batch import Batch, Bench, is_priced
from segradius.evaluation.certify import described_way
from segradius.evaluation.certify_options import PRECISIONS, Smoothing, noisy_pixels
from segradius.evaluation.record import Polled, Record, unpack
from segradius.evaluation.rows import ImageResult, Kept, Rows
from segradius.metrics.counts import Pixels
from segradius.models.twins import Twins

#: What is counted of the pixels of an image whose certificates are attacked: that is in the verdicts.
NOTHING = Pixels((), (), ())

#: Behind the name of an attack on the radii of pixels.
OWN = ", own radii"


@dataclass(frozen=True)
class CrossChecking:
    """How certificates are attacked; see `segradius.certification.crosscheck`.

    Args:
        attacks: Names of white-box attacks in l2.
        steps: Steps T of each.
        samples: Noisy copies behind a gradient.
        copies: Fresh noisy copies that judge.
        share: Of the certified radius that an attack may use, below 1.
        weakest: Beside all certified pixels, groups of so many of the weakest are attacked.

    Raises:
        InputError: For a value out of range, an unknown attack, or one without gradients.
    """

    attacks: tuple[str, ...]
    steps: Count = 10
    samples: Count = 8
    copies: Annotated[int, Range("[2, 1e7]")] = 1000
    share: Inside = 0.99  # at the radius nothing is promised
    weakest: tuple[Images, ...] = (1, 10)

    def __post_init__(self) -> None:
        check_fields(self, copies="check_copies")
        for attack in self.attacks:
            if attack.removeprefix("cr_") in BLACK_BOX:
                raise InputError(f"{attack} asks for scores; a cross-check takes white-box attacks, cr_pgd say")
            self.maker(attack)(eps=1.0)  # checks its name and options

    def maker(self, attack: str) -> Callable[..., Attack]:
        """From ``eps=`` to the attack: T steps, the last iterate, weights of its own confidences where it is guided."""
        guided: dict[str, Any] = {"samples": 0} if attack.startswith("cr_") else {}
        return partial(make_attack, attack, norm="l2", steps=self.steps, keep="last", **guided)

    def task(self, way: Smoothing) -> Checking:
        """Attacks on certificates by votes; `InputError` where they promise nothing that can be counted."""
        return Checking(way, self)

    def check_correction(self, correction: str) -> None:
        """Raise `InputError` unless the certificates promise something of whole images, which alone can be counted."""
        if correction not in ("bonferroni", "holm"):
            raise InputError(
                "a cross-check counts images in which a certificate fails, of which the correction "
                f"{correction} promises nothing: use holm or bonferroni"
            )


@dataclass(frozen=True)
class Checking:
    """Attacks on every image's certificates, which come from the task `segradius.evaluation.certify.Certifying`.

    Args:
        smoothing: How they were made.
        checks: How they are attacked.

    Raises:
        InputError: They promise nothing that can be counted.
    """

    smoothing: Smoothing
    checks: CrossChecking

    one_by_one: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    title: ClassVar[str] = "under attack"
    total_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self.checks.check_correction(self.smoothing.correction)

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside model, data and seed."""
        return {"smoothing": described_way(self.smoothing), "crosscheck": asdict(self.checks)}

    @property
    def precision(self) -> torch.dtype | None:
        """As of what is attacked."""
        return PRECISIONS[self.smoothing.precision]

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model has gradients."""
        if is_priced(model):
            raise InputError(
                "--attack on a certificate needs the gradients of the model, and a target gives scores only"
            )

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """Attack the certificates of a batch of one image; where noise gave NaN there is nothing to attack."""
        (image,) = batch.ids
        record, started = unpack(bench.certificates[image]), time.perf_counter()
        if not record.finite:
            return Rows(bench.key, [ImageResult(image, NOTHING, valid=False)])
        verdicts, book = {}, Ledger(1)
        for kind, after, quantiles in (("segcertify", "", (0.0,)), ("radii", OWN, (0.0, 0.5))):
            if kind in record.kinds:
                for name, found in self._attacked(record, kind, quantiles, batch, bench).items():
                    verdicts[f"{name}{after}"] = {aim: asdict(verdict) for aim, verdict in found.verdicts.items()}
                    book.add(found.ledger)
        passes = int(book.forward.sum()), int(book.backward.sum())
        counted = dict(zip(("forward", "backward"), passes, strict=True))
        study = json.dumps({"verdicts": verdicts, "passes": {"crosscheck": counted}}).encode()
        seconds = time.perf_counter() - started
        result = ImageResult(image, NOTHING, passes={"crosscheck": passes}, seconds=seconds)
        return Rows(bench.key, [result], Kept(records={image: study}))

    def _attacked(
        self, record: Record, kind: str, quantiles: Sequence[float], batch: Batch, bench: Bench
    ) -> dict[str, CrossCheck]:
        """What each attack found of a kind of certificate, at these quantiles of its radii."""
        it, checks, device = self.smoothing, self.checks, batch.images.device
        certificate = _certificate(record, kind, it, device)
        polled = _polled(record)
        votes = Tested(polled.votes.to(device), polled.n)
        within = aims(certificate, votes, weakest=checks.weakest, quantiles=quantiles, share=checks.share)
        noise = it.sampling(noisy_pixels(bench.region, batch)).noise
        model = InPrecision(cast(Model, bench.model), PRECISIONS[it.precision])
        return {
            name: crosscheck(
                model, noise, batch.images[0], certificate, within, attack=checks.maker(name), samples=checks.samples,
                copies=checks.copies, alpha=it.alpha, image_id=record.image, seed=bench.seed,
            )
            for name in checks.attacks
        }  # fmt: skip


def _polled(record: Record) -> Polled:
    assert record.polled is not None  # certificates by votes are what is attacked here
    return record.polled


def _certificate(record: Record, kind: str, it: Smoothing, device: torch.device) -> Certificate:
    """As it was before it was kept; a level is that of single classes, the only ones that are attacked."""
    kept = record.kinds[kind]
    certified, radius = (kept.classes >= 0).to(device), kept.radius.to(device)
    return Certificate(_polled(record).guess.to(device), certified, radius, it.sigma, it.alpha, kept.promise)


@dataclass(frozen=True)
class Checked:
    """What one attack found over all images.

    Attributes:
        attack: Its name; with `OWN` behind it, on the radii of pixels.
        summaries: By aim.
        refuted: Which statements of the certificates that refutes.
        needed: In how many images a pixel must be lost, or below, to refute; None where all images are too few.
    """

    attack: str
    summaries: Mapping[str, CheckSummary]
    refuted: tuple[str, ...]
    needed: int | None


def summarise_checks(
    studies: Mapping[str, Mapping[str, Any]], alpha: float, form: str = "one", level: float = 0.001
) -> tuple[Checked, ...]:
    """From what `Checking` kept of each image, by id, to what each attack found.

    Args:
        studies: By image.
        alpha: Promised error rate of an image.
        form: Of the radii of pixels; ``"two"`` promises the class and no bound of its probability.
        level: Probability of any refutation by any attack, if the certificates hold.
    """
    attacks = list(dict.fromkeys(name for found in studies.values() for name in found["verdicts"]))
    rows = []
    for attack in attacks:
        checks = [_check(image, found["verdicts"][attack], alpha) for image, found in studies.items()]
        statements = ("lost",) if attack.endswith(OWN) and form == "two" else STATEMENTS
        found, share = summarise(checks, alpha), level / len(attacks)
        bar = bar_of(found, share, statements)
        needed = [each.needed(bar) for each in found.values()]
        least = min((count for count in needed if count is not None), default=None)
        rows.append(Checked(attack, found, tuple(refuted(found, share, statements)), least))
    return tuple(rows)


@dataclass(frozen=True, eq=False)
class InPrecision:
    """A network that always runs in one precision, as the certified one did."""

    model: Model
    precision: torch.dtype | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.model.num_classes

    @property
    def offers(self) -> frozenset[str]:
        """As the network."""
        return self.model.offers

    @property
    def twins(self) -> Twins | None:
        """Those of the network, in this precision."""
        twins: Twins | None = getattr(self.model, "twins", None)
        return None if twins is None else twins.within(lambda model: replace(self, model=model))

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits (N, C, H, W), in this precision whatever is asked for."""
        return self.model.logits(images, self.precision)

    def top_class(self, images: Tensor, precision: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Largest logit and its class, (N, H, W) each, likewise."""
        return predicted(self.model, images, self.precision)

    def frozen(self) -> AbstractContextManager[object]:
        """As the network's."""
        return self.model.frozen()


def _check(image: str, verdicts: Mapping[str, Mapping[str, Any]], alpha: float) -> CrossCheck:
    return CrossCheck(image, {aim: Verdict(**verdict) for aim, verdict in verdicts.items()}, alpha, Ledger(1))


def check_rows(checked: Sequence[Checked]) -> list[tuple[str, CheckSummary, str]]:
    """For each attack and aim: a name, what was found, and what it refutes."""
    return [
        (f"{each.attack}, {aim}", summary, _caught(each, aim))
        for each in checked
        for aim, summary in each.summaries.items()
    ]


def _caught(checked: Checked, aim: str) -> str:
    found = [text.partition(",")[0] for text in checked.refuted if text.partition(", ")[2] == aim]
    if not found and checked.needed is None:
        return "too few images"
    return " and ".join(found) or "no"
