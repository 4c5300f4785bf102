"""Defences stay in ball and box, are what their papers say, and leave the network as they found it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import segradius as sr
import tiny
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.threats.threat import make_threat
from segradius.training import ADVERSARIES, Lesson, make_adversary

EPS = {"l1": 20.0, "l2": 0.5, "linf": 0.05}
ATTACKED = [name for name in ADVERSARIES if name not in ("none", "gaussian")]
IDS = ("0/a", "0/b", "0/c", "0/d")


def lesson(seed: int = 3, ids=IDS) -> Lesson:
    images, labels = tiny.batch(len(ids))
    return Lesson(images, labels, ids, seed, tiny.VOID)


def model() -> sr.Segmenter:
    return sr.wrap(tiny.network(), num_classes=tiny.CLASSES)


def in_every_ball(test):
    return pytest.mark.parametrize("norm", EPS)(pytest.mark.parametrize("name", ATTACKED)(test))


@in_every_ball
def test_images_are_in_ball_and_box_and_harder(name: str, norm: str) -> None:
    given, network = lesson(), model()
    given.labels[3] = tiny.VOID
    found = make_adversary(name, norm=norm, eps=EPS[norm])(network, given)
    assert found.shape == given.images.shape
    assert found.dtype == given.images.dtype
    assert torch.isfinite(found).all()  # the image without labels too
    assert ((found >= 0) & (found <= 1)).all()
    length = make_threat(norm).norm.length(found - given.images)
    assert (length <= EPS[norm] * (1 + 1e-9)).all()
    before, after = (
        functional.cross_entropy(network.logits(x[:3]), given.labels[:3], ignore_index=tiny.VOID)
        for x in (given.images, found)
    )
    assert after > before


@in_every_ball
def test_network_is_left_as_found(name: str, norm: str) -> None:
    network, fired = tiny.network(), []
    network[4].eval()
    network[0].bias.requires_grad_(False)
    network[0].weight.grad = torch.ones_like(network[0].weight)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_hook(fired.append)  # where a distributed wrapper would start its all-reduce
            parameter.register_post_accumulate_grad_hook(fired.append)
    state = copy.deepcopy(network.state_dict())
    flags = [module.training for module in network.modules()]

    make_adversary(name, norm=norm, eps=EPS[norm])(sr.wrap(network, num_classes=tiny.CLASSES), lesson())

    assert fired == []
    assert [module.training for module in network.modules()] == flags
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(network[0].weight.grad, torch.ones_like(network[0].weight))
    assert all(p.grad is None for p in network.parameters() if p is not network[0].weight)
    assert [p.requires_grad for p in network.parameters()] == [True, False, True, True, True, True]


@in_every_ball
def test_a_row_depends_on_its_image_alone(name: str, norm: str) -> None:
    adversary, given, network = make_adversary(name, norm=norm, eps=EPS[norm]), lesson(), model()
    together = adversary(network, given)
    for i in range(len(IDS)):
        alone = adversary(network, given.only(torch.arange(len(IDS)) == i))
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [*ATTACKED, "gaussian"])
def test_chance_is_keyed_by_seed_and_id(name: str) -> None:
    adversary, network = make_adversary(name, norm="linf", eps=0.05 if name in ATTACKED else None), model()
    found = adversary(network, lesson())
    assert torch.equal(found, adversary(network, lesson()))
    for other in (lesson(seed=4), lesson(ids=("1/a", "1/b", "1/c", "1/d"))):
        assert not torch.equal(found, adversary(network, other))


def test_none_is_the_same_tensor() -> None:
    given = lesson()
    assert make_adversary("none")(model(), given) is given.images


def test_gaussian_is_sigma_times_the_keyed_noise() -> None:
    given = lesson()
    noise = Randomness(given.seed, IDS).normal((3, 8, 8), "augmentation", dtype=torch.float64)
    noisy = make_adversary("gaussian", sigma=0.3)(model(), given)
    assert torch.equal(noisy, given.images + 0.3 * noise)
    assert torch.equal(make_adversary("gaussian", sigma=0.3, clamp=True)(model(), given), noisy.clamp(0, 1))


def algorithm4(given: Lesson, norm: str, eps: float) -> torch.Tensor:
    """FastADT written out: uniform start, one step of 1.25ε, projection."""
    network = tiny.network().eval()
    if norm == "linf":
        start = eps * (2 * Randomness(given.seed, IDS).uniform((3, 8, 8), "linf", dtype=torch.float64) - 1)
        start = (given.images + start).clamp(0, 1) - given.images
    else:
        start = make_threat(norm, eps).start(given.images, Randomness(given.seed, IDS))
    rows = []
    for image, label, delta in zip(given.images, given.labels, start, strict=True):
        x = (image + delta).requires_grad_()
        functional.cross_entropy(network(x[None]), label[None], ignore_index=tiny.VOID).backward()
        if norm == "linf":
            moved = (delta + 1.25 * eps * x.grad.sign()).clamp(-eps, eps)
        else:
            moved = nearest(delta + 1.25 * eps * x.grad / x.grad.norm(), image, eps)
        rows.append((image + moved).clamp(0, 1))
    return torch.stack(rows)


def nearest(delta: torch.Tensor, image: torch.Tensor, eps: float) -> torch.Tensor:
    """The nearest point of l2 ball and box is the δ, shrunk by one factor and cut by the box, that has length ε."""

    def cut(factor: float) -> torch.Tensor:
        return torch.minimum(torch.maximum(factor * delta, -image), 1 - image)

    low, high = 0.0, 1.0
    if cut(1.0).norm() <= eps:
        return cut(1.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cut(middle).norm() <= eps else (low, middle)
    return cut(low)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_fast_adt_is_algorithm_4(norm: str) -> None:
    given = lesson()
    found = make_adversary("fast_adt", norm=norm, eps=EPS[norm])(model(), given)
    torch.testing.assert_close(found, algorithm4(given, norm, EPS[norm]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize(
    ("name", "attack", "per_eps", "steps"),
    [
        ("cr_fast_adt", "cr_fgsm", 1.25, {}),
        *((f"{x}_at", x, 2.5 / 3, {"steps": 3}) for x in ("pgd", "cr_pgd", "segpgd")),
    ],
)
def test_defences_are_the_attacks_of_their_name(name: str, attack: str, per_eps: float, steps: dict, norm: str) -> None:
    given, eps = lesson(), EPS[norm]
    made = sr.make_attack(attack, norm=norm, eps=eps, alpha=per_eps * eps, start="uniform", keep="last", **steps)
    result = made(model(), given.images, given.labels, ids=IDS, seed=given.seed, ignore_index=tiny.VOID)
    found = make_adversary(name, norm=norm, eps=eps)(model(), given)
    torch.testing.assert_close(found, result.adversarial, rtol=0, atol=1e-12)


def test_pixels_without_label_are_only_started() -> None:
    """A network of 1 × 1 convolutions has no gradient at void pixels, and their l∞ start is inside the ball."""
    given = lesson()
    network = sr.wrap(nn.Conv2d(3, tiny.CLASSES, 1, dtype=torch.float64), num_classes=tiny.CLASSES)
    found = make_adversary("fast_adt", norm="linf", eps=0.05)(network, given)
    started = given.images + make_threat("linf", 0.05).start(given.images, Randomness(given.seed, IDS))
    same = (found - started).abs().amax(1) < 1e-12
    assert same[given.labels == tiny.VOID].all()
    assert not same[given.labels != tiny.VOID].any()


def test_a_mixture_changes_the_drawn_images_and_no_others() -> None:
    count, share = 400, 0.5
    ids = tuple(f"0/{i}" for i in range(count))
    given = Lesson(torch.zeros(count, 3, 1, 1), torch.zeros(count, 1, 1, dtype=torch.int64), ids, seed=5)
    drawn = Randomness(5, ids).uniform((), "mixture") < share
    every = make_adversary("gaussian")(model(), given)
    found = make_adversary("gaussian", mix=share)(model(), given)
    assert torch.equal(found[drawn], every[drawn])
    assert torch.equal(found[~drawn], given.images[~drawn])
    assert abs(int(drawn.sum()) - count * share) < 4 * (count * share * (1 - share)) ** 0.5
    assert torch.equal(make_adversary("gaussian", mix=0)(model(), given), given.images)
    assert not given.images.any()


def test_a_mixture_of_share_one_is_the_adversary() -> None:
    assert make_adversary("fast_adt", mix=1) == make_adversary("fast_adt")
    mixed = replace(make_adversary("fast_adt", mix=0.5), share=1.0)
    assert torch.equal(mixed(model(), lesson()), make_adversary("fast_adt")(model(), lesson()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fast_adv", {}, "fast_adt"),
        ("none", {"steps": 3}, "steps"),
        ("gaussian", {"sigma": -1}, "sigma"),
        ("gaussian", {"alpha": 1}, "alpha"),
        ("fast_adt", {"steps": 3}, "steps"),
        ("fast_adt", {"samples": 3}, "samples"),
        ("fast_adt", {"restarts": 2}, "restarts"),
        ("fast_adt", {"mix": 1.5}, "mix"),
        ("fast_adt", {"norm": "l3"}, "l3"),
        ("fast_adt", {"eps": -1}, "eps"),
        ("pgd_at", {"steps": 0}, "steps"),
        ("pgd_at", {"alpha": 0.0}, "alpha"),
    ],
)
def test_bad_options_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_adversary(name, **options)
