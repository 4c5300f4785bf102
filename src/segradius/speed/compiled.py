"""A network compiled by `torch.compile`, for images of one size."""

from __future__ import annotations

import torch
from torch import nn


def compiled(network: nn.Module) -> nn.Module:
    """The same network, compiled when it first runs, and anew for another size of images.

    On a GPU, where sizes stay, its kernels are replayed as CUDA graphs.

    Args:
        network: Frozen, in evaluation mode.
    """
    parameter = next(network.parameters(), None)
    on_gpu = parameter is not None and parameter.device.type == "cuda"
    made: nn.Module = torch.compile(network, dynamic=False, mode="reduce-overhead" if on_gpu else None)  # type: ignore[assignment]
    return made
