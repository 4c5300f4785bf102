"""The 1-Lipschitz network: no two images are nearer than their logits, and what its cards state is kept or dropped."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from segradius.core.errors import InputError
from segradius.models import lipschitz_bound, load_model, read_card, wrap
from segradius.models.cards import entries_of, write_card
from segradius.models.networks import LipschitzUNet
from segradius.models.networks.lipschitz_unet import ConvexPotential, Orthogonal

TINY = "lipschitz_unet,num_classes=4,widths=[8,12],blocks=[1,1]"


def shaken(model):
    """With weights of any size, as after a training that went astray."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(("size", "more"), [((16, 24), ""), ((13, 10), ",level=0.15")])
def test_logits_move_by_no_more_than_images_whatever_the_weights(size, more):
    model = shaken(load_model(TINY + more))
    x, y = torch.rand(2, 5, 3, *size)
    y = x + torch.tensor([1e-3, 1e-2, 0.1, 0.5, 1.0]).view(-1, 1, 1, 1) * (y - x)
    moved = (model.logits(x) - model.logits(y)).flatten(1).norm(dim=1)
    assert (moved <= (x - y).flatten(1).norm(dim=1) * (1 + 1e-4)).all()
    found = lipschitz_bound(model, size)
    assert 0 < found.lower <= found.bound <= 1.0001


def test_layers_keep_their_promise_and_do_something():
    torch.manual_seed(0)
    wide, tall = Orthogonal(6, 4).matrix(), Orthogonal(4, 6).matrix()
    torch.testing.assert_close(wide @ wide.T, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(tall.T @ tall, torch.eye(4), atol=1e-5, rtol=0)
    layer = ConvexPotential(4)
    x = torch.randn(1, 4, 6, 6)
    k = layer.kernel()
    q = layer.scale.exp()
    padded = torch.nn.functional.conv2d(layer.weight, layer.weight, padding=2).abs().sum((2, 3))
    expected = layer.weight / ((padded * q[None] / q[:, None]).sum(1)).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(k, expected)
    before = torch.nn.functional.conv2d(x, k, padding=1)
    hidden = (before - before.mean((0, 2, 3), keepdim=True)).clamp_min(0)
    torch.testing.assert_close(layer(x), x - 2 * torch.nn.functional.conv_transpose2d(hidden, k, padding=1))
    torch.testing.assert_close(layer.mean, 0.05 * before.mean((0, 2, 3)))
    layer.eval()
    hidden = (before - layer.mean[:, None, None]).clamp_min(0)
    torch.testing.assert_close(layer(x), x - 2 * torch.nn.functional.conv_transpose2d(hidden, k, padding=1))
    assert (layer(x) - x).norm() > 0.5 * x.norm()


def test_a_gradient_reaches_every_parameter():
    network = LipschitzUNet(3, widths=(4, 6), blocks=(1, 1))
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("widths=[7,8]", "widths"),
        ("widths=8", "widths"),
        ("widths=[8,8]", "blocks"),
        ("first=0", "first"),
        ("level=0", "level"),
        ("num_classes=1", "num_classes"),
    ],
)
def test_bad_sizes_are_named(options, told):
    with pytest.raises(InputError, match=told):
        load_model(f"lipschitz_unet,{options}")


def test_a_stated_constant_is_in_the_card_and_is_dropped_when_what_it_is_of_changes(tmp_path):
    model = load_model(TINY)
    assert (model.lipschitz, model.num_classes, entries_of(model)["lipschitz"]) == (1.0, 4, 1.0)
    save_file(model.network.state_dict(), tmp_path / "w.safetensors")
    write_card(tmp_path / "card.yaml", {"model": TINY, "weights": "w.safetensors", **entries_of(model)})
    card = str(tmp_path / "card.yaml")
    assert read_card(card).lipschitz == load_model(card).lipschitz == 1.0
    assert load_model(card, normalisation="imagenet").lipschitz is None
    assert load_model(card, dtype="bfloat16").lipschitz is None
    (tmp_path / "other.yaml").write_text(
        (tmp_path / "card.yaml").read_text().replace("lipschitz: 1.0", "lipschitz: 3.0")
    )
    assert load_model(str(tmp_path / "other.yaml")).lipschitz == 3.0
    assert load_model(str(tmp_path / "other.yaml"), weights=tmp_path / "w.safetensors").lipschitz == 1.0  # the family's
    assert load_model(card, inference={"crop": [16, 16]}).lipschitz is None
    assert wrap(model, size={"multiple_of": 8}).lipschitz is None
    assert wrap(model, normalisation="none", name="other").lipschitz == 1.0
    assert wrap(torch.nn.Conv2d(3, 2, 1), lipschitz=3).lipschitz == 3.0
    assert "lipschitz" not in entries_of(wrap(torch.nn.Conv2d(3, 2, 1)))
    for wrong in (0, -1.0, float("inf"), float("nan"), True, "1"):
        with pytest.raises(InputError, match="lipschitz"):
            wrap(torch.nn.Conv2d(3, 2, 1), lipschitz=wrong)


def test_plain_weights_are_the_same_network_and_what_is_in_them_is_verified():
    model = shaken(load_model(TINY))
    x = torch.rand(1, 3, 12, 16)
    expected = model.logits(x)
    model.network.made_plain()
    other = load_model(TINY + ",plain=true")
    assert other.lipschitz is None
    other.network.load_state_dict(model.network.state_dict())
    torch.testing.assert_close(other.logits(x), expected, atol=1e-5, rtol=1e-5)
    assert lipschitz_bound(other, (12, 16)).bound <= 1.0001
    with torch.no_grad():
        other.network.body[1].weight.mul_(2)
    assert lipschitz_bound(other, (12, 16)).bound == pytest.approx(2, rel=1e-4)
    assert not any(p.requires_grad for p in other.network.parameters())
