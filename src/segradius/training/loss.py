"""The training loss: cross-entropy of the main and the auxiliary heads, as sums and counts that add up over batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.declared import LATER, Images, Part, Positive, Weight, check_fields
from segradius.core.errors import InputError
from segradius.models.denoising import DENOISED
from segradius.models.picking import main_output
from segradius.models.preprocessing import resize


class LossTerm(NamedTuple):
    """The loss of one head as a sum and the weight that it is to be divided by.

    Attributes:
        coefficient: The share of this head in the loss.
        total: Sum of the pixels' losses, a scalar with a gradient.
        weight: What divides it, a scalar without one: the count of the pixels, or the sum of their class weights.
    """

    coefficient: float
    total: Tensor
    weight: Tensor


Outputs: TypeAlias = Tensor | Mapping[str, Tensor] | Sequence[Tensor]


@dataclass(frozen=True)
class Ohem:
    """Online hard example mining: only pixels whose true class has a low probability count.

    With p the probabilities of the true class over the labelled pixels of the batch, sorted, the pixels that count are
    those with p < max(threshold, p[min(keep, n − 1)]), as in the public code of HRNet
    (github.com/HRNet/HRNet-Semantic-Segmentation). About ``keep`` pixels, the hardest, therefore always count. Each
    process of several mines its own part of the batch.

    Args:
        threshold: In [0, 1].
        keep: At least 1.

    Raises:
        InputError: If a value is outside its range.
    """

    threshold: Part = 0.7
    keep: Images = 100_000

    def __post_init__(self) -> None:
        check_fields(self)

    def hard(self, probabilities: Tensor, labelled: Tensor) -> Tensor:
        """Which pixels count.

        Args:
            probabilities: Of the true class, of any shape; not looked at where there is no label.
            labelled: Which pixels have a label; the same shape.

        Returns:
            A mask of the same shape.

        Example:
            >>> p = torch.tensor([0.9, 0.1, 0.8, 0.4, 0.2])
            >>> labelled = torch.tensor([True, True, True, True, False])
            >>> Ohem(threshold=0.3, keep=2).hard(p, labelled)
            tensor([False,  True, False,  True, False])
        """
        # Void pixels sort last. The count is not read back, as an accelerator would have to be waited for.
        ordered = probabilities.masked_fill(~labelled, math.inf).flatten().sort().values
        place = (labelled.sum() - 1).clamp(0, self.keep)
        return (probabilities < ordered.take(place).clamp_min(self.threshold)) & labelled


@dataclass(frozen=True)
class SegmentationLoss:
    """Mean cross-entropy over the labelled pixels, of the main head plus ``aux_weight`` times each auxiliary head.

    The mean is over the whole batch, and class-weighted as PyTorch's ``cross_entropy`` has it: Σ w·ℓ / Σ w. Logits of
    another size than the labels are resized (bilinear, pixel centres aligned). It is computed in float32 or wider,
    under autocast too. A batch without a labelled pixel has loss 0 and gradient 0.

    With a ``temperature`` τ it is that of τ·z, over τ: ℓ(τz)/τ, whose gradient in z is softmax(τz) − onehot. The logits
    of a 1-Lipschitz network cannot grow, so that τ says which margins are large enough: about 1/τ and more (Béthune
    et al., "Pay attention to your loss", NeurIPS 2022).

    Args:
        aux_weight: At least 0.
        class_weights: One weight a class, at least 0; None for equal ones.
        ohem: Which pixels of the main head count; None for all. The mean is then Σ w·ℓ over their number.
        ignore_index: The label of pixels that do not count.
        temperature: τ, above 0, of all heads.
        restored: Weight of the mean squared error between what a denoiser in training gives and the image without
            noise, over all values; at least 0.

    Raises:
        InputError: If a weight is negative or not finite, or the temperature is not above 0.

    Example:
        >>> loss = SegmentationLoss(aux_weight=0.5)
        >>> logits, labels = torch.zeros(1, 4, 2, 2), torch.tensor([[[0, 1], [3, 255]]])
        >>> loss({"out": logits, "aux": logits}, labels)  # 1.5 · log 4
        tensor(2.0794)
    """

    aux_weight: Weight = 0.4
    class_weights: tuple[Weight, ...] | None = None
    ohem: Ohem | None = None
    ignore_index: int = 255
    temperature: Positive = field(default=1.0, metadata=LATER)
    restored: Weight = field(default=0.0, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The loss of a batch, a scalar; arguments and errors as in `terms`."""
        return combine(self.terms(outputs, labels))

    def terms(self, outputs: Outputs, labels: Tensor, clean: Tensor | None = None) -> list[LossTerm]:
        """The loss of each head, main first, to be put together by `combine`.

        Args:
            outputs: Logits (N, C, h, w); a mapping with "out" or "logits" and auxiliary ones under names that start
                with "aux"; or a tuple or list with the main ones first and auxiliary ones after them.
            labels: (N, H, W), int64, each in [0, C) or ``ignore_index``.
            clean: The images (N, B, H, W) before the adversary, which a denoiser is to restore; None where none is
                trained.

        Returns:
            One term a head. Heads of weight 0 are left out.

        Raises:
            InputError: If the shapes do not fit, there is no main head, or there is another number of class weights
                than of classes.
        """
        terms = [self._term(1.0, main_output(_first(outputs)), labels, self.ohem)]
        if self.aux_weight:
            terms += [self._term(self.aux_weight, logits, labels, None) for logits in _auxiliary(outputs)]
        if self.restored and clean is not None and isinstance(outputs, Mapping):
            errors = (outputs[DENOISED].to(clean.dtype) - clean).square()
            terms.append(LossTerm(self.restored, errors.sum(), errors.new_tensor(float(errors.numel()))))
        return terms

    def _term(self, coefficient: float, logits: Tensor, labels: Tensor, ohem: Ohem | None) -> LossTerm:
        self._check(logits, labels)
        losses = pixel_losses(logits, labels, self.ignore_index, self.temperature)
        counted = labels != self.ignore_index
        if ohem is not None:
            counted = ohem.hard((-losses.detach()).exp(), counted)
        weights = counted.to(losses.dtype)
        if self.class_weights is not None:
            table = losses.new_tensor(self.class_weights)
            weights = weights * table[labels.masked_fill(~counted, 0)]
        divisor = counted.to(losses.dtype) if ohem is not None else weights
        return LossTerm(coefficient / self.temperature, (losses * weights).sum(), divisor.sum())

    def _check(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
            raise InputError(
                f"logits {tuple(logits.shape)} with labels {tuple(labels.shape)}; expected (N, C, h, w) and (N, H, W)"
            )
        if self.class_weights is not None and len(self.class_weights) != logits.shape[1]:
            raise InputError(f"{len(self.class_weights)} class weights for {logits.shape[1]} classes")


def combine(terms: Sequence[LossTerm], weights: Sequence[Tensor] | None = None) -> Tensor:
    """The loss Σ coefficient · total / weight, a scalar.

    Args:
        terms: One a head, of one batch.
        weights: One a head, to divide by in place of the terms' own: with weights summed over several batches (or
            processes), the losses of the batches add up to the loss of them all. 0 divides 0 to 0.

    Raises:
        InputError: If there is another number of weights than of terms.

    Example:
        >>> loss, logits = SegmentationLoss(), torch.rand(3, 5, 4, 4)
        >>> labels = torch.randint(0, 5, (3, 4, 4))
        >>> one, two = loss.terms(logits[:1], labels[:1]), loss.terms(logits[1:], labels[1:])
        >>> weights = [a.weight + b.weight for a, b in zip(one, two)]
        >>> bool((combine(one, weights) + combine(two, weights) - loss(logits, labels)).abs() < 1e-6)
        True
    """
    divisors = [term.weight for term in terms] if weights is None else list(weights)
    if len(divisors) != len(terms) or not terms:
        raise InputError(
            f"{len(divisors)} weights for {len(terms)} loss terms; expected one for each, and at least one"
        )
    parts = [
        term.coefficient * term.total / torch.where(divisor == 0, 1.0, divisor)
        for term, divisor in zip(terms, divisors, strict=True)
    ]
    return torch.stack(parts).sum()


def pixel_losses(logits: Tensor, labels: Tensor, ignore_index: int = 255, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of each pixel, (N, H, W), float32 or wider; 0, with gradient 0, where there is no label.

    Args:
        logits: (N, C, h, w), resized to the labels where they have another size.
        labels: (N, H, W), int64.
        ignore_index: The label of pixels that do not count.
        temperature: What the logits are multiplied by.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = resize(logits, (labels.shape[1], labels.shape[2]))
        logits = logits if temperature == 1 else temperature * logits
        return functional.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")


def _first(outputs: Outputs) -> Outputs:
    """What holds the main ones."""
    return outputs if isinstance(outputs, Tensor | Mapping) or not outputs else outputs[0]


def _auxiliary(outputs: Outputs) -> Iterator[Tensor]:
    if isinstance(outputs, Mapping):
        yield from (outputs[name] for name in sorted(outputs) if name.startswith("aux"))
    elif not isinstance(outputs, Tensor):
        yield from outputs[1:]
