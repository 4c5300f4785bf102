"""The certified-radius-guided loss in foolbox's L2PGD, by `get_loss_fn`, the hook that foolbox leaves to its users.

Run: python examples/foolbox_pgd.py [--model … --weights … --data … --size … --limit … --eps … --steps …]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import eagerpy as ep
import foolbox
from _setting import VOID, Setting, from_command_line, verdict
from torch import Tensor, nn

import segradius as sr


class L2PGDWithLoss(foolbox.attacks.L2ProjectedGradientDescentAttack):
    """foolbox's L2PGD with any loss ``(logits, labels) -> scalar``; its own takes one label an image only.

    Args:
        loss: What is maximised.
        **options: Of the foolbox attack.
    """

    def __init__(self, loss: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.loss = loss

    def get_loss_fn(self, model: foolbox.Model, labels: ep.Tensor) -> Callable[[ep.Tensor], ep.Tensor]:
        """The loss at given inputs, as foolbox asks for it."""
        return lambda inputs: ep.astensor(self.loss(model(inputs).raw, labels.raw))


class MostPixelsWrong(foolbox.criteria.Misclassification):
    """An image counts as fooled when more than half of its labelled pixels are wrong."""

    def __call__(self, perturbed: Any, outputs: Any) -> Any:
        """Which images are fooled, (N,) bool."""
        logits, restore = ep.astensor_(outputs)
        counted = self.labels != VOID
        wrong = ep.logical_and(logits.argmax(axis=1) != self.labels, counted)
        return restore(wrong.sum(axis=(1, 2)) * 2 > counted.sum(axis=(1, 2)))


def attack(setting: Setting) -> tuple[Tensor, Tensor]:
    """Adversarial images of foolbox's attack on cross-entropy, and on the guided loss."""
    network = foolbox.PyTorchModel(sr.AsModule(setting.model).eval(), bounds=(0, 1))
    options = {"steps": setting.steps, "abs_stepsize": setting.alpha, "random_start": False}
    losses = (nn.CrossEntropyLoss(ignore_index=VOID), sr.CertifiedRadiusLoss(ignore_index=VOID))
    found: list[Tensor] = []
    for loss in losses:
        _, clipped, _ = L2PGDWithLoss(loss, **options)(
            network, setting.images, MostPixelsWrong(setting.labels), epsilons=setting.eps
        )
        found.append(clipped)
    return found[0], found[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two losses."""
    setting = from_command_line(arguments)
    return verdict(setting, "foolbox L2PGD", *attack(setting))


if __name__ == "__main__":
    sys.exit(main())
