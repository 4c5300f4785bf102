"""Size rules: the smallest size that fits, differentiable, and undone exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models.preprocessing import SizeRule, as_size_rule


@st.composite
def rules(draw):
    k = draw(st.integers(1, 40))
    return SizeRule(multiple_of=k, plus=draw(st.integers(0, k - 1)), mode=draw(st.sampled_from(["pad", "resize"])))


@given(rule=rules(), height=st.integers(1, 300), width=st.integers(1, 300))
def test_target_is_the_smallest_size_of_the_declared_form(rule, height, width):
    smallest = [
        next(s for s in range(side, side + 41) if s % rule.multiple_of == rule.plus) for side in (height, width)
    ]
    assert rule.target(height, width) == tuple(smallest)


@given(rule=rules(), height=st.integers(1, 20), width=st.integers(1, 20))
def test_padding_and_cropping_give_the_image_back(rule, height, width):
    x = torch.rand(2, 3, height, width)
    there = rule.fit(x)
    assert there.shape[-2:] == rule.target(height, width)
    back = rule.undo(there, height, width)
    assert back.shape == x.shape
    if rule.mode == "pad":
        assert torch.equal(back, x)


def test_an_image_that_fits_is_not_touched():
    x = torch.rand(1, 3, 17, 25)
    for mode in ("pad", "resize"):
        rule = SizeRule(multiple_of=8, plus=1, mode=mode)
        assert rule.fit(x) is x
        assert torch.equal(rule.undo(x, 17, 25), x)


def test_padding_repeats_the_border_as_torch_does():
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    assert torch.equal(SizeRule(multiple_of=8).fit(x), functional.pad(x, (0, 1, 0, 3), mode="replicate"))


def test_gradient_through_padding_and_resizing():
    x = torch.rand(1, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    for rule in (SizeRule(multiple_of=4), SizeRule(exact=(6, 4), mode="resize")):
        assert torch.autograd.gradcheck(lambda x, rule=rule: rule.undo(rule.fit(x) ** 2, 3, 5), x)


def test_coarse_logits_are_resized_to_the_padded_size_then_cropped():
    coarse = torch.rand(1, 4, 2, 3)
    full = functional.interpolate(coarse, size=(16, 24), mode="bilinear", align_corners=False)
    assert torch.equal(SizeRule(multiple_of=8).undo(coarse, 13, 20), full[..., :13, :20])


def test_exact_size_pads_small_images_and_names_large_ones():
    assert SizeRule(exact=(8, 9)).fit(torch.rand(1, 3, 5, 9)).shape == (1, 3, 8, 9)
    assert SizeRule(exact=(8, 9), mode="resize").fit(torch.rand(1, 3, 20, 30)).shape == (1, 3, 8, 9)
    with pytest.raises(InputError, match="10x9 cannot be padded to 8x9"):
        SizeRule(exact=(8, 9)).fit(torch.rand(1, 3, 10, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiple_of": 0}, "0 <= plus < multiple_of"),
        ({"multiple_of": 8, "plus": 8}, "plus=8"),
        ({"multiple_of": 2.0}, "multiple_of=2.0"),
        ({"mode": "padd"}, "did you mean 'pad'"),
        ({"exact": (0, 4)}, r"exact=\(0, 4\)"),
        ({"exact": 4}, "exact=4"),
        ({"exact": (4, 4), "multiple_of": 2}, "only one"),
        ({"multiple": 8}, "did you mean 'multiple_of'"),
    ],
)
def test_bad_rules_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        as_size_rule(arguments)


def test_rules_from_yaml_lists():
    assert as_size_rule({"exact": [4, 6]}) == SizeRule(exact=(4, 6))
    assert as_size_rule(None) == SizeRule()
    with pytest.raises(InputError, match="expected a mapping"):
        as_size_rule(32)
