"""Networks of transformers, tiny and built offline, against the library used by hand."""

from __future__ import annotations

import io
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models import Normalisation, load_model

transformers = pytest.importorskip("transformers")

SEGFORMER = (
    "hf:segformer,num_labels=5,hidden_sizes=[8,8,16,16],depths=[1,1,1,1],num_attention_heads=[1,1,2,2],"
    "decoder_hidden_size=16"
)
STAGES = "out_features: [stage1,stage2,stage3,stage4]"
UPERNET = (
    "hf:upernet,num_labels=5,hidden_size=16,auxiliary_channels=8,auxiliary_in_channels=16,"
    f"backbone_config={{model_type: convnext, hidden_sizes: [8,8,16,16], depths: [1,1,1,1], {STAGES}}}"
)
MASK2FORMER = (
    "hf:mask2former,num_labels=5,hidden_dim=32,feature_size=32,mask_feature_size=32,num_attention_heads=2,"
    "encoder_layers=1,decoder_layers=2,encoder_feedforward_dim=16,dim_feedforward=16,num_queries=7,"
    "backbone_config={model_type: swin, embed_dim: 8, depths: [1,1,1,1], num_heads: [1,1,2,2], window_size: 4, "
    f"{STAGES}}}"
)


def logits_of(output):
    return output.logits


def scores_of(output):
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    return torch.log(torch.einsum("nqc,nqhw->nchw", classes, output.masks_queries_logits.sigmoid()))


@pytest.mark.parametrize(
    ("spec", "kind", "read"),
    [
        (SEGFORMER, "SegformerForSemanticSegmentation", logits_of),
        (UPERNET, "UperNetForSemanticSegmentation", logits_of),
        (MASK2FORMER, "Mask2FormerForUniversalSegmentation", scores_of),
    ],
)
def test_networks_equal_the_library_used_by_hand(spec, kind, read):
    if kind.startswith("Mask2Former"):
        pytest.importorskip("scipy")
    model = load_model(spec)
    assert (type(model.network).__name__, model.num_classes) == (kind, 5)
    x = torch.rand(2, 3, 48, 64, requires_grad=True)
    z = model.logits(x)
    normal = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    raw = read(model.network(pixel_values=normal))
    expected = functional.interpolate(raw, size=(48, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(v.square().mean(), x)[0] for v in (z, expected)]
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)
    model.check(x.detach())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved SegFormer in half precision, and its processor."""
    folder = tmp_path_factory.mktemp("segformer")
    network = load_model(SEGFORMER).network
    network.to(torch.bfloat16).save_pretrained(folder)
    transformers.SegformerImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(folder)
    return folder, network.float()


def test_a_saved_network_comes_with_its_processor_in_float32(saved):
    folder, network = saved
    model = load_model(f"hf:{folder}")
    assert model.normalisation == Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert model.dtype == torch.float32
    x = torch.rand(1, 3, 32, 32)
    expected = functional.interpolate(
        network.eval()((x - 0.5) / 0.25).logits, size=(32, 32), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(model.logits(x), expected.detach(), rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_not_drawn_anew(saved):
    with pytest.raises(InputError, match="do not fit"):
        load_model(f"hf:{saved[0]},num_labels=9")


def test_missing_weights_are_refused_not_drawn_anew(saved, tmp_path):
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["decode_head.classifier.bias"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing_keys.*decode_head\.classifier\.bias"):
        load_model(f"hf:{tmp_path}")


def test_a_damaged_processor_is_not_replaced_by_a_default(saved, tmp_path):
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match="image processor"):
        load_model(f"hf:{tmp_path}")


def test_nothing_is_downloaded_and_names_are_checked(monkeypatch):
    with pytest.raises(InputError, match="nothing is downloaded"):
        load_model("hf:nobody/no-such-network")
    with pytest.raises(InputError, match="did you mean 'segformer'"):
        load_model("hf:segfomer")
    with pytest.raises(InputError, match="did you mean 'num_labels'"):
        load_model("hf:segformer,num_label=3")


class Trap:
    """What makes a directory when it is rebuilt."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def with_weights(saved, folder, name, content):
    """A folder like the saved one, with other weights."""
    for file in saved[0].iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).write_bytes(content)
    return folder


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", POINTER, "pointer of git-lfs"),
        ("pytorch_model.bin", POINTER, "pointer of git-lfs"),
        ("model.safetensors", b"<html></html>", "HTML page"),
        ("model.safetensors", b"", "empty"),
        ("pytorch_model.bin", b"\x80\x04}\x94(\x8c\x01w\x94K\x01u.", "Python pickle"),
        ("pytorch_model.bin", bytes(99), "no checkpoint"),
    ],
)
def test_weights_in_a_folder_that_are_none_are_told(saved, tmp_path, name, content, said):
    with pytest.raises(InputError, match=rf"{name}.*{said}") as caught:
        load_model(f"hf:{with_weights(saved, tmp_path, name, content)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: content[:5000]])
def test_a_folder_with_a_truncated_file_is_told(saved, tmp_path, damage):
    content = damage((saved[0] / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"hf:|truncated") as caught:
        load_model(f"hf:{with_weights(saved, tmp_path, 'model.safetensors', content)}")
    assert "\n" not in str(caught.value)


def test_a_pickled_folder_is_refused_and_does_not_run(saved, tmp_path):
    buffer = io.BytesIO()
    torch.save({**saved[1].state_dict(), "trap": Trap(tmp_path / "ran")}, buffer)
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*refused.*mkdir") as caught:
        load_model(f"hf:{with_weights(saved, tmp_path, 'pytorch_model.bin', buffer.getvalue())}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_transformers_does_not_read_does_not_matter(saved, tmp_path):
    content = (saved[0] / "model.safetensors").read_bytes()
    folder = with_weights(saved, tmp_path, "model.safetensors", content)
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    assert load_model(f"hf:{folder}").num_classes == 5


def test_tensors_alone_in_a_bin_file_are_read(saved, tmp_path):
    buffer = io.BytesIO()
    torch.save(saved[1].state_dict(), buffer)
    model = load_model(f"hf:{with_weights(saved, tmp_path, 'pytorch_model.bin', buffer.getvalue())}")
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model.logits(x), load_model(f"hf:{saved[0]}").logits(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": 3}', '{"a": 1}', "<html></html>"])
def test_a_configuration_that_is_none_is_told(saved, tmp_path, content):
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load_model(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
