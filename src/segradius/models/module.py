"""A segmenter as the plain module that other libraries attack."""

from __future__ import annotations

from torch import Tensor, nn

from segradius.models.segmenter import Segmenter


class AsModule(nn.Module):
    """A `Segmenter` as a module: images in [0, 1] in, logits (N, C, H, W) at their size out, differentiable.

    The network stays a submodule, so that devices and parameters are found; it runs frozen in evaluation mode.

    Args:
        model: From `wrap` or `load_model`.

    Example:
        >>> import torch
        >>> from segradius.models import wrap
        >>> AsModule(wrap(nn.Conv2d(3, 4, 1), normalisation="imagenet"))(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model, self.network = model, model.network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W) in [0, 1]."""
        return self.model.logits(images)
