"""Which of a served network's tensors are the images and the answer, and where their dimensions stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from segradius.core.errors import AnswerError, InputError, unknown_name
from segradius.core.label_sets import members
from segradius.targets.quantised import Quantised

LAYOUTS = ("nchw", "nhwc")
CHANNELS = {"nchw": 1, "nhwc": 3}
#: How the dimensions of an answer may stand; without n that of the one image of a batch that is fixed to 1.
FORMS = ("nchw", "nhwc", "nhw", "chw", "hwc", "hw")
TAKEN = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int8, torch.int16)
#: Bands that a dimension can be taken for unasked.
FEW = 16
Shape = tuple[int | None, ...]
Sides = tuple[int | None, int | None]


@dataclass(frozen=True)
class TensorSpec:
    """A declared input or output.

    Args:
        name: Its name.
        dtype: Type of its values.
        shape: Its dimensions, None where they are free.
        quantised: What its whole numbers stand for, where the file says it.
    """

    name: str
    dtype: torch.dtype
    shape: Shape
    quantised: Quantised | None = field(default=None, repr=False)

    @property
    def hard(self) -> bool:
        """Whether its values are whole numbers, or yes and no."""
        return not (self.dtype.is_floating_point or self.dtype.is_complex)

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name!r} {str(self.dtype).removeprefix('torch.')} ({sides})"


@dataclass(frozen=True)
class Channels:
    """How many channels an answer has.

    Args:
        count: So many; None where its shape tells.
        least: At least so many.
        said: What says it, for messages: ``"num_classes=5"``.
        maps: Whether one channel may have no dimension, as maps of yes and no, and of labels.
        sets: Whether each is a yes/no map, so that there are 2^K classes.
    """

    count: int | None = None
    least: int = 2
    said: str = ""
    maps: bool = False
    sets: bool = False

    @property
    def are_labels(self) -> bool:
        """Whether the one channel has numbers of classes."""
        return self.maps and not self.sets

    def fit(self, found: int | None) -> bool:
        """Whether a dimension can be that of the channels."""
        return found is None or (found >= self.least and self.count in (None, found))


@dataclass(frozen=True)
class Signature:
    """The input for images and the output for answers.

    Args:
        input: The input.
        output: The output; its shape is empty where nothing is known of it.
        layout: ``"nchw"`` or ``"nhwc"``, of the input.
        output_layout: Of the output, one of `FORMS`.
        num_classes: C.
        bands: B, of the images.
        channels: Of the answer.
        settled: Whether the output's layout is known; otherwise each answer's own shape decides.
    """

    input: TensorSpec
    output: TensorSpec
    layout: str
    output_layout: str
    num_classes: int
    bands: int = field(default=3, repr=False)
    channels: Channels = field(default=Channels(), repr=False)
    settled: bool = field(default=True, repr=False)

    @property
    def batch(self) -> int | None:
        """Images that a query must hold; None where that is free."""
        return self.input.shape[0]

    @property
    def size(self) -> Sides:
        """Height and width that images must have; None where free."""
        return _sides(self.input.shape, self.layout)

    def check_shape(self, answer: Tensor) -> None:
        """Raise `AnswerError` unless an answer has the sides that were declared."""
        declared, found = self.output.shape, tuple(answer.shape)
        if len(declared) == len(found) and any(a not in (None, b) for a, b in zip(declared, found, strict=True)):
            raise AnswerError(f"it has shape {found}; expected the declared {self.output}")

    def arranged(self, answer: Tensor, images: int, size: tuple[int, int]) -> Tensor:
        """An answer as (N, K, h, w).

        Args:
            answer: As it came.
            images: How many were asked about.
            size: Height and width that the network was given.

        Raises:
            AnswerError: Its shape is none that was declared, or fits two layouts.
        """
        forms = (self.output_layout,) if self.settled else FORMS
        fits = list(_fits(tuple(answer.shape), images, size, self.channels, forms))
        best = [fit for fit in fits if fit.level == min(each.level for each in fits)]
        if not best or 0 in answer.shape:
            raise AnswerError(self._misread(answer, images))
        if len({fit.reading for fit in best}) > 1:
            raise AnswerError(
                f"the model answered with shape {tuple(answer.shape)}, which fits {best[0].form} and {best[1].form}: "
                "give output_layout"
            )
        return _ARRANGED[best[0].form](answer)

    def _misread(self, answer: Tensor, images: int) -> str:
        order = self.output_layout if self.settled else " or ".join(LAYOUTS)
        count = self.channels.count or f"at least {self.channels.least}"
        said = f", as {self.channels.said} promises" if self.channels.said else ""
        many = self.channels.count != 1 and not answer.is_floating_point()
        hint = "outputs=labels" if many else "num_classes, outputs or output_layout if these are wrong"
        return (
            f"the model answered with shape {tuple(answer.shape)} to {images} images; expected {count} "
            f"channel{'s' if count != 1 else ''} as {order}{said}: give {hint}"
        )


_ARRANGED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "nchw": lambda raw: raw,
    "nhwc": lambda raw: raw.permute(0, 3, 1, 2),
    "nhw": lambda raw: raw.unsqueeze(1),
    "chw": lambda raw: raw.unsqueeze(0),
    "hwc": lambda raw: raw.permute(2, 0, 1).unsqueeze(0),
    "hw": lambda raw: raw[None, None],
}


@dataclass(frozen=True)
class _Fit:
    """A form that a shape can have: its channels, and how well its sides fit the images', 0 best."""

    form: str
    channels: int | None
    level: int
    sides: Sides

    @property
    def reading(self) -> str:
        """The same for forms that come to the same."""
        return "hw" if self.channels == 1 and self.form in ("nhw", "chw") else self.form.strip("n")


def _fits(shape: Shape, batch: int | None, size: Sides, channels: Channels, forms: Sequence[str]) -> Iterator[_Fit]:
    for form in forms:
        if len(form) != len(shape) or ("c" not in form and not channels.maps):
            continue
        at = dict(zip(form, shape, strict=True))
        one_image = at["n"] in (None, batch) or batch is None if "n" in form else batch == 1
        found, sides = at.get("c", 1), (at["h"], at["w"])
        level = _level(sides, size)
        # A known dimension beside a free one is rather that of the channels than a side of the maps.
        astray = found is None and level == _UNKNOWN and sides.count(None) == 1 and len(forms) > 1
        if one_image and channels.fit(found) and 0 not in shape and not astray:
            yield _Fit(form, found, level, sides)


#: Levels of how well the sides of maps fit those of the images.
_SAME, _EXACT, _ROUNDED, _UNKNOWN, _OTHER = range(5)


def _level(sides: Sides, size: Sides) -> int:
    height, width, h, w = *size, *sides
    if height is None or width is None or h is None or w is None:
        same = any(side is not None and side == found for side, found in zip(size, sides, strict=True))
        return _ROUNDED if same else _UNKNOWN
    if sides == size:
        return _SAME
    off = abs(h * width - w * height)
    return _EXACT if not off else _ROUNDED if off <= height + width else _OTHER


def _sides(shape: Shape, layout: str) -> Sides:
    at = dict(zip(layout, shape, strict=True))
    return at["h"], at["w"]


def find_signature(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    input_name: str | int | None = None,
    output_name: str | int | None = None,
    layout: str | None = None,
    output_layout: str | None = None,
    num_classes: int | None = None,
    bands: int | None = None,
    channels: Channels | None = None,
) -> Signature:
    """The signature of a network with these inputs and outputs.

    Args:
        inputs: All inputs that are given images, or may be.
        outputs: All outputs.
        input_name: The one for images, where there are several.
        output_name: The one for answers, or its number from 0, where there are several.
        layout: Of the input, ``"nchw"`` or ``"nhwc"``, where its shape does not tell.
        output_layout: Of the output, one of `FORMS`, where its shape does not tell.
        num_classes: C, where the output's shape does not tell.
        bands: B of the images, where the input's shape does not tell.
        channels: Of the answer; None for one a class.

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
    layout, bands = _layout(taken, layout, bands)
    if taken.dtype not in TAKEN:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in TAKEN)
        raise InputError(f"the input {taken} cannot hold images; expected one of {kinds}")
    if channels is None:
        channels = Channels() if num_classes is None else Channels(num_classes, said=f"num_classes={num_classes}")
    if output_layout is not None and output_layout not in FORMS:
        raise unknown_name("output_layout", str(output_layout), FORMS)
    form, count, settled = _form(given, taken.shape[0], layout, _sides(taken.shape, layout), channels, output_layout)
    classes = num_classes
    if classes is None and count is not None and not channels.are_labels:
        classes = len(members(count)) if channels.sets else count
    if classes is None:
        raise InputError(f"the output {given} does not tell the number of classes: give num_classes")
    return Signature(taken, given, layout, form, classes, bands, replace(channels, count=count), settled)


def _pick(kind: str, tensors: Sequence[TensorSpec], name: str | int | None) -> TensorSpec:
    number = int(name) if isinstance(name, str) and name.isdecimal() else name
    if isinstance(number, int) and str(name) not in (tensor.name for tensor in tensors):
        if not -len(tensors) <= number < len(tensors):
            raise InputError(f"{kind} {name} of {len(tensors)}; expected 0 to {len(tensors) - 1}, or a name")
        return tensors[number]
    if name is not None:
        found = next((tensor for tensor in tensors if tensor.name == str(name)), None)
        if found is None:
            raise unknown_name(kind, str(name), (tensor.name for tensor in tensors))
        return found
    if len(tensors) != 1:
        listed = ", ".join(map(str, tensors)) or "none"
        option = "output=NAME or its number from 0"
        if kind == "input":
            others = f" and give the others inputs={{{tensors[-1].name}: …}}" if tensors else ""
            option = f"input_name=…{others}"
        raise InputError(f"the model has {len(tensors)} {kind}s ({listed}): name one with {option}")
    return tensors[0]


def _layout(image: TensorSpec, layout: str | None, bands: int | None) -> tuple[str, int]:
    """Layout of the input, and B."""
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if len(image.shape) != 4:
        raise InputError(f"the input {image} has {len(image.shape)} dimensions; expected 4, as (N, 3, H, W)")
    found = {name: image.shape[CHANNELS[name]] for name in LAYOUTS if layout in (None, name)}
    exact = [name for name, side in found.items() if side == (bands or 3)]
    few = [name for name, side in found.items() if bands is None and side is not None and side <= FEW]
    free = [name for name, side in found.items() if side is None]
    if exact:
        return exact[0], bands or 3
    if len(few) == 2:
        raise InputError(f"the input {image} has {image.shape[1]} or {image.shape[3]} bands: give layout=nchw or nhwc")
    if few:
        return few[0], found[few[0]] or 0
    other = image.shape[CHANNELS["nhwc" if layout == "nchw" else "nchw"]]
    if layout is not None and free and other == (bands or 3):
        raise InputError(f"the input {image} does not have {bands or 3} bands in layout {layout}")
    if free:
        return free[0], bands or 3
    if layout is not None and bands is None and found[layout] is not None:
        return layout, found[layout] or 0
    where = f" in layout {layout}" if layout else ""
    told = f"does not have {bands} bands{where}" if bands else "does not tell how many bands an image has: give bands"
    raise InputError(f"the input {image} {told}; expected (N, bands, H, W) or (N, H, W, bands), bands=3 for colours")


def _form(
    answer: TensorSpec, batch: int | None, layout: str, size: Sides, channels: Channels, given: str | None
) -> tuple[str, int | None, bool]:
    """Layout of the output, how many channels it has, and whether that is certain."""
    shape = answer.shape
    if shape and not (3 <= len(shape) <= 4 or (len(shape) == 2 and batch == 1)):
        raise InputError(
            f"the output {answer} is no map of an image; expected (N, K, h, w), or as output_layout has it: name "
            "another with output=, if there is one"
        )
    if not shape or (len(shape) != 4 and channels.count not in (None, 1)):
        return given or layout, channels.count, given is not None
    order = sorted(FORMS, key=lambda form: form != layout)
    fits = [fit for fit in _fits(shape, batch, size, channels, order if given is None else (given,))]
    if channels.count is None and given is None:
        fits = [fit for fit in fits if fit.level != _OTHER]
    best = [fit for fit in fits if fit.level == min(each.level for each in fits)]
    telling = known = [fit for fit in best if fit.channels is not None]
    if channels.count is None and len(best) > 1 and best[0].level == _UNKNOWN:
        # A dimension beside free ones can be that of the channels only if none of the others is a known side.
        telling = [fit for fit in telling if fit.sides == (None, None)]
    if not fits and channels.are_labels and given is None:
        return layout, 1, False  # the shape that some servers declare is that of the scores
    if not fits or (channels.count is None and not telling and 1 in shape[1:]):
        raise _misfit(answer, channels, given)
    if given is not None or len({fit.reading for fit in telling}) == 1:
        return (telling or best)[0].form, (telling or best)[0].channels or channels.count, True
    if channels.count is None and len(known) > 1:
        raise InputError(f"the output {answer} fits {known[0].form} and {known[1].form}: give output_layout")
    return best[0].form, channels.count, False


def _misfit(answer: TensorSpec, channels: Channels, given: str | None) -> InputError:
    """What an output without a fitting dimension needs."""
    if given is not None:
        return InputError(f"the output {answer} does not fit output_layout={given}, {channels.said or 'as declared'}")
    ones = 1 in answer.shape[1:] or len(answer.shape) < 4
    if ones and not channels.maps:
        has = "has 1 channel" if 1 in answer.shape[1:] else f"has {len(answer.shape)} dimensions, none for classes"
        return InputError(
            f"the output {answer} {has}: give outputs=sigmoid if it is the probability of the foreground, "
            "outputs=binary_logit if it is a logit (no sigmoid inside), or outputs=labels and num_classes if it is the "
            "class"
        )
    if channels.maps and channels.count == 1:
        return InputError(
            f"the output {answer} has no dimension of one channel, as {channels.said} promises: pick one with "
            "channels=[…], or give outputs=multilabel or multilabel_logits if each channel is a yes/no map"
        )
    if channels.count is None and channels.said:
        return InputError(
            f"the output {answer} has no dimension of at least {channels.least} channels, as {channels.said} needs: "
            "they are numbered from 0"
        )
    return InputError(f"the output {answer} has no dimension of {channels.said or 'channels'}: is the number right?")
