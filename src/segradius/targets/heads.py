"""What the values of a served network's answer are said to be, and the scores of the classes that come of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.contracts import ANSWERS, LABELS_ALONE
from segradius.core.errors import AnswerError, InputError, is_whole, must, shown, unknown_name
from segradius.core.label_sets import check_structures, members
from segradius.models.decoding import OUTPUTS, SINGLE, Decoding, undo_masks
from segradius.models.preprocessing import SizeRule
from segradius.targets.answers import check_values
from segradius.targets.signature import Channels

#: What a network here may return, a server's scores that are no probabilities, and numbers of classes.
KINDS = (*OUTPUTS, "scores", "labels")
#: Those whose values are scores as they are.
AS_THEY_ARE = ("probabilities", "scores")


@dataclass(frozen=True)
class Head:
    """What the values of an answer are.

    Args:
        outputs: One of `KINDS`.
        threshold: Of yes/no channels: yes where the probability exceeds it.
        channels: Which channels of the answer are meant, in this order; all where empty.
        values: Of labels: the number that stands for each class, as (0, 255); None where it is the class's own.
        structures: K where the classes of an answer, 2^K, are sets of structures already; 0 otherwise.

    Raises:
        InputError: For another kind of outputs, or an option that is nothing beside it.
    """

    outputs: str = "probabilities"
    threshold: float = 0.5
    channels: tuple[int, ...] = ()
    values: tuple[float, ...] | None = None
    structures: int = 0

    def __post_init__(self) -> None:
        if self.outputs not in KINDS:
            raise unknown_name("kind of outputs", str(self.outputs), KINDS)
        object.__setattr__(self, "channels", self.decoding.channels)
        if self.outputs not in OUTPUTS and self.threshold != 0.5:
            raise InputError(f"threshold {shown(self.threshold)} is for yes/no channels; outputs are {self.outputs}")
        if self.outputs == "labels" and self.channels:
            raise InputError(f"channels={list(self.channels)} does nothing beside outputs=labels, which has none")
        if self.values is not None:
            object.__setattr__(self, "values", _values(self.values, self.outputs))
        if self.structures != 0:
            must(is_whole(self.structures, 1), "structures", self.structures, "how many there are")
            check_structures(self.structures)
            if self.decoding.yes_no or self.channels:
                raise InputError(f"structures is {self.structures}; outputs={self.outputs} has a channel for each")

    @cached_property
    def decoding(self) -> Decoding:
        """How a network's outputs of this kind become logits; of `scores` and `labels` the channels alone."""
        if self.outputs in OUTPUTS:
            return Decoding(self.outputs, self.threshold, self.channels)
        return Decoding(channels=self.channels)

    def of(self, num_classes: int | None) -> tuple[Channels, int | None]:
        """The channels of the answer and the number of classes, as far as this and a given number of classes tell.

        Raises:
            InputError: They do not fit.

        Example:
            >>> Head("multilabel", channels=(0, 2)).of(None)
            (Channels(count=None, least=3, said='channels=[0, 2]', maps=False, sets=True), 4)
        """
        picked, said = self.channels, f"outputs={self.outputs}"
        classes: int | None
        if self.structures:
            if num_classes not in (None, 2**self.structures):
                raise InputError(f"num_classes is {num_classes}; structures={self.structures} make another number")
            num_classes = 2**self.structures
        if self.outputs == "labels":
            if self.values is not None and num_classes not in (None, len(self.values)):
                raise InputError(f"num_classes is {num_classes}; expected {len(self.values)}, one for each of values")
            return Channels(1, 1, said, maps=True), num_classes if self.values is None else len(self.values)
        sets = self.decoding.yes_no
        if picked:
            many = len(picked)
            classes = len(members(many)) if sets else many
            told = Channels(None, max(picked) + 1, f"channels={list(picked)}", sets and many == 1, sets)
            if classes < 2:
                raise InputError(f"channels={list(picked)}; expected at least 2 for {said}, one a class")
        elif sets:
            structures = 1 if self.outputs in SINGLE else _structures(num_classes)
            told = Channels(structures, 1, said, structures in (None, 1), sets=True)
            classes = num_classes if structures is None else 2**structures
        else:
            return Channels(num_classes, said="" if num_classes is None else f"num_classes={num_classes}"), num_classes
        if num_classes not in (None, classes):
            raise InputError(f"num_classes is {num_classes}; expected {classes}, as {told.said} makes")
        return told, classes

    def structures_of(self, num_classes: int) -> int:
        """K where the classes are sets of structures, 0 otherwise."""
        return self.structures or self.decoding.structures(num_classes)

    @property
    def offers(self) -> frozenset[str]:
        """Scores, or labels alone."""
        return LABELS_ALONE if self.outputs == "labels" else ANSWERS

    def scores(
        self,
        values: Tensor,
        size: tuple[int, int],
        rule: SizeRule,
        real: int | None = None,
        *,
        step: float = 0.0,
        first: bool = True,
    ) -> Tensor:
        """Scores of the classes at the size of the images.

        Args:
            values: (N, K, h, w), an answer; whole numbers stand for themselves.
            size: Height and width of the images.
            rule: How they came to the size that the network was given.
            real: Images that were asked about; the rest fills up a batch. None for all.
            step: By how much values that were whole numbers differ at least.
            first: Whether no answer was accepted before.

        Returns:
            (N, C, H, W) float32. A coarse answer is resized: bilinearly, logits before the softmax; labels by nearest
            neighbour.

        Raises:
            AnswerError: The values are not what ``outputs`` says.
        """
        if self.channels:
            values = values[:, list(self.channels)]
        if not values.is_floating_point() and not (self.outputs in ("sigmoid", "multilabel") and _is_yes_no(values)):
            raise AnswerError(
                f"the model answered in {values.dtype}; expected floating {self.outputs}: give output_scale and "
                "output_zero_point if whole numbers stand for these, or outputs=labels if they are numbers of classes"
            )
        coarse = values.to(torch.float32)
        if self.outputs == "masked_logits":
            coarse = undo_masks(coarse)
        check_values(coarse, self.outputs, real, step=step, first=first)
        if self.outputs in AS_THEY_ARE:
            return rule.undo(coarse, *size).contiguous()
        logits = replace(self.decoding, channels=()).of(coarse)
        return rule.undo(logits, *size).softmax(1).contiguous()

    def one_hot(self, values: Tensor, num_classes: int, size: tuple[int, int], rule: SizeRule) -> Tensor:
        """One at the class of each pixel, (N, C, H, W) float32, from labels (N, 1, h, w); the rest as of `scores`."""
        found = values.squeeze(1)
        numbers = found.double() if found.is_floating_point() else found.long()
        low, high = numbers.aminmax()
        if found.is_floating_point() and not bool((numbers == numbers.round()).all()):
            raise AnswerError(
                f"the model answered with {str(found.dtype).removeprefix('torch.')} in [{low.item():.4g}, "
                f"{high.item():.4g}] that are not whole; expected integers (N, H, W), as outputs=labels promises"
            )
        known = torch.tensor(self.values or range(num_classes), dtype=torch.float64, device=numbers.device)
        stray = numbers[~torch.isin(numbers.double(), known)]
        if len(stray):
            told = f"0 to {num_classes - 1}" if self.values is None else ", ".join(f"{v:g}" for v in self.values)
            raise AnswerError(
                f"the model answered with labels {low.item():g} to {high.item():g}, {stray.min().item():g} among them; "
                f"expected {told}: give num_classes, or values=[0, 255] if 255 stands for class 1, say"
            )
        if self.values is not None:
            numbers = (numbers.double().unsqueeze(-1) == known).byte().argmax(-1)
        one_hot = functional.one_hot(numbers.long(), num_classes).permute(0, 3, 1, 2).to(torch.float32)
        return nearest(one_hot, size, rule).contiguous()


def nearest(maps: Tensor, size: tuple[int, int], rule: SizeRule) -> Tensor:
    """Maps (N, C, h, w) at the size of the images, by nearest neighbour; cropped where the images were padded."""
    given = rule.target(*size)
    if maps.shape[-2:] != given:
        maps = functional.interpolate(maps, size=given, mode="nearest-exact")
    if rule.mode == "pad":
        return maps[..., : size[0], : size[1]]
    return maps if given == size else functional.interpolate(maps, size=size, mode="nearest-exact")


def _is_yes_no(values: Tensor) -> bool:
    return values.dtype == torch.bool or bool(((values == 0) | (values == 1)).all())


def _structures(num_classes: int | None) -> int | None:
    """How many yes/no channels make so many sets."""
    if num_classes is None:
        return None
    structures = num_classes.bit_length() - 1
    if num_classes < 2 or 2**structures != num_classes:
        raise InputError(f"num_classes is {num_classes}; K yes/no channels make 2^K classes, the sets of channels")
    return structures


def _values(given: object, outputs: str) -> tuple[float, ...]:
    listed = tuple(given) if isinstance(given, list | tuple) else ()
    if outputs != "labels":
        raise InputError(f"values is {shown(given)}, which does nothing beside outputs={outputs}: it is for labels")
    number = all(isinstance(each, int | float) and not isinstance(each, bool) for each in listed)
    if len(listed) < 2 or not number or len(set(listed)) < len(listed):
        raise InputError(f"values is {shown(given)}; expected the number of each class, all different, as [0, 255]")
    return listed
