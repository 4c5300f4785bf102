"""The graph of a network at one image: its code may look at sizes, as they are known, and at no values."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from segradius.models.lipschitz_rules import rule_of
from segradius.models.networks.lipschitz_unet import Aside

#: Of a module, which tracing replaces.
UNTRACED = nn.Module.__call__, nn.Module.__getattr__


class Seen(fx.Proxy):
    """A node that knows its value for the image at hand, so that code may look at sizes, and at nothing else."""

    value: Any

    def size(self, at: int | None = None) -> Any:
        """Of a tensor."""
        return self.value.shape if at is None else self.value.shape[at]

    def dim(self) -> int:
        """Of a tensor."""
        return len(self.value.shape)

    def __getattr__(self, name: str) -> Any:
        if name == "value":  # which it has not yet
            raise AttributeError(name)
        found = getattr(self.value, name)
        if isinstance(found, Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name) if callable(found) else found

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(cast(Any, self), at) for at in range(len(self.value))])


class Tracer(fx.Tracer):
    """Goes into modules that have no rule and are not torch's own, with a value for each node."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A node in the code that is traced."""
        return Seen(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        """The node of a step, with its value."""
        made: Any = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        values, options = (tree_map(lambda v: v.value if isinstance(v, Seen) else v, each) for each in (args, kwargs))
        with _untraced():
            made.value = self._value(kind, target, values, options)
        return made

    def _value(self, kind: str, target: Any, values: Any, options: Any) -> Any:
        if kind == "placeholder":
            return self.x
        if kind == "get_attr":
            return operator.attrgetter(target)(self.root)
        if kind == "call_method":
            return getattr(values[0], target)(*values[1:], **options)
        return (self.root.get_submodule(target) if kind == "call_module" else target)(*values, **options)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether it is asked as a whole."""
        if rule_of(m) is not None or isinstance(m, Aside):
            return True
        return super().is_leaf_module(m, module_qualified_name) and type(m).__module__.startswith("torch.nn")


@contextmanager
def _untraced() -> Iterator[None]:
    """A context in which modules are called, and have what they have, as when nothing is traced."""
    traced = nn.Module.__call__, nn.Module.__getattr__
    nn.Module.__call__, nn.Module.__getattr__ = UNTRACED  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__, nn.Module.__getattr__ = traced  # type: ignore[method-assign]
