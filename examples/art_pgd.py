"""The certified-radius-guided loss in ART's PGD, by the `loss` argument of its `PyTorchClassifier`.

ART knows labels (N,) and one-hot (N, C) only. A label map, flattened to (N, H·W), passes as the latter and reaches the
loss as it is, where it gets its shape back.

Run: python examples/art_pgd.py [--model … --weights … --data … --size … --limit … --eps … --steps …]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from _setting import VOID, Setting, from_command_line, verdict
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

import segradius as sr


class OnLabelMaps(nn.Module):
    """A loss on label maps (N, H, W), given them as ART hands them on: flat, as floating-point numbers."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, flat: Tensor) -> Tensor:
        """The loss of logits (N, C, H, W) and flat labels (N, H·W)."""
        value: Tensor = self.loss(logits, flat.long().view(len(logits), *logits.shape[2:]))
        return value


def attack(setting: Setting) -> tuple[Tensor, Tensor]:
    """Adversarial images of ART's attack on cross-entropy, and on the guided loss."""
    losses = (nn.CrossEntropyLoss(ignore_index=VOID), sr.CertifiedRadiusLoss(ignore_index=VOID))
    own, guided = (_attack(setting, loss) for loss in losses)
    return own, guided


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two losses."""
    setting = from_command_line(arguments)
    return verdict(setting, "ART PGD", *attack(setting))


def _attack(setting: Setting, loss: nn.Module) -> Tensor:
    estimator = PyTorchClassifier(
        sr.AsModule(setting.model),
        OnLabelMaps(loss),
        input_shape=tuple(setting.images.shape[1:]),
        nb_classes=setting.model.num_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    pgd = ProjectedGradientDescentPyTorch(
        estimator,
        norm=2,
        eps=setting.eps,
        eps_step=setting.alpha,
        max_iter=setting.steps,
        batch_size=len(setting.images),
        verbose=False,
    )
    return torch.from_numpy(pgd.generate(setting.images.numpy(), setting.labels.flatten(1).numpy()))


if __name__ == "__main__":
    sys.exit(main())
