"""The paper's presets: its published code in a few lines of plain torch, and what each sets of which attack."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import segradius as sr
from segradius.attacks.presets import PRESETS, differences, preset_options
from tiny import CLASSES, VOID, batch, network

EPS = {"l1": 25.0, "l2": 0.4, "linf": 0.03}
PER_EPS = {"l1": 2.5, "l2": 2.5, "linf": 1.0}
KEYS, STEPS, M, SIGMA = sr.Randomness(0, ("0",)), 10, 8, 0.001


def length(delta: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(delta, ord={"l1": 1, "l2": 2, "linf": torch.inf}[norm])


def published(net, x: Tensor, y: Tensor, norm: str, *, guided: bool) -> Tensor:
    """Algorithm 1 as the published code has it: mean over all pixels, steps of length α, scaling, then the box."""
    delta, weights, alpha = torch.zeros_like(x), torch.ones(y.shape), PER_EPS[norm] * EPS[norm] / STEPS
    for t in range(STEPS):
        if guided and t % 5 == 0:
            noise = [KEYS.normal(x.shape[1:], f"radius/{j}", t, dtype=x.dtype) for j in range(M)]
            p = torch.stack([net((x + delta + SIGMA * e).clamp(0, 1)).softmax(1) for e in noise]).mean(0).amax(1)
            radius = torch.distributions.Normal(0.0, 1.0).icdf(p.clamp(1e-8, 0.999998)).relu()
            weights = (1 / (1 + (2 * radius - 4).exp())).detach()
        at = (x + delta).requires_grad_()
        loss = (weights * F.cross_entropy(net(at), y, ignore_index=VOID, reduction="none")).mean()
        (g,) = torch.autograd.grad(loss, at)
        step = alpha * (g.sign() if norm == "linf" else g / length(g, norm))
        delta = delta + step
        if norm == "linf":
            delta = delta.clamp(-EPS[norm], EPS[norm])
        else:
            delta = delta * (EPS[norm] / length(delta, norm)).clamp(max=1)
        delta = (x + delta).clamp(0, 1) - x
    return delta


@pytest.mark.parametrize("name", ["pgd", "cr_pgd"])
@pytest.mark.parametrize("norm", sorted(EPS))
def test_paper_code_is_the_published_code(norm: str, name: str) -> None:
    images, labels = batch(count=1)
    net = network().eval()
    expected = published(net, images, labels, norm, guided=name == "cr_pgd")
    options = preset_options("paper-code", name, norm)
    attack = sr.make_attack(name, norm=norm, eps=EPS[norm], steps=STEPS, **options)
    found = attack(sr.wrap(net, num_classes=CLASSES), images, labels, ignore_index=VOID)
    assert float(expected.abs().max()) > 0.1 * EPS["linf"]
    assert float((found.delta - expected).abs().max()) < 1e-6 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", [*sr.attacks.ATTACKS, *sr.attacks.BLACK_BOX])
def test_every_attack_takes_its_preset_in_every_norm_that_it_has(name: str, preset: str) -> None:
    for form in (name, f"cr_{name}"):
        for norm in ("l1", "l2", "linf"):
            try:
                sr.make_attack(form, norm=norm)
            except sr.InputError:
                continue
            sr.make_attack(form, norm=norm, **preset_options(preset, form, norm))


def test_what_a_preset_changes_is_told() -> None:
    assert differences("paper", "pgd") == ["keep last (best)"]
    assert differences("paper", "cr_pgd") == [
        "keep last (best)",
        "radius_unit pixel (normalised)",
        "clamp false (true)",
    ]
    code = differences("paper-code", "cr_pbgd", "l1")
    assert code == ["judge_every 1 (0)", "directions tiles:2 (pixel)", "projection radial (euclidean)",
                    "samples 16 (8)", "every 100 (its own)", "step sign (ascent)"]  # fmt: skip
    ascents = differences("paper-code", "cr_pbgd", "l2") + differences("paper-code", "pbgd", "l1")
    assert "step sign (ascent)" not in ascents
    assert ascents.count("mean all (labelled)") == 2
    assert "mean all (labelled)" not in differences("paper-code", "nes", "l2")  # whose step has a length of its own
    assert {name: preset.miou.partition(",")[0] for name, preset in PRESETS.items()} == {
        "paper": "MIoU/image",
        "paper-code": "MIoU",
        "published": "MIoU",
        "published-tuned": "MIoU",
    }
    with pytest.raises(sr.InputError, match="unknown preset 'papre'"):
        preset_options("papre", "pgd")


def test_what_is_given_goes_before_a_preset() -> None:
    from segradius.evaluation import make_plans

    (plan,) = make_plans(["cr_pgd"], [("l1", 3.0)], {"every": 3}, "paper-code")
    assert plan.options["every"] == 3
    assert plan.options["projection"] == "radial"
    (same,) = make_plans(["cr_pgd"], [("l1", 3.0)], {"every": 3, "projection": "radial", "keep": "last"})
    assert plan == same
