"""Attacks on certified pixels, and what they find against what the certificates promise, in one image and many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from segradius.attacks.base import Attack
from segradius.attacks.make import make_attack
from segradius.certification.certificate import Certificate
from segradius.certification.smoothed import Smoothed
from segradius.certification.testing import upper_tail
from segradius.certification.votes import Noise, Sampling, Votes, by_rows, strongest_but, vote
from segradius.core.contracts import Model
from segradius.core.errors import at_least, within
from segradius.core.ledger import Ledger
from segradius.core.prediction import predicted
from segradius.core.randomness import Randomness

#: Name of the verdict on the image itself, which no attack has touched.
AT_REST = "at rest"

#: CR-PGD whose weights come from the smoothed probabilities that it climbs, so they are the certified radii themselves.
CR_PGD = partial(make_attack, "cr_pgd", norm="l2", steps=10, samples=0, keep="last")

#: What is tested of certificates, see `Verdict`.
STATEMENTS = ("below", "lost")


@dataclass(frozen=True, eq=False)
class Aim:
    """What an attack tries.

    Attributes:
        eps: l2 budget, below the radius of its victims.
        victims: (H, W) bool, the pixels to flip; what of them is not certified at ``eps`` is left out.
    """

    eps: float
    victims: Tensor


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


def crosscheck(
    model: Model,
    noise: Noise,
    image: Tensor,
    certificate: Certificate,
    aims: Mapping[str, Aim],
    *,
    attack: Callable[..., Attack] = CR_PGD,
    samples: int = 8,
    copies: int = 1000,
    alpha: float = 0.001,
    image_id: str = "0",
    seed: int = 0,
) -> CrossCheck:
    """Attack one image inside its certificate, once for each aim, and judge by copies that no attack has seen.

    Args:
        model: What was smoothed.
        noise: That of the smoothed model as it is used, whatever the certificate says of itself.
        image: (B, H, W) in [0, 1].
        certificate: Its own, made of votes. Pixels certified as a group of classes are left out.
        aims: From `aims`, or any.
        attack: Given ``eps=``, a white-box attack in l2. It must keep its last iterate: the best by flips is the image
            itself where none flips, though its pixels may have lost what was promised of them.
        samples: Copies behind the gradients; see `Smoothed`.
        copies: Fresh copies that judge.
        alpha: Error rate of ``lost`` and of ``below``, each, for the image.
        image_id: Keys the random numbers.
        seed: The same.

    Raises:
        InputError: For fewer than two copies.

    Example:
        >>> import segradius as sr
        >>> from segradius.certification import SegCertify
        >>> network = torch.nn.Conv2d(3, 2, 1).requires_grad_(False)
        >>> model, noise, image = sr.wrap(network), Noise(0.25), torch.rand(3, 8, 8)
        >>> votes = vote(model.logits, image, 2, Sampling(noise, 10, 200), Randomness(0, ("a",)))
        >>> found = SegCertify()(votes)
        >>> within = aims(found, votes, weakest=(1,))
        >>> verdicts = crosscheck(model, noise, image, found, within, image_id="a").verdicts
        >>> list(verdicts), verdicts["weakest 1"].lost
        (['at rest', 'all', 'weakest 1'], 0)
    """
    at_least(2, copies=copies)
    smoothed, keys = Smoothed(model, noise, samples, seed), Randomness(seed, (image_id,)).spawn("crosscheck")
    ledger = Ledger(1)

    def votes(point: Tensor) -> Votes:
        ledger.enter("certification", forward=copies)
        with model.frozen():
            return vote(partial(predicted, model), point, model.num_classes, Sampling(noise, 1, copies - 1), keys)

    rest = votes(image)
    everywhere = torch.ones_like(certificate.certified)
    verdicts = {AT_REST: _verdict(certificate, rest, 0.0, everywhere, alpha, None)}
    for name, aim in aims.items():
        victims = aim.victims & _alone(certificate, aim.eps)
        room = None if noise.where is None else noise.where.unsqueeze(0)
        found = attack(eps=aim.eps)(
            smoothed, image[None], certificate.guess[None], ids=(image_id,), seed=seed, changeable=room,
            victims=victims[None],
        )  # fmt: skip
        ledger.add(smoothed.charged(found.ledger))
        length = float((found.adversarial[0].double() - image.double()).square().sum().sqrt())
        after = votes(found.adversarial[0])
        fall = _probit(rest, certificate, victims) - _probit(after, certificate, victims)
        used = fall * noise.sigma / length if length else None
        verdicts[name] = _verdict(certificate, after, length, victims, alpha, used)
    return CrossCheck(image_id, verdicts, alpha, ledger)


class Tested(NamedTuple):
    """What `aims` looks at in `Votes`: how many of the n copies voted for the guess, (H, W) int64."""

    successes: Tensor
    n: int


def aims(
    certificate: Certificate,
    votes: Votes | Tested,
    *,
    weakest: Sequence[int] = (),
    quantiles: Sequence[float] = (0.0,),
    share: float = 0.99,
) -> dict[str, Aim]:
    """Budgets just inside the radii, each against all pixels certified there and against the weakest of them.

    A small budget spread over an image flips nothing; the few pixels whose class is least certain fall first.

    Args:
        certificate: Of the image.
        votes: Behind it; the fewer for the guess, the weaker.
        weakest: Sizes of groups of the weakest pixels.
        quantiles: Of the radii of the certified pixels. Where radii are equal, one of them is left.
        share: Of the radius, below 1.

    Raises:
        InputError: For a share that is not in (0, 1).
    """
    within("(0, 1)", share=share)  # at its radius a certificate says nothing
    radii = certificate.radius[_alone(certificate, 0.0)].double()
    found: dict[str, Aim] = {}
    for quantile in quantiles if radii.numel() else ():
        # "higher" takes a radius that some pixel has: between two, pixels of the lower one would drop out.
        eps = share * float(radii.quantile(quantile, interpolation="higher"))
        if any(eps == aim.eps for aim in found.values()):
            continue
        there = _alone(certificate, eps)
        label = f" at quantile {quantile:g}" if quantile else ""
        found[f"all{label}"] = Aim(eps, there)
        order = votes.successes.masked_fill(~there, votes.n + 1).flatten().argsort(stable=True)
        for count in weakest:
            chosen = torch.zeros_like(there).flatten()
            chosen[order[:count]] = True
            found[f"weakest {count}{label}"] = Aim(eps, chosen.view_as(there) & there)
    return found


def _alone(certificate: Certificate, eps: float) -> Tensor:
    """Pixels certified at ``eps`` as a single class, (H, W) bool."""
    there = certificate.at(eps)
    return there if certificate.level is None else there & (certificate.level == 0)


def _verdict(
    certificate: Certificate, votes: Votes, length: float, victims: Tensor, alpha: float, used: float | None
) -> Verdict:
    there = _alone(certificate, length)
    mine, total = _hits(votes, certificate), votes.first.sum(0) + votes.counts.sum(0)
    both = votes.first, votes.counts, certificate.guess.unsqueeze(0)
    rival = by_rows(lambda first, counts, but: strongest_but(first + counts, but), *both).long()
    # Among votes for two classes, those for the one that is no less likely are half or more. The rival is chosen from
    # the same votes, so any of the others could have been.
    lost = _lower_tail(mine, mine + rival, torch.full_like(certificate.radius, 0.5)) * (len(votes.counts) - 1)
    bound = torch.special.ndtr((certificate.radius.double() - length) / certificate.sigma)
    below = _lower_tail(mine, total, bound)
    levels = _levels(there, victims, alpha)
    counts = [int((bad & there).sum()) for bad in (rival > mine, lost <= levels, below <= levels)]
    return Verdict(length, int(there.sum()), counts[0], counts[1], counts[2], used, votes.finite)


def _levels(there: Tensor, victims: Tensor, alpha: float) -> Tensor:
    """Bonferroni's level of each pixel, half of α to the victims however few they are, (H, W)."""
    groups = [group for group in (there & victims, there & ~victims) if group.any()]
    levels = torch.full_like(there, -1.0, dtype=torch.float64)
    for group in groups:
        levels[group] = alpha / len(groups) / int(group.sum())
    return levels


def _lower_tail(hits: Tensor, trials: Tensor, p: Tensor) -> Tensor:
    """P(X ≤ hits) for X ~ Binomial(trials, p), pixel by pixel, float64."""
    parts = (hits.cpu().long().numpy(), trials.cpu().long().numpy(), p.double().cpu().numpy())
    return torch.from_numpy(special.bdtr(*parts)).to(hits.device)


def _hits(votes: Votes, certificate: Certificate) -> Tensor:
    """Votes of both lots for the class guessed by a certificate, (H, W) int64."""
    index = certificate.guess.unsqueeze(0)
    return (votes.first.gather(0, index).long() + votes.counts.gather(0, index))[0]


def _probit(votes: Votes, certificate: Certificate, victims: Tensor) -> float:
    """Mean over victims of Φ⁻¹ of the share of votes for the guess, half a vote from 0 and 1 at least."""
    hits = _hits(votes, certificate)[victims].double()
    return float(torch.special.ndtri((hits + 0.5) / (votes.n0 + votes.n + 1)).mean())


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


def _summary(checks: Sequence[CrossCheck], name: str, alpha: float) -> Summary:
    found = [check.verdicts[name] for check in checks]
    pixels, flipped, lost, below = (sum(getattr(v, n) for v in found) for n in ("pixels", "flipped", "lost", "below"))
    bad = [sum(getattr(v, n) > 0 for v in found) for n in ("lost", "below")]
    rate = min(alpha + max(check.alpha for check in checks), 1.0)
    p = [_as_many(count, len(found), rate) for count in bad]
    used = [v.used for v in found if v.used is not None]
    mean = sum(used) / len(used) if used else None
    return Summary(len(found), pixels, flipped, lost, below, bad[0], bad[1], mean, p[0], p[1], rate)


def _as_many(count: int, images: int, rate: float) -> float:
    return float(upper_tail(np.asarray(count), images, rate))
