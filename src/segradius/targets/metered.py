"""A target whose answered images are counted, and which refuses what would exceed a budget before it is sent."""

from __future__ import annotations

import threading

from torch import Tensor

from segradius.core.errors import BudgetError, at_least
from segradius.targets.target import Target, Wrapper


class Metered(Wrapper):
    """Counts the images that a target answered; safe to ask from several threads.

    A query of N images counts N when its answer is there, once, however often a server had to be asked. A query that
    fails counts nothing.

    Args:
        target: What answers.
        budget: Images that may be answered in all; None for any number.
        used: Images answered before, as of a run that goes on.

    Raises:
        InputError: For a budget below 1 or a negative ``used``.

    Example:
        >>> import torch
        >>> from segradius.models import load_model
        >>> target = Metered(load_model("demo"), budget=3)
        >>> _ = target.scores(torch.rand(2, 3, 24, 32))
        >>> target.answered, target.left
        (2, 1)
        >>> target.scores(torch.rand(2, 3, 24, 32))
        Traceback (most recent call last):
        segradius.core.errors.BudgetError: a query of 2 images would exceed the budget: 2 of 3 are used
    """

    def __init__(self, target: Target, budget: int | None = None, *, used: int = 0) -> None:
        at_least(0, used=used)
        if budget is not None:
            at_least(1, budget=budget)
        self.target, self.budget = target, budget
        self._answered, self._pending, self._lock = used, 0, threading.Lock()

    def __repr__(self) -> str:
        return f"Metered({self.target}, budget={self.budget}, used={self._answered})"

    @property
    def answered(self) -> int:
        """Images answered so far."""
        return self._answered

    @property
    def left(self) -> int | None:
        """Images that may still be asked for; None where there is no budget."""
        with self._lock:
            return None if self.budget is None else self.budget - self._answered - self._pending

    def scores(self, images: Tensor) -> Tensor:
        """The target's scores (N, C, H, W) of images (N, 3, H, W).

        Raises:
            BudgetError: If they would exceed the budget; nothing was sent then.
        """
        asked = len(images)
        with self._lock:
            used = self._answered + self._pending
            if self.budget is not None and used + asked > self.budget:
                raise BudgetError(used, self.budget, asked)
            self._pending += asked
        done = 0
        try:
            scores = self.target.scores(images)
            done = asked
        finally:
            with self._lock:
                self._pending -= asked
                self._answered += done
        return scores
