"""Between the images of an attack and a served network's tensors: names, shapes, types and what the values promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.contracts import ANSWERS, LABELS_ALONE
from segradius.core.errors import AnswerError, InputError, unknown_name
from segradius.models import Normalisation
from segradius.models.preprocessing import resize
from segradius.targets.answers import Firsts, Raw, check_repeated, check_values
from segradius.targets.harsh import to_bytes

LAYOUTS = ("nchw", "nhwc")
CHANNELS = {"nchw": 1, "nhwc": 3}
TAKEN = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8)
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """A declared input or output.

    Args:
        name: Its name.
        dtype: Type of its values.
        shape: Its dimensions, None where they are free.
    """

    name: str
    dtype: torch.dtype
    shape: Shape

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name!r} {str(self.dtype).removeprefix('torch.')} ({sides})"


@dataclass(frozen=True)
class Signature:
    """The input for images and the output for answers.

    Args:
        input: The input.
        output: The output; its shape is empty where nothing is known of it.
        layout: ``"nchw"`` or ``"nhwc"``, of the input.
        output_layout: Of the output.
        num_classes: C.
    """

    input: TensorSpec
    output: TensorSpec
    layout: str
    output_layout: str
    num_classes: int

    @property
    def batch(self) -> int | None:
        """Images that a query must hold; None where that is free."""
        return self.input.shape[0]

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width that images must have; None where free."""
        _, *sides, _ = self.input.shape if self.layout == "nhwc" else (*self.input.shape[:1], *self.input.shape[2:], 0)
        return sides[0], sides[1]

    def check_shape(self, answer: Tensor) -> None:
        """Raise `AnswerError` unless an answer has the sides that were declared."""
        declared, found = self.output.shape, tuple(answer.shape)
        if len(declared) == len(found) and any(a not in (None, b) for a, b in zip(declared, found, strict=True)):
            raise AnswerError(f"it has shape {found}; expected the declared {self.output}")


def find_signature(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    layout: str | None = None,
    num_classes: int | None = None,
) -> Signature:
    """The signature of a network with these inputs and outputs.

    Args:
        inputs: All inputs.
        outputs: All outputs.
        input_name: The one for images, where there are several.
        output_name: The one for answers, where there are several.
        layout: Of the input, ``"nchw"`` or ``"nhwc"``, where its shape does not tell.
        num_classes: C, where the output's shape does not tell.

    Returns:
        The signature.

    Raises:
        InputError: If it cannot be told, or does not fit what was given; the message says which option tells it.

    Example:
        >>> image = TensorSpec("image", torch.uint8, (None, 240, 320, 3))
        >>> found = find_signature([image], [TensorSpec("p", torch.float32, (None, 60, 80, 11))])
        >>> found.layout, found.size, found.num_classes
        ('nhwc', (240, 320), 11)
    """
    taken, given = _pick("input", inputs, input_name), _pick("output", outputs, output_name)
    layout = _layout(taken, layout)
    if taken.dtype not in TAKEN:
        raise InputError(f"the input {taken} cannot hold images; expected float32, float16, bfloat16, float64 or uint8")
    output_layout, classes = _classes(given, layout, num_classes)
    return Signature(taken, given, layout, output_layout, classes)


def _pick(kind: str, tensors: Sequence[TensorSpec], name: str | None) -> TensorSpec:
    if name is not None:
        found = next((tensor for tensor in tensors if tensor.name == name), None)
        if found is None:
            raise unknown_name(kind, name, (tensor.name for tensor in tensors))
        return found
    if len(tensors) != 1:
        listed = ", ".join(map(str, tensors)) or "none"
        raise InputError(f"the model has {len(tensors)} {kind}s ({listed}): name one with {kind}_name=…")
    return tensors[0]


def _layout(image: TensorSpec, layout: str | None) -> str:
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if len(image.shape) != 4:
        raise InputError(f"the input {image} has {len(image.shape)} dimensions; expected 4, as (N, 3, H, W)")
    fitting = [name for name in LAYOUTS if image.shape[CHANNELS[name]] in (3, None)]
    exact = [name for name in fitting if image.shape[CHANNELS[name]] == 3]
    if layout is not None:
        if layout not in (exact or fitting):
            raise InputError(f"the input {image} does not have 3 channels in layout {layout}")
        return layout
    if not fitting:
        raise InputError(f"the input {image} does not take colour images; expected (N, 3, H, W) or (N, H, W, 3)")
    return (exact or fitting)[0]


def _classes(answer: TensorSpec, layout: str, num_classes: int | None) -> tuple[str, int]:
    """Layout of the output, and C."""
    if num_classes is None:
        found = answer.shape[CHANNELS[layout]] if len(answer.shape) == 4 else None
        if found is None:
            raise InputError(f"the output {answer} does not tell the number of classes: give num_classes")
        if found < 2:
            raise InputError(f"the output {answer} has {found} channel; expected one for each of at least 2 classes")
        return layout, found
    if len(answer.shape) != 4:
        return layout, num_classes
    exact = [name for name in (layout, *LAYOUTS) if answer.shape[CHANNELS[name]] == num_classes]
    if not exact and answer.shape[CHANNELS[layout]] not in (1, None):  # a map of labels may have one channel
        raise InputError(f"the output {answer} has no dimension of num_classes={num_classes}: is the number right?")
    return (exact or [layout])[0], num_classes


BATCH, CPU = 8, torch.device("cpu")
KINDS = ("probabilities", "logits", "scores", "labels")


@dataclass(frozen=True)
class Exchange:
    """How images go to a served network and how its answers are read.

    Args:
        signature: What it takes and gives.
        outputs: ``"probabilities"``; ``"logits"``; ``"scores"`` in [0, 1] that need not sum to one, as of a network of
            sigmoids or a server that gives its best classes only; or ``"labels"``, integers without a class dimension.
        normalisation: What it wants done to the colours; None where that is inside.

    Raises:
        InputError: For another kind of outputs, or normalisation for an input of bytes.
    """

    signature: Signature
    outputs: str = "probabilities"
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        if self.outputs not in KINDS:
            raise unknown_name("kind of outputs", str(self.outputs), KINDS)
        if self.normalisation is not None and self.signature.input.dtype == torch.uint8:
            raise InputError(f"the input {self.signature.input} takes bytes, which cannot be normalised")

    @property
    def offers(self) -> frozenset[str]:
        """Scores, or labels alone."""
        return LABELS_ALONE if self.outputs == "labels" else ANSWERS

    def encode(self, images: Tensor) -> Tensor:
        """What the network is given for images (N, 3, H, W) in [0, 1]; bytes are rounded to the nearest of 255.

        Raises:
            InputError: If it takes images of another size.
        """
        asked, size = tuple(images.shape[-2:]), self.signature.size
        if any(side not in (None, given) for side, given in zip(size, asked, strict=True)):
            raise InputError(
                f"images are {asked[0]}x{asked[1]} (height x width); the model takes {size[0] or '?'}x{size[1] or '?'} "
                "only: resize the data set to it"
            )
        x = images.detach()
        if self.normalisation is not None:
            x = self.normalisation.apply(x)
        dtype = self.signature.input.dtype
        x = to_bytes(x) if dtype == torch.uint8 else x.to(dtype)
        return (x if self.signature.layout == "nchw" else x.permute(0, 2, 3, 1)).cpu().contiguous()

    def decode(self, raw: Tensor, images: Tensor, real: int | None = None) -> Tensor:
        """Probabilities at the size and on the device of the images; every answer is checked.

        Args:
            raw: The network's output for them, (N, C, h, w) or as the signature says.
            images: (N, 3, H, W).
            real: Images that were asked about; the rest fills up a batch. None for all.

        Returns:
            (N, C, H, W) float32. A coarse output is resized: bilinearly, logits before the softmax; labels by nearest
            neighbour.

        Raises:
            AnswerError: If the output has another shape or type, or its values are not what ``outputs`` says.
        """
        if self.outputs == "labels":
            return self._one_hot(raw, images)
        coarse = self._formed(raw, images)
        check_values(coarse, self.outputs, real)
        full = resize(coarse.to(images.device), (images.shape[-2], images.shape[-1]))
        return (full.softmax(1) if self.outputs == "logits" else full).contiguous()

    def size_of(self, raw: Tensor) -> tuple[int, int]:
        """Height and width of the maps in an output that can be decoded."""
        if self.outputs == "labels":
            sides = _as_maps(raw).shape[1:]
        else:
            sides = raw.shape[1:3] if self.signature.output_layout == "nhwc" else raw.shape[2:]
        return sides[0], sides[1]

    def _formed(self, raw: Tensor, images: Tensor) -> Tensor:
        """(N, C, h, w) float32."""
        swapped = raw.permute(0, 3, 1, 2) if raw.ndim == 4 and self.signature.output_layout == "nhwc" else raw
        expected = (len(images), self.signature.num_classes)
        if swapped.ndim != 4 or tuple(swapped.shape[:2]) != expected or 0 in swapped.shape:
            hint = (
                "give outputs=labels"
                if not raw.is_floating_point()
                else "give num_classes or layout if these are wrong"
            )
            order = "h, w" if self.signature.output_layout == "nchw" else "classes last"
            raise AnswerError(
                f"the model answered with shape {tuple(raw.shape)} to {len(images)} images; expected {expected} and "
                f"{order}: {hint}"
            )
        if not raw.is_floating_point():
            raise AnswerError(f"the model answered in {raw.dtype}; expected floating {self.outputs}")
        return swapped.to(torch.float32)

    def _one_hot(self, raw: Tensor, images: Tensor) -> Tensor:
        labels = _as_maps(raw)
        if labels.ndim != 3 or len(labels) != len(images) or labels.is_floating_point() or 0 in labels.shape:
            raise AnswerError(
                f"the model answered with {raw.dtype} of shape {tuple(raw.shape)} to {len(images)} images; expected "
                "integers (N, H, W), as outputs=labels promises"
            )
        low, high = labels.aminmax()
        if low < 0 or high >= self.signature.num_classes:
            raise AnswerError(
                f"the model answered with labels {low.item()} to {high.item()}; expected 0 to "
                f"{self.signature.num_classes - 1}: give num_classes"
            )
        one_hot = functional.one_hot(labels.long(), self.signature.num_classes).permute(0, 3, 1, 2).to(torch.float32)
        size = (images.shape[-2], images.shape[-1])
        if one_hot.shape[-2:] != size:
            one_hot = functional.interpolate(one_hot, size=size, mode="nearest-exact")
        return one_hot.to(images.device).contiguous()


def _as_maps(raw: Tensor) -> Tensor:
    """Labels without a dimension of one channel."""
    labels = raw.squeeze(1) if raw.ndim == 4 and raw.shape[1] == 1 else raw
    return labels.squeeze(-1) if labels.ndim == 4 and labels.shape[-1] == 1 else labels


def in_batches(images: Tensor, largest: int, fixed: int | None, ask: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Answers for any number of images from a model that takes them in batches.

    Args:
        images: (N, 3, H, W), N at least 1.
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
    def called(self) -> str:
        """What errors call it."""
        return self.name

    def scores(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, H, W), float32, of images (N, 3, H, W) in [0, 1].

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
            scores = self.exchange.decode(raw.values, images, real)
            self.exchange.signature.check_shape(raw.values)
            self._firsts.check(raw, self.exchange.size_of(raw.values), (images.shape[-2], images.shape[-1]))
            check_repeated(scores, real)
        except AnswerError as error:
            self._answered(real, refused=True)
            told = f"{self.called}: answer {number} of this run is refused: {error}"
            raise AnswerError(told, by_image=error.by_image or self._accepted) from error
        self._answered(real, refused=False)
        self._accepted = True
        return scores
