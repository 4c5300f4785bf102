"""Between the images of an attack and a served network's tensors: what it is given, and what its answers come to."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from segradius.core.bands import check_bands, told
from segradius.core.contracts import LABELS_ALONE
from segradius.core.errors import AnswerError, InputError
from segradius.models import Normalisation
from segradius.models.preprocessing import SizeRule
from segradius.targets.harsh import to_bytes
from segradius.targets.heads import Head
from segradius.targets.signature import Signature, TensorSpec

WHOLE = (torch.uint8, torch.int8, torch.int16)
#: Largest distance of what whole numbers stand for from [0, 1] that rounding of their scale explains.
ROUNDED = 0.02


@dataclass(frozen=True)
class Exchange:
    """How images go to a served network and how its answers are read.

    Args:
        signature: What it takes and gives.
        outputs: What the values are: a `Head`, or its ``outputs`` alone.
        normalisation: What it wants done to the colours; None where that is inside.
        size: How images of another size get to that of the network.
        constants: What other inputs are given, the same for every question, by name.

    Raises:
        InputError: For another kind of outputs, or an input of whole numbers of which nobody says what they stand for.
    """

    signature: Signature
    outputs: str | Head = "probabilities"
    normalisation: Normalisation | None = None
    size: SizeRule = field(default=SizeRule(), repr=False)
    constants: tuple[tuple[str, Tensor], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.outputs, Head):
            object.__setattr__(self, "outputs", Head(self.outputs))
        given = self.normalisation
        if given is not None and not given.is_identity and given.bands != self.signature.bands:
            raise InputError(
                f"the normalisation is of {told(given.bands)}; the input {self.signature.input} takes "
                f"{told(self.signature.bands)}: give as many numbers"
            )
        if self.signature.input.dtype in WHOLE:
            _check_whole(self.signature.input, self.normalisation)

    @property
    def head(self) -> Head:
        """What the values of an answer are."""
        assert isinstance(self.outputs, Head)
        return self.outputs

    @property
    def identity(self) -> str:
        """A text that changes with whatever changes an answer; of options that have no effect it says nothing."""
        known = (
            f"Exchange(signature={self.signature}, outputs={self.head.outputs!r}, normalisation={self.normalisation})"
        )
        usual, signature = Head(self.head.outputs), self.signature
        more = {each.name: getattr(self.head, each.name) for each in fields(Head)}
        more = {name: value for name, value in more.items() if value != getattr(usual, name)}
        more |= {"size": self.size} if self.size != SizeRule() else {}
        more |= {"input": given} if (given := signature.input.quantised) else {}
        more |= {"output": given} if (given := signature.output.quantised) else {}
        more |= {name: (value.dtype, tuple(value.shape), value.tolist()) for name, value in self.constants}
        return f"{known} {more}" if more else known

    @property
    def offers(self) -> frozenset[str]:
        """Scores, or labels alone."""
        output = self.signature.output
        return LABELS_ALONE if output.hard and output.quantised is None else self.head.offers

    def given_size(self, images: Tensor) -> tuple[int, int]:
        """Height and width that the network is given for images.

        Raises:
            InputError: It takes images of another size.
        """
        asked, size = (images.shape[-2], images.shape[-1]), self.signature.size
        given = self.size.target(*asked)
        if any(side not in (None, found) for side, found in zip(size, given, strict=True)):
            takes = f"{size[0] or '?'}x{size[1] or '?'}"
            rule = (
                "size=resize" if None not in size else f"size={{exact: [{size[0] or 'H'}, {size[1] or 'W'}], mode: …}}"
            )
            raise InputError(
                f"images are {given[0]}x{given[1]} (height x width); the model takes {takes} only: resize the data set "
                f"to it, or give {rule}, which resizes images here and answers back"
            )
        return given

    def encode(self, images: Tensor) -> Tensor:
        """What the network is given for images (N, B, H, W) in [0, 1]; bytes are rounded to the nearest of 255.

        Raises:
            InputError: If it takes images of another size, or of other bands.
        """
        taken, bands = self.signature.input, self.signature.bands
        check_bands(images.shape[1], bands, taken.name)
        self.given_size(images)
        x = images.detach()
        if self.normalisation is not None:
            x = self.normalisation.apply(x)
        x = self.size.fit(x)
        if taken.dtype in WHOLE:
            x = to_bytes(x) if taken.quantised is None else taken.quantised.of(x, taken.dtype)
        else:
            x = x.to(taken.dtype)
        return (x if self.signature.layout == "nchw" else x.permute(0, 2, 3, 1)).cpu().contiguous()

    def decode(self, raw: Tensor, images: Tensor, real: int | None = None, *, first: bool = True) -> Tensor:
        """Probabilities at the size and on the device of the images; every answer is checked.

        Args:
            raw: The network's output for them, (N, K, h, w) or as the signature says.
            images: (N, B, H, W).
            real: Images that were asked about; the rest fills up a batch. None for all.
            first: Whether no answer was accepted before.

        Returns:
            (N, C, H, W) float32. A coarse output is resized: bilinearly, logits before the softmax; labels by nearest
            neighbour.

        Raises:
            AnswerError: If the output has another shape or type, or its values are not what ``outputs`` says.
        """
        size, quantised = (images.shape[-2], images.shape[-1]), self.signature.output.quantised
        values = self._arranged(raw, images).to(images.device)
        if quantised is not None:
            if values.is_floating_point():
                raise AnswerError(f"the model answered in {values.dtype}; expected whole numbers, as output_scale says")
            values = quantised.undo(values)
        if self.head.outputs == "labels":
            return self.head.one_hot(values, self.signature.num_classes, size, self.size)
        step = 0.0 if quantised is None else quantised.scale
        return self.head.scores(values, size, self.size, real, step=step, first=first)

    def size_of(self, raw: Tensor, images: Tensor) -> tuple[int, int]:
        """Height and width of the maps in an output that can be decoded."""
        height, width = self._arranged(raw, images).shape[-2:]
        return height, width

    def _arranged(self, raw: Tensor, images: Tensor) -> Tensor:
        return self.signature.arranged(raw, len(images), self.size.target(images.shape[-2], images.shape[-1]))


def _keeps_values(normalisation: Normalisation) -> bool:
    return set(normalisation.mean) == {0.0} and set(normalisation.std) == {1.0}


def _check_whole(taken: TensorSpec, normalisation: Normalisation | None) -> None:
    """Raise `InputError` unless it is known what the whole numbers of an input stand for."""
    if taken.quantised is None and taken.dtype != torch.uint8:
        raise InputError(f"the input {taken} takes whole numbers: give scale and zero_point, what they stand for")
    if taken.quantised is None and normalisation is not None and not _keeps_values(normalisation):
        raise InputError(
            f"the input {taken} takes bytes, which cannot be normalised: give scale and zero_point if its numbers "
            "stand for normalised ones"
        )
    if taken.quantised is not None and normalisation is None:
        low, high = taken.quantised.undo(torch.tensor([torch.iinfo(taken.dtype).min, torch.iinfo(taken.dtype).max]))
        if max(abs(low), abs(high - 1)) > ROUNDED:
            raise InputError(
                f"the numbers of the input {taken} stand for values in [{low:.4g}, {high:.4g}], and images are in "
                "[0, 1]: give the normalisation that was used in training, or normalisation=none for images as they are"
            )
