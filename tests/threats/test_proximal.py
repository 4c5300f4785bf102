"""Proximal operators: no point of the box near theirs is better, and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segradius.threats import projections
from segradius.threats.projections import Box, box
from segradius.threats.proximal import PROX
from segradius.threats.threat import NORMS


def cost(name: str, z: Tensor, delta: Tensor, weight: Tensor, metric: Tensor) -> Tensor:
    return 0.5 * (metric * (z - delta).square()).sum(1) + weight * NORMS[name].length(z)


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("name", list(PROX))
def test_nothing_in_the_box_is_cheaper(name: str, accelerator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if accelerator:
        monkeypatch.setattr(projections, "done", lambda images: False)
    torch.manual_seed(0)
    n, m = 400, 12
    images = (torch.rand(n, m, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    delta = torch.randn(n, m, dtype=torch.float64) * 10 ** (3 * torch.rand(n, 1, dtype=torch.float64) - 2)
    metric = torch.rand(n, m, dtype=torch.float64) * 10 ** (4 * torch.rand(n, 1, dtype=torch.float64) - 2) + 1e-8
    weight = 10 ** (5 * torch.rand(n, dtype=torch.float64) - 3.5)
    bounds = box(images)
    found = PROX[name](delta, weight, metric, bounds)
    assert ((found >= bounds.low) & (found <= bounds.high)).all()
    least = cost(name, found, delta, weight, metric)
    for scale in (1e-4, 1e-2, 0.3):
        for way in (found + scale * torch.randn_like(found), found * (1 - scale), found * (1 + scale)):
            other = cost(name, way.clamp(*bounds), delta, weight, metric)
            assert (least <= other * (1 + 1e-9) + 1e-12).all()


def test_in_the_plain_metric_they_are_what_textbooks_say() -> None:
    delta, wide = torch.tensor([[3.0, -4.0, 1.0]]).double(), Box(-torch.full((1, 3), 9.0), torch.full((1, 3), 9.0))
    one, weight = torch.ones_like(delta), torch.tensor([1.5]).double()
    plain = {name: prox(delta, weight, one, wide) for name, prox in PROX.items()}
    torch.testing.assert_close(plain["l1"], torch.tensor([[1.5, -2.5, 0.0]]).double())
    torch.testing.assert_close(plain["l2"], delta * (1 - 1.5 / 26**0.5))
    torch.testing.assert_close(plain["linf"], torch.tensor([[2.75, -2.75, 1.0]]).double())  # 0.25 + 1.25 is cut
