"""The paper's algorithms in a few lines of plain torch, with the library's random numbers and nothing else of it.

Images stay away from the borders of the box, of which the paper's projections know nothing.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import segradius as sr
from segradius.attacks import Rounds, make_attack, preset_options
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, Counting, ScoresOnly, batch, network

EPS = {"l1": 0.25, "l2": 0.4, "linf": 0.03}
#: α such that an estimate moves by about a fifth of ε, of the letter's length and of the gradient's.
ALPHA = {
    "tpge": {"paper": {"l1": 2.0, "l2": 0.05, "linf": 1e-4}, "dense": {"l1": 0.02, "l2": 0.05, "linf": 5e-3}},
    "opge": {"paper": {"l1": 1e-3, "l2": 1e-4, "linf": 1e-7}},
}
KEYS = sr.Randomness(0, ("0",))
M, INTERVAL, SIGMA, A, B = 3, 4, 0.05, 2.0, -4.0


def middle(count: int = 1) -> tuple[Tensor, Tensor, Any]:
    images, labels = batch(count=count)
    return 0.3 + 0.4 * images, labels, network().eval()


def loss_of(net: Any, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of w_n · L_n over the labelled pixels (Eq. 9)."""
    each = F.cross_entropy(net(x), y, ignore_index=VOID, reduction="none")
    return ((1 if weights is None else weights) * each).sum() / (y != VOID).sum()


def weights_at(net: Any, x: Tensor, t: int, unit: float) -> Tensor:
    """Eq. 10 with a radius of unit · Φ⁻¹(p), which the library keeps in [0, 4.61]."""
    noise = [KEYS.normal(x.shape[1:], f"radius/{j}", t, dtype=x.dtype) for j in range(M)]
    p = torch.stack([net(x + SIGMA * each).softmax(1) for each in noise]).mean(0).amax(1)
    radius = unit * torch.distributions.Normal(0.0, 1.0).icdf(p.clamp(0.5, 0.999998))
    return 1 / (1 + (A * radius + B).exp())


def gap(attack: sr.Attack, net: Any, images: Tensor, labels: Tensor, expected: Tensor) -> float:
    found = attack(sr.wrap(net, num_classes=CLASSES), images, labels)
    assert expected.abs().max() > 0.1 * EPS["linf"]  # it moves
    return float((found.delta - expected).abs().max())


# Algorithm 3


def algorithm_3(net: Any, x: Tensor, y: Tensor, first: Tensor, length: float, unit: float | None) -> Tensor:
    delta, step, point, weights = torch.zeros_like(x), first, x, None
    for t in range(9):
        if unit is not None and t % INTERVAL == 0:
            weights = weights_at(net, point, t, unit)

        def slope(at: Tensor, weights: Tensor | None = weights) -> Tensor:
            at = at.detach().requires_grad_()
            return torch.autograd.grad(loss_of(net, at, y, weights), at)[0]

        step = slope(point + step) - slope(point)
        step = length * step / step.abs().max()
        delta = (delta + step).clamp(-EPS["linf"], EPS["linf"])
        point = point + step
    return delta


@pytest.mark.parametrize("unit", [None, 1.0, SIGMA], ids=["plain", "cr", "cr of the pixel unit"])
@pytest.mark.parametrize("length", [0.5, 0.01], ids=["the paper's length of a step", "a shorter one"])
def test_dag_alg3_is_algorithm_3(unit: float | None, length: float) -> None:
    """From a start in the ball, as from 0 it never moves; under cr_ both gradients have the weights of x_t."""
    images, labels, net = middle()
    first = EPS["linf"] * (2 * KEYS.uniform(images.shape[1:], "linf", dtype=images.dtype) - 1)
    expected = algorithm_3(net, images, labels, first, length, unit)
    guided = {"samples": M, "sigma": SIGMA, "every": INTERVAL, "clamp": False}
    radius = {} if unit is None else {**guided, "radius_unit": "normalised" if unit == 1.0 else "pixel"}
    alpha = {} if length == 0.5 else {"alpha": length}
    same = {"norm": "linf", "eps": EPS["linf"], "steps": 9, "keep": "last", **alpha, **radius}
    attack = make_attack("dag_alg3" if unit is None else "cr_dag_alg3", **same)
    assert gap(attack, net, images, labels, expected) < 1e-9


def test_dag_alg3_ends_inside_ball_and_box_wherever_its_steps_lead() -> None:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    for form in ("paper", "inside"):
        found = make_attack("dag_alg3", norm="linf", eps=0.1, steps=6, form=form, keep="last")(model, images, labels)
        assert found.delta.abs().max() <= 0.1 + 1e-12
        assert 0 <= (images + found.delta).min() <= (images + found.delta).max() <= 1


def test_dag_alg3_inside_takes_all_gradients_in_the_box() -> None:
    images, labels = batch()
    seen: list[tuple[float, float]] = []

    def watched(x: Tensor) -> Tensor:
        seen.append((float(x.detach().min()), float(x.detach().max())))
        return net(x)

    net = network().eval()
    for form, leaves in (("inside", False), ("paper", True)):
        seen.clear()
        make_attack("dag_alg3", norm="linf", eps=0.1, steps=4, form=form)(
            sr.wrap(watched, num_classes=CLASSES), images, labels
        )
        assert any(low < 0 or high > 1 for low, high in seen) is leaves


@pytest.mark.parametrize("form", ["paper", "inside"])
def test_the_best_delta_of_dag_alg3_fools_no_less_than_the_last_or_the_clean_image(form: str) -> None:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    best, last = (
        make_attack("dag_alg3", norm="linf", eps=0.1, steps=6, form=form, keep=keep)(model, images, labels)
        for keep in ("best", "last")
    )
    clean = ((model.logits(images).argmax(1) != labels) & (labels != VOID)).flatten(1).sum(1)
    assert (best.fooled >= torch.maximum(last.fooled, clean)).all()


@pytest.mark.parametrize(
    ("options", "judging"), [({"keep": "last"}, 1), ({"keep": "best"}, 20), ({"form": "inside"}, 1)]
)
def test_the_radius_of_cr_dag_alg3_costs_what_that_of_cr_pgd_does(options: dict[str, Any], judging: int) -> None:
    """T = 20, INT = M = 8: refreshes at t = 0, 8 and 16, each of 8 passes."""
    images, labels = batch(count=2)
    model = Counting(sr.wrap(network(), num_classes=CLASSES))
    found = make_attack("cr_dag_alg3", norm="linf", eps=0.03, **options)(model, images, labels)
    expected = {"attack": (40, 40), "radius": (24, 0), "judging": (judging, 0)}
    assert found.ledger.by_purpose() == {
        purpose: {"forward": 2 * forward, "backward": 2 * backward} for purpose, (forward, backward) in expected.items()
    }
    assert model.forward == 2 * (40 + 24 + judging)
    pgd = make_attack("cr_pgd", norm="linf", eps=0.03)(sr.wrap(network(), num_classes=CLASSES), images, labels)
    assert pgd.ledger.by_purpose()["radius"]["forward"] == 2 * 24


# Algorithm 2


def project(delta: Tensor, norm: str, eps: float) -> Tensor:
    """Proj onto the ball: clip, scale, or subtract the threshold of Duchi et al. (2008)."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        return delta * min(1.0, eps / delta.norm().item())
    if delta.abs().sum() <= eps:
        return delta
    sizes = delta.abs().flatten().sort(descending=True).values
    over = (sizes.cumsum(0) - eps) / torch.arange(1, len(sizes) + 1)
    threshold = over[sizes > over][-1]
    return delta.sign() * (delta.abs() - threshold).clamp_min(0)


def direction(norm: str, like: Tensor, t: int) -> Tensor:
    """u⁽ᵗ⁾, the random number that both draw."""
    return NORMS[norm].sample_sphere(like, KEYS.spawn("sphere 0"), t)


def algorithm_2(
    net: Any,
    x: Tensor,
    y: Tensor,
    norm: str,
    form: str,
    points: int,
    alpha: float,
    unit: float | None = None,
    *,
    void: bool = False,
    sign: bool = False,
) -> Tensor:
    """Algorithm 2 with two points (Eq. 16, 18), or with the one of Eq. 15; void pixels in the mean or not."""
    delta, n, gamma, weights = torch.zeros_like(x), x[0].numel(), 0.05 * EPS[norm], None
    share = (y != VOID).double().mean() if void else 1.0  # Σ/N over Σ/labelled
    with torch.no_grad():
        for t in range(9):
            u = direction(norm, x, t)
            if unit is not None and t % INTERVAL == 0:
                weights = weights_at(net, x + delta, t, unit)
            ahead = loss_of(net, x + delta + gamma * u, y, weights)
            behind = loss_of(net, x + delta - gamma * u, y, weights)
            slope = (ahead - behind) / (2 * gamma) if points == 2 else ahead / gamma
            moment = {"l1": 2 / (n * (n + 1)), "l2": 1 / n, "linf": (n + 2) / (3 * n)}[norm]
            estimate = (n if form == "paper" else 1 / moment) * slope * u
            estimate = estimate.sign() if sign else share * estimate
            delta = project(delta + alpha * estimate, norm, EPS[norm])
    return delta


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("form", ["paper", "dense"])
@pytest.mark.parametrize("unit", [None, 1.0, SIGMA], ids=["pbgd", "cr_pbgd", "cr_pbgd of the pixel unit"])
def test_pbgd_is_algorithm_2(norm: str, form: str, unit: float | None) -> None:
    images, labels, net = middle()
    alpha = ALPHA["tpge"][form][norm]
    expected = algorithm_2(net, images, labels, norm, form, 2, alpha, unit)
    same = {"norm": norm, "eps": EPS[norm], "form": form, "alpha": alpha, "gamma": 0.05 * EPS[norm], "keep": "last"}
    guided = {"samples": M, "sigma": SIGMA, "every": INTERVAL, "clamp": False}
    if unit is None:
        attack = make_attack("pbgd", queries=19, **same)  # 9 rounds of two, and the last verdict
    else:
        guided |= {"radius_unit": "normalised" if unit == 1.0 else "pixel"}
        attack = make_attack("cr_pbgd", queries=19 + 3 * M, **same, **guided)
    assert attack.method.rounds == 9  # type: ignore[attr-defined]
    assert gap(attack, net, images, labels, expected) < 1e-9


@pytest.mark.parametrize("norm", NORMS)
def test_opge_takes_the_step_of_equation_17(norm: str) -> None:
    images, labels, net = middle()
    alpha = ALPHA["opge"]["paper"][norm]
    expected = algorithm_2(net, images, labels, norm, "paper", 1, alpha)
    same = {"eps": EPS[norm], "form": "paper", "step": "ascent", "alpha": alpha, "gamma": 0.05 * EPS[norm]}
    attack = make_attack("opge", norm=norm, queries=10, keep="last", **same)
    assert gap(attack, net, images, labels, expected) < 1e-9


@pytest.mark.parametrize("norm", NORMS)
def test_preset_paper_is_algorithm_2_with_the_mean_over_all_pixels(norm: str) -> None:
    images, labels, net = middle()
    assert 0 < int((labels == VOID).sum()) < labels.numel()
    alpha = ALPHA["tpge"]["paper"][norm]
    expected = algorithm_2(net, images, labels, norm, "paper", 2, alpha, SIGMA, void=True)
    options = preset_options("paper", "cr_pbgd", norm)
    radius = {"samples": M, "sigma": SIGMA, "every": INTERVAL, "alpha": alpha, "gamma": 0.05 * EPS[norm]}
    attack = make_attack("cr_pbgd", norm=norm, eps=EPS[norm], queries=19 + 3 * M, **options | radius)
    assert gap(attack, net, images, labels, expected) < 1e-9
    labelled = algorithm_2(net, images, labels, norm, "paper", 2, alpha, SIGMA)
    assert float((labelled - expected).abs().max()) > 1e-4 * EPS[norm]  # void pixels change the step


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_by_the_sign_is_of_alpha_at_every_value_in_any_norm(norm: str) -> None:
    images, labels, net = middle()
    alpha = 1e-3 * EPS[norm]
    expected = algorithm_2(net, images, labels, norm, "dense", 2, alpha, sign=True)
    same = {"norm": norm, "eps": EPS[norm], "gamma": 0.05 * EPS[norm], "keep": "last"}
    attack = make_attack("pbgd", queries=19, step="sign", alpha=alpha, **same)
    found = attack(sr.wrap(net, num_classes=CLASSES), images, labels, ignore_index=VOID)
    assert float((found.delta - expected).abs().max()) < 1e-9


def test_the_mean_is_of_a_step_that_has_no_length_of_its_own() -> None:
    for step in ("steepest", "sign"):
        with pytest.raises(sr.InputError, match="mean is 'all', which does nothing in pbgd: it is for step=ascent"):
            make_attack("pbgd", step=step, mean="all")


def test_the_letter_of_equation_16_is_that_much_shorter_or_longer_than_the_gradient() -> None:
    """(n + 1)/2 times too short in l1, (n + 2)/3 times too long in l∞: why ``dense`` is the default."""
    images, labels, net = middle()
    n = images[0].numel()
    for norm, ratio in (("l1", 2 / (n + 1)), ("l2", 1.0), ("linf", (n + 2) / 3)):
        length = {}
        for form in ("paper", "dense"):
            one = {"eps": math.inf, "gamma": 1e-3, "alpha": 1e-6, "queries": 3, "keep": "last"}
            attack = make_attack("pbgd", norm=norm, form=form, **one)
            length[form] = attack(sr.wrap(net, num_classes=CLASSES), images, labels).delta.norm()
        assert float(length["paper"] / length["dense"]) == pytest.approx(ratio, rel=1e-9)


# Budgets


@pytest.mark.parametrize(("name", "queries"), [("pbgd", 30_000), ("cr_pbgd", 37_504)])
def test_pbgd_runs_the_papers_15000_rounds_whatever_they_cost(name: str, queries: int) -> None:
    """2T, and 2T + M·⌈T/INT⌉ with INT = 2M = 16 (the paper's MT/INT is 7,500); one query judges the last iterate."""
    attack = make_attack(name)
    assert attack.method.rounds == 15_000  # type: ignore[attr-defined]
    assert attack.total_steps == queries + 1


@pytest.mark.parametrize("options", [{}, {"samples": 3, "every": 5}, {"samples": 0}])
@pytest.mark.parametrize("queries", [19, 20, 40, 41, Rounds(13)], ids=str)
def test_as_many_rounds_are_run_as_the_attack_says(options: dict[str, Any], queries: Any) -> None:
    images, labels = batch(count=1)
    attack = make_attack("cr_pbgd", queries=queries, keep="last", **options)
    target = ScoresOnly(sr.wrap(network(), num_classes=CLASSES))
    found = attack(target, images, labels)
    assert found.ledger.by_purpose()["attack"]["forward"] == 2 * attack.method.rounds  # type: ignore[attr-defined]
    assert target.asked <= attack.total_steps
    if isinstance(queries, Rounds):
        assert target.asked == attack.total_steps


@pytest.mark.parametrize("name", ["pbgd", "opge", "nes", "zoo"])
def test_a_running_mean_is_refused_where_the_step_has_none(name: str) -> None:
    with pytest.raises(sr.InputError, match=r"momentum is 0\.9, which does nothing in .*: it is for step=steepest"):
        make_attack(name, step="ascent", momentum=0.9)
