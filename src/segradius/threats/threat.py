"""Threat models: an lp ball around each image, cut with the pixel box [0, 1].

Perturbations δ have shape (N, B, H, W) and the unit of the images; ε is one number for each image and bounds the norm
over all B·H·W values. With a weight w for each band it is ‖w ⊙ δ‖ ≤ ε: everything is then said of u = w ⊙ δ, in which
the ball is that of the norm itself (`segradius.threats.weighted`).

Every function treats each image of a batch by itself and never makes an accelerator wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from segradius.core.declared import BandWeight, Eps, Levels, check_fields, expected, fits
from segradius.core.errors import InputError, shown, unknown_name
from segradius.core.randomness import Randomness
from segradius.threats.lattice import Lattice, lattice
from segradius.threats.projections import (
    Box,
    box,
    column,
    largest,
    onto_linf,
    project_l1,
    project_l2,
    project_linf,
    scale_then_clamp,
)
from segradius.threats.weighted import check_number_of_weights, factors, finite, read_weights, weighted, written

Projection = Literal["euclidean", "radial"]


class Norm(Protocol):
    """What an attack needs to know of an lp norm; `L1`, `L2` and `Linf` are the ones there are."""

    name: ClassVar[str]
    default_eps: ClassVar[float]

    def length(self, delta: Tensor) -> Tensor:
        """Norm of each δ over all its values; (N, …) → (N,)."""

    def project(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """Nearest point, in the Euclidean sense, of {‖d‖ ≤ ε} ∩ {0 ≤ images + d ≤ 1}."""

    def onto(self, bounds: Box, eps: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` for many δ of the same images."""
        return partial(self.project, images=bounds, eps=eps)

    def radial(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """δ scaled into the ball, then clamped into the box: feasible, but not the nearest point."""

    def steepest(self, grad: Tensor) -> Tensor:
        """Direction of unit norm along which the objective ascends; zero where the gradient is zero."""

    def sample_ball(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """One point for each image, uniform in the unit ball; shape, device and type of ``like``."""

    def sample_sphere(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """One point for each image on the unit sphere; shape, device and type of ``like``."""


@dataclass(frozen=True)
class L1(Norm):
    """The l1 norm: the sum of absolute values.

    Example:
        >>> L1().steepest(torch.tensor([[3.0, -1.0]]))
        tensor([[ 0.7500, -0.2500]])
    """

    name: ClassVar[str] = "l1"
    default_eps: ClassVar[float] = 750.0

    def length(self, delta: Tensor) -> Tensor:
        """‖δ‖₁ of each image; (N, …) → (N,)."""
        return delta.flatten(1).abs().sum(1)

    def project(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """Nearest point of ball ∩ box; see `project_l1`."""
        return project_l1(delta, images, eps)

    def radial(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """δ·min(1, ε/‖δ‖₁), clamped into the box."""
        return scale_then_clamp(delta, images, eps, self.length(delta))

    def steepest(self, grad: Tensor) -> Tensor:
        """g/‖g‖₁, the dense direction of the paper's Eq. 22; `sparse_steepest` is the other choice."""
        return _over_length(self, grad)

    def sample_ball(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """Uniform in the unit ball: Laplace numbers over their l1 norm plus one more exponential number."""
        return _laplace(like, randomness, step, spare=1)

    def sample_sphere(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """Uniform on the faces of the unit ball: Laplace numbers over their l1 norm."""
        return _laplace(like, randomness, step, spare=0)


@dataclass(frozen=True)
class L2(Norm):
    """The l2 norm, the Euclidean one.

    Example:
        >>> L2().steepest(torch.tensor([[3.0, -4.0]]))
        tensor([[ 0.6000, -0.8000]])
    """

    name: ClassVar[str] = "l2"
    default_eps: ClassVar[float] = 1.5

    def length(self, delta: Tensor) -> Tensor:
        """‖δ‖₂ of each image; (N, …) → (N,)."""
        flat = delta.flatten(1)
        # sum adds pairwise; vector_norm does not, and loses a digit in float32.
        return (flat * flat).sum(1).sqrt_()

    def project(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """Nearest point of ball ∩ box; see `project_l2`."""
        return project_l2(delta, images, eps)

    def radial(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """δ·min(1, ε/‖δ‖₂), clamped into the box."""
        return scale_then_clamp(delta, images, eps, self.length(delta))

    def steepest(self, grad: Tensor) -> Tensor:
        """g/‖g‖₂."""
        return _over_length(self, grad)

    def sample_ball(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """Uniform in the unit ball: a point of the sphere times U^(1/n)."""
        radius = randomness.uniform((1,), "l2 radius", step, device=like.device, dtype=like.dtype)
        return self.sample_sphere(like, randomness, step) * column(radius ** (1 / like[0].numel()), like)

    def sample_sphere(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """Uniform on the unit sphere: normal numbers over their norm."""
        return self.steepest(randomness.normal(like.shape[1:], "l2", step, device=like.device, dtype=like.dtype))


@dataclass(frozen=True)
class Linf(Norm):
    """The l∞ norm: the largest absolute value.

    Example:
        >>> Linf().steepest(torch.tensor([[3.0, -4.0]]))
        tensor([[ 1., -1.]])
    """

    name: ClassVar[str] = "linf"
    default_eps: ClassVar[float] = 0.006

    def length(self, delta: Tensor) -> Tensor:
        """‖δ‖∞ of each image; (N, …) → (N,)."""
        return largest(delta)

    def project(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """Nearest point of ball ∩ box; see `project_linf`."""
        return project_linf(delta, images, eps)

    def onto(self, bounds: Box, eps: Tensor) -> Callable[[Tensor], Tensor]:
        """One clamp to bounds that are made once."""
        return onto_linf(bounds, eps)

    def radial(self, delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
        """The same clamp as `project`: published code does not scale in this norm."""
        return self.project(delta, images, eps)

    def steepest(self, grad: Tensor) -> Tensor:
        """sign(g)."""
        return grad.sign()

    def sample_ball(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """Uniform in [-1, 1)."""
        return randomness.uniform(like.shape[1:], "linf", step, device=like.device, dtype=like.dtype).mul_(2).sub_(1)

    def sample_sphere(self, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """Uniform on the surface of the cube: a point inside, one value of which is moved out to ±1."""
        inside = self.sample_ball(like, randomness, step).flatten(1)
        face = randomness.integers(inside.shape[1], "linf face", step).to(like.device).unsqueeze(1)
        side = torch.ones_like(inside[:, :1]).copysign_(inside.gather(1, face))
        return inside.scatter_(1, face, side).view_as(like)


NORMS: dict[str, Norm] = {"l1": L1(), "l2": L2(), "linf": Linf()}


def sparse_steepest(grad: Tensor, share: Tensor | float) -> Tensor:
    """Steepest ascent in l1 over few values: ±1/k on the k largest |g| of each image, zero elsewhere.

    Args:
        grad: Gradients, (N, B, H, W).
        share: Part of the values to move, in (0, 1], one number or (N,); k = round(share·BHW), at least 1 and at most
            as many as are not zero. With k = 1 this is the direction of steepest ascent proper.

    Returns:
        The directions, (N, B, H, W), of unit l1 norm, or zero where the gradient is.

    Example:
        >>> sparse_steepest(torch.tensor([[[[3.0, -5.0, 1.0, 0.0]]]]), 0.5).flatten().tolist()
        [0.5, -0.5, 0.0, 0.0]
    """
    flat = grad.flatten(1)
    values = flat.shape[1]
    count = (torch.as_tensor(share) * values).round().clamp(1, values).to(torch.int64).expand(len(flat))
    # Lists as long as the longest are enough, but reading its length off an accelerator would make the CPU wait.
    longest = int(count.max()) if count.device.type == "cpu" else values
    ragged = count.device.type != "cpu" or bool((count < longest).any())
    top = flat.abs().topk(longest, dim=1, sorted=ragged).indices
    ranks = torch.arange(longest, device=flat.device)
    chosen = flat.gather(1, top).sign_().mul_(ranks < count.to(flat.device).unsqueeze(1))
    chosen /= chosen.abs().sum(1, keepdim=True).clamp_min(1.0)
    return torch.zeros_like(flat).scatter_(1, top, chosen).view_as(grad)


@dataclass(frozen=True)
class Threat:
    """An lp ball of radius ε around each image, cut with the box [0, 1].

    Args:
        norm: The norm.
        eps: The radius in the unit of images in [0, 1], > 0; one for all images or one for each. inf: only the box.
        projection: "euclidean", the exact one, or "radial" for parity with published code.
        weights: w of each band, so that ‖w ⊙ δ‖ ≤ ε; inf for a band that is never changed. Empty: all are 1.
        lattice: L, so that the images are of whole levels, {0, 1/L, …, 1}; see `segradius.threats.lattice`. None: any.

    Raises:
        InputError: A radius is not above zero, the projection is unknown, the weights are not as above, or there are
            both weights and a lattice.

    Example:
        >>> threat = Threat(L2(), (0.1, 0.2))
        >>> images = torch.full((2, 3, 1, 1), 0.5)
        >>> L2().length(threat.project(torch.ones_like(images), images))
        tensor([0.1000, 0.2000])
    """

    norm: Norm
    eps: Eps | tuple[Eps, ...]
    projection: Projection = "euclidean"
    weights: tuple[BandWeight, ...] = ()
    lattice: Levels | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "weights", read_weights(self.weights))
        if self.weights and self.lattice is not None:
            raise InputError(
                f"lattice is {self.lattice} beside band_weights {written(self.weights)}: weighted lengths have balls "
                "of real numbers only; expected one of the two"
            )

    def __repr__(self) -> str:
        more = f", weights={self.weights!r}" if self.weights else ""
        more += f", lattice={self.lattice!r}" if self.lattice is not None else ""
        return f"Threat(norm={self.norm!r}, eps={self.eps!r}, projection={self.projection!r}{more})"

    def check_bounded(self, what: str) -> None:
        """Raise `InputError` if an ε is infinite, for ``what`` is measured by ε."""
        if math.inf in (self.eps if isinstance(self.eps, tuple) else (self.eps,)):
            raise InputError(f"eps is inf, and {what} is a part of it: give a finite eps, or alpha where it is that")

    def scaled(self, factor: float) -> Threat:
        """The same threat with ε times ``factor``."""
        eps = tuple(e * factor for e in self.eps) if isinstance(self.eps, tuple) else self.eps * factor
        return replace(self, eps=eps)

    def budgets(self, n: int, like: Tensor) -> Tensor:
        """ε of each of ``n`` images, (n,), type and device of ``like``; `InputError` if there are not n of them."""
        if not isinstance(self.eps, tuple):
            return like.new_full((n,), self.eps)
        if len(self.eps) != n:
            raise InputError(f"{len(self.eps)} values of eps for {n} images; expected one, or one for each image")
        return like.new_tensor(self.eps)

    def project(self, delta: Tensor, images: Tensor, eps: Tensor | None = None) -> Tensor:
        """δ brought into ball and box, (N, B, H, W); see `segradius.threats.projections`.

        Args:
            delta: (N, B, H, W); with weights u = w ⊙ δ, and so is what is returned.
            images: (N, B, H, W).
            eps: (N,), what `budgets` gives, from who has it at hand already.
        """
        return self.onto(images, eps)(delta)

    def onto(self, images: Tensor, eps: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """`project` for many δ of the same images, whose box is made once."""
        eps = self.budgets(len(images), images) if eps is None else eps
        held = self.held(images, eps)
        bounds = self.bounds(images) if held is None else held.bounds
        if self.projection == "euclidean":
            return self.norm.onto(bounds, eps)
        return partial(self.norm.radial, images=bounds, eps=eps)

    def held(self, images: Tensor, eps: Tensor | None = None) -> Lattice | None:
        """The images of whole levels that are allowed around ``images``; None where any values are."""
        if self.lattice is None:
            return None
        eps = self.budgets(len(images), images) if eps is None else eps
        return lattice(images, eps, self.norm.name, self.lattice)

    def bounds(self, images: Tensor) -> Box:
        """The box [0, 1] as seen from the images, each (N, B, H, W); with weights that of u = w ⊙ δ."""
        return box(images, finite(factors(self.weights, images)) if self.weights else None)

    def length(self, delta: Tensor) -> Tensor:
        """‖w ⊙ δ‖ of each δ, (N, B, H, W) → (N,); inf where a band changed that never may.

        Example:
            >>> Threat(L1(), 1.0, weights=(1.0, 10.0)).length(torch.tensor([0.5, 0.02]).view(1, 2, 1, 1))
            tensor([0.7000])
        """
        return self.norm.length(delta if not self.weights else weighted(delta, factors(self.weights, delta)))

    def start(self, images: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """A random start: uniform in the ball, then projected into the box; (N, B, H, W), with weights as u = w ⊙ δ."""
        unit = self.norm.sample_ball(images, randomness, step)
        return self.project(unit * column(self.budgets(len(images), images), images), images)


def parse_eps(text: str | float) -> float:
    """A radius from a number or a text such as "1.5", "4/255" or "inf".

    Raises:
        InputError: It is no number, or not above zero.

    Example:
        >>> parse_eps("51/255")
        0.2
    """
    numerator, slash, denominator = str(text).partition("/")
    try:
        eps = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise InputError(f"eps {shown(text)} is not a number; expected one like 1.5 or 4/255") from None
    if isinstance(text, bool) or not eps > 0:
        raise InputError(f"eps {shown(text)} is not above zero; expected a number like 1.5 or 4/255")
    if not fits(Eps, eps) or (eps > 1e9 and "inf" not in str(text).lower()):
        raise InputError(f"eps {shown(text)} is out of range; expected {expected(Eps)}, at most 1e9 or inf")
    return eps


def norm_name(given: object) -> str:
    """The name of a norm, however it is written: ``l2``, ``L2``, ``2``, ``"2"``, ``math.inf``, ``"inf"``, ``"linf"``.

    Raises:
        InputError: It is none of ours.

    Example:
        >>> [norm_name(given) for given in ("l2", 2, math.inf, "Linf", "1")]
        ['l2', 'l2', 'linf', 'linf', 'l1']
        >>> norm_name(3)
        Traceback (most recent call last):
        segradius.core.errors.InputError: unknown norm '3'. Known: l1, l2, linf
    """
    text = str(given).strip().lower().removesuffix(".0")
    name = text if text in NORMS else f"l{text}"
    if name not in NORMS or isinstance(given, bool) or not isinstance(given, str | int | float):
        raise unknown_name("norm", str(given), NORMS)
    return name


def make_threat(
    norm: str | float,
    eps: float | str | None = None,
    projection: Projection = "euclidean",
    shape: Sequence[int] | None = None,
    band_weights: str | Sequence[BandWeight] | None = None,
    lattice: int | None = None,
) -> Threat:
    """A threat model from the name of its norm.

    Args:
        norm: "l1", "l2" or "linf"; or 1, 2 or ``math.inf``.
        eps: The radius in the unit of images in [0, 1]; None for the paper's (750, 1.5, 0.006).
        projection: "euclidean" or "radial".
        shape: (B, H, W) of an image, if known; a finite ε longer than any perturbation in the box is then refused.
        band_weights: w of each band, as [1, 1, 1, inf] or "1,1,1,inf": ‖w ⊙ δ‖ ≤ ε, and inf for a band that is never
            changed. None: all are 1.
        lattice: L, so that images are of whole levels, {0, 1/L, …, 1}: 255 for what a file of 8 bits can hold. None:
            any values.

    Raises:
        InputError: An unknown name, or an ε that is not above zero or looks as if it were in units of 0 to 255.

    Example:
        >>> make_threat("linf", 8)
        Traceback (most recent call last):
        segradius.core.errors.InputError: eps 8 for linf is no part of [0, 1], the range of the images; did you ...
    """
    name = norm_name(norm)
    weights = read_weights(band_weights)
    radius = NORMS[name].default_eps if eps is None else parse_eps(eps)
    threat = Threat(NORMS[name], radius, projection, weights, lattice)
    if not weights:
        _refuse_wide(name, threat.eps if isinstance(threat.eps, float) else math.inf, shape)
    elif shape is not None:
        check_number_of_weights(weights, shape[0])
    return threat


def _refuse_wide(norm: str, eps: float, shape: Sequence[int] | None) -> None:
    """Raise `InputError` if ε is larger than images in [0, 1] allow."""
    if norm == "linf" and 1 <= eps < math.inf:
        raise InputError(
            f"eps {eps:g} for linf is no part of [0, 1], the range of the images; did you mean {eps:g}/255?"
        )
    if shape is None or norm == "linf" or math.isinf(eps):
        return
    widest = math.prod(shape) ** (1.0 if norm == "l1" else 0.5)
    if eps > widest:
        raise InputError(
            f"eps {eps:g} for {norm} is above {widest:g}, the longest perturbation of images in [0, 1] of shape "
            f"{tuple(shape)}; is it in units of 0 to 255?"
        )


def _by_largest(grad: Tensor) -> Tensor:
    """Each gradient over its largest magnitude, so that squares of tiny gradients do not vanish; zero stays zero."""
    size = largest(grad)
    return grad / column(torch.where(size == 0, 1.0, size), grad)


def _over_length(norm: Norm, grad: Tensor) -> Tensor:
    """g/‖g‖; zero stays zero. The clamp changes nothing else: the largest value is 1, so the length is at least 1."""
    scaled = _by_largest(grad)
    return scaled.div_(column(norm.length(scaled).clamp_min(1.0), grad))


def _laplace(like: Tensor, randomness: Randomness, step: int, spare: int) -> Tensor:
    """Laplace numbers over the sum of their sizes and of ``spare`` more; (N, …) as ``like``."""
    values = like[0].numel()

    def draw(generator: torch.Generator) -> Tensor:
        sizes = like.new_empty(values + spare).exponential_(generator=generator)
        signs = like.new_empty(values).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        return (sizes[:values] / sizes.sum() * signs).view(like.shape[1:])

    return randomness.rows(draw, "l1", step, like.device)
