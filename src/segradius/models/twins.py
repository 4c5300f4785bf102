"""Cheaper forms of a network, which loops look through, and a way to see that they are still forms of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError

#: What a tensor of a network is told by.
Mark: TypeAlias = tuple[str, int, float, str]
#: What of a `Segmenter` decides its logits beside its network.
SETTINGS = ("normalisation", "size", "decode", "num_classes", "structures", "bands")


@dataclass(frozen=True, eq=False)
class Twins:
    """The same network twice more, made cheaper.

    Args:
        answers: Differs from the network by rounding alone, so that what it answers may be counted.
        guidance: Shows loops where to go and answers nothing that is reported; it may compute in reduced precision.
        network: What both were made of.
        marks: `marks` of it at that time.
    """

    answers: Any
    guidance: Any
    network: Any
    marks: tuple[Mark, ...]

    def within(self, change: Callable[[Any], Any]) -> Twins:
        """Those of a model that is made of this one, as a smoothed one is."""
        return replace(self, answers=change(self.answers), guidance=change(self.guidance))

    def check(self, model: Any) -> None:
        """Raise `InputError`, naming what, where a setting or a tensor of the model is another one than theirs."""
        now = {name: found for name, *found in marks(self.network)}
        changed = [name for name, *before in self.marks if before != now.get(name)]
        changed += [name for name in SETTINGS if getattr(model, name, None) != getattr(self.answers, name, None)]
        if changed:
            raise InputError(
                f"{changed[0]} of model {self.answers.name!r} changed since its cheaper forms were made: make them "
                "anew (sped_up(model, images)), or go on without (dataclasses.replace(model, twins=None))"
            )


def marks(network: Any) -> tuple[Mark, ...]:
    """Name, count of in-place changes, l2 length and device of each floating tensor of its state; none of a function.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     before, _, after = marks(layer), layer.weight.mul_(2), marks(layer)
        >>> before == after
        False
    """
    if not isinstance(network, nn.Module):
        return ()
    state = network.state_dict(keep_vars=True)
    held = [(name, t) for name, t in state.items() if isinstance(t, Tensor) and t.is_floating_point()]
    lengths = _lengths([tensor.detach() for _, tensor in held])
    return tuple((name, t._version, length, str(t.device)) for (name, t), length in zip(held, lengths, strict=True))


def _lengths(tensors: list[Tensor]) -> list[float]:
    """Read at once, as an accelerator must be waited for."""
    if not tensors:
        return []
    first = tensors[0].device
    lengths = torch.stack([torch.linalg.vector_norm(t.float()).to(first) for t in tensors])
    found: list[float] = lengths.nan_to_num_().tolist()  # NaN differs from itself
    return found
