"""What served networks have in common as targets: batches, one answer after the other, each checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count

import torch
from torch import Tensor

from segradius.core.errors import AnswerError
from segradius.targets.answers import Firsts, Raw, check_repeated
from segradius.targets.exchange import Exchange

BATCH, CPU = 8, torch.device("cpu")


def in_batches(images: Tensor, largest: int, fixed: int | None, ask: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Answers for any number of images from a model that takes them in batches.

    Args:
        images: (N, B, H, W), N at least 1.
        largest: Images that one call of ``ask`` gets at most.
        fixed: Images that it must get, the last repeated to fill up; None where that is free.
        ask: From images and how many of them are real to their answers (N, …).

    Returns:
        The answers for the N images, in order.

    Example:
        >>> images = torch.arange(5.0).view(5, 1, 1, 1)
        >>> in_batches(images, 2, 2, lambda part, real: part * 10).flatten().tolist()
        [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    answers = []
    for part in torch.split(images, fixed or largest):
        missing = 0 if fixed is None else fixed - len(part)
        filled = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        answers.append(ask(filled, len(part))[: len(part)])
    return torch.cat(answers)


class Served:
    """What all served networks have in common as targets: `_ask` is what each does in its own way.

    Every answer is checked before anybody sees it, against what was promised and against the first ones.

    Args:
        exchange: How images go in and answers come out.
        name: What reports call it.
        batch: Images to ask about at once, at most; changes no result.
        device: Where images are best held.
        identity: A text that changes with whatever changes the answers.
        dtype: Of the answers where it was declared.
    """

    checks = True

    def __init__(
        self,
        exchange: Exchange,
        *,
        name: str,
        batch: int = BATCH,
        device: torch.device = CPU,
        identity: str = "",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.exchange, self.name, self.batch, self.device, self.identity = exchange, name, batch, device, identity
        self.num_classes, self.offers = exchange.signature.num_classes, exchange.offers
        self._firsts, self._numbers, self._accepted = Firsts(dtype), count(1), False

    @property
    def bands(self) -> int:
        """B, of the images that it takes."""
        return self.exchange.signature.bands

    @property
    def structures(self) -> int:
        """K where the C = 2^K classes are sets of structures, 0 otherwise."""
        return self.exchange.head.structures_of(self.num_classes)

    @property
    def called(self) -> str:
        """What errors call it."""
        return self.name

    def scores(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, H, W), float32, of images (N, B, H, W) in [0, 1].

        Raises:
            InputError: If the network takes images of another size.
            TargetError: If it does not answer.
            AnswerError: If it answers and not as was promised, or not as it did before.
        """
        return in_batches(images, self.batch, self.exchange.signature.batch, self._answer)

    def frozen(self) -> AbstractContextManager[None]:
        """A context that does nothing: there is no state that is ours to hold."""
        return nullcontext()

    def _ask(self, images: Tensor, real: int) -> Raw:
        """The answer to a batch, the first ``real`` of which are asked about."""
        raise NotImplementedError

    def _answered(self, real: int, *, refused: bool) -> None:
        """Told of every answer about so many images."""

    def _answer(self, images: Tensor, real: int) -> Tensor:
        """Probabilities of a batch."""
        number = next(self._numbers)
        try:
            raw = self._ask(images, real)
            scores = self.exchange.decode(raw.values, images, real, first=not self._accepted)
            self.exchange.signature.check_shape(raw.values)
            self._firsts.check(raw, self.exchange.size_of(raw.values, images), self.exchange.given_size(images))
            check_repeated(scores, real)
        except AnswerError as error:
            self._answered(real, refused=True)
            told = f"{self.called}: answer {number} of this run is refused: {error}"
            raise AnswerError(told, by_image=error.by_image or self._accepted) from error
        self._answered(real, refused=False)
        self._accepted = True
        return scores
