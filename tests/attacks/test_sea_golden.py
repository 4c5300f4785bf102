"""SEA against what its published code gave on a tiny network; `-s` prints how near they are.

A transcription stands between the two, as the code differs from the papers in four rules: when a step may be halved
(whole numbers of steps, where Auto-PGD's paper has ⌈p·T⌉), whether three quarters of rising steps are enough to keep it
(in the code they are not), whether the first step is a rise (always), and which of two iterates of equal accuracy is
kept (the later one). With the code's rules it gives the golden values, with the papers' it gives ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor, nn

import segradius as sr
from networks import golden
from segradius.attacks.apgd import checkpoints
from segradius.objectives.losses import CrossEntropy, JensenShannon
from segradius.objectives.weightings import ClassBalanced, Product, StillCorrect, Uniform

CLASSES, EPS = 5, 8 / 255
LOSSES = ("mce", "mcebal", "js")


class Published(nn.Module):
    """The network of the golden values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, CLASSES, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return 4 * self.last((3 * self.first(images - 0.5)).tanh())


@pytest.fixture(scope="module")
def stored(golden_folder: Path) -> dict[str, Tensor]:
    return load_file(golden_folder / "sea.safetensors")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    net = Published().double()
    golden.fill(net, seed=3)
    return net


def per_image(mask: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (other.ndim - 1)), chosen, other)


@dataclass
class Transcribed:
    """Auto-PGD as SEA's code has it, or with the papers' rules."""

    network: nn.Module
    stored: dict[str, Tensor]
    loss: str
    as_code: bool

    def look(self, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient, tracked loss and accuracy of each image."""
        labels = self.stored["labels"]
        at = (self.stored["images"] + delta).requires_grad_()
        logits = self.network(at)
        ce, right = F.cross_entropy(logits, labels, reduction="none"), (logits.argmax(1) == labels).double()
        p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        js = math.log(2) + (p * p.log() - (1 + p) * (1 + p).log()) / 2
        followed = {"mce": right * ce, "mcebal": right * self.stored["class_weights"][labels] * ce, "js": js}[self.loss]
        (gradient,) = torch.autograd.grad(followed.sum(), at)
        return gradient, ce.detach().mean((1, 2)), right.mean((1, 2))

    def marks(self, steps: int) -> list[int]:
        """After how many steps one may be halved."""
        if not self.as_code:
            return list(checkpoints(steps))
        found, gap, at = [], max(int(0.22 * steps), 1), 0
        while (at := at + gap) <= steps:
            found.append(at)
            gap = max(gap - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        return found

    def project(self, delta: Tensor, norm: str, eps: float) -> Tensor:
        images, length = self.stored["images"], delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = delta.clamp(-eps, eps) if norm == "linf" else delta / (length / eps).clamp_min(1)
        return (images + delta).clamp(0, 1) - images

    def run(self, norm: str, eps: float, steps: int, start: Tensor) -> tuple[Tensor, Tensor]:
        """δ of the highest tracked loss, and of the lowest accuracy."""
        delta, marks, before = start, self.marks(steps), 0
        gradient, value, accuracy = self.look(delta)
        best, best_gradient, best_value = delta, gradient, value
        worst, lowest, last, previous = delta, accuracy, value, delta
        size, then = torch.full_like(value, 2 * eps), value
        rises, halved = torch.zeros_like(value), torch.full_like(value, self.as_code, dtype=torch.bool)
        for i in range(1, steps + 1):
            unit = gradient.sign() if norm == "linf" else gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = self.project(delta + size.view(-1, 1, 1, 1) * unit, norm, eps)
            if i > 1:
                moved = self.project(delta + 0.75 * (moved - delta) + 0.25 * (delta - previous), norm, eps)
            previous, delta = delta, moved
            gradient, value, accuracy = self.look(delta)
            worst = per_image(accuracy <= lowest if self.as_code else accuracy < lowest, delta, worst)
            lowest = torch.minimum(lowest, accuracy)
            rose = torch.ones_like(halved) if self.as_code and i == 1 else value > last
            rises, last = rises + rose, value
            better = value > best_value
            best, best_gradient = per_image(better, delta, best), per_image(better, gradient, best_gradient)
            best_value = torch.where(better, value, best_value)
            if i in marks:
                enough = 0.75 * (i - before)
                few = rises <= enough if self.as_code else rises < enough
                halve = few | (~halved & (then >= best_value))
                size, before = torch.where(halve, size / 2, size), i
                delta, gradient = per_image(halve, best, delta), per_image(halve, best_gradient, gradient)
                rises, halved, then = torch.zeros_like(rises), halve, best_value
        return best, worst

    def reduced(self) -> Tensor:
        """The run at 2ε, 1.5ε and ε, 60 steps in all."""
        delta = torch.zeros_like(self.stored["images"])
        for factor, steps in ((2.0, 18), (1.5, 18), (1.0, 24)):
            start = self.project(delta, "linf", factor * EPS)
            delta = self.run("linf", factor * EPS, steps, start)[1]
        return delta


def told(what: str, found: Tensor, expected: Tensor) -> float:
    worst = float((found - expected).abs().max())
    print(f"\n{what}: largest difference of δ {worst:.1e}, |δ| up to {float(expected.abs().max()):.2g}")
    return worst


@pytest.mark.parametrize("loss", LOSSES)
def test_seas_runs_are_the_published_ones_but_for_four_rules(
    loss: str, stored: dict[str, Tensor], network: nn.Module
) -> None:
    code = Transcribed(network, stored, loss, as_code=True).reduced()
    assert told(f"{loss}, transcription of the code and golden values", code, stored[f"linf_{loss}"]) < 1e-8
    balanced = Product((StillCorrect(), ClassBalanced(tuple(stored["class_weights"].tolist()))))
    weighting = {"mce": StillCorrect(), "mcebal": balanced, "js": Uniform()}[loss]
    goal = sr.Objective(JensenShannon() if loss == "js" else CrossEntropy(), weighting, track=CrossEntropy())
    inner = sr.attacks.Iterative(goal, sr.make_threat("linf", EPS), sr.attacks.Apgd(), 60)
    attack = sr.Attack(loss, sr.attacks.ShrinkingBudget(inner))
    found = attack(sr.wrap(network, num_classes=CLASSES), stored["images"], stored["labels"])
    paper = Transcribed(network, stored, loss, as_code=False).reduced()
    assert told(f"{loss}, ours and the transcription with the papers' rules", found.delta, paper) < 1e-9
    labels, clean = stored["labels"], stored["images"]
    mine, theirs = (
        float((network(clean + delta).argmax(1) == labels).double().mean()) for delta in (found.delta, code)
    )
    print(f"{loss}, accuracy left: ours {mine:.4f}, published {theirs:.4f}")
    assert abs(mine - theirs) < 0.02


def test_a_run_in_l2_is_the_published_one(stored: dict[str, Tensor], network: nn.Module) -> None:
    zero = torch.zeros_like(stored["images"])
    highest, lowest = Transcribed(network, stored, "mce", as_code=True).run("l2", 0.6, 40, zero)
    assert told("l2, highest loss", highest, stored["l2_mce_best_loss"]) < 1e-8
    assert told("l2, lowest accuracy", lowest, stored["l2_mce_best_accuracy"]) < 1e-8
    goal = sr.Objective(CrossEntropy(), StillCorrect(), track=CrossEntropy())
    inner = sr.attacks.Iterative(goal, sr.make_threat("l2", 0.6, "radial"), sr.attacks.Apgd(), 40)
    found = sr.Attack("l2", inner)(sr.wrap(network, num_classes=CLASSES), stored["images"], stored["labels"])
    paper = Transcribed(network, stored, "mce", as_code=False).run("l2", 0.6, 40, zero)[1]
    assert told("l2, ours and the transcription with the papers' rules", found.delta, paper) < 1e-9
