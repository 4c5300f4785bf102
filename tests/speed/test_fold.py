"""Folding changes nothing but rounding, only what may be folded is, and the network is as it was, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

from segradius.models import load_model
from segradius.speed.fold import Pair, find_pairs, fold


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, its norms with statistics and weights of their own."""
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(0.3 * torch.randn(module.num_features, generator=g))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=g))
            if module.affine:
                nn.init.normal_(module.weight, 1.0, 0.2, generator=g)
                nn.init.normal_(module.bias, 0.0, 0.2, generator=g)
    return network.eval()


def images(height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def answers(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of their cross-entropy in the images."""
    x = x.clone().requires_grad_()
    logits = call(x)
    labels = torch.arange(logits[:, 0].numel()).view_as(logits[:, 0]) % logits.shape[1]
    (gradient,) = torch.autograd.grad(cross_entropy(logits, labels), x)
    return logits.detach(), gradient


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def check(network: nn.Module, call: Callable[[nn.Module, Tensor], Tensor], x: Tensor, least: int) -> nn.Module:
    """Both layouts of the folded network answer as the network does, and at least so many norms are folded.

    In float64: in float32 a rounding may take a unit to the other side of its kink, and the gradient with it.
    """
    stirred(network).double()
    x = x.double()
    pairs = find_pairs(network, lambda: call(network, x))
    assert len(pairs) >= least
    logits, gradient = answers(lambda z: call(network, z), x)
    for channels_last in (False, True):
        folded = fold(network, pairs, channels_last=channels_last)
        assert isinstance(folded, nn.Module)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        ours, slope = answers(lambda z, f=folded, m=layout: call(f, z.contiguous(memory_format=m)), x)
        assert relative(ours, logits) < 1e-11
        assert relative(slope, gradient) < 1e-9
    return folded


def logits_of(network: nn.Module, x: Tensor) -> Tensor:
    out: Any = network(x)
    out = out["out"] if isinstance(out, dict) and "out" in out else getattr(out, "logits", out)
    return out


PAPER = [f"{name}{light},num_classes=5" for name in ("pspnet", "psanet", "hrnet_ocr") for light in ("_light",)]


@pytest.mark.parametrize("name", PAPER)
def test_networks_of_the_paper(name):
    network = load_model(name).network
    check(network, logits_of, images(97, 97), 15)


SMP = [
    ("Unet", "resnet18", 30),
    ("PSPNet", "resnet18", 10),
    ("FPN", "resnet18", 18),
    ("DeepLabV3Plus", "mobilenet_v2", 40),
    ("MAnet", "resnet18", 30),
    ("Unet", "tu-efficientnet_lite0", 30),  # norms that activate as well
    ("Unet", "efficientnet-b0", 30),
]


@pytest.mark.parametrize(("kind", "encoder", "least"), SMP)
def test_networks_of_smp(kind, encoder, least):
    smp = pytest.importorskip("segmentation_models_pytorch")
    check(getattr(smp, kind)(encoder, encoder_weights=None, classes=4), logits_of, images(), least)


@pytest.mark.parametrize(
    ("kind", "least"), [("fcn_resnet50", 50), ("deeplabv3_resnet50", 50), ("lraspp_mobilenet_v3_large", 40)]
)
def test_networks_of_torchvision(kind, least):
    tv = pytest.importorskip("torchvision.models.segmentation")
    check(getattr(tv, kind)(weights=None, weights_backbone=None, num_classes=4), logits_of, images(), least)


def test_networks_of_transformers():
    t = pytest.importorskip("transformers")
    small: Any = {"num_labels": 4, "hidden_sizes": [8, 16, 16, 16], "depths": [1] * 4, "decoder_hidden_size": 16}
    check(t.SegformerForSemanticSegmentation(t.SegformerConfig(**small)), logits_of, images(), 1)
    backbone = t.ConvNextConfig(
        hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = t.UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=4, auxiliary_channels=8)
    check(t.UperNetForSemanticSegmentation(config), logits_of, images(), 8)


class Graph(nn.Module):
    """A random acyclic network of convolutions, norms and sums: each node reads one or two before it."""

    def __init__(self, plan: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.plan = plan
        made = {
            "conv": lambda: nn.Conv2d(3, 3, 3, padding=1),
            "grouped": lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False),
            "up": lambda: nn.ConvTranspose2d(3, 3, 3, padding=1),
            "norm": lambda: nn.BatchNorm2d(3),
            "bare": lambda: nn.BatchNorm2d(3, affine=False),
            "own": lambda: nn.BatchNorm2d(3, track_running_stats=False),
            "relu": lambda: nn.ReLU(inplace=True),
            "sum": nn.Identity,
        }
        self.nodes = nn.ModuleList(made[kind]() for kind, _, _ in plan)

    def forward(self, x: Tensor) -> Tensor:
        values = [x * 2]
        for node, (kind, first, second) in zip(self.nodes, self.plan, strict=True):
            value = values[first % len(values)]
            values.append(value + values[second % len(values)] if kind == "sum" else node(value))
        return values[-1] + values[-2]


KINDS = ("conv", "grouped", "up", "norm", "bare", "own", "relu", "sum")
NODES = st.tuples(st.sampled_from(KINDS), st.integers(-3, -1), st.integers(-5, -1))


@settings(max_examples=40, deadline=None)
@given(st.lists(NODES, min_size=2, max_size=12), st.integers(0, 9))
def test_whatever_is_folded_in_any_network_is_right(plan, seed):
    torch.manual_seed(seed)
    network = stirred(Graph(plan), seed).double()
    x = images(7, 7).double()
    pairs = find_pairs(network, lambda: network(x))
    folded = fold(network, pairs)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-9, atol=1e-9)


def two(conv: nn.Module | None = None, norm: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(conv or nn.Conv2d(3, 4, 3), norm or nn.BatchNorm2d(4))


class Twice(nn.Module):
    """A convolution whose output, or whose weight, another reads too."""

    def __init__(self, forward: Callable[[Twice, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.how, self.kept = forward, []

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def held(self: Twice, x: Tensor) -> Tensor:
    self.kept = [self.conv(x)]
    return self.norm(self.kept[0])


READ_TWICE = {
    "a skip": lambda self, x: self.norm(y := self.conv(x)) + y,
    "two norms": lambda self, x: self.norm(y := self.conv(x)) + self.other(y),
    "a slice": lambda self, x: (y := self.conv(x))[:, :1] + self.norm(y),
    "changed in place": lambda self, x: self.norm(self.conv(x).relu_()),
    "given out": lambda self, x: (y := self.conv(x), self.norm(y)),
    "held": held,
    "a norm used elsewhere": lambda self, x: self.norm(self.conv(x)) + self.norm(x),
    "a convolution used elsewhere": lambda self, x: self.norm(self.conv(x)) + self.conv(x),
    "a weight used elsewhere": lambda self, x: self.norm(self.conv(x)) + self.conv.weight.sum(),
    "a weight in a function": lambda self, x: self.norm(self.conv(x)) + conv2d(x, self.conv.weight, padding=1),
}


@pytest.mark.parametrize("how", READ_TWICE)
def test_what_another_reads_is_not_folded(how):
    network = Twice(READ_TWICE[how])
    assert find_pairs(network, lambda: network(images(8, 8))) == ()


def test_what_is_run_twice_in_the_same_way_is_folded():
    network = Twice(lambda self, x: self.norm(self.conv(self.norm(self.conv(x)))))
    assert find_pairs(network, lambda: network(images(8, 8))) == (Pair("conv", "norm"),)


class Halved(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


def hooked(which: int) -> nn.Module:
    network = two()
    network[which].register_forward_hook(lambda module, given, made: made * 2)
    return network


def tied() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3))
    network[2].weight = network[0].weight
    return network


NOT = {
    "statistics of the batch": lambda: two(norm=nn.BatchNorm2d(4, track_running_stats=False)),
    "a norm that does more": lambda: two(norm=Halved(4)),
    "a hook of the convolution": lambda: hooked(0),
    "a hook of the norm": lambda: hooked(1),
    "a spectral norm": lambda: two(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))),
    "a weight norm": lambda: two(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
    "a tied weight": tied,
    "groups that widen": lambda: two(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
    "a norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
    "a traced network": lambda: torch.jit.trace(two().eval(), images(8, 8)),
    "a function": lambda: lambda x: x,
}


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore:.torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("kind", NOT)
def test_what_is_not_a_convolution_and_its_norm_is_left(kind):
    network = NOT[kind]()
    assert find_pairs(network, lambda: network(images(8, 8))) == ()


def test_norms_of_another_type_are_left():
    network = two().double()
    network[0].float()
    network[1].register_forward_pre_hook(lambda module, given: (given[0].double(),))
    assert find_pairs(network, lambda: network(images(8, 8))) == ()


def test_transposed_and_synchronised_ones_are_folded():
    network = stirred(two(nn.ConvTranspose2d(3, 4, 3, bias=False), nn.SyncBatchNorm(4)))
    pairs = find_pairs(network, lambda: network(images(8, 8)))
    assert pairs == (Pair("0", "1"),)
    torch.testing.assert_close(fold(network, pairs)(images(8, 8)), network(images(8, 8)))


def test_the_network_is_left_as_found_and_shares_what_stays():
    network = nn.Sequential(two(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, track_running_stats=False)).train()
    network[1].weight.requires_grad_(False)
    network[0].eval()
    seen = []
    network[1].register_forward_hook(lambda module, given, made: seen.append(1))
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    found = {
        name: (t.clone(), t.data_ptr(), t.stride(), t._version, t.requires_grad, t.dtype) for name, t in tensors.items()
    }
    modes = [module.training for module in network.modules()]
    pairs = find_pairs(network, lambda: network(images(8, 8)))
    folded = fold(network, pairs, channels_last=True, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        folded(images(8, 8))
    assert pairs == (Pair("0.0", "0.1"),)
    assert [module.training for module in network.modules()] == modes
    assert {**dict(network.named_parameters()), **dict(network.named_buffers())}.keys() == found.keys()
    for name, tensor in tensors.items():
        value, *rest = found[name]
        assert torch.equal(tensor, value)
        assert [tensor.data_ptr(), tensor.stride(), tensor._version, tensor.requires_grad, tensor.dtype] == rest
    shared = fold(network, pairs)
    assert shared[1].weight.data_ptr() == network[1].weight.data_ptr()
    assert shared[1].weight is not network[1].weight
    assert not any(module.training for module in shared.modules())
    assert not any(parameter.requires_grad for parameter in shared.parameters())


def test_only_weights_of_convolutions_and_linear_layers_are_turned():
    network = nn.Sequential(two(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 6), nn.LayerNorm(6))
    folded = fold(network, (), channels_last=True, dtype=torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in folded.named_parameters()}
    assert {name for name, dtype in kinds.items() if dtype == torch.bfloat16} == {
        "0.0.weight",
        "0.0.bias",
        "3.weight",
        "3.bias",
    }
    assert folded[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(folded(images(8, 8)), network.eval()(images(8, 8)))


def test_a_norm_is_replaced_under_all_its_names():
    network = stirred(two())
    network.aside = [network[1]]  # not registered: a list
    folded = fold(network, find_pairs(network, lambda: network(images(8, 8))))
    assert isinstance(folded.aside[0], nn.Identity)


class Locked(nn.Module):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a lock cannot be copied")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore:.torch.jit.trace:DeprecationWarning")
def test_what_cannot_be_copied_is_said():
    assert fold(nn.Sequential(two(), Locked()), ()) == "it cannot be copied: TypeError: a lock cannot be copied"
    traced = torch.jit.trace(two().eval(), images(8, 8))
    assert fold(traced, ()) == "a TopLevelTracedModule cannot be rewritten"
