"""Exact pixel-wise radii of models whose logits are affine in the image: what every estimate must agree with."""

from __future__ import annotations

import torch
from torch import Tensor

from segradius.core.contracts import LogitModel
from segradius.core.errors import InputError
from segradius.core.prediction import predict
from segradius.radius.jacobians import differences, gradient_norms, plane_distances

# Rounding of a deep sum, in units of the last place of its largest term.
_ROUNDING = 1e3


def exact_radius(model: LogitModel, images: Tensor) -> Tensor:
    """Distance (l2, over the image, without the box) to the nearest image where a pixel's prediction changes.

    For affine logits the margin z_ic − z_ij falls to zero on a plane at the distance (z_ic − z_ij) / ‖J_ic − J_ij‖; the
    radius is the least over the classes j. It costs a backward pass for each pixel and class: images must be tiny.

    Args:
        model: Anything with differentiable ``.logits(images)``, affine in the images.
        images: (N, 3, H, W) in [0, 1].

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
