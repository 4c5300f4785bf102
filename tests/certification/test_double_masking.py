"""Detection and recovery against patches: the published algorithm by hand, and the theorem by trying every patch."""

import itertools
from functools import partial

import pytest
import torch

import segradius as sr
from segradius.attacks.patch import squares
from segradius.certification.demasked import Demasked
from segradius.certification.double_masking import Looks, look, looks_needed
from segradius.certification.masks import FILLS, covering, hidden
from segradius.certification.patch_check import ALONE, MASKED, patches
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from tiny import CLASSES, Counting, batch, network


def recovered_by_hand(plain, table):
    """One pixel of PatchCleanser: `table[i][j]` is the class under masks i and j, (answer, whether certified)."""
    count = len(table)
    single = [table[i][i] for i in range(count)]
    votes = [single.count(c) for c in range(5)]
    majority = votes.index(max(votes))
    certified = len({table[i][j] for i in range(count) for j in range(count)}) == 1
    for i in range(count):
        if single[i] != majority and all(table[i][j] == single[i] for j in range(count)):
            return single[i], certified
    return majority, certified


@pytest.mark.parametrize("together", [None, 1, 7])
def test_double_masking_is_the_published_algorithm_in_every_pixel(together):
    """A model that reads off a table what it says under which masks, which nearly agree in most pixels."""
    torch.manual_seed(0)
    count, height, width = 4, 6, 50
    single = torch.randint(0, 4, (1, height, width)).expand(count, count, height, width).clone()
    noisy = torch.rand(count, count, height, width) < torch.tensor([0, 0.05, 0.1, 0.2, 0.4, 0.8]).view(-1, 1)
    single[noisy] = torch.randint(0, 5, (int(noisy.sum()),))
    upper = torch.triu(torch.ones(count, count)).bool()
    table = torch.where(upper[..., None, None], single, single.transpose(0, 1))
    masks = covering(2, height, width, 2, 2)

    def answer(images):
        said = []
        for image in images:  # pixels that are hidden are 0, others 1: which masks are they?
            seen = [
                (i, j) for i in range(count) for j in range(count) if torch.equal(image[0] == 0, masks[i] | masks[j])
            ]
            said.append(table[seen[0]] if seen else torch.zeros(height, width).long())
        return torch.nn.functional.one_hot(torch.stack(said), 5).movedim(3, 1).float()

    zero = lambda visible, where: torch.zeros_like(visible)  # noqa: E731
    found = look(answer, torch.ones(1, height, width), 5, masks, zero, together=together)
    expected = [
        recovered_by_hand(0, table[:, :, r, c].tolist()) for r, c in itertools.product(range(height), range(width))
    ]
    assert found.answer.flatten().tolist() == [answer for answer, _ in expected]
    assert found.recovered.flatten().tolist() == [certified for _, certified in expected]
    assert 0 < found.recovered.sum() < height * width
    assert torch.equal(found.alarm, (torch.stack([table[i, i] for i in range(count)]) != 0).any(0))


class Lookup:
    """Any function of the whole image: an answer drawn for each content, by a smooth part and a hash of the image."""

    def __init__(self, seed, wild):
        draws = torch.Generator().manual_seed(seed)
        self.near = torch.randn(3, 1, 3, 3, generator=draws, dtype=torch.float64)
        self.far = torch.randn(3 * 12, 12, generator=draws, dtype=torch.float64)
        self.bias = torch.randn(3, 1, 1, generator=draws, dtype=torch.float64)
        self.wild = wild

    def __call__(self, images):
        x = images.double()
        local = torch.nn.functional.conv2d(x - 0.5, self.near, padding=1)
        hashed = torch.frac(1e3 * torch.sin(self.far @ (7 * x.flatten(1).T))).T.reshape(len(x), 3, *x.shape[2:])
        return local + self.bias + self.wild * hashed


def every_patch(image, side):
    """The image with every binary content at every place, (n, 1, H, W)."""
    height, width = image.shape[1:]
    places = [(r, c) for r in range(height - side + 1) for c in range(width - side + 1)]
    where = squares(torch.tensor(places), side, height, width)
    contents = torch.tensor(list(itertools.product([0.0, 1.0], repeat=side * side)))
    found = image.expand(len(where), len(contents), 1, height, width).clone()
    for i, patch in enumerate(where):
        found[i][:, 0, patch] = contents
    return found.flatten(0, 1)


def looked(model, images, masks, fill):
    return [look(model, image, 3, masks, FILLS[fill]) for image in images]


@pytest.mark.parametrize(("side", "fill"), [(1, "pyramid"), (2, "grey"), (2, "mean")])
def test_no_patch_of_any_content_at_any_place_contradicts_a_certificate(side, fill):
    masks, certified, free = covering(side, 3, 4, 2, 2), torch.zeros(2), torch.zeros(2)
    for seed in range(4):
        model = Lookup(seed, 0.2 + 0.2 * seed)
        image = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(seed))
        clean = look(model, image, 3, masks, FILLS[fill])
        for after in looked(model, every_patch(image, side), masks, fill):
            hurt = (after.plain != clean.plain) & ~after.alarm
            changed = after.answer != clean.answer
            assert not (hurt & clean.detected).any()
            assert not (changed & clean.recovered).any()
            free += torch.tensor([hurt.sum(), changed.sum()])
        certified += torch.tensor([clean.detected.sum(), clean.recovered.sum()])
    assert certified.min() > 0  # the promises are about something,
    assert free.min() > 0  # and patches do what they like elsewhere


def test_masks_that_miss_a_place_are_contradicted():
    broken = 0
    for seed in range(4):
        model, masks = Lookup(seed, 0.5), covering(2, 3, 4, 2, 2)[:1]
        image = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(seed))
        clean = look(model, image, 3, masks, FILLS["grey"])
        for after in looked(model, every_patch(image, 2), masks, "grey"):
            broken += int(((after.answer != clean.answer) & clean.recovered).sum())
    assert broken > 0


def test_every_image_is_looked_at_once_and_told():
    model, steps = Counting(sr.wrap(network(), num_classes=CLASSES)), []
    masks, image = covering(2, 8, 8, 2, 3), batch(1)[0][0]
    found = look(model.logits, image, CLASSES, masks, FILLS["mean"], progress=steps.append)
    assert sum(steps) == 1 + looks_needed(6) == 1 + 6 + 15 == model.forward
    assert found.finite
    known = look(model.logits, image, CLASSES, masks, FILLS["mean"], plain=found.plain)
    assert model.forward == 22 + looks_needed(6)
    assert torch.equal(known.recovered, found.recovered)


def test_detection_alone_takes_a_pass_a_mask_and_says_so_of_recovery():
    steps, masks = [], covering(2, 8, 8, 2, 3)
    model = sr.wrap(network(), num_classes=CLASSES)
    found = look(model.logits, batch(1)[0][0], CLASSES, masks, FILLS["mean"], double=False, progress=steps.append)
    whole = look(model.logits, batch(1)[0][0], CLASSES, masks, FILLS["mean"])
    assert sum(steps) == 1 + looks_needed(6, double=False) == 7
    assert torch.equal(found.detected, whole.detected)
    with pytest.raises(InputError, match="two masks"):
        _ = found.answer


def test_an_answer_that_is_not_finite_is_told():
    def answer(images):
        return torch.where(images.mean() < 0.6, images, torch.nan)

    assert not look(answer, torch.rand(3, 4, 4), 3, covering(1, 4, 4, 2, 2), lambda v, w: torch.ones_like(v)).finite


def test_what_is_recovered_is_what_is_answered():
    torch.manual_seed(3)
    single = torch.randint(0, 2, (3, 8, 8))
    found = Looks(single[0], single, torch.randint(0, 2, (3, 8, 8)).short(), 2)
    assert torch.equal(found.answer[found.recovered], single[0][found.recovered])


def views_by_hand(model, images, masks, fill):
    return torch.stack([model.logits(hidden(images, m.expand(len(images), 8, 8), fill)).log_softmax(1) for m in masks])


@pytest.mark.parametrize("keep", [0, 2, 8])
def test_the_model_under_masks_is_the_mean_of_its_views_and_has_their_gradient(keep):
    model, masks = sr.wrap(network(), num_classes=CLASSES), covering(2, 8, 8, 2, 2)
    images = batch(2)[0].requires_grad_()
    seen = Demasked(model, masks, FILLS["pyramid"], keep)
    expected = views_by_hand(model, images, masks, FILLS["pyramid"]).mean(0)
    torch.testing.assert_close(seen.logits(images), expected)
    weights = torch.rand_like(expected)
    mine, theirs = ((weights * z).sum() for z in (seen.logits(images), expected))
    torch.testing.assert_close(torch.autograd.grad(mine, images)[0], torch.autograd.grad(theirs, images)[0])


@pytest.mark.parametrize("keep", [1, 8])
def test_the_ledger_of_an_attack_under_masks_counts_every_view(keep):
    counting = Counting(sr.wrap(network(), num_classes=CLASSES))
    model = Demasked(counting, covering(2, 8, 8, 2, 2), FILLS["mean"], keep)
    images, labels = batch(2)
    found = sr.attacks.pgd(norm="linf", eps="inf", patch=0.05, place="centre", steps=3)(model, images, labels)
    ledger = model.charged(found.ledger)
    assert ledger.forward.sum() == counting.forward


@pytest.mark.parametrize("double", [True, False])
def test_attacks_stay_in_one_square_contradict_nothing_and_their_ledger_is_exact(double):
    counting = Counting(sr.wrap(network(), num_classes=CLASSES))
    image, masks, fill, ledger = batch(1)[0][0], covering(2, 8, 8, 2, 3), FILLS["mean"], Ledger(1)
    clean = look(counting.logits, image, CLASSES, masks, fill, double=double)
    said = (clean.plain, clean.answer if double else clean.plain)
    before = counting.forward
    attack = partial(sr.make_attack, "flips", steps=4)
    found = list(patches(counting, image, said, masks, fill, 0.07, ledger, attack=attack, double=double))
    assert [each.seen for each in found] == [ALONE, MASKED]
    assert found[0].place == found[1].place
    assert ledger.forward.sum() == counting.forward - before
    changed = 0
    for each in found:
        room = squares(torch.tensor([each.place]), 2, 8, 8)[0]
        assert torch.equal(each.image[:, ~room], image[:, ~room])
        assert not each.undetected(torch.where(clean.detected, clean.plain, -1)).any()
        assert not double or not each.unrecovered(torch.where(clean.recovered, clean.answer, -1)).any()
        assert each.undetected(clean.plain).any() or double  # of what was not promised, something broke
        changed += int((each.after.plain != clean.plain).sum())
    assert changed > 0


def blurred(x):
    """Logits of two classes: whether the mean of 5 × 5 pixels is above one half."""
    mean = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 5, 1, 2)
    return torch.cat([0.5 - mean, mean - 0.5], 1)


@pytest.mark.parametrize(("side", "broken"), [(1, True), (3, False)])
def test_a_promise_that_masks_for_a_smaller_patch_cannot_keep_is_seen_to_break(side, broken):
    model, image = sr.wrap(blurred, num_classes=2), torch.full((3, 12, 12), 0.42)
    masks, fill = covering(side, 12, 12, 4, 4), FILLS["pyramid"]
    clean = look(model.logits, image, 2, masks, fill)
    found = list(patches(model, image, (clean.plain, clean.answer), masks, fill, 9 / 144, Ledger(1)))
    assert clean.recovered.all()
    assert any(each.unrecovered(clean.answer).any() for each in found) is broken
