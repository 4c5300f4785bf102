"""Masks that cover every place of a patch, by trying all; fills that see nothing of what is hidden, bit for bit."""

import math

import pytest
import torch

from segradius.attacks.patch import squares
from segradius.certification.masks import FILLS, check_covers, covering, hidden, missed
from segradius.core.errors import InputError


def missed_by_hand(masks, side):
    height, width = masks.shape[1:]
    places = [(r, c) for r in range(height - side + 1) for c in range(width - side + 1)]
    patches = squares(torch.tensor(places), side, height, width)
    return sum(not (patch <= masks).flatten(1).all(1).any() for patch in patches)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (6, 11), (12, 5)])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_set_hides_the_patch_at_every_place_and_without_its_first_mask_does_not(height, width, side):
    for rows, columns in ((1, 1), (1, 3), (2, 2), (3, 4), (5, 12)):
        masks = covering(side, height, width, rows, columns)
        assert len(masks) <= rows * columns
        assert missed_by_hand(masks, side) == missed(masks, side) == 0
        assert missed_by_hand(masks[1:], side) == missed(masks[1:], side) > 0


def test_no_more_masks_are_made_than_there_are_places():
    assert len(covering(3, 4, 4, 10, 10)) == 4


def test_sizes_are_those_of_the_paper():
    masks = covering(11, 96, 128, 6, 6)  # strides ⌈86/6⌉ = 15 and ⌈118/6⌉ = 20
    assert masks[0].any(1).sum() == 15 + 11 - 1
    assert masks[0].any(0).sum() == 20 + 11 - 1
    assert masks[-1][-1, -1]


def test_a_set_that_does_not_cover_is_refused():
    masks = covering(2, 6, 8, 2, 2)
    check_covers(masks, 2)
    with pytest.raises(InputError, match="hidden by no mask at 7 of its places"):
        check_covers(masks, 4)
    with pytest.raises(InputError, match="bool"):
        check_covers(masks.float(), 2)
    for given in ((7, 6, 8, 2, 2), (0, 6, 8, 2, 2), (2, 6, 8, 0, 2)):
        with pytest.raises(InputError, match="expected"):
            covering(*given)


@pytest.mark.parametrize("name", FILLS)
class TestEveryFill:
    def test_sees_nothing_of_what_is_hidden_bit_for_bit(self, name):
        torch.manual_seed(0)
        images, where = torch.rand(3, 2, 9, 13), torch.rand(3, 9, 13) < 0.4
        found = hidden(images, where, FILLS[name])
        for junk in (math.nan, math.inf, 0.0, 1.0):
            other = hidden(images.masked_fill(where.unsqueeze(1), junk), where, FILLS[name])
            assert torch.equal(found, other)
        assert torch.equal(found.masked_select(~where.unsqueeze(1)), images.masked_select(~where.unsqueeze(1)))
        assert 0 <= found.min() <= found.max() <= 1

    def test_does_not_mix_images(self, name):
        torch.manual_seed(1)
        images, where = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) < 0.4
        alone = [hidden(images[i : i + 1], where[i : i + 1], FILLS[name]) for i in range(2)]
        torch.testing.assert_close(hidden(images, where, FILLS[name]), torch.cat(alone))

    def test_has_the_gradient_of_the_visible_alone(self, name):
        torch.manual_seed(2)
        images, where = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True), torch.zeros(1, 5, 6).bool()
        where[0, 1:4, 2:5] = True
        assert torch.autograd.gradcheck(lambda x: hidden(x, where, FILLS[name]), (images,))
        (gradient,) = torch.autograd.grad(hidden(images, where, FILLS[name]).sum(), images)
        assert not gradient[0, 0][where[0]].any()

    def test_leaves_a_constant_image_as_it_is_but_for_grey(self, name):
        where = torch.zeros(1, 16, 16).bool()
        where[0, 2:9, 3:12] = True
        found = hidden(torch.full((1, 3, 16, 16), 0.2), where, FILLS[name])
        torch.testing.assert_close(found[0, 0][where[0]].mean(), torch.tensor(0.5 if name == "grey" else 0.2))

    def test_fills_an_image_of_which_nothing_is_visible(self, name):
        assert hidden(torch.rand(1, 3, 4, 6), torch.ones(1, 4, 6).bool(), FILLS[name]).isfinite().all()


def test_the_pyramid_goes_on_across_a_hole_as_the_mean_does_not():
    ramp = torch.linspace(0, 1, 24, dtype=torch.float64).expand(1, 1, 24, 24)
    where = torch.zeros(1, 24, 24).bool()
    where[0, 8:14, 9:15] = True
    assert (hidden(ramp, where, FILLS["pyramid"]) - ramp).abs().max() < 0.1
    assert (hidden(ramp, where, FILLS["mean"]) - ramp).abs().max() > 0.1
