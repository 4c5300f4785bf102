"""The recipe of the parity data: every tensor from its name alone, so that no checkpoint need be shipped."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

GAIN = 30.0  # of attention weights: peaked masks, whose layout shows in the output


@dataclass(frozen=True)
class Golden:
    """What the public implementation gave for the recipe's weights and image."""

    shapes: list[tuple[str, list[int]]]
    tensors: dict[str, Tensor]


def load(folder: Path, name: str) -> Golden:
    shapes = json.loads((folder / f"{name}.json").read_text())
    return Golden(list(shapes.items()), load_file(folder / f"{name}.safetensors"))


def shapes_of(network: nn.Module) -> list[tuple[str, list[int]]]:
    return [(name, list(value.shape)) for name, value in network.state_dict().items()]


@torch.no_grad()
def fill(network: nn.Module, seed: int = 0) -> None:
    for name, tensor in network.state_dict().items():
        tensor.copy_(_drawn(name, tensor, seed))


def image(height: int, width: int, batch: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=_generator(f"image{height}x{width}", seed))


def ties(logits: Tensor, ours: Tensor, theirs: Tensor, within: float = 1e-5) -> bool:
    """Whether two label maps (N, H, W) differ only where their logits (N, C, H, W) lie within a tolerance."""
    ours, theirs = (logits.gather(1, labels.long().unsqueeze(1)) for labels in (ours, theirs))
    return bool((ours - theirs <= within).all())


def _generator(name: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))


def _drawn(name: str, like: Tensor, seed: int) -> Tensor:
    generator, shape = _generator(name, seed), like.shape
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return torch.zeros_like(like)
    if kind == "running_var":
        return torch.rand(shape, generator=generator) + 0.5
    if kind in ("running_mean", "bias"):
        return torch.randn(shape, generator=generator) * 0.1
    if like.ndim == 1:
        return torch.rand(shape, generator=generator) * 0.5 + 0.25
    gain = GAIN if "attention" in name else 1.0
    return torch.randn(shape, generator=generator) * gain / math.sqrt(math.prod(shape[1:]))
