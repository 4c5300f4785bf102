"""Weights into a network, strictly: the names of a file and those of the network, whatever wrapped it in training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.core.screen import warn
from segradius.models.weight_sets import parted

#: What stands before names: of torch.compile, of DataParallel and the like, and of Lightning and other wrappers.
PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.")
#: Those that stand in the middle of names too, where a part of a network is wrapped.
WRAPPERS = ("_orig_mod", "module")
#: Whose names a moving average has, beside its network's.
AVERAGES = re.compile("(?<![a-z])(ema|averag|mean|teacher|shadow)", re.IGNORECASE)
#: Counters beside a network's weights.
COUNTERS = ("n_averaged", "initted", "step")
#: Networks of others, and of ours, by the beginnings of names.
OTHERS = (
    (("backbone.downsample_layers.0.stem.", "decode_head."), "SEA's UperNet: give upernet_convnext_t or its like"),
    (("encoder.pos_embed", "decoder.cls_emb"), "SEA's Segmenter: give segmenter_vit_s"),
    (("cls1.", "mask1."), "the PSPNet of DDC-AT: give pspnet50_ddcat"),
    (("stage4.", "last_layer."), "HRNetV2 without OCR: give hrnet_v2_w48"),
    (("backbone.", "decode_head."), "MMSegmentation: give what it builds of its config, as package.module:NAME"),
    (("backbone.", "sem_seg_head."), "Detectron2: give what it builds of its config, as package.module:NAME"),
    (("segformer.encoder.", "decode_head."), "transformers: give hf:FOLDER"),  # as its files are named
    (("segformer.", "decode_head."), "transformers: give hf:FOLDER"),
)
PREFIXED = re.compile(f"^({'|'.join(map(re.escape, PREFIXES))})+")
SHOWN = 5


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the weights") -> None:
    """Copy a state into a network, strictly, in the network's dtypes.

    What wrapped the network in training (`PREFIXES`: ``_orig_mod.``, ``module.``, ``model.``…) is dropped from names,
    in any order, where the network has no such names. Of a network and its moving average side by side the network is
    taken, which is told. A network can declare two tuples of name prefixes: entries under ``IGNORED`` (a training
    wrapper's) are left out; what is under one of ``OPTIONAL`` (an auxiliary head) may be absent as a whole from the
    file, and then stays as it was initialised, or from the network.

    Args:
        network: The network; after an error it may hold a part of the state.
        state: Names and tensors, as `load_state` gives.
        source: Where they come from, for the message.

    Raises:
        InputError: If names are missing or unexpected, or shapes differ; the message lists them.

    Example:
        >>> import torch
        >>> network = nn.Conv2d(3, 2, 1)
        >>> load_into(network, {"module.weight": torch.ones(2, 3, 1, 1).bfloat16(), "module.bias": torch.zeros(2)})
        >>> network.weight.dtype, network.weight.sum().item()
        (torch.float32, 6.0)
    """
    wanted = network.state_dict()
    optional = getattr(network, "OPTIONAL", ())
    kept = without_ignored(state, getattr(network, "IGNORED", ()))
    given = _stripped(kept, wanted, optional)
    advice = ""
    if not _fits(given, wanted):
        groups = _groups(kept, wanted, optional)
        beside = [n for n in kept if not n.startswith(tuple(f"{group}." for group in groups)) and n not in COUNTERS]
        if groups and not beside:
            given = groups[_own(groups, source)]
        elif groups:
            key = _own(groups, source, quiet=True)
            advice = f". The names under {key!r} fit: give {parted(source)[0]},key={key} for them alone"
        advice = advice or _whose(given, wanted)
    try:
        network.load_state_dict(given, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"{str(source)!r} does not fit {type(network).__name__}: {_differences(given, wanted) or error}{advice}"
        ) from error


def _stripped(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: tuple[str, ...]
) -> dict[str, Tensor]:
    """The state by the names of the network, as far as that is a matter of what wrapped it."""
    given = match_optional(strip_prefixes(state, wanted), wanted, optional)
    if _fits(given, wanted):
        return given
    bare = match_optional(strip_prefixes(_without_wrappers(state, wanted), wanted), wanted, optional)
    return bare if _fits(bare, wanted) else given


def _without_wrappers(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    own = {part for name in wanted for part in name.split(".")}
    dropped = [part for part in WRAPPERS if part not in own]
    bare = {".".join(part for part in name.split(".") if part not in dropped): t for name, t in state.items()}
    return bare if len(bare) == len(state) else dict(state)


def _fits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    lacking = [name for name in wanted if name not in given and not name.endswith(".num_batches_tracked")]
    return not lacking and all(name in wanted and wanted[name].shape == t.shape for name, t in given.items())


def _groups(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: tuple[str, ...]
) -> dict[str, dict[str, Tensor]]:
    """Of a state, the parts that are each all of the network, by the beginning of their names."""
    found = {}
    for first in dict.fromkeys(name.partition(".")[0] for name in state if "." in name):
        part = {name[len(first) + 1 :]: t for name, t in state.items() if name.startswith(f"{first}.")}
        given = _stripped(part, wanted, optional)
        if _fits(given, wanted):
            found[first] = given
    return found


def _own(groups: Mapping[str, Any], source: str | Path, *, quiet: bool = False) -> str:
    """The name of the only group, or of the network's own beside moving averages, which is told."""
    own = [name for name in groups if not AVERAGES.search(name)] if len(groups) > 1 else list(groups)
    told = f"{str(source)!r} holds {len(groups)} sets of weights that fit, under {' and '.join(groups)}"
    if len(own) != 1:
        raise InputError(f"{told}: say which, as in {parted(source)[0]},key={next(iter(groups))}")
    others = [name for name in groups if name not in own]
    if others and not quiet:
        warn(f"{told}: {own[0]} is taken; for another give {parted(source)[0]},key={others[0]}")
    return own[0]


def _whose(names: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What is known of a network by the beginnings of its names, unless the one at hand has such names too."""
    for begins, words in OTHERS:
        if _begin(names, begins) and not _begin(wanted, begins):
            return f". These are names as of {words}"
    return ""


def _begin(names: Mapping[str, Any], begins: tuple[str, ...]) -> bool:
    return all(any(name.startswith(begin) for name in names) for begin in begins)


def strip_prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """A copy of ``state`` without the prefixes that all its names have and those in ``wanted`` have not.

    Example:
        >>> import torch
        >>> list(strip_prefixes({"module.model.w": torch.zeros(1)}, {"w": None}))
        ['w']
    """
    stripped = dict(state)
    while prefix := next((p for p in PREFIXES if _all_start(stripped, p) and not _all_start(wanted, p)), None):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


def without_ignored(state: Mapping[str, Tensor], ignored: tuple[str, ...]) -> dict[str, Tensor]:
    """A copy of ``state`` without the entries whose names start with one of ``ignored``, before or after prefixes.

    Example:
        >>> import torch
        >>> state = {"model.w": torch.zeros(1), "module.loss.weight": torch.zeros(1)}
        >>> list(without_ignored(state, ("loss.",)))
        ['model.w']
    """
    return {name: tensor for name, tensor in state.items() if not PREFIXED.sub("", name).startswith(ignored)}


def match_optional(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: tuple[str, ...]
) -> dict[str, Tensor]:
    """A copy of ``state`` in which the optional groups are there that ``wanted`` has, and no others.

    Args:
        state: Names and tensors of the file.
        wanted: Those of the network.
        optional: Name prefixes. The names under one are a group: only a group that one side lacks altogether is filled
            from ``wanted`` or dropped, so that a half of one remains a difference.

    Example:
        >>> import torch
        >>> state, network = {"w": torch.ones(1)}, {"w": torch.zeros(1), "aux.w": torch.zeros(1)}
        >>> match_optional(state, network, ("aux.",))
        {'w': tensor([1.]), 'aux.w': tensor([0.])}
    """
    matched = dict(state)
    for prefix in optional:
        group = {name: tensor for name, tensor in wanted.items() if name.startswith(prefix)}
        found = [name for name in matched if name.startswith(prefix)]
        if not found:
            matched |= group
        elif not group:
            matched = {name: tensor for name, tensor in matched.items() if name not in found}
    return matched


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    shapes = [
        f"{name} ({tuple(tensor.shape)} in the file, {tuple(wanted[name].shape)} in the network)"
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    lists = {
        # Counters of batches came with PyTorch 0.4.1; torch supplies them where a file is older.
        "missing": [name for name in wanted if name not in given and not name.endswith(".num_batches_tracked")],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in lists.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
