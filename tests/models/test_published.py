"""The paper's networks by name: the published names and shapes, and checkpoints as they were published."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from segradius.core.errors import InputError
from segradius.models import MODELS, Normalisation, convert, load_into, load_model, load_state
from segradius.models.networks import HRNetOCR, PSANet, PSPNet

TINY = {
    "pspnet": (PSPNet, {"layers": 18, "width": 8, "bins": (1, 2)}),
    "psanet": (PSANet, {"layers": 18, "width": 8, "mask": (3, 5)}),
    "hrnet_ocr": (
        HRNetOCR,
        {"width": 4, "stem": 8, "modules": (1, 1, 1), "blocks": 1, "layer1_blocks": 1, "mid": 16, "key": 8},
    ),
}
PREFIXES = ["", "module.", "model.", "module.model.", "model.module."]
LIGHT = [("pspnet_light", {}), ("psanet_light", {"mask": [3, 5]}), ("hrnet_ocr_light", {})]
GOLDEN = [
    ("psp50", "pspnet50", {}),
    ("psa50", "psanet50", {"mask": (13, 13)}),
    ("psa50c", "psanet50", {"mask": (7, 7), "compact": True}),
    ("hrnet18", "hrnet_ocr_w18", {}),
    ("hrnet48", "hrnet_ocr_w48", {}),
]


def tiny(kind, seed, **arguments):
    make, sizes = TINY[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make(5, **sizes, **arguments)
        for module in network.modules():  # statistics that an initialised network has not
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def logits(network):
    x = torch.randn(1, 3, 33, 41, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return network.eval()(x)["out"]


def prefixed(network, prefix):
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def on_meta(name, **arguments):
    """The registered network without memory behind its tensors."""
    with torch.device("meta"):
        return MODELS[name](**arguments)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_checkpoint_under_any_prefix_gives_the_same_logits(kind, prefix):
    trained, network = tiny(kind, 0), tiny(kind, 1)
    assert not torch.equal(logits(network), logits(trained))
    load_into(network, prefixed(trained, prefix))
    assert torch.equal(logits(network), logits(trained))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_hrnet_checkpoints_carry_the_class_weights_of_their_loss(prefix):
    trained, network = tiny("hrnet_ocr", 0), tiny("hrnet_ocr", 1)
    for loss in ("loss.criterion.weight", "module.loss.criterion.weight"):
        load_into(network, prefixed(trained, prefix) | {loss: torch.ones(5)})
        assert torch.equal(logits(network), logits(trained))


@pytest.mark.parametrize("kind", ["pspnet", "psanet"])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("in_file", [True, False])
def test_the_auxiliary_head_may_be_in_the_file_or_the_network_only(kind, prefix, in_file):
    trained, network = tiny(kind, 0, aux=in_file), tiny(kind, 1, aux=not in_file)
    load_into(network, prefixed(trained, prefix))
    assert torch.equal(logits(network), logits(trained))


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("pspnet", "ppm.features.1.1.weight", "ppm.features.1.0.weight"),
        ("pspnet", "aux.4.bias", "aux.5.bias"),
        ("psanet", "psa.attention_p.3.weight", "psa.attention_q.3.weight"),
        ("psanet", "layer0.0.weight", "conv1.weight"),
        ("hrnet_ocr", "cls_head.weight", "head.weight"),
        ("hrnet_ocr", "aux_head.3.bias", "aux_head.4.bias"),
    ],
)
def test_one_wrong_name_is_refused_and_told(kind, right, wrong):
    state = prefixed(tiny(kind, 0), "module.")
    state[f"module.{wrong}"] = state.pop(f"module.{right}")
    with pytest.raises(InputError) as caught:
        load_into(tiny(kind, 1), state, "net.pth")
    assert str(caught.value) == (
        f"'net.pth' does not fit {TINY[kind][0].__name__}: 1 missing: {right}; 1 unexpected: {wrong}"
    )


def test_another_mask_or_number_of_classes_is_refused_and_told():
    psanet, sizes = TINY["psanet"]
    with pytest.raises(InputError, match=r"2 of another shape: psa\.attention\.3\.weight \(\(15,.*\(9,.*attention_p"):
        load_into(psanet(5, **sizes | {"mask": (3, 3)}), tiny("psanet", 0).state_dict())
    with pytest.raises(InputError, match=r"3 of another shape: cls\.4\.weight.*aux\.4") as caught:
        load_into(psanet(4, **sizes), {n: t for n, t in tiny("psanet", 0).state_dict().items() if n != "cls.4.bias"})
    assert "1 missing: cls.4.bias" in str(caught.value)


@pytest.mark.parametrize(("golden", "name", "arguments"), GOLDEN)
def test_registered_networks_have_the_published_names_and_shapes(golden, name, arguments, golden_folder):
    published = json.loads((golden_folder / f"{golden}.json").read_text())
    classes = published[next(key for key in ("cls.4.bias", "cls_head.bias") if key in published)][0]
    state = on_meta(name, num_classes=classes, **arguments).network.state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == published


@pytest.mark.parametrize(("golden", "name", "arguments"), GOLDEN)
def test_published_checkpoints_fit_with_what_they_carry_beyond_the_network(golden, name, arguments, golden_folder):
    published = json.loads((golden_folder / f"{golden}.json").read_text())
    hrnet = golden.startswith("hrnet")
    prefix, extra = ("model.", {"loss.criterion.weight": [19]}) if hrnet else ("module.", {})
    classes = 19 if hrnet else published["cls.4.bias"][0]
    network = on_meta(name, num_classes=classes, aux=False, **arguments).network
    shapes = {prefix + key: shape for key, shape in published.items()} | extra
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    load_into(network, state)


@pytest.mark.parametrize(("name", "arguments"), LIGHT)
def test_a_training_checkpoint_goes_through_conversion_into_the_same_logits(name, arguments, tmp_path):
    model = MODELS[name](num_classes=4, **arguments)
    content = {"epoch": 50, "state_dict": prefixed(model.network, "module."), "args": argparse.Namespace(lr=0.01)}
    torch.save(content, tmp_path / "train_epoch_50.pth")
    done = convert(tmp_path / "train_epoch_50.pth", tmp_path / "net.safetensors", allow_unsafe=True)
    assert done.dropped == ("epoch", "args")
    assert set(load_state(done.target)) == set(prefixed(model.network, "module."))
    spec = ",".join([name, "num_classes=4", *(f"{key}={value}" for key, value in arguments.items())])
    x = torch.rand(1, 3, 33, 41)
    assert torch.equal(load_model(spec, weights=done.target).logits(x), model.logits(x))


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("psp", "psa", "hrnet"))])
def test_every_registered_network_is_ready_to_be_attacked(name):
    model = on_meta(name, num_classes=7)
    assert (model.num_classes, model.name, model.normalisation) == (7, name, Normalisation.imagenet())
    assert model.channels_last
    assert not any(module.training for module in model.network.modules())


def test_depths_and_masks_of_the_published_configurations():
    deep = [len(on_meta(name).network.layer3) for name in ("pspnet50", "pspnet101", "psanet50", "psanet101")]
    assert deep == [6, 23, 6, 23]
    for crop, compact, sides in [(465, False, None), (465, True, None), (705, False, (89, 89)), (705, True, (45, 45))]:
        shrunk = (crop - 1) // 16 + 1
        channels = on_meta("psanet50", compact=compact, mask=sides).network.psa.attention[3].out_channels
        assert channels == (shrunk if compact else 2 * shrunk - 1) ** 2
    light = [on_meta("psanet_light", compact=compact).network.psa.attention[3].out_channels for compact in (0, 1)]
    assert light == [29 * 39, 15 * 20]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("psanet50,mask=59", r"mask 59: expected \[height, width\]"),
        ("psanet_light,mask=[3]", r"mask \[3\]: expected \[height, width\]"),
        ("psanet_light,mask=[4,5]", "odd"),
        ("psanet_light,psa_type=3", "psa_type"),
        ("pspnet_light,classes=4", "did you mean 'num_classes'"),
        ("pspnet5", "did you mean 'pspnet50'"),
    ],
)
def test_bad_arguments_and_names_are_told(spec, message):
    with pytest.raises(InputError, match=message):
        load_model(spec)
