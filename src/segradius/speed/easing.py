"""A copy of a network whose backward passes are cheaper, layer by layer and without another result: for CPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from segradius.models.preprocessing import SizeRule
from segradius.speed.layers import Pointwise, Stem
from segradius.speed.resizing import Resizing


def ease(network: nn.Module, call: Callable[[], object]) -> int:
    """Put cheaper layers in the place of convolutions, and the code of modules that resize under `Resizing`.

    Args:
        network: A copy of one's own, frozen: it is changed.
        call: A pass through it, which shows what resizes.

    Returns:
        How many modules were changed.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.Conv2d(4, 2, 1), nn.UpsamplingBilinear2d(scale_factor=2))
        >>> ease(network, lambda: network(torch.rand(1, 3, 8, 8)))
        3
    """
    changed = resizing = _resizing(network, call)
    for module in resizing:
        module.forward = partial(_under, module.forward)
    for module in network.modules():
        kind = next((kind for kind in (Pointwise, Stem) if type(module) is nn.Conv2d and kind.fits(module)), None)
        if kind is not None:
            module.__class__ = kind
            changed = [*changed, module]
    return len(changed)


@dataclass(frozen=True, eq=False)
class EasedSize(SizeRule):
    """A rule of sizes, equal to one with the same numbers, whose resizing has a cheaper backward pass."""

    @staticmethod
    def of(rule: SizeRule) -> SizeRule:
        """The rule, eased."""
        return EasedSize(**{item.name: getattr(rule, item.name) for item in fields(rule)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SizeRule) and vars(self) == vars(other)

    __hash__ = SizeRule.__hash__

    def fit(self, x: Tensor) -> Tensor:
        """As of `SizeRule`."""
        with Resizing():
            return super().fit(x)

    def undo(self, logits: Tensor, height: int, width: int) -> Tensor:
        """As of `SizeRule`."""
        with Resizing():
            return super().undo(logits, height, width)


def _under(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with Resizing():
        return forward(*args, **kwargs)


def _resizing(network: nn.Module, call: Callable[[], object]) -> list[Any]:
    """The innermost modules whose own code resizes, so that what is far from it pays nothing for the mode."""
    within: list[nn.Module] = []
    found: dict[nn.Module, None] = {}

    class Watching(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if func is functional.interpolate and within:
                found[within[-1]] = None
            return func(*args, **(kwargs or {}))

    def leave(module: nn.Module, given: Any, made: Any) -> None:
        within.pop()

    hooks = [
        hook
        for module in network.modules()
        for hook in (
            module.register_forward_pre_hook(lambda module, given: within.append(module), prepend=True),
            module.register_forward_hook(leave, always_call=True),
        )
    ]
    try:
        with Watching():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return list(found)
