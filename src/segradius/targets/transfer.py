"""Transfer: adversarial images are made on a surrogate, a network of one's own, and judged by the attacked model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from segradius.core.errors import InputError
from segradius.models.averaged import Mean, averaged, check_alike
from segradius.models.segmenter import Segmenter
from segradius.targets.target import Metered, Target, Wrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

M = TypeVar("M")


class Aided(Wrapper):
    """A target for which adversarial images are made on a network here; it is that target in all else.

    Args:
        target: What is attacked, asked for a verdict alone.
        surrogate: The network.
    """

    def __init__(self, target: Target, surrogate: Segmenter) -> None:
        self.target, self._surrogate = target, surrogate

    @property
    def surrogate(self) -> Segmenter:
        """The network on which adversarial images are made."""
        return self._surrogate

    def frozen(self) -> AbstractContextManager[object]:
        """That of the target and that of the network."""
        return _both(self.target.frozen(), self._surrogate.frozen())

    def scores(self, images: Tensor) -> Tensor:
        """The target's."""
        return self.target.scores(images)


def transferred(model: M, surrogate: Segmenter | Sequence[Segmenter], mean: Mean = "logits") -> M:
    """The same model or target, for which attacks make adversarial images on another network: transfer attacks.

    An attack that follows gradients follows the surrogate's; which iterate, restart or member is the best is decided by
    what the surrogate says of it. The model is asked once about each image that an attack returns, which is all that a
    result tells of: its prediction, and how much of it is fooled. The ledger has that pass as ``transfer``; every other
    pass is one of the surrogate, of each of its networks if they are several.

    Args:
        model: From `segradius.wrap`, `segradius.load_model` or `segradius.targets.open_target`.
        surrogate: Another network, or several, whose mean is attacked; of the same classes.
        mean: Of several, see `segradius.models.averaged`.

    Returns:
        What every attack that follows gradients, and `segradius.evaluate`, takes in place of the model.

    Raises:
        InputError: The surrogate is no network in this process, or is not of the model's classes or bands.

    Example:
        >>> import torch, segradius as sr
        >>> model, other = (sr.wrap(torch.nn.Conv2d(3, 4, 1)) for _ in range(2))
        >>> images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8).long()
        >>> found = sr.attacks.pgd(eps=1.5, steps=5)(transferred(model, other), images, labels)
        >>> bool((found.prediction == model.logits(found.adversarial).argmax(1)).all())
        True
        >>> found.ledger.by_purpose()["transfer"]
        {'forward': 2, 'backward': 0}
    """
    networks = list(surrogate) if isinstance(surrogate, Sequence) else [surrogate]
    for each in networks:
        if not isinstance(each, Segmenter):
            raise InputError(
                f"a surrogate is a {type(each).__name__}; expected a network in this process, whose gradients are "
                "followed: segradius.wrap(network) or segradius.load_model(…)"
            )
    if not hasattr(model, "num_classes"):
        raise InputError(f"a {type(model).__name__} must be wrapped first: transferred(segradius.wrap(network), …)")
    for each in networks:
        check_alike(model, each, "a transfer attack")
    made_on = averaged(networks, mean)
    if isinstance(model, Segmenter):
        return replace(model, surrogate=made_on)
    if isinstance(model, Metered):  # which stays outside, as it is asked how much is left
        return Metered(Aided(model.target, made_on), model.budget, used=model.answered)  # type: ignore[return-value]
    return Aided(model, made_on)  # type: ignore[arg-type,return-value]


def with_surrogate(model: M, change: Callable[[Segmenter], Segmenter]) -> M:
    """A model that has a surrogate with another one, made of it: a cheaper form of it, say; counts and files stay."""
    found: M = _changed(model, change)
    return found


def _changed(model: Any, change: Callable[[Any], Segmenter]) -> Any:
    if isinstance(model, Segmenter):
        return replace(model, surrogate=change(model.surrogate))
    if isinstance(model, Aided):
        return Aided(model.target, change(model.surrogate))
    again = copy.copy(model)
    object.__setattr__(again, "target", _changed(model.target, change))
    return again


@contextmanager
def _both(*contexts: AbstractContextManager[object]) -> Iterator[None]:
    with ExitStack() as held:
        for each in contexts:
            held.enter_context(each)
        yield
