"""The smoothed model as attacks see it: an average over fixed copies, whatever the batch, the memory and the attack."""

import pytest
import torch

import segradius as sr
from segradius.certification import Noise, Smoothed
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from tiny import CLASSES, VOID, Counting, batch, network

MASK = torch.arange(64).view(8, 8) % 3 == 0
L2_ATTACKS = ("pgd", "fgsm", "mi_fgsm", "segpgd", "cospgd", "flip_pgd", "dag", "apgd", "sea", "cr_pgd", "cr_segpgd")


def smoothed(samples=5, seed=3, keep=8, noise=None, model=None):
    model = sr.wrap(network(), num_classes=CLASSES) if model is None else model
    return Smoothed(model, noise or Noise(0.2), samples, seed, keep)


def by_hand(images, noise, samples=5, seed=3):
    """Mean probabilities by one loop, with the noise of the documented key."""
    model, keys = sr.wrap(network(), num_classes=CLASSES), Randomness(seed, ("",)).spawn("smoothed model")
    total = 0
    for j in range(samples):
        drawn = noise.sigma * keys.normal(images.shape[1:], "smoothing", j, dtype=images.dtype)
        noisy = images + (drawn if noise.where is None else drawn * noise.where)
        total = total + model.logits(noisy.clamp(0, 1) if noise.clamp else noisy).softmax(1) / samples
    return total


@pytest.mark.parametrize("keep", [0, 2, 8])
@pytest.mark.parametrize("noise", [Noise(0.2), Noise(0.2, clamp=True), Noise(0.2, where=MASK)])
def test_values_and_gradients_are_those_of_the_mean_softmax_whatever_is_kept(noise, keep):
    images, labels = batch(3)
    labels = labels.masked_fill(labels == VOID, 0)
    x, y = images.clone().requires_grad_(), images.clone().requires_grad_()
    model = smoothed(noise=noise, keep=keep)
    found, expected = model.logits(x), by_hand(y, noise).log()
    torch.testing.assert_close(found, expected)
    loss = torch.nn.functional.nll_loss
    with model.frozen():
        (gradient,) = torch.autograd.grad(loss(found, labels), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(expected, labels), y)[0])


def test_a_probability_that_is_zero_in_the_mean_keeps_its_logarithm():
    steep = sr.wrap(lambda images: torch.stack([images[:, 0] * 0 - 4e3, images[:, 0]], 1), num_classes=2)
    found = smoothed(model=steep).logits(torch.rand(1, 3, 2, 2))
    assert torch.isfinite(found).all()
    assert (found[:, 0] < -3e3).all()


def test_all_images_get_the_same_noise_and_none_depends_on_its_batch():
    images, _ = batch(3)
    model = smoothed()
    whole = model.logits(torch.cat([images, images[:1]]))
    for i, image in enumerate(images):
        torch.testing.assert_close(whole[i : i + 1], model.logits(image[None]))
    torch.testing.assert_close(whole[3], whole[0])
    assert not torch.allclose(whole, smoothed(seed=4).logits(torch.cat([images, images[:1]])))


@pytest.mark.parametrize("name", L2_ATTACKS)
@pytest.mark.parametrize("keep", [1, 8])
def test_attacks_run_on_it_and_the_charged_ledger_counts_every_pass(name, keep):
    images, labels = batch(2)
    counting = Counting(sr.wrap(network(), num_classes=CLASSES))
    model = smoothed(3, keep=keep, model=counting)
    options = {"steps": 6} if name != "fgsm" else {}
    attack = sr.make_attack(name, norm="l2", eps=0.4, **options)
    found = attack(model, images, labels, ids=("a", "b"))
    assert (found.delta.flatten(1).norm(dim=1) <= 0.4 + 1e-9).all()
    assert found.valid.all()
    charged = model.charged(found.ledger)
    assert (counting.forward, counting.backward) == (charged.forward.sum(), charged.backward.sum())
    alone = attack(model, images[1:], labels[1:], ids=("b",))
    torch.testing.assert_close(alone.delta, found.delta[1:])


def test_the_network_is_left_as_found():
    net = network()
    before = [(m, m.training) for m in net.modules()]
    model = smoothed(model=sr.wrap(net, num_classes=CLASSES), keep=1)
    images, labels = batch(1)
    sr.make_attack("pgd", eps=0.3, steps=2)(model, images, labels)
    assert all(m.training is training for m, training in before)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_charges_by_hand():
    ledger = Ledger(2)
    ledger.enter("attack", forward=10, backward=10)
    ledger.enter("judging", forward=1)
    charged = smoothed(20, keep=8).charged(ledger)
    assert charged.by_purpose() == {
        "attack": {"forward": 2 * (200 + 10 * 12), "backward": 400},
        "judging": {"forward": 40, "backward": 0},
    }


@pytest.mark.parametrize(("given", "named"), [({"samples": 0}, "samples is 0"), ({"keep": -1}, "keep is -1")])
def test_what_makes_no_sense_is_refused(given, named):
    with pytest.raises(InputError, match=named):
        smoothed(**given)
