"""Noise, stripes, DLA, SignHunter and Bandits against lines written anew from what their authors published."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import segradius as sr
from segradius.attacks import make_attack
from segradius.attacks.noise import Noise
from segradius.attacks.signhunter import Part
from segradius.attacks.stripes import Stripes
from segradius.gradients.directions import Dct, Tiles
from tiny import CLASSES, VOID, ScoresOnly, batch, network

EPS = {"l1": 6.0, "l2": 0.8, "linf": 0.1}
P = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
Judge = Callable[[Tensor], float]


def one(norm: str) -> tuple[Tensor, Tensor, float, sr.Segmenter, sr.Threat]:
    """An image, its labels, the value that may stand everywhere, a model and the threat."""
    images, labels = batch(count=1)
    size = EPS[norm] / float(torch.ones_like(images).norm(p=P[norm]))
    return images, labels, size, sr.wrap(network(), num_classes=CLASSES), sr.make_threat(norm, EPS[norm])


def wrong(images: Tensor, labels: Tensor, model: sr.Segmenter) -> Judge:
    """Share of the labelled pixels that are wrong after δ."""
    counted = labels != VOID

    def judge(delta: Tensor) -> float:
        found = model.logits((images + delta).clamp(0, 1)).argmax(1)
        return float((found != labels)[counted].double().mean())

    return judge


def entropy(images: Tensor, labels: Tensor, model: sr.Segmenter) -> Judge:
    """Mean cross-entropy over the labelled pixels after δ."""
    counted = labels != VOID

    def judge(delta: Tensor) -> float:
        p = model.scores((images + delta).clamp(0, 1)).gather(1, labels.masked_fill(~counted, 0).unsqueeze(1))
        return float(-p.squeeze(1)[counted].clamp_min(1e-6).log().mean())

    return judge


def uniform(shape: tuple[int, ...], purpose: str, step: int) -> Tensor:
    return sr.Randomness(0, ("0",)).uniform(shape, purpose, step, dtype=torch.float64)[0]


def drawn_stripes(step: int, shape: tuple[int, ...], width: int = 1) -> Tensor:
    """Rows in even steps, columns in odd ones: a sign for every ``width`` of them, all bands alike; (B, H, W)."""
    found, columns = torch.zeros(shape).double(), step % 2 == 1
    length = shape[2] if columns else shape[1]
    count = math.ceil(length / width)
    u = uniform((1, 1, count) if columns else (1, count, 1), "stripes", step).flatten()
    for k in range(length):
        value = 1.0 if u[k // width] < 0.5 else -1.0
        if columns:
            found[:, :, k] = value
        else:
            found[:, k, :] = value
    return found


@pytest.mark.parametrize("norm", list(EPS))
def test_stripes_keep_the_best_of_those_drawn(norm: str) -> None:
    images, labels, size, model, threat = one(norm)
    judge, best, kept = wrong(images, labels, model), -1.0, torch.zeros_like(images)
    for step in range(12):
        delta = threat.project(size * drawn_stripes(step, images.shape[1:], 2).unsqueeze(0), images)
        if (value := judge(delta)) > best:
            best, kept = value, delta
    attack = make_attack("stripes", norm=norm, eps=EPS[norm], queries=13, width=2, along="alternate", bands="one")
    found = attack(ScoresOnly(model, labels_only=True), images, labels)  # type: ignore[arg-type]
    assert torch.allclose(found.delta, kept, atol=1e-9)
    assert found.fooled.item() == round(best * int((labels != VOID).sum()))


@pytest.mark.parametrize("values", ["uniform", "signs"])
@pytest.mark.parametrize("norm", list(EPS))
def test_noise_has_length_eps_whatever_its_coordinates(norm: str, values: Any) -> None:
    images = torch.full((2, 3, 7, 9), 0.5).double()
    labels = torch.zeros(2, 7, 9, dtype=torch.long)
    rooms: list[Tensor] = []
    for directions in (None, Tiles(4), Dct(0.5)):
        noise = Noise(values) if directions is None else Noise(values, directions)
        rooms += [noise.draw(room_of(norm, images, labels), step) for step in range(2)]
    for drawn in rooms:
        assert torch.allclose(drawn.flatten(1).norm(p=P[norm], dim=1), torch.tensor(EPS[norm]).double())
    assert not torch.equal(rooms[0], rooms[1])
    tiled = rooms[2]
    assert torch.equal(tiled[..., :4, :4], tiled[..., :1, :1].expand_as(tiled[..., :4, :4]))
    assert (torch.equal(rooms[0].abs(), rooms[0].abs()[:, :1, :1, :1].expand_as(images))) == (values == "signs")


def room_of(norm: str, images: Tensor, labels: Tensor) -> sr.attacks.Room:
    from segradius.attacks.base import Task
    from segradius.objectives.goal import Goal

    threat = sr.make_threat(norm, EPS[norm])
    keys = sr.Randomness(0, tuple(map(str, range(len(images)))))
    task: Task[Any] = Task(None, images, Goal.leave(labels), keys)
    return sr.attacks.Room(threat, task, threat.budgets(len(images), images), 10)


@pytest.mark.parametrize(("along", "bands", "width"), [("rows", "one", 1), ("columns", "each", 3)])
def test_a_stripe_has_one_sign_and_bands_differ_where_they_may(along: Any, bands: Any, width: int) -> None:
    images = torch.full((1, 3, 12, 12), 0.5).double()
    drawn = Stripes(along, width, bands).draw(room_of("linf", images, torch.zeros(1, 12, 12, dtype=torch.long)), 3)
    drawn = drawn.transpose(2, 3) if along == "columns" else drawn
    assert torch.equal(drawn, drawn[..., :1].expand_as(drawn))
    assert torch.equal(drawn, drawn[:, :, [k - k % width for k in range(12)]])
    assert torch.equal(drawn[:, 0], drawn[:, 1]) == (bands == "one")
    assert torch.equal(drawn.abs(), torch.full_like(drawn, EPS["linf"]))


@pytest.mark.parametrize(("norm", "flips"), [("linf", "own"), ("l2", "across"), ("l1", "own")])
def test_dla_is_the_best_stripes_and_then_halving_flips(norm: str, flips: str) -> None:
    """Section 3 of the paper: T/5 stripes in turn, then the row of signs, its halves, …, each flip kept if it helps."""
    images, labels, size, model, threat = one(norm)
    judge, rounds = wrong(images, labels, model), 40
    best, signs, columns, level, place = -1.0, torch.zeros_like(images), False, 0, 0
    for step in range(rounds):
        if step < rounds / 5:
            tried = drawn_stripes(step, images.shape[1:]).unsqueeze(0)
            if (value := judge(threat.project(size * tried, images))) > best:
                best, signs, columns = value, tried, step % 2 == 1
            continue
        dim = images.shape[3] if columns == (flips == "own") else images.shape[2]
        chunk = math.ceil(dim / 2**level)
        first, last = place * chunk, min(dim, (place + 1) * chunk)
        tried = signs.clone()
        if columns == (flips == "own"):
            tried[..., first:last] *= -1
        else:
            tried[..., first:last, :] *= -1
        if (value := judge(threat.project(size * tried, images))) > best:
            best, signs = value, tried
        place += 1
        if place == 2**level or last == dim:
            level, place = level + 1, 0
            if level == math.ceil(math.log2(dim)) + 1:
                level = 0
    given: dict[str, Any] = {"norm": norm, "eps": EPS[norm], "queries": rounds + 1, "keep": "last", "flips": flips}
    given |= {"along": "alternate", "bands": "one", "width": 1, "share": 0.2, "loss": "wrong"}
    found = make_attack("dla", **given)(ScoresOnly(model, labels_only=True), images, labels)  # type: ignore[arg-type]
    assert torch.allclose(found.delta, threat.project(size * signs, images), atol=1e-9)


@pytest.mark.parametrize(("norm", "order"), [("linf", "bands"), ("l2", "bands"), ("l1", "pixels")])
def test_signhunter_flips_parts_of_the_row_of_signs(norm: str, order: str) -> None:
    """The authors' Algorithm 2: all signs +, then chunks of ⌈n/2^h⌉, each flip undone unless the loss rose."""
    images, labels, size, model, threat = one(norm)
    judge, shape = entropy(images, labels, model), images.shape[1:]
    row = torch.ones(images.numel()).double()
    per = 1 if order == "bands" else shape[0]

    def point(row: Tensor) -> Tensor:
        laid = row.view(shape) if order == "bands" else row.view(*shape[1:], shape[0]).permute(2, 0, 1)
        return threat.project(size * laid.unsqueeze(0), images)

    best, asked, level, place, n = judge(point(row)), 1, 0, 0, images.numel() // per
    while asked < 60:
        chunk = math.ceil(n / 2**level)
        first, last = place * chunk, min(n, (place + 1) * chunk)
        row[first * per : last * per] *= -1
        asked += 1
        if (value := judge(point(row))) > best:
            best = value
        else:
            row[first * per : last * per] *= -1
        place += 1
        if last == n:
            level, place = level + 1, 0
    attack = make_attack("signhunter", norm=norm, eps=EPS[norm], queries=61, keep="last", order=order, loss="ce")
    assert torch.allclose(attack(model, images, labels).delta, point(row), atol=1e-9)


@given(st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_parts_of_a_level_cover_the_row_once_and_the_row_comes_back(length: int) -> None:
    part, places = Part.first(torch.zeros(1)), torch.arange(length).view(1, -1)
    for level in range(math.ceil(math.log2(length)) + 1):
        covered = torch.zeros(length, dtype=torch.long)
        while int(part.level) == level and covered.sum() < length:
            covered += part.holds(places, length)[0]
            part = part.next(length)
        assert (covered == 1).all()
    assert (int(part.level), int(part.place)) == (0, 0)


@pytest.mark.parametrize("norm", list(EPS))
def test_bandits_is_the_published_update(norm: str) -> None:
    """Prior, exploration and step as in the authors' code, image by image; in l1 with l2's prior."""
    images, labels, _, model, threat = one(norm)
    judge = entropy(images, labels, model)
    gamma, alpha, explore, rate, tile = 0.3, 0.04, 0.5, 0.7, 4
    prior, delta = torch.zeros(3, 2, 2).double(), torch.zeros_like(images)

    def up(v: Tensor) -> Tensor:
        return v.repeat_interleave(tile, 1).repeat_interleave(tile, 2).unsqueeze(0)

    for step in range(8):
        drawn = sr.Randomness(0, ("0",)).normal((3, 2, 2), "bandits", step, dtype=torch.float64)[0]
        noise = explore * drawn / math.sqrt(prior.numel())
        ahead, behind = up(prior + noise), up(prior - noise)
        rise = judge(delta + gamma * ahead / ahead.norm()) - judge(delta + gamma * behind / behind.norm())
        gradient = rise / (gamma * explore) * noise
        if norm == "linf":
            real = (prior + 1) / 2
            plus, minus = real * torch.exp(rate * gradient), (1 - real) * torch.exp(-rate * gradient)
            prior = plus / (plus + minus) * 2 - 1
        else:
            prior = prior + rate * gradient
        along = up(prior)
        along = along.sign() if norm == "linf" else along / along.norm(p=P[norm])
        delta = threat.project(delta + alpha * along, images)
    attack = make_attack(
        "bandits", norm=norm, eps=EPS[norm], queries=17, keep="last", gamma=gamma, alpha=alpha, exploration=explore,
        online_lr=rate, tile=tile, loss="ce",
    )  # fmt: skip
    assert torch.allclose(attack(model, images, labels).delta, delta, atol=1e-9)


@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("name", ["noise", "stripes", "dla", "signhunter", "bandits"])
def test_labels_alone_will_do(name: str, norm: str) -> None:
    images, labels = batch()
    target = ScoresOnly(sr.wrap(network(), num_classes=CLASSES), labels_only=True)
    clean = ((target.scores(images).argmax(1) != labels) & (labels != VOID)).flatten(1).sum(1)
    options = {"gamma": 2.0, "tile": 2} if name == "bandits" else {}
    attack = make_attack(name, norm=norm, eps=3 * EPS[norm], queries=60, loss="wrong", **options)
    assert attack(target, images, labels).fooled.sum() > clean.sum()  # type: ignore[arg-type]
