"""The mask operator against plain loops, and the facts of attention over masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models.networks.psa import PointwiseSpatialAttention, collect, distribute, pair_weights


def by_loops(masks, mask, distributes):
    """The operator as the public implementation's kernels define it, one value at a time."""
    n, _, height, width = masks.shape
    half = (mask[0] - 1) // 2, (mask[1] - 1) // 2
    out = masks.new_zeros(n, height * width, height, width)
    for r in range(height):
        for c in range(width):
            for i in range(mask[0]):
                for j in range(mask[1]):
                    there, across = i + r - half[0], j + c - half[1]
                    if not (0 <= there < height and 0 <= across < width):
                        continue
                    value = masks[:, i * mask[1] + j, r, c]
                    if distributes:
                        out[:, r * width + c, there, across] = value
                    else:
                        out[:, there * width + across, r, c] = value
    return out


sides, halves = st.integers(1, 4), st.integers(0, 4)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 2), height=sides, width=sides, half=st.tuples(halves, halves))
def test_the_operator_is_that_of_the_loops(n, height, width, half):
    mask = (2 * half[0] + 1, 2 * half[1] + 1)
    masks = torch.rand(n, mask[0] * mask[1], height, width)
    assert torch.equal(collect(masks, mask), by_loops(masks, mask, distributes=False))
    assert torch.equal(distribute(masks, mask), by_loops(masks, mask, distributes=True))


@pytest.mark.parametrize("operator", [collect, distribute])
@pytest.mark.parametrize("mask", [(3, 5), (3, 1), (5, 7)])
def test_gradient_is_that_of_the_loops(operator, mask):
    masks = torch.rand(1, mask[0] * mask[1], 3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 12, 3, 4, dtype=torch.float64)
    ours = torch.autograd.grad((operator(masks, mask) * weights).sum(), masks)[0]
    theirs = torch.autograd.grad((by_loops(masks, mask, operator is distribute) * weights).sum(), masks)[0]
    assert torch.equal(ours, theirs)
    assert torch.autograd.gradcheck(lambda m: operator(m, mask) ** 2, masks)


def test_the_memory_layout_of_the_masks_does_not_matter():
    masks = torch.rand(2, 15, 4, 5)
    channels_last = masks.contiguous(memory_format=torch.channels_last)
    assert torch.equal(pair_weights(channels_last, (3, 5)), pair_weights(masks, (3, 5)))


def test_a_mask_of_one_value_weighs_each_position_by_itself():
    masks = torch.rand(2, 1, 3, 4)
    assert torch.equal(pair_weights(masks, (1, 1)), torch.diag_embed(masks.flatten(1)))


def test_masks_that_are_equal_everywhere_weigh_by_the_offset_alone():
    one = torch.rand(1, 3 * 5, 1, 1)
    weights = pair_weights(one.expand(1, 15, 6, 7), (3, 5)).view(6, 7, 6, 7)
    for r, c, down, right in ((2, 3, 1, -2), (4, 4, -1, 0), (1, 2, 0, 2)):
        assert weights[r, c, r + down, c + right] == one[0, (1 + down) * 5 + 2 + right, 0, 0]
    # The values around a position, weighed by the mask: a convolution with it, once its border is left out.
    values = torch.rand(1, 1, 6, 7)
    taken = (values.flatten(2) @ weights.view(1, 42, 42).mT).view(1, 1, 6, 7)
    torch.testing.assert_close(taken, functional.conv2d(values, one.view(1, 1, 3, 5), padding=(1, 2)))
    # Spread instead of taken: the transposed convolution.
    given_out = (values.flatten(2) @ weights.view(1, 42, 42)).view(1, 1, 6, 7)
    torch.testing.assert_close(given_out, functional.conv_transpose2d(values, one.view(1, 1, 3, 5), padding=(1, 2)))


def test_a_larger_mask_with_the_same_middle_adds_nothing_where_the_smaller_reaches_all():
    masks = torch.rand(1, 5, 7, 3, 4)
    padded = functional.pad(masks.permute(0, 3, 4, 1, 2), (3, 3, 1, 1), value=9.0).permute(0, 3, 4, 1, 2)
    assert torch.equal(pair_weights(padded.flatten(1, 2), (7, 13)), pair_weights(masks.flatten(1, 2), (5, 7)))


def attention(channels=8, **options):
    torch.manual_seed(0)
    return PointwiseSpatialAttention(channels, **{"mask": (5, 7), "shrink": 1, **options}).double().eval()


@pytest.mark.parametrize("psa_type", [0, 1])
def test_attention_is_a_weighted_mean_of_the_positions(psa_type):
    module, x = attention(psa_type=psa_type, normalisation_factor=2.0), torch.rand(2, 8, 3, 4, dtype=torch.float64)
    masks = module.attention(module.reduce(x))
    maps = by_loops(masks, (5, 7), distributes=psa_type == 1).softmax(1)
    values = module.reduce(x)
    composed = sum(values[..., t // 4, t % 4, None, None] * maps[:, None, t] for t in range(12)) / 2
    torch.testing.assert_close(module(x), torch.cat([x, module.proj(composed)], 1))


def test_both_directions_are_the_two_side_by_side():
    both, x = attention(psa_type=2), torch.rand(1, 8, 3, 4, dtype=torch.float64)
    parts = []
    for psa_type, suffix in ((0, ""), (1, "_p")):
        single = attention(psa_type=psa_type)
        single.reduce, single.attention = getattr(both, f"reduce{suffix}"), getattr(both, f"attention{suffix}")
        single.proj = torch.nn.Identity()
        parts.append(single(x)[:, 8:])
    torch.testing.assert_close(both(x), torch.cat([x, both.proj(torch.cat(parts, 1))], 1))


def test_a_batch_gives_what_its_images_give():
    for options in ({"psa_type": 0}, {"psa_type": 1, "softmax": False}, {"shrink": 2}, {"compact": True}):
        module = attention(**options)
        x = torch.rand(3, 8, 5, 7, dtype=torch.float64)
        torch.testing.assert_close(module(x), torch.cat([module(one[None]) for one in x]))


def test_compact_masks_are_the_maps_themselves():
    x = torch.rand(1, 8, 3, 4, dtype=torch.float64)
    for psa_type in (0, 1):
        compact = attention(psa_type=psa_type, compact=True, mask=(3, 4))
        table = torch.rand(12, 12, dtype=torch.float64)  # [t, s]: what s says of t
        compact.attention = torch.nn.Identity()
        compact.attention.forward = lambda _x, table=table: table.view(1, 12, 3, 4)
        maps = (table if psa_type == 0 else table.T).softmax(0)
        composed = (compact.reduce(x).flatten(2) @ maps).view(1, -1, 3, 4)
        torch.testing.assert_close(compact(x)[:, 8:], compact.proj(composed))


def test_compact_attention_names_the_size_it_takes():
    module = attention(compact=True, mask=(7, 9), shrink=2)
    for size in ((13, 17), (14, 18)):
        assert module(torch.rand(1, 8, *size, dtype=torch.float64)).shape == (1, 16, *size)
    with pytest.raises(InputError, match=r"got a map of 12x17; expected 13x17 .* image of 97x129"):
        module(torch.rand(1, 8, 12, 17, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"psa_type": 3}, "psa_type=3.*0 .collect."),
        ({"mask": (4, 5)}, r"mask=\(4, 5\).*odd"),
        ({"mask": (5,)}, r"mask=\(5,\)"),
        ({"compact": True, "mask": (0, 5)}, r"mask=\(0, 5\).*whole"),
        ({"shrink": 0}, "shrink=0"),
        ({"normalisation_factor": 0.0}, "normalisation_factor=0.0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        PointwiseSpatialAttention(8, **options)


def test_masks_of_another_size_than_promised_are_refused():
    with pytest.raises(InputError, match=r"\(1, 9, 2, 2\): expected \(N, 15, h, w\)"):
        collect(torch.rand(1, 9, 2, 2), (3, 5))
