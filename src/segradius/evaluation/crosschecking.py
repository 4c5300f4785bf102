"""Attacks on every image's certificate, as a study of a certification, and their summary over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from segradius.attacks import BLACK_BOX, Attack, make_attack
from segradius.certification import Certificate, CrossCheck, Noise, Verdict, Votes, aims, crosscheck, refuted, summarise
from segradius.certification import Summary as CheckSummary
from segradius.certification.crosscheck import STATEMENTS, bar_of
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.models import Segmenter

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
    steps: int = 10
    samples: int = 8
    copies: int = 1000
    share: float = 0.99
    weakest: tuple[int, ...] = (1, 10)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"share is {self.share}; expected a number in (0, 1): at the radius nothing is promised")
        for name in ("steps", "samples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.copies < 2:
            raise InputError(f"check_copies is {self.copies}; expected at least 2")
        for attack in self.attacks:
            if attack.removeprefix("cr_") in BLACK_BOX:
                raise InputError(f"{attack} asks for scores; a cross-check takes white-box attacks, cr_pgd say")
            self.maker(attack)(eps=1.0)  # checks its name and options

    def maker(self, attack: str) -> Callable[..., Attack]:
        """From ``eps=`` to the attack: T steps, the last iterate, weights of its own confidences where it is guided."""
        guided: dict[str, Any] = {"samples": 0} if attack.startswith("cr_") else {}
        return partial(make_attack, attack, norm="l2", steps=self.steps, keep="last", **guided)

    def check_correction(self, correction: str) -> None:
        """Raise `InputError` unless the certificates promise something of whole images, which alone can be counted."""
        if correction not in ("bonferroni", "holm"):
            raise InputError(
                "a cross-check counts images in which a certificate fails, of which the correction "
                f"{correction} promises nothing: use holm or bonferroni"
            )

    def study(
        self, model: Segmenter, noise: Noise, votes: Votes, certificates: Mapping[str, Certificate], image: Tensor, *,
        alpha: float, image_id: str, seed: int, precision: torch.dtype | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Plain numbers: verdicts by attack, and by `OWN` after its name; all passes under the purpose ``crosscheck``.

        Args:
            model: The network.
            noise: Of the smoothed model.
            votes: Behind the certificates.
            certificates: ``segcertify`` and, where there are any, ``radii``, which are attacked at their least and at
                their middle length.
            image: (3, H, W).
            alpha: Error rate that the certificates promise.
            image_id: Keys the random numbers.
            seed: The same.
            precision: In which the certified model ran.
        """
        ledger, verdicts = Ledger(1), {}
        for kind, after, quantiles in (("segcertify", "", (0.0,)), ("radii", OWN, (0.0, 0.5))):
            if kind not in certificates:
                continue
            certificate = certificates[kind]
            within = aims(certificate, votes, weakest=self.weakest, quantiles=quantiles, share=self.share)
            for name in self.attacks:
                found = crosscheck(
                    InPrecision(model, precision), noise, image, certificate, within, attack=self.maker(name),
                    samples=self.samples, copies=self.copies, alpha=alpha, image_id=image_id, seed=seed,
                )  # fmt: skip
                verdicts[f"{name}{after}"] = {aim: asdict(verdict) for aim, verdict in found.verdicts.items()}
                ledger.add(found.ledger)
        passes = {"forward": int(ledger.forward.sum()), "backward": int(ledger.backward.sum())}
        return {"verdicts": verdicts, "passes": {"crosscheck": passes}}


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
    """From `CrossChecking.study` of each image, by id, to what each attack found.

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

    model: Segmenter
    precision: torch.dtype | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.model.num_classes

    @property
    def name(self) -> str:
        """Of the network."""
        return self.model.name

    @property
    def offers(self) -> frozenset[str]:
        """As the network."""
        return self.model.offers

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits (N, C, H, W), in this precision whatever is asked for."""
        return self.model.logits(images, self.precision)

    def frozen(self) -> AbstractContextManager[None]:
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
