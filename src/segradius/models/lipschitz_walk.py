"""How far distances grow on the way through a network: its graph, node by node, each with a bound or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from segradius.core.border import in_a_line
from segradius.core.errors import InputError
from segradius.models.lipschitz_functions import ADDING, FUNCTIONS, KEEPING, LARGER, MAKING, SCALING, option, scaled
from segradius.models.lipschitz_graph import Tracer
from segradius.models.lipschitz_rules import Step, rule_of
from segradius.models.networks.lipschitz_unet import Aside


@dataclass(frozen=True)
class Layer:
    """One step of a network and what it does to l2 distances.

    Attributes:
        name: Its name in the network, with dots; of a function its name and a number.
        kind: Its type.
        bound: On the factor by which it lets distances grow.
        how: Where that is from.
        lower: A factor that it reaches; 0 where none was looked for.
        total: Bound on the factor from the image to here.
    """

    name: str
    kind: str
    bound: float
    how: str
    lower: float
    total: float


@dataclass(frozen=True)
class Passed:
    """What came out of a network, and how far distances may have grown.

    Attributes:
        output: What it returned.
        bounds: The bound of each tensor in it, by its id.
        layers: In their order.
    """

    output: Any
    bounds: Mapping[int, float]
    layers: tuple[Layer, ...]


@torch.no_grad()
def walked(network: nn.Module, x: Tensor, start: float = 1.0, prefix: str = "") -> Passed:
    """A network's pass over an image, with a bound on the growth of l2 distances at each node.

    Branches that are added have the sum of their bounds, those that are joined the root of the sum of squares.

    Args:
        network: In evaluation mode.
        x: An image (1, B, H, W) as the network takes it; only sizes matter.
        start: Bound on the growth before it.
        prefix: Of names.

    Raises:
        InputError: The network cannot be traced, or a node has no bound; the message names it.
    """
    if network._forward_hooks or network._forward_pre_hooks:
        raise InputError(f"{type(network).__name__} has hooks, which may do anything: remove them")
    tracer = Tracer(x)
    network = nn.Sequential(network) if tracer.is_leaf_module(network, "") else network
    try:
        graph = tracer.trace(network)
    except Exception as error:  # whatever a network does with what is no tensor
        raise InputError(
            f"the graph of {type(network).__name__} cannot be traced ({in_a_line(error)}): its forward pass must be "
            "the same for all images, and its layers must be modules or functions of torch"
        ) from error
    walk = _Walk(fx.GraphModule(network, graph), start, prefix)
    output = walk.run(x)
    bounds = {id(value): walk.bounds[node] for node, value in walk.values.items() if node in walk.bounds}
    found = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
    return Passed(output, {id(value): bounds[id(value)] for value in found if id(value) in bounds}, tuple(walk.layers))


class _Walk(fx.Interpreter):
    """Runs a graph and notes the bound of each node: 0 of what does not depend on the image."""

    def __init__(self, graph: fx.GraphModule, start: float, prefix: str) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.extra_traceback = False  # errors are for who asks, not for who debugs the graph
        self.start, self.prefix = start, prefix
        self.layers: list[Layer] = []
        self.bounds: dict[fx.Node, float] = {}
        self.values: dict[fx.Node, Any] = {}
        self.left: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = {node: _version(value) for node, value in self.values.items() if self.left[node] > 0}
        result = super().run_node(n)
        self.values[n], self.left[n] = result, len(n.users)
        for node in n.all_input_nodes:
            self.left[node] -= 1
        changed = [
            node.name for node, was in before.items() if self.left[node] > 0 and _version(self.values[node]) != was
        ]
        name = self.prefix + (str(n.target) if n.op == "call_module" else n.name)
        if changed:
            raise InputError(f"{name} changes {changed[0]} in place, which is used again")
        if n.op == "placeholder":
            self.bounds[n] = self.start if isinstance(result, Tensor) else 0.0
        elif n.op == "output":
            pass
        elif n.op == "get_attr" or not any(self.bounds[node] for node in n.all_input_nodes):
            self.bounds[n] = 0.0
        else:
            self.bounds[n] = self._noted(n, name, result)
        return result

    def _noted(self, n: fx.Node, name: str, result: Any) -> float:
        if n.op == "call_module":
            module = self.fetch_attr(str(n.target))
            (source,) = n.all_input_nodes if len(n.all_input_nodes) == 1 else (None,)
            if source is None or not isinstance(result, Tensor):
                raise InputError(
                    f"{name} ({type(module).__name__}) has several inputs or outputs, and no bound is known"
                )
            return self._through(module, name, source, result)
        kind = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", str(n.target))
        if kind in MAKING and len(_occurring(n)) == 1:
            return 0.0
        if not _has_tensor(result):
            if kind in ("item", "tolist", "numpy"):
                raise InputError(f"{name} makes a number of the image's values, after which no bound is known")
            return 0.0
        total, step = self._function(n, kind, name, result)
        if step is not None:
            self.layers.append(Layer(name, kind, step.bound, step.how, step.lower, total))
        return total

    def _through(self, module: nn.Module, name: str, source: fx.Node, result: Tensor) -> float:
        before, x = self.bounds[source], self.values[source]
        kind = type(module).__name__
        if module._forward_hooks or module._forward_pre_hooks:
            raise InputError(f"{name} ({kind}) has hooks, which may do anything: remove them")
        if isinstance(module, Aside):
            inner = walked(module.inner, x[:, module.keep :], before, f"{name}.inner.")
            self.layers += inner.layers
            return max(before, inner.bounds[id(inner.output)])
        rule = rule_of(module)
        if rule is None:
            raise InputError(f"{name} is a {kind}, of which no bound is known")
        try:
            step = rule(module, x, result)
        except InputError as error:
            raise InputError(f"{name} ({kind}): {error}") from error
        self.layers.append(Layer(name, kind, step.bound, step.how, step.lower, step.bound * before))
        return step.bound * before

    def _function(self, n: fx.Node, kind: str, name: str, result: Any) -> tuple[float, Step | None]:
        """The bound after a function or method, and what it does where that is worth a line."""
        sources = [self.bounds[node] for node in _occurring(n)]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        kind = str(args[1]) if kind == "getattr" else kind
        base = kind.rstrip("_").removeprefix("__").removesuffix("__")
        if base in KEEPING and not (_several(sources) and base not in ("view_as", "reshape_as")):
            if base.startswith("dropout") and option(args, kwargs, 2, "training", True):
                raise InputError(f"{name} drops values in evaluation mode too")
            if base == "getitem" and _repeats(args[1]):
                raise InputError(f"{name} takes values by a list of places, which may repeat: no bound is known")
            return max(sources), None
        if (base in ADDING or base in LARGER or base in SCALING) and (kwargs or not isinstance(result, Tensor)):
            raise InputError(f"{name} is a {kind} of {', '.join(kwargs) or 'no tensors'}: no bound is known")
        if base in ADDING:
            return sum(self._grown(n, result)), Step(1.0, "sum of branches") if _several(sources) else None
        if base in ("cat", "concat", "stack"):
            return math.hypot(*sources), Step(1.0, "branches side by side") if _several(sources) else None
        if base in LARGER:
            return math.hypot(*self._grown(n, result)), Step(1.0, "larger or smaller of two")
        if base in SCALING and not _several(sources):
            step = scaled(base, args, [i for i, given in enumerate(n.args) if self._depends(given)], result)
        elif base in FUNCTIONS and not _several(sources):
            step = FUNCTIONS[base](args, kwargs, result)
        else:
            told = (
                "of two branches that both depend on the image" if _several(sources) else "of which no bound is known"
            )
            raise InputError(f"{name} is a {kind}, {told}")
        return step.bound * max(sources), step

    def _depends(self, given: Any) -> bool:
        return isinstance(given, fx.Node) and self.bounds[given] > 0

    def _grown(self, n: fx.Node, result: Tensor) -> Iterator[float]:
        """Bounds of what is added, each as often as it is repeated to get to the size of the sum."""
        for given in n.args:
            if isinstance(given, fx.Node) and isinstance(value := self.values[given], Tensor):
                yield self.bounds[given] * math.sqrt(result.numel() / max(1, value.numel()))


def _occurring(n: fx.Node) -> list[fx.Node]:
    """What a node is given, as often as it is given it."""
    found: list[fx.Node] = []
    fx.node.map_arg((n.args, n.kwargs), found.append)
    return found


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) else 0


def _several(bounds: list[float]) -> bool:
    return sum(bound > 0 for bound in bounds) > 1


def _has_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value))


def _repeats(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return not all(part is None or part is Ellipsis or isinstance(part, int | slice | str) for part in parts)
