"""What rooms ask of one another: a model, a target, a journal. Whoever has these members will do; nothing is inherited.

What can be asked is said in words (`LOGITS`, `SCORES`, `LABELS`): a model *offers* some of them, and a loss, a
weighting, a strategy or an attack *needs* one or more. What does not fit is refused before any pass or query is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

M = TypeVar("M", bound="Offering")

#: Logits of every class, differentiable in the images.
LOGITS = "logits"
#: Probabilities of the classes, without gradient.
SCORES = "scores"
#: The predicted class of each pixel and nothing of its rivals; as one-hot scores.
LABELS = "labels"

#: What a layer of a network gives, differentiable in the images: for few attacks, of models that have ``watching``.
FEATURES = "features"

#: What a network here offers, a target that answers with scores, and one that answers with labels alone.
ALL = frozenset({LOGITS, SCORES, LABELS})
ANSWERS = frozenset({SCORES, LABELS})
LABELS_ALONE = frozenset({LABELS})


class Offering(Protocol):
    """Whatever tells classes apart and says what can be asked of it."""

    @property
    def offers(self) -> frozenset[str]:
        """Of `LOGITS`, `SCORES`, `LABELS` and `FEATURES`."""

    @property
    def num_classes(self) -> int:
        """Number of classes C."""


class LogitModel(Protocol):
    """What the radius needs of a model: logits at the input's size."""

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits (N, C, H, W) of images (N, B, H, W) in [0, 1], differentiable in the images."""


class Model(LogitModel, Offering, Protocol):
    """What a white-box attack needs of a model; `segradius.wrap` gives it."""

    def frozen(self) -> AbstractContextManager[object]:
        """Context in which the network is in evaluation mode with frozen parameters, and left as found."""


class ScoreModel(Offering, Protocol):
    """What a black-box attack needs of a model; see `segradius.targets`."""

    def scores(self, images: Tensor) -> Tensor:
        """Class probabilities (N, C, H, W) of images (N, B, H, W) in [0, 1], without gradient."""

    def frozen(self) -> AbstractContextManager[object]:
        """Context in which the target answers as it always does."""


class Seen(Offering, Protocol):
    """What is evaluated: a network here, or a target; it has ``logits`` or ``scores``, as it ``offers``."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def device(self) -> torch.device:
        """Where images are best held."""

    def frozen(self) -> AbstractContextManager[object]:
        """Context in which it stays as it is; left as found."""


def for_guidance(model: M) -> M:
    """What gradients and weights are taken from: a cheaper form of the model where it has one, else the model itself.

    It may compute in reduced precision, so that nothing that it answers is ever reported; the model itself judges. Of a
    model with a surrogate it is that of the surrogate.
    """
    model = surrogate_of(model) or model
    twins = getattr(model, "twins", None)
    return model if twins is None else twins.guidance


def for_answers(model: M, precision: torch.dtype | None = None) -> M:
    """What answers that are counted come from: a cheaper form that differs by rounding alone, or the model itself.

    Asked in reduced ``precision`` it is the model itself: of what is rounded so coarsely a form would differ by much.
    """
    twins = getattr(model, "twins", None)
    return model if twins is None or precision not in (None, torch.float32) else twins.answers


def surrogate_of(model: object) -> Any:
    """The network on which adversarial images for a model are made, while the model judges them; None: itself."""
    return getattr(model, "surrogate", None)


def check_twins(model: Offering) -> None:
    """Raise `InputError` where a model has cheaper forms that are of other weights or settings than it has now."""
    twins = getattr(model, "twins", None)
    if twins is not None:
        twins.check(model)


class Journal(Protocol):
    """Where long work keeps how far it is, so that a killed run goes on."""

    def load(self) -> Mapping[str, Any] | None:
        """The snapshot kept last; None where there is none."""

    def save(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Keep a snapshot, made of tensors, numbers, texts, lists, tuples and dicts, if it is time to."""
