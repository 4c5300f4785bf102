"""What attacks on certified pixels find, of an image and over images, against what the certificates promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy import stats

from segradius.ledger import Ledger

#: Name of the verdict on the image itself, which no attack has touched.
AT_REST = "at rest"

#: What is tested of certificates, see `Verdict`.
STATEMENTS = ("below", "lost")


@dataclass(frozen=True)
class Verdict:
    """What fresh noisy copies of a perturbed image say about the pixels that are certified at its distance.

    Attributes:
        length: ‖δ‖₂.
        pixels: How many pixels are certified at that distance.
        flipped: Pixels for which another class has more votes. Near a tie this is chance.
        lost: Pixels for which another class is likelier, beyond chance: the certified class is lost.
        below: Pixels whose probability is beyond chance below Φ((R − ‖δ‖₂)/σ), to which a radius R that rests on the
            probability of the guess alone bounds it from below. It shows long before a class is lost.
        used: By how much the attack lowered Φ⁻¹(p) of its victims, on average, in units of the ‖δ‖₂/σ that no
            perturbation of this length can exceed; None without one.
        finite: Whether all answers were.
    """

    length: float
    pixels: int
    flipped: int
    lost: int
    below: int
    used: float | None
    finite: bool


@dataclass(frozen=True)
class CrossCheck:
    """Verdicts on one image.

    Attributes:
        image: Its id.
        verdicts: `AT_REST`, and by the names of the aims.
        alpha: With what probability a verdict of an image may wrongly have a pixel lost, or below, if the certificate
            is right.
        ledger: Passes over the model: of the attacks on all its copies, and under ``certification`` of the new votes.
    """

    image: str
    verdicts: Mapping[str, Verdict]
    alpha: float
    ledger: Ledger = field(compare=False)


@dataclass(frozen=True)
class Summary:
    """Verdicts of one name over images, against what was promised of them.

    Attributes:
        images: How many.
        pixels: Certified pixels judged; ``flipped``, ``lost``, ``below``: see `Verdict`, over all images.
        images_lost: Images with a lost pixel.
        images_below: Images with a pixel below its bound.
        used: Mean over the images that have one.
        p_lost: Probability of as many such images, or more, from a certificate that holds.
        p_below: The same of the images below.
        rate: Share of images that a certificate that holds may have, α and the verdicts' own error together.
    """

    images: int
    pixels: int
    flipped: int
    lost: int
    below: int
    images_lost: int
    images_below: int
    used: float | None
    p_lost: float
    p_below: float
    rate: float

    def needed(self, bar: float) -> int | None:
        """The least number of such images whose probability is at most ``bar``; None where all are too few."""
        return next((k for k in range(1, self.images + 1) if _as_many(k, self.images, self.rate) <= bar), None)


def summarise(checks: Sequence[CrossCheck], alpha: float) -> dict[str, Summary]:
    """A `Summary` for each name of verdicts.

    Args:
        checks: Of images that are independent given the model.
        alpha: Promised error rate of an image's certificate, to which that of the verdicts is added.
    """
    names = dict.fromkeys(name for check in checks for name in check.verdicts)
    return {name: _summary([c for c in checks if name in c.verdicts], name, alpha) for name in names}


def refuted(found: Mapping[str, Summary], level: float = 0.001, statements: Sequence[str] = STATEMENTS) -> list[str]:
    """Which statements about a certifier that holds are refuted, at a level for all of them together.

    Args:
        found: From `summarise`.
        level: Probability of any refutation of a certifier that holds.
        statements: Which are made. Radii from bounds on two classes (`PixelRadii` of the form ``two``) promise the
            class and not its probability: ask them for ``("lost",)``.

    Returns:
        Statement, comma, and the name of the verdicts, as "below, at rest"; none for a certifier that passes.
    """
    bar = bar_of(found, level, statements)
    return [
        f"{what}, {name}" for name, each in found.items() for what in statements if getattr(each, f"p_{what}") <= bar
    ]


def bar_of(found: Mapping[str, Summary], level: float = 0.001, statements: Sequence[str] = STATEMENTS) -> float:
    """The level of a single statement, so that that of all together is ``level``: as `refuted` splits it."""
    return level / max(len(statements) * len(found), 1)


def _as_many(count: int, images: int, rate: float) -> float:
    return float(stats.binom.sf(count - 1, images, rate))


def _summary(checks: Sequence[CrossCheck], name: str, alpha: float) -> Summary:
    found = [check.verdicts[name] for check in checks]
    pixels, flipped, lost, below = (sum(getattr(v, n) for v in found) for n in ("pixels", "flipped", "lost", "below"))
    bad = [sum(getattr(v, n) > 0 for v in found) for n in ("lost", "below")]
    rate = min(alpha + max(check.alpha for check in checks), 1.0)
    p = [_as_many(count, len(found), rate) for count in bad]
    used = [v.used for v in found if v.used is not None]
    mean = sum(used) / len(used) if used else None
    return Summary(len(found), pixels, flipped, lost, below, bad[0], bad[1], mean, p[0], p[1], rate)
