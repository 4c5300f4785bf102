"""A network held in evaluation mode with frozen parameters while it is looked at, and given back as it was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
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


@contextmanager
def all_frozen(*networks: Any) -> Iterator[None]:
    """A context in which several networks are `frozen`.

    Example:
        >>> one, other = nn.Dropout(), nn.Dropout()
        >>> with all_frozen(one, other):
        ...     print(one.training, other.training)
        False False
    """
    with ExitStack() as held:
        for network in networks:
            held.enter_context(frozen(network))
        yield


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


@contextmanager
def kept(network: Any) -> Iterator[list[str]]:
    """A context whose passes leave no trace in a network: what they changed of its state is put back, and named.

    State is what buffers hold and which modules are in training mode. Buffers that a pass makes or makes larger are
    caches, and stay. It goes inside of `frozen`, which itself puts training modes back.

    Args:
        network: An `nn.Module`; of any other callable nothing can be seen.

    Yields:
        Names of what was changed, which are complete after the context: "buffer 'norm.seen'".

    Example:
        >>> network = nn.BatchNorm2d(1)
        >>> with kept(network) as changed:
        ...     _ = network(torch.rand(2, 1, 4, 4))
        >>> changed, network.running_mean
        (["buffer 'running_mean'", "buffer 'running_var'", "buffer 'num_batches_tracked'"], tensor([0.]))
    """
    changed: list[str] = []
    if not isinstance(network, nn.Module):
        yield changed
        return
    before = [
        (module, f"{name}.{key}".lstrip("."), key, buffer, buffer.clone())
        for name, module in network.named_modules()
        for key, buffer in module.named_buffers(recurse=False)
    ]
    modes = [(module, name, module.training) for name, module in network.named_modules()]
    try:
        yield changed
    finally:
        for module, name, key, buffer, value in before:
            now = getattr(module, key, None)
            if now is None or now.shape != value.shape or torch.equal(now, value):
                continue
            changed.append(f"buffer {name!r}")
            with torch.no_grad():
                buffer.copy_(value)
            if not torch.equal(getattr(module, key), value):  # another tensor was put in its place
                setattr(module, key, buffer)
        for module, name, training in modes:
            if module.training is not training:
                changed.append(f"training mode of {name or 'the whole network'!r}")
                module.training = training


@contextmanager
def modes_kept() -> Iterator[None]:
    """A context after which gradients are recorded, and numbers have the default type, as before.

    Example:
        >>> with modes_kept():
        ...     _ = torch.set_grad_enabled(False)
        >>> torch.is_grad_enabled()
        True
    """
    recorded, usual = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        if torch.is_grad_enabled() is not recorded:
            torch.set_grad_enabled(recorded)
        if torch.get_default_dtype() is not usual:
            torch.set_default_dtype(usual)
