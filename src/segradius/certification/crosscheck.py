"""A certificate put to the test: attack the smoothed model inside the certified radius, then vote anew.

A certificate of error rate α may be wrong on a share α of images, and noisy votes differ from probabilities. So raw
flips prove nothing, and each statement is tested, with the number of pixels corrected for; see `Verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from scipy import special
from torch import Tensor

from segradius.attacks.making import make_attack
from segradius.attacks.task import Attack, Model
from segradius.certification.certificate import Certificate
from segradius.certification.noise import Noise
from segradius.certification.sampling import Sampling
from segradius.certification.smoothed import Smoothed
from segradius.certification.verdicts import AT_REST, CrossCheck, Verdict
from segradius.certification.votes import Votes, vote
from segradius.errors import InputError
from segradius.ledger import Ledger
from segradius.randomness import Randomness

#: CR-PGD whose weights come from the smoothed probabilities that it climbs, so they are the certified radii themselves.
CR_PGD = partial(make_attack, "cr_pgd", norm="l2", steps=10, samples=0, keep="last")


@dataclass(frozen=True, eq=False)
class Aim:
    """What an attack tries.

    Attributes:
        eps: l2 budget, below the radius of its victims.
        victims: (H, W) bool, the pixels to flip; what of them is not certified at ``eps`` is left out.
    """

    eps: float
    victims: Tensor


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
        image: (3, H, W) in [0, 1].
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
    if copies < 2:
        raise InputError(f"copies is {copies}; expected at least 2 to judge by")
    smoothed, keys = Smoothed(model, noise, samples, seed), Randomness(seed, (image_id,)).spawn("crosscheck")
    ledger = Ledger(1)

    def votes(point: Tensor) -> Votes:
        ledger.enter("certification", forward=copies)
        with model.frozen():
            return vote(model.logits, point, model.num_classes, Sampling(noise, 1, copies - 1), keys)

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


def aims(
    certificate: Certificate,
    votes: Votes,
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
    if not 0 < share < 1:
        raise InputError(f"share is {share}; expected a number in (0, 1), as a certificate says nothing at its radius")
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
    total = votes.first + votes.counts
    index = certificate.guess.unsqueeze(0)
    mine, rival = total.gather(0, index)[0], total.scatter(0, index, -1).amax(0)
    # Among votes for two classes, those for the one that is no less likely are half or more. The rival is chosen from
    # the same votes, so any of the others could have been.
    lost = _lower_tail(mine, mine + rival, torch.full_like(certificate.radius, 0.5)) * (len(total) - 1)
    bound = torch.special.ndtr((certificate.radius.double() - length) / certificate.sigma)
    below = _lower_tail(mine, total.sum(0), bound)
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


def _probit(votes: Votes, certificate: Certificate, victims: Tensor) -> float:
    """Mean over victims of Φ⁻¹ of the share of votes for the guess, half a vote from 0 and 1 at least."""
    total = votes.first + votes.counts
    hits = total.gather(0, certificate.guess.unsqueeze(0))[0][victims].double()
    return float(torch.special.ndtri((hits + 0.5) / (votes.n0 + votes.n + 1)).mean())
