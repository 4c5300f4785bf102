"""Convolutions whose passes are cheaper written otherwise: on a CPU, with frozen weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution; of channels-last images it is one matrix product, without copies to another layout."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the class it stands for."""
        if x.ndim != 4 or x.dtype != self.weight.dtype or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        y: Tensor = _Pointwise.apply(x, self.weight, self.bias)
        return y

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether it may stand for a convolution."""
        return (
            conv.kernel_size == conv.stride == (1, 1) and conv.padding in ((0, 0), "same", "valid") and conv.groups == 1
        )


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        (n, c, h, w), matrix = x.shape, weight.flatten(1)
        # Made as it is given out, not seen through a permutation: in-place functions after it would have to copy.
        y = torch.empty((n, len(matrix), h, w), dtype=x.dtype, memory_format=torch.channels_last)
        rows, out = x.permute(0, 2, 3, 1).reshape(-1, c), y.permute(0, 2, 3, 1).view(-1, len(matrix))
        torch.mm(rows, matrix.t(), out=out)
        if bias is not None:
            out.add_(bias)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (g,), (weight,) = gradients, ctx.saved_tensors
        return torch.matmul(g.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return functional.conv2d(tangents[0], ctx.saved_tensors[0])


class Stem(nn.Conv2d):
    """The first convolution: what it gives back to the few bands of an image is a convolution and a pixel shuffle."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the class it stands for."""
        if x.ndim != 4 or x.dtype != self.weight.dtype or not (x.requires_grad and torch.is_grad_enabled()):
            return super().forward(x)
        y: Tensor = _Stem.apply(x, self.weight, self.bias, self.stride[0], self.padding[0])
        return y

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether it may stand for a convolution, and pays: the usual kernel pads so few bands to sixteen."""
        (k, across), (s, right) = conv.kernel_size, conv.stride
        plain = conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
        square = k == across and s == right and conv.padding in {(p, p) for p in range(k)}
        return plain and square and conv.in_channels <= 4 and k > 3 and s > 1


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        ctx.stride, ctx.padding, ctx.shape = stride, padding, x.shape[-2:]
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (g,), (weight,) = gradients, ctx.saved_tensors
        return _to_image(g, weight, ctx.stride, ctx.padding, ctx.shape), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return functional.conv2d(tangents[0], ctx.saved_tensors[0], None, ctx.stride, ctx.padding)


def _to_image(g: Tensor, weight: Tensor, s: int, padding: int, shape: tuple[int, int]) -> Tensor:
    """Row s·t + r of the padded image had tap s·q + r of output row t − q, for q < ⌈k/s⌉: s² images, woven together."""
    out, bands, k, _ = weight.shape
    m = -(-k // s)
    taps = functional.pad(weight, (0, m * s - k, 0, m * s - k)).view(out, bands, m, s, m, s)
    kernel = taps.permute(1, 3, 5, 0, 2, 4).reshape(bands * s * s, out, m, m).flip(2, 3)
    woven = functional.pixel_shuffle(functional.conv2d(g, kernel, padding=m - 1), s)
    below, right = (side - had + padding for side, had in zip(shape, woven.shape[-2:], strict=True))
    return functional.pad(woven, (-padding, right, -padding, below))
