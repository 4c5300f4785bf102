"""The verified Lipschitz bound of networks: above the exact one, tight where it can be, and refused by layer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models import SizeRule, lipschitz_bound, wrap
from segradius.models.lipschitz_rules import RULES, Step, rule, rule_of
from segradius.models.networks.lipschitz_unet import Aside, ConvexPotential, MaxMin, Orthogonal, Placed


class Net(nn.Module):
    """Layers, and how an image goes through them."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.way = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x, self.layers)


def point() -> nn.Module:
    return nn.Conv2d(3, 2, 1)


def model_of(network: nn.Module, **options):
    return wrap(network.double(), num_classes=options.pop("num_classes", 2), bands=3, **options)


def bound_of(network: nn.Module, at=(8, 8), **options):
    return lipschitz_bound(model_of(network, **options), at)


def exact(network: nn.Module, size=(8, 8), points: int = 3) -> float:
    """The largest norm of the dense Jacobian of its logits at some images."""
    network = model_of(network).logits if isinstance(network, nn.Module) else network
    found = 0.0
    for seed in range(points):
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(network, x, vectorize=True).reshape(-1, x.numel())
        found = max(found, float(torch.linalg.matrix_norm(jacobian, 2)))
    return found


def seeded(make):
    torch.manual_seed(0)
    return make()


LINEAR = {
    "conv": lambda: nn.Conv2d(3, 2, 3, padding=1),
    "strided": lambda: nn.Sequential(nn.Conv2d(3, 2, 4, 2, 1), nn.Upsample(scale_factor=2)),
    "dilated, grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 2, 3, 1, 1, groups=2)
    ),
    "circular": lambda: nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"),
    "circular, wide": lambda: nn.Conv2d(3, 2, 3, padding=3, padding_mode="circular"),
    "circular, strided": lambda: nn.Conv2d(3, 2, 3, stride=3, padding=1, padding_mode="circular"),
    "reflect": lambda: nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"),
    "replicate": lambda: nn.Conv2d(3, 2, 3, padding=2, padding_mode="replicate"),
    "same": lambda: nn.Conv2d(3, 2, (3, 5), padding="same"),
    "transposed": lambda: nn.Sequential(nn.AvgPool2d(2), nn.ConvTranspose2d(3, 2, 3, 2, 1, 1)),
    "transposed, grouped": lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 3, 1, 1, groups=3), point()),
    "pads": lambda: nn.Sequential(
        nn.ReflectionPad2d(1), nn.ZeroPad2d(1), nn.ReplicationPad2d((0, 2, 1, 0)), nn.Conv2d(3, 2, 5)
    ),
    "batch norm": lambda: _normed(),
    "shuffled": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 1), nn.PixelShuffle(2)),
    "orthonormal": lambda: nn.Sequential(Orthogonal(3, 5), Placed(5), Orthogonal(5, 2)),
}  # fmt: skip


def _normed():
    layer = nn.BatchNorm2d(3)
    with torch.no_grad():
        layer.running_var.copy_(torch.tensor([0.01, 1.0, 4.0]))
        layer.weight.copy_(torch.tensor([-0.3, 1.0, 2.0]))
    return nn.Sequential(layer, point())


BENT = {
    "max pool": lambda: nn.Sequential(nn.Conv2d(3, 2, 3, 1, 1), nn.MaxPool2d(3, 1, 1), nn.SiLU()),
    "adaptive max pool": lambda: nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.AdaptiveMaxPool2d(3), nn.AdaptiveMaxPool2d((7, 4)), nn.Upsample((8, 8))
    ),
    "sorted": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), MaxMin(), nn.Conv2d(4, 2, 1)),
    "residual": lambda: Net(lambda x, f: f["b"](x + 0.5 * f["a"](x).relu()), a=nn.Conv2d(3, 3, 3, 1, 1), b=point()),
    "joined": lambda: Net(
        lambda x, f: f["c"](torch.cat([f["a"](x), functional.leaky_relu(f["b"](x), 0.1)], 1)),
        a=nn.Conv2d(3, 2, 3, 1, 1), b=point(), c=nn.Conv2d(4, 2, 1),
    ),
    "larger of two": lambda: Net(lambda x, f: torch.maximum(f["a"](x), f["b"](x)), a=point(), b=point()),
    "resized": lambda: Net(
        lambda x, f: functional.interpolate(f["a"](functional.avg_pool2d(x, 2)), size=x.shape[-2:], mode="bilinear"),
        a=point(),
    ),
    "context": lambda: Net(lambda x, f: f["a"](x) + f["a"](x).mean((2, 3), keepdim=True), a=point()),
    "scaled": lambda: Net(lambda x, f: f["a"]((2 * x - 1) / 0.5) * f["a"].bias.view(1, -1, 1, 1), a=point()),
    "potential": lambda: nn.Sequential(Orthogonal(3, 4), ConvexPotential(4), ConvexPotential(4), nn.Conv2d(4, 2, 1)),
    "aside": lambda: nn.Sequential(Aside(1, nn.Conv2d(2, 2, 3, padding=1)), point()),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LINEAR, *BENT])
def test_is_above_the_norm_of_the_dense_jacobian(name):
    network = seeded((LINEAR | BENT)[name])
    found = bound_of(network)
    assert found.lower <= found.bound
    assert exact(network) <= found.bound * (1 + 1e-9)
    assert found.layers[-1].total <= found.bound * (1 + 1e-12)


def test_single_convolutions_are_within_one_per_cent_on_images_large_enough_to_show_it():
    network = seeded(lambda: nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"))
    assert exact(network, (16, 16), 1) <= bound_of(network, (16, 16)).bound <= 1.01 * exact(network, (16, 16), 1)


def test_branches_and_constants_by_hand():
    def one(value):
        layer = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(value * torch.eye(3)[:2, :, None, None])
        return layer

    summed = bound_of(Net(lambda x, f: f["a"](x) - f["b"](x) / 2 + 7, a=one(3.0), b=one(4.0)))
    assert summed.bound == pytest.approx(5, rel=1e-6)
    joined = Net(lambda x, f: torch.cat([f["a"](x), f["b"](x)], 1), a=one(3.0), b=one(4.0))
    assert bound_of(joined, num_classes=4).bound == pytest.approx(5, rel=1e-6)
    assert bound_of(joined, num_classes=4).lower == pytest.approx(5, rel=1e-3)
    twice = Net(lambda x, f: torch.cat([f["a"](x)] * 2, 1), a=one(3.0))
    assert bound_of(twice, num_classes=4).bound == pytest.approx(3 * math.sqrt(2), rel=1e-6)
    halved = nn.Conv2d(2, 2, 1, groups=2)
    nn.init.constant_(halved.weight, 0.5)
    assert bound_of(nn.Sequential(Aside(1, halved), one(3.0))).bound == pytest.approx(3, rel=1e-6)


def test_the_border_of_the_model_counts():
    layer = seeded(lambda: point())
    plain = bound_of(layer).bound
    scaled = bound_of(layer, normalisation=((0.5, 0.5, 0.5), (0.25, 0.5, 1.0)))
    assert scaled.bound == pytest.approx(4 * plain)
    assert scaled.layers[0].name == "normalisation"
    padded = bound_of(layer, (7, 8), size={"multiple_of": 9})  # the last row 3 times, the last column twice
    assert padded.bound == pytest.approx(math.sqrt(6) * plain)
    assert bound_of(layer, size={"exact": (8, 8), "mode": "pad"}).bound == pytest.approx(plain)
    halved = bound_of(layer, size=SizeRule(exact=(4, 4), mode="resize"))
    assert [step.kind for step in halved.layers] == ["border", "Conv2d", "border"]
    whole = wrap(layer, num_classes=2, bands=3, size=SizeRule(exact=(4, 4), mode="resize"))
    assert exact(whole.logits, points=1) <= halved.bound


class Own(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return 10 * super()._conv_forward(x, weight, bias)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (lambda: nn.Sequential(nn.InstanceNorm2d(3), point()), "0 is a InstanceNorm2d"),
        (
            lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), point()),
            r"0 \(BatchNorm2d\): it",
        ),
        (lambda: Net(lambda x, f: f["a"](x) * f["a"](x), a=point()), "mul is a mul, of two branches that both"),
        (lambda: Net(lambda x, f: (y := f["a"](x)) * y, a=point()), "mul is a mul, of two branches"),
        (lambda: Net(lambda x, f: 1 / f["a"](x), a=point()), "of a constant by what depends on the image"),
        (lambda: Net(lambda x, f: f["a"](x).exp(), a=point()), "exp is a exp, of which no bound"),
        (lambda: Net(lambda x, f: f["a"](x)[:, [0, 0]], a=point()), "getitem takes values by a list"),
        (lambda: Net(lambda x, f: f["a"](x if x.sum() > 0 else -x), a=point()), "cannot be traced"),
        (lambda: Net(lambda x, f: functional.dropout(f["a"](x)), a=point()), "drops values"),
        (lambda: Net(lambda x, f: (y := f["a"](x)).mul_(3) + y, a=point()), "in place"),
        (lambda: _hooked(point()), "has hooks"),
        (lambda: _hooked(point())[0], "has hooks"),
        (lambda: Net(lambda x, f: torch.add(f["a"](x), other=f["a"](x)), a=point()), "is a add of other"),
        (lambda: Net(lambda x, f: torch.div(f["a"](x), 2, rounding_mode="floor"), a=point()), "of rounding_mode"),
        (lambda: Net(lambda x, f: torch.cat(x.split(1, 1) + x.split(1, 1), 1)[:, 1:3]), "is a add of"),
        (lambda: Net(lambda x, f: f["a"](x), a=Own(3, 2, 1)), None),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(network, told):
    made = seeded(network)
    if told is None:  # its own way is gone through instead of the rule of what it inherits from
        with pytest.raises(InputError, match="no Lipschitz bound"):
            bound_of(made)
        return
    with pytest.raises(InputError, match=told):
        bound_of(made)


def _hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, given, result: 5 * result)
    return nn.Sequential(layer)


def test_models_that_give_no_logits_are_refused():
    layer = point()
    with pytest.raises(InputError, match="gives probabilities"):
        bound_of(nn.Sequential(layer, nn.Softmax(1)), outputs="probabilities")
    with pytest.raises(InputError, match="is a function"):
        lipschitz_bound(wrap(lambda x: x[:, :2], num_classes=2), (8, 8))
    with pytest.raises(InputError, match="rounding is in no bound"):
        lipschitz_bound(replace(wrap(layer, num_classes=2), precision=torch.bfloat16), (8, 8))
    with pytest.raises(InputError, match="expected \\(height, width\\)"):
        lipschitz_bound(wrap(layer, num_classes=2), (8, 0))


def test_a_mapping_of_outputs_and_rounding():
    network = seeded(lambda: Net(lambda x, f: {"out": f["a"](x), "aux": 9 * f["b"](x)}, a=point(), b=point()))
    single = lipschitz_bound(wrap(network.float(), num_classes=2), (4, 4))
    assert single.bound == pytest.approx(exact(network.layers["a"], (4, 4), 1), rel=1e-6)
    assert 0 < single.rounding < 1e-5
    assert bound_of(network).rounding == 0


def test_a_rule_of_ones_own():
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sinh(torch.asinh(x)) / 2

    with pytest.raises(InputError, match="asinh"):
        bound_of(nn.Sequential(point(), Halved()))
    rule(Halved)(lambda module, x, y: Step(0.5, "a half"))
    try:
        layer = seeded(lambda: point())
        assert bound_of(nn.Sequential(layer, Halved())).bound == pytest.approx(bound_of(layer).bound / 2)
    finally:
        del RULES[Halved]
    assert rule_of(Halved()) is None


class Looking(nn.Module):
    """Looks at sizes, goes through a list of its own and unpacks what it has split."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1)])
        self.scale = nn.Parameter(torch.tensor([2.0, -3.0]).view(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        y = x
        for conv in self.convs:
            y = conv(y).relu()
        if y.size(2) != height or len(y) != n:
            y = functional.interpolate(y, (height, width), mode="bilinear", align_corners=y.is_cuda)
        one, other = y.chunk(2, 1)
        return self.scale * (one - other) + torch.zeros_like(one)


def test_code_may_look_at_sizes():
    network = seeded(Looking)
    assert exact(network) <= bound_of(network).bound < math.inf
