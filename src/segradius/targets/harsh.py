"""Targets as deployed ones are: rounded scores, the best classes only, labels only, images that are bytes or JPEG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from segradius.errors import InputError
from segradius.targets.answers import LabelsOnly, Rounded, TopK
from segradius.targets.inputs import Jpeg, Uint8
from segradius.targets.target import Target, layers

Change: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Harsh:
    """A target behind changes of what it is asked and of what it answers.

    Args:
        target: What answers.
        answers: Done to the scores, in this order.
        inputs: Done to the images, in this order. `as_received` gives the images that the target sees.

    Example:
        >>> from segradius.models import load_model
        >>> target = Harsh(load_model("demo"), answers=(TopK(2), Rounded(2)), inputs=(Uint8(),))
        >>> scores = target.scores(torch.rand(1, 3, 24, 32))
        >>> int((scores > 0).sum(1).max())
        2
    """

    target: Target
    answers: tuple[Change, ...] = ()
    inputs: tuple[Change, ...] = ()

    @property
    def name(self) -> str:
        """That of the target."""
        return self.target.name

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.target.num_classes

    @property
    def labels_only(self) -> bool:
        """Whether no scores are left."""
        return self.target.labels_only or any(isinstance(change, LabelsOnly) for change in self.answers)

    @property
    def device(self) -> torch.device:
        """As of the target."""
        return self.target.device

    def scores(self, images: Tensor) -> Tensor:
        """What is left of the target's scores (N, C, H, W) of images (N, 3, H, W); of top k the sum is below one."""
        scores = self.target.scores(_through(self.inputs, images))
        return _through(self.answers, scores)

    def frozen(self) -> AbstractContextManager[None]:
        """As that of the target."""
        return self.target.frozen()


def as_received(target: Target, images: Tensor) -> Tensor:
    """The images (N, 3, H, W) that the innermost target sees when it is asked about ``images``.

    An adversarial image survives the way to the target if these still fool it; asking about them gives the same answer
    only for bytes, as JPEG changes an image each time.
    """
    for layer in layers(target):
        images = _through(layer.inputs, images) if isinstance(layer, Harsh) else images
    return images


def parse_answers(text: str) -> tuple[Change, ...]:
    """Changes of the scores from ``digits=3``, ``top=2`` and ``labels``, commas between them, in their order.

    Raises:
        InputError: For another word or a value outside its range.

    Example:
        >>> parse_answers("top=2,digits=3")
        (TopK(k=2), Rounded(digits=3))
    """
    return _parse("answer", text, {"digits": Rounded, "top": TopK}, {"labels": LabelsOnly})


def parse_inputs(text: str) -> tuple[Change, ...]:
    """Changes of the images from ``uint8`` and ``jpeg=QUALITY``, commas between them, in their order.

    Raises:
        InputError: For another word or a value outside its range.

    Example:
        >>> parse_inputs("jpeg=90")
        (Jpeg(quality=90),)
    """
    return _parse("input", text, {"jpeg": Jpeg}, {"uint8": Uint8})


def _parse(
    kind: str, text: str, valued: Mapping[str, Callable[[int], Change]], plain: Mapping[str, Callable[[], Change]]
) -> tuple[Change, ...]:
    changes: list[Change] = []
    known = ", ".join([*(f"{name}=NUMBER" for name in valued), *plain])
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name in valued and value.strip().isdecimal():
            changes.append(valued[name](int(value)))
        elif name in plain and not equals:
            changes.append(plain[name]())
        else:
            raise InputError(f"{kind} {part.strip()!r} is not one of: {known}")
    return tuple(changes)


def _through(changes: tuple[Change, ...], tensor: Tensor) -> Tensor:
    for change in changes:
        tensor = change(tensor)
    return tensor
