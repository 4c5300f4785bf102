"""Batch norm over the images of all processes, on any device: torch's own `SyncBatchNorm` is for GPUs only."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """Batch norm whose batch in training is that of all processes together; in evaluation, and alone, the usual one.

    Mean and variance are sums over processes, and so are the gradients through them: two processes with half a batch
    each compute what one computes with the whole. Parameters and buffers have the usual names.

    Args:
        like: The layer whose parameters and buffers are taken over, not copied.
    """

    def __init__(self, like: _BatchNorm) -> None:
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats)
        self.weight, self.bias = like.weight, like.bias
        self.running_mean, self.running_var = like.running_mean, like.running_var
        self.num_batches_tracked = like.num_batches_tracked
        self.train(like.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x (N, C, …)."""
        if not self.training or not dist.is_initialized():
            alone: Tensor = super().forward(x)
            return alone
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        over, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        count = _Sum.apply(wide.new_tensor(float(x.numel() // x.shape[1])))
        mean = _Sum.apply(wide.sum(over)) / count
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(over)) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = normalised.to(x.dtype)
        return result

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""


def synchronise(network: nn.Module, device: torch.device) -> None:
    """Replace every batch norm in ``network`` by one over all processes: torch's on a GPU, `SharedBatchNorm` elsewhere.

    Args:
        network: Changed in place; it is not itself a batch norm.
        device: Where it will run.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> names = list(network.state_dict())
        >>> synchronise(network, torch.device("cpu"))
        >>> type(network[1]).__name__, list(network.state_dict()) == names
        ('SharedBatchNorm', True)
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SharedBatchNorm):
                setattr(parent, name, SharedBatchNorm(child))


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
