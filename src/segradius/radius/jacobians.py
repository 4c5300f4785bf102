"""Derivatives of every pixel's logits in the image, and the exact radii of affine models that follow from them.

`derivative` gives J v for all pixels and all classes from one pass; `gradient_norms` needs a backward pass for each
pixel and class, so it is for tiny images and for tests. `exact_radius` is what every estimate must agree with.
"""

from __future__ import annotations

import math
import warnings
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from segradius.core.contracts import LogitModel
from segradius.core.errors import InputError, ModelError
from segradius.core.prediction import predict


def differences(values: Tensor, classes: Tensor) -> Tensor:
    """v_c − v_j of every pixel and class j, where c is the pixel's class; (N, C, H, W) from classes (N, H, W).

    Example:
        >>> differences(torch.tensor([1.0, 3.0, 2.0]).view(1, 3, 1, 1), torch.tensor([[[1]]])).flatten().tolist()
        [2.0, 0.0, 1.0]
    """
    return values.gather(1, classes.unsqueeze(1)) - values


def plane_distances(margins: Tensor, slopes: Tensor, classes: Tensor) -> Tensor:
    """Margin over slope: how far a margin that falls at that slope is from zero; (N, C, H, W).

    Args:
        margins: `differences` of the logits, (N, C, H, W), ≥ 0.
        slopes: Lengths of their gradients, of the same shape.
        classes: c, (N, H, W).

    Returns:
        0 at a tie, ∞ where the slope is zero, and at c itself.

    Example:
        >>> margins, slopes = torch.tensor([0.0, 3.0, 1.0]), torch.tensor([0.0, 2.0, 0.0])
        >>> plane_distances(margins.view(1, 3, 1, 1), slopes.view(1, 3, 1, 1), torch.zeros(1, 1, 1).long()).flatten()
        tensor([   inf, 1.5000,    inf])
    """
    distances = torch.where(margins == 0, 0.0, margins / slopes)
    return distances.scatter_(1, classes.unsqueeze(1), torch.inf)


def derivative(model: LogitModel, images: Tensor, direction: Tensor) -> Tensor:
    """J v: how the logits change along a direction, exactly, in one pass of forward-mode differentiation.

    Where an operator has no forward-mode rule, or a model leaves torch, a central difference takes its place. That is
    no equal: a network of ReLUs has kinks within any step, and short ones drown in rounding. On a PSPNet in float32 the
    difference is off by 2 % at the best step, about the one used here, and by 7 % at a tenfold one.

    Args:
        model: Anything with ``.logits(images)``.
        images: (N, B, H, W).
        direction: v, (N, B, H, W).

    Returns:
        (N, C, H, W), without a gradient.

    Example:
        >>> import segradius as sr
        >>> layer = torch.nn.Conv2d(3, 4, 1)
        >>> found = derivative(sr.wrap(layer, num_classes=4), torch.rand(1, 3, 2, 2), v := torch.rand(1, 3, 2, 2))
        >>> torch.allclose(found, layer(v) - layer.bias.view(1, 4, 1, 1), atol=1e-6)
        True
    """
    with torch.no_grad():
        tangent = _forward_mode(model, images, direction)
        return _central(model, images, direction) if tangent is None else tangent


def gradient_norms(
    model: LogitModel, images: Tensor, classes: Tensor, pixels: Tensor | None = None, *, at_once: int = 16
) -> Tensor:
    """‖∇(z_ic − z_ij)‖₂ of each pixel i and class j, by one backward pass for each.

    Args:
        model: Anything with ``.logits(images)``, differentiable in the images.
        images: (N, B, H, W).
        classes: c of every pixel, (N, H, W) int64.
        pixels: Which pixels, (P,) places in the flattened image; None for all.
        at_once: Backward passes that are made together, which bounds memory.

    Returns:
        (N, C, P), where P = H·W for all pixels.
    """
    leaf = images.detach().requires_grad_()
    logits = model.logits(leaf)
    if not logits.requires_grad:
        return images.new_zeros(len(images), logits.shape[1], classes[0].numel() if pixels is None else len(pixels))
    gaps = differences(logits, classes).flatten(2)
    places = torch.arange(gaps.shape[2], device=images.device) if pixels is None else pixels
    wanted = torch.cartesian_prod(torch.arange(gaps.shape[1], device=images.device), places)
    found = []
    for some in torch.split(wanted, at_once):
        rows = torch.zeros(len(some), *gaps.shape[1:], dtype=gaps.dtype, device=gaps.device)
        rows[torch.arange(len(some)), some[:, 0], some[:, 1]] = 1
        cotangents = rows.unsqueeze(1).expand(-1, len(images), -1, -1)
        (gradients,) = torch.autograd.grad(gaps, leaf, cotangents, retain_graph=True, is_grads_batched=True)
        found.append(gradients.flatten(2).square().sum(2).sqrt())
    return torch.cat(found).T.reshape(len(images), gaps.shape[1], len(places))


def _forward_mode(model: LogitModel, images: Tensor, direction: Tensor) -> Tensor | None:
    """J v, or None where some operator cannot tell."""
    _warm_up()
    with forward_ad.dual_level():
        try:
            logits = model.logits(forward_ad.make_dual(images, direction))  # type: ignore[no-untyped-call]
        except ModelError as error:
            if isinstance(error.__cause__, NotImplementedError):
                return None
            raise
        except NotImplementedError:
            return None
        tangent: Tensor | None = forward_ad.unpack_dual(logits).tangent  # type: ignore[no-untyped-call]
        return tangent


@cache
def _warm_up() -> None:
    """Make torch load its rules at a moment when the deprecation of a tool that *they* use is not shown to the user."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))  # type: ignore[no-untyped-call]


def _central(model: LogitModel, images: Tensor, direction: Tensor) -> Tensor:
    step = math.pow(torch.finfo(images.dtype).eps, 2 / 3)
    return (model.logits(images + step * direction) - model.logits(images - step * direction)) / (2 * step)


# Rounding of a deep sum, in units of the last place of its largest term.
_ROUNDING = 1e3


def exact_radius(model: LogitModel, images: Tensor) -> Tensor:
    """Distance (l2, over the image, without the box) to the nearest image where a pixel's prediction changes.

    For affine logits the margin z_ic − z_ij falls to zero on a plane at the distance (z_ic − z_ij) / ‖J_ic − J_ij‖; the
    radius is the least over the classes j. It costs a backward pass for each pixel and class: images must be tiny.

    Args:
        model: Anything with differentiable ``.logits(images)``, affine in the images.
        images: (N, B, H, W) in [0, 1].

    Returns:
        (N, H, W), 0 at a tie; ∞ where no perturbation can change the prediction.

    Raises:
        InputError: The logits are not affine, seen at the middle between an image and random ones.

    Example:
        >>> import segradius as sr
        >>> halves = torch.nn.Conv2d(3, 2, 1, bias=False)
        >>> halves.weight.data = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1)
        >>> exact_radius(sr.wrap(halves, num_classes=2), torch.ones(1, 3, 1, 1))  # a margin of 7 and a slope of 5
        tensor([[[1.4000]]])
    """
    check_affine(model, images)
    with torch.no_grad():
        logits = model.logits(images)
    classes = predict(logits)[1]
    slopes = gradient_norms(model, images, classes).view_as(logits)
    return plane_distances(differences(logits, classes), slopes, classes).amin(1)


def check_affine(model: LogitModel, images: Tensor, tries: int = 4) -> None:
    """Raise `InputError` unless the logits halfway between ``images`` and random ones are halfway between theirs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        here = model.logits(images)
        for _ in range(tries):
            other = torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device)
            there = model.logits(other)
            off = float((model.logits((images + other) / 2) - (here + there) / 2).abs().amax())
            size = float(torch.maximum(here.abs().amax(), there.abs().amax()))
            if not off <= _ROUNDING * torch.finfo(here.dtype).eps * size:
                raise InputError(
                    f"the model is not affine: halfway between two images its logits, of size {size:.3g}, are off the "
                    f"line by {off:.3g}; exact radii need logits that are affine in the image"
                )
