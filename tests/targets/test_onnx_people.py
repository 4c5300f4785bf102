"""ONNX files as people have them: many outputs, other inputs, one size, 0–255, BGR, weights beside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

import segradius as sr
from segradius.core.errors import InputError, TargetError
from segradius.targets import fingerprint, open_target

Value = helper.make_tensor_value_info
FLOAT = TensorProto.FLOAT


def save(path: Path, nodes: list, inputs: list, outputs: list, **constants) -> Path:
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def weight(channels: int = 1, bands: int = 3) -> Tensor:
    return torch.randn(channels, bands, 3, 3, generator=torch.Generator().manual_seed(0))


def convolution(taken: str = "image", given: str = "z"):
    return helper.make_node("Conv", [taken, "w"], [given], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def logits(x: Tensor, channels: int = 1) -> Tensor:
    return functional.conv2d(x, weight(channels, x.shape[1]), padding=1)


def images(count: int = 2, size: tuple[int, int] = (24, 28)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def two(p: Tensor) -> Tensor:
    return torch.cat([1 - p, p], 1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def twelve(path: Path) -> Path:
    """A network for removing backgrounds: one channel at twelve depths, the first the answer, numbers for names."""
    names = [str(1959 + i) for i in range(12)]
    nodes = [convolution("input.1"), helper.make_node("Sigmoid", ["z"], names[:1])]
    nodes += [helper.make_node("Mul", [names[0], "half"], [name]) for name in names[1:]]
    outputs = [Value(name, FLOAT, [1, 1, 24, 24]) for name in names]
    taken = [Value("input.1", FLOAT, [1, 3, 24, 24])]
    return save(path, nodes, taken, outputs, w=weight().numpy(), half=np.float32(0.5))


def test_which_of_many_outputs_is_asked_and_not_guessed(tmp_path: Path):
    path, x = twelve(tmp_path / "net.onnx"), images(3, (24, 24))
    with pytest.raises(InputError, match=r"12 outputs \('1959' float32 \(1, 1, 24, 24\), .*output=NAME or its number"):
        open_target(f"onnx:{path},outputs=sigmoid")
    p = logits(x).sigmoid()
    for which in ("output=0", "output=1959", "output_name=1959", "output=-12", "output=0,input_name=input.1"):
        close(open_target(f"onnx:{path},outputs=sigmoid,{which}").scores(x), two(p))
    close(open_target(f"onnx:{path},outputs=sigmoid", output="3").scores(x), two(p / 2))
    close(open_target(f"onnx:{path},outputs=sigmoid", output="1970").scores(x), two(p / 2))
    for wrong, said in (("output=12", "expected 0 to 11"), ("output=d0", "unknown output 'd0'")):
        with pytest.raises(InputError, match=said):
            open_target(f"onnx:{path},outputs=sigmoid,{wrong}")
    with pytest.raises(InputError, match="same option"):
        open_target(f"onnx:{path},outputs=sigmoid,output=0,output_name=1959")


def test_a_network_of_one_size_is_given_others_as_said(tmp_path: Path):
    nodes = [convolution()]
    taken, given = (Value(name, FLOAT, ["n", channels, 24, 24]) for name, channels in (("image", 3), ("z", 1)))
    path, x = save(tmp_path / "net.onnx", nodes, [taken], [given], w=weight().numpy()), images(2, (20, 22))
    target = f"onnx:{path},outputs=binary_logit"
    with pytest.raises(InputError, match=r"images are 20x22 .* takes 24x24 only: .*size=resize"):
        open_target(target).scores(x)
    size = {"resize": {"exact": [24, 24], "mode": "resize"}, "pad": {"exact": [24, 24]}}
    for mode, rule in size.items():
        here = sr.wrap(lambda x: logits(x), outputs="binary_logit", size=rule)
        close(open_target(f"{target},size={mode}").scores(x), here.scores(x))
        close(open_target(f"{target},size={{mode: {mode}}}").scores(x), here.scores(x))
    marks = {fingerprint(open_target(target + more)) for more in ("", ",size=pad", ",size=resize")}
    assert len(marks) == 3
    with pytest.raises(InputError, match="cannot be padded"):
        open_target(f"{target},size=pad").scores(images(1, (30, 20)))
    with pytest.raises(InputError, match="unknown size 'crop'"):
        open_target(f"{target},size=crop")


def test_a_network_of_any_size_may_want_multiples(tmp_path: Path):
    taken, given = (Value(name, FLOAT, ["n", channels, "h", "w"]) for name, channels in (("image", 3), ("z", 1)))
    path = save(tmp_path / "net.onnx", [convolution()], [taken], [given], w=weight().numpy())
    here = sr.wrap(lambda x: logits(x), outputs="binary_logit", size={"multiple_of": 16})
    x = images(2, (20, 22))
    close(open_target(f"onnx:{path},outputs=binary_logit,size={{multiple_of: 16}}").scores(x), here.scores(x))
    with pytest.raises(InputError, match=r"size=resize is for a network of one size.*size=\{exact: \[H, W\]"):
        open_target(f"onnx:{path},outputs=binary_logit,size=resize")


def test_inputs_that_are_no_images_are_given_what_is_said(tmp_path: Path):
    nodes = [convolution(), helper.make_node("Sub", ["z", "level"], ["r"]), helper.make_node("Sigmoid", ["r"], ["p"])]
    nodes += [helper.make_node("Cast", ["sides"], ["s"], to=FLOAT), helper.make_node("ReduceSum", ["s"], ["q"])]
    nodes += [helper.make_node("Squeeze", ["q"], ["q0"]), helper.make_node("Mul", ["q0", "zero"], ["none"])]
    nodes += [helper.make_node("Add", ["p", "none"], ["answer"])]
    inputs = [Value("image", FLOAT, ["n", 3, "h", "w"]), Value("level", FLOAT, [1])]
    inputs += [Value("sides", TensorProto.INT64, [2])]
    answer, x = Value("answer", FLOAT, ["n", 1, "h", "w"]), images()
    path = save(tmp_path / "net.onnx", nodes, inputs, [answer], w=weight().numpy(), zero=np.float32(0))
    target = f"onnx:{path},outputs=sigmoid"
    with pytest.raises(InputError, match=r"3 inputs .*input_name=… and give the others inputs=\{sides: …\}"):
        open_target(target)
    found = open_target(f"{target},inputs={{level: 0.5, sides: [24, 28]}}")
    close(found.scores(x), two((logits(x) - 0.5).sigmoid()))
    other = open_target(f"{target},inputs={{level: 0.25, sides: [24, 28]}}")
    assert fingerprint(found) != fingerprint(other)
    for wrong, said in (
        ("{level: 0.5, side: 3}", "unknown input 'side'; did you mean 'sides'"),
        ("{level: 0.5, sides: [1, 2, 3]}", r"\[1, 2, 3\] does not fit the input 'sides' int64 \(2\)"),
        ("{level: 0.5, sides: [1.5, 2]}", "does not fit the input 'sides'"),
        ("0.5", "expected values of other inputs by name"),
    ):
        with pytest.raises(InputError, match=said):
            open_target(f"{target},inputs={wrong}")


@pytest.mark.parametrize("kind", ["float", "bytes"])
def test_values_up_to_255_and_bgr_are_the_networks_input(tmp_path: Path, kind: str):
    """The network was trained on BGR images of 0–255, and brings them to [0, 1] by itself."""
    taken = Value("image", FLOAT if kind == "float" else TensorProto.UINT8, ["n", "h", "w", 3])
    nodes = [helper.make_node("Cast", ["image"], ["f"], to=FLOAT), helper.make_node("Div", ["f", "most"], ["u"])]
    nodes += [helper.make_node("Transpose", ["u"], ["t"], perm=[0, 3, 1, 2]), convolution("t")]
    nodes += [helper.make_node("Sigmoid", ["z"], ["p"])]
    given = Value("p", FLOAT, ["n", 1, "h", "w"])
    path = save(tmp_path / "net.onnx", nodes, [taken], [given], w=weight().numpy(), most=np.float32(255))
    std = (1 / 255 if kind == "float" else 1,) * 3
    x = (images() * 255).round() / 255
    target = open_target(
        f"onnx:{path},outputs=sigmoid", normalisation={"mean": (0,) * 3, "std": std, "order": (2, 1, 0)}
    )
    close(target.scores(x), two(logits(x.flip(1)).sigmoid()))
    with pytest.raises(InputError, match=r"the normalisation is of 1 band; the input .* takes 3 bands"):
        open_target(f"onnx:{path},outputs=sigmoid", normalisation={"mean": [0.5], "std": [0.5]})


def test_weights_beside_the_file_are_read_and_noticed(tmp_path: Path):
    taken, given = (Value(name, FLOAT, ["n", channels, "h", "w"]) for name, channels in (("image", 3), ("z", 1)))
    path, x = save(tmp_path / "net.onnx", [convolution()], [taken], [given], w=weight().numpy()), images()
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    assert (tmp_path / "net.bin").is_file()
    close(open_target(f"onnx:{path},outputs=binary_logit").scores(x), two(logits(x).sigmoid()))


def test_an_exported_network_of_structures_says_so(tmp_path: Path):
    layer = torch.nn.Conv2d(3, 2, 3, padding=1, bias=False)
    layer.weight.data = weight(2)
    here = sr.wrap(layer, outputs="multilabel_logits")
    sr.models.export_onnx(here, tmp_path / "net.onnx", 24, 28)
    target, x = open_target(f"onnx:{tmp_path / 'net.onnx'}"), images()
    assert (target.structures, target.num_classes, here.structures) == (2, 4, 2)
    close(target.scores(x), here.scores(x))
    assert open_target(f"onnx:{tmp_path / 'net.onnx'},outputs=probabilities").structures == 0
    with pytest.raises(InputError, match="num_classes is 8; structures=2 make another number"):
        open_target(f"onnx:{tmp_path / 'net.onnx'}", num_classes=8)


def test_sigmoids_of_exclusive_classes_and_masked_logits_are_undone(tmp_path: Path):
    taken, given = (Value(name, FLOAT, ["n", channels, "h", "w"]) for name, channels in (("image", 3), ("p", 3)))
    nodes = [convolution(), helper.make_node("Sigmoid", ["z"], ["p"])]
    path, x = save(tmp_path / "a.onnx", nodes, [taken], [given], w=weight(3).numpy()), images()
    with pytest.raises(TargetError, match=r"outputs=sigmoids .*outputs=multilabel .*outputs=scores"):
        open_target(f"onnx:{path}").scores(x)
    close(open_target(f"onnx:{path},outputs=sigmoids").scores(x), logits(x, 3).softmax(1))
    nodes = [convolution(), helper.make_node("Add", ["z", "mask"], ["p"])]
    mask = np.array([0, -np.inf, 0], np.float32).reshape(1, 3, 1, 1)
    path = save(tmp_path / "b.onnx", nodes, [taken], [given], w=weight(3).numpy(), mask=mask)
    with pytest.raises(TargetError, match="NaN or infinite"):
        open_target(f"onnx:{path},outputs=logits").scores(x)
    z = logits(x, 3)
    z[:, 1] = -torch.inf
    close(open_target(f"onnx:{path},outputs=masked_logits").scores(x), z.softmax(1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("outputs=sigmoid,channels=[0,1]", "2 channels for outputs=sigmoid, which takes one"),
        ("outputs=sigmoid,num_classes=5", "num_classes is 5; expected 2, as outputs=sigmoid makes"),
        ("outputs=multilabel,num_classes=6", "K yes/no channels make 2\\^K classes"),
        ("outputs=sigmoid,threshold=1", "threshold is 1; expected a probability"),
        ("outputs=labels,num_classes=2,threshold=0.3", "threshold 0.3 is for yes/no channels"),
        ("outputs=labels,num_classes=2,channels=[0]", "does nothing beside outputs=labels"),
        ("outputs=sigmoid,values=[0,255]", "does nothing beside outputs=sigmoid: it is for labels"),
        ("outputs=labels,values=[0,0]", "expected the number of each class, all different"),
        ("outputs=labels,values=[0,255],num_classes=3", "num_classes is 3; expected 2, one for each of values"),
        ("outputs=sigmoid,scale=0.1", "are for whole numbers, and 'image' float32"),
        ("outputs=sigmoid,output_zero_point=3", "are for whole numbers"),
        ("outputs=sigmoid,output_layout=hwcn", "unknown output_layout 'hwcn'"),
        ("outputs=sigmoid,output_layout=nhwc", "does not fit output_layout=nhwc"),
        ("outputs=sigmoid,bands=4", "does not have 4 bands"),
        ("outputs=sigmod", "did you mean 'sigmoid'"),
        ("outputs=binary_logit,structures=1", "has a channel for each"),
        ("structures=9", "2\\^9 sets"),
        ("treshold=0.4", "did you mean 'threshold'"),
    ],
)
def test_every_refusal_names_the_option(tmp_path: Path, options: str, said: str):
    taken, given = (Value(name, FLOAT, ["n", channels, 24, 28]) for name, channels in (("image", 3), ("p", 1)))
    nodes = [convolution(), helper.make_node("Sigmoid", ["z"], ["p"])]
    path = save(tmp_path / "net.onnx", nodes, [taken], [given], w=weight().numpy())
    with pytest.raises(InputError, match=said) as caught:
        open_target(f"onnx:{path},{options}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"layout": 3},
        {"bands": 0},
        {"bands": "x"},
        {"num_classes": 1.5},
        {"size": 3},
        {"size": [24, 28]},
        {"values": 3},
        {"inputs": [1]},
        {"output": True},
        {"output": 1.5},
        {"structures": -1},
        {"threshold": "x"},
        {"scale": 0},
        {"channels": [0.5]},
        {"channels": [7]},
        {"batch": "x"},
        {"threads": -1},
        {"outputs": 3},
    ],
)
def test_rubbish_is_refused_in_a_line_that_names_the_option(tmp_path: Path, given: dict):
    taken, answer = (Value(name, FLOAT, ["n", channels, 24, 28]) for name, channels in (("image", 3), ("z", 1)))
    path = save(tmp_path / "net.onnx", [convolution()], [taken], [answer], w=weight().numpy())
    options = {"outputs": "sigmoid", **given}
    with pytest.raises(InputError, match=next(iter(given))) as caught:
        open_target(f"onnx:{path}," + ",".join(f"{name}={value}" for name, value in options.items()))
    assert "\n" not in str(caught.value)
