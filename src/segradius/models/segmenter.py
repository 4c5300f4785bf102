"""`wrap`: any network behind one face, held frozen in evaluation mode and given back as it was found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, Never

import torch
from torch import Tensor, nn

from segradius.core.bands import check_bands, told
from segradius.core.border import at_border, in_a_line
from segradius.core.contracts import ALL
from segradius.core.errors import InputError, ModelError, is_whole
from segradius.core.text import options_of, refuse_unknown
from segradius.models.bands import RGB, candidates, check_number, found_bands, likely_bands, refuse_volumes
from segradius.models.holding import frozen as frozen
from segradius.models.outputs import (
    Decode,
    as_decode,
    check_form,
    check_images,
    check_logits,
    log_probabilities,
    main_output,
)
from segradius.models.parameters import check_parameters
from segradius.models.preprocessing import (
    Normalisation,
    NormalisationLike,
    SizeLike,
    SizeRule,
    as_normalisation,
    as_size_rule,
)

PROBE_SIZE = (128, 128)


@dataclass(frozen=True)
class Weights:
    """Where the numbers in a network come from, as far as its source knows.

    Args:
        source: A file, or a library's name of them; empty for none.
        whole: Whether all of them are trained: false where some or all are as initialised, None where nobody knows.
    """

    source: str = ""
    whole: bool | None = None


#: Of a network that was built and not loaded.
INITIALISED = Weights(whole=False)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network with everything that lies between an image in [0, 1] and its logits. `wrap` makes one.

    Args:
        network: An `nn.Module`, or any function of a batch (N, 3, H', W'), which sees to its evaluation mode itself.
        num_classes: C, at least 2.
        name: What reports call it.
        normalisation: What the network wants done to the colours.
        size: What sizes it takes.
        decode: From the network's raw output to logits (N, C, h, w).
        channels_last: Whether the network is given ``channels_last`` memory where that is faster (on a CPU). Values
            move by rounding only. Off by default, as networks that use ``.view`` may refuse that layout.
        weights: Where its parameters come from.
        assumed: What its source assumed of its normalisation, if that was not said.
        bands: B, the input channels that it takes; None where it is not known, so that it is given what there is.
    """

    offers: ClassVar[frozenset[str]] = ALL

    network: Callable[[Tensor], Any]
    num_classes: int
    name: str = "model"
    normalisation: Normalisation | None = None
    size: SizeRule = field(default_factory=SizeRule)
    decode: Decode = main_output
    channels_last: bool = False
    weights: Weights = field(default_factory=Weights)
    assumed: str = ""
    bands: int | None = None

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits at the size of the images, differentiable in them, by a frozen network in evaluation mode.

        Args:
            images: (N, 3, H, W) in [0, 1]. They are not checked here: `check` does that once.
            precision: Run the network under autocast in this dtype (``torch.bfloat16``); None or float32 for none.

        Returns:
            (N, C, H, W), contiguous, float32 (float64 for float64 images) whatever the precision.
        """
        with self.frozen():
            coarse = self.raw_logits(images, precision)
        return self.size.undo(coarse, images.shape[-2], images.shape[-1]).contiguous()

    def raw_logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits (N, C, h, w) at the size that the network gives them in; neither frozen nor resized."""
        x = self.prepare(images)
        lower = _reduced(x.device, precision)
        with at_border(f"model {self.name!r}", images.shape):
            with lower:
                raw = self.network(x)
            logits = self.decode(raw)
            if self.num_classes:
                check_form(logits, images.shape[0], self.num_classes, self.name)  # len() would fix an export
        return logits.to(torch.promote_types(images.dtype, torch.float32)) if logits.is_floating_point() else logits

    def prepare(self, images: Tensor) -> Tensor:
        """What the network is given for images (N, 3, H, W): normalised, resized or padded, in its dtype and layout."""
        check_bands(images.shape[1], self.bands, self.name)
        x = images if self.normalisation is None else self.normalisation.apply(images)
        x = self.size.fit(x)
        if (dtype := _parameter_dtype(self.network)) is not None:
            x = x.to(dtype)
        return _channels_last(x) if self.channels_last and x.device.type == "cpu" else x

    @torch.no_grad()
    def scores(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Class probabilities (N, C, H, W), the softmax of the logits; no gradient.

        Args:
            images: (N, 3, H, W) in [0, 1].
            precision: As in `logits`.
        """
        return self.logits(images, precision).softmax(1)

    def frozen(self) -> AbstractContextManager[None]:
        """The context in which the network is frozen and in evaluation mode; left as found. See `frozen`."""
        return frozen(self.network)

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are; the CPU for a function or a network without any."""
        first = next(_tensors(self.network), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's parameters; float32 for a function or a network without any."""
        return _parameter_dtype(self.network) or torch.float32

    def check(self, images: Tensor) -> None:
        """Check images and what the network makes of them, with one forward pass.

        Args:
            images: A small batch, as it would be attacked.

        Raises:
            InputError: If the images are not floating (N, B, H, W) in [0, 1] of its bands, a parameter has no values or
                not finite ones, the network fails on the images, or its output is not floating (N, num_classes, h, w),
                has a NaN, or holds probabilities or sigmoids where logits are expected (or the reverse).
        """
        check_images(images)
        check_bands(images.shape[1], self.bands, self.name)
        check_parameters(self.network, self.name)
        with torch.no_grad(), self.frozen():
            coarse = self._try(images)
        check_logits(coarse, images, self.num_classes, self.name, promised_log=self.decode is log_probabilities)

    def _try(self, images: Tensor) -> Tensor:
        try:
            return self.raw_logits(images)
        except ModelError as error:
            if isinstance(error.__cause__, InputError):
                raise
            raise ModelError(
                f"{error}. If it cannot take this size, give size={{'multiple_of': …}} or {{'exact': [height, width]}}",
                by_image=error.by_image,
            ) from error


def wrap(
    model: Any,
    *,
    num_classes: int | None = None,
    normalisation: NormalisationLike = None,
    size: SizeLike = None,
    outputs: str | Decode | None = None,
    name: str | None = None,
    channels_last: bool | None = None,
    bands: int | None = None,
    **_unknown: Never,
) -> Segmenter:
    """A `Segmenter` around a network, which is left as found.

    Args:
        model: An `nn.Module` or any function of a batch (N, 3, H, W) that returns logits in a form that `main_output`
            knows. A `Segmenter` passes through, changed only in what is given.
        num_classes: C; found by a forward pass over a grey 128 × 128 image when None.
        normalisation: ``"imagenet"``, ``"none"``, (mean, std), a mapping or a `Normalisation`. None: none.
        size: A `SizeRule` or a mapping of its arguments. None: the network takes any size.
        outputs: ``"logits"`` (the default), ``"probabilities"`` (their logarithm is taken), ``"sigmoids"`` (one a
            class, undone), or a function from the raw output to logits.
        name: What reports call it; the class or function name when None.
        channels_last: See `Segmenter`. None: off.
        bands: B, its input channels. None: those of its normalisation or of its first convolution, where an image of
            that many is taken; not known where any number may be.

    Raises:
        InputError: If ``model`` cannot be called, a parameter has no values or not finite ones (`check_parameters`), an
            option is not one of the above, or the number of classes cannot be found or is less than 2;
            if the normalisation is of other bands than the network, or it takes volumes.

    Example:
        >>> model = wrap(torch.nn.Conv2d(3, 7, 1), normalisation="imagenet")
        >>> model.num_classes, model.logits(torch.rand(2, 3, 9, 5)).shape
        (7, torch.Size([2, 7, 9, 5]))
    """
    refuse_unknown("option of wrap", _unknown, options_of(wrap))
    if isinstance(model, Segmenter):
        draft = model
    elif callable(model):
        draft = Segmenter(model, 0, name=_name_of(model))
    else:
        raise InputError(
            f"a model must be an nn.Module or a function of a batch of images; got a {type(model).__name__}"
        )
    given: dict[str, Any] = {
        "normalisation": as_normalisation(normalisation),
        "size": None if size is None else as_size_rule(size),
        "decode": None if outputs is None else as_decode(outputs),
        "name": name,
        "channels_last": channels_last,
        "num_classes": num_classes,
        "bands": bands,
    }
    draft = replace(draft, **{key: value for key, value in given.items() if value is not None})
    check_parameters(draft.network, draft.name)
    if not isinstance(model, Segmenter) or bands is not None or normalisation is not None:
        draft = _with_bands(_told(draft))
    return draft if draft.num_classes and num_classes is None else _with_classes(draft, num_classes)


def _told(draft: Segmenter) -> Segmenter:
    """With the bands that the options and the normalisation tell, which must agree."""
    check_number(draft.bands)
    if draft.bands is None:
        refuse_volumes(draft.network, draft.name)
    colours = draft.normalisation
    if colours is None or colours.is_identity:
        return draft
    if draft.bands not in (None, colours.bands):
        raise _other_colours(draft, draft.bands)
    return replace(draft, bands=colours.bands)


def _with_bands(draft: Segmenter) -> Segmenter:
    """With the bands that the network shows, and where an image is needed for that, the classes that it shows too."""
    likely, known = likely_bands(draft.network), draft.bands
    if draft.num_classes and likely in (None, known or RGB):
        return _of_bands(draft, known or likely)
    found, failures = None, []
    for bands in candidates(known, likely):
        try:
            found = _answer_to_grey(draft, bands)
            break
        except InputError as error:
            failures.append(error)
    if found is not None:
        draft = _of_bands(draft, known or found_bands(bands, likely))
        return draft if draft.num_classes else _with_classes(draft, found.shape[1])
    if known is not None and likely not in (None, known) and _takes(replace(draft, normalisation=None), likely):
        raise _other_colours(draft, likely)
    if draft.num_classes:
        return draft  # the first image tells
    raise failures[0]


def _of_bands(draft: Segmenter, bands: int | None) -> Segmenter:
    """Of so many bands, which a normalisation that changes nothing then has too."""
    colours = draft.normalisation
    if bands is not None and colours is not None and colours.is_identity:
        colours = Normalisation.none(bands)
    return replace(draft, bands=bands, normalisation=colours)


def _with_classes(draft: Segmenter, found: int | None) -> Segmenter:
    if not is_whole(found, 2):
        raise InputError(
            f"model {draft.name!r} has num_classes={found!r}; expected a whole number of at least 2. Libraries name it "
            "num_classes, classes or num_labels. For one sigmoid channel z: torch.cat([torch.zeros_like(z), z], 1)"
        )
    assert found is not None
    return replace(draft, num_classes=found)


def _answer_to_grey(draft: Segmenter, bands: int) -> Tensor:
    """Logits of one grey image of so many bands."""
    grey = torch.full((1, bands, *(draft.size.exact or PROBE_SIZE)), 0.5, device=draft.device)
    try:
        with torch.no_grad(), draft.frozen():
            logits = draft.raw_logits(grey)
    except ModelError as error:
        if isinstance(error.__cause__, InputError):
            raise
        raise InputError(
            f"cannot find the number of classes of model {draft.name!r} with a grey image {tuple(grey.shape)}: "
            f"{in_a_line(error.__cause__ or error)}. Give num_classes, or the size or the bands that it takes"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != 1:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"model {draft.name!r} gave {found} for one image; expected logits (1, num_classes, h, w)")
    return logits


def _takes(draft: Segmenter, bands: int | None) -> bool:
    """Whether it takes a grey image of so many bands."""
    try:
        return bands is not None and bool(len(_answer_to_grey(replace(draft, bands=bands), bands)))
    except InputError:
        return False


def _other_colours(draft: Segmenter, bands: int | None) -> InputError:
    colours = draft.normalisation
    assert colours is not None
    assert bands is not None
    what = "imagenet, which is" if colours == Normalisation.imagenet() else f"of mean {colours.mean},"
    return InputError(
        f"model {draft.name!r} takes {told(bands)} and its normalisation is {what} for {told(colours.bands)}: give "
        f"normalisation={{mean: […], std: […]}} of {told(bands)}, or none"
    )


def _name_of(model: Any) -> str:
    return model.__name__ if hasattr(model, "__name__") else type(model).__name__


def _tensors(network: Any) -> chain[Tensor]:
    return chain(network.parameters(), network.buffers()) if isinstance(network, nn.Module) else chain()


def _parameter_dtype(network: Any) -> torch.dtype | None:
    return next((tensor.dtype for tensor in _tensors(network) if tensor.is_floating_point()), None)


def _reduced(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    if precision is None or precision == torch.float32:
        return nullcontext()
    if precision not in (torch.bfloat16, torch.float16):
        raise InputError(f"precision {precision} is not supported; expected torch.bfloat16, torch.float16 or None")
    return torch.autocast(device.type, dtype=precision)


def _channels_last(x: Tensor) -> Tensor:
    converted = x.contiguous(memory_format=torch.channels_last)
    if converted is not x and converted.requires_grad:
        # The gradient comes back in the layout of x, which other libraries' attacks take .view of.
        converted.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    return converted


class AsModule(nn.Module):
    """A `Segmenter` as a module: images in [0, 1] in, logits (N, C, H, W) at their size out, differentiable.

    The network stays a submodule, so that devices and parameters are found; it runs frozen in evaluation mode.

    Args:
        model: From `wrap` or `load_model`.

    Example:
        >>> import torch
        >>> from segradius.models import wrap
        >>> AsModule(wrap(nn.Conv2d(3, 4, 1), normalisation="imagenet"))(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model, self.network = model, model.network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W) in [0, 1]."""
        return self.model.logits(images)
