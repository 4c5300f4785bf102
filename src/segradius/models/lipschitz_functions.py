"""What functions and methods of torch do to l2 distances, by name, as modules have rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models.lipschitz_rules import SLOPES, Step, padding_norm, pooled_maxima, resampling


def scaled(kind: str, args: tuple[Any, ...], depends: list[int], y: Tensor) -> Step:
    """What a product with, or a quotient by, a constant does to the one that depends on the image."""
    if len(args) != 2 or len(depends) != 1 or (kind.endswith("div") and depends != [0]):
        raise InputError(f"{kind} of a constant by what depends on the image: no bound is known")
    x, constant = args[depends[0]], torch.as_tensor(args[1 - depends[0]]).detach().double().abs()
    size = float(constant.max()) if kind.endswith("mul") else 1 / float(constant.min())
    return Step(size * math.sqrt(y.numel() / x.numel()), "a constant")


def _slope(kind: type[nn.Module]) -> Callable[[Any, Any, Any], Step]:
    return lambda args, kwargs, y: Step(float(SLOPES[kind]), "largest slope")


def option(args: tuple[Any, ...], kwargs: Mapping[str, Any], at: int, name: str, usual: Any) -> Any:
    """What a call gives for an argument, by name or place, or what is usual."""
    return kwargs.get(name, args[at] if len(args) > at else usual)


def _called(function: Callable[..., Tensor]) -> Callable[[Any, Any, Any], Step]:
    """A resampling of rows and columns, called with the options that the network gives it."""

    def step(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
        more = {key: value for key, value in kwargs.items() if key != "input"}
        return resampling(lambda u: function(u, *args[1:], **more), _input(args, kwargs))

    return step


def _input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    given: Tensor = args[0] if args else kwargs["input"]
    return given


def _pad(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
    mode = option(args, kwargs, 2, "mode", "constant")
    return Step(padding_norm(_input(args, kwargs), list(option(args, kwargs, 1, "pad", ())), mode), f"padding, {mode}")


def _max_pool(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
    kernel = option(args, kwargs, 1, "kernel_size", None)
    stride = option(args, kwargs, 2, "stride", None) or kernel
    return pooled_maxima(kernel, stride, option(args, kwargs, 4, "dilation", 1))


def _mean(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
    return Step(math.sqrt(y.numel() / _input(args, kwargs).numel()), "mean")


def _sum(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
    return Step(math.sqrt(_input(args, kwargs).numel() / y.numel()), "sum")


def _copies(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
    return Step(math.sqrt(y.numel() / _input(args, kwargs).numel()), "copies of a value")


def _leaky(args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor) -> Step:
    return Step(max(1.0, abs(option(args, kwargs, 1, "negative_slope", 0.01))), "largest slope")


#: Functions and methods that move values without repeating any, that look at sizes alone, that add, and that take
#: or divide by a constant.
KEEPING = frozenset((
    "reshape", "view", "flatten", "unflatten", "permute", "transpose", "contiguous", "squeeze", "unsqueeze",
    "movedim", "swapaxes", "clone", "flip", "roll", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "chunk",
    "split", "tensor_split", "unbind", "getitem", "narrow", "select", "dropout", "dropout2d", "neg", "abs", "clamp",
    "clamp_min", "clamp_max", "float", "double", "view_as", "reshape_as", "sort", "T", "mT", "data",
))  # fmt: skip
MAKING = frozenset(("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"))
ADDING = frozenset(("add", "iadd", "sub", "isub", "rsub", "radd"))
LARGER = frozenset(("maximum", "minimum"))
SCALING = frozenset(["mul", "imul", "truediv", "itruediv", "div"])
FUNCTIONS: dict[str, Callable[[Any, Any, Any], Step]] = {
    "relu": _slope(nn.ReLU),
    "relu6": _slope(nn.ReLU6),
    "tanh": _slope(nn.Tanh),
    "hardtanh": _slope(nn.Hardtanh),
    "sigmoid": _slope(nn.Sigmoid),
    "silu": _slope(nn.SiLU),
    "gelu": _slope(nn.GELU),
    "hardswish": _slope(nn.Hardswish),
    "mish": _slope(nn.Mish),
    "softplus": _slope(nn.Softplus),
    "leaky_relu": _leaky,
    "max_pool2d": _max_pool,
    "avg_pool2d": _called(functional.avg_pool2d),
    "adaptive_avg_pool2d": _called(functional.adaptive_avg_pool2d),
    "interpolate": _called(functional.interpolate),
    "pad": _pad,
    "mean": _mean,
    "sum": _sum,
    "expand": _copies,
    "repeat": _copies,
}
