"""Lightning Fabric for training: devices, precision, processes, and batch norm over all of them on any device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn.modules.batchnorm import _BatchNorm

from segradius.core.declared import Count, Devices, Positive, Workers, check_fields, only_with
from segradius.core.errors import InputError, missing_extra
from segradius.core.modules import working_folder


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


@dataclass(frozen=True)
class Engine:
    """Devices, readers and how often things are written.

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: Processes, one for each GPU; on CPU, processes that share its cores.
        workers: Processes that read and augment images, for each of the above; 0 reads in the loop.
        in_memory: Read the training set once and keep what of it fits into ``memory``; what is learnt is the same.
        save_every: Steps between snapshots from which a killed run goes on.
        log_every: Steps between writes to the logs.
        memory: GiB that all processes together may keep so; None for half of what is free.

    Raises:
        InputError: If a number is out of range.
    """

    accelerator: str = "auto"
    devices: Devices = 1
    workers: Workers = 0
    in_memory: bool = False
    save_every: Count = 100
    log_every: Count = 10
    memory: Annotated[Positive | None, only_with(in_memory=[True])] = None

    def __post_init__(self) -> None:
        check_fields(self)

    def fabric(self, precision: str, *, unused: bool = False) -> Any:
        """A Lightning Fabric for this place.

        Args:
            precision: By Fabric's names, as ``bf16-mixed``.
            unused: Whether some parameters may have no part in the loss, which several processes must look for.

        Raises:
            MissingExtraError: If Fabric is not installed.
            InputError: If the accelerator is not there.
        """
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ModuleNotFoundError as error:
            raise missing_extra("lightning-fabric", "train") from error
        accelerator = "gpu" if self.accelerator == "cuda" else self.accelerator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Fabric's advice on hardware that the user did not ask for
            try:
                spawned = DDPStrategy(start_method="spawn", find_unused_parameters=unused)
                strategy = "auto" if self.devices == 1 else spawned
                kinds: dict[str, Any] = {"accelerator": accelerator, "strategy": strategy, "precision": precision}
                return Fabric(devices=self.devices, **kinds)
            except (RuntimeError, ValueError, TypeError) as error:
                raise InputError(f"{self.devices} × {self.accelerator!r} cannot be used: {error}") from error


class Sealed:
    """Something that goes from process to process as it is: Fabric looks into dataclasses, and writes into them."""

    def __init__(self, content: Any) -> None:
        self.content = content


def launched(fabric: Any, run: Callable[[Any, Any], Any], job: Any) -> Any:
    """``run(fabric, job)`` in every process of a Fabric; what the first one returns.

    Args:
        fabric: From `Engine.fabric`.
        run: A function of a module, so that other processes find it.
        job: Its second argument.

    Raises:
        InputError: If it is raised in another process.
    """
    if fabric.world_size == 1:
        return fabric.launch(run, job)
    try:
        with working_folder():  # where the class of the user's network may be, which the others look for
            return fabric.launch(_unsealed, run, Sealed(job)).content
    except ProcessRaisedException as error:
        kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
        if kind.endswith(InputError.__name__):
            raise InputError(text) from error
        raise


def _unsealed(fabric: Any, run: Callable[[Any, Any], Any], sealed: Sealed) -> Sealed:
    return Sealed(run(fabric, sealed.content))
