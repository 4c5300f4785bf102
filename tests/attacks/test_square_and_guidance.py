"""Algorithm 2 with refreshed weights and the Square attack against independent lines, image by image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segradius as sr
from segradius.attacks import make_attack
from segradius.attacks.square import pyramids, share
from segradius.gradients import Sphere
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, batch, network

IDS = ("a", "b", "c")
EPS = {"l1": 5.0, "l2": 0.7, "linf": 0.05}
#: 1 / E[u_i²] on the unit sphere in n dimensions.
SCALE: Mapping[str, Callable[[int], float]] = {
    "l1": lambda n: n * (n + 1) / 2,
    "l2": lambda n: n,
    "linf": lambda n: 3 * n / (n + 2),
}


def loss_map(net: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each pixel over the number of labelled ones, (H, W); 0 at void."""
    with torch.no_grad():
        probability = net(image.clamp(0, 1)[None])[0].softmax(0)
    own = probability.gather(0, label.masked_fill(label == VOID, 0)[None])[0]
    return torch.where(label == VOID, 0.0, -own.log()) / (label != VOID).sum()


def margin_loss(net: nn.Module, image: Tensor, label: Tensor) -> float:
    """Mean over the labelled pixels of log(p_rival / p_own), probabilities below 1e-6 counting as that."""
    with torch.no_grad():
        logits = net(image.clamp(0, 1)[None])[0].softmax(0).clamp_min(1e-6).log()
    total = 0.0
    for row, column in (label != VOID).nonzero().tolist():
        own = int(label[row, column])
        total += float(max(logits[c, row, column] for c in range(CLASSES) if c != own) - logits[own, row, column])
    return total / int((label != VOID).sum())


def bring(delta: Tensor, image: Tensor, norm: str) -> Tensor:
    """Scaled into the ball, then clamped into the box."""
    eps, p = EPS[norm], {"l1": 1.0, "l2": 2.0, "linf": math.inf}[norm]
    inside = delta.clamp(-eps, eps) if norm == "linf" else delta * min(1.0, eps / max(float(delta.norm(p=p)), 1e-300))
    return (image + inside).clamp(0, 1) - image


def algorithm_two(
    norm: str, rounds: int, alpha: float, gamma: float, weigh: Callable[[int, int, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and δ of Algorithm 2 for each image; ``weigh`` gives the weights of an image in a round."""
    images, labels = batch(count=3)
    net, found = network().eval(), []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        delta = torch.zeros_like(image)
        for t in range(rounds):
            u = Sphere(NORMS[norm]).draw(delta[None], sr.Randomness(4, (IDS[i],)), t, 1).along[0, 0]
            weights = weigh(i, t, delta)
            ahead, behind = (
                (loss_map(net, image + delta + s * gamma * u, label) * weights).sum().item() for s in (1, -1)
            )
            gradient = (ahead - behind) / (2 * gamma) * u * SCALE[norm](image.numel())
            delta = bring(delta + alpha * gradient, image, norm)
        found.append(delta)
    return images, labels, torch.stack(found)


ALPHA = {"l1": 3e-2, "l2": 3e-2, "linf": 3e-2}


@pytest.mark.parametrize("norm", list(NORMS))
def test_pbgd_equals_a_few_lines_of_algorithm_two(norm: str) -> None:
    gamma = 0.02 * EPS[norm]
    images, labels, expected = algorithm_two(norm, 10, ALPHA[norm], gamma, lambda i, t, delta: torch.ones(8, 8))
    attack = make_attack(
        "pbgd", norm=norm, eps=EPS[norm], projection="radial", alpha=ALPHA[norm], queries=21, keep="last"
    )
    found = attack(sr.wrap(network(), num_classes=CLASSES), images, labels, ids=IDS, seed=4)
    assert torch.allclose(found.delta, expected, atol=1e-9, rtol=0)
    assert (NORMS[norm].length(expected) > EPS[norm] / 20).all()  # it went somewhere


@pytest.mark.parametrize("norm", list(NORMS))
def test_cr_pbgd_equals_algorithm_two_with_weights_that_are_refreshed_every_int_rounds(norm: str) -> None:
    interval, samples, sigma = 4, 2, 0.05
    net, kept = network().eval(), {}

    def weigh(i: int, t: int, delta: Tensor) -> Tensor:
        if t % interval == 0:
            image, keys = batch(count=3)[0][i], sr.Randomness(4, (IDS[i],))
            noise = [keys.normal(image.shape, f"radius/{m}", t, dtype=image.dtype)[0] for m in range(samples)]
            with torch.no_grad():
                smooth = [net((image + delta + sigma * n).clamp(0, 1)[None])[0].softmax(0) for n in noise]
            top = (sum(smooth) / samples).amax(0).clamp(0.5, 0.999998)
            radius = torch.distributions.Normal(0.0, 1.0).icdf(top)
            kept[i] = 1 / (1 + torch.exp(2 * radius - 4))
        return kept[i]

    images, labels, expected = algorithm_two(norm, 10, ALPHA[norm], 0.02 * EPS[norm], weigh)
    options = {"samples": samples, "sigma": sigma, "alpha": ALPHA[norm], "keep": "last", "queries": 21 + 3 * samples}
    attack = make_attack("cr_pbgd", norm=norm, eps=EPS[norm], projection="radial", **options)
    found = attack(sr.wrap(network(), num_classes=CLASSES), images, labels, ids=IDS, seed=4)
    assert torch.allclose(found.delta, expected, atol=1e-9, rtol=0)


def stripes(image: Tensor, keys: sr.Randomness, eps: float) -> Tensor:
    drawn = keys.uniform((3, 1, image.shape[2]), "stripes", dtype=image.dtype)[0]
    return torch.where(drawn < 0.5, eps, -eps).expand_as(image)


def square_linf(image: Tensor, label: Tensor, key: str, p_init: float, queries: int) -> Tensor:
    """Algorithms 1 and 2 of Andriushchenko et al. for one image."""
    net, keys, eps = network().eval(), sr.Randomness(4, (key,)), EPS["linf"]
    height, width = image.shape[1:]
    delta = bring(stripes(image, keys, eps), image, "linf")
    best = margin_loss(net, image + delta, label)
    for t in range(1, queries):
        side = round(math.sqrt(share(p_init, t / (queries + 1)) * height * width))
        side = max(1, min(side, min(height, width) - 1))
        row, column, *signs = keys.uniform((5,), "square", t, dtype=image.dtype)[0].tolist()
        top, left = int(row * (height - side + 1)), int(column * (width - side + 1))
        proposed = delta.clone()
        for channel, sign in enumerate(signs):
            proposed[channel, top : top + side, left : left + side] = eps if sign < 0.5 else -eps
        proposed = bring(proposed, image, "linf")
        loss = margin_loss(net, image + proposed, label)
        if loss > best:
            best, delta = loss, proposed
    return delta


def square_l2(image: Tensor, label: Tensor, key: str, p_init: float, queries: int, first: Tensor) -> Tensor:
    """Algorithms 1 and 3 for one image, from a given start."""
    net, keys, eps = network().eval(), sr.Randomness(4, (key,)), EPS["l2"]
    height, width = image.shape[1:]
    delta, best = first, margin_loss(net, image + first, label)
    for t in range(1, queries):
        side = max(round(math.sqrt(share(p_init, t / (queries + 1)) * height * width)), 3)
        side = min(side + 1 - side % 2, height - 1 + height % 2)
        drawn = keys.uniform((8,), "square", t, dtype=image.dtype)[0].tolist()
        tops, lefts = ([int(u * (n - side + 1)) for u in drawn[a:4:2]] for a, n in ((0, height), (1, width)))
        one, two = ((slice(r, r + side), slice(c, c + side)) for r, c in zip(tops, lefts, strict=True))
        pattern = pyramids(side, image.dtype, image.device)[int(drawn[4] < 0.5)]
        free = max(eps**2 - float(delta.square().sum()), 0) / 3
        proposed = delta.clone()
        for channel in range(3):
            sign = 1 if drawn[5 + channel] < 0.5 else -1
            own = delta[channel][one]
            new = sign * pattern + own / (own.norm() + 1e-10)
            both = delta[channel].clone()
            both[one], both[two] = 0, 0
            power = delta[channel].square().sum() - both.square().sum()
            proposed[channel][two] = 0
            proposed[channel][one] = new / new.norm() * (free + power).sqrt()
        proposed = bring(proposed * (eps / proposed.norm()), image, "l2")
        loss = margin_loss(net, image + proposed, label)
        if loss > best:
            best, delta = loss, proposed
    return delta


def square_attack(norm: str, p_init: float, queries: int) -> Tensor:
    images, labels = batch(count=3)
    options = {"p_init": p_init, "queries": queries + 1, "keep": "last"}
    attack = make_attack("square", loss="margin", norm=norm, eps=EPS[norm], projection="radial", **options)
    return attack(sr.wrap(network(), num_classes=CLASSES), images, labels, ids=IDS, seed=4).delta


@pytest.mark.parametrize("p_init", [0.05, 0.3, 0.8])
def test_square_in_linf_equals_a_straightforward_one(p_init: float) -> None:
    images, labels = batch(count=3)
    found = square_attack("linf", p_init, 60)
    for i, key in enumerate(IDS):
        assert torch.allclose(found[i], square_linf(images[i], labels[i], key, p_init, 60), atol=1e-12, rtol=0)


@pytest.mark.parametrize("p_init", [0.1, 0.3])
def test_square_in_l2_equals_a_straightforward_one(p_init: float) -> None:
    images, labels = batch(count=3)
    found, first = square_attack("l2", p_init, 60), square_attack("l2", p_init, 1)
    for i, key in enumerate(IDS):
        expected = square_l2(images[i], labels[i], key, p_init, 60, first[i])
        assert torch.allclose(found[i], expected, atol=1e-9, rtol=0)
        assert not torch.allclose(found[i], first[i])


def test_square_moves_every_value_as_far_as_ball_and_box_allow() -> None:
    images, _ = batch(count=3)
    found = square_attack("linf", 0.3, 60)
    farthest = torch.where(found > 0, (images + EPS["linf"]).clamp_max(1), (images - EPS["linf"]).clamp_min(0))
    moved = found != 0
    assert torch.allclose(found[moved], (farthest - images)[moved], atol=1e-12, rtol=0)
    assert ((images[~moved] == 0) | (images[~moved] == 1)).all()  # what does not move is at the border of the box


def test_first_square_perturbation_in_l2_is_on_the_sphere_and_each_pair_of_pyramids_has_length_one() -> None:
    images, labels = torch.full((1, 3, 20, 25), 0.5, dtype=torch.float64), torch.zeros(1, 20, 25, dtype=torch.long)
    attack = make_attack("square", loss="margin", norm="l2", eps=0.7, queries=2, keep="last")
    found = attack(sr.wrap(network(), num_classes=CLASSES), images, labels).delta
    assert torch.allclose(found.norm(), torch.tensor(0.7, dtype=torch.float64))
    for side in (3, 5, 8, 13):
        upper, lower = pyramids(side, torch.float64, torch.device("cpu"))
        assert torch.allclose(upper.norm(), torch.tensor(1.0, dtype=torch.float64))
        assert torch.equal(upper.T, lower)
        assert (upper[: side // 2] > 0).all()
        assert (upper[side // 2 :] < 0).all()
        middle = (side - side // 2) // 2 + side // 2, side // 2
        assert upper[middle] == upper.min()


def test_the_schedule_of_square_halves_its_share_nine_times() -> None:
    assert [round(math.log2(0.8 / share(0.8, mark / 10_000))) for mark in (0, 11, 51, 201, 501, 1001, 9999)] == [
        *range(6),
        9,
    ]


class Diary:
    """A journal that keeps the state of the strategy after every round."""

    def __init__(self) -> None:
        self.states: list[Mapping[str, Any]] = []

    def load(self) -> None:
        return None

    def save(self, standing: Callable[[], Mapping[str, Any]]) -> None:
        self.states.append(standing()["state"])


def test_local_search_knows_its_loss_and_no_pixel_loses_where_scores_depend_on_the_pixel_alone() -> None:
    images, labels = batch(count=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), nn.Conv2d(6, CLASSES, 1)).double()
    diary = Diary()
    attack = make_attack("local_search", norm="linf", eps=0.05, tile=1, window=1, share=0.5, queries=60, loss="ce")
    attack(sr.wrap(net, num_classes=CLASSES), images, labels, journal=diary)
    states = diary.states[1:-1]
    assert len(states) > 50
    for before, after in itertools.pairwise(states):
        assert (after["losses"] >= before["losses"]).all()
        true = torch.stack([loss_map(net, x + d, y) for x, d, y in zip(images, after["delta"], labels, strict=True)])
        assert torch.allclose(after["losses"], true, atol=1e-12)
    assert (states[-1]["losses"].sum((1, 2)) > states[0]["losses"].sum((1, 2))).all()
