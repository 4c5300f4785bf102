"""Batch norms that do no more than scale a convolution's output, found by one pass, and folded into a copy's weights.

A frozen norm is y ↦ γ(y − μ)/√(v + ϵ) + β, and a convolution followed by it is one with other weights and bias.
Who reads what is not guessed from the order of modules but seen: one pass is followed operation by operation.
"""

from __future__ import annotations

import copy
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode

from segradius.models.holding import frozen, kept

_NORMS = ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm")
_PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Pair:
    """A convolution and the batch norm that alone reads what comes out of it, by their names in the network."""

    conv: str
    norm: str


def find_pairs(network: Any, call: Callable[[], Any]) -> tuple[Pair, ...]:
    """Convolutions and the frozen batch norms that can be folded into them, in the order of `named_modules`.

    In every call within the pass, what the convolution gave was read by that norm and by nothing else, and the norm
    read nothing else. Left out are norms that use the batch's own statistics or do more than their class says, weights
    that are computed, shared or of another type than the norm's, and modules with hooks.

    Args:
        network: An `nn.Module`; in anything else nothing can be seen.
        call: One pass through it. It is run once, frozen, in evaluation mode, without gradient; the network is left as
            found.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
        >>> find_pairs(network, lambda: network(torch.rand(1, 3, 8, 8)))
        (Pair(conv='0', norm='1'),)
    """
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        return ()
    trace = _Trace(network)
    if not trace.convs or not trace.norms:
        return ()
    with frozen(network), kept(network), torch.no_grad():
        with trace:
            result = call()
        readers = trace.readers(of=result)
    names = {module: name for name, module in network.named_modules()}
    return tuple(
        Pair(names[conv], names[norm])
        for conv, reading in readers.items()
        for norm in reading
        if norm is not None and len(reading) == 1 and trace.sources[norm] == {conv} and _foldable(conv, norm)
    )


def fold(
    network: nn.Module, pairs: Iterable[Pair], *, channels_last: bool = False, dtype: torch.dtype | None = None
) -> nn.Module | str:
    """A frozen copy in evaluation mode with norms folded into convolutions; other weights share the network's memory.

    Args:
        network: It is not touched.
        pairs: From `find_pairs`; none for a copy alone.
        channels_last: Lay the weights of 2-D convolutions out so. Their inputs are the caller's.
        dtype: Turn weights and biases of convolutions and linear layers to this type, for passes under autocast, which
            would else do so anew in each; the rest stays.

    Returns:
        The copy, or in words why there is none.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        >>> copied, images = fold(network, (Pair("0", "1"),)), torch.rand(1, 3, 8, 8)
        >>> copied
        Sequential(
          (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
        )
        >>> torch.allclose(copied(images), network(images), atol=1e-6)
        True
    """
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        return f"a {type(network).__name__} cannot be rewritten"
    try:
        copied = _copied(network, pairs)
    except Exception as error:  # whatever the code of the user's modules raises
        return f"it cannot be copied: {type(error).__name__}: {error}"
    for module in copied.modules():
        module.training = False
    _lay_out(copied, channels_last, dtype)
    return copied


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which norm reads the output of which convolution, and what else does, without keeping any tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        modules = [module for module in network.modules() if not isinstance(module, torch.jit.ScriptModule)]
        self.convs = _owners(modules, _ConvNd, "weight")
        self.norms = _owners(modules, _BatchNorm, "running_mean")
        #: Norms that read a convolution's output; None stands for any other reader.
        self.seen: defaultdict[nn.Module, set[nn.Module | None]] = defaultdict(set)
        #: Convolutions whose output a norm read; None stands for any other tensor.
        self.sources: defaultdict[nn.Module, set[nn.Module | None]] = defaultdict(set)
        self._made: dict[int, tuple[weakref.ref[Tensor], nn.Module]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and note what it read."""
        kwargs = kwargs or {}
        norm = self._norm(func, args)
        conv = self._conv(func, args)
        for tensor in _tensors((*args, *kwargs.values())):
            maker = self._maker(tensor)
            if norm is not None and tensor is args[0]:
                self.sources[norm].add(maker)
                if maker is not None:
                    self.seen[maker].add(norm)
            elif maker is not None:
                self.seen[maker].add(None)
            owner = self.convs.get(id(tensor))
            if owner is not None and owner is not conv:  # a weight that something else reads too
                self.seen[owner].add(None)
        output = func(*args, **kwargs)
        if conv is not None:
            self._made[id(output)] = weakref.ref(output), conv
        return output

    def readers(self, of: Any) -> dict[nn.Module, set[nn.Module | None]]:
        """Who read the output of each convolution, where what is still there of them has an unknown reader."""
        for made, conv in self._made.values():
            if made() is not None:  # held by the result or by a module
                self.seen[conv].add(None)
        del of
        return dict(self.seen)

    def _maker(self, tensor: Tensor) -> nn.Module | None:
        made, conv = self._made.get(id(tensor), (None, None))
        return conv if made is not None and made() is tensor else None

    def _conv(self, func: Any, args: Sequence[Any]) -> nn.Module | None:
        if func is not torch.ops.aten.convolution.default:
            return None
        conv = self.convs.get(id(args[1]))
        return conv if conv is not None and conv.bias is args[2] else None

    def _norm(self, func: Any, args: Sequence[Any]) -> nn.Module | None:
        if func.name() not in _NORMS or args[5] is not False:
            return None
        norm = self.norms.get(id(args[3]))
        mine = norm is not None and norm.weight is args[1] and norm.bias is args[2] and norm.running_var is args[4]
        return norm if mine else None


def _owners(modules: Iterable[nn.Module], kind: type[nn.Module], key: str) -> dict[int, Any]:
    """Modules of a kind by the id of a tensor of theirs, without those whose tensors another module has too."""
    tensors = [(tensor, module) for module in modules for tensor in (*_parameters(module), *module.buffers(False))]
    count: defaultdict[int, int] = defaultdict(int)
    for tensor, _ in tensors:
        count[id(tensor)] += 1
    shared = {module for tensor, module in tensors if count[id(tensor)] > 1}
    return {
        id(tensor): module
        for tensor, module in tensors
        if isinstance(module, kind) and module not in shared and tensor is getattr(module, key)
    }


def _parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    return module.parameters(recurse=False)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _foldable(conv: Any, norm: Any) -> bool:
    plain = type(norm).forward in _PLAIN or _with_activation(norm)
    own = "forward" not in vars(norm) and not any(getattr(module, hooks) for module in (conv, norm) for hooks in _HOOKS)
    return plain and own and conv.weight.dtype == norm.running_mean.dtype and (conv.groups == 1 or not conv.transposed)


def _with_activation(norm: nn.Module) -> bool:
    # timm's norm that drops and activates as well, by name as timm need not be there.
    return type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.startswith("timm.")


def _copied(network: nn.Module, pairs: Iterable[Pair]) -> nn.Module:
    # By the memo of deepcopy, as a module may be referred to by other names than those it is registered under.
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        if type(parameter) is nn.Parameter:  # of its own, as flags are set on it, and on the network's memory
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for pair in pairs:
        conv, norm = network.get_submodule(pair.conv), network.get_submodule(pair.norm)
        _fold(copy.deepcopy(conv, memo), norm)
        rest: Any = (norm.drop, norm.act) if _with_activation(norm) else ()
        memo[id(norm)] = nn.Sequential(*copy.deepcopy(rest, memo)) if rest else nn.Identity()
    copied = copy.deepcopy(network, memo)
    return copied.requires_grad_(False)


def _fold(conv: Any, norm: Any) -> None:
    def double(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().double()

    weight, bias = fuse_conv_bn_weights(
        double(conv.weight),
        double(conv.bias),
        double(norm.running_mean),
        double(norm.running_var),
        norm.eps,
        double(norm.weight),
        double(norm.bias),
        conv.transposed,
    )
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)


def _lay_out(network: nn.Module, channels_last: bool, dtype: torch.dtype | None) -> None:
    turned = [module for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)]
    kept_so = {id(p) for module in network.modules() if module not in set(turned) for p in _parameters(module)}
    for module in turned:
        for parameter in _parameters(module):
            if dtype is not None and parameter.is_floating_point() and id(parameter) not in kept_so:
                parameter.data = parameter.data.to(dtype)
            if channels_last and parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
