"""An exponential moving average of a network's weights, and its use for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segradius.core.declared import Decay, check_fields
from segradius.core.errors import InputError

State = dict[str, Tensor]


@dataclass(frozen=True)
class WeightAverage:
    """The moving average w̄ ← d·w̄ + (1 − d)·w of everything floating in a network's ``state_dict``.

    The average is a dict with the names of the ``state_dict``, and so a checkpoint of its own. Whole numbers, such as
    the batches that a batch norm has seen, are copied. Half-precision weights are averaged in float32, in which an
    update by 1/1000 is not rounded away.

    Args:
        decay: d in [0, 1). It averages over about the last 1/(1 − d) steps.
        warmup: Use min(d, (1 + t)/(10 + t)) in step t, so that the random start is soon forgotten.

    Raises:
        InputError: If ``decay`` is outside its range.

    Example:
        >>> network, average = torch.nn.Linear(1, 1, bias=False), WeightAverage(decay=0.5, warmup=False)
        >>> state = average.init(network)
        >>> _ = network.weight.data.add_(1.0)
        >>> average.update(state, network, step=0)
        >>> network.weight.data - state["weight"]
        tensor([[0.5000]])
    """

    decay: Decay = 0.999
    warmup: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def decay_at(self, step: int) -> float:
        """The decay d in step ``step``, from 0.

        Example:
            >>> [WeightAverage().decay_at(step) for step in (0, 8, 10**6)]
            [0.1, 0.5, 0.999]
        """
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    def init(self, module: nn.Module) -> State:
        """An average that starts at the weights of ``module``, on their device; shares no memory with them."""
        return {name: value.to(_wide(value), copy=True) for name, value in _tensors(module).items()}

    @torch.no_grad()
    def update(self, state: State, module: nn.Module, step: int) -> None:
        """Move the average towards the weights after step ``step`` (from 0), in place.

        Raises:
            InputError: If the average is of another network.
        """
        weights = _tensors(module)
        _check_names(state, weights)
        floating = [name for name, value in state.items() if value.is_floating_point()]
        for name in state.keys() - set(floating):
            state[name].copy_(weights[name])
        if floating:
            averaged = [state[name] for name in floating]
            current = [weights[name].to(average) for name, average in zip(floating, averaged, strict=True)]
            torch._foreach_lerp_(averaged, current, 1 - self.decay_at(step))

    @staticmethod
    @contextmanager
    def applied(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
        """A context in which the network has the averaged weights; after it, and after an error, the trained ones.

        Tensors are copied in place: optimisers and compiled graphs keep theirs. What else changes weights or buffers
        within is lost.

        Args:
            module: The network in training.
            state: The average.

        Raises:
            InputError: If the average is of another network.
        """
        weights = _tensors(module)
        _check_names(state, weights)
        trained = {name: value.clone() for name, value in weights.items()}
        try:
            _copy(state, weights)
            yield
        finally:
            _copy(trained, weights)


def _tensors(module: nn.Module) -> State:
    """The tensors of the ``state_dict``, which share memory with the network; other entries are left out."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])


def _check_names(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name in state.keys() ^ weights.keys():
        where = "average, not in the network" if name in state else "network, not in the average"
        raise InputError(f"weight {name!r} is in the {where}; expected an average that init() made of this network")
    for name, value in weights.items():
        if state[name].shape != value.shape:
            raise InputError(
                f"weight {name!r} is {tuple(value.shape)} in the network and {tuple(state[name].shape)} in the average"
            )
