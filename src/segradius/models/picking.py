"""Which entry of what a network returns is meant: the only one that can be, or the one that is named; no guess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.errors import InputError, shown

#: How deep an output is looked into, and how many entries a message names.
DEPTH, NAMED = 3, 8


def main_output(raw: Any, output: str = "", channels: int = 0) -> Tensor:
    """The logits in a network's output.

    Args:
        raw: A tensor; a mapping with ``out`` (torchvision) or ``logits``; an object with ``.logits`` or with
            ``.class_queries_logits`` and ``.masks_queries_logits`` (transformers); a tuple, list, mapping or dataclass,
            one of whose entries is one of these or a floating tensor of four dimensions.
        output: The entry that is meant: an index, a key, an attribute, or several with dots between them; of a network
            that returns one tensor after all, 0 and -1 name that. Empty: the only one that can be.
        channels: Channels that decide where several could be; 0 where that is not known.

    Returns:
        The logits. For queries, `query_log_scores`.

    Raises:
        InputError: If it is none of these, several entries could be meant, or ``output`` names none.

    Example:
        >>> z = torch.zeros(1, 5, 4, 4)
        >>> main_output({"out": z, "aux": z + 1}) is z and main_output((z, z + 1), "0") is z
        True
        >>> main_output((z, z + 1))
        Traceback (most recent call last):
        segradius.core.errors.InputError: the network returns a tuple of which 2 entries could be the logits: 0 ...
    """
    if output:
        return main_output(_at(raw, output), "", channels)
    if (known := _known(raw)) is not None:
        return known
    found = list(_candidates(raw))
    fitting = [each for each in found if each[1].shape[1] == channels]
    for several in (fitting, found):
        if len(several) == 1 and not several[0][0].startswith("aux"):
            return several[0][1]
    if len(found) > 1:
        raise InputError(
            f"the network returns a {type(raw).__name__} of which {len(found)} entries could be the logits: "
            f"{_listed(found)}. Give the one that is meant: output= (--output)"
        )
    raise InputError(
        f"the network returned {_described(raw)}; expected a tensor (N, C, h, w), a mapping with 'out' or 'logits', an "
        "object with .logits, or a tuple, mapping or dataclass with one such tensor. Give the entry, output= "
        "(--output), or pass outputs=FUNCTION to pick it yourself"
    )


def query_log_scores(queries: Tensor, masks: Tensor) -> Tensor:
    """Log of the class × mask scores of MaskFormer and Mask2Former.

    With q over queries, s_c(i) = Σ_q softmax(queries_q)_c · sigmoid(masks_q(i)), without the last class ("no object"),
    as in Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation" (CVPR 2022). The scores are
    not logits: they lie in (0, Q). Their logarithm has the same argmax, and its softmax is s_c / Σ_c s_c, so losses and
    radii that take logits can take it.

    Args:
        queries: Class logits (N, Q, C + 1) of each query.
        masks: Mask logits (N, Q, h, w) of each query.

    Returns:
        Log scores (N, C, h, w), finite: scores below the dtype's smallest normal number count as it.

    Example:
        >>> one_query = torch.tensor([[[0.0, 0.0, 0.0]]])
        >>> query_log_scores(one_query, torch.zeros(1, 1, 1, 1)).exp().flatten()  # 1/3 · 1/2
        tensor([0.1667, 0.1667])
    """
    log_class = functional.log_softmax(at_least_float32(queries), dim=-1)[..., :-1]
    log_mask = functional.logsigmoid(at_least_float32(masks))
    # The largest factors are taken out before the exponential, so that small scores do not underflow.
    top_class, top_mask = log_class.amax(1, keepdim=True).detach(), log_mask.amax(1, keepdim=True).detach()
    scores = torch.einsum("nqc,nqhw->nchw", (log_class - top_class).exp(), (log_mask - top_mask).exp())
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() + top_class.mT[..., None] + top_mask


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in its own type where that is wider.

    Example:
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _known(raw: Any) -> Tensor | None:
    """The logits where the form says which they are."""
    if isinstance(raw, Tensor):
        return raw
    queries, masks = _entry(raw, "class_queries_logits"), _entry(raw, "masks_queries_logits")
    if isinstance(queries, Tensor) and isinstance(masks, Tensor):
        return query_log_scores(queries, masks)
    return next((value for key in ("out", "logits") if isinstance(value := _entry(raw, key), Tensor)), None)


def _candidates(raw: Any, within: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Tensor]]:
    """All that could be logits, by the path that names it."""
    for key, entry in _entries(raw):
        path = f"{within}{key}"
        found = _known(entry)
        if found is not None:
            if found.is_floating_point() and found.ndim == 4:
                yield path, found
        elif depth:
            yield from _candidates(entry, f"{path}.", depth - 1)


def _entries(raw: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(raw, Mapping):
        yield from ((str(key), entry) for key, entry in raw.items())
    elif isinstance(raw, tuple) and hasattr(raw, "_fields"):
        yield from zip(raw._fields, raw, strict=True)
    elif isinstance(raw, (tuple, list)):
        yield from ((str(index), entry) for index, entry in enumerate(raw))
    elif is_dataclass(raw) and not isinstance(raw, type):
        yield from ((item.name, getattr(raw, item.name)) for item in fields(raw))
    elif not isinstance(raw, type):
        yield from getattr(raw, "__dict__", {}).items()


def _at(raw: Any, output: str) -> Any:
    if isinstance(raw, Tensor):
        if output in ("0", "-1"):
            return raw
        raise InputError(f"output {shown(output)} names nothing: the network returns one tensor; leave output out")
    here = raw
    for part in output.split("."):
        here = _step(here, part)
        if here is None:
            told = _listed(list(_candidates(raw))) or _described(raw)
            raise InputError(f"output {shown(output)} names no entry of what the network returns; there is {told}")
    return here


def _step(raw: Any, part: str) -> Any:
    """An entry, or None where there is none of that name."""
    if isinstance(raw, Tensor) or raw is None:
        return None
    named = dict(_entries(raw))
    if part in named:
        return named[part]
    if isinstance(raw, (tuple, list)) and part.removeprefix("-").isdecimal():
        return raw[int(part)] if -len(raw) <= int(part) < len(raw) else None
    return getattr(raw, part, None) if part.isidentifier() else None


def _entry(raw: Any, key: str) -> Any:
    return raw.get(key) if isinstance(raw, Mapping) else getattr(raw, key, None)


def _listed(found: list[tuple[str, Tensor]]) -> str:
    told = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in islice(found, NAMED))
    return told + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def _described(raw: Any) -> str:
    if isinstance(raw, Mapping):
        return f"a {type(raw).__name__} with {', '.join(map(repr, raw)) or 'no entries'}"
    return f"a {type(raw).__name__}"
