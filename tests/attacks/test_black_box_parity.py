"""Black-box attacks against independent lines: SimBA, and facts about per-pixel feedback."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import segradius as sr
from segradius.attacks import make_attack
from segradius.attacks.footprint import footprint
from segradius.gradients import TPGE, LocalTPGE
from segradius.gradients.directions import coprime
from segradius.gradients.local import listen, window_sum
from segradius.threats.threat import make_threat
from tiny import CLASSES, VOID, batch, network

EPS = {"l1": 6.0, "l2": 0.8, "linf": 0.1}


def test_cr_pbgd_weighs_by_the_radius_of_its_last_refresh() -> None:
    """With σ inside, at σ = 0.001, all weights are nearly one number, so that steps of a fixed length are PBGD's."""
    images, labels = batch(count=1)
    model = sr.wrap(network(), num_classes=CLASSES)
    same: dict[str, Any] = {"eps": 0.8, "step": "steepest", "alpha": 0.1, "gamma": 0.1, "keep": "last"}
    plain = make_attack("pbgd", queries=21, **same)(model, images, labels)
    letter = make_attack("cr_pbgd", queries=29, radius_unit="pixel", **same)(model, images, labels)
    guided = make_attack("cr_pbgd", queries=29, **same)(model, images, labels)
    assert letter.ledger.by_purpose()["attack"] == plain.ledger.by_purpose()["attack"]
    gap = (letter.delta - plain.delta).norm() / plain.delta.norm()
    assert gap < 0.02
    assert (guided.delta - plain.delta).norm() > 0.1 * plain.delta.norm()


def test_simba_keeps_exactly_the_steps_that_raise_the_loss() -> None:
    images, labels = batch(count=1)
    model, counted = sr.wrap(network(), num_classes=CLASSES), labels != VOID

    def loss(delta: Tensor) -> float:
        p = model.scores((images + delta).clamp(0, 1))
        own = p.gather(1, labels.masked_fill(~counted, 0).unsqueeze(1)).squeeze(1)
        return float(-own.log()[counted].mean())

    keys, size = sr.Randomness(0, ("0",)), images[0].numel()
    start, stride = (keys.integers(size, f"simba {part}") for part in ("start", "stride"))
    step = coprime(int(stride), size)
    threat, delta, place, asked = make_threat("l2", 0.8), torch.zeros_like(images), 0, 1
    best = loss(delta)
    while asked < 40:
        q = torch.zeros(size, dtype=images.dtype)
        q[(int(start) + step * place) % size] = 1.0
        place += 1
        for sign in (1, -1):
            if asked == 40:
                break
            moved = threat.project(delta + sign * 0.3 * q.view_as(images), images)
            asked += 1
            if (value := loss(moved)) > best:
                delta, best = moved, value
                break
    attack = make_attack("simba", eps=0.8, queries=41, alpha=0.3, directions="pixel", keep="last")
    assert torch.allclose(attack(model, images, labels).delta, delta, atol=1e-9)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=5), st.integers(1, 200))
def test_a_stride_without_common_factor_visits_every_place(values: list[int], size: int) -> None:
    for stride in (coprime(value, size) for value in values):
        assert math.gcd(stride, size) == 1
        assert len({stride * place % size for place in range(size)}) == size


def test_square_on_linf_stands_on_the_corners_of_the_ball() -> None:
    images, labels = batch()
    images = images * 0.6 + 0.2  # ε away from the box
    model = sr.wrap(network(), num_classes=CLASSES)
    found = make_attack("square", norm="linf", eps=0.1, queries=40, keep="last")(model, images, labels)
    assert torch.allclose(found.delta.abs(), torch.tensor(0.1).double())


def test_square_on_l2_spends_the_whole_budget() -> None:
    images, labels = batch()
    images = images * 0.2 + 0.4
    model = sr.wrap(network(), num_classes=CLASSES)
    found = make_attack("square", norm="l2", eps=0.3, queries=40, keep="last")(model, images, labels)
    assert torch.allclose(found.delta.flatten(1).norm(dim=1), torch.tensor(0.3).double(), rtol=1e-6)


def test_square_refuses_l1() -> None:
    with pytest.raises(sr.InputError, match="square is defined for l2 and linf, got l1"):
        make_attack("square", norm="l1", eps=1.0)


def pointwise() -> sr.Segmenter:
    """Each pixel's scores depend on that pixel alone."""
    weights = torch.tensor([[3.0, -2.0, 1.0], [-1.0, 2.0, 2.0]]).double()
    return sr.wrap(lambda x: torch.einsum("kc,nchw->nkhw", weights, x), num_classes=2)


def test_local_search_never_loses_on_a_pixel_by_pixel_model() -> None:
    """Tiles of one pixel and a window of one: what is kept is the best that each pixel was offered."""
    images, _ = batch()
    model = pointwise()
    labels = model.logits(images).argmax(1)
    attack = make_attack(
        "local_search", norm="linf", eps=0.3, queries=200, tile=1, window=1, share=0.5, loss="margin", keep="last"
    )
    found = attack(model, images, labels)
    corners = torch.tensor([[r, g, b] for r in (-1, 1) for g in (-1, 1) for b in (-1, 1)]).double() * 0.3
    offers = torch.stack(
        [model.scores((images + c.view(1, 3, 1, 1)).clamp(0, 1)).gather(1, labels.unsqueeze(1)) for c in corners]
    )
    reached = model.scores(found.adversarial).gather(1, labels.unsqueeze(1))
    assert torch.allclose(reached, offers.amin(0), atol=1e-12)


def test_a_window_over_the_whole_image_is_tpge() -> None:
    delta, keys = torch.zeros(2, 3, 5, 6).double(), sr.Randomness(0, ("a", "b"))
    losses = torch.rand(2, 2, 5, 6).double()
    local, plain = LocalTPGE(0.1, window=11), TPGE(0.1)
    draw = plain.draw(delta, keys)
    assert torch.allclose(local.gradient(losses, draw), plain.gradient(losses, draw))


def test_on_a_pixel_by_pixel_loss_the_estimate_is_unbiased_with_a_window_of_one() -> None:
    slope = torch.rand(3, 4, 4).double() * 2 - 1
    keys = sr.Randomness(0, tuple(map(str, range(4000))))
    delta = torch.zeros(4000, 3, 4, 4).double()
    local = LocalTPGE(0.1, window=1)
    draw = local.draw(delta, keys)
    losses = (local.points(delta, draw)[:] * slope).sum(2)
    found = local.gradient(losses, draw)
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - slope).abs() < 5 * error).all()
    assert found.var(0).sum() < TPGE(0.1).gradient(losses, draw).var(0).sum() / 5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 7), st.integers(0, 1000))
def test_window_sum_is_the_plain_double_loop(height: int, width: int, reach: int, seed: int) -> None:
    maps = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)).double()
    expected = torch.zeros_like(maps)
    for i in range(height):
        for j in range(width):
            rows = slice(max(0, i - reach), i + reach + 1)
            columns = slice(max(0, j - reach), j + reach + 1)
            expected[..., i, j] = maps[..., rows, columns].sum((-2, -1))
    assert torch.allclose(window_sum(maps, reach), expected)
    each = torch.tensor([reach, 0, 2])
    found = window_sum(maps, each)
    for n in range(3):
        assert torch.allclose(found[:, n], window_sum(maps[:, n], int(each[n])))


def test_listening_with_one_reach_for_each_image_equals_images_by_themselves() -> None:
    delta, keys = torch.zeros(2, 3, 6, 6).double(), sr.Randomness(0, ("a", "b"))
    losses = torch.rand(2, 2, 6, 6).double()
    draw = LocalTPGE(0.1, window=3).draw(delta, keys)
    both = listen(losses, draw, 0.1, torch.tensor([1, 2]))
    assert torch.allclose(both[0], LocalTPGE(0.1, window=3).gradient(losses, draw)[0])
    assert torch.allclose(both[1], LocalTPGE(0.1, window=5).gradient(losses, draw)[1])


@pytest.mark.parametrize("kernel", [1, 9, 17])
def test_the_footprint_of_a_convolution_is_its_kernel_and_the_tile(kernel: int) -> None:
    torch.manual_seed(0)
    model = sr.wrap(torch.nn.Conv2d(3, 2, kernel, padding=kernel // 2), num_classes=2)
    labels = torch.zeros(2, 128, 128, dtype=torch.long)
    found = footprint(model, torch.full((2, 3, 128, 128), 0.5), labels, tile=8, spacing=64, size=0.05)
    assert found.background < 1e-3
    assert found.window(0.9999) <= 8 + kernel + 1  # the tile has its middle between two pixels
    assert found.window(0.5) <= found.window(0.9)


def test_a_window_measured_for_each_image_beats_tpge_and_costs_four_queries() -> None:
    images, labels = batch(size=32)
    model = sr.wrap(network(), num_classes=CLASSES)
    same: dict[str, Any] = {"norm": "linf", "eps": 0.05, "queries": 61, "directions": "tiles:2"}
    auto = make_attack("local_pbgd", window="auto", **same)(model, images, labels)
    deaf = make_attack("local_pbgd", window=65, **same)(model, images, labels)
    assert auto.ledger.by_purpose() == deaf.ledger.by_purpose()
    assert auto.fooled.sum() > deaf.fooled.sum()
