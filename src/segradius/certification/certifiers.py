"""From votes to certificates: SegCertify's common radius, a radius of each pixel, and groups of classes.

SegCertify is of Fischer, Baader & Vechev (ICML 2021); adaptive certification over a hierarchy of Anani et al. (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Annotated, Literal

import torch
from torch import Tensor

from segradius.certification.certificate import Certificate, rounded_down
from segradius.certification.testing import (
    CORRECTIONS,
    anytime_lower,
    anytime_p_values,
    clopper_pearson_lower,
    p_values,
    rejected,
)
from segradius.certification.votes import Votes, by_rows, strongest_but
from segradius.core.declared import Count, Inside, Majority, Part, check_fields, only_with
from segradius.core.errors import InputError, unknown_name


@dataclass(frozen=True)
class SegCertify:
    """Certify pixels whose class is likelier than τ under noise, at the common radius σΦ⁻¹(τ).

    Args:
        tau: τ in [½, 1): larger certifies a larger radius for fewer pixels.
        alpha: Error rate that is promised for the image, in the sense of the correction.
        correction: For the number of pixels tested; see `segradius.certification.testing.rejected`.
        k: Of the correction ``kfwer``.

    Raises:
        InputError: For a value out of range, or an unknown correction.

    Example:
        >>> import torch
        >>> from segradius.certification import Noise, Sampling, vote
        >>> from segradius.core.randomness import Randomness
        >>> image = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 4, 4)
        >>> votes = vote(lambda x: x, image, 3, Sampling(Noise(0.25), 10, 100), Randomness(0, ("a",)))
        >>> found = SegCertify()(votes)
        >>> found.guess.unique().tolist(), round(found.radius.max().item(), 4)
        ([0], 0.1686)
    """

    tau: Majority = 0.75
    alpha: Inside = 0.001
    correction: str = "holm"
    k: Annotated[Count, only_with(correction=["kfwer"])] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        CORRECTIONS[self.correction]

    def radius(self, sigma: float) -> float:
        """σΦ⁻¹(τ), in pixel units."""
        return sigma * NormalDist().inv_cdf(self.tau)

    @property
    def promise(self) -> str:
        """What the error rate refers to."""
        return str(CORRECTIONS.facts(self.correction)["promise"]).format(k=self.k)

    def __call__(self, votes: Votes) -> Certificate:
        """The certificate of an image that follows from its votes."""
        return self.certify(votes, votes.successes)

    def certify(self, votes: Votes, successes: Tensor, level: Tensor | None = None) -> Certificate:
        """As above, for the later votes (H, W) that count for the guess, which may be those of its group."""
        test = anytime_p_values if votes.looks else p_values
        p = test(successes, votes.n, self.tau)
        passed = rejected(p, self.alpha, self.correction, self.k) & votes.finite
        radius = rounded_down(self.radius(votes.sigma) * passed.double())
        return Certificate(votes.guess, passed, radius, votes.sigma, self.alpha, self.promise, level)

    def decided(self, most: int, undecided: float = 0.0) -> Callable[[Votes], bool]:
        """A rule for `Sampling.enough`: stop once nearly every pixel is certified or beyond hope.

        Beyond hope is a pixel that would not be certified though all copies still to come voted for it. Stopping is
        free, as the p-values of votes that were looked at hold at any time.

        Args:
            most: n, the copies that may be drawn.
            undecided: Share of the pixels that may be left undecided.
        """

        def enough(votes: Votes) -> bool:
            open_ = self.open_after(votes.successes, votes.n, most)
            return int(open_.sum()) <= undecided * open_.numel()

        return enough

    def open_after(self, successes: Tensor, trials: int, most: int) -> Tensor:
        """(H, W) bool: pixels that are not certified, and would be if all copies still to come voted for them.

        Args:
            successes: (H, W) int64, votes for the guess.
            trials: Of so many copies, drawn with looks.
            most: n, the copies that may be drawn.
        """
        hope, now = (
            rejected(anytime_p_values(hits, n, self.tau), self.alpha, self.correction, self.k)
            for hits, n in ((successes + (most - trials), most), (successes, trials))
        )
        return hope & ~now


@dataclass(frozen=True)
class PixelRadii:
    """Certify each pixel at its own radius: σΦ⁻¹(p̲), or ½σ(Φ⁻¹(p̲) − Φ⁻¹(p̄)) with a bound on the runner-up.

    p̲ is the exact (Clopper–Pearson) lower bound of the probability of the guess; of votes that were looked at, that of
    `anytime_lower`. The error rate is split evenly over the pixels tested, so that all radii of an image hold together.

    Args:
        alpha: Error rate that is promised for the image.
        form: ``"one"`` bounds the guess alone (Eq. 8 with a bound); ``"two"`` bounds every other class too, with half
            of the error rate (Eq. 3), which certifies pixels whose class has less than half of the votes.
        simultaneous: Whether the radii hold together; otherwise each holds for itself, with probability 1 − α.

    Raises:
        InputError: For a value out of range.
    """

    alpha: Inside = 0.001
    form: Literal["one", "two"] = "one"
    simultaneous: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, votes: Votes) -> Certificate:
        """The certificate of an image that follows from its votes."""
        share = self.alpha / max(votes.guess.numel(), 1) if self.simultaneous else self.alpha
        normalised = (self._one if self.form == "one" else self._two)(votes, share)
        sound = (normalised > 0) & votes.finite
        radius = rounded_down(torch.where(sound, votes.sigma * normalised, 0.0))
        promise = "image" if self.simultaneous else "pixel"
        return Certificate(votes.guess, radius > 0, radius, votes.sigma, self.alpha, promise)

    def _one(self, votes: Votes, alpha: float) -> Tensor:
        return _quantile(_bound(votes)(votes.successes, votes.n, alpha))

    def _two(self, votes: Votes, alpha: float) -> Tensor:
        bound = _bound(votes)
        low = bound(votes.successes, votes.n, alpha / 2)
        others = max(len(votes.counts) - 1, 1)
        # The bound grows with the count, so that of the strongest rival bounds them all.
        high = 1 - bound(votes.n - votes.rival, votes.n, alpha / 2 / others)
        return 0.5 * (_quantile(low) - _quantile(torch.minimum(high, 1 - low)))


def _bound(votes: Votes) -> Callable[[Tensor, int, float], Tensor]:
    """The lower bound of a probability that holds for votes: at any time where they were looked at."""
    return anytime_lower if votes.looks else clopper_pearson_lower


def _quantile(p: Tensor) -> Tensor:
    """Φ⁻¹(p) in float64."""
    found: Tensor = torch.special.ndtri(p.double())
    return found


@dataclass(frozen=True)
class Adaptive:
    """SegCertify on the finest level of a hierarchy at which a pixel seems settled.

    Args:
        test: The test.
        hierarchy: Levels of groups.
        gap: A level is settled where the two strongest groups differ by this share of the first copies at least; where
            none is, the finest is tested.

    Raises:
        InputError: For a gap outside [0, 1].
    """

    test: SegCertify
    hierarchy: Hierarchy
    gap: Part = 0.9

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, votes: Votes) -> Certificate:
        """The certificate; its ``guess`` stays a class, its ``level`` says of which groups the promise speaks."""
        chosen = torch.zeros_like(votes.guess)
        settled = torch.zeros_like(votes.guess, dtype=torch.bool)
        successes = votes.successes
        for level, groups in enumerate(self.hierarchy.levels):
            guess = votes.guess.unsqueeze(0)
            lead = by_rows(partial(_lead, groups=groups), votes.first, guess)
            now = ~settled & (lead >= self.gap * votes.n0)
            chosen = torch.where(now, level, chosen)
            successes = torch.where(now, by_rows(partial(_of_group, groups=groups), votes.counts, guess), successes)
            settled |= now
        return self.test.certify(votes, successes, chosen)


@dataclass(frozen=True)
class Hierarchy:
    """Ever coarser groupings of the classes.

    Args:
        levels: For each level from the finest, the group of every class. Level 0 has each class alone.
        names: For each level, names of its groups.

    Example:
        >>> grouped = Hierarchy.of(("road", "pavement", "car"), [{"ground": ["road", "pavement"]}])
        >>> grouped.levels, grouped.names[1]
        (((0, 1, 2), (0, 0, 1)), ('ground', 'car'))
    """

    levels: tuple[tuple[int, ...], ...]
    names: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(classes: Sequence[str], groupings: Sequence[Mapping[str, Sequence[str]]]) -> Hierarchy:
        """From names: each grouping lists the classes of its groups; a class in none keeps to itself.

        Raises:
            InputError: For an unknown class, one that is in two groups, or a grouping that does not coarsen the last.
        """
        levels, names = [tuple(range(len(classes)))], [tuple(classes)]
        for grouping in groupings:
            level, named = _numbered(classes, grouping)
            if len(set(zip(levels[-1], level, strict=True))) > len(set(levels[-1])):
                raise InputError(f"the grouping {', '.join(grouping)} splits a group of the finer one before it")
            levels.append(level)
            names.append(named)
        return Hierarchy(tuple(levels), tuple(names))

    def sizes(self) -> Tensor:
        """(L, C) int64: of how many classes the group of each class consists, level by level."""
        return torch.stack([_same(torch.tensor(level)).sum(1) for level in self.levels])


def _same(groups: Tensor) -> Tensor:
    return groups.unsqueeze(0) == groups.unsqueeze(1)


def _of_group(counts: Tensor, guess: Tensor, groups: Sequence[int]) -> Tensor:
    """Votes (C, H, W) for the group of the guess (1, H, W), (H, W)."""
    mine = _same(torch.tensor(groups, device=counts.device))[guess[0]].movedim(-1, 0)
    return (counts * mine).sum(0)


def _lead(first: Tensor, guess: Tensor, groups: Sequence[int]) -> Tensor:
    """By how many of the first votes the group of the guess leads the strongest other one, (H, W)."""
    index = torch.tensor(groups, device=first.device)
    summed = first.new_zeros((max(groups) + 1, *first.shape[1:])).index_add_(0, index, first)
    return _of_group(first, guess, groups) - strongest_but(summed, index[guess])


def _numbered(classes: Sequence[str], grouping: Mapping[str, Sequence[str]]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    group_of: dict[str, str] = {}
    for group, members in grouping.items():
        for member in members:
            if member not in classes:
                raise unknown_name("class", member, classes)
            if member in group_of:
                raise InputError(f"the class {member} is in two groups, {group_of[member]} and {group}")
            group_of[member] = group
    names = list(dict.fromkeys(group_of.get(name, name) for name in classes))
    return tuple(names.index(group_of.get(name, name)) for name in classes), tuple(names)
