"""The mosaic in closed form: patterns, what each place keeps, the bandit that goes on from it, and its surrogate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import segradius as sr
from segradius.attacks.mosaic import PATTERNS, Pattern
from segradius.core.errors import InputError
from tiny import CLASSES, VOID, ScoresOnly, batch, network

EPS = 0.1


def by_pattern(first: Pattern, second: Pattern, images: Tensor) -> sr.Segmenter:
    """The left half of an image is fooled by the first pattern, and its right half by the second."""
    half, shown = images.shape[3] // 2, [each.on(images) for each in (first, second)]

    def forward(x: Tensor) -> Tensor:
        parts = [((x - 0.5) * pattern)[..., places] for pattern, places in zip(shown, _halves(half), strict=True)]
        along = [part.mean((1, 2, 3)) - 0.6 * EPS for part in parts]
        score = torch.stack([each.view(-1, 1, 1).expand(-1, x.shape[2], half) for each in along], 1)
        score = torch.cat([score[:, 0], score[:, 1]], 2)
        return torch.stack([torch.zeros_like(score), 100 * score], 1)

    return sr.wrap(forward, num_classes=2)


def _halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(half, None)


def grey(height: int = 16, width: int = 64) -> tuple[Tensor, Tensor]:
    return torch.full((1, 3, height, width), 0.5).double(), torch.zeros(1, height, width, dtype=torch.long)


def test_stripes_are_plus_and_minus_one_and_their_period_is_a_part_of_the_shorter_side():
    images = torch.zeros(2, 3, 24, 40)
    for pattern in PATTERNS:
        assert pattern.on(images).abs().eq(1).all()
    rows = Pattern(4, 0, None).on(images)
    assert torch.equal(rows, rows[:1, :, :1].expand_as(rows))
    assert rows[0, :, 0].tolist() == ([1.0] * 6 + [-1.0] * 6) * 2
    columns = Pattern(0, 3, None, shift=1).on(images)[0, 0]
    assert columns.tolist() == ([-1.0] * 8 + [1.0] * 8) * 2 + [-1.0] * 8
    assert torch.equal(Pattern(4, 3, None, 0).on(images), rows * -columns)


@pytest.mark.parametrize(
    ("bands", "band", "plus"), [(1, 0, [0]), (3, 0, [2]), (3, 1, [1]), (3, None, [0, 1, 2]), (5, 7, [2])]
)
def test_one_band_stands_against_the_others(bands, band, plus):
    found = Pattern(0, 0, band).on(torch.zeros(1, bands, 2, 2))[:, 0, 0]
    assert found.eq(1).nonzero().flatten().tolist() == plus


@pytest.mark.parametrize("labels_only", [True, False])
def test_each_part_of_an_image_keeps_the_pattern_that_fools_it(labels_only):
    """Neither pattern alone fools more than a half; the mosaic of both, asked about third, fools all."""
    images, labels = grey()
    model = ScoresOnly(by_pattern(PATTERNS[0], PATTERNS[1], images), labels_only=labels_only)
    for queries, fooled in ((2, labels.numel() // 2), (3, labels.numel())):
        attack = sr.make_attack("mosaic", norm="linf", eps=EPS, queries=queries + 1, patterns=2, window=5)
        assert attack(model, images, labels).fooled.item() >= fooled
    found = attack(model, images, labels)
    assert found.ledger.by_purpose()["attack"]["forward"] == 3
    expected = [EPS * PATTERNS[side].on(images)[..., places] for side, places in enumerate(_halves(32))]
    torch.testing.assert_close(found.delta[0, ..., :28], expected[0][..., :28])
    torch.testing.assert_close(found.delta[0, ..., 36:], expected[1][..., 4:])


def test_a_bandit_begins_at_the_mosaic():
    images, labels = grey()
    model = by_pattern(PATTERNS[0], PATTERNS[1], images)
    same = {"norm": "linf", "eps": EPS, "queries": 7, "window": 5, "directions": "tiles:4"}
    assert (
        sr.make_attack("local_pbgd", patterns=2, loss="wrong", **same)(model, images, labels).fooled == labels.numel()
    )
    assert sr.make_attack("local_pbgd", loss="wrong", **same)(model, images, labels).fooled < labels.numel()
    with pytest.raises(InputError, match="both take the first queries"):
        sr.make_attack("local_pbgd", patterns=2, window="auto")


# -- with a surrogate --


def one(seed: int = 0) -> sr.Segmenter:
    return sr.wrap(network(seed), num_classes=CLASSES)


def test_passes_of_a_surrogate_are_counted_apart_and_are_no_queries():
    images, labels = batch()
    target = ScoresOnly(one())
    target.name, target.structures = "target", 0
    attack = sr.make_attack("mosaic", norm="l2", eps=0.8, queries=9, surrogate_steps=3, patterns=2, refresh=0)
    found = attack(sr.transferred(target, [one(1), one(2)]), images, labels)
    guided = 3  # of eight rounds: two patterns, the mosaic itself, and then every second
    passes = 2 * 3 * guided * len(images)
    assert found.ledger.by_purpose() == {
        "attack": {"forward": 8 * len(images), "backward": 0},
        "surrogate": {"forward": passes, "backward": passes},
        "judging": {"forward": len(images), "backward": 0},
    }
    assert target.asked == 9 * len(images)


def test_the_target_itself_as_surrogate_is_fooled_by_fewer_queries_and_the_verdict_is_its_own():
    images, labels = batch()
    attack = sr.make_attack("mosaic", norm="linf", eps=0.1, queries=12, patterns=2, tiles=2, tiles_end=4, window=3)
    alone, guided = attack(one(), images, labels), attack(sr.transferred(one(), one()), images, labels)
    assert guided.fooled.sum() > alone.fooled.sum()
    assert torch.equal(guided.prediction, one().logits(guided.adversarial).argmax(1))
    wrong = (guided.prediction != labels) & (labels != VOID)
    assert torch.equal(guided.fooled, wrong.flatten(1).sum(1))


def test_with_a_surrogate_a_batch_is_its_images_one_by_one_and_both_networks_are_left_as_found():
    images, labels = batch()
    target, surrogate = one(), one(1)
    model = sr.transferred(target, surrogate)
    attack = sr.make_attack("mosaic", norm="l2", eps=0.8, queries=9, patterns=2, tiles=2, tiles_end=4, window=3)
    together = attack(model, images, labels, ids=tuple("abcd"), seed=5)
    for i, key in enumerate("abcd"):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], ids=(key,), seed=5)
        assert torch.allclose(together.delta[i], alone.delta[0], atol=1e-5)
    assert all(each.network.training for each in (target, surrogate))


def test_an_attack_that_asks_alone_refuses_a_surrogate_as_before():
    images, labels = batch()
    with pytest.raises(InputError, match="one that does both, as mosaic"):
        sr.make_attack("local_search", queries=9)(sr.transferred(one(), one(1)), images, labels)
