"""What the adversary of a training attacks: a twin of the network, with batch norm folded anew in each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from segradius.models.segmenter import Segmenter
from segradius.speed.easing import EasedSize, ease
from segradius.speed.fold import Pair, find_pairs, fold
from segradius.speed.trial import Trial


@dataclass(frozen=True, eq=False)
class Mirror:
    """A frozen twin of a network in training, which shares with it what does not change but by steps.

    Args:
        model: Of the twin.
        folded: Convolution and batch norm of the network, and the convolution of the twin that is both.
        copied: Other tensors of the twin that share no memory with the network: its module, the network's, the name in
            both.

    Example:
        >>> import segradius as sr
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        >>> model, images = sr.wrap(network, num_classes=4), torch.rand(2, 3, 8, 8)
        >>> mirror = Mirror.of(model, images)
        >>> with torch.no_grad():
        ...     _ = network[1].running_mean.add_(1.0)
        >>> mirror.refresh()
        >>> torch.allclose(mirror.model.logits(images), model.logits(images), atol=1e-6)
        True
    """

    model: Segmenter
    folded: Sequence[tuple[Any, Any, Any]]
    copied: Sequence[tuple[nn.Module, nn.Module, str]]

    @classmethod
    def of(cls, model: Segmenter, images: Tensor, *, compiled: bool = False) -> Mirror | str:
        """The twin of a model's network, or in words why there is none.

        Args:
            model: Its network's parameters must keep their places in memory from now on.
            images: (N, B, H, W) in [0, 1], on its device; a pass over them shows which layers follow which, and
                others whether logits and gradients are the network's.
            compiled: Whether it will be compiled, so that backward passes are left as they are.
        """
        network: Any = model.network
        pairs = find_pairs(network, lambda: model.logits(images))
        twin = fold(network, pairs)
        if isinstance(twin, str):
            return twin
        mirrored, eased = replace(model, network=twin, twins=None), 0
        if images.device.type == "cpu" and not compiled:
            mirrored = replace(mirrored, size=EasedSize.of(model.size))
            eased = ease(twin, lambda: mirrored.logits(images))
        if not pairs and not eased:
            return "no batch norm stands alone behind a convolution"
        mirror = cls(mirrored, *_paired(network, twin, pairs))
        mirror.refresh()
        why = Trial(replace(model, twins=None), images).difference(mirrored)
        return f"of a twin, {why}" if why else mirror

    @property
    def twin(self) -> nn.Module:
        """The twin."""
        network: nn.Module = self.model.network  # type: ignore[assignment]
        return network

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what a step changed."""
        for conv, norm, twin in self.folded:
            scale = torch.rsqrt(norm.running_var + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight
            axis = 1 if conv.transposed else 0
            shape = [-1 if dim == axis else 1 for dim in range(conv.weight.ndim)]
            torch.mul(conv.weight, scale.view(shape), out=twin.weight)
            shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
            twin.bias.copy_(shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale))
        for theirs, own, name in self.copied:
            tensor, now = getattr(theirs, name), getattr(own, name)  # anew, as code may put others in their place
            if now is not None and tensor is not None and now.shape == tensor.shape:
                tensor.copy_(now)
            else:
                setattr(theirs, name, None if now is None else now.clone())


def _paired(
    network: nn.Module, twin: nn.Module, pairs: Sequence[Pair]
) -> tuple[list[Any], list[tuple[nn.Module, nn.Module, str]]]:
    """What is folded, and what is copied, as a `Mirror` has it."""
    folded = [
        (network.get_submodule(pair.conv), network.get_submodule(pair.norm), twin.get_submodule(pair.conv))
        for pair in pairs
    ]
    made = {id(tensor) for _, _, conv in folded for tensor in conv.parameters()}
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    theirs = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    apart = [
        name.rpartition(".")
        for name, tensor in theirs.items()
        if id(tensor) not in made and tensor.data_ptr() != own[name].data_ptr()
    ]
    return folded, [(twin.get_submodule(path), network.get_submodule(path), name) for path, _, name in apart]
