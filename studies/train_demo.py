"""Train the demo network from nothing on drawn scenes and store it in the package.

    python studies/train_demo.py

Takes a few minutes on two CPU cores. Prints PixAcc on the test scenes, which ``tests/models/test_demo.py`` pins.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import auto_cli
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from segradius.data import collate, open_data
from segradius.models import DemoNetwork, Normalisation, load_model

WEIGHTS = Path(__file__).parents[1] / "src" / "segradius" / "models" / "demo.safetensors"
SEED = 0
SCENES = "scenes:96x128,400"
STEPS = 400
BATCH = 8
PEAK_RATE = 5e-3
IGNORE = 255


def scenes(split: str, limit: int) -> tuple[Tensor, Tensor]:
    """Images (limit, 3, H, W) in [0, 1] and labels (limit, H, W) of the first scenes of a split."""
    data = open_data(SCENES, split=split, limit=limit)
    images, labels, _ = collate([data[i] for i in range(len(data))])
    return images, labels


def batch(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random scenes, normalised; the whole batch mirrored half of the time."""
    rows = torch.randint(len(images), (BATCH,), generator=generator)
    x, y = Normalisation.imagenet().apply(images[rows]), labels[rows]
    mirrored = bool(torch.rand((), generator=generator) < 0.5)
    return (x.flip(-1), y.flip(-1)) if mirrored else (x, y)


def train(network: DemoNetwork, images: Tensor, labels: Tensor) -> None:
    """Cross-entropy, AdamW, one cycle of the learning rate."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=STEPS)
    generator = torch.Generator().manual_seed(SEED)
    network.train()
    for step in range(1, STEPS + 1):
        x, y = batch(images, labels, generator)
        loss = functional.cross_entropy(network(x), y, ignore_index=IGNORE)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


def store(network: DemoNetwork, path: Path) -> None:
    """Write the weights in half precision, batch counters as they are."""
    state = network.state_dict()
    save_file({name: v.half() if v.is_floating_point() else v for name, v in state.items()}, path)


def main(out: Path = WEIGHTS) -> None:
    """Train, store, and judge what was stored.

    Args:
        out: File of the weights; the package's own by default.
    """
    torch.manual_seed(SEED)
    network = DemoNetwork()
    train(network, *scenes("train", 400))
    store(network, out)
    images, labels = scenes("test", 64)
    with torch.no_grad():
        right = (load_model("demo", weights=str(out)).logits(images).argmax(1) == labels)[labels != IGNORE]
    print(f"PixAcc on {len(images)} test scenes: {right.double().mean():.3f}")
    print(f"{out.name}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
