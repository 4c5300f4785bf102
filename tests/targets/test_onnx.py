"""An ONNX file as a target: the numbers of the network it came from, whatever its types, layouts and sizes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

import segradius as sr
from segradius.core.contracts import LABELS_ALONE
from segradius.core.errors import InputError, ModelError, TargetError
from segradius.targets import fingerprint, open_target

C = 4
KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def weight() -> torch.Tensor:
    return torch.randn(C, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def build(
    path: Path,
    *,
    kind: str = "float32",
    batch: int | str = "n",
    size: tuple[int | str, int | str] = ("h", "w"),
    nhwc: bool = False,
    stride: int = 1,
    softmax: bool = True,
    labels: bool = False,
    second: bool = False,
) -> Path:
    """A convolution, written node by node; bytes are divided by 255 in the file."""
    shape = [batch, *size, 3] if nhwc else [batch, 3, *size]
    nodes, at = [], "image"

    def add(op: str, *more: str, **attributes) -> None:
        nonlocal at
        nodes.append(helper.make_node(op, [at, *more], [f"t{len(nodes)}"], **attributes))
        at = f"t{len(nodes) - 1}"

    if nhwc:
        add("Transpose", perm=[0, 3, 1, 2])
    if kind != "float32":
        add("Cast", to=TensorProto.FLOAT)
    if kind == "uint8":
        add("Div", "most")
    add("Conv", "weight", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride])
    if softmax:
        add("Softmax", axis=1)
    if labels:
        add("ArgMax", axis=1, keepdims=0)
    if nhwc and not labels:
        add("Transpose", perm=[0, 2, 3, 1])
    nodes[-1].output[0] = "answer"
    out = [batch, "y", "x"] if labels else [batch, "y", "x", C] if nhwc else [batch, C, "y", "x"]
    outputs = [helper.make_tensor_value_info("answer", TensorProto.INT64 if labels else TensorProto.FLOAT, out)]
    if second:
        nodes.append(helper.make_node("Identity", ["answer"], ["again"]))
        outputs.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, out))
    constants = [numpy_helper.from_array(weight().numpy(), "weight")]
    constants.append(numpy_helper.from_array(torch.tensor(255.0).numpy(), "most"))
    inputs = [helper.make_tensor_value_info("image", KINDS[kind], shape)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def in_torch(images: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Logits at the images' size."""
    z = functional.conv2d(images, weight(), stride=stride, padding=1)
    if stride == 1:
        return z
    return functional.interpolate(z, images.shape[-2:], mode="bilinear", align_corners=False)


def images(count: int = 5, size: tuple[int, int] = (8, 10)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("batch", ["n", 1, 2, 8])
@pytest.mark.parametrize("kind", list(KINDS))
def test_types_layouts_and_batches_give_the_same_probabilities(tmp_path: Path, kind: str, batch, nhwc: bool):
    path, x = build(tmp_path / "net.onnx", kind=kind, batch=batch, nhwc=nhwc), images()
    seen = {"float32": x, "float16": x.half().float(), "uint8": (x * 255).round() / 255}[kind]
    torch.testing.assert_close(open_target(f"onnx:{path}").scores(x), in_torch(seen).softmax(1), rtol=1e-5, atol=1e-6)


def test_a_coarse_output_is_resized_before_the_softmax_if_it_is_logits(tmp_path: Path):
    x = images()
    logits = open_target(f"onnx:{build(tmp_path / 'a.onnx', stride=2, softmax=False)}", outputs="logits")
    torch.testing.assert_close(logits.scores(x), in_torch(x, 2).softmax(1), rtol=1e-5, atol=1e-6)
    scores = open_target(f"onnx:{build(tmp_path / 'b.onnx', stride=2)}").scores(x)
    small = functional.conv2d(x, weight(), stride=2, padding=1).softmax(1)
    resized = functional.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores, resized, rtol=1e-5, atol=1e-6)
    assert scores.is_contiguous()


def test_labels_become_one_hot_at_the_size_of_the_images(tmp_path: Path):
    path, x = build(tmp_path / "net.onnx", stride=2, softmax=False, labels=True), images()
    with pytest.raises(InputError, match="give num_classes"):
        open_target(f"onnx:{path}", outputs="labels")
    target = open_target(f"onnx:{path},num_classes={C}", outputs="labels")
    coarse = functional.conv2d(x, weight(), stride=2, padding=1).argmax(1)
    found = target.scores(x)
    assert torch.equal(found.argmax(1), coarse.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(found.sum(1), torch.ones(5, 8, 10))
    assert target.offers == LABELS_ALONE
    with pytest.raises(TargetError, match="give outputs=labels"):
        open_target(f"onnx:{path},num_classes={C}").scores(x)


def test_the_normalisation_is_done_before_the_network(tmp_path: Path):
    path, x = build(tmp_path / "net.onnx"), images()
    target = open_target(f"onnx:{path}", normalisation="imagenet")
    theirs = sr.wrap(lambda x: in_torch(x), num_classes=C, normalisation="imagenet")
    torch.testing.assert_close(target.scores(x), theirs.scores(x), rtol=1e-5, atol=1e-6)
    assert fingerprint(target) != fingerprint(open_target(f"onnx:{path}"))
    with pytest.raises(InputError, match="bytes, which cannot be normalised"):
        open_target(f"onnx:{build(path, kind='uint8')},normalisation=imagenet")


def test_a_batch_is_what_its_images_are_one_by_one(tmp_path: Path):
    path, x = build(tmp_path / "net.onnx"), images(7)
    whole = open_target(f"onnx:{path},batch=100").scores(x)
    for size in (1, 3, 8):
        assert torch.equal(open_target(f"onnx:{path},batch={size},threads=1").scores(x), whole)


def test_a_size_that_the_file_does_not_take_is_named(tmp_path: Path):
    path = build(tmp_path / "net.onnx", size=(8, "w"))
    open_target(f"onnx:{path}").scores(images(1, (8, 13)))
    with pytest.raises(InputError, match=r"images are 9x10 \(height x width\); the model takes 8x\? only"):
        open_target(f"onnx:{path}").scores(images(1, (9, 10)))


def test_what_the_runtime_refuses_is_told_in_a_line(tmp_path: Path):
    path = build(tmp_path / "net.onnx")
    target = open_target(f"onnx:{path}")
    target.target.session = type("Broken", (), {"run": lambda *given: 1 / 0})()
    with pytest.raises(ModelError, match=r"'net' failed on images \(1, 3, 8, 10\): .*division by zero"):
        target.scores(images(1))


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"softmax": False}, "", "give outputs=logits"),
        ({}, "outputs=logits", "leave out outputs=logits"),
        ({"second": True}, "", r"2 outputs \('answer' float32 \(\?, 4, \?, \?\), 'again'.*name one with output=NAME"),
        ({"second": True}, "output_name=agian", "did you mean 'again'"),
        ({}, "num_classes=7", "no dimension of num_classes=7"),
        ({}, "layout=nhwc", "does not have 3 bands in layout nhwc"),
        ({}, "layout=chw", "unknown layout 'chw'"),
        ({}, "provider=GPU", "unknown provider 'GPU'"),
        ({}, "batch=0", "batch is 0"),
    ],
)
def test_what_does_not_fit_says_what_to_give(tmp_path: Path, options, text: str, message: str):
    path = build(tmp_path / "net.onnx", **options)
    with pytest.raises((InputError, TargetError), match=message):
        open_target(f"onnx:{path}{text and ','}{text}").scores(images())


def test_names_and_classes_can_be_given(tmp_path: Path):
    x = images()
    path = build(tmp_path / "net.onnx", second=True)
    target = open_target(f"onnx:{path},input_name=image,output_name=again,num_classes={C},layout=nchw")
    torch.testing.assert_close(target.scores(x), in_torch(x).softmax(1), rtol=1e-5, atol=1e-6)


def test_what_is_no_model_is_refused(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not ONNX")
    with pytest.raises(InputError, match="cannot be opened as an ONNX model"):
        open_target(f"onnx:{path}")


def test_a_changed_file_is_noticed_and_a_moved_one_is_not(tmp_path: Path):
    first = fingerprint(open_target(f"onnx:{build(tmp_path / 'a.onnx')}"))
    assert fingerprint(open_target(f"onnx:{build(tmp_path / 'b.onnx')},batch=1,threads=1")) == first
    assert fingerprint(open_target(f"onnx:{build(tmp_path / 'a.onnx', stride=2)}")) != first
    (tmp_path / "b.onnx.data").write_bytes(b"weights beside it")
    assert fingerprint(open_target(f"onnx:{tmp_path / 'b.onnx'}")) != first


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_camvid_network_in_a_file_is_the_network(camvid_onnx: Path, camvid_model: sr.Segmenter, batch: int):
    x = images(8, (96, 128))
    target = open_target(f"onnx:{camvid_onnx},batch={batch}")
    assert (target.num_classes, target.target.exchange.signature.size) == (11, (96, 128))
    scores = target.scores(x)
    torch.testing.assert_close(scores, camvid_model.scores(x), rtol=0, atol=2e-6)
    assert torch.equal(scores, open_target(f"onnx:{camvid_onnx},batch=5").scores(x))
    assert target.answered == 8
