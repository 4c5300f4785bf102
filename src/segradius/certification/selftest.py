"""A self-test of a certifier, on a model for which the bound that it rests on is attained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from segradius.certification.certificate import Certificate
from segradius.certification.crosscheck import Summary, aims, crosscheck, summarise
from segradius.certification.votes import Noise, Votes
from segradius.core.contracts import LOGITS, Model
from segradius.core.randomness import Randomness

#: From a model, an image (B, H, W) and the key of the image to its votes and the certificate made of them.
Certifier = Callable[[Model, Tensor, Randomness], tuple[Votes, Certificate]]


def self_test(
    certifier: Certifier,
    sigma: float,
    alpha: float,
    *,
    images: int = 10,
    weakest: Sequence[int] = (1,),
    quantiles: Sequence[float] = (0.0, 0.5),
    copies: int = 1000,
    seed: int = 0,
) -> dict[str, Summary]:
    """Cross-check a certifier on grey pixels of all margins, each judged by its own brightness; takes seconds.

    A pixel of brightness ½ + σu/√3 is of class 1 with probability Φ(u) under noise of σ, and the best attack of length
    d on it leaves Φ(u − d/σ): the bound behind a certified radius. So a radius that is twice too large is
    refuted; a tenth too much is not to be told from chance by so few certificates. It is for certifiers of your own,
    from Python alone; `segradius certify --attack` cross-checks the built-in ones on a model.

    Args:
        certifier: What is tested.
        sigma: σ of the smoothed model as it is used.
        alpha: Error rate that the certifier promises for an image.
        images: How often a certificate is drawn, with new noise each time.
        weakest: Sizes of the groups of weakest pixels that are attacked.
        quantiles: Of the radii, as for `aims`.
        copies: Copies that judge.
        seed: Of all noise.

    Returns:
        As `summarise`; ask `refuted` for what it means.

    Example:
        >>> from segradius.certification import Sampling, SegCertify, refuted, vote
        >>> def certifier(model, image, keys):
        ...     votes = vote(model.logits, image, model.num_classes, Sampling(Noise(0.25), 10, 500), keys)
        ...     return votes, SegCertify()(votes)
        >>> refuted(self_test(certifier, 0.25, 0.001, images=3))
        []
    """
    model, image, checks = Brightness(), margins(sigma), []
    for number in range(images):
        name = f"self-test {number}"
        votes, certificate = certifier(model, image, Randomness(seed, (name,)))
        within = aims(certificate, votes, weakest=weakest, quantiles=quantiles)
        checks.append(
            crosscheck(model, Noise(sigma), image, certificate, within, copies=copies, image_id=name, seed=seed)
        )
    return summarise(checks, alpha)


class Brightness:
    """Two classes, the second where the mean of the three colours is above ½; each pixel for itself."""

    num_classes = 2
    name = "brightness"
    offers = frozenset({LOGITS})

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits (N, 2, H, W) of images (N, B, H, W)."""
        score = 8 * (images.sum(1) - 1.5)
        return torch.stack([-score, score], 1)

    def frozen(self) -> AbstractContextManager[None]:
        """Nothing to hold."""
        return nullcontext()


def margins(sigma: float, side: int = 8) -> Tensor:
    """An image (3, side, side) of grey pixels that lie u·σ above the decision boundary, u from 0 to 3 or to white."""
    most = min(3.0, 0.5 * math.sqrt(3) / sigma)
    u = torch.linspace(0, most, side * side).view(1, side, side)
    return (0.5 + sigma * u / math.sqrt(3)).expand(3, side, side).clamp(0, 1).contiguous()
