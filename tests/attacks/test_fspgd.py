"""FSPGD against a few plain lines of its published loss, and what of a network it can look at."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import segradius as sr
from segradius.attacks.fspgd import similarity_loss
from segradius.core.errors import InputError
from segradius.models.averaged import averaged
from segradius.models.networks.pspnet import PSPNet
from segradius.models.watching import middle_layers, watched
from tiny import CLASSES, VOID, Counting, batch, network

EPS, STEPS = 0.05, 6


def published(clean: Tensor, maps: Tensor, share: float, angle: float) -> Tensor:
    """The loss of one image, (1, C, h, w), from the whole table of pairs."""
    before, now = (F.normalize(each, dim=1).flatten(2) for each in (clean, maps))
    table = before.transpose(1, 2) @ before * (1 - torch.eye(before.shape[2], dtype=before.dtype))
    pairs = (table > math.cos(math.radians(angle))).to(before.dtype)
    alike = (pairs * (now.transpose(1, 2) @ now)).sum() / pairs.count_nonzero() / 2
    return -share * F.cosine_similarity(before, now).mean() - (1 - share) * alike


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("entries", [1 << 22, 100])
def test_the_loss_and_its_slope_are_the_published_ones(
    share: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few rows of the table of pairs are held at once."""
    monkeypatch.setattr(sys.modules["segradius.attacks.fspgd"], "_ENTRIES", entries)
    g = torch.Generator().manual_seed(0)
    clean, maps = (torch.randn(3, 4, 5, 6, generator=g, dtype=torch.float64) for _ in range(2))
    maps.requires_grad_()
    found = similarity_loss(clean, maps, torch.ones(3, 10, 12), share, 60.0)
    expected = torch.stack([published(clean[i : i + 1], maps[i : i + 1], share, 60.0) for i in range(3)])
    assert torch.allclose(found, expected, atol=1e-12)
    slopes = [torch.autograd.grad(loss.sum(), maps)[0] for loss in (found, expected)]
    assert torch.allclose(slopes[0], slopes[1], atol=1e-12)


def test_places_count_by_the_weight_of_their_pixels() -> None:
    """A place without any is as if it were not there."""
    g = torch.Generator().manual_seed(0)
    clean, maps = (torch.randn(1, 4, 4, 6, generator=g, dtype=torch.float64) for _ in range(2))
    weights = torch.ones(1, 8, 12)
    weights[..., 8:] = 0
    found = similarity_loss(clean, maps, weights, 0.5, 60.0)
    assert torch.allclose(found, published(clean[..., :4], maps[..., :4], 0.5, 60.0))
    nothing = similarity_loss(clean, maps, torch.zeros(1, 8, 12), 0.5, 60.0)
    assert nothing.tolist() == [0.0]


def test_it_is_the_published_attack() -> None:
    """From a uniform start, λ = t/T, sign steps; no pixel of these is void."""
    images, _ = batch()
    net = network()
    model = sr.wrap(net, num_classes=CLASSES)
    labels = model.logits(images).argmax(1)
    attack = sr.attacks.fspgd(norm="linf", eps=EPS, steps=STEPS, alpha=0.01, keep="last")
    found = attack(model, images, labels, seed=2)

    features = nn.Sequential(*list(network().eval())[:1])  # the first of two convolutions
    noise = sr.make_threat("linf", EPS).start(images, sr.Randomness(2, tuple("0123")))
    deltas = []
    for x, start in zip(images.split(1), noise.split(1), strict=True):
        adversarial = (x + start).clamp(0, 1)
        for t in range(STEPS):
            point = adversarial.clone().requires_grad_()
            loss = published(features(x).detach(), features(point), t / STEPS, 60.0)
            adversarial = adversarial + 0.01 * torch.autograd.grad(loss, point)[0].sign()
            adversarial = (x + (adversarial - x).clamp(-EPS, EPS)).clamp(0, 1)
        deltas.append(adversarial - x)
    assert torch.allclose(found.delta, torch.cat(deltas), atol=1e-9)
    assert found.ledger.forward.tolist() == [STEPS + 2] * 4
    assert found.ledger.backward.tolist() == [STEPS] * 4


def test_published_settings_are_the_defaults() -> None:
    """α = 0.01 for ε = 0.03 and T = 20, both in units of normalised images of standard deviation 0.226 or so."""
    attack = sr.attacks.fspgd(norm="linf", eps=0.03)
    assert attack.total_steps == 20
    assert attack.method.start == "uniform"
    assert attack.method.step.size.per_eps * 0.03 / 20 == pytest.approx(0.01 * 0.225)
    assert attack.method.look.angle == 60


def test_the_middle_of_a_network_is_the_block_around_its_middle_convolution() -> None:
    assert middle_layers(PSPNet(21, layers=101)) == ("layer3.9",)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(4, 2, 1))
    assert middle_layers(net) == ("1.0",)
    with pytest.raises(InputError, match="a Flatten has no convolution, among which the middle is: name a layer"):
        middle_layers(nn.Flatten())


def test_networks_that_are_attacked_together_are_looked_at_each_in_its_middle() -> None:
    images, labels = batch()
    one, other = (sr.wrap(network(seed), num_classes=CLASSES) for seed in range(2))
    both = averaged([one, other])
    assert middle_layers(both.network) == ("networks.0.0", "networks.1.0")
    attack = sr.attacks.fspgd(norm="linf", eps=EPS, steps=STEPS, keep="last")
    found, alone = attack(both, images, labels), attack(one, images, labels)
    assert found.valid.all()
    assert not torch.equal(found.delta, alone.delta)
    twice = attack(averaged([one, sr.wrap(network(0), num_classes=CLASSES)]), images, labels)
    assert torch.allclose(twice.delta, alone.delta, atol=1e-12)


def test_a_layer_is_seen_as_it_is_when_what_follows_changes_it_in_place() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    images = torch.rand(2, 3, 5, 6)
    with watched(net, ["0"]) as maps:
        net(images)
    assert torch.equal(maps[0], net[0](images))
    assert not net[0]._forward_hooks


class Twice(nn.Module):
    """A network with a layer that is run twice, one that never is, and one that gives no map."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.unused, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, CLASSES, 1)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        self.flat(x)
        return self.last(self.shared(self.shared(x)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("shared", "layer 'shared' is run 2 times in a pass"),
        ("unused", "layer 'unused' is run 0 times in a pass"),
        ("flat", r"layer 'flat' gives \(4, 192\); expected a map \(N, C, h, w\)"),
        ("lost", "unknown layer 'lost'"),
    ],
)
def test_a_layer_that_shows_no_map_is_refused(layer: str, message: str) -> None:
    images, labels = batch(dtype=torch.float32)
    attack = sr.attacks.fspgd(norm="linf", eps=EPS, steps=2, layer=layer)
    with pytest.raises(InputError, match=message):
        attack(sr.wrap(Twice(), num_classes=CLASSES), images, labels)


def test_a_network_seen_in_windows_is_refused() -> None:
    images, labels = batch(count=2, dtype=torch.float32)
    model = sr.models.tiled(sr.wrap(Twice(), num_classes=CLASSES), crop=(6, 6))
    with pytest.raises(InputError, match="the watched layer gives 8 maps for 2 images, as it sees them in parts"):
        sr.attacks.fspgd(norm="linf", eps=EPS, steps=2, layer="network.last")(model, images, labels)


def test_what_shows_no_layers_is_refused_before_a_pass() -> None:
    images, labels = batch()
    model = Counting(sr.wrap(network().eval().forward, num_classes=CLASSES))
    with pytest.raises(InputError, match=r"fspgd looks at a layer of the network, and .* shows none"):
        sr.attacks.fspgd(norm="linf", eps=EPS, steps=2)(model, images, labels)
    assert model.forward == 0


def test_void_pixels_and_weights_reach_the_places_of_the_layer() -> None:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    left = labels.clone()
    left[..., 4:] = VOID
    attack = sr.attacks.fspgd(norm="l2", eps=0.5, steps=3, start="zero", keep="last", weighting="still_correct")
    assert (attack(model, images, left).delta[..., 6:] == 0).all()  # beyond the reach of one 3 × 3 convolution
