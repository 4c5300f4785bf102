"""Bilinear resizing whose backward pass is two matrix products.

Resizing is linear and separable, y = A x Bᵀ, so that the gradient is Aᵀ g B. The usual kernel adds the gradient of each
output to four inputs one by one; the products are several times as fast on a CPU, and equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def bilinear(
    x: Tensor,
    size: Sequence[int] | None = None,
    scale_factor: Sequence[float] | None = None,
    align_corners: bool | None = None,
) -> Tensor:
    """What `torch.nn.functional.interpolate` gives in mode bilinear, with a cheaper backward pass.

    Args:
        x: (N, C, h, w), floating.
        size: Height and width of the result; or
        scale_factor: what h and w are multiplied by.
        align_corners: As there.

    Example:
        >>> x = torch.rand(1, 2, 3, 4, requires_grad=True)
        >>> y = bilinear(x, (6, 8))
        >>> torch.equal(y, functional.interpolate(x, (6, 8), mode="bilinear"))
        True
        >>> torch.autograd.grad(y.sum(), x)[0].sum()
        tensor(96.0000)
    """
    y: Tensor = _Bilinear.apply(x, size, scale_factor, align_corners)
    return y


class Resizing(TorchFunctionMode):
    """The context in which bilinear resizing that a gradient goes through, on a CPU, is `bilinear`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Of all functions only `interpolate` is another."""
        kwargs = kwargs or {}
        if func is functional.interpolate:
            return _interpolate(*args, **kwargs)
        return func(*args, **kwargs)


def _interpolate(
    x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None, **rest: Any
) -> Tensor:
    usual = x.ndim == 4 and mode == "bilinear" and not any(rest.values())
    if usual and x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
        return bilinear(x, _pair(size), _pair(scale_factor), align_corners)
    return functional.interpolate(x, size, scale_factor, mode, align_corners, **rest)


def _pair(value: Any) -> tuple[Any, Any] | None:
    if value is None or isinstance(value, tuple | list):
        return None if value is None else (value[0], value[-1])
    return value, value


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Any, scale_factor: Any, align_corners: Any) -> Tensor:
        ctx.given, ctx.shape = (size, scale_factor, align_corners), x.shape[-2:]
        return functional.interpolate(_told_apart(x), size, scale_factor, "bilinear", align_corners)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (g,) = gradients
        (h, w), (size, scale_factor, align_corners) = ctx.shape, ctx.given
        (tall, wide), (down, right) = size or (None, None), scale_factor or (None, None)
        a, b = _matrix(h, tall, down, align_corners, g.dtype), _matrix(w, wide, right, align_corners, g.dtype)
        if g.stride(1) == 1 and g.shape[1] > 1:  # channels-last, or some channels of that: no copy is made
            n, c, height, width = g.shape
            along = torch.matmul(b.expand(n * height, -1, -1), _rows(g).reshape(-1, width, c))
            found = torch.matmul(a, along.view(n, height, w * c)).view(n, h, w, c)
            return found.permute(0, 3, 1, 2), None, None, None
        return torch.matmul(a, torch.matmul(g, b.t())), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        size, scale_factor, align_corners = ctx.given
        return functional.interpolate(tangents[0], size, scale_factor, "bilinear", align_corners)


def _told_apart(x: Tensor) -> Tensor:
    """One channels-last image whose stride over images leaves its layout open, with the stride that says it."""
    n, c, h, w = x.shape
    return x.as_strided(x.shape, (h * w * c, 1, w * c, c)) if n == 1 and c > 1 and _rows(x).is_contiguous() else x


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
@torch.no_grad()
def _matrix(n: int, size: int | None, scale: float | None, align: bool | None, dtype: torch.dtype) -> Tensor:
    """What one axis of n values is multiplied by, transposed: (n, n'). It is asked of the usual kernel itself."""
    one = torch.eye(n, dtype=torch.promote_types(dtype, torch.float32)).view(1, 1, n, n)
    to = None if size is None else (n, int(size))
    by = None if scale is None else (1.0, float(scale))
    return functional.interpolate(one, to, by, "bilinear", align)[0, 0].to(dtype)
