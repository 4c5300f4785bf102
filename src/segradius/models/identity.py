"""A short text that tells two models apart by what they compute, not by their names."""

from __future__ import annotations

import hashlib

import torch

from segradius.models.segmenter import Segmenter
from segradius.models.tiling import TiledNetwork


def fingerprint(model: Segmenter) -> str:
    """A hash of the parameters, buffers, normalisation, sizes and tiling of a model, "" where it is a bare function.

    Example:
        >>> from segradius.models import wrap
        >>> network = torch.nn.Conv2d(3, 2, 1)
        >>> fingerprint(wrap(network)) == fingerprint(wrap(network, normalisation="imagenet"))
        False
    """
    if not isinstance(model.network, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    inner = model
    while isinstance(inner.network, TiledNetwork):
        digest.update(repr(inner.network.tiling).encode())
        inner = inner.network.model
    digest.update(f"{inner.normalisation} {inner.size}".encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
