"""The certified-radius-guided loss in torchattacks' PGDL2, by a subclass: its loop has the loss written into it.

Run: python examples/torchattacks_pgd.py [--model … --weights … --data … --size … --limit … --eps … --steps …]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import torchattacks
from _setting import VOID, Setting, from_command_line, verdict
from torch import Tensor, nn

import segradius as sr

#: torchattacks builds its `CrossEntropyLoss` itself, so void pixels must carry that class's own default.
THEIR_VOID = nn.CrossEntropyLoss().ignore_index


class PGDL2WithLoss(torchattacks.PGDL2):
    """torchattacks' PGDL2 with any loss ``(logits, labels) -> scalar``.

    Args:
        model: The network.
        loss: What is maximised.
        **options: Of `torchattacks.PGDL2`.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, **options: float) -> None:
        super().__init__(model, random_start=False, **options)
        self.loss = loss

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Projected steepest ascent from the images, scaled into the ball and clamped into the box."""
        delta = torch.zeros_like(images)
        for _ in range(self.steps):
            at = (images + delta).clamp(0, 1).requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(self.get_logits(at), labels), at)
            moved = at.detach() - images + self.alpha * gradient / (_length(gradient) + self.eps_for_division)
            delta = moved * (self.eps / _length(moved)).clamp_max(1)
        return (images + delta).clamp(0, 1)


def attack(setting: Setting) -> tuple[Tensor, Tensor]:
    """Adversarial images of the library's own attack, and of the same attack on the guided loss."""
    network = sr.AsModule(setting.model)
    options = {"eps": setting.eps, "alpha": setting.alpha, "steps": setting.steps}
    own = torchattacks.PGDL2(network, random_start=False, **options)
    guided = PGDL2WithLoss(network, sr.CertifiedRadiusLoss(ignore_index=VOID), **options)
    theirs = setting.labels.masked_fill(setting.labels == VOID, THEIR_VOID)
    return own(setting.images, theirs), guided(setting.images, setting.labels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two losses."""
    setting = from_command_line(arguments)
    return verdict(setting, "torchattacks PGDL2", *attack(setting))


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


if __name__ == "__main__":
    sys.exit(main())
