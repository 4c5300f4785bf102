"""A number that bounds how fast logits move, computed from the weights: verified, or refused with the layer's name."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError, ModelError, is_whole
from segradius.models.decoding import Decoding
from segradius.models.denoising import DenoisedNetwork
from segradius.models.lipschitz_rules import padding_norm
from segradius.models.lipschitz_walk import Layer, walked
from segradius.models.preprocessing import SizeRule
from segradius.models.segmenter import Segmenter
from segradius.models.spectral import separable_norm
from segradius.models.tiling import TiledNetwork

#: Steps of the power iteration from below, and what is taken off what it finds for rounding.
STEPS, ROUNDED = 12, 1 - 1e-4


@dataclass(frozen=True)
class Bound:
    """How fast logits move at most, in l2, with images in [0, 1]: ‖z(x) − z(y)‖₂ ≤ bound·‖x − y‖₂.

    It is of the network in exact arithmetic, with the weights as they are; a pass in float32 rounds besides.

    Attributes:
        bound: At least L, over all pixels and classes together.
        lower: At most L: the largest singular value of the Jacobian at one random image that was found.
        size: (height, width) of the images.
        layers: Step by step from the image to the logits.
        rounding: The largest difference of logits between float32 and float64 at that image, measured, not proven; 0
            for a network that is in float64.
    """

    bound: float
    lower: float
    size: tuple[int, int]
    layers: tuple[Layer, ...]
    rounding: float = 0.0


def lipschitz_bound(model: Segmenter, size: tuple[int, int]) -> Bound:
    """A verified bound on the l2 Lipschitz constant of a model's logits, for images in [0, 1] of one size.

    It is a product along the layers and a sum over branches, so far above the constant of ordinary deep networks; tight
    where each layer was made to keep distances (`segradius.models.networks.LipschitzUNet`).

    Args:
        model: From `segradius.wrap` or `segradius.load_model`.
        size: (height, width) of the images.

    Returns:
        The bound, with its layers.

    Raises:
        InputError: It is not a network of modules, looks through windows, gives no logits, is to run in reduced
            precision, cannot be traced, or has a layer of which no bound is known; the message names it.

    Example:
        >>> import segradius
        >>> model = segradius.wrap(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)))
        >>> found = lipschitz_bound(model, (8, 8))
        >>> found.lower <= found.bound, [layer.name for layer in found.layers]
        (True, ['0', '1', '2'])
    """
    _check(model, size)
    bands = model.bands or 3
    images = torch.rand(1, bands, *size, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    before = _border(model, size)
    start = math.prod(layer.bound for layer in before)
    with model.frozen():
        try:
            passed = walked(_modules(model), model.prepare(images), start)
        except InputError as error:
            raise InputError(f"model {model.name!r} has no Lipschitz bound: {error}") from error
        assert isinstance(model.decode, Decoding)
        picked = model.decode.pick(passed.output)
        if id(picked) not in passed.bounds:
            raise InputError(f"model {model.name!r} has no Lipschitz bound: its logits are no node of its graph")
        total = passed.bounds[id(picked)]
        after = _undone(model.size, size, picked, total)
        lower = _reached(model, images)
        rounding = _rounding(model, images)
    total = after[-1].total if after else total
    return Bound(total, min(lower, total), size, (*before, *passed.layers, *after), rounding)


def _check(model: Segmenter, size: tuple[int, int]) -> None:
    name = f"model {model.name!r}"
    if len(size) != 2 or not all(is_whole(side, 1) for side in size):
        raise InputError(f"size {size!r}: expected (height, width) in pixels")
    if isinstance(model.network, TiledNetwork):
        raise InputError(f"{name} looks through windows, of which no Lipschitz bound is known: leave out inference:")
    if not isinstance(model.network, nn.Module):
        raise InputError(f"{name} is a function, of which no Lipschitz bound is known: it must be an nn.Module")
    if isinstance(model.network, DenoisedNetwork):
        raise InputError(f"{name} is behind a denoiser, of which no Lipschitz bound is known: leave out the denoiser")
    kind = model.decode.kind if isinstance(model.decode, Decoding) else "a function"
    if kind not in ("logits", "binary_logit"):
        raise InputError(f"{name} gives {kind}, of which no Lipschitz bound is known: it must give logits")
    if model.precision not in (None, torch.float32):
        raise InputError(f"{name} runs in {model.precision}, whose rounding is in no bound: give no precision")


def _modules(model: Segmenter) -> nn.Module:
    assert isinstance(model.network, nn.Module)
    return model.network


def _border(model: Segmenter, size: tuple[int, int]) -> tuple[Layer, ...]:
    """What is done to images before the network."""
    steps, colours = [], model.normalisation
    if colours is not None and not colours.is_identity:
        steps.append(("normalisation", 1 / min(colours.std), "1 / smallest std"))
    target = model.size.target(*size)
    if target != tuple(size):
        if model.size.mode == "pad":
            around = [0, target[1] - size[1], 0, target[0] - size[0]]
            steps.append(("size", padding_norm(torch.zeros(1, 1, *size), around, "replicate"), "edge pixels repeated"))
        else:
            steps.append(("size", separable_norm(_resized(target), size), f"resized to {target[0]}x{target[1]}"))
    layers, total = [], 1.0
    for name, factor, how in steps:
        total *= factor
        layers.append(Layer(name, "border", factor, how, factor, total))
    return tuple(layers)


def _undone(rule: SizeRule, size: tuple[int, int], logits: Tensor, total: float) -> tuple[Layer, ...]:
    """What is done to logits to bring them to the size of the images."""
    if logits.ndim != 4:
        raise InputError(f"logits {tuple(logits.shape)}; expected (N, C, h, w)")
    target = tuple(size) if rule.mode == "resize" else rule.target(*size)
    coarse = (logits.shape[-2], logits.shape[-1])
    if coarse == target:
        return ()
    factor = separable_norm(_resized((target[0], target[1])), coarse)
    how = f"logits resized from {coarse[0]}x{coarse[1]}"
    return (Layer("size", "border", factor, how, factor, factor * total),)


def _resized(target: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda x: functional.interpolate(x, size=target, mode="bilinear", align_corners=False)


def _reached(model: Segmenter, images: Tensor) -> float:
    """The largest singular value of the Jacobian at an image that is found; a little less, for rounding."""
    x = images.clone().requires_grad_()
    v = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).to(images)
    found = 0.0
    for _ in range(STEPS):
        with torch.enable_grad():
            z = model.logits(x)
            u = torch.zeros_like(z, requires_grad=True)
            (pulled,) = torch.autograd.grad(z, x, u, create_graph=True)
            (pushed,) = torch.autograd.grad(pulled, u, v / v.norm().clamp_min(1e-30), retain_graph=True)
            (v,) = torch.autograd.grad(z, x, pushed)
        found = max(found, float(pushed.double().norm()))
    return ROUNDED * found


@torch.no_grad()
def _rounding(model: Segmenter, images: Tensor) -> float:
    """How far float32 and float64 differ at an image."""
    if model.dtype == torch.float64:
        return 0.0
    try:
        exact = replace(model, network=deepcopy(_modules(model)).double(), twins=None, surrogate=None)
        wide = exact.logits(images.double())
    except (RuntimeError, ModelError, InputError):  # it has numbers of its own type in its code
        return math.nan
    return float((wide - model.logits(images).double()).abs().max())
