"""One step of a diffusion model: right time, right scale, and the posterior mean where that is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import segradius as sr
from segradius.models.denoiser_loading import load_denoiser
from segradius.models.diffusion import OneShotDiffusion, cosine_schedule, linear_schedule, time_of

MEAN, SPREAD = 0.3, 0.4


class OfGaussian(nn.Module):
    """The exact ε̂ where every x₀ is N(0.3, 0.4²): (x − √ᾱ E[x₀|x]) / √(1−ᾱ), ᾱ by t from a schedule."""

    def __init__(self, alphas: tuple[float, ...], twice: bool = False) -> None:
        super().__init__()
        self.logs = 0.5 * (np.log1p(-np.array(alphas)) - np.log(alphas))
        self.twice = twice

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        noise = torch.from_numpy(np.exp(np.interp(t.double().numpy(), np.arange(len(self.logs)), self.logs)))
        alpha = (1 / (1 + noise**2)).to(x.dtype).view(-1, 1, 1, 1)
        gain = alpha.sqrt() * SPREAD**2 / (alpha * SPREAD**2 + 1 - alpha)
        clean = MEAN + gain * (x - alpha.sqrt() * MEAN)
        eps = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return torch.cat([eps, torch.full_like(eps, 9.0)], 1) if self.twice else eps


def posterior_mean(noisy: Tensor, sigma: float) -> Tensor:
    """E[x | x + N(0, σ²)] of x in [0, 1] whose 2x − 1 is N(0.3, 0.4²), by hand."""
    mean, spread = (MEAN + 1) / 2, SPREAD / 2
    return mean + spread**2 / (spread**2 + sigma**2) * (noisy - mean)


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5])
@pytest.mark.parametrize("schedule", [linear_schedule(), cosine_schedule()], ids=["linear", "cosine"])
def test_what_it_sees_in_gaussian_noise_is_the_posterior_mean(sigma, schedule):
    noisy = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    adapter = OneShotDiffusion(OfGaussian(schedule), sigma, schedule, time="between", clamp=False)
    torch.testing.assert_close(adapter(noisy), posterior_mean(noisy, sigma), atol=1e-9, rtol=1e-9)


def test_the_nearest_whole_time_is_near_it():
    noisy, schedule = torch.randn(2, 3, 4, 5, dtype=torch.float64), linear_schedule()
    adapter = OneShotDiffusion(OfGaussian(schedule, twice=True), 0.25, clamp=False)
    used = 0.5 * math.sqrt((1 - adapter.alpha) / adapter.alpha)
    torch.testing.assert_close(adapter(noisy), posterior_mean(noisy, used), atol=1e-9, rtol=1e-9)
    assert used == pytest.approx(0.25, rel=0.01)
    neighbours = [abs(math.log(math.sqrt(1 / schedule[adapter.t + by] - 1) / 0.5)) for by in (-1, 0, 1)]
    assert min(neighbours) == neighbours[1]


def test_the_linear_schedule_is_that_of_ddpm_by_hand():
    product, found = 1.0, []
    for step in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
        found.append(product)
    np.testing.assert_allclose(linear_schedule(), found, rtol=1e-12)
    assert linear_schedule()[-1] == pytest.approx(4.04e-5, rel=0.01)


def test_the_cosine_schedule_is_the_squared_cosine_until_its_last_steps():
    level = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    np.testing.assert_allclose(cosine_schedule()[:990], np.array(level[1:991]) / level[0], rtol=1e-9)


def test_sizes_are_fitted_and_undone():
    seen = []

    def eps(x: Tensor, t: Tensor) -> SimpleNamespace:
        seen.append((tuple(x.shape), t.dtype))
        return SimpleNamespace(sample=torch.zeros_like(x))

    images = torch.rand(2, 3, 5, 7)
    padded = OneShotDiffusion(eps, 0.25, size={"multiple_of": 8})(images)
    torch.testing.assert_close(padded, images)  # no noise is seen, and 2y − 1 is within [−1, 1]
    OneShotDiffusion(eps, 0.25, size={"exact": [16, 16]}, time="between")(images)
    assert seen == [((2, 3, 8, 8), torch.int64), ((2, 3, 16, 16), torch.float32)]
    assert OneShotDiffusion(eps, 0.25)(torch.full((1, 3, 2, 2), 3.0)).unique().item() == 1


def test_its_sigma_and_time_are_told():
    behind = sr.denoised(sr.load_model("demo"), OneShotDiffusion(OfGaussian(linear_schedule()), 0.25))
    assert behind.network.sigma == 0.25
    assert "OneShotDiffusion(sigma=0.25, t=144" in behind.name
    assert not any(isinstance(value, bool) for value in time_of(0.25, linear_schedule()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sigma": 0.001}, "sigma is 0.001; the times of the diffusion model are for 0.005"),
        ({"sigma": 0.25, "alphas": (0.2, 0.5)}, "alphas are 2 numbers; expected"),
        ({"sigma": 0.25, "alphas": ()}, "alphas are 0 numbers"),
        ({"sigma": -1}, "sigma"),
        ({"sigma": 0.25, "time": "soon"}, "time"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(sr.InputError, match=said):
        OneShotDiffusion(lambda x, t: x, **options)


def test_another_shape_is_named():
    adapter = OneShotDiffusion(lambda x, t: x[:, :2], 0.25)
    with pytest.raises(sr.SegradiusError, match=r"eps gave \(1, 2, 8, 8\) for \(1, 3, 8, 8\)"):
        sr.denoised(sr.load_model("demo"), adapter).logits(torch.rand(1, 3, 8, 8))


def test_from_the_command_line_it_is_of_your_own_code(tmp_path, monkeypatch):
    (tmp_path / "ours_of_noise.py").write_text("def make():\n    return lambda x, t: 0 * x\n")
    monkeypatch.chdir(tmp_path)
    made, trained = load_denoiser("diffusion,eps=ours_of_noise:make,sigma=0.5,schedule=cosine,size={multiple_of: 4}")
    assert (made.sigma, trained, made.size.multiple_of) == (0.5, None, 4)
    with pytest.raises(sr.InputError, match="sigma"):
        load_denoiser("diffusion,eps=ours_of_noise:make")
