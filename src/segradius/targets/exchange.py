"""From images to what a served network takes, and from what it gives to class probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segradius.errors import InputError, TargetError, unknown_name
from segradius.models import Normalisation
from segradius.models.sizes import resize
from segradius.targets.checks import check_values
from segradius.targets.inputs import to_bytes
from segradius.targets.signature import Signature

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
    def labels_only(self) -> bool:
        """Whether the network gives labels."""
        return self.outputs == "labels"

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

    def decode(self, raw: Tensor, images: Tensor, *, check: bool = False) -> Tensor:
        """Probabilities at the size and on the device of the images.

        Args:
            raw: The network's output for them, (N, C, h, w) or as the signature says.
            images: (N, 3, H, W).
            check: Whether to look at the values, not only at the shape.

        Returns:
            (N, C, H, W) float32. A coarse output is resized: bilinearly, logits before the softmax; labels by nearest
            neighbour.

        Raises:
            TargetError: If the output has another shape or type, or its values are not what ``outputs`` says.
        """
        if self.labels_only:
            return self._one_hot(raw, images)
        coarse = self._formed(raw, images)
        if check:
            check_values(coarse, self.outputs)
        full = resize(coarse.to(images.device), (images.shape[-2], images.shape[-1]))
        return (full.softmax(1) if self.outputs == "logits" else full).contiguous()

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
            raise TargetError(
                f"the model answered with shape {tuple(raw.shape)} to {len(images)} images; expected {expected} and "
                f"{order}: {hint}"
            )
        if not raw.is_floating_point():
            raise TargetError(f"the model answered in {raw.dtype}; expected floating {self.outputs}")
        return swapped.to(torch.float32)

    def _one_hot(self, raw: Tensor, images: Tensor) -> Tensor:
        labels = raw.squeeze(1) if raw.ndim == 4 and raw.shape[1] == 1 else raw
        labels = labels.squeeze(-1) if labels.ndim == 4 and labels.shape[-1] == 1 else labels
        if labels.ndim != 3 or len(labels) != len(images) or labels.is_floating_point() or 0 in labels.shape:
            raise TargetError(
                f"the model answered with {raw.dtype} of shape {tuple(raw.shape)} to {len(images)} images; expected "
                "integers (N, H, W), as outputs=labels promises"
            )
        low, high = labels.aminmax()
        if low < 0 or high >= self.signature.num_classes:
            raise TargetError(
                f"the model answered with labels {low.item()} to {high.item()}; expected 0 to "
                f"{self.signature.num_classes - 1}: give num_classes"
            )
        one_hot = functional.one_hot(labels.long(), self.signature.num_classes).permute(0, 3, 1, 2).to(torch.float32)
        size = (images.shape[-2], images.shape[-1])
        if one_hot.shape[-2:] != size:
            one_hot = functional.interpolate(one_hot, size=size, mode="nearest-exact")
        return one_hot.to(images.device).contiguous()


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
