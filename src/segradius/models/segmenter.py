"""A network with everything between an image and its logits, held frozen in evaluation mode while it is asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.bands import check_bands, told
from segradius.core.border import at_border
from segradius.core.contracts import ALL, FEATURES
from segradius.core.errors import InputError, ModelError
from segradius.models.decoding import Decode, Decoding
from segradius.models.holding import all_frozen, kept, modes_kept
from segradius.models.holding import frozen as frozen
from segradius.models.outputs import check_form, check_images, check_logits
from segradius.models.parameters import check_parameters
from segradius.models.predicting import predict_undone
from segradius.models.preprocessing import (
    Normalisation,
    SizeRule,
)
from segradius.models.twins import Twins
from segradius.models.watching import can_be_watched, middle_layers, watched


@dataclass(frozen=True)
class Weights:
    """Where the numbers in a network come from, as far as its source knows.

    Args:
        source: A file, or a library's name of them; empty for none.
        whole: Whether all of them are trained: false where some or all are as initialised, None where nobody knows.
        digest: Of the file, where it holds the network too, so that the parameters do not tell all; empty otherwise.
    """

    source: str = ""
    whole: bool | None = None
    digest: str = ""


#: Of a network that was built and not loaded.
INITIALISED = Weights(whole=False)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network with everything that lies between an image in [0, 1] and its logits. `wrap` makes one.

    Args:
        network: An `nn.Module`, or any function of a batch (N, B, H', W'), which sees to its evaluation mode itself.
        num_classes: C, at least 2.
        name: What reports call it.
        normalisation: What the network wants done to the colours.
        size: What sizes it takes.
        decode: From the network's raw output to logits (N, C, h, w).
        precision: Reduced precision of every pass for which none is asked; None for none.
        twins: Cheaper forms of it, which loops look through; None for none. `segradius.speed.sped_up` makes them.
        surrogate: Another network, on which adversarial images are made that this one judges; None: they are made on
            itself. `segradius.transferred` gives it one.
        structures: K where the C = 2^K classes are sets of structures that may overlap (`segradius.core.label_sets`),
            each seen by a yes/no channel; 0 for ordinary classes.
        channels_last: Whether the network is given ``channels_last`` memory where that is faster (on a CPU). Values
            move by rounding only. Off by default, as networks that use ``.view`` may refuse that layout.
        weights: Where its parameters come from.
        assumed: What its source assumed of its normalisation, if that was not said.
        bands: B, the input channels that it takes; None where it is not known, so that it is given what there is.
        lipschitz: L as its source states it, of logits (l2 over all pixels and classes) for images in [0, 1] (l2 over
            all values); None where nothing is stated. `segradius.models.lipschitz_bound` verifies one.
    """

    network: Callable[[Tensor], Any]
    num_classes: int
    name: str = "model"
    normalisation: Normalisation | None = None
    size: SizeRule = field(default_factory=SizeRule)
    decode: Decode = field(default_factory=Decoding)
    channels_last: bool = False
    weights: Weights = field(default_factory=Weights)
    assumed: str = ""
    bands: int | None = None
    lipschitz: float | None = None
    structures: int = 0
    precision: torch.dtype | None = None
    twins: Twins | None = field(default=None, repr=False)
    surrogate: Segmenter | None = field(default=None, repr=False)

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits at the size of the images, differentiable in them, by a frozen network in evaluation mode.

        Args:
            images: (N, B, H, W) in [0, 1]. They are not checked here: `check` does that once.
            precision: Run the network under autocast in this dtype (``torch.bfloat16``); None or float32 for none.

        Returns:
            (N, C, H, W), contiguous, float32 (float64 for float64 images) whatever the precision.
        """
        with self.frozen():
            coarse = self.raw_logits(images, precision)
        return self.size.undo(coarse, images.shape[-2], images.shape[-1]).contiguous()

    @property
    def offers(self) -> frozenset[str]:
        """Logits, scores and labels; of a network of modules what its layers give besides."""
        return ALL | {FEATURES} if can_be_watched(self.network) else ALL

    def watching(self, layer: str = "") -> AbstractContextManager[list[Tensor]]:
        """A context in which a pass leaves what a layer gives, as `segradius.models.watching.watched` says.

        Args:
            layer: Its name; empty for `middle_layers`.
        """
        return watched(self.network, (layer,) if layer else middle_layers(self.network))  # type: ignore[arg-type]

    @torch.no_grad()
    def top_class(self, images: Tensor, precision: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Largest logit of each pixel and its class, as `segradius.core.prediction.predict` finds them in `logits`.

        What the network gives is brought to the size of the images some images and classes at a time, so that memory
        is that of the network and of a few maps, however many classes there are. No gradient.

        Args:
            images: (N, B, H, W) in [0, 1].
            precision: As in `logits`.

        Returns:
            (N, H, W) each: floating, NaN where a logit is; and int64.
        """
        with self.frozen():
            coarse = self.raw_logits(images, precision)
        return predict_undone(coarse, self.size, images.shape[-2], images.shape[-1])

    def raw_logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Logits (N, C, h, w) at the size that the network gives, on the images' device; not frozen or resized."""
        x = self.prepare(images)
        lower = _reduced(x.device, precision or self.precision)
        with at_border(f"model {self.name!r}", images.shape):
            with lower, modes_kept():
                raw = self.network(x)
            logits = self.decode(raw)
            if self.num_classes:
                check_form(logits, images.shape[0], self.num_classes, self.name)  # len() would fix an export
            if not isinstance(logits, Tensor) or not logits.is_floating_point():
                return logits
            return logits.to(images.device, torch.promote_types(images.dtype, torch.float32))

    def prepare(self, images: Tensor) -> Tensor:
        """What the network is given for images (N, B, H, W): normalised, resized or padded, in its dtype and layout."""
        check_bands(images.shape[1], self.bands, self.name)
        x = images if self.normalisation is None else self.normalisation.apply(images)
        x = self.size.fit(x)
        if (dtype := _parameter_dtype(self.network)) is not None:
            x = x.to(dtype)
        x = _channels_last(x) if self.channels_last and x.device.type == "cpu" else x
        return x.clone() if x is images else x  # a network may change its input in place, and these are the caller's

    @torch.no_grad()
    def scores(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Class probabilities (N, C, H, W), the softmax of the logits; no gradient.

        Args:
            images: (N, B, H, W) in [0, 1].
            precision: As in `logits`.
        """
        return self.logits(images, precision).softmax(1)

    def frozen(self) -> AbstractContextManager[None]:
        """The context in which the network is frozen and in evaluation mode; left as found. See `frozen`."""
        held = self._networks
        return all_frozen(*held) if held[1:] else frozen(self.network)

    @property
    def _networks(self) -> tuple[Any, ...]:
        """All that are asked while it is attacked."""
        forms = () if self.twins is None else (self.twins.answers.network, self.twins.guidance.network)
        return self.network, *forms, *(() if self.surrogate is None else self.surrogate._networks)

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
                has a NaN, or is not what `decode` takes: probabilities, sigmoids or −inf where logits are expected, or
                the reverse.
        """
        check_images(images)
        check_bands(images.shape[1], self.bands, self.name)
        check_parameters(self.network, self.name)
        decode, kind, own = self.decode, "", self.decode
        if isinstance(own, Decoding):
            decode, kind = partial(own.checked, who=f"model {self.name!r}"), own.kind
        with torch.no_grad(), self.frozen(), kept(self.network):
            if (check_denoised := getattr(self.network, "check_denoised", None)) is not None:
                check_denoised(self.prepare(images))
            coarse = replace(self, decode=decode)._try(images)
        check_logits(coarse, images, self.num_classes, self.name, kind=kind)

    def _try(self, images: Tensor) -> Tensor:
        try:
            return self.raw_logits(images)
        except ModelError as error:
            if isinstance(error.__cause__, InputError):
                raise
            raise ModelError(
                f"{error}. If it cannot take this size, give size={{'multiple_of': …}} or {{'exact': [height, width]}};"
                f" if it takes other than {told(images.shape[1])}, give bands=… (size: and bands: in a card; of a file "
                "torchscript:FILE,size={multiple_of: …},bands=…)",
                by_image=error.by_image,
            ) from error


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
        """Logits (N, C, H, W) of images (N, B, H, W) in [0, 1]."""
        return self.model.logits(images)
