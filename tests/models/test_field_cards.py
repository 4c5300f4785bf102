"""The cards and options of docs/field, and SegCertify's inference against a transcription of its code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional

from networks import golden
from segradius.core.prediction import predict
from segradius.data import PROTOCOLS
from segradius.models import MODELS, Normalisation, tiled, wrap
from segradius.models.cards import read_card
from segradius.models.networks import HRNetV2

FIELD = Path(__file__).resolve().parents[2] / "docs" / "field"
PAGE = (FIELD.parent / "field.md").read_text("utf-8")
CARDS = sorted(path for path in FIELD.glob("*.yaml") if "model:" in path.read_text("utf-8"))
UNNORMALISED = {"upernet_convnext_t", "upernet_convnext_s", "segmenter_vit_s"}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_is_of_a_network_that_is_known_and_in_the_table(path):
    card = read_card(path)
    with torch.device("meta"):
        model = MODELS[card.model](**card.arguments)
    assert model.normalisation == (Normalisation.none() if card.model in UNNORMALISED else Normalisation.imagenet())
    assert card.weights == FIELD / f"{path.stem}.safetensors"
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| [{path.stem}](field/{path.name})"))
    _, _, _, network, classes, protocol, _ = (cell.strip(" `") for cell in row.split("|"))
    assert (network, int(classes)) == (card.model, model.num_classes)
    assert protocol in PROTOCOLS


def test_every_network_of_the_field_has_a_card():
    from segradius.models import field

    ours = {name for name in MODELS if MODELS[name].__module__ == field.__name__}
    assert {read_card(path).model for path in CARDS} == ours


def test_options_of_segcertify_are_those_of_its_paper():
    options = yaml.safe_load((FIELD / "segcertify_options.yaml").read_text())
    assert {name: options[name] for name in ("sigma", "n0", "n", "tau", "alpha")} == {
        "sigma": 0.25,
        "n0": 10,
        "n": 100,
        "tau": 0.75,
        "alpha": 0.001,
    }
    assert options["limit"] * options["stride"] == 500  # the images of Cityscapes' val


@torch.no_grad()
@pytest.mark.parametrize("spread", ["softmax", "exp"])
def test_the_card_of_segcertify_is_its_inference_at_scale_a_quarter(spread):
    """Normalise the noisy image, shrink it, enlarge what the network answers; here at half of Cityscapes' size."""
    network = HRNetV2(6, width=4, stem=4, modules=(1, 1, 1), blocks=1, layer1_blocks=1).eval()
    golden.fill(network)
    card = read_card(FIELD / "segcertify_cityscapes.yaml").inference
    height, width = (side // 2 for side in card.crop)
    whole = wrap(network, normalisation="imagenet", num_classes=6)
    model = tiled(whole, crop=(height, width), scales=card.scales, base=card.base // 2)
    noisy = torch.rand(2, 3, 512, 1024) + 0.25 * torch.randn(2, 3, 512, 1024)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    small = functional.interpolate((noisy - mean) / std, (height, width), mode="bilinear", align_corners=False)
    logits = network(small)
    weights = logits.softmax(1) if spread == "softmax" else logits.exp()
    theirs = functional.interpolate(weights, (512, 1024), mode="bilinear", align_corners=False)
    ours = model.logits(noisy)
    if spread == "softmax":
        torch.testing.assert_close(ours.exp(), theirs, rtol=0, atol=1e-5)
    else:  # what is left of the difference to their code
        assert (predict(ours)[1] == theirs.argmax(1)).float().mean() > 0.97
