"""Checkpoints as SEA, SegCertify, semseg and HRNet publish them load strictly; others are refused with the list."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch

from models.published_layouts import (
    hrnet_ocr,
    layout,
    prefixed,
    sea_ddcat,
    sea_segmenter,
    sea_upernet,
    segcertify,
    semseg_psa,
    semseg_psp,
)
from networks import golden
from segradius.core.errors import InputError
from segradius.models import MODELS, convert, load_into, load_state
from segradius.models.networks import HRNetV2, PSPNetDDCAT, UperNet, ViTSegmenter

SMALL = (3, 3, 27, 3)
#: File, the network that takes it, its other arguments, classes, and what of the file has no place in the network.
FILES = {
    "SEA VOC T": (sea_upernet(21), "upernet_convnext_t", {}, 21, ()),
    "SEA VOC S": (sea_upernet(21, SMALL), "upernet_convnext_s", {}, 21, ()),
    "SEA ADE20K T": (sea_upernet(151), "upernet_convnext_t", {}, 151, ()),
    "SEA ADE20K S": (sea_upernet(151, SMALL), "upernet_convnext_s", {}, 151, ()),
    "SEA clean ConvNeXt-T": (sea_upernet(21, stem="patch"), "upernet_convnext_t", {"stem": "patch"}, 21, ()),
    "SEA Segmenter": (sea_segmenter(151), "segmenter_vit_s", {}, 151, ("encoder.head.",)),
    "DDC-AT VOC": (prefixed(sea_ddcat(21)), "pspnet50_ddcat", {}, 21, ("cls2.", "mask1.")),
    "DDC-AT Cityscapes": (prefixed(sea_ddcat(19)), "pspnet50_ddcat", {}, 19, ("cls2.", "mask1.")),
    "SegCertify Cityscapes": (segcertify(19), "hrnet_v2_w48", {}, 19, ("loss.", "std")),
    "SegCertify Pascal": (segcertify(59, weighted=False), "hrnet_v2_w48", {}, 59, ("std",)),
    "semseg PSPNet VOC": (prefixed(semseg_psp(21)), "pspnet50", {}, 21, ()),
    "semseg PSPNet ADE20K": (prefixed(semseg_psp(150)), "pspnet50", {}, 150, ()),
    "semseg PSANet ADE20K": (prefixed(semseg_psa(150)), "psanet50", {}, 150, ()),
    "semseg PSANet Cityscapes": (prefixed(semseg_psa(19, (89, 89))), "psanet50", {"mask": (89, 89)}, 19, ()),
    "HRNet-OCR Cityscapes": (hrnet_ocr(19), "hrnet_ocr_w48", {}, 19, ("loss.",)),
    "HRNet-OCR ADE20K": (hrnet_ocr(150), "hrnet_ocr_w48", {}, 150, ("loss.",)),
}
FILES = {name: (layout(shapes), *rest) for name, (shapes, *rest) in FILES.items()}
#: A layer of each kind of file, near its end, and of how many entries another number of classes tells.
LAYERS = {
    "upernet_convnext_t": ("decode_head.fpn_bottleneck.conv.weight", 4),
    "upernet_convnext_s": ("decode_head.fpn_bottleneck.conv.weight", 4),
    "segmenter_vit_s": ("decoder.proj_patch", 3),
    "pspnet50_ddcat": ("module.ppm.features.3.1.weight", 4),
    "hrnet_v2_w48": ("model.last_layer.0.weight", 2),
    "pspnet50": ("module.ppm.features.3.1.weight", 4),
    "psanet50": ("module.psa.proj.0.weight", 4),
    "hrnet_ocr_w48": ("model.cls_head.bias", 4),
}


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@cache
def network_of(name, num_classes, mask=None, **arguments):
    """One that no test changes: loading into a network without memory leaves it as it was."""
    with torch.device("meta"):
        more = {} if mask is None else {"mask": mask}
        return MODELS[name](num_classes=num_classes, **arguments, **more).network


@pytest.fixture(params=FILES)
def file(request):
    """Shapes in a file, a function that makes its network, its class count, what is left out, and a layer in it."""
    shapes, name, arguments, classes, beside = FILES[request.param]
    return shapes, partial(network_of, name, **arguments), classes, beside, LAYERS[name]


def bare(name):
    return name.removeprefix("module.").removeprefix("model.")


def test_names_and_shapes_are_those_of_the_file(file):
    shapes, make, classes, beside, _ = file
    ours = {name: tuple(tensor.shape) for name, tensor in make(num_classes=classes).state_dict().items()}
    assert ours == {bare(name): shape for name, shape in shapes.items() if not bare(name).startswith(beside or "\n")}


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_file_loads_whatever_wrapped_its_network_in_training(file, prefix):
    shapes, make, classes, _, _ = file
    load_into(make(num_classes=classes), {prefix + name: tensor for name, tensor in on_meta(shapes).items()})


def test_a_missing_and_an_unexpected_name_are_listed(file):
    shapes, make, classes, _, (layer, _) = file
    state = on_meta(shapes)
    state[f"{layer}.extra"] = state.pop(layer)
    network = make(num_classes=classes)
    with pytest.raises(InputError) as caught:
        load_into(network, state, "net.pth")
    assert str(caught.value) == (
        f"'net.pth' does not fit {type(network).__name__}: 1 missing: {bare(layer)}; 1 unexpected: {bare(layer)}.extra"
    )


def test_another_shape_is_listed_with_both(file):
    shapes, make, classes, _, (layer, _) = file
    wrong = (shapes[layer][0] + 1, *shapes[layer][1:])
    with pytest.raises(InputError) as caught:
        load_into(make(num_classes=classes), on_meta({**shapes, layer: wrong}))
    assert str(caught.value).endswith(
        f"1 of another shape: {bare(layer)} ({wrong} in the file, {shapes[layer]} in the network)"
    )


def test_another_number_of_classes_is_listed(file):
    shapes, make, classes, _, (_, entries) = file
    with pytest.raises(
        InputError, match=rf"{entries} of another shape: .*{classes}.* in the file, .*{classes + 1}"
    ) as caught:
        load_into(make(num_classes=classes + 1), on_meta(shapes))
    assert "missing" not in str(caught.value)
    assert "unexpected" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:for .*num_batches_tracked:UserWarning")
@pytest.mark.parametrize(
    ("kind", "other", "classes", "message"),
    [
        ("SEA VOC T", "upernet_convnext_s", 21, r"162 missing: backbone\.stages\.2\.9\.gamma"),
        ("SEA VOC S", "upernet_convnext_t", 21, r"162 unexpected: backbone\.stages\.2\.9\.gamma"),
        ("SEA clean ConvNeXt-T", "upernet_convnext_t", 21, r"8 missing: .*0\.stem\.0\.weight.*4 unexpected"),
        ("SEA VOC T", "pspnet50", 21, r"SEA's UperNet: give upernet_convnext_t or its like"),
        ("SEA Segmenter", "upernet_convnext_t", 151, r"SEA's Segmenter: give segmenter_vit_s"),
        ("SegCertify Cityscapes", "hrnet_ocr_w48", 19, r"missing: conv3x3_ocr\.0\.weight.*give hrnet_v2_w48"),
        ("HRNet-OCR Cityscapes", "hrnet_v2_w48", 19, r"missing: last_layer\.0\.weight.*unexpected: conv3x3_ocr"),
        ("DDC-AT VOC", "pspnet50", 21, r"missing: cls\.0\.weight.*unexpected: cls1\.0\.weight.*give pspnet50_ddcat"),
        ("semseg PSPNet VOC", "pspnet50_ddcat", 21, r"missing: cls1\.0\.weight.*unexpected: cls\.0\.weight"),
        ("semseg PSANet Cityscapes", "psanet50", 19, r"2 of another shape: psa\.attention\.3\.weight \(\(7921"),
    ],
)
def test_a_file_of_another_network_is_refused_with_the_list_and_what_it_is_of(kind, other, classes, message):
    with pytest.raises(InputError, match=message):
        load_into(network_of(other, num_classes=classes), on_meta(FILES[kind][0]))


HRNET = {"width": 4, "stem": 4, "modules": (1, 1, 1), "blocks": 1, "layer1_blocks": 2}
UPER = {"depths": (1, 1, 2, 1), "widths": (8, 12, 16, 20), "channels": 24}
#: Small files in each envelope that is published, and the networks that take them.
WRITTEN = {
    "SEA UperNet": (sea_upernet(5, **UPER, aux=10), partial(UperNet, 5, **UPER, aux_channels=10), None),
    "SEA Segmenter": (
        sea_segmenter(5, side=64, width=12, layers=1, decoder_layers=1),
        partial(ViTSegmenter, 5, side=64, width=12, layers=1, heads=3, decoder_layers=1),
        None,
    ),
    "DDC-AT": (prefixed(sea_ddcat(5, 18, 8)), partial(PSPNetDDCAT, 5, layers=18, width=8), "state_dict"),
    "SegCertify": (segcertify(5, **HRNET), partial(HRNetV2, 5, **HRNET), None),
}
WRITTEN = {name: (layout(shapes), *rest) for name, (shapes, *rest) in WRITTEN.items()}


@torch.no_grad()
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_small_file_of_each_layout_gives_the_same_logits_as_written_and_converted(kind, tmp_path):
    shapes, make, envelope = WRITTEN[kind]
    content = {name: golden._drawn(bare(name), torch.empty(shape), 0) for name, shape in shapes.items()}
    known = make().eval()
    known.load_state_dict({bare(name): t for name, t in content.items() if bare(name) in known.state_dict()})
    torch.save(content if envelope is None else {envelope: content, "epoch": 50}, tmp_path / "net.pth")
    done = convert(tmp_path / "net.pth", tmp_path / "net.safetensors")
    assert done.tensors == len(shapes)
    x = torch.rand(1, 3, 49, 65)
    for file in ("net.pth", "net.safetensors"):
        network = make().eval()
        load_into(network, load_state(tmp_path / file), file)
        ours, expected = (found["out"] if isinstance(found, dict) else found for found in (network(x), known(x)))
        assert torch.equal(ours, expected)
