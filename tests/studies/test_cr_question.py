"""The study of where the radius helps: its shares by hand, its halves, its networks, its table of what was foretold."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import segradius as sr
from segradius.objectives import CertifiedRadius

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
study = importlib.import_module("cr_question")
ONE = study.Line("a", 0.5, 20, 1.0, "i", 100, 90, 0.9, 0.5, 0.25, 60, 50, 51, 60, 40)


def logits_of(*probabilities: list[float]) -> Tensor:
    """(1, C, 1, W) logits of pixels with these probabilities."""
    return torch.tensor(probabilities).log().T[None, :, None, :]


def test_shares_of_two_pixels_are_those_of_their_gradients() -> None:
    """A wrong pixel of gradient 0.9 and a right one of 0.4; Eq. 10's weights are those of p = 0.9 and 0.6."""
    wrong, moved = study.shares(
        logits_of([0.1, 0.9], [0.6, 0.4]), torch.zeros(1, 1, 2).long(), torch.ones(1, 1, 2).bool()
    )
    a, b = CertifiedRadius().of_probability(torch.tensor([0.9, 0.6])).tolist()
    assert wrong.item() == pytest.approx(0.9 / 1.3)
    assert moved.item() == pytest.approx(0.9 / 1.3 - 0.9 * a / (0.9 * a + 0.4 * b))


def test_void_pixels_have_no_share() -> None:
    """A third pixel, void and wrong, changes nothing."""
    known = torch.tensor([[[True, True, False]]])
    three = study.shares(logits_of([0.1, 0.9], [0.6, 0.4], [0.01, 0.99]), torch.zeros(1, 1, 3).long(), known)
    two = study.shares(logits_of([0.1, 0.9], [0.6, 0.4]), torch.zeros(1, 1, 2).long(), known[..., :2])
    torch.testing.assert_close(three, two)


class Linear(nn.Module):
    """Logits that are a fixed mix of the bands."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 4, 3, padding=1)
        nn.init.normal_(self.mix.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 4, H, W)."""
        found: Tensor = self.mix(images)
        return found


def test_a_sharper_network_predicts_the_same_and_is_surer() -> None:
    """Three times the logits."""
    model, images = sr.wrap(Linear(), num_classes=4), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    one, other = model.logits(images), study.sharper(model, 3.0).logits(images)
    assert torch.equal(one.argmax(1), other.argmax(1))
    assert (other.softmax(1).amax(1) > one.softmax(1).amax(1)).all()


def test_attacks_on_halves_are_the_whole_where_the_other_half_is_empty(tmp_path: Path) -> None:
    """With every label wrong from the start, weights at wrong pixels alone are CR-PGD's, and at right ones PGD's."""
    model, data = sr.wrap(Linear(), num_classes=4), sr.open_data("scenes:16x16", limit=2)
    samples = [data[place] for place in range(2)]
    worst = model.logits(torch.stack([s.image for s in samples])).argmin(1)
    wrong = [type(s)(id=s.id, image=s.image, label=label) for s, label in zip(samples, worst, strict=True)]
    made = study.attacks(1e-3, 3)  # too short to turn one right
    images, labels = torch.stack([s.image for s in wrong]), torch.stack([s.label for s in wrong])
    deltas = {name: attack(model, images, labels, seed=0).delta for name, attack in made.items()}
    assert torch.equal(deltas["cr_wrong"], deltas["cr_pgd"])
    assert torch.equal(deltas["cr_right"], deltas["pgd"])
    assert not torch.equal(deltas["cr_pgd"], deltas["pgd"])
    lines = study.measure(model, "a", wrong, 255, [(1e-3, 3, 1.0)], ("pgd", "cr_pgd"))
    study.write(lines, tmp_path / "found.csv")
    assert [line.image for line in study.read(tmp_path / "found.csv")] == [s.id for s in wrong]
    assert {(line.clean, line.pgd, line.wrong, line.masked) for line in lines} == {(0, 0, 1.0, None)}


def test_gains_are_pooled_points_and_foretold_ones_lie_on_the_slope(tmp_path: Path) -> None:
    """100 pixels: 60 right under PGD, 50 under CR-PGD: 10 points; 25 points moved: a slope of 0.4."""
    (setting,) = study.settings_of([ONE, ONE])
    assert (setting.pgd, setting.gain, setting.wrong_half, setting.right_half, setting.masked) == (60, 10, 9, 0, 20)
    assert (setting.low, setting.high, setting.moved) == (10, 10, 25)
    assert study.slope([setting]) == pytest.approx(0.4)
    for name in ("seen", "held-out-b"):
        study.write([ONE, ONE], tmp_path / name / "lines.csv")
    table = study.tables(tmp_path)[-1].markdown()
    assert "| +10.0 | +10.0 [+10.0, +10.0] | yes |" in table
    with (tmp_path / "seen" / "lines.csv").open() as file:
        assert next(csv.DictReader(file))["moved"] == "0.25"
