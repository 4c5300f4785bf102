"""A denoiser before a network, as one model: what is learnt without noise can then be smoothed and certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from segradius.core.border import at_border
from segradius.core.errors import InputError
from segradius.core.registry import Registry
from segradius.models.preprocessing import SizeRule
from segradius.models.segmenter import Segmenter

#: From noisy images (N, B, H, W), whose values may lie outside [0, 1], to images of that shape.
Denoise: TypeAlias = Callable[[Tensor], Tensor]

DENOISERS: Registry[Callable[..., Denoise]] = Registry("denoiser", "segradius.models")
"""Denoisers by name, each a function of keyword options that makes one."""


class DenoisedNetwork(nn.Module):
    """From noisy images to the logits of a model behind a denoiser; `denoised` makes it.

    The model runs frozen in evaluation mode, also while the denoiser is trained, which learns through it.

    Args:
        denoiser: What the images go through first, an `nn.Module` or any function of a batch.
        model: What sees its answer, with normalisation, sizes and decoding.
        trained: Whether the denoiser's parameters are trained; None where nobody knows.
    """

    def __init__(self, denoiser: Denoise, model: Segmenter, trained: bool | None = None) -> None:
        super().__init__()
        self.denoiser, self.model, self.network, self.trained = denoiser, model, model.network, trained

    def extra_repr(self) -> str:
        """The denoiser, where it is no module and so not told as one."""
        return "" if isinstance(self.denoiser, nn.Module) else told(self.denoiser)

    @property
    def sigma(self) -> float | None:
        """The only σ that the denoiser is for, where it is for one."""
        found = getattr(self.denoiser, "sigma", None)
        return float(found) if isinstance(found, int | float) else None

    def denoise(self, images: Tensor) -> Tensor:
        """What the denoiser makes of images (N, B, H, W), in their dtype; raises `ModelError` for another shape."""
        what = f"denoiser {told(self.denoiser)}"
        with at_border(what, images.shape):
            found = self.denoiser(images)
            if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != images.shape:
                kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise InputError(f"{what} gave {kind}; expected floating {tuple(images.shape)}, as it was given")
            return found.to(images.dtype)

    def check_denoised(self, images: Tensor) -> None:
        """Raise `InputError` where the denoiser gives numbers for images (N, B, H, W) that are not finite."""
        if not self.denoise(images).isfinite().all():
            raise InputError(f"denoiser {told(self.denoiser)} gave NaN or infinity; expected finite numbers")

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Logits of images (N, B, H, W); while the denoiser is trained, what it made of them too."""
        cleaned = self.denoise(images)
        with self.model.frozen():
            logits = self.model.raw_logits(cleaned)
        if self.model.size != SizeRule():  # else whoever asked resizes them alike
            logits = self.model.size.undo(logits, images.shape[-2], images.shape[-1])
        return {"out": logits, DENOISED: cleaned} if self.training and torch.is_grad_enabled() else logits


#: Under which name a `DenoisedNetwork` in training gives the denoised images beside the logits.
DENOISED = "denoised"


def denoised(model: Segmenter, denoiser: Denoise, *, trained: bool | None = None) -> Segmenter:
    """A model that sees what a denoiser makes of an image: denoised smoothing (Salman et al., NeurIPS 2020).

    The result is a `Segmenter` like any other: attacks and certificates run through the whole of it, and a certificate
    is one of the denoiser with the model. Both are shared, not copied, and run frozen in evaluation mode.

    Args:
        model: From `wrap` or `load_model`. In windows (`tiled`) too: the whole image is denoised first.
        denoiser: From noisy images (N, B, H, W), with values outside [0, 1], to images of that shape and a floating
            type; a module is moved to the model's device.
        trained: Whether its parameters are trained; None where nobody knows.

    Raises:
        InputError: ``model`` is no `Segmenter`, or the denoiser cannot be called.

    Example:
        >>> from segradius.models import wrap
        >>> model = wrap(nn.Conv2d(3, 4, 3), name="net")
        >>> behind = denoised(model, nn.AvgPool2d(3, 1, padding=1))
        >>> behind.name, behind.logits(torch.rand(2, 3, 8, 9)).shape
        ('net behind AvgPool2d(kernel_size=3, stride=1, padding=1)', torch.Size([2, 4, 8, 9]))
    """
    if not isinstance(model, Segmenter):
        raise InputError(f"denoised takes a Segmenter, such as wrap(network) gives; got a {type(model).__name__}")
    if not callable(denoiser):
        raise InputError(f"a denoiser is a function of a batch of images; got a {type(denoiser).__name__}")
    if isinstance(denoiser, nn.Module):
        denoiser.to(model.device)
    return Segmenter(
        DenoisedNetwork(denoiser, replace(model, twins=None, surrogate=None), trained),
        model.num_classes,
        f"{model.name} behind {told(denoiser)}",
        weights=model.weights,
        bands=model.bands,
        structures=model.structures,
        precision=model.precision,
    )


def told(denoiser: Any) -> str:
    """What a denoiser is called: a module by its class, and its settings where it tells them in a few words.

    Example:
        >>> told(nn.AvgPool2d(3, 1)), told(nn.Sequential(nn.ReLU())), told(told)
        ('AvgPool2d(kernel_size=3, stride=1, padding=0)', 'Sequential', 'told')
    """
    if isinstance(denoiser, nn.Module):
        settings = denoiser.extra_repr()
        return f"{type(denoiser).__name__}({settings})" if settings else type(denoiser).__name__
    if is_dataclass(denoiser):
        return repr(denoiser)
    return str(getattr(denoiser, "__qualname__", None) or getattr(denoiser, "__name__", type(denoiser).__name__))


def trained_part(network: Any) -> Any:
    """What of a network is trained and written as its weights: of one behind a denoiser, the denoiser."""
    return network.denoiser if isinstance(network, DenoisedNetwork) else network


def check_sigma(model: object, sigma: float) -> None:
    """Raise `InputError` where a model's denoiser is for noise of another σ than this alone."""
    network = getattr(model, "network", None)
    if not isinstance(network, DenoisedNetwork) or network.sigma is None:
        return
    if abs(sigma - network.sigma) > 1e-9 * network.sigma:
        only = f"the denoiser {told(network.denoiser)} is for {network.sigma:g} alone"
        raise InputError(f"sigma is {sigma:g}, and {only}")
