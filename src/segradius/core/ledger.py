"""One account of every forward and backward pass over every image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Passes of a surrogate whose gradients guide what a target is asked: no queries, and no passes of the target.
SURROGATE = "surrogate"


@dataclass
class Ledger:
    """Forward and backward passes over each image of a batch, by purpose.

    Purposes in use are ``attack`` (the steps), ``radius`` (noisy passes behind the weights), ``judging`` (looking at an
    iterate without needing its gradient), ``certification``, ``crosscheck`` (attacks on certificates), ``checking``
    (judging an adversarial image once more) and ``picture``. Where adversarial images are made on another network,
    ``transfer`` is what the attacked one was asked, and all else are passes of the other; where that only guides what
    the attacked one is asked, ``surrogate`` are its passes, and all else are the attacked one's. A pass over a batch of
    N images is one pass over each of them. Counting never touches the device.

    Args:
        images: How many images the ledger is for.

    Example:
        >>> book = Ledger(2)
        >>> book.enter("attack", forward=1, backward=1)
        >>> book.enter("radius", forward=8)
        >>> book.forward.tolist(), book.backward.tolist()
        ([9, 9], [1, 1])
        >>> book.by_purpose()
        {'attack': {'forward': 2, 'backward': 2}, 'radius': {'forward': 16, 'backward': 0}}
    """

    images: int
    passes: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def enter(
        self, purpose: str, *, forward: int = 0, backward: int = 0, rows: NDArray[np.bool_] | None = None
    ) -> None:
        """Add passes made over every image of the batch, or over those where ``rows``, (images,), is true."""
        book = self.passes.setdefault(purpose, np.zeros((2, self.images), dtype=np.int64))
        book += np.array([[forward], [backward]]) * (np.ones(self.images, np.int64) if rows is None else rows)

    @property
    def forward(self) -> NDArray[np.int64]:
        """Forward passes over each image, all purposes; shape (images,)."""
        return sum((book[0] for book in self.passes.values()), np.zeros(self.images, dtype=np.int64))

    @property
    def backward(self) -> NDArray[np.int64]:
        """Backward passes over each image, all purposes; shape (images,)."""
        return sum((book[1] for book in self.passes.values()), np.zeros(self.images, dtype=np.int64))

    def by_purpose(self) -> dict[str, dict[str, int]]:
        """Passes summed over the images, as plain numbers for a file."""
        return {
            purpose: {"forward": int(book[0].sum()), "backward": int(book[1].sum())}
            for purpose, book in self.passes.items()
        }

    def add(self, other: Ledger) -> None:
        """Add the passes of another ledger over the same images to this one."""
        for purpose, book in other.passes.items():
            mine = self.passes.setdefault(purpose, np.zeros((2, self.images), dtype=np.int64))
            mine += book

    def times(self, networks: int) -> Ledger:
        """The same passes of several networks each."""
        return Ledger(self.images, {purpose: networks * book for purpose, book in self.passes.items()})

    @staticmethod
    def joined(ledgers: Iterable[Ledger]) -> Ledger:
        """One ledger for the images of several, in order."""
        ledgers = list(ledgers)
        joined = Ledger(sum(ledger.images for ledger in ledgers))
        for purpose in dict.fromkeys(p for ledger in ledgers for p in ledger.passes):
            empty = [ledger.passes.get(purpose, np.zeros((2, ledger.images), np.int64)) for ledger in ledgers]
            joined.passes[purpose] = np.concatenate(empty, axis=1)
        return joined
