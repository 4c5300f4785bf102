"""Whether the parameters of a network are numbers that it can have learnt: checked once, at the border."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError

#: Libraries whose hooks belong to the networks that they make: weight norm, pruning, parallel and offloaded ones.
HOOKED = ("torch", "accelerate", "transformers", "timm", "peft", "segradius")
#: Tables of hooks that run in a pass, of an `nn.Module`.
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def check_parameters(network: Any, name: str) -> None:
    """Refuse a network whose parameters hold no numbers, or none that were learnt.

    Args:
        network: An `nn.Module`, or a method of one; of another function nothing can be seen.
        name: The model's name, for the message.

    Raises:
        InputError: If a parameter or buffer has no values (it is on the meta device, or of a lazy module that has not
            run), is NaN, or is not floating; if parameters are on several devices, or all weights are zero. The message
            names the parameter.

    Example:
        >>> check_parameters(nn.Conv2d(3, 2, 1, device="meta"), "net")
        Traceback (most recent call last):
        segradius.core.errors.InputError: model 'net': parameter 'weight' is on the meta device and has no values; ...
    """
    found = _module(network)
    if found is None:
        return
    for what, key, tensor in _tensors(found):
        if (fault := _fault(what, tensor)) is not None:
            raise InputError(f"model {name!r}: {what} {key!r} {fault}")
    places = {parameter.device: key for key, parameter in found.named_parameters()}
    if len(places) > 1:
        told = ", ".join(f"{key!r} is on {device}" for device, key in places.items())
        raise InputError(f"model {name!r} has parameters on several devices ({told}); expected one: network.to(DEVICE)")
    weights = [(key, parameter) for key, parameter in found.named_parameters() if parameter.ndim > 1]
    if weights and not any(bool(weight.any()) for _, weight in weights):
        first = weights[0][0]
        zero = (
            f"all {len(weights)} weights are zero, {first!r} the first" if weights[1:] else f"weight {first!r} is zero"
        )
        raise InputError(f"model {name!r}: {zero}; load {'them' if weights[1:] else 'it'} before")


def never_trained(network: Any) -> bool:
    """Whether the network has batch norms and none of them has seen an image: their statistics are as initialised.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        >>> never_trained(network), never_trained(network[0])
        (True, False)
    """
    found = _module(network)
    state = {} if found is None else dict(found.named_buffers())
    means = [tensor for key, tensor in state.items() if key.endswith("running_mean")]
    variances = [tensor for key, tensor in state.items() if key.endswith("running_var")]
    return bool(means) and not any(map(_any, means)) and all(bool((tensor == 1).all()) for tensor in variances)


def mixing(network: Any) -> list[str]:
    """Batch norms that use the statistics of the batch in evaluation mode too, so that its images mix, by name.

    Example:
        >>> mixing(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)))
        ['1']
    """
    found = _module(network)
    norms = [] if found is None else list(found.named_modules())
    kind = nn.modules.batchnorm._BatchNorm
    return [name or "itself" for name, module in norms if isinstance(module, kind) and module.running_mean is None]


def hooks_of(network: Any) -> list[str]:
    """Hooks that run in every pass and are not of a library that makes networks, each as ``function on 'module'``.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 2, 1))
        >>> _ = network[0].register_forward_hook(print)
        >>> hooks_of(network)
        ["print on '0'"]
    """
    found = _module(network)
    modules = [] if found is None else list(found.named_modules())
    hooks = [(key, hook) for key, module in modules for table in HOOKS for hook in getattr(module, table).values()]
    own = [(key, hook) for key, hook in hooks if _home(hook).partition(".")[0] not in HOOKED]
    return [f"{_name(hook)} on {key or 'the whole network'!r}" for key, hook in own]


def _module(network: Any) -> nn.Module | None:
    while isinstance(network, functools.partial):
        network = network.func
    found = network if isinstance(network, nn.Module) else getattr(network, "__self__", None)
    return found if isinstance(found, nn.Module) else None


def _tensors(network: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    yield from (("parameter", key, parameter) for key, parameter in network.named_parameters())
    yield from (("buffer", key, buffer) for key, buffer in network.named_buffers())


def _fault(what: str, tensor: Tensor) -> str | None:
    if nn.parameter.is_lazy(tensor):
        return "has no shape yet: run the network once on images, or load its weights"
    if tensor.is_meta or type(tensor).__name__ == "FakeTensor":
        return (
            "is on the meta device and has no values; load its weights (load_state_dict(…, assign=True)), or build it "
            "without init_empty_weights or offloading"
        )
    floating = tensor.is_floating_point() or tensor.is_complex()
    if what == "parameter" and not floating:
        return f"is {tensor.dtype}, as of a quantised network; expected floating numbers: load it in float32"
    if floating and not bool((tensor.isfinite() if what == "parameter" else ~tensor.isnan()).all()):
        return "holds NaN or infinite values; these weights cannot be used"
    return None


def _any(tensor: Tensor) -> bool:
    return bool(torch.any(tensor))


def _name(hook: Any) -> str:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return getattr(hook, "__name__", type(hook).__name__)


def _home(hook: Any) -> str:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return getattr(hook, "__module__", None) or type(hook).__module__
