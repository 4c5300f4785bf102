"""Which weights of a checkpoint are meant, where it holds several sets, of a network and of its moving average say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segradius.core.errors import InputError, unknown_name

#: Names under which checkpoints keep the weights of the network, the likeliest first.
ENVELOPES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
#: What is beside them, tensors or not.
BESIDE = re.compile(
    r"optim|sched|scaler|callback|loop|hyper|hparam|rng|metric|meta|config|args|history|criterion|loss", re.I
)
#: How far in a set may lie.
DEPTH = 4
KEY = ",key="


@dataclass(frozen=True)
class Chosen:
    """A set of weights of a checkpoint.

    Args:
        weights: What was taken; a mapping of names and tensors, unless the file holds something else altogether.
        name: Where it is in the file, with dots; empty for all of it.
        others: Names of the other sets.
    """

    weights: Any
    name: str = ""
    others: tuple[str, ...] = ()

    def told(self, path: str | Path) -> str:
        """What to tell of the choice in a line; empty where there was none."""
        if not self.others:
            return ""
        names = " and ".join((self.name, *self.others))
        return (
            f"{str(path)!r} holds {len(self.others) + 1} sets of weights, {names}: {self.name} is taken; for another "
            + (f"give {path}{KEY}{self.others[0]}")
        )


def parted(weights: str | Path) -> tuple[Path, str | None]:
    """The file, and the set that is meant, of ``FILE`` or ``FILE,key=NAME``.

    Example:
        >>> parted("net.ckpt,key=ema_state_dict")
        (PosixPath('net.ckpt'), 'ema_state_dict')
    """
    file, found, key = str(weights).rpartition(KEY)
    return (Path(file), key) if found and not Path(weights).exists() else (Path(weights), None)


def choose(content: Any, path: str | Path, key: str | None = None) -> Chosen:
    """The set of weights that is meant, or the network's own where nothing is said.

    Args:
        content: Of the file.
        path: Of the file, for messages.
        key: Name of a set, or what stands before the names that are meant, without the dot after it.

    Raises:
        InputError: There are several and none is the network's by its name; or there is nothing of the name ``key``.

    Example:
        >>> import torch
        >>> own, mean = {"w": torch.zeros(1, 1)}, {"w": torch.ones(1, 1)}
        >>> choose({"epoch": 3, "ema": mean, "state_dict": own}, "net.ckpt").told("net.ckpt")
        "'net.ckpt' holds 2 sets of weights, state_dict and ema: state_dict is taken; for another give net.ckpt,key=ema"
    """
    if not isinstance(content, Mapping):
        return Chosen(content)
    found = _sets(content)
    if key is not None and (named := _named(found, key)):
        return Chosen(found[named], named)
    usual = _usual(found) if found else ""
    if key is not None:
        return Chosen(under(found[usual] if usual else content, key, path, found), key)
    if usual is None:
        raise InputError(
            f"{str(path)!r} holds {len(found)} sets of weights, {' and '.join(found)}: say which, as in "
            f"{path}{KEY}{next(iter(found))}"
        )
    if not usual:
        return Chosen(content)
    others = (name for name, each in found.items() if name != usual and _are_weights(each))
    return Chosen(found[usual], usual, tuple(others))


def under(weights: Any, key: str, path: str | Path, sets: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The weights whose names begin with ``key`` and a dot, without these; `InputError` where there are none.

    Args:
        weights: Names and tensors.
        key: As a user gives it.
        path: Of the file, for the message.
        sets: Sets of weights that the file has beside, by name.
    """
    names = weights if isinstance(weights, Mapping) else {}
    found = {name[len(key) + 1 :]: each for name, each in names.items() if str(name).startswith(f"{key}.")}
    if not found:
        first = dict.fromkeys(str(name).partition(".")[0] for name in names)
        raise unknown_name(f"set of weights in {str(path)!r}", key, (*(sets or ()), *first))
    return found


def _sets(content: Mapping[Any, Any], before: str = "", depth: int = DEPTH) -> dict[str, Mapping[str, Any]]:
    """Mappings that hold tensors by name, by where they are."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Mapping) or BESIDE.search(name):
            continue
        inner = _sets(value, f"{before}{name}.", depth - 1) if depth else {}
        own = all(isinstance(key, str) for key in value) and any(isinstance(each, Tensor) for each in value.values())
        found |= inner or ({f"{before}{name}": value} if own else {})
    return found


def _usual(found: Mapping[str, Any]) -> str | None:
    """The only set, or the one under the likeliest names; None where no name tells."""
    ranks = {
        name: [ENVELOPES.index(part) for part in name.split(".")]
        for name in found
        if all(part in ENVELOPES for part in name.split("."))
    }
    return min(ranks, key=lambda name: ranks[name]) if ranks else next(iter(found)) if len(found) == 1 else None


def _named(found: Mapping[str, Any], key: str) -> str:
    inside = [name for name in found if name.startswith(f"{key}.")]
    return key if key in found else inside[0] if len(inside) == 1 else ""


def _are_weights(named: Mapping[str, Any]) -> bool:
    return any(isinstance(each, Tensor) and each.ndim > 1 for each in named.values())
