"""Networks of torchvision, smp and Python modules through `load_model`, against the libraries used by hand."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.core.modules import working_folder
from segradius.models import MODELS, SOURCES, Normalisation, Segmenter, SizeRule, doubts, load_model, wrap
from segradius.models.loading import torch_device
from segradius.models.segmenter import INITIALISED, Weights
from segradius.models.sources import Origin

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def gradient_of(z, x):
    return torch.autograd.grad(z.square().mean(), x)[0]


def assert_same_path(model, by_hand, x):
    """Logits equal and gradients equal and not zero; rounding differs, as the memory layout does."""
    x = x.requires_grad_()
    z, expected = model.logits(x), by_hand(x)
    torch.testing.assert_close(z, expected, rtol=1e-3, atol=1e-4)
    gradient, expected_gradient = gradient_of(z, x), gradient_of(expected, x)
    assert expected_gradient.abs().max() > 0
    scale = expected_gradient.abs().max()
    torch.testing.assert_close(gradient / scale, expected_gradient / scale, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_torchvision_equals_the_library_used_by_hand(name):
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(name, weights=None, weights_backbone=None, num_classes=4).eval()
    torch.manual_seed(0)
    model = load_model(f"torchvision:{name},num_classes=4")
    assert (model.num_classes, model.name) == (4, f"torchvision:{name}")
    assert_same_path(model, lambda x: network((x - MEAN) / STD)["out"], torch.rand(2, 3, 40, 56))


@pytest.mark.parametrize(
    ("spec", "stride", "build"),
    [
        ("smp:PSPNet,encoder_name=resnet18,encoder_depth=3,classes=5", 8, ("PSPNet", {"encoder_depth": 3})),
        ("smp:fpn,encoder_name=resnet18,classes=5", 32, ("FPN", {})),
        ("smp:Unet,encoder_name=resnet18,classes=5", None, ("Unet", {})),
    ],
)
def test_smp_equals_the_library_used_by_hand(spec, stride, build):
    smp = pytest.importorskip("segmentation_models_pytorch")
    name, arguments = build
    torch.manual_seed(0)
    network = getattr(smp, name)(encoder_name="resnet18", encoder_weights=None, classes=5, **arguments).eval()
    torch.manual_seed(0)
    model = load_model(spec)
    assert model.size == SizeRule(multiple_of=stride or 1)
    pad = (0, -50 % (stride or 1), 0, -36 % (stride or 1))

    def by_hand(x):
        return network(functional.pad((x - MEAN) / STD, pad, mode="replicate"))[..., :36, :50]

    assert_same_path(model, by_hand, torch.rand(2, 3, 36, 50))


MODULE = """
import torch
from segradius.models import wrap

class Net(torch.nn.Conv2d):
    def __init__(self, classes=2):
        super().__init__(3, classes, 1)

net = Net(4)
ready = wrap(Net(5), normalisation="imagenet", name="theirs")
number = 3

def function(classes=2):
    return lambda x: x[:, :classes]

class Nested:
    Net = Net
"""


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """The name of a module that lies in the working folder."""
    name = f"their_nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    return name


def test_python_objects(module):
    assert load_model(f"{module}:Net,classes=3").num_classes == 3
    assert load_model(f"{module}:Nested.Net").num_classes == 2
    assert load_model(f"{module}:net").num_classes == 4
    assert load_model(f"{module}:function,classes=2").num_classes == 2
    assert load_model(f"{module}:net").normalisation is None
    theirs = load_model(f"{module}:ready")
    assert (theirs.num_classes, theirs.normalisation) == (5, Normalisation.imagenet())
    assert load_model(f"{module}:ready", normalisation="none").normalisation == Normalisation.none()


def test_the_working_folder_is_on_the_search_path_for_the_time_of_an_import_only(module, tmp_path):
    before = list(sys.path)
    load_model(f"{module}:Net")
    with pytest.raises(InputError, match="unknown model source"):
        load_model(f"{module}_absent:Net")
    assert sys.path == before
    with working_folder():
        assert sys.path == [*before, str(tmp_path)]
    assert sys.path == before


def test_what_a_builder_imports_when_called_is_found_too(module, tmp_path):
    (tmp_path / f"{module}_late.py").write_text(f"def make():\n    import {module}\n    return {module}.Net(3)\n")
    assert load_model(f"{module}_late:make").num_classes == 3


def test_python_objects_that_are_none(module):
    with pytest.raises(InputError, match="did you mean 'Net'"):
        load_model(f"{module}:Nett")
    with pytest.raises(InputError, match="is a int"):
        load_model(f"{module}:number")
    with pytest.raises(InputError, match="takes no arguments"):
        load_model(f"{module}:net,classes=3")
    with pytest.raises(InputError, match=r"cannot build .*clases=3.*unexpected keyword"):
        load_model(f"{module}:Net,clases=3")
    with pytest.raises(InputError, match="gives a function"):
        load_model(f"{module}:function", weights="net.pt")


def test_a_module_whose_own_import_fails_says_so(tmp_path, monkeypatch):
    (tmp_path / "needs_absent_library.py").write_text("import absent_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="No module named 'absent_library'"):
        load_model("needs_absent_library:net")


def test_weights_and_options_reach_the_model(tmp_path):
    source = load_model("torchvision:lraspp_mobilenet_v3_large,num_classes=3")
    torch.save({"state_dict": source.network.state_dict()}, tmp_path / "net.pt")
    model = load_model(
        "torchvision:lraspp_mobilenet_v3_large,num_classes=3",
        weights=tmp_path / "net.pt",
        normalisation=([0.5] * 3, [0.5] * 3),
        size={"multiple_of": 16},
        outputs="probabilities",
    )
    x = torch.rand(1, 3, 32, 32)
    expected = source.network((x - 0.5) / 0.5)["out"].clamp_min(torch.finfo(torch.float32).tiny).log()
    torch.testing.assert_close(model.logits(x), expected.detach(), rtol=1e-4, atol=1e-4)
    assert not model.network.training


def test_registered_builders_are_found_by_name(monkeypatch):
    assert len(MODELS)  # all are found before the tables are copied
    for table in ("_things", "_facts"):
        monkeypatch.setattr(MODELS, table, dict(getattr(MODELS, table)))
    MODELS.register("toy")(lambda classes=3: wrap(torch.nn.Conv2d(3, classes, 1), num_classes=classes))
    model = load_model("toy,classes=6")
    assert isinstance(model, Segmenter)
    assert (model.num_classes, model.name) == (6, "toy")


def test_a_source_is_one_registration(monkeypatch):
    """Loading, the warning about weights and the nearest name know of it."""
    assert len(SOURCES)  # all are found before the tables are copied
    for table in ("_things", "_facts"):
        monkeypatch.setattr(SOURCES, table, dict(getattr(SOURCES, table)))

    @SOURCES.register("shelf", example="shelf:toy")
    def shelf(name, arguments):
        weights = Weights("x", whole=True) if "file" in arguments else INITIALISED
        network = torch.nn.Conv2d(3, len(name), 1)
        return Origin(network, Normalisation.imagenet(), SizeRule(multiple_of=4), weights=weights)

    model = load_model("shelf:toy")
    assert (model.num_classes, model.normalisation, model.size.multiple_of) == (3, Normalisation.imagenet(), 4)
    assert [len(doubts(load_model(f"shelf:{text}"))) for text in ("toy", "toy,file=x")] == [1, 0]
    with pytest.raises(InputError, match="did you mean 'shelf'"):
        load_model("shelff:toy")


SMALL = "hidden_sizes=[8,8,16,16],depths=[1,1,1,1],num_attention_heads=[1,1,2,2],decoder_hidden_size=16"


@pytest.mark.parametrize(
    "spec",
    [
        *(f"{name},num_classes=3" for name in MODELS if name.endswith("_light")),
        "smp:Unet,encoder_name=resnet18,classes=3",
        "torchvision:lraspp_mobilenet_v3_large,num_classes=3",
        f"hf:segformer,num_labels=3,{SMALL}",
    ],
)
def test_a_network_without_weights_says_so_whatever_its_source(spec, tmp_path):
    found = load_model(spec)
    assert found.weights == INITIALISED
    assert [str(doubt) for doubt in doubts(found)] == [
        f"{found.name} has no weights: give --weights FILE, or every figure is that of a random network"
    ]
    tiling = {"crop": [32, 32]}
    assert [doubt.name for doubt in doubts(load_model(spec, inference=tiling))] == ["weights"]
    save_file({k: t.contiguous() for k, t in found.network.state_dict().items()}, tmp_path / "net.safetensors")
    loaded = load_model(spec, weights=tmp_path / "net.safetensors")
    assert loaded.weights == Weights("net.safetensors", whole=True)
    assert not doubts(loaded)
    (tmp_path / "bare.yaml").write_text(f"model: '{spec}'\n")
    (tmp_path / "whole.yaml").write_text(f"model: '{spec}'\nweights: net.safetensors\n")
    assert [doubt.name for doubt in doubts(load_model(str(tmp_path / "bare.yaml")))] == ["weights"]
    assert not doubts(load_model(str(tmp_path / "whole.yaml")))


def test_every_network_of_the_paper_and_of_the_field_says_that_it_has_no_weights():
    ours = [name for name in MODELS if name.startswith(("psp", "psa", "hrnet", "upernet", "segmenter"))]
    with torch.device("meta"):
        found = {name: MODELS[name](num_classes=3).weights for name in ours}
    assert len(found) == 14
    assert set(found.values()) == {INITIALISED}


def test_a_network_of_ones_own_is_told_by_its_batch_norms(module, tmp_path):
    text = (
        "from torch import nn, rand\n\ndef fresh():\n    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))\n"
    )
    text += "\ndef seen():\n    network = fresh()\n    network(rand(2, 3, 4, 4))\n    return network\n"
    (tmp_path / "norms.py").write_text(text)
    told = {
        name: [d.name for d in doubts(load_model(f"norms:{name}", normalisation="none"))] for name in ("fresh", "seen")
    }
    assert told == {"fresh": ["weights"], "seen": []}


def test_an_object_of_ones_own_that_declares_no_normalisation_is_told_what_to_do(module):
    found = doubts(load_model(f"{module}:Net"))
    assert [doubt.name for doubt in found] == ["undeclared"]
    assert "--normalisation imagenet" in str(found[0])
    assert not doubts(load_model(f"{module}:Net", normalisation="none"))
    assert not doubts(load_model(f"{module}:ready"))


def test_a_trained_encoder_alone_is_a_part(monkeypatch):
    smp = pytest.importorskip("segmentation_models_pytorch")
    build = smp.MODEL_ARCHITECTURES_MAPPING["unet"]
    seen = []

    def unet(encoder_name="resnet34", encoder_weights="imagenet", classes=1):
        seen.append(encoder_weights)
        return build(encoder_name, encoder_weights=None, classes=classes)

    monkeypatch.setitem(smp.MODEL_ARCHITECTURES_MAPPING, "unet", unet)
    params = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_space": "BGR", "input_range": [0, 1]}
    asked = {
        "imagenet": params,
        "caffe": params | {"input_range": [0, 255], "mean": [104.0, 117.0, 123.0], "std": [1] * 3},
    }
    from segmentation_models_pytorch.encoders._preprocessing import preprocess_input

    monkeypatch.setattr(
        smp.encoders,
        "get_preprocessing_fn",
        lambda name, weights: functools.partial(preprocess_input, **asked[weights]),
    )
    model = load_model("smp:Unet,encoder_name=resnet18,encoder_weights=imagenet,classes=3")
    assert model.normalisation == Normalisation((0.5,) * 3, (0.5,) * 3, (2, 1, 0))
    assert [str(doubt) for doubt in doubts(model)] == [
        "smp:Unet has weights in a part alone (encoder_weights=imagenet): give --weights FILE, or every figure is that "
        "of a random network"
    ]
    found = load_model("smp:Unet,encoder_name=resnet18,encoder_weights=caffe,classes=3").normalisation
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    theirs = torch.from_numpy(preprocess_input(image, **asked["caffe"]).transpose(2, 0, 1).copy()).float()
    ours = found.apply(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert seen == ["imagenet", "caffe"]


def test_an_encoder_of_smp_with_other_colours_says_what_is_assumed():
    pytest.importorskip("segmentation_models_pytorch")
    assert "xception" in load_model("smp:Unet,encoder_name=xception,classes=3").assumed
    assert not load_model("smp:Unet,encoder_name=resnet18,classes=3").assumed


@pytest.mark.parametrize("weights", ["DEFAULT", "COCO_WITH_VOC_LABELS_V1", "LRASPP_MobileNet_V3_Large_Weights.DEFAULT"])
def test_weights_of_torchvision_bring_their_transform(monkeypatch, weights):
    from torchvision.models._api import WeightsEnum

    name = "lraspp_mobilenet_v3_large"
    state = load_model(f"torchvision:{name},num_classes=21").network.state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *a, **b: state)
    model = load_model(f"torchvision:{name},weights={weights}")
    assert model.normalisation == Normalisation.imagenet()
    assert (model.weights.whole, doubts(model)) == (True, [])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dem", "did you mean 'demo'"),
        ("torchvison:fcn_resnet50", "unknown model source 'torchvison'; did you mean 'torchvision'"),
        ("torchvision:deeplabv3_resnet5", "did you mean 'deeplabv3_resnet50'"),
        ("torchvision:lraspp_mobilenet_v3_large,clases=3", "unknown argument .*did you mean 'num_classes'"),
        ("smp:PSPNett", "did you mean 'PSPNet'"),
        ("smp:PSPNet,clases=3", "did you mean 'classes'"),
        ("smp:PSPNet,encoder_name=resnet19,classes=3", r"cannot build smp:PSPNet.*resnet19"),
        ("smp:PSPNet,encoder_name=resnet18,encoder_depth=3", "one channel .* give outputs="),
    ],
)
def test_unknown_names_get_the_nearest(spec, message):
    with pytest.raises(InputError, match=message):
        load_model(spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("onnx:net.onnx", "--target onnx:net.onnx"),
        ("onnx:folder/net.onnx,num_classes=3", "--target onnx:folder/net.onnx"),
        ("net.onnx", "--target onnx:net.onnx"),
        ("folder/NET.ONNX", "--target onnx:folder/NET.ONNX"),
        ("oip:http://localhost:8000/v2/models/net", "--target oip:"),
        ("http://localhost:8000/v2/models/net", "--target oip:"),
        ("net.pth", "--weights net.pth"),
        ("folder/net.safetensors", "--weights folder/net.safetensors"),
        ("tiled:demo,crop=[8,8]", "inference: {crop"),
        ("tiled", "inference: {crop"),
        (".", "hf:."),
    ],
)
def test_what_is_no_network_is_told_with_what_to_write(spec, said):
    with pytest.raises(InputError) as caught:
        load_model(spec)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_python_is_told_as_its_module(module):
    for spec in (f"{module}.py:Net", f"{module}.py:Net,classes=3", f"./{module}.py:Net"):
        with pytest.raises(InputError, match=f"write {module}:Net$"):
            load_model(spec)
    with pytest.raises(InputError, match=f"write {module}:NAME$"):
        load_model(f"{module}.py")


def test_devices_that_are_not_there():
    with pytest.raises(InputError, match="device 'gpu' cannot be used"):
        torch_device("gpu")
    with pytest.raises(InputError, match="device 'cuda:99' cannot be used"):
        torch_device("cuda:99")
