r"""Directions on the unit lp sphere, and the vector that each is to be multiplied by.

By the divergence theorem the gradient of the smoothed loss L̂(δ) = E[L(δ + γv)], v uniform in the unit ball (Eq. 14), is
a mean over the ball's *surface* of L times the surface's normal. For p = 2 the normal at u is u, which gives Eq. 15
and 16. For p = 1 it is sign(u)/√n, and for p = ∞ it is ±e_k on the face k. All faces of either ball lie at one distance
h from the centre (1/√n and 1), so that surface/volume is n/h, and u uniform on the surface is also uniform by the cone
measure. Hence

    ∇L̂(δ) = E[(n/γ) L(δ + γu) · s(u)],    s(u) = sign(u), u, sign(u_k)·e_k    for p = 1, 2, ∞.

Akhavan et al. (2022) use the first of these, the l1 randomisation. Multiplying by u itself, as Eq. 15 has it for every
p, keeps the direction up to O(γ²) but not the length, because E[uuᵀ] = E[u_i²]·I with

    E[u_i²] = 2/(n(n+1)), 1/n, (n+2)/(3n);    scale of Eq. 15 and 16 = n·E[u_i²] = 2/(n+1), 1, (n+2)/3.

Three forms are offered, which are one for p = 2:

- ``dense``: v = u/E[u_i²]. E[ĝ] = ∇L + O(γ²). For two points and a linear loss E‖ĝ‖²/‖∇L‖² is
  n(n+1)(n+5)/((n+2)(n+3)), n and n + 4n(n−1)/(5(n+2)²): about n for every p.
- ``exact``: v = n·s(u). E[ĝ] = ∇L̂ exactly, at any γ. The same ratio is 2n²/(n+1), n and n(n+2)/3: for p = ∞ it grows
  as n², as every round moves a single coordinate.
- ``paper``: v = n·u, the letter of Eq. 15 and 16. Theorem 2 bounds it: ‖ĝ‖_p ≤ n·C for two points on a loss that is
  C-Lipschitz in lp, all values of the image being coordinates. (``exact`` obeys the same bound in the dual norm.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from segradius.core.declared import check_fields
from segradius.core.randomness import Randomness
from segradius.gradients.directions import Directions, Pixel
from segradius.gradients.estimator import Draw
from segradius.threats.threat import L2, Norm

Form = Literal["dense", "exact", "paper"]


@dataclass(frozen=True)
class Sphere:
    """Random directions on the unit lp sphere of a subspace, with the vectors that make an estimate of them.

    Attributes:
        norm: Whose sphere; `L2` unless another is asked for. It need not be the norm of the threat.
        directions: The subspace.
        form: ``"dense"``, ``"exact"`` or ``"paper"``; see the module.

    Example:
        >>> draw = Sphere().draw(torch.zeros(1, 3, 2, 2), Randomness(0, ("a",)), step=0, samples=1)
        >>> round(draw.along.norm().item(), 4), round(draw.dual.norm().item(), 4)  # n = 12
        (1.0, 12.0)
    """

    norm: Norm = field(default_factory=L2)
    directions: Directions = field(default_factory=Pixel)
    form: Form = "dense"

    def __post_init__(self) -> None:
        check_fields(self)

    def draw(self, delta: Tensor, randomness: Randomness, step: int, samples: int) -> Draw:
        """``samples`` independent directions for each image; (samples, N, B, H, W), ‖u‖_p = 1.

        The norm is that of the image, but for `Dct` with p ≠ 2, where it is that of the coefficients.
        """
        shape = delta.shape[1:]
        like = delta.new_empty(len(delta), *self.directions.grid(shape))
        draws = [self.norm.sample_sphere(like, randomness.spawn(f"sphere {k}"), step) for k in range(samples)]
        values = torch.stack(draws) if samples > 1 else draws[0].unsqueeze(0)
        exponent = _EXPONENTS[self.norm.name]
        along = self.directions.lift(values, shape, exponent, randomness, step)
        dual = self.directions.lift(self._duals(values), shape, 1 - exponent, randomness, step)
        return Draw(along, dual)

    def _duals(self, values: Tensor) -> Tensor:
        """The dual v of each u, both in coordinates, (samples, N, c, h, w)."""
        n = math.prod(values.shape[2:])
        if self.form == "exact":
            return _NORMALS[self.norm.name](values) * n
        return values * (n if self.form == "paper" else 1 / second_moment(self.norm, n))


def second_moment(norm: Norm, n: int) -> float:
    """E[u_i²] for u uniform on the unit sphere of ``norm`` in n dimensions.

    Example:
        >>> second_moment(L2(), 4)
        0.25
    """
    return {"l1": 2 / (n * (n + 1)), "l2": 1 / n, "linf": (n + 2) / (3 * n)}[norm.name]


def _face(values: Tensor) -> Tensor:
    """±e_k for the largest |u_k|; where two are equal, an edge, the first."""
    flat = values.flatten(2)
    place = flat.abs().argmax(2, keepdim=True)
    return torch.zeros_like(flat).scatter_(2, place, flat.gather(2, place).sign_()).view_as(values)


_EXPONENTS = {"l1": 1.0, "l2": 0.5, "linf": 0.0}
_NORMALS: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.sign, "l2": lambda values: values, "linf": _face}
