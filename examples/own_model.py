"""A network of your own under several attacks at equal budgets: a table of what each leaves right, and what it costs.

Run: python examples/own_model.py
"""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import segradius as sr
from segradius.data import Scenes
from segradius.metrics import count, pooled_accuracy

VOID, CLASSES, SIZE = 255, 8, (48, 64)


def batch(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Drawn scenes, in place of your images (N, 3, H, W) in [0, 1] and labels (N, H, W)."""
    data = Scenes(SIZE, length=count, split=split)
    samples = [data[i] for i in range(count)]
    return torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples])


def my_network(steps: int = 150) -> nn.Module:
    """Any module from (N, 3, H, W) to logits (N, C, H, W); this one is trained for a few seconds."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU()]
    for dilation in (2, 4, 8):
        layers += [nn.Conv2d(16, 16, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(16), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Conv2d(16, CLASSES, 1))
    images, labels = batch("train", 64)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(steps):
        rows = torch.arange(8) + 8 * (step % 8)
        loss = nn.functional.cross_entropy(network(images[rows]), labels[rows], ignore_index=VOID)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def main(steps: int = 150) -> int:
    """Attack the network; 0 if every attack lowers its pixel accuracy."""
    model = sr.wrap(my_network(steps), name="mine")
    images, labels = batch("test", 8)
    model.check(images)
    table = Table("attack", "PixAcc", "forward passes", "backward passes")
    clean = pooled_accuracy(count(model.scores(images).argmax(1), labels, CLASSES, VOID))
    table.add_row("none", f"{100 * clean:.1f} %", "", "")
    left = []
    for name in ("fgsm", "pgd", "cr_pgd", "flip_pgd"):
        found = sr.make_attack(name, norm="l2", eps=1.5, **({} if name == "fgsm" else {"steps": 20}))(
            model, images, labels, ignore_index=VOID
        )
        left.append(pooled_accuracy(count(found.prediction, labels, CLASSES, VOID)))
        table.add_row(
            name, f"{100 * left[-1]:.1f} %", *(str(p[0]) for p in (found.ledger.forward, found.ledger.backward))
        )
    Console().print(table)
    return 0 if max(left) < clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
