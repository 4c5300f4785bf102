"""What the examples share: model, images and labels from the command line, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor

import segradius as sr
from segradius.core import text
from segradius.metrics import count, pooled_accuracy

VOID = 255


@dataclass(frozen=True)
class Setting:
    """What to attack, and with which budget."""

    model: sr.Segmenter
    images: Tensor  # (N, 3, H, W) in [0, 1]
    labels: Tensor  # (N, H, W) int64, VOID where there is none
    eps: float
    steps: int

    @property
    def alpha(self) -> float:
        """Step length, the paper's 2.5ε/T for l2."""
        return 2.5 * self.eps / self.steps

    @torch.no_grad()
    def pixacc(self, images: Tensor) -> float:
        """Share of the labelled pixels that the model has right."""
        prediction = self.model.logits(images).argmax(1)
        return pooled_accuracy(count(prediction, self.labels, self.model.num_classes, VOID))


def open_setting(
    model: str = "demo",
    weights: str | None = None,
    data: str = "scenes:96x128",
    split: str = "test",
    size: str | None = None,
    limit: int = 8,
    eps: float = 5.0,
    steps: int = 20,
) -> Setting:
    """A model and a batch to attack in l2.

    Args:
        model: As ``segradius attack --model``.
        weights: Checkpoint to load.
        data: As ``segradius attack --data``.
        split: Part of the data set.
        size: HEIGHTxWIDTH to resize to.
        limit: Number of images.
        eps: l2 budget, images being in [0, 1].
        steps: Steps T of the attack.

    Returns:
        The setting.
    """
    opened = sr.open_data(data, split=split, size=text.size(size), limit=limit)
    samples = [opened[i] for i in range(len(opened))]
    images, labels = torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples])
    return Setting(sr.load_model(model, weights=weights), images, labels, eps, steps)


def from_command_line(arguments: Sequence[str] | None = None) -> Setting:
    """The setting that the command line asks for."""
    setting: Setting = auto_cli(open_setting, args=arguments)
    return setting


def verdict(setting: Setting, library: str, own: Tensor, guided: Tensor) -> int:
    """Print the pixel accuracies; 0 if the guided loss made the attack stronger, else 1."""
    scores = {"clean": setting.images, f"{library}, cross-entropy": own, f"{library}, CertifiedRadiusLoss": guided}
    table = Table("", "PixAcc", "largest ‖δ‖₂")
    found = {name: setting.pixacc(images) for name, images in scores.items()}
    for name, images in scores.items():
        length = (images - setting.images).flatten(1).norm(dim=1).max()
        table.add_row(name, f"{100 * found[name]:.2f} %", f"{length:.3f}")
    Console().print(table)
    _, before, after = found.values()
    return 0 if after < before else 1
