"""Backbones: every tensor of a trunk, exactly, from files, torchvision and timm; or an error and no change."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from torchvision import models as torchvision_models

from segradius.cli import main
from segradius.core.errors import InputError, MissingExtraError
from segradius.models.backbones import load_backbone
from segradius.models.checkpoints import load_state
from segradius.models.networks import HRNetOCR, PSANet, PSPNet
from segradius.models.networks.hrnet_ocr import LIGHT

NARROW = {"layers": 18, "width": 8}
#: Places of semseg's stem, written out: layer0 is conv1, bn1, ReLU, conv2, bn2, ReLU, conv3, bn3, ReLU, pooling.
SEMSEG = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
NARROW_TRUNK = ("layer0.", "layer1.", "layer2.", "layer3.", "layer4.")


def drawn(network):
    """The state of a network, every tensor random: batch norms too, which a new network has at 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.full_like(tensor, 12)
        for name, tensor in network.state_dict().items()
    }


def under_semseg_names(state):
    """What an ImageNet ResNet of hszhao/semseg would hold of a PSPNet's trunk, with its classifier."""
    found = {}
    for name, tensor in state.items():
        if name.startswith(NARROW_TRUNK):
            first, place, *rest = name.split(".")
            found[".".join([SEMSEG[place], *rest]) if first == "layer0" else name] = tensor
    return found | {"fc.weight": torch.rand(1000, 64), "fc.bias": torch.rand(1000)}


@pytest.fixture
def file(tmp_path):
    def write(state):
        torch.save(state, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return write


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("network", [PSPNet(3, **NARROW), PSANet(3, mask=(3, 3), **NARROW)], ids=["pspnet", "psanet"])
def test_every_tensor_of_a_semseg_resnet_arrives_in_its_place(network, prefix, file):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    source = drawn(PSPNet(3, **NARROW))
    named = {f"{prefix}{name}": tensor for name, tensor in under_semseg_names(source).items()}
    found = load_backbone(network, file(named))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, (source if name.startswith(NARROW_TRUNK) else before)[name]), name
    trunk = sum(name.startswith(NARROW_TRUNK) for name in before)
    assert (found.taken, found.left, found.unused) == (trunk, (), ("fc.weight", "fc.bias"))
    assert network.layer0[7].running_var[0] == named[f"{prefix}bn3.running_var"][0]


def test_the_trunk_of_a_whole_checkpoint_serves_a_network_with_other_classes(file):
    source, network = drawn(PSPNet(21, **NARROW)), PSANet(5, mask=(3, 3), **NARROW)
    found = load_backbone(network, file(source))
    assert found.unused == tuple(name for name in source if not name.startswith(NARROW_TRUNK))
    assert {name.split(".")[0] for name in found.unused} == {"ppm", "cls", "aux"}
    assert torch.equal(network.layer3[1].bn2.running_mean, source["layer3.1.bn2.running_mean"])


def test_weights_take_the_type_of_the_network_and_files_without_counters_will_do(file):
    network = PSPNet(3, **NARROW).double()
    source = under_semseg_names(drawn(network))
    old = {name: tensor.bfloat16() for name, tensor in source.items() if not name.endswith("num_batches_tracked")}
    found = load_backbone(network, file(old))
    assert found.left == ()
    assert network.layer1[0].conv1.weight.dtype == torch.float64
    assert torch.equal(network.layer1[0].conv1.weight, old["layer1.0.conv1.weight"].double())
    assert network.layer1[0].bn1.num_batches_tracked == 0


@pytest.mark.parametrize(("name", "layers"), [("resnet18", 18), ("resnet50", 50)])
def test_torchvision_fits_but_for_the_entry(name, layers, file):
    with torch.device("meta"):
        library, network = torchvision_models.get_model(name), PSPNet(3, layers=layers, aux=False)
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.fill_(3)
    source = {key: torch.full(t.shape, 5, dtype=t.dtype) for key, t in library.state_dict().items()}
    found = load_backbone(network, file(source))
    left = {key for key, tensor in network.state_dict().items() if (tensor == 3).all()}
    assert all((tensor == 5).all() for key, tensor in network.state_dict().items() if key not in left)
    # bn1 has the shape of layer0.1, but it normalised what a 7 × 7 convolution gave.
    # The first block reads 128 channels of the deep stem where torchvision's has 64.
    trunk = {key for key in left if key.startswith("layer")}
    entry = {"layer0", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.downsample"}
    assert {"layer0" if key.startswith("layer0") else ".".join(key.split(".")[:3]) for key in trunk} == entry
    assert {key.split(".")[0] for key in left - trunk} == {"ppm", "cls"}
    assert set(found.left) == {key for key in trunk if not key.endswith("num_batches_tracked")}
    assert found.taken == len(network.state_dict()) - len(left)
    assert set(found.unused) == {k for k in source if not k.startswith("layer") or k in trunk}


def test_torchvision_weights_come_from_the_users_cache(tmp_path, monkeypatch):
    library = torchvision_models.resnet18()
    weights = torchvision_models.get_model_weights("resnet18").DEFAULT
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(library.state_dict(), folder / weights.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = PSPNet(3, layers=18, aux=False)
    load_backbone(network, "torchvision:resnet18")
    assert torch.equal(network.layer4[1].conv2.weight, library.layer4[1].conv2.weight)


def test_timm_hrnet_fills_the_whole_trunk_of_hrnet_ocr(monkeypatch):
    with torch.device("meta"):
        library, network = timm.create_model("hrnet_w18"), HRNetOCR(4, width=18)
    library.to_empty(device="cpu"), network.to_empty(device="cpu")
    for state, value in ((library.state_dict(), 5), (network.state_dict(), 3)):
        for tensor in state.values():
            tensor.fill_(value)
    asked = {}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.update(options, name=name) or library)
    found = load_backbone(network, "timm:hrnet_w18")
    assert asked == {"name": "hrnet_w18", "pretrained": True}
    kept = {name.split(".")[0] for name, tensor in network.state_dict().items() if not (tensor == 5).all()}
    assert kept == {"conv3x3_ocr", "ocr_distri_head", "cls_head", "aux_head"}
    assert found.left == ()
    assert {n.split(".")[0] for n in found.unused} == {"incre_modules", "downsamp_modules", "final_layer", "classifier"}


@pytest.mark.parametrize(
    ("source", "network", "reason"),
    [
        (PSPNet(3, **NARROW), PSPNet(3, layers=50, width=8), r"68 of its 275.*layer1\.0\.conv3\.weight \(not in"),
        (PSPNet(3, layers=34, width=8), PSPNet(3, layers=50, width=8), r"and \d+ more"),
        (PSPNet(3, layers=50, width=8), PSPNet(3, layers=101, width=8), r"layer3\.6\.conv1\.weight \(not in the sou"),
        (PSPNet(3, layers=101, width=8), PSPNet(3, layers=50, width=8), r"275 of its 275.*layer3\.6\..*not in the net"),
        (PSPNet(3, layers=50, width=8), HRNetOCR(3, **LIGHT), r"conv1\.weight \(not in the source\)"),
        (torch.nn.Conv2d(3, 3, 1), PSPNet(3, **NARROW), "0 of its 115 tensors fit"),
    ],
    ids=["18 in 50", "34 in 50", "50 in 101", "101 in 50", "ResNet in HRNet", "nothing"],
)
def test_a_backbone_of_another_network_is_refused_and_changes_nothing(source, network, reason, file):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError, match=reason) as caught:
        load_backbone(network, file(source.state_dict()))
    assert caught.value.args[0].count("(") >= 3  # three names and what is wrong with them
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:resnet5O", "did you mean 'resnet50'"),
        ("timm:hrnet_w4", "did you mean 'hrnet_w"),
        ("resnet50", r"no file; expected one, torchvision:NAME or timm:NAME"),
    ],
)
def test_unknown_sources_are_named(source, message):
    with pytest.raises(InputError, match=message):
        load_backbone(PSPNet(3, **NARROW), source)


def test_weights_that_cannot_be_fetched_are_an_error_of_ours(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"timm:hrnet_w18 cannot be had: OSError: no route to host.*give a file"):
        load_backbone(HRNetOCR(3, **LIGHT), "timm:hrnet_w18")


def test_without_timm_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"segradius\[smp\]"):
        load_backbone(HRNetOCR(3, **LIGHT), "timm:hrnet_w18")


@pytest.mark.parametrize("network", [torch.nn.Conv2d(3, 3, 1), lambda x: x], ids=["module", "function"])
def test_networks_without_such_a_trunk_are_refused(network, file):
    with pytest.raises(InputError, match=r"trunk|nn\.Module"):
        load_backbone(network, file({"w": torch.zeros(1)}))


def test_the_command_line_trains_from_a_backbone(file, tmp_path, capsys):
    source = file(under_semseg_names(drawn(PSPNet(3, layers=18, width=24))))
    scenes = ["train", "--model", "pspnet_light,num_classes=8", "--data", "scenes:32x32", "--held-out-limit", "1"]
    brief = ["--epochs", "1", "--batch-size", "32", "--crop", "16x16", "--lr", "1e-30", "--device", "cpu"]
    assert main([*scenes, *brief, "--backbone", str(source), "--out", str(tmp_path / "run")]) == 0
    assert "Backbone: 138 tensors taken, 0 left as initialised\n" in capsys.readouterr().out
    trained, given = load_state(tmp_path / "run" / "last.safetensors"), torch.load(source)
    assert torch.equal(trained["layer0.3.weight"], given["conv2.weight"])
    assert torch.equal(trained["layer4.1.conv2.weight"], given["layer4.1.conv2.weight"])


def test_weights_and_backbone_exclude_each_other(capsys):
    given = ["--model", "pspnet_light", "--data", "scenes", "--weights", "w.pth", "--backbone", "b.pth", "--out", "x"]
    assert main(["train", *given]) == 2
    assert "weights 'w.pth' and backbone 'b.pth' exclude each other" in capsys.readouterr().err
