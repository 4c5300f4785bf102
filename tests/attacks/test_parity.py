"""Attacks against independent implementations, their definitions and known optima; the paper's two facts about σ."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import segradius as sr
from segradius.attacks import make_attack
from segradius.attacks.apgd import Apgd, checkpoints
from segradius.attacks.base import Task
from segradius.attacks.loop import Observation, Room
from segradius.objectives.goal import Goal
from segradius.objectives.losses import LOSSES
from segradius.threats.threat import NORMS, make_threat
from tiny import CLASSES, VOID, batch, linear, network


def few_line_pgd(net: Any, x: torch.Tensor, y: torch.Tensor, norm: str, eps: float, alpha: float) -> torch.Tensor:
    """Ten steps of projected gradient ascent as the paper's published code takes them, image by image."""
    out = []
    for image, label in zip(x, y, strict=True):
        d = torch.zeros_like(image)
        for _ in range(10):
            d.requires_grad_()
            loss = F.cross_entropy(net((image + d)[None]), label[None], ignore_index=VOID)
            (g,) = torch.autograd.grad(loss, d)
            d = d.detach()
            d = d + alpha * (g.sign() if norm == "linf" else g / g.norm(p={"l1": 1, "l2": 2}[norm]))
            p = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
            d = d.clamp(-eps, eps) if norm == "linf" else d * min(1.0, eps / d.norm(p=p).item())
            d = (image + d).clamp(0, 1) - image
        out.append(d)
    return torch.stack(out)


@pytest.mark.parametrize(("norm", "eps"), [("l1", 5.0), ("l2", 0.7), ("linf", 0.05)])
def test_pgd_equals_a_few_independent_lines(norm: str, eps: float) -> None:
    images, labels = batch()
    net = network().eval()
    attack = make_attack("pgd", norm=norm, eps=eps, steps=10, alpha=2.5 * eps / 10, keep="last", projection="radial")
    found = attack(sr.wrap(net, num_classes=CLASSES), images, labels).delta
    assert torch.allclose(found, few_line_pgd(net, images, labels, norm, eps, 2.5 * eps / 10), atol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_with_sigma_inside_the_weight_a_step_of_cr_pgd_is_one_of_pgd(
    norm: str, camvid_model: sr.Segmenter, camvid_batch: Any
) -> None:
    """The paper's letter (Eq. 8 in Eq. 10, σ = 0.001): weights are 0.982 to within 2e-4, and so is the step."""
    images, labels = camvid_batch
    plain = make_attack("fgsm", norm=norm, keep="last")(camvid_model, images, labels).delta
    letter = make_attack("cr_fgsm", norm=norm, keep="last", radius_unit="pixel")(camvid_model, images, labels).delta
    normalised = make_attack("cr_fgsm", norm=norm, keep="last")(camvid_model, images, labels).delta
    length = NORMS[norm].length
    assert (length(plain - letter) / length(plain)).amax() < 2e-4
    assert (length(plain - normalised) / length(plain)).amin() > 0.02


def test_with_sigma_inside_the_weight_cr_pgd_ends_where_pgd_does(camvid_model: sr.Segmenter, camvid_batch: Any) -> None:
    images, labels = camvid_batch
    plain = make_attack("pgd", norm="l2", eps=0.75, steps=20)(camvid_model, images, labels)
    letter = make_attack("cr_pgd", norm="l2", eps=0.75, steps=20, radius_unit="pixel")(camvid_model, images, labels)
    assert (plain.fooled - letter.fooled).abs().sum() < 2e-3 * plain.fooled.sum()


def test_with_the_normalised_radius_cr_pgd_differs_and_is_stronger(
    camvid_model: sr.Segmenter, camvid_batch: Any
) -> None:
    images, labels = camvid_batch
    eps = 0.75  # the images are a quarter of those of the paper's ε = 1.5
    plain = make_attack("pgd", norm="l2", eps=eps, steps=20)(camvid_model, images, labels)
    guided = make_attack("cr_pgd", norm="l2", eps=eps, steps=20)(camvid_model, images, labels)
    assert (plain.delta - guided.delta).flatten(1).norm(dim=1).amin() > 0.05 * eps
    assert guided.fooled.sum() > plain.fooled.sum()


def test_checkpoints_follow_their_recursion() -> None:
    shares = [0.0, 0.22]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    for steps in (50, 100, 1000):
        expected = [math.ceil(p * steps - 1e-9) for p in shares[1:] if math.ceil(p * steps - 1e-9) <= steps]
        assert checkpoints(steps) == tuple(expected)


def scripted(values: list[float], steps: int) -> list[float]:
    """Step sizes that Auto-PGD takes when the tracked loss of its iterates is as scripted, in units of ε."""
    images = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    threat = make_threat("l2", 1.0)
    task = Task(linear(torch.zeros(1)), images, Goal.leave(torch.zeros(1, 2, 2, dtype=torch.long)), None)  # type: ignore[arg-type]
    room = Room(threat, task, threat.budgets(1, images), steps)
    state, sizes, delta = None, [], torch.zeros_like(images)
    for t, value in enumerate(values):
        gradient = torch.ones_like(images)
        seen = Observation(delta, gradient, torch.tensor([value], dtype=torch.float64), t)
        delta, state = Apgd().advance(seen, room, state)
        sizes.append(state.size.item())
    return sizes


def by_definition(values: list[float], steps: int) -> list[float]:
    """Croce and Hein's two conditions, on plain lists."""
    marks, size, sizes = [0, *checkpoints(steps)], 2.0, []
    size_at, best_at = {}, {}
    for t in range(len(values)):
        best = max(values[: t + 1])
        if t in marks:
            size_at[t], best_at[t] = size, best
        if t in marks[1:]:
            before = marks[marks.index(t) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(before, t))
            stuck = size_at[before] == size_at[t] and best_at[before] == best_at[t]
            size = size / 2 if rises < 0.75 * (t - before) or stuck else size
        sizes.append(size)
    return sizes


@pytest.mark.parametrize("seed", range(6))
def test_apgd_halves_its_step_by_the_definition(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    walk = (torch.randn(100, generator=g) + [0.0, 0.5, 1.0][seed % 3]).cumsum(0).tolist()
    assert scripted(walk, 100) == by_definition(walk, 100)


def test_apgd_goes_back_to_its_best_iterate_when_it_halves() -> None:
    images = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    threat = make_threat("l2", 10.0)
    task = Task(linear(torch.zeros(1)), images, Goal.leave(torch.zeros(1, 2, 2, dtype=torch.long)), None)  # type: ignore[arg-type]
    room, state = Room(threat, task, threat.budgets(1, images), 50), None
    deltas = [torch.full_like(images, 0.001 * t) for t in range(12)]
    for t in range(12):  # 11 is the first checkpoint of 50 steps; the loss falls from step 3
        value = torch.tensor([float(t if t <= 3 else -t)], dtype=torch.float64)
        moved, state = Apgd().advance(Observation(deltas[t], torch.zeros_like(images), value, t), room, state)
    # No gradient: the point moves by the momentum from the best iterate alone.
    assert torch.allclose(moved, deltas[3] + 0.25 * (deltas[3] - deltas[10]), atol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_dag_equals_a_few_independent_lines(norm: str) -> None:
    """Xie et al.: raise rival less true logit of the pixels still right, by γ·g/‖g‖, image by image."""
    images, labels = batch(count=3)
    net, eps, gamma = network().eval(), 0.3 if norm == "l2" else 0.03, 0.02
    found = make_attack("dag", norm=norm, eps=eps, alpha=gamma, steps=6, keep="last", projection="radial")
    ours = found(sr.wrap(net, num_classes=CLASSES), images, labels).delta
    p = 2 if norm == "l2" else math.inf
    for image, label, our in zip(images, labels, ours, strict=True):
        delta = torch.zeros_like(image)
        for _ in range(6):
            delta.requires_grad_()
            logits = net((image + delta)[None])[0]
            right = (logits.argmax(0) == label) & (label != VOID)
            true = logits[:, right].gather(0, label[right][None])[0]
            rival = torch.stack([logits[c, right].where(label[right] != c, -math.inf) for c in range(CLASSES)]).amax(0)
            (g,) = torch.autograd.grad((rival - true).sum(), delta)
            delta = delta.detach() + gamma * g / g.norm(p=p)
            delta = delta * min(1.0, eps / delta.norm().item()) if norm == "l2" else delta.clamp(-eps, eps)
            delta = (image + delta).clamp(0, 1) - image
        assert torch.allclose(our, delta, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a dependency of adv-lib, on import
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_dag_equals_adversarial_librarys(norm: str) -> None:
    library = pytest.importorskip(
        "adv_lib.attacks.segmentation",
        reason="needs adv-lib, which is not in the extras: its dependency visdom does not build",
    )
    images, labels = batch(count=3)
    images = 0.4 + 0.2 * images  # the library's perturbation is not brought back into the box
    net, seen, steps = network().eval(), [], 6

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return net(x)

    mask, p = labels != VOID, 2 if norm == "l2" else math.inf
    # No image ever counts as done; the library's last forward pass is then at the perturbation of `steps` steps.
    options = {"masks": mask, "adv_threshold": 1.1, "max_iter": steps + 1, "γ": 0.02, "p": p}
    library.dag(watched, images, labels.masked_fill(~mask, 0), **options)
    attack = make_attack("dag", norm=norm, eps=math.inf, alpha=0.02, steps=steps, keep="last")
    ours = attack(sr.wrap(net, num_classes=CLASSES), images, labels).adversarial
    assert torch.allclose(ours, seen[-1], atol=1e-9)


def test_algorithm_three_to_the_letter_never_moves() -> None:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    letter = make_attack("dag_alg3", norm="linf", eps=0.1, first="zero", steps=5)(model, images, labels)
    assert (letter.delta == 0).all()


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd", "cr_pgd", "mi_fgsm", "segpgd", "cospgd", "flip_pgd", "apgd", "flip_apgd", "sea"]
)
@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1)])
def test_optimum_of_a_linear_model_is_reached(name: str, norm: str, dual: int) -> None:
    """All pixels flip if and only if the ball reaches the hyperplane: at 1.02 times the known distance they must."""
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 6, 6, generator=g, dtype=torch.float64)
    images = 0.5 + 0.1 * (torch.rand(3, 3, 6, 6, generator=g, dtype=torch.float64) - 0.5)
    margins = (images * weights).flatten(1).sum(1)
    bias = -margins.mean() + 0.4
    model = linear(weights, bias)
    labels = model.logits(images).argmax(1)
    distance = (margins + bias).abs() / weights.norm(p=dual)
    for factor, flips in ((1.02, True), (0.98, False)):
        for i in range(3):
            attack = make_attack(name, norm=norm, eps=factor * distance[i].item())
            found = attack(model, images[i : i + 1], labels[i : i + 1])
            assert bool((found.fooled == labels[i].numel()).all()) is flips


@pytest.mark.parametrize("loss", [*(n for n in LOSSES if LOSSES[n].differentiable), "masked_ce", "masked_spherical"])
def test_every_loss_makes_pgd_fool_more_than_it_finds(loss: str) -> None:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    clean = ((model.logits(images).argmax(1) != labels) & (labels != VOID)).sum()
    found = make_attack("pgd", norm="l2", eps=0.8, steps=10, loss=loss)(model, images, labels)
    assert found.fooled.sum() > 1.5 * clean


@pytest.mark.parametrize("name", ["pgd", "cr_pgd", "flip_pgd", "apgd"])
def test_a_real_network_gives_a_batch_what_it_gives_its_images(
    name: str, camvid_model: sr.Segmenter, camvid_batch: Any
) -> None:
    # In float64: kernels round by the size of a batch, and the last bit of float32 decides on the side of a kink.
    camvid_model = replace(camvid_model, network=copy.deepcopy(camvid_model.network).double())
    images, labels = camvid_batch[0][:2].double(), camvid_batch[1][:2]
    guided = {"precision": "float32"} if name == "cr_pgd" else {}
    attack = make_attack(name, norm="l2", eps=0.75, steps=5, **guided)  # type: ignore[arg-type]
    together = attack(camvid_model, images, labels, ids=("a", "b"))
    for i, key in enumerate("ab"):
        alone = attack(camvid_model, images[i : i + 1], labels[i : i + 1], ids=(key,))
        assert (together.delta[i] - alone.delta[0]).abs().amax() < 1e-12
        assert torch.equal(together.prediction[i], alone.prediction[0])
