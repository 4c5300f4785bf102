"""A denoiser learns before a frozen network: the network stays as it was, and what is written is the denoiser alone."""

from __future__ import annotations

import copy

import pytest
import torch
from small import CLASSES, HELD_OUT, TRAIN, column, network, recipe
from torch import nn

import segradius as sr
from segradius.cli import main
from segradius.core.errors import InputError
from segradius.models import load_model
from segradius.models.checkpoints import load_state
from segradius.models.denoiser_loading import load_denoiser
from segradius.models.denoisers import ResidualDenoiser
from segradius.training import Engine, Job, Lesson, Optimiser, SegmentationLoss, fit, make_adversary
from segradius.training.adversaries import GaussianNoise
from segradius.training.recipe import flat


def job(folder, base, **changes) -> Job:
    torch.manual_seed(0)
    model = sr.denoised(base, ResidualDenoiser(widths=(8, 8, 8)), trained=False)
    how = recipe(**{"optimiser": Optimiser("adamw", 1e-2), "adversary": GaussianNoise(0.3)} | changes)
    return Job(model, TRAIN, HELD_OUT, how, folder, engine=Engine("cpu"), quiet=True)


def base() -> sr.Segmenter:
    return sr.wrap(network(), num_classes=CLASSES, normalisation="imagenet", size={"multiple_of": 16})


def test_the_network_stays_as_it_was_and_the_weights_are_the_denoisers(tmp_path):
    behind = base()
    before = copy.deepcopy(behind.network.state_dict())
    made = job(tmp_path, behind, epochs=2)
    fit(made)
    torch.testing.assert_close(behind.network.state_dict(), before, rtol=0, atol=0)
    written = load_state(tmp_path / "last.safetensors")
    assert set(written) == set(made.model.network.denoiser.state_dict())
    assert all(each.abs().sum() > 0 for name, each in written.items() if name.startswith("leave"))


def test_mean_squared_error_brings_the_image_back(tmp_path):
    made = job(tmp_path, base(), epochs=24, every=24, loss=SegmentationLoss(restored=1000.0))
    fit(made)
    images = torch.stack([HELD_OUT[i].image for i in range(4)])
    noisy = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    denoiser = made.model.network.denoiser.eval()
    with torch.no_grad():
        left = (denoiser(noisy) - images).square().mean()
    assert left < 0.9 * 0.3**2
    assert column(tmp_path / "train.csv", "loss")[-1] < column(tmp_path / "train.csv", "loss")[0]


def test_the_term_is_the_mean_squared_error_by_hand():
    loss, logits = SegmentationLoss(restored=2.0), torch.zeros(1, 4, 2, 2)
    labels, clean = torch.zeros(1, 2, 2, dtype=torch.int64), torch.rand(1, 3, 2, 2)
    given = {"out": logits, "denoised": clean + 0.5}
    *_, term = loss.terms(given, labels, clean)
    assert term.coefficient * term.total / term.weight == pytest.approx(2 * 0.25)
    assert len(loss.terms(given, labels)) == len(SegmentationLoss().terms(given, labels, clean)) == 1
    assert "restored" not in flat(SegmentationLoss())
    assert "sigma_max" not in flat(GaussianNoise())


def noisy(count: int, first: int = 0, **options) -> torch.Tensor:
    ids = tuple(f"0/{i}" for i in range(first, first + count))
    lesson = Lesson(torch.zeros(count, 3, 16, 16), torch.zeros(count, 16, 16, dtype=torch.int64), ids, 3)
    return make_adversary("gaussian", **options)(None, lesson)


def test_noise_of_a_range_of_sigma_is_drawn_for_each_image():
    drawn = noisy(200, sigma=0.1, sigma_max=0.5)
    found = drawn.flatten(1).std(1)
    assert found.min() > 0.08
    assert found.max() < 0.55
    assert found.mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(noisy(1, 5, sigma=0.1, sigma_max=0.5)[0], drawn[5])
    assert torch.equal(noisy(3, sigma=0.2, sigma_max=0.2), noisy(3, sigma=0.2))
    with pytest.raises(InputError, match=r"sigma_max is 0\.1; expected at least sigma"):
        noisy(1, sigma=0.2, sigma_max=0.1)


def test_from_the_command_line_a_card_comes_that_the_denoiser_option_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "denoised:residual,widths=[4,4,4],base=demo"
    train = f"train --model {text} --data scenes:32x48,4 --scale null --rotate 0 --blur 0 --epochs 1 --batch-size 2"
    noise = "--adversary gaussian --options sigma=0.1,sigma_max=0.5 --restored 10 --out trained"
    assert main([*train.split(), *noise.split()]) == 0
    card = str(tmp_path / "trained" / "last.yaml")
    made, trained = load_denoiser(card)
    assert trained
    behind, images = load_model("demo", denoiser=card), torch.rand(1, 3, 16, 24)
    assert torch.equal(behind.logits(images), load_model(card).logits(images))
    assert isinstance(made, nn.Module)
    common = "--data scenes:32x48,2 --out out --overwrite"
    assert main(f"evaluate --model demo --denoiser {card} {common}".split()) == 0
    assert card in (tmp_path / "out" / "results.json").read_text()
    assert main(f"attack --model demo --denoiser blur --attack pgd --steps 1 --norm l2 --eps 1 {common}".split()) == 0
    certify = f"certify --model demo --denoiser blur --sigma 0.1 --n0 2 --n 60 {common}"
    assert main(certify.split()) == 0
    capsys.readouterr()
    assert main(f"evaluate --target demo --denoiser {card} {common}".split()) == 2
    assert "denoiser is for --model; --target was given" in capsys.readouterr().err
    assert main(["train", "--model", "denoised:residual", "--data", "scenes:32x48,4", "--out", "nowhere"]) == 2
    assert "needs the network that the denoiser is for" in capsys.readouterr().err
