"""What each layer does to l2 distances: modules and functions of torch by name, with a bound that is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from segradius.core.errors import InputError
from segradius.models.networks.lipschitz_unet import ConvexPotential, MaxMin, Orthogonal, Placed, Spectrum
from segradius.models.spectral import SLACK, convolution_norm, least_norm, matrix_norm, separable_norm


class Step(NamedTuple):
    """What a layer does to distances.

    Attributes:
        bound: On ‖f(x) − f(y)‖₂ over ‖x − y‖₂.
        how: Where the bound is from, in a few words.
        lower: A factor that it reaches; 0 where none was looked for.
    """

    bound: float
    how: str
    lower: float = 0.0


Rule = Callable[[Any, Tensor, Tensor], Step]
"""From a module in evaluation mode, what it was given and what it gave of that to what it does to distances."""

RULES: dict[type[nn.Module], Rule] = {}
"""Rules by the type of the module; a subclass with a forward pass of its own has none."""

#: Largest slopes of functions of one number, rounded up, by module and name of the function.
SLOPES: dict[type[nn.Module], float] = {
    nn.ReLU: 1, nn.ReLU6: 1, nn.Tanh: 1, nn.Hardtanh: 1, nn.Softsign: 1, nn.Softshrink: 1, nn.LogSigmoid: 1,
    nn.Softplus: 1, nn.Tanhshrink: 1, nn.Sigmoid: 0.25, nn.Hardsigmoid: 1 / 6 + 1e-12, nn.SiLU: 1.0999, nn.GELU: 1.1301,
    nn.Hardswish: 1.5, nn.Mish: 1.0886,
}  # fmt: skip
#: Modules that move, drop or repeat nothing: each value goes to one place at most.
KEEPING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.PixelShuffle,
           nn.PixelUnshuffle, nn.ChannelShuffle, nn.Flatten, nn.Unflatten)  # fmt: skip


def rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """A decorator that adds a rule for modules of some types.

    A rule is a theorem: what it says of a module is believed.

    Example:
        >>> class Halved(nn.Module):
        ...     def forward(self, x):
        ...         return x / 2
        >>> @rule(Halved)
        ... def _halved(module, x, y):
        ...     return Step(0.5, "a half")
        >>> rule_of(Halved()) is _halved
        True
    """

    def add(it: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, it))
        return it

    return add


def rule_of(module: nn.Module) -> Rule | None:
    """The rule for a module; None where there is none, or it has a forward pass of its own."""
    for kind in type(module).__mro__:
        if kind in RULES:
            ways = [name for name in ("forward", "_conv_forward") if hasattr(kind, name)]
            own = any(name in vars(module) or getattr(type(module), name) is not getattr(kind, name) for name in ways)
            return None if own else RULES[kind]
    return None


def _sloped(slope: float) -> Rule:
    return lambda module, x, y: Step(slope, "largest slope")


for _kind, _slope in SLOPES.items():
    RULES[_kind] = _sloped(float(_slope))


@rule(*KEEPING)
def _keeping(module: nn.Module, x: Tensor, y: Tensor) -> Step:
    return Step(1.0, "each value has one place")


@rule(nn.LeakyReLU)
def _leaky(module: nn.LeakyReLU, x: Tensor, y: Tensor) -> Step:
    return Step(max(1.0, abs(module.negative_slope)), "largest slope")


@rule(nn.ELU)
def _elu(module: nn.ELU, x: Tensor, y: Tensor) -> Step:
    return Step(max(1.0, abs(module.alpha)), "largest slope")


@rule(nn.PReLU)
def _prelu(module: nn.PReLU, x: Tensor, y: Tensor) -> Step:
    return Step(max(1.0, float(module.weight.detach().abs().max())), "largest slope")


@rule(_BatchNorm)
def _batch_norm(module: _BatchNorm, x: Tensor, y: Tensor) -> Step:
    if module.running_var is None:
        raise InputError("it takes mean and variance from each batch, so that no factor bounds it")
    scale = (module.running_var.detach().double() + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight.detach().double().abs()
    return Step(SLACK * float(scale.max()), "max |γ|/√(var + ε)", float(scale.max()))


@rule(nn.Linear)
def _linear(module: nn.Linear, x: Tensor, y: Tensor) -> Step:
    found = matrix_norm(module.weight.detach().cpu())
    return Step(found, "singular values", found / SLACK)


@rule(nn.Conv2d)
def _conv2d(module: nn.Conv2d, x: Tensor, y: Tensor) -> Step:
    kernel, around = module.weight.detach().double().cpu(), list(module._reversed_padding_repeated_twice)
    stride, dilation = module.stride, module.dilation
    factor = 1.0
    if module.padding_mode != "zeros":
        sides = zip(reversed(x.shape[-2:]), reversed(stride), reversed(_reach(module)), strict=True)
        fits = all(n % s == 0 and sum(around[2 * at : 2 * at + 2]) <= k for at, (n, s, k) in enumerate(sides))
        if module.padding_mode != "circular" or not fits:
            factor = padding_norm(x, around, module.padding_mode)
    bound = convolution_norm(_dilated(kernel, dilation) if max(stride) > 1 else kernel, _pair(stride), module.groups)

    def moved(u: Tensor) -> Tensor:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        return functional.conv2d(functional.pad(u, around, mode), kernel, None, stride, 0, dilation, module.groups)

    lower = least_norm(moved, (1, *x.shape[1:]))
    return Step(factor * bound, "kernel" if factor == 1 else f"kernel × {factor:.4g} of its padding", lower)


@rule(nn.ConvTranspose2d)
def _conv_transpose2d(module: nn.ConvTranspose2d, x: Tensor, y: Tensor) -> Step:
    kernel = module.weight.detach().double().cpu()
    stride, dilation, groups = _pair(module.stride), module.dilation, module.groups
    whole = _dilated(kernel, dilation) if max(stride) > 1 else kernel
    added, padding = _pair(module.output_padding), _pair(module.padding)

    def moved(u: Tensor) -> Tensor:
        return functional.conv_transpose2d(u, kernel, None, stride, padding, added, groups, dilation)

    return Step(convolution_norm(whole, stride, groups), "kernel, transposed", least_norm(moved, (1, *x.shape[1:])))


@rule(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)
def _resampled(module: nn.Module, x: Tensor, y: Tensor) -> Step:
    return resampling(module, x)


@rule(nn.MaxPool2d)
def _max_pool(module: nn.MaxPool2d, x: Tensor, y: Tensor) -> Step:
    if module.return_indices:
        raise InputError("it gives places too (return_indices)")
    return pooled_maxima(module.kernel_size, module.stride, module.dilation)


@rule(nn.AdaptiveMaxPool2d)
def _adaptive_max(module: nn.AdaptiveMaxPool2d, x: Tensor, y: Tensor) -> Step:
    most = 1
    for n, m in zip(x.shape[-2:], y.shape[-2:], strict=True):
        at, place = torch.arange(m), torch.arange(n)[:, None]
        most *= int(((at * n // m <= place) & (place < -(-(at + 1) * n // m))).sum(1).max())
    return Step(math.sqrt(most), f"a value is in {most} windows at most")


@rule(_ConstantPadNd, nn.ZeroPad2d)
def _constant_pad(module: nn.Module, x: Tensor, y: Tensor) -> Step:
    return Step(1.0, "constants around")


@rule(_ReflectionPadNd, _ReplicationPadNd, _CircularPadNd)
def _padded(module: Any, x: Tensor, y: Tensor) -> Step:
    kinds = {_ReflectionPadNd: "reflect", _ReplicationPadNd: "replicate", _CircularPadNd: "circular"}
    mode = next(mode for kind, mode in kinds.items() if isinstance(module, kind))
    return Step(padding_norm(x, list(module.padding), mode), "copies of a value")


@rule(MaxMin)
def _max_min(module: MaxMin, x: Tensor, y: Tensor) -> Step:
    return Step(1.0, "sorted pairs")


@rule(Placed)
def _placed(module: Placed, x: Tensor, y: Tensor) -> Step:
    return Step(1.0, "a constant is added")


@rule(Orthogonal, Spectrum)
def _matrix(module: Orthogonal | Spectrum, x: Tensor, y: Tensor) -> Step:
    found = matrix_norm(module.matrix().detach().cpu())
    return Step(found, "singular values", found / SLACK)


@rule(ConvexPotential)
def _convex_potential(module: ConvexPotential, x: Tensor, y: Tensor) -> Step:
    # The Jacobian is I − 2KᵀDK with 0 ≤ D ≤ I, symmetric, and its eigenvalues are in [1 − 2‖K‖², 1].
    found = convolution_norm(module.kernel().detach().cpu(), enough=1.0)
    return Step(max(1.0, 2 * found**2 - 1), f"I − 2KᵀDK, ‖K‖ ≤ {found:.6g}")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _reach(module: nn.Conv2d) -> list[int]:
    """How much a convolution without padding takes off height and width."""
    return [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]


def _dilated(kernel: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """The kernel with the zeros that dilation puts between its values."""
    out, inputs, h, w = kernel.shape
    down, across = dilation
    whole = kernel.new_zeros(out, inputs, down * (h - 1) + 1, across * (w - 1) + 1)
    whole[..., ::down, ::across] = kernel
    return whole


def padding_norm(x: Tensor, around: list[int], mode: str) -> float:
    """The l2 norm of a padding of (N, C, h, w): the root of how often the most frequent value occurs after it.

    Args:
        x: What is padded.
        around: Left, right, top and bottom, as `functional.pad` takes it.
        mode: As there.
    """
    if mode in ("constant", "zeros"):
        return 1.0
    if len(around) > 4:
        raise InputError(f"padding {around} of more than height and width, mode {mode}: no bound is known")
    factor = 1.0
    for side, pads in zip(reversed(x.shape[-2:]), (around[:2], around[2:4]), strict=False):
        if any(pads):
            places = functional.pad(torch.arange(side, dtype=torch.float64).view(1, 1, side), pads, mode)
            factor *= math.sqrt(int(torch.bincount(places.flatten().long()).max()))
    return factor


def pooled_maxima(kernel: Any, stride: Any, dilation: Any) -> Step:
    """Maxima over windows: a value is in so many of them, and each maximum moves by no more than its window does."""
    sides = zip(_pair(kernel), _pair(stride), _pair(dilation), strict=True)
    most = math.prod(min(k, -(-(d * (k - 1) + 1) // s)) for k, s, d in sides)
    return Step(math.sqrt(most), f"a value is in {most} windows at most")


def resampling(resample: Callable[[Tensor], Tensor], x: Tensor) -> Step:
    """A linear map of rows and columns of (N, C, h, w), channel by channel."""
    if x.ndim != 4:
        raise InputError(f"it is given {tuple(x.shape)}, and a bound is known of (N, C, h, w)")
    found = separable_norm(resample, (x.shape[-2], x.shape[-1]))
    return Step(found, "of rows × of columns", found / SLACK**2)
