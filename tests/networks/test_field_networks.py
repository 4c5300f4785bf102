"""SEA's and SegCertify's networks against compositions by others: transformers, timm, and the published formulas."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from networks import golden
from segradius.core.errors import InputError
from segradius.models.networks import HRNetOCR, HRNetV2, PSPNet, PSPNetDDCAT, UperNet, ViTSegmenter

DEPTHS, WIDTHS = (2, 1, 2, 1), (8, 12, 16, 20)
UPER = {"depths": DEPTHS, "widths": WIDTHS, "channels": 24, "aux_channels": 10}
HRNET = {"width": 4, "stem": 4, "modules": (1, 1, 1), "blocks": 1, "layer1_blocks": 2}


def filled(network):
    """The network's state, after it was given values of which none is near the identity."""
    golden.fill(network)
    return dict(network.state_dict())


def theirs_of(name):
    """Of a name in SEA's layout, that in transformers' UperNet over a ConvNeXt."""
    head, _, rest = name.partition(".")
    if head != "backbone":
        return name
    if rest.startswith("norm"):
        return f"backbone.hidden_states_norms.stage{int(rest[4]) + 1}{rest[5:]}"
    part, stage, inner = rest.split(".", 2)
    if part == "downsample_layers" and stage == "0":
        place, _, kind = inner.partition(".")
        return f"backbone.embeddings.{('patch_embeddings', 'layernorm')[int(place)]}.{kind}"
    if part == "downsample_layers":
        return f"backbone.encoder.stages.{stage}.downsampling_layer.{inner}"
    inner = inner.replace("norm.", "layernorm.").replace("gamma", "layer_scale_parameter")
    return f"backbone.encoder.stages.{stage}.layers.{inner}"


@pytest.fixture(scope="module")
def transformers_upernet():
    transformers = pytest.importorskip("transformers")
    trunk = transformers.ConvNextConfig(
        depths=list(DEPTHS), hidden_sizes=list(WIDTHS), out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(
        backbone_config=trunk,
        hidden_size=24,
        num_labels=5,
        auxiliary_channels=10,
        auxiliary_in_channels=16,
        auxiliary_in_index=2,
    )
    return transformers.UperNetForSemanticSegmentation(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(65, 97), (64, 32)])
def test_upernet_is_that_of_transformers(transformers_upernet, size):
    ours = UperNet(5, **UPER, stem="patch").eval()
    state = filled(ours)
    transformers_upernet.load_state_dict({theirs_of(name): tensor for name, tensor in state.items()})
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(ours(x)["out"], transformers_upernet(x).logits, rtol=0, atol=1e-5)
    features = transformers_upernet.backbone(x).feature_maps
    assert torch.allclose(ours.auxiliary_head(ours.backbone(x)[2]), transformers_upernet.auxiliary_head(features))


@torch.no_grad()
def test_the_stem_of_convolutions_is_two_of_stride_two():
    ours = UperNet(5, **UPER).eval()
    state = filled(ours)
    x = y = torch.rand(2, 3, 65, 97)
    for convolution, norm in ((0, 1), (3, 4)):
        kernel, shift, scale, bias = (
            state[f"backbone.downsample_layers.0.stem.{place}.{kind}"]
            for place in (convolution, norm)
            for kind in ("weight", "bias")
        )
        y = functional.conv2d(y, kernel, shift, stride=2, padding=1)
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        y = functional.gelu(y * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1))
    torch.testing.assert_close(ours.backbone.downsample_layers[0](x), y, rtol=0, atol=1e-5)
    assert y.shape == (2, 8, 17, 25)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (50, 90)])
def test_segmenter_is_timms_transformer_and_the_cosines_of_patches_and_classes(size):
    timm = pytest.importorskip("timm")
    ours = ViTSegmenter(7, side=64, width=24, layers=3, heads=4, decoder_layers=2).eval()
    state = filled(ours)
    padded = tuple(-(-side // 16) * 16 for side in size)
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=padded, patch_size=16, embed_dim=24, depth=3, num_heads=4, num_classes=0, norm_layer=nn.LayerNorm
    ).eval()
    encoder = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    grid = encoder["pos_embed"][:, 1:].transpose(1, 2).reshape(1, 24, 4, 4)
    rows, columns = (side // 16 for side in padded)
    grid = functional.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False)
    encoder["pos_embed"] = torch.cat([encoder["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], 1)
    theirs.load_state_dict(encoder)
    x = torch.rand(2, 3, *size)
    wide = torch.zeros(2, 3, *padded)
    wide[..., : size[0], : size[1]] = x
    tokens = theirs.forward_features(wide)[:, 1:]
    torch.testing.assert_close(ours.encoder(wide), tokens, rtol=0, atol=1e-5)

    y = torch.cat([functional.linear(tokens, state["decoder.proj_dec.weight"], state["decoder.proj_dec.bias"])], 1)
    y = torch.cat([y, state["decoder.cls_emb"].repeat(2, 1, 1)], 1)
    for place in range(2):
        block = timm.models.vision_transformer.Block(24, 4, qkv_bias=True, norm_layer=nn.LayerNorm).eval()
        begin = f"decoder.blocks.{place}."
        block.load_state_dict({n.removeprefix(begin): t for n, t in state.items() if n.startswith(begin)})
        y = block(y)
    y = functional.layer_norm(y, (24,), state["decoder.decoder_norm.weight"], state["decoder.decoder_norm.bias"])
    patches, classes = y[:, :-7] @ state["decoder.proj_patch"], y[:, -7:] @ state["decoder.proj_classes"]
    cosines = torch.einsum("npw,ncw->npc", patches, classes) / (
        patches.norm(dim=-1)[:, :, None] * classes.norm(dim=-1)[:, None]
    )
    masks = functional.layer_norm(cosines, (7,), state["decoder.mask_norm.weight"], state["decoder.mask_norm.bias"])
    masks = masks.transpose(1, 2).reshape(2, 7, rows, columns)
    masks = functional.interpolate(masks, padded, mode="bilinear")[..., : size[0], : size[1]]
    torch.testing.assert_close(ours(x), masks, rtol=0, atol=1e-5)


@torch.no_grad()
def test_ddcat_answers_as_a_pspnet_with_its_clean_head():
    theirs, ours = PSPNet(5, layers=18, width=8).eval(), PSPNetDDCAT(5, layers=18, width=8).eval()
    state = filled(theirs)
    heads = {"cls": "cls1", "aux": "aux_cls1"}
    parts = {name: name.partition(".") for name in state}
    ours.load_state_dict({f"{heads.get(parts[n][0], parts[n][0])}.{parts[n][2]}": t for n, t in state.items()})
    x = torch.rand(2, 3, 41, 49)
    assert torch.equal(ours(x)["out"], theirs(x)["out"])


@torch.no_grad()
@pytest.mark.parametrize("align_corners", [True, False])
def test_hrnet_without_ocr_is_the_trunk_of_hrnet_ocr_and_two_convolutions(align_corners):
    """HRNet-OCR's auxiliary head has the form of HRNetV2's only one, and its trunk is checked against public values."""
    theirs = HRNetOCR(5, **HRNET, mid=8, key=4, align_corners=align_corners).eval()
    state = filled(theirs)
    ours = HRNetV2(5, **HRNET, align_corners=align_corners).eval()
    heads = ("conv3x3_ocr.", "ocr_distri_head.", "cls_head.")
    ours.load_state_dict(
        {n.replace("aux_head.", "last_layer."): t for n, t in state.items() if not n.startswith(heads)}
    )
    x = torch.rand(2, 3, 65, 97)
    expected = functional.interpolate(theirs.coarse(x)[1], (65, 97), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(ours(x), expected)


NETWORKS = {
    "upernet": partial(UperNet, 5, **UPER),
    "segmenter": partial(ViTSegmenter, 5, side=64, width=12, layers=1, heads=3, decoder_layers=1),
    "ddcat": partial(PSPNetDDCAT, 5, layers=18, width=8),
    "hrnet": partial(HRNetV2, 5, **HRNET),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_images_of_a_batch_do_not_meet_and_every_parameter_learns(kind):
    network = NETWORKS[kind]().double().eval()
    golden.fill(network)
    x = torch.rand(2, 3, 65, 72).double()

    def logits(images):
        found = network(images)
        return found["out"] if isinstance(found, dict) else found

    with torch.no_grad():
        torch.testing.assert_close(logits(x), torch.cat([logits(image) for image in x.split(1)]))
    network.train()
    found = network(x)
    total = sum(each.square().mean() for each in (found.values() if isinstance(found, dict) else [found]))
    total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_segmenter_is_exported_for_any_number_of_images():
    network = NETWORKS["segmenter"]().eval()
    golden.fill(network)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (torch.rand(2, 3, 50, 72),), dynamic_shapes=({0: batch},)).module()
    x = torch.rand(3, 3, 50, 72)
    torch.testing.assert_close(program(x), network(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UperNet(5, depths=(1, 1, 1)), r"depths=\(1, 1, 1\): expected four whole numbers"),
        (lambda: UperNet(5, **UPER | {"widths": (7, 8, 9, 10)}), "expected an even number of channels"),
        (lambda: UperNet(5, **UPER, stem="conv"), "stem is 'conv'"),
        (lambda: UperNet(5, **UPER, drop_path=1), r"drop_path=1: expected a probability in \[0, 1\)"),
        (lambda: UperNet(0, **UPER), "num_classes=0"),
        (lambda: ViTSegmenter(5, side=60), "expected a side of whole patches"),
        (lambda: ViTSegmenter(5, dropout=1.0), "dropout=1.0"),
        (lambda: HRNetV2(5, modules=(1, 1)), r"modules=\(1, 1\)"),
        (lambda: HRNetV2(0), "num_classes=0"),
    ],
)
def test_arguments_outside_their_range_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
