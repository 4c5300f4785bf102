"""From a model and a form to the same model in that form; the model's own network is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.errors import SegradiusError
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import TiledNetwork
from segradius.speed.compiled import compiled
from segradius.speed.easing import EasedSize, ease
from segradius.speed.fold import Pair, find_pairs, fold
from segradius.speed.forms import PLAIN, Form


class NotFormedError(SegradiusError):
    """A network cannot be given a form; the message says why."""


def formed(model: Segmenter, form: Form, images: Tensor) -> Segmenter:
    """A model in a form, with a network of its own that shares with the model's what does not change.

    Args:
        model: The model.
        form: Its form.
        images: (N, B, H, W) in [0, 1], on its device; one pass over them shows which layers follow which.

    Raises:
        NotFormedError: It cannot have that form.

    Example:
        >>> import segradius as sr
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        >>> print(formed(sr.wrap(network), Form(folded=True), torch.rand(1, 3, 8, 8)).network[1])
        Identity()
    """
    bare = replace(model, twins=None)
    if form == PLAIN:
        return bare
    network = _inside(model)[0]
    if not isinstance(network, nn.Module):
        if form.folded or form.channels_last or form.eased or form.compiled:
            raise NotFormedError("it is a function, in which no layers can be seen")
        return replace(bare, precision=form.dtype)
    changed = _changed(network, form, bare, images)
    if form.eased:
        shown = _with(bare, changed, form)
        with torch.no_grad(), shown.frozen():
            ease(changed, partial(shown.logits, images))
    if form.compiled:
        changed = compiled(changed)
    return _with(bare, changed, form)


def _inside(model: Segmenter) -> tuple[Any, list[TiledNetwork]]:
    """The network within windows, and those, from the outside."""
    network, windows = model.network, []
    while isinstance(network, TiledNetwork):
        windows.append(network)
        network = network.model.network
    return network, windows


def _with(model: Segmenter, network: nn.Module, form: Form) -> Segmenter:
    """The model with another network inside its windows, given its images in the form's layout and precision."""
    if isinstance(model.network, TiledNetwork):
        inner = _with(model.network.model, network, form)
        return replace(model, network=TiledNetwork(inner, model.network.tiling))
    return replace(
        model,
        network=network,
        precision=form.dtype,
        channels_last=form.channels_last or model.channels_last,
        size=EasedSize.of(model.size) if form.eased else model.size,
    )


def _changed(network: nn.Module, form: Form, model: Segmenter, images: Tensor) -> nn.Module:
    call: Callable[[], object] = lambda: model.logits(images)  # noqa: E731
    pairs: tuple[Pair, ...] = ()
    if form.folded:
        with torch.no_grad(), model.frozen():
            pairs = find_pairs(network, call)
        if not pairs:
            raise NotFormedError("no batch norm stands alone behind a convolution")
    if not (pairs or form.channels_last or form.eased or form.precision):
        return network
    made = fold(network, pairs, channels_last=form.channels_last, dtype=form.dtype)
    if isinstance(made, str):
        raise NotFormedError(made)
    return made
