"""What a network wants done to an image in [0, 1], colours and sizes, inside the differentiable path."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.bands import told
from segradius.core.border import in_a_line
from segradius.core.errors import InputError, is_whole, unknown_name
from segradius.core.text import from_mapping

NormalisationLike: TypeAlias = "Normalisation | str | Mapping[str, Any] | Sequence[Sequence[float]] | None"
ROUNDING = 1e-3


@dataclass(frozen=True)
class Normalisation:
    """Order of the bands, then ``(x - mean) / std`` for each of the B.

    Args:
        mean: A number for each band in pixel units of [0, 1], in the network's order: three for RGB, one for grey.
        std: As many positive numbers, likewise.
        order: Which band of the image each band of the network is; (2, 1, 0) for a network that takes BGR. None given:
            that of the image.

    Raises:
        InputError: If there are not as many finite numbers each, a ``std`` is not positive, or they are not in the unit
            of images in [0, 1], as those of images in 0–255 are not.

    Example:
        >>> Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).apply(torch.ones(1, 3, 1, 1)).flatten().tolist()
        [2.0, 2.0, 2.0]
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise InputError(f"normalisation mean {self.mean} and std {self.std}: expected one number each for a band")
        if min(self.std) <= 0:
            raise InputError(f"normalisation std {self.std} must be positive")
        _check_unit(self.mean, self.std)
        usual = tuple(range(self.bands))
        object.__setattr__(self, "order", tuple(self.order) or usual)
        if sorted(self.order) != list(usual):
            raise InputError(f"normalisation order {self.order} must be a permutation of {usual}")

    @classmethod
    def imagenet(cls) -> Normalisation:
        """Mean and standard deviation of ImageNet, as torchvision's and smp's encoders were trained with."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def none(cls, bands: int = 3) -> Normalisation:
        """The identity, for any number of bands: the network takes [0, 1] as it is."""
        return cls((0.0,) * bands, (1.0,) * bands)

    @property
    def bands(self) -> int:
        """B, for how many bands there are numbers."""
        return len(self.mean)

    @functools.cached_property
    def is_identity(self) -> bool:
        """Whether it changes nothing, and so says nothing of the number of bands."""
        return self._keeps_colours and self.order == tuple(range(self.bands))

    @property
    def entry(self) -> str | dict[str, list[float]]:
        """As a card has it.

        Example:
            >>> Normalisation.none(4).entry, Normalisation((0.5,), (0.25,)).entry
            ('none', {'mean': [0.5], 'std': [0.25], 'order': [0]})
        """
        if self.is_identity:
            return "none"
        if self == Normalisation.imagenet():
            return "imagenet"
        return {"mean": [*self.mean], "std": [*self.std], "order": [*self.order]}

    @property
    def is_impossible(self) -> bool:
        """Whether no values in [0, 1] have this mean and deviation, as where the two are swapped.

        A deviation that is the same in all channels is a scale, and says nothing.

        Example:
            >>> usual = Normalisation.imagenet()
            >>> usual.is_impossible, Normalisation(usual.std, usual.mean).is_impossible
            (False, True)
        """
        room = [mean * (1 - mean) + ROUNDING for mean in self.mean]
        return len(set(self.std)) > 1 and any(std**2 > most for std, most in zip(self.std, room, strict=True))

    @functools.cached_property
    def _keeps_colours(self) -> bool:
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def apply(self, x: Tensor) -> Tensor:
        """Normalised images.

        Args:
            x: Images (N, B, H, W) in [0, 1].

        Returns:
            A tensor like ``x``, differentiable in ``x``.

        Raises:
            InputError: If the images have another number of bands; one of grey would become three without a word.
        """
        if self.is_identity:
            return x
        if x.shape[1] != self.bands:
            raise InputError(f"a normalisation of {told(self.bands)} was given images {tuple(x.shape)}")
        if self.order != tuple(range(self.bands)):
            x = torch.stack([x[:, channel] for channel in self.order], dim=1)
        if self._keeps_colours:
            return x
        return (x - _column(self.mean, x.dtype, x.device)) / _column(self.std, x.dtype, x.device)


def as_normalisation(value: NormalisationLike) -> Normalisation | None:
    """A `Normalisation` from what users write.

    Args:
        value: A `Normalisation`, ``"imagenet"``, ``"none"``, a pair (mean, std), a mapping with ``mean``, ``std`` and
            perhaps ``order``, or None.

    Returns:
        The normalisation; None for None.

    Raises:
        InputError: If it is none of these.

    Example:
        >>> as_normalisation("imagenet") == as_normalisation(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        True
    """
    named = {"imagenet": Normalisation.imagenet, "none": Normalisation.none}
    if value is None or isinstance(value, Normalisation):
        return value
    if isinstance(value, str):
        if value not in named:
            raise unknown_name("normalisation", value, named)
        return named[value]()
    if isinstance(value, Mapping) and {"mean", "std"} <= set(value) <= {"mean", "std", "order"}:
        return Normalisation(**value)
    if isinstance(value, Sequence) and len(value) == 2:
        return Normalisation(*value)
    raise InputError(
        f"normalisation {value!r}: expected imagenet, none, (mean, std) or {{mean: […], std: […]}}, a number a band"
    )


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"normalisation {name} {values!r}: expected finite numbers in a list, one a band")
    return numbers


def _check_unit(mean: Sequence[float], std: Sequence[float]) -> None:
    if 1 < max(mean) <= 255 and min(mean) >= 0:
        m, s = (tuple(round(value / 255, 6) for value in values) for values in (mean, std))
        raise InputError(
            f"normalisation mean {mean} and std {std} are for images in 0–255; here images are in [0, 1]: divide both "
            f"by 255, mean {m} and std {s}"
        )
    if not (min(mean) >= 0 and max(mean) <= 1):
        raise InputError(f"normalisation mean {mean}: expected numbers in [0, 1], the unit of the images")
    if max(std) > 2:  # above 1 where bytes are divided by 256
        raise InputError(
            f"normalisation std {std}: expected numbers in (0, 2], the unit of the images, which are in [0, 1] already"
        )


def measured(prepare: Callable[[Tensor], Any], what: str, bands: int = 3) -> Normalisation:
    """What a library's own function does to the colours of 8-bit images: it is asked, not read from its settings.

    Args:
        prepare: From an 8-bit image (B, H, W) to values (B, H, W), as a tensor or array, of the same size.
        what: Whose it is, for the message.
        bands: B.

    Returns:
        The same for images in [0, 1]: 255 there is 1 here. Of numbers that give the same values, the shortest.

    Raises:
        InputError: If it fails, changes the size, or does anything but reorder, scale and shift channels; or its
            numbers are not for 8-bit images.

    Example:
        >>> measured(lambda image: (image / 127.5 - 1).flip(0), "mine")
        Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), order=(2, 1, 0))
    """
    image = torch.randint(256, (bands, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[:, 0, 0], image[:, 0, 1] = 0, 255
    advice = f"give normalisation= (mean and std for images in [0, 1]) in place of that of {what}"
    try:
        values = torch.as_tensor(prepare(image.clone())).double()
    except Exception as error:  # whatever a library makes of an image that it does not expect
        raise InputError(f"{what} cannot be asked ({in_a_line(error)}): {advice}") from error
    if values.shape != image.shape:
        raise InputError(f"{what} makes {tuple(values.shape)} of an image {tuple(image.shape)}: {advice}")
    x = image.double() / 255
    low, high = values[:, 0, 0], values[:, 0, 1]
    unit = (values - low[:, None, None]) / (high - low)[:, None, None]
    away = (unit[:, None] - x[None]).abs().amax((2, 3))
    order = away.argmin(1)
    if not (high > low).all() or sorted(order.tolist()) != list(range(bands)):
        raise InputError(f"{what} does more to colours than to reorder, scale and shift them: {advice}")
    std = 1 / (high - low)
    near = max(2e-6, 1.2e-7 * float(values.abs().max()))
    for digits in range(1, 18):
        m, s = ([float(f"{value:.{digits}g}") + 0.0 for value in numbers.tolist()] for numbers in (-low * std, std))
        own = (x[order] - torch.tensor(m).double().view(-1, 1, 1)) / torch.tensor(s).double().view(-1, 1, 1)
        if (own - values).abs().max() <= near:
            try:
                return Normalisation(*map(tuple, (m, s, order.tolist())))
            except InputError as error:
                raise InputError(f"{what}: {error}") from error
    raise InputError(f"{what} does more to colours than to reorder, scale and shift them: {advice}")


@functools.lru_cache(maxsize=32)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, as a copy to a GPU at every step would wait for it; never an inference tensor, which autograd refuses.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


SizeLike: TypeAlias = "SizeRule | Mapping[str, Any] | None"
MODES = ("pad", "resize", "refuse")


@dataclass(frozen=True)
class SizeRule:
    """The sizes that a network takes, and how an image of another size gets there.

    A side s becomes the smallest S ≥ s with S ≡ ``plus`` (mod ``multiple_of``), or both become ``exact``. ``pad``
    repeats the last row and column at the bottom and right, and crops the logits back: no pixel is resampled, the grid
    stays aligned with the strides, and, unlike a constant border, no edge appears that is not in the image. ``resize``
    is bilinear (pixel centres aligned, no antialiasing), and so is the way back.

    Args:
        multiple_of: k ≥ 1; 32 for a network of stride 32.
        plus: r in [0, k); PSPNet's 8k + 1 is ``multiple_of=8, plus=1``.
        exact: (height, width), for a network of one size.
        mode: ``"pad"``, ``"resize"``, or ``"refuse"`` for a network whose one size nobody has chosen.

    Raises:
        InputError: If a value is outside its range, or ``exact`` and ``multiple_of`` are both given.

    Example:
        >>> SizeRule(multiple_of=8, plus=1).target(240, 473)
        (241, 473)
    """

    multiple_of: int = 1
    plus: int = 0
    exact: tuple[int, int] | None = None
    mode: str = "pad"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("size mode", str(self.mode), MODES)
        if not (is_whole(self.multiple_of) and is_whole(self.plus) and self.plus < self.multiple_of):
            raise InputError(
                f"size multiple_of={self.multiple_of!r}, plus={self.plus!r}: expected whole numbers, "
                "0 <= plus < multiple_of"
            )
        if self.exact is not None:
            object.__setattr__(self, "exact", self._checked_exact(self.exact))

    def _checked_exact(self, exact: Sequence[int]) -> tuple[int, int]:
        if self.multiple_of != 1:
            raise InputError(f"size exact={exact!r} and multiple_of={self.multiple_of}: expected only one of them")
        if not isinstance(exact, Sequence) or len(exact) != 2 or not all(is_whole(side, 1) for side in exact):
            raise InputError(f"size exact={exact!r}: expected (height, width) in pixels")
        return exact[0], exact[1]

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this height and width is given to the network in.

        Raises:
            InputError: If the image is larger than ``exact`` and the mode is ``pad``, or of another size and the mode
                is ``refuse``.
        """
        if self.exact is None:
            return self._side(height), self._side(width)
        if self.mode == "refuse" and (height, width) != self.exact:
            only = f"{self.exact[0]}x{self.exact[1]}"
            raise InputError(
                f"an image of {height}x{width} is not of the one size that the network takes, {only} (height x width): "
                f"give --size {only}, or size={{'exact': {list(self.exact)}, 'mode': 'resize'}} or 'pad' (in a card "
                "or load_model)"
            )
        if self.mode == "pad" and (height > self.exact[0] or width > self.exact[1]):
            raise InputError(
                f"an image of {height}x{width} cannot be padded to {self.exact[0]}x{self.exact[1]} (height x width): "
                "use mode='resize' or smaller images"
            )
        return self.exact

    def _side(self, side: int) -> int:
        return side + (self.plus - side) % self.multiple_of

    def fit(self, x: Tensor) -> Tensor:
        """Images at the size that the network takes.

        Args:
            x: Images (N, C, H, W).

        Returns:
            Images (N, C, H', W'), differentiable in ``x``; ``x`` itself where it fits already.
        """
        target = self.target(x.shape[-2], x.shape[-1])
        return _pad(x, target) if self.mode == "pad" else resize(x, target)

    def undo(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Logits at the size that the image had before `fit`.

        Args:
            logits: (N, C, h, w), at the network's output size.
            height: Height of the image before `fit`, in pixels.
            width: Its width.

        Returns:
            Logits (N, C, height, width).
        """
        if self.mode == "resize":
            return resize(logits, (height, width))
        return resize(logits, self.target(height, width))[..., :height, :width]


def as_size_rule(value: SizeLike) -> SizeRule:
    """A `SizeRule` from what users write.

    Args:
        value: A `SizeRule`, a mapping of its arguments, or None for no rule.

    Raises:
        InputError: On an unknown key or a bad value.

    Example:
        >>> as_size_rule({"multiple_of": 32})
        SizeRule(multiple_of=32, plus=0, exact=None, mode='pad')
    """
    if value is None:
        return SizeRule()
    if isinstance(value, SizeRule):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"size {value!r}: expected a mapping such as {{multiple_of: 32}}")
    return from_mapping(SizeRule, value, "size key")


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of (N, C, h, w), pixel centres aligned, no antialiasing; ``x`` itself if it has the size."""
    if x.shape[-2:] == size:
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=False)


def _pad(x: Tensor, size: tuple[int, int]) -> Tensor:
    # Joined from views, not functional.pad: the backward pass of its "replicate" is not deterministic on CUDA.
    down, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if down:
        x = torch.cat([x, x[..., -1:, :].expand(*x.shape[:-2], down, x.shape[-1])], dim=-2)
    if right:
        x = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], right)], dim=-1)
    return x
