"""Sets of structures are what K independent yes/no answers are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.core.label_sets import MOST, members, set_logits, set_names, to_masks, to_sets


@settings(deadline=None, max_examples=30)
@given(st.integers(1, MOST), st.integers(0, 2**31))
def test_softmax_entropy_and_argmax_are_those_of_sigmoids(k: int, seed: int) -> None:
    z = torch.randn(2, k, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    masks = torch.rand(2, k, 3, 4, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    sets = to_sets(masks)
    assert torch.equal(to_masks(sets, k), masks)
    joint = set_logits(z)
    product = torch.where(members(k).view(1, -1, k, 1, 1), z.sigmoid().unsqueeze(1), (-z).sigmoid().unsqueeze(1)).prod(
        2
    )
    torch.testing.assert_close(joint.softmax(1), product)
    bce = functional.binary_cross_entropy_with_logits(z, masks.double(), reduction="none").sum(1)
    torch.testing.assert_close(functional.cross_entropy(joint, sets, reduction="none"), bce)
    assert torch.equal(joint.argmax(1), to_sets(z > 0))
    best = joint.topk(2, dim=1).values
    torch.testing.assert_close(best[:, 0] - best[:, 1], z.abs().amin(1))


def test_names_are_in_the_order_of_the_sets() -> None:
    names = set_names(("a", "b", "c"))
    assert names[to_sets(torch.tensor([1, 0, 1]).view(3, 1, 1)).item()] == "a + c"
    assert len(set(names)) == 8


@pytest.mark.parametrize("k", [0, MOST + 1])
def test_number_of_structures_is_bounded(k: int) -> None:
    with pytest.raises(InputError, match=r"expected 1 to 8 channels"):
        members(k)
