"""A watch tells robustness from what a single step merely fails to break, on networks with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import small
import torch
from torch import nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.data.sample import Classes, Sample
from segradius.training import Engine, Job, Optimiser, Robustness, Watch, fit

EPS = 0.1
TWO = Classes(("dark", "bright"), ((0, 0, 0), (255, 255, 255)))


class Grey:
    """Images of one half everywhere, class 0."""

    name, classes, ids = "grey", TWO, ("a", "b", "c")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], torch.full((3, 4, 6), 0.5), torch.zeros(4, 6, dtype=torch.int64))


class Trough(nn.Module):
    """The margin of class 0 over class 1 at a brightness of 1/2 + u is 0.3 − sin(πu/ε): below zero at ε/2, not at ε.

    A step of length ε leaps over the trough; ten of ε/10 stop in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shift = images.mean(1) - 0.5
        margin = 0.3 - torch.sin(torch.pi * shift / EPS)
        return torch.stack([margin, torch.zeros_like(margin)], 1) * self.scale


class Slope(nn.Module):
    """The margin at 1/2 + u is b − u: it falls all the way, so that one step is as good as ten."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        margin = self.radius + 0.5 - images.mean(1)
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def watched(network: nn.Module, **options) -> Robustness:
    model = sr.wrap(network, num_classes=2)
    return Watch(norm="linf", eps=EPS, **options)(model, Grey(), torch.device("cpu"))


def test_a_masked_gradient_is_found_out() -> None:
    found = watched(Trough())
    assert found == Robustness(fgsm=1.0, pgd=0.0, pgd_miou=0.0)
    assert found.overfitted


@pytest.mark.parametrize(("radius", "left"), [(1.1 * EPS, 1.0), (0.9 * EPS, 0.0)])
def test_a_slope_is_as_robust_as_it_is_high(radius: float, left: float) -> None:
    found = watched(Slope(radius))
    assert found == Robustness(left, left, left)
    assert not found.overfitted


def test_more_steps_break_no_less() -> None:
    model = sr.wrap(small.network(dropout=0), num_classes=small.CLASSES)
    found = Watch(norm="linf", eps=0.03, images=4)(model, small.HELD_OUT, torch.device("cpu"))
    assert found.pgd <= found.fgsm + 0.02


def test_images_are_spread_over_the_set() -> None:
    seen = []

    class Seen(Grey):
        ids = tuple(map(str, range(10)))

        def __getitem__(self, index: int) -> Sample:
            seen.append(index)
            return super().__getitem__(index)

    model = sr.wrap(Slope(5.0), num_classes=2)
    Watch(images=4)(model, Seen(), torch.device("cpu"))
    assert seen == [0, 3, 6, 9]
    seen.clear()
    Watch(images=40)(model, Seen(), torch.device("cpu"))
    assert seen == list(range(10))


def test_a_training_warns_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trough stays where it is at a learning rate of zero, and its robustness is the run's score."""
    recipe = small.recipe(epochs=1, batch_size=3, optimiser=Optimiser(lr=1e-30))
    watch = Watch(norm="linf", eps=EPS)
    found = fit(Job(sr.wrap(Trough(), num_classes=2), Grey(), Grey(), recipe, tmp_path, watch, Engine("cpu")))
    assert (found.pixacc, found.score) == (1.0, 0.0)
    text = " ".join(capsys.readouterr().err.split())
    assert "epoch 1: catastrophic overfitting? PixAcc is 1.000 under FGSM and 0.000 under PGD" in text
    row = small.rows(tmp_path / "evaluations.csv")[0]
    assert (row["pixacc_fgsm"], row["pixacc_pgd"]) == ("1.0", "0.0")


def test_a_run_without_it_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = small.recipe(epochs=1, batch_size=3, optimiser=Optimiser(lr=1e-30))
    watch = Watch(norm="linf", eps=EPS)
    fit(Job(sr.wrap(Slope(5.0), num_classes=2), Grey(), Grey(), recipe, tmp_path, watch, Engine("cpu")))
    assert "overfitting" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [({"norm": "l3"}, "l3"), ({"eps": 0}, "eps"), ({"steps": 0}, "steps"), ({"images": 0}, "images")],
)
def test_bad_values_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Watch(**options)


def test_in_memory_data_are_the_data() -> None:
    kept = small.InMemory.read(Grey())
    assert (kept.name, kept.classes, kept.ids, len(kept)) == ("grey", TWO, ("a", "b", "c"), 3)
    assert torch.equal(kept[1].image, Grey()[1].image)
