"""Votes and mean confidences of the same noisy copies, in the same passes: two tallies of one stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from segradius.certification.certificate import Certificate
from segradius.certification.soft import ConfidenceTally, SoftRadii
from segradius.certification.votes import Sampling, Votes, VoteTally, draw
from segradius.core.contracts import Journal
from segradius.core.randomness import Randomness

#: From noisy copies (k, B, H, W) to the largest logit or score and its class, (k, H, W) each, and probabilities
#: (k, C, H, W). Votes are of logits where there are any, as a softmax may round two of them to one.
Confide: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def vote_softly(
    confide: Confide,
    image: Tensor,
    num_classes: int,
    sampling: Sampling,
    randomness: Randomness,
    soft: SoftRadii,
    *,
    progress: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> tuple[Votes, Certificate]:
    """Count votes as `segradius.certification.vote` does, and certify mean confidences by the same passes.

    Args:
        confide: The model.
        image: (B, H, W) in [0, 1].
        num_classes: C.
        sampling: How many copies, and of what noise; looks are at the votes.
        randomness: Key of the image, one id.
        soft: How mean confidences are certified.
        progress: Called with the number of copies just seen.
        journal: Keeps both tallies, so that a killed run goes on with the next copy.

    Returns:
        The votes, which are those without confidences; and the certificate, which is that without votes.

    Raises:
        InputError: The number of copies is chosen on the way and the bound holds for one that was fixed before, or
            values are no probabilities.

    Example:
        >>> import torch
        >>> from segradius.certification import Noise
        >>> image = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 4, 4)
        >>> confide = lambda x: (*x.max(1), (9 * x).softmax(1))
        >>> sampling, key = Sampling(Noise(0.1), 10, 100), Randomness(0, ("a",))
        >>> votes, found = vote_softly(confide, image, 3, sampling, key, SoftRadii())
        >>> votes.n, votes.guess.unique().tolist(), found.guess.unique().tolist(), bool(found.certified.all())
        (100, [0], [0], True)
    """
    kept = journal.load() if journal is not None else None
    votes = VoteTally.opened(image, num_classes, sampling, kept and kept["votes"])
    both = _Both(votes, soft.tally(image, num_classes, sampling, kept and kept["soft"]), votes.seconds)
    draw(confide, image, sampling, randomness, both, look=votes.look, progress=progress, journal=journal)
    return votes.votes(), soft.certificate(both.soft)


@dataclass
class _Both:
    votes: VoteTally
    soft: ConfidenceTally
    seconds: float = 0.0

    @property
    def done(self) -> int:
        return self.votes.done

    def add(self, answer: tuple[Tensor, Tensor, Tensor], second: bool) -> None:
        top, classes, probabilities = answer
        self.votes.add((top, classes), second)
        self.soft.add(probabilities, second)

    def standing(self) -> dict[str, Any]:
        self.votes.seconds = self.soft.seconds = self.seconds
        return {"done": self.done, "votes": self.votes.standing(), "soft": self.soft.standing()}
