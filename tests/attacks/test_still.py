"""Images whose gradient was zero throughout are known as such, whatever an attack is made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import segradius as sr

IMAGES = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(3, 4, 5, dtype=torch.int64)


def half_deaf(x: Tensor) -> Tensor:
    """The first image of a batch is rounded, with its gradient; the label wins in all."""
    rounded = torch.cat([(x[:1] * 8).round() / 8, x[1:]])
    mean = rounded.mean(1, keepdim=True)
    return torch.cat([mean + 2, mean * 0, -mean], 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fgsm", {}),
        ("pgd", {"steps": 3}),
        ("pgd", {"steps": 2, "restarts": 2, "start": "uniform"}),
        ("cr_pgd", {"steps": 2, "samples": 2}),
        ("apgd", {"steps": 4}),
        ("sea", {"steps": 5}),
        ("dag", {"steps": 2}),
        ("dag_alg3", {"steps": 2}),
        ("ensemble", {"steps": 2}),
    ],
)
def test_what_has_no_gradient_is_known(name: str, options: dict[str, object]):
    attack = sr.make_attack(name, norm="linf", eps=0.05, **options)
    result = attack(sr.wrap(half_deaf, num_classes=3), IMAGES, LABELS)
    assert result.still.tolist() == [True, False, False]
    assert all(member.still is not None for member in result.members.values())


def test_a_black_box_attack_follows_none():
    attack = sr.make_attack("local_search", norm="linf", eps=0.05, queries=6)
    assert attack(sr.wrap(half_deaf, num_classes=3), IMAGES, LABELS).still is None


def test_pixels_that_may_not_be_changed_have_none_to_follow():
    nowhere = torch.zeros_like(LABELS, dtype=torch.bool)
    result = sr.make_attack("pgd", norm="l2", eps=1.0, steps=2)(
        sr.wrap(half_deaf, num_classes=3), IMAGES, LABELS, changeable=nowhere
    )
    assert result.still.all()
