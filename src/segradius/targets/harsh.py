"""What deployed models leave of images and scores: 8-bit and JPEG images, rounded scores, the best classes, labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segradius.core.bands import told
from segradius.core.contracts import ANSWERS, LABELS_ALONE
from segradius.core.errors import InputError, at_least, must
from segradius.core.prediction import predict
from segradius.core.text import refuse_unknown
from segradius.targets.target import Target, Wrapper

MOST_DIGITS = 8


@dataclass(frozen=True)
class Rounded:
    """Scores rounded to so many digits after the point, to the nearest and halves to even, as printed numbers are.

    Args:
        digits: 1 to 8.

    Example:
        >>> Rounded(1)(torch.tensor([0.04, 0.06, 0.25]))
        tensor([0.0000, 0.1000, 0.2000])
    """

    digits: int

    def __post_init__(self) -> None:
        must(1 <= self.digits <= MOST_DIGITS, "digits", self.digits, f"1 to {MOST_DIGITS}")

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores like ``scores``."""
        # In double precision the product is exact, so that only true halves count as such.
        scale = 10.0**self.digits
        return scores.double().mul_(scale).round_().div_(scale).to(scores.dtype)


@dataclass(frozen=True)
class TopK:
    """The k largest scores of each pixel, zero for the other classes; in a tie the first class goes before.

    Args:
        k: At least 1.

    Example:
        >>> TopK(2)(torch.tensor([0.2, 0.3, 0.3, 0.2]).view(1, 4, 1, 1)).flatten()
        tensor([0.0000, 0.3000, 0.3000, 0.0000])
    """

    k: int

    def __post_init__(self) -> None:
        at_least(1, top=self.k)

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores (N, C, H, W) like ``scores``."""
        if self.k >= scores.shape[1]:
            return scores
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        return torch.zeros_like(scores).scatter_(1, best, scores.gather(1, best))


@dataclass(frozen=True)
class LabelsOnly:
    """One at the predicted class, zero elsewhere; the first class in a tie.

    Example:
        >>> LabelsOnly()(torch.tensor([0.2, 0.4, 0.4]).view(1, 3, 1, 1)).flatten()
        tensor([0., 1., 0.])
    """

    def __call__(self, scores: Tensor) -> Tensor:
        """Ones and zeros (N, C, H, W) like ``scores``."""
        labels = predict(scores)[1]
        return functional.one_hot(labels, scores.shape[1]).permute(0, 3, 1, 2).to(scores.dtype).contiguous()


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest of 255, halves up.

    Example:
        >>> to_bytes(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    return exact.mul(255).add(0.5).floor().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Uint8:
    """Images rounded to the nearest of 255 steps, halves up, as a PNG holds them.

    Example:
        >>> Uint8()(torch.tensor([0.5])).mul(255).item()
        128.0
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Images like ``images``."""
        return to_bytes(images).to(images.dtype).div_(255)


@dataclass(frozen=True)
class Jpeg:
    """Images as JPEG holds them, each by itself, colour at half the resolution as usual.

    Args:
        quality: 1 to 95.

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 128 / 255)
        >>> bool((Jpeg(90)(grey) == grey).all())
        True
    """

    quality: int

    def __post_init__(self) -> None:
        must(1 <= self.quality <= 95, "jpeg", self.quality, "a quality of 1 to 95")

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), or grey (N, 1, H, W), like ``images``; waits for the device."""
        if images.shape[1] not in (1, 3):
            raise InputError(f"jpeg is for grey and colour images; these have {told(images.shape[1])}")
        pixels = to_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
        decoded = torch.from_numpy(np.stack([self._through(image) for image in pixels]))
        return decoded.permute(0, 3, 1, 2).contiguous().to(images.device, images.dtype).div_(255)

    def _through(self, pixels: NDArray[Any]) -> NDArray[Any]:
        file = BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
            file, "JPEG", quality=self.quality
        )
        with Image.open(file) as image:
            return np.array(image).reshape(pixels.shape)


Change: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Harsh(Wrapper):
    """A target behind changes of what it is asked and of what it answers.

    Args:
        target: What answers.
        answers: Done to the scores, in this order.
        inputs: Done to the images, in this order.

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
    def offers(self) -> frozenset[str]:
        """What is left of what the target offers."""
        return LABELS_ALONE if LabelsOnly() in self.answers else self.target.offers & ANSWERS

    @property
    def identity(self) -> str:
        """The changes, in their order."""
        return f"{self.answers} {self.inputs}"

    def scores(self, images: Tensor) -> Tensor:
        """What is left of the target's scores (N, C, H, W) of images (N, 3, H, W); of top k the sum is below one."""
        scores = self.target.scores(_through(self.inputs, images))
        return _through(self.answers, scores)


def parse_answers(text: str) -> tuple[Change, ...]:
    """Changes of the scores from ``digits=3``, ``top=2`` and ``labels``, commas between them, in their order.

    Raises:
        InputError: For another word or a value outside its range.

    Example:
        >>> parse_answers("top=2,digits=3")
        (TopK(k=2), Rounded(digits=3))
    """
    return _parse("answer", text, {"digits": Rounded, "top": TopK, "labels": LabelsOnly})


def parse_inputs(text: str) -> tuple[Change, ...]:
    """Changes of the images from ``uint8`` and ``jpeg=QUALITY``, commas between them, in their order.

    Raises:
        InputError: For another word or a value outside its range.

    Example:
        >>> parse_inputs("jpeg=90")
        (Jpeg(quality=90),)
    """
    return _parse("input", text, {"jpeg": Jpeg, "uint8": Uint8})


def _parse(kind: str, text: str, known: Mapping[str, Callable[..., Change]]) -> tuple[Change, ...]:
    changes = []
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        refuse_unknown(kind, [name], known)
        if (form := "NUMBER" if fields(known[name]) else "") and value.strip().isdecimal():  # type: ignore[arg-type]
            changes.append(known[name](int(value)))
        elif equals or form:
            raise InputError(f"{kind} {part.strip()!r}; expected {name}{'=' if form else ''}{form}")
        else:
            changes.append(known[name]())
    return tuple(changes)


def _through(changes: tuple[Change, ...], tensor: Tensor) -> Tensor:
    for change in changes:
        tensor = change(tensor)
    return tensor
