"""Random scale, rotation, blur, crop, mirroring and colour, keyed by image and epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import (
    adjust_brightness,
    adjust_saturation,
    resize,
    rgb_to_grayscale,
)

from segradius.core.bands import told
from segradius.core.declared import Part, Range, check_fields
from segradius.core.errors import InputError, is_whole


def coloured(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """An image after factors of brightness, contrast and saturation, each uniform in 1 ± ``strength``.

    Args:
        image: (B, H, W) in [0, 1]. Where B is not 3 there is no saturation, and contrast is about the mean of all.
        strength: In [0, 1]; 0 leaves the image as it is and draws nothing.
        generator: A generator on the CPU; three numbers are drawn.

    Returns:
        The image (B, H, W) in [0, 1].

    Example:
        >>> image = torch.full((3, 2, 2), 0.5)
        >>> changed = coloured(image, 0.4, torch.Generator().manual_seed(0))
        >>> bool((changed == changed[0, 0, 0]).all())  # grey stays grey, and flat
        True
    """
    if not strength:
        return image
    factors = (1 + strength * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)).tolist()
    if len(image) != 3:
        brighter = (image * factors[0]).clamp(0, 1)
        return _contrasted(brighter, brighter, factors[1])
    brighter = adjust_brightness(image, factors[0])
    result: Tensor = adjust_saturation(_contrasted(brighter, rgb_to_grayscale(brighter), factors[1]), factors[2])
    return result.clamp(0, 1)


def _contrasted(image: Tensor, grey: Tensor, factor: float) -> Tensor:
    """An image with its contrast about the mean of ``grey`` changed."""
    # Row by row: the sum of all at once depends in its last bit on how many threads share it, so on who augments.
    mean = grey.mean(-1).mean()
    return torch.lerp(mean, image, factor).clamp(0, 1)


IMAGENET_MEAN = (0.485, 0.456, 0.406)
BLUR_RADIUS = 2
BLUR_SIGMA = 1.1  # what OpenCV takes for a 5 × 5 kernel


class Window(NamedTuple):
    """A rectangle of whole pixels in an image."""

    top: int
    left: int
    height: int
    width: int

    def of(self, x: Tensor) -> Tensor:
        """The part of ``x`` (…, H, W) in the window; ``x`` itself where that is all of it."""
        if (self.height, self.width) == tuple(x.shape[-2:]):
            return x
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def grown(self, margin: int, size: tuple[int, int]) -> Window:
        """The window with ``margin`` more pixels on each side, as far as the image of ``size`` has them."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        bottom = min(size[0], self.top + self.height + margin)
        right = min(size[1], self.left + self.width + margin)
        return Window(top, left, bottom - top, right - left)

    def seen_from(self, outer: Window) -> Window:
        """The same pixels, in coordinates whose origin is the corner of ``outer``."""
        return Window(self.top - outer.top, self.left - outer.left, self.height, self.width)


@dataclass(frozen=True)
class Augmentation:
    """A random scale, rotation, Gaussian blur (5 × 5), horizontal flip and crop of an image and its label.

    Args:
        crop: (height, width) of the result, cut at a random place. A smaller image is centred on ``fill`` and void.
            None: the size of the scaled image.
        scale: Range of the factor of both sides, uniform; None for no change.
        rotate: Largest angle in degrees, in [0, 180]; the angle is uniform in ±``rotate``, the size is kept.
        rotate_p: Probability of a rotation.
        blur_p: Probability of a blur, σ = 1.1 pixels.
        flip_p: Probability of a flip.
        fill: Colour in [0, 1] of what lies outside the image, a number for each band; where images have other bands
            than the usual one, each has its mean.
        colour: Strength in [0, 1] of a change of brightness, contrast and saturation; not in the public recipes.
            Saturation is of RGB alone.

    Raises:
        InputError: If a value is outside its range.

    Example:
        >>> augment = Augmentation(crop=(8, 12))
        >>> image, label = torch.rand(3, 10, 10), torch.zeros(10, 10, dtype=torch.int64)
        >>> image, label = augment(image, label, torch.Generator().manual_seed(0))
        >>> image.shape, label.shape
        (torch.Size([3, 8, 12]), torch.Size([8, 12]))
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] | None = (0.5, 2.0)
    rotate: Annotated[float, Range("[0, 180]")] = 10.0
    rotate_p: Part = 0.5
    blur_p: Part = 0.5
    flip_p: Part = 0.5
    fill: tuple[float, ...] = IMAGENET_MEAN
    colour: Part = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.crop is not None and (len(self.crop) != 2 or not all(is_whole(side, 1) for side in self.crop)):
            raise InputError(f"crop={self.crop}; expected (height, width) in whole pixels of at least 1, or None")
        if self.scale is not None and not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] < math.inf):
            raise InputError(f"scale={self.scale}; expected (low, high) with 0 < low <= high, or None")
        if not self.fill or not all(0 <= value <= 1 for value in self.fill):
            raise InputError(f"fill={self.fill}; expected a number in [0, 1] for each band, as (red, green, blue)")

    def left_out(self, bands: int | None) -> str:
        """What is not done to images of so many bands, in words; nothing where all is, or the bands are not known.

        Example:
            >>> Augmentation(colour=0.4).left_out(4)
            'colour changes brightness and contrast alone: images of 4 bands have no saturation'
        """
        if not self.colour or bands in (None, 3):
            return ""
        return f"colour changes brightness and contrast alone: images of {told(bands or 0)} have no saturation"

    @classmethod
    def none(cls) -> Augmentation:
        """No change: images and labels come back as they are.

        Example:
            >>> image, label = torch.rand(3, 4, 4), torch.zeros(4, 4, dtype=torch.int64)
            >>> Augmentation.none()(image, label, torch.Generator())[0] is image
            True
        """
        return cls(crop=None, scale=None, rotate=0.0, rotate_p=0.0, blur_p=0.0, flip_p=0.0)

    def __call__(
        self, image: Tensor, label: Tensor, generator: torch.Generator, ignore_index: int = 255
    ) -> tuple[Tensor, Tensor]:
        """One random version of an image and its label; the arguments are not changed.

        Args:
            image: (B, H, W), floating, in [0, 1].
            label: (H, W), int64.
            generator: A generator on the CPU, the only source of chance.
            ignore_index: Label of what lies outside the image.

        Returns:
            The image (B, H', W') in [0, 1], with bilinear interpolation (antialiased where it shrinks), and the label
            (H', W'), with that of the nearest pixel; H' × W' is ``crop``.

        Raises:
            InputError: If the shapes are not as above.
        """
        if image.ndim != 3 or not image.is_floating_point() or label.shape != image.shape[1:]:
            raise InputError(
                f"image {tuple(image.shape)} {image.dtype} with label {tuple(label.shape)}; expected floating "
                "(B, H, W) and (H, W)"
            )
        fill = self._fill(len(image))
        at_scale, at_row, at_column, at_angle, *coins = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        size = self._scaled(image.shape[1], image.shape[2], at_scale)
        window = self._window(size, at_row, at_column)
        angle = (2 * at_angle - 1) * self.rotate if coins[0] < self.rotate_p else 0.0
        around = window.grown(BLUR_RADIUS, size) if (blurred := coins[1] < self.blur_p) else window
        if changed := size != tuple(label.shape):
            image, label = resized(image, label, size)
        if angle:
            image, label = rotated(image, label, angle, around, fill, ignore_index)
        else:
            image, label = around.of(image), around.of(label)
        image, label = (window.seen_from(around).of(x) for x in (gaussian_blur(image) if blurred else image, label))
        image = coloured(image, self.colour, generator)
        if changed or angle or blurred:
            image = image.clamp(0, 1)  # interpolation rounds up to 1 + 1e-7
        if coins[2] < self.flip_p:
            image, label = image.flip(-1), label.flip(-1)
        return self._padded(image, label, fill, ignore_index)

    def _fill(self, bands: int) -> tuple[float, ...]:
        """A value for each band."""
        if len(self.fill) == bands:
            return self.fill
        if self.fill != IMAGENET_MEAN:
            raise InputError(f"fill={self.fill} for images of {told(bands)}; expected as many numbers")
        return (math.fsum(self.fill) / len(self.fill),) * bands

    def _scaled(self, height: int, width: int, chance: float) -> tuple[int, int]:
        low, high = self.scale or (1.0, 1.0)
        factor = low + chance * (high - low)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _window(self, size: tuple[int, int], at_row: float, at_column: float) -> Window:
        """Where the crop lies, all of the image along a side on which it is no larger than the crop."""
        height, width = (min(pair) for pair in zip(self.crop or size, size, strict=True))
        return Window(int(at_row * (size[0] - height + 1)), int(at_column * (size[1] - width + 1)), height, width)

    def _padded(self, image: Tensor, label: Tensor, fill: Sequence[float], ignore_index: int) -> tuple[Tensor, Tensor]:
        height, width = label.shape
        crop = self.crop or (height, width)
        if crop == (height, width):
            return image.contiguous(), label.contiguous()
        top, left = (crop[0] - height) // 2, (crop[1] - width) // 2
        middle = (slice(top, top + height), slice(left, left + width))
        canvas = image.new_tensor(fill).view(-1, 1, 1).repeat(1, *crop)
        canvas[(slice(None), *middle)] = image
        void = torch.full(crop, ignore_index, dtype=label.dtype, device=label.device)
        void[middle] = label
        return canvas, void


def resized(image: Tensor, label: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An image (B, H, W) and its label (H, W) at another size: bilinear with antialiasing, and the nearest pixel."""
    rows, columns = (
        (2 * torch.arange(new) + 1) * old // (2 * new)  # (i + 1/2) · old / new, without rounding
        for new, old in zip(size, label.shape, strict=True)
    )
    return resize(image, list(size), InterpolationMode.BILINEAR, antialias=True), label[rows][:, columns]


def rotated(
    image: Tensor, label: Tensor, angle: float, window: Window, fill: Sequence[float], ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The part in ``window`` of an image and its label, rotated about their centre at their size.

    Args:
        image: (B, H, W), floating.
        label: (H, W), int64.
        angle: In degrees, counter-clockwise.
        window: The part that is wanted.
        fill: Colour of what lies outside the image; bilinear interpolation blends the border with it.
        ignore_index: Label of what lies outside the image.

    Returns:
        The image (B, h, w) and the label (h, w), h × w being the size of the window.

    Example:
        >>> label = torch.tensor([[1, 2], [3, 4]])
        >>> rotated(torch.rand(3, 2, 2), label, 90.0, Window(0, 0, 2, 2), (0.0, 0.0, 0.0), 255)[1]
        tensor([[2, 4],
                [1, 3]])
    """
    grid = _rotation_grid(label.shape[0], label.shape[1], angle, window).to(image)
    colour = image.new_tensor(fill).view(-1, 1, 1)
    # Outside the image samples are zero, so what is sampled is the difference from what shall be there.
    image = _sampled(image - colour, grid, "bilinear") + colour
    return image, _sampled((label - ignore_index).to(grid)[None], grid, "nearest")[0].to(label.dtype) + ignore_index


def _rotation_grid(height: int, width: int, angle: float, window: Window) -> Tensor:
    """For each pixel of the window, where it comes from, (h, w, 2), in the coordinates of `grid_sample`."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y = torch.arange(window.top, window.top + window.height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(window.left, window.left + window.width, dtype=torch.float64) - (width - 1) / 2
    y = y.unsqueeze(1)
    return torch.stack(((cos * x - sin * y) * (2 / width), (sin * x + cos * y) * (2 / height)), dim=-1)


def _sampled(x: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(x[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]


def gaussian_blur(image: Tensor) -> Tensor:
    """An image (B, H, W) after a Gaussian filter of 5 × 5 pixels and σ = 1.1, mirrored at its border; the same size.

    Sums of shifted images, as they take a fifth of the time of a convolution of three channels on a CPU.

    Example:
        >>> gaussian_blur(torch.eye(5).expand(3, 5, 5))[0, 2, 2]
        tensor(0.2661)
    """
    weights = [math.exp(-0.5 * (i / BLUR_SIGMA) ** 2) for i in range(-BLUR_RADIUS, BLUR_RADIUS + 1)]
    mode = "reflect" if min(image.shape[1:]) > BLUR_RADIUS else "replicate"
    x = functional.pad(image, (BLUR_RADIUS,) * 4, mode=mode)
    for dim in (1, 2):
        length = image.shape[dim]
        shifted = [x.narrow(dim, i, length) for i in range(len(weights))]
        x = shifted[0] * (weights[0] / sum(weights))
        for part, weight in zip(shifted[1:], weights[1:], strict=True):
            x.add_(part, alpha=weight / sum(weights))
    return x
