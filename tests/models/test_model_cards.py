"""Cards: everything about a network in one file, checked; and the shared CamVid network through one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from segradius.core.errors import InputError
from segradius.models import Normalisation, SizeRule, load_model, read_card

LRASPP = {"model": "torchvision:lraspp_mobilenet_v3_large", "arguments": {"num_classes": 3}}


def write(folder, content, name="net.yaml"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the network above."""
    network = load_model("torchvision:lraspp_mobilenet_v3_large,num_classes=3").network
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_a_whole_card(tmp_path):
    card = read_card(
        write(
            tmp_path,
            """
model: smp:PSPNet
arguments: {encoder_name: resnet18, encoder_weights: null}
weights: sub/file.safetensors
normalisation: {mean: [0, 0, 0], std: [1, 1, 1]}
size: {multiple_of: 8}
outputs: logits
classes: [Sky, Road]
licence: CC0
paper: null
""",
        )
    )
    assert card.name == "net"
    assert card.arguments == {"encoder_name": "resnet18", "encoder_weights": None}
    assert card.weights == tmp_path / "sub" / "file.safetensors"
    assert (card.normalisation, card.size) == (Normalisation.none(), SizeRule(multiple_of=8))
    assert (card.classes, card.licence, card.paper) == (("Sky", "Road"), "CC0", None)


def test_a_card_loads_what_it_says_and_options_win(tmp_path, weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    save = {**LRASPP, "weights": weights.name, "sha256": digest, "normalisation": "none", "size": {"multiple_of": 4}}
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    path = write(tmp_path, save)
    model = load_model(str(path))
    assert (model.name, model.num_classes) == ("net", 3)
    assert (model.normalisation, model.size) == (Normalisation.none(), SizeRule(multiple_of=4))
    by_spec = load_model("torchvision:lraspp_mobilenet_v3_large,num_classes=3", weights=weights)
    torch.testing.assert_close(model.network.state_dict(), by_spec.network.state_dict(), rtol=0, atol=0)
    assert load_model(str(path), normalisation="imagenet", size={"multiple_of": 2}).size == SizeRule(multiple_of=2)


def test_other_weights_than_the_card_says_are_refused(tmp_path, weights):
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    path = write(tmp_path, {**LRASPP, "weights": weights.name, "sha256": "0" * 64})
    with pytest.raises(InputError, match=r"net\.safetensors.*SHA-256"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: smp:PSPNet\nnormalization: none", r"net\.yaml: unknown card key .*did you mean 'normalisation'"),
        ("model: smp:PSPNet\nnormalization: null", r"net\.yaml: unknown card key"),
        ("model: smp:PSPNet\nsize: {multipleof: 8}", "did you mean 'multiple_of'"),
        ("model: smp:PSPNet\nnormalisation: imagenett", "did you mean 'imagenet'"),
        ("model: smp:PSPNet\nclasses: 3", "not a list of names"),
        ("model: smp:PSPNet\narguments: [1]", "not a mapping"),
        ("model: smp:PSPNet\nsha256: 12", "sha256: 12 is not text"),
        ("model: other.yaml", "is another card"),
        ("arguments: {}", "at least 'model"),
        ("just text", "at least 'model"),
        ("model: [", "no valid YAML"),
        ("model: smp:PSPNet,classes=3\narguments: {classes: 4}", "classes in model and in arguments"),
    ],
)
def test_bad_cards_are_named(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_model(str(write(tmp_path, content)))


def test_missing_cards_and_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"the model card .*gone\.yaml"):
        load_model(str(tmp_path / "gone.yaml"))
    path = write(tmp_path, {**LRASPP, "weights": "gone.safetensors"})
    with pytest.raises(InputError, match=r"gone\.safetensors.*does not exist"):
        load_model(str(path))


def test_class_names_must_be_as_many_as_the_logits(tmp_path):
    path = write(tmp_path, {**LRASPP, "classes": ["a", "b"]})
    with pytest.raises(InputError, match=r"2 class names.*3 classes"):
        load_model(str(path))


def test_the_shared_camvid_network_sees_what_it_should(tmp_path, camvid_weights, camvid_folder):
    pytest.importorskip("segmentation_models_pytorch")
    card = {
        "model": "smp:PSPNet",
        "arguments": {"encoder_name": "resnet18", "encoder_depth": 3, "classes": 11},
        "weights": str(camvid_weights),
        "size": {"multiple_of": 8},
        "normalisation": "imagenet",
    }
    model = load_model(str(write(tmp_path, card, "camvid.yaml")))
    names = sorted((camvid_folder / "images" / "test").iterdir())[::39]
    images = [Image.open(name).convert("RGB").resize((320, 240), Image.Resampling.BILINEAR) for name in names]
    masks = [Image.open(camvid_folder / "masks" / "test" / f"{name.stem}.png") for name in names]
    x = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    y = torch.stack([torch.from_numpy(np.array(m.resize((320, 240), Image.Resampling.NEAREST))) for m in masks])
    model.check(x)
    prediction = model.logits(x).argmax(1)
    low = model.logits(x, precision=torch.bfloat16).argmax(1)
    labelled = y != 11
    assert (prediction == y)[labelled].float().mean() > 0.75  # the whole test split: 0.827
    assert (prediction == low).float().mean() > 0.97
