"""Sliding windows, scales and mirroring as one differentiable model: windows, and their mean at each pixel."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from segradius.core.errors import InputError, is_whole, must
from segradius.core.text import from_mapping
from segradius.models.decoding import Decoding
from segradius.models.denoising import DenoisedNetwork, told
from segradius.models.preprocessing import Normalisation, resize
from segradius.models.segmenter import Segmenter


def window_starts(side: int, crop: int, stride: float) -> list[int]:
    """First pixels of the windows that cover a side: ⌈crop · stride⌉ apart, the last one moved back to the border.

    Args:
        side: Pixels to cover, at least ``crop``.
        crop: Pixels of a window.
        stride: Part of ``crop``, in (0, 1].

    Returns:
        The starts, ascending, from 0 to side − crop.

    Example:
        >>> window_starts(20, 9, 2 / 3)
        [0, 6, 11]
    """
    step = math.ceil(crop * stride)
    return [min(i * step, side - crop) for i in range(math.ceil((side - crop) / step) + 1)]


def cut(images: Tensor, rows: Sequence[int], columns: Sequence[int], crop: tuple[int, int]) -> Tensor:
    """Windows of images, as one batch.

    Args:
        images: (N, C, H, W).
        rows: First row of each row of windows.
        columns: First column of each column of windows.
        crop: (height, width) of a window.

    Returns:
        (N · len(rows) · len(columns), C, height, width): image by image, row by row.
    """
    bands = torch.stack([images[..., row : row + crop[0], :] for row in rows], 1)
    windows = torch.stack([bands[..., column : column + crop[1]] for column in columns], 2)
    return windows.flatten(0, 2)


def average(windows: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Mean over the windows at each pixel; gives back the images that `cut` took them from.

    Args:
        windows: (N · len(rows) · len(columns), C, h, w), in the order of `cut`.
        rows: As in `cut`; the windows leave no gap.
        columns: Likewise.

    Returns:
        (N, C, H, W), where the last windows end at H and W.
    """
    grid = windows.reshape(-1, len(rows), len(columns), *windows.shape[1:])
    return _mean_along(_mean_along(grid.unbind(2), columns, -1).unbind(1), rows, -2)


def margins(side: int, crop: int) -> tuple[int, int]:
    """Pixels to add before and after a side to make it at least as long as a window, the odd one after.

    Example:
        >>> margins(5, 8), margins(9, 8)
        ((1, 2), (0, 0))
    """
    missing = max(crop - side, 0)
    return missing // 2, missing - missing // 2


def pad(images: Tensor, margins: tuple[int, int, int, int], colour: Sequence[float]) -> Tensor:
    """Images with a border of one colour.

    Args:
        images: (N, C, H, W).
        margins: Pixels to add at the left, right, top and bottom.
        colour: C numbers in the unit of the images.

    Returns:
        (N, C, H + top + bottom, W + left + right); ``images`` itself where nothing is to be added.
    """
    if not any(margins):
        return images
    channels = zip(images.unbind(1), colour, strict=True)
    return torch.stack([functional.pad(channel, margins, value=value) for channel, value in channels], 1)


def _mean_along(windows: Sequence[Tensor], starts: Sequence[int], dim: int) -> Tensor:
    """Mean of overlapping windows along one dimension, between one start or end and the next at a time.

    Views are joined instead of added into a canvas: scattered sums are not deterministic on CUDA.
    """
    crop = windows[0].shape[dim]
    edges = sorted({edge for start in starts for edge in (start, start + crop)})
    parts = []
    for low, high in pairwise(edges):
        here = [w.narrow(dim, low - s, high - low) for s, w in zip(starts, windows, strict=True) if s <= low < s + crop]
        parts.append(torch.stack(here).mean(0))
    return torch.cat(parts, dim)


TilingLike: TypeAlias = "Tiling | Mapping[str, Any]"


@dataclass(frozen=True)
class Tiling:
    """How an image of any size is given to a network window by window, at several scales, and mirrored.

    The rule is that of the public evaluation code of PSPNet and PSANet (the ``semseg`` repository of their authors).
    At each scale the image is resized, bilinearly and without antialiasing, until its longer side is ``base`` · scale;
    a side shorter than the window is padded on both ends with the colour that normalisation makes zero; windows
    ⌈crop · stride⌉ pixels apart cover it, the last one moved back to end at the border. Probabilities are averaged over
    mirrored and plain window, then over the windows at each pixel, then, resized to the image, over scales.

    Args:
        crop: (height, width) of a window in pixels, each at least 1.
        stride: Distance of windows as a part of ``crop``, in (0, 1].
        scales: Factors on ``base``, above 0.
        flip: Whether every window is also seen mirrored left to right.
        base: Longer side at scale 1, in pixels; None for the image's own.
        chunk: Windows given to the network at once (with ``flip`` their mirror images too). It bounds memory and
            moves values by rounding only. Where there are more windows than that, activations are computed anew in the
            backward pass, which takes about a third more time.

    Raises:
        InputError: If a value is outside its range.

    Example:
        >>> Tiling((473, 473), scales=(0.5, 1.0)).sides(300, 600)
        [(150, 300), (300, 600)]
    """

    crop: tuple[int, int]
    stride: float = 2 / 3
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    base: int | None = None
    chunk: int = 8

    def __post_init__(self) -> None:
        crop, scales = _items(self.crop), _items(self.scales)
        sides = len(crop) == 2 and all(is_whole(side, 1) for side in crop)
        must(sides, "crop", self.crop, "(height, width) in pixels, each at least 1")
        must(_positive(self.stride) and self.stride <= 1, "stride", self.stride, "a part of the crop in (0, 1]")
        above = bool(scales) and all(_positive(scale) for scale in scales)
        must(above, "scales", self.scales, "at least one finite number above 0")
        must(isinstance(self.flip, bool), "flip", self.flip, "true or false")
        base = self.base is None or is_whole(self.base, 1)
        must(base, "base", self.base, "a whole number of pixels, or None for the image's own side")
        must(is_whole(self.chunk, 1), "chunk", self.chunk, "a whole number of windows, at least 1")
        object.__setattr__(self, "crop", crop)
        object.__setattr__(self, "scales", scales)

    def __str__(self) -> str:
        """What differs from the defaults, in words."""
        parts = [f"{self.crop[0]}x{self.crop[1]}"]
        parts += [] if self.stride == Tiling.stride else [f"stride {self.stride:g}"]
        parts += [] if self.scales == (1.0,) else ["scales " + ", ".join(f"{scale:g}" for scale in self.scales)]
        parts += [] if self.base is None else [f"base {self.base}"]
        return " ".join([*parts, *(["flip"] if self.flip else [])])

    def sides(self, height: int, width: int) -> list[tuple[int, int]]:
        """Size (height, width), in pixels, of an image of this size at each scale."""
        base = self.base or max(height, width)
        return [_with_longer_side(height, width, max(1, round(scale * base))) for scale in self.scales]


def tiled(model: Segmenter, tiling: TilingLike | None = None, **arguments: Any) -> Segmenter:
    """A model as it is deployed: over sliding windows, at several scales, mirrored and averaged; see `Tiling`.

    The result is a `Segmenter` like any other: attacks, radii and certificates run through the whole of it. Its logits
    are the logarithm of the averaged probabilities (at least the smallest normal number), so that their softmax gives
    those back. The network is shared, not copied, and runs frozen: train it by itself, not through its windows.

    Args:
        model: From `wrap` or `load_model`; its normalisation and sizes hold for each window.
        tiling: A `Tiling`, or a mapping of its arguments, as a card has it.
        **arguments: Those of a `Tiling` where none is given: ``crop`` at least. An image may be smaller or larger.

    Raises:
        InputError: If ``model`` is no `Segmenter`, or an argument is unknown, missing or outside its range.

    Example:
        >>> from segradius.models import wrap
        >>> model = tiled(wrap(nn.Conv2d(3, 4, 3), name="net"), crop=(24, 24), scales=(0.5, 1.0), flip=True)
        >>> model.name, model.logits(torch.rand(2, 3, 40, 60)).shape
        ('net tiled 24x24 scales 0.5, 1 flip', torch.Size([2, 4, 40, 60]))
    """
    if not isinstance(model, Segmenter):
        raise InputError(f"tiled takes a Segmenter, such as wrap(network) gives; got a {type(model).__name__}")
    tiling = as_tiling(arguments if tiling is None else tiling)
    return Segmenter(
        TiledNetwork(model, tiling),
        model.num_classes,
        name=f"{model.name} tiled {tiling}",
        decode=Decoding("probabilities"),
        structures=model.structures,
        bands=model.bands,
    )


def as_tiling(value: TilingLike) -> Tiling:
    """A `Tiling` from what users write.

    Args:
        value: A `Tiling` or a mapping of its arguments, ``crop`` at least.

    Raises:
        InputError: On an unknown key, a missing ``crop`` or a bad value.

    Example:
        >>> print(as_tiling({"crop": [473, 473], "stride": 0.5, "flip": True}))
        473x473 stride 0.5 flip
    """
    if isinstance(value, Tiling):
        return value
    if not isinstance(value, Mapping) or "crop" not in value:
        raise InputError(f"inference {value!r}: expected a mapping with at least {{crop: [height, width]}}")
    return from_mapping(Tiling, value, "inference key")


class TiledNetwork(nn.Module):
    """From images in [0, 1] to averaged probabilities; `tiled` makes it, with the network inside as a submodule.

    Args:
        model: What sees each window, normalisation and sizes included.
        tiling: The windows, scales and mirroring.

    Example:
        >>> from segradius.models import wrap
        >>> network = TiledNetwork(wrap(nn.Conv2d(3, 4, 1)), Tiling((5, 5)))
        >>> bool((network(torch.rand(1, 3, 7, 9)).sum(1) - 1).abs().max() < 1e-5)
        True
    """

    def __init__(self, model: Segmenter, tiling: Tiling) -> None:
        super().__init__()
        self.model, self.network, self.tiling = model, model.network, tiling

    def extra_repr(self) -> str:
        """The tiling, in words."""
        return str(self.tiling)

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities (N, C, H, W) of images (N, B, H, W) in [0, 1], at least float32."""
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        size = (images.shape[-2], images.shape[-1])
        sides = self.tiling.sides(*size)
        return reduce(torch.add, (resize(self._at_scale(resize(images, side)), size) for side in sides)) / len(sides)

    def _at_scale(self, images: Tensor) -> Tensor:
        """Probabilities of images at one scale, at their size."""
        (height, width), crop = images.shape[-2:], self.tiling.crop
        (top, bottom), (left, right) = margins(height, crop[0]), margins(width, crop[1])
        colour = _neutral_colour(self.model.normalisation, images.shape[1])
        padded = pad(images, (left, right, top, bottom), colour)
        rows = window_starts(padded.shape[-2], crop[0], self.tiling.stride)
        columns = window_starts(padded.shape[-1], crop[1], self.tiling.stride)
        windows = self._of_windows(cut(padded, rows, columns, crop))
        return average(windows, rows, columns)[..., top : top + height, left : left + width]

    def _of_windows(self, windows: Tensor) -> Tensor:
        chunks = torch.split(windows, self.tiling.chunk)
        if len(chunks) == 1 or not (torch.is_grad_enabled() and windows.requires_grad):
            return torch.cat([self._of_chunk(chunk) for chunk in chunks])
        return torch.cat([checkpoint(self._of_chunk, c, use_reentrant=False, preserve_rng_state=False) for c in chunks])

    def _of_chunk(self, windows: Tensor) -> Tensor:
        # `logits` freezes the network itself: activations may be computed anew after the outer freezing has ended.
        if not self.tiling.flip:
            return self.model.logits(windows).softmax(1)
        plain, mirrored = self.model.logits(torch.cat([windows, windows.flip(-1)])).softmax(1).chunk(2)
        return (plain + mirrored.flip(-1)) / 2


def fingerprint(model: object) -> str:
    """A hash of the parameters, buffers, normalisation, sizes, outputs, denoiser and tiling of a `Segmenter`.

    Of a bare function it is empty; of a function that decodes or denoises, its name alone counts.

    Example:
        >>> from segradius.models import wrap
        >>> network = torch.nn.Conv2d(3, 2, 1)
        >>> fingerprint(wrap(network)) == fingerprint(wrap(network, normalisation="imagenet"))
        False
    """
    if not isinstance(model, Segmenter) or not isinstance(model.network, nn.Module):
        return ""
    digest = hashlib.sha256()
    inner = model
    while isinstance(inner.network, TiledNetwork | DenoisedNetwork):
        outer = inner.network
        digest.update((repr(outer.tiling) if isinstance(outer, TiledNetwork) else told(outer.denoiser)).encode())
        inner = outer.model
    if not isinstance(inner.network, nn.Module):
        return ""
    digest.update(f"{inner.normalisation} {inner.size}".encode())
    digest.update(inner.weights.digest.encode())
    if inner.decode != Decoding():
        named = isinstance(inner.decode, Decoding)
        digest.update((repr(inner.decode) if named else getattr(inner.decode, "__qualname__", "function")).encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _with_longer_side(height: int, width: int, longer: int) -> tuple[int, int]:
    if height > width:
        return longer, max(1, round(longer / height * width))
    return max(1, round(longer / width * height)), longer


def _neutral_colour(normalisation: Normalisation | None, bands: int) -> tuple[float, ...]:
    """The values of the bands that normalisation makes zero; the mean is in the network's order."""
    if normalisation is None or normalisation.is_identity:
        return (0.0,) * bands
    return tuple(normalisation.mean[normalisation.order.index(band)] for band in range(bands))


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
