"""A network held in evaluation mode with frozen parameters while it is looked at, and given back as it was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class _Hold:
    modules: list[tuple[nn.Module, bool]]
    parameters: list[tuple[nn.Parameter, bool]]
    depth: int = 0


_HOLDS: WeakKeyDictionary[nn.Module, _Hold] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def frozen(network: Any) -> Iterator[None]:
    """A context in which ``network`` is in evaluation mode and none of its parameters requires a gradient.

    On the way out, also after an exception, every submodule's training flag and every parameter's ``requires_grad`` are
    what they were; ``.grad`` and buffers are never touched. The context nests; an inner one costs next to nothing.
    A network that recomputes activations in the backward pass needs the context around that pass too.

    Args:
        network: An `nn.Module`. For any other callable the context does nothing: it has no state to hold.

    Example:
        >>> network = nn.Dropout()
        >>> with frozen(network):
        ...     print(network.training)
        False
        >>> network.training
        True
    """
    if not isinstance(network, nn.Module):
        yield
        return
    _enter(network)
    try:
        yield
    finally:
        _leave(network)


def _enter(network: nn.Module) -> None:
    with _LOCK:
        hold = _HOLDS.get(network)
        if hold is None:
            hold = _HOLDS[network] = _Hold(
                [(module, module.training) for module in network.modules()],
                [(parameter, parameter.requires_grad) for parameter in network.parameters()],
            )
            _set(hold, held=True)
        hold.depth += 1


def _leave(network: nn.Module) -> None:
    with _LOCK:
        hold = _HOLDS[network]
        hold.depth -= 1
        if hold.depth == 0:
            del _HOLDS[network]
            _set(hold, held=False)


def _set(hold: _Hold, *, held: bool) -> None:
    # Flag by flag, as some libraries override train() and eval() to skip parts or to fuse weights.
    for module, training in hold.modules:
        module.training = False if held else training
    for parameter, requires_grad in hold.parameters:
        parameter.requires_grad_(False if held else requires_grad)
