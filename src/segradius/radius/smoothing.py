"""Pixel-wise certified radius by randomized smoothing (Theorem 1), as an attack uses it: a score, not a certificate.

The smoothed probabilities are plain means over a few noisy passes. They rank pixels by vulnerability, which is what
guides an attack; a radius that must *hold* needs a confidence bound and belongs to certification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segradius.core.contracts import LogitModel
from segradius.core.errors import at_least, one_of, positive
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness

#: Largest probability that is told from 1: Φ⁻¹ then stays below 4.62, as in the paper's published code.
CEILING = 0.999998

# Images in a pass, about: more are slower for the cache of a CPU, fewer idle an accelerator.
_TOGETHER = {"cpu": 4}
_TOGETHER_ELSEWHERE = 32
_PIXELS = 1 << 19  # in a pass on a CPU, where a single copy has fewer
_MOST: ContextVar[int | None] = ContextVar("_MOST", default=None)


@dataclass(frozen=True)
class RadiusMap:
    """Radius, probability of the top class and that class, each (N, H, W).

    ``radius`` is in pixel units (an l2 length over the image, σ·Φ⁻¹(p)); ``normalised`` divides by σ.
    """

    radius: Tensor
    probability: Tensor
    prediction: Tensor
    sigma: float

    @property
    def normalised(self) -> Tensor:
        """Radius in units of σ: Φ⁻¹(p), at least 0; (N, H, W)."""
        return self.radius / self.sigma


def pixel_radius(
    model: LogitModel,
    images: Tensor,
    randomness: Randomness,
    *,
    sigma: float = 0.001,
    samples: int = 8,
    form: Literal["one", "two"] = "one",
    step: int = 0,
    clamp: bool = True,
    precision: torch.dtype | None = None,
    ledger: Ledger | None = None,
) -> RadiusMap:
    """Pixel-wise radius of Theorem 1, cr(x_n) = σ·Φ⁻¹(max_c Ĝ(x)_{n,c}) (Eq. 8), from M noisy passes.

    Args:
        model: Anything with ``.logits(images, precision)``.
        images: (N, B, H, W) in [0, 1].
        randomness: Keys of the N images.
        sigma: Standard deviation of the noise, in pixel units.
        samples: Noisy copies M.
        form: ``"one"`` for Eq. 8, ``"two"`` for ½σ(Φ⁻¹(p_A) − Φ⁻¹(p_B)) (Eq. 3).
        step: Attack step, part of the noise's key.
        clamp: Whether noisy images are clamped to [0, 1].
        precision: Reduced precision of the noisy passes, or None.
        ledger: Where the passes are entered.

    Returns:
        Radius, top probability and its class, each (N, H, W).

    Raises:
        InputError: For σ ≤ 0, M < 1 or another form.

    Example:
        >>> import torch, segradius as sr
        >>> model = sr.wrap(torch.nn.Conv2d(3, 4, 1), num_classes=4)
        >>> found = pixel_radius(model, torch.rand(2, 3, 8, 8), Randomness(0, ("a", "b")), sigma=0.1)
        >>> found.radius.shape, bool((found.radius >= 0).all())
        (torch.Size([2, 8, 8]), True)
    """
    one_of(("one", "two"), form=form)
    probabilities = smoothed_probabilities(
        model,
        images,
        randomness,
        sigma=sigma,
        samples=samples,
        step=step,
        clamp=clamp,
        precision=precision,
        ledger=ledger,
    )
    if form == "one":
        top, prediction = predict(probabilities)
        return RadiusMap(sigma * normalised_radius(top), top, prediction, sigma)
    best, order = probabilities.topk(2, dim=1)
    return RadiusMap(sigma * two_class_radius(best[:, 0], best[:, 1]), best[:, 0], order[:, 0], sigma)


@torch.no_grad()
def smoothed_probabilities(
    model: LogitModel,
    images: Tensor,
    randomness: Randomness,
    *,
    sigma: float = 0.001,
    samples: int = 8,
    step: int = 0,
    clamp: bool = True,
    precision: torch.dtype | None = None,
    ledger: Ledger | None = None,
) -> Tensor:
    """Mean softmax over noisy copies, Ĝ(x) = 1/M Σ F(x + β_j), β_j ~ N(0, σ²I); (N, C, H, W).

    Args:
        model: Anything with ``.logits(images, precision)``.
        images: (N, B, H, W) in [0, 1].
        randomness: Keys of the N images.
        sigma: Standard deviation of the noise, in pixel units, > 0.
        samples: Noisy copies M, ≥ 1.
        step: Attack step, part of the noise's key.
        clamp: Whether noisy images are clamped to [0, 1], as a deployed model would see them.
        precision: Reduced precision of the noisy passes (``torch.bfloat16``), or None for that of the images.
        ledger: Where the M forward passes over each image are entered, as ``radius``.

    Raises:
        InputError: For σ ≤ 0 or M < 1.
    """
    mean = mean_over_noise(
        lambda noisy: model.logits(noisy, precision=precision).softmax(1),
        images,
        randomness,
        sigma=sigma,
        samples=samples,
        step=step,
        clamp=clamp,
    )
    if ledger is not None:
        ledger.enter("radius", forward=samples)
    return mean


@torch.no_grad()
def mean_over_noise(
    probabilities: Callable[[Tensor], Tensor],
    images: Tensor,
    randomness: Randomness,
    *,
    sigma: float,
    samples: int,
    step: int = 0,
    clamp: bool = True,
) -> Tensor:
    """Mean of any function of images over noisy copies of them; what `smoothed_probabilities` takes of a model.

    Args:
        probabilities: From (n, B, H, W) to (n, C, H, W), each image for itself.
        images: (N, B, H, W) in [0, 1].
        randomness: Keys of the N images.
        sigma: Standard deviation of the noise, in pixel units, > 0.
        samples: Noisy copies M, ≥ 1.
        step: Attack step, part of the noise's key.
        clamp: Whether noisy images are clamped to [0, 1].

    Raises:
        InputError: For σ ≤ 0 or M < 1.
    """
    positive(sigma=sigma)
    at_least(1, samples=samples)
    total: Tensor | None = None
    for first, count in passes(0, samples, images.device, len(images), _together(images)):
        noisy = torch.cat([images + sigma * _noise(images, randomness, step, first + j) for j in range(count)])
        found = probabilities(noisy.clamp_(0, 1) if clamp else noisy)
        found = found.view(count, len(images), *found.shape[1:]).sum(0) if count > 1 else found
        total = found if total is None else total.add_(found)
        del found, noisy  # which would lie beside the next pass
    assert total is not None
    return total.div_(samples)


def _together(images: Tensor) -> int | None:
    """Noisy copies in a pass where large images leave room for few: more would gain nothing, and take memory."""
    if images.device.type != "cpu":
        return None
    pixels = images.shape[0] * images.shape[-2] * images.shape[-1]
    return max(1, min(copies_together("cpu") // len(images), _PIXELS // pixels))


def passes(
    first: int, end: int, device: torch.device, images: int = 1, together: int | None = None
) -> Iterator[tuple[int, int]]:
    """Passes over noisy copies number ``first`` to ``end − 1``: the first copy of each, and how many.

    Args:
        first: Number of the first copy.
        end: One more than that of the last.
        device: On which the copies are.
        images: How many images each copy is made of.
        together: Copies in a pass; None for a number that suits the device. Changes no result but by rounding.

    Example:
        >>> list(passes(10, 19, torch.device("cpu")))
        [(10, 4), (14, 4), (18, 1)]
    """
    size = together or max(1, copies_together(device.type) // images)
    size = fitting(size)
    for start in range(first, end, size):
        yield start, min(size, end - start)


@contextmanager
def at_most(copies: int | None) -> Iterator[None]:
    """A context in which no pass is over more noisy copies, for lack of memory; None for no such limit.

    Example:
        >>> with at_most(2):
        ...     list(passes(0, 5, torch.device("cpu")))
        [(0, 2), (2, 2), (4, 1)]
    """
    before = _MOST.set(copies)
    try:
        yield
    finally:
        _MOST.reset(before)


def fitting(images: int) -> int:
    """So many images in a pass, or as many as `at_most` allows."""
    return min(images, _MOST.get() or images)


def copies_together(device: str) -> int:
    """Noisy copies in a pass that suit a type of device.

    Example:
        >>> copies_together("cpu")
        4
    """
    return _TOGETHER.get(device, _TOGETHER_ELSEWHERE)


def normalised_radius(probability: Tensor) -> Tensor:
    """Φ⁻¹(p), clipped to [0, 4.61]: the radius of Eq. 8 in units of σ. A pixel with p ≤ ½ has radius 0.

    Example:
        >>> import torch
        >>> normalised_radius(torch.tensor([0.3, 0.5, 0.841344746, 1.0])).tolist()
        [0.0, 0.0, 1.0..., 4.608...]
    """
    radius: Tensor = torch.special.ndtri(probability.clamp(0.5, CEILING))
    return radius


def two_class_radius(top: Tensor, runner_up: Tensor) -> Tensor:
    """½(Φ⁻¹(p_A) − Φ⁻¹(p_B)), the tight radius of Eq. 3 in units of σ, at least 0.

    Args:
        top: Probability of the most likely class.
        runner_up: Probability of the second.

    Example:
        >>> import torch
        >>> p = torch.tensor(0.9)
        >>> bool(torch.isclose(two_class_radius(p, 1 - p), normalised_radius(p)))
        True
    """
    top, runner_up = top.clamp(1 - CEILING, CEILING), runner_up.clamp(1 - CEILING, CEILING)
    difference: Tensor = torch.special.ndtri(top) - torch.special.ndtri(runner_up)
    return (0.5 * difference).clamp_min(0)


def _noise(images: Tensor, randomness: Randomness, step: int, sample: int) -> Tensor:
    return randomness.normal(images.shape[1:], f"radius/{sample}", step, device=images.device, dtype=images.dtype)
