"""What a layer of a network gives in a pass, and which layer is looked at where none is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError, unknown_name


def can_be_watched(network: Any) -> bool:
    """Whether a network has layers whose maps can be seen: it is a module in Python."""
    return isinstance(network, nn.Module) and not isinstance(network, torch.jit.ScriptModule)


def middle_layers(network: nn.Module) -> tuple[str, ...]:
    """The layer in the middle of a network by its convolutions, or one for each network that it is the mean of.

    It is the middle one of its two-dimensional convolutions, in the order in which the network has them, or rather the
    smallest block around that which holds another one too, if that is not more than half of them all: of a PSPNet on
    ResNet-50 the second block of stage 3.

    Args:
        network: An `nn.Module`.

    Raises:
        InputError: It has no convolution.

    Example:
        >>> from segradius.models.networks.pspnet import PSPNet
        >>> middle_layers(PSPNet(21)), middle_layers(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)))
        (('layer3.1',), ('0',))
    """
    several = getattr(network, "networks", None)
    if isinstance(several, nn.ModuleList) and len(several) > 1:
        return tuple(f"networks.{i}.{name}" for i, one in enumerate(several) for name in middle_layers(one))
    found = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise InputError(f"a {type(network).__name__} has no convolution, among which the middle is: name a layer")
    middle = found[(len(found) - 1) // 2]
    parts = middle.split(".")
    for end in range(len(parts) - 1, 0, -1):
        around = ".".join(parts[:end])
        module = network.get_submodule(around)
        if not isinstance(module, nn.ModuleList | nn.ModuleDict) and 1 < _convolutions(module) <= len(found) / 2:
            return (around,)
    return (middle,)


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())


@contextmanager
def watched(network: nn.Module, layers: Sequence[str]) -> Iterator[list[Tensor]]:
    """A context in which the maps that layers give are taken down, with their graph.

    Args:
        network: An `nn.Module`.
        layers: Names of submodules, as `nn.Module.named_modules` tells them.

    Yields:
        A list, which after a pass in the context holds a map (N, C, h, w) of each layer.

    Raises:
        InputError: There is no such layer; or, at the end of the context, one that was not run once, or gave no map.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        >>> with watched(network, ["0"]) as maps:
        ...     answer = network(torch.rand(2, 3, 5, 6))
        >>> torch.equal(answer, maps[0].relu())
        True
    """
    known = dict(network.named_modules(remove_duplicate=False))
    seen: dict[str, list[Any]] = {}
    with ExitStack() as held:
        for name in layers:
            if name not in known or not name:
                raise unknown_name("layer", name, [each for each in known if each])
            seen[name] = []
            handle = known[name].register_forward_hook(partial(_take, seen[name]))
            held.callback(handle.remove)
        maps = list[Tensor]()
        yield maps
    for name, given in seen.items():
        if len(given) != 1:
            raise InputError(
                f"layer {name!r} is run {len(given)} times in a pass; expected a layer that sees every image once"
            )
        if not (isinstance(given[0], Tensor) and given[0].ndim == 4 and given[0].is_floating_point()):
            told = f"{tuple(given[0].shape)}" if isinstance(given[0], Tensor) else f"a {type(given[0]).__name__}"
            raise InputError(f"layer {name!r} gives {told}; expected a map (N, C, h, w)")
        maps.append(given[0])


def _take(kept: list[Any], module: nn.Module, given: Any, found: Any) -> None:
    # What follows may change it in place, as ReLUs do.
    kept.append(found.clone() if isinstance(found, Tensor) else found)
