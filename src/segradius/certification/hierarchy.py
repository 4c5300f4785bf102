"""Adaptive certification: a pixel whose class is in doubt may be certified as one of a group of classes.

After Anani, Lorenz, Schiele & Fritz (2024): the first noisy copies choose how coarse each pixel is tested, the others
test it, so the number of hypotheses and the promise stay what they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.certification.certificate import Certificate
from segradius.certification.segcertify import SegCertify
from segradius.certification.votes import Votes
from segradius.errors import InputError, unknown_name


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
    gap: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.gap <= 1:
            raise InputError(f"gap is {self.gap}; expected a share in [0, 1]")

    def __call__(self, votes: Votes, family: Tensor | None = None) -> Certificate:
        """The certificate; its ``guess`` stays a class, its ``level`` says of which groups the promise speaks."""
        chosen = torch.zeros_like(votes.guess)
        settled = torch.zeros_like(votes.guess, dtype=torch.bool)
        successes = votes.successes
        for level, groups in enumerate(self.hierarchy.levels):
            same = _same(torch.tensor(groups, device=votes.counts.device))
            mine = same[votes.guess].movedim(-1, 0)  # (C, H, W): the classes in the group of the guess
            share = (votes.first * mine).sum(0)
            rival = _strongest_other(votes.first, groups, votes.guess)
            now = ~settled & (share - rival >= self.gap * votes.n0)
            chosen = torch.where(now, level, chosen)
            successes = torch.where(now, (votes.counts * mine).sum(0), successes)
            settled |= now
        return self.test.certify(votes, votes.guess, successes, family, chosen)


def _same(groups: Tensor) -> Tensor:
    return groups.unsqueeze(0) == groups.unsqueeze(1)


def _strongest_other(first: Tensor, groups: Sequence[int], guess: Tensor) -> Tensor:
    """First votes of the strongest group but that of the guess, (H, W)."""
    index = torch.tensor(groups, device=first.device)
    summed = first.new_zeros((max(groups) + 1, *first.shape[1:])).index_add_(0, index, first)
    return summed.scatter_(0, index[guess].unsqueeze(0), -1).amax(0)


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
