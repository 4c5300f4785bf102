"""ONNX files of every layout, type, head and batch, and what each must answer by a computation in torch alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
#: Of images in [0, 1]; of probabilities, and of logits.
IMAGE, PROBABILITY, LOGIT = {"uint8": (1 / 255, 0), "int8": (1 / 255, -128)}, (1 / 255, 0), (0.1, -3)
#: Head by name: channels of the convolution, what is done to them, the options that say so, and the classes.
HEADS = {
    "softmax": (4, "Softmax", "", 4),
    "logits": (4, "", "outputs=logits", 4),
    "sigmoid": (1, "Sigmoid", "outputs=sigmoid", 2),
    "sigmoid at 0.3": (1, "Sigmoid", "outputs=sigmoid,threshold=0.3", 2),
    "one of four": (4, "Sigmoid", "outputs=sigmoid,channels=[2]", 2),
    "binary logit": (1, "", "outputs=binary_logit", 2),
    "multilabel": (3, "Sigmoid", "outputs=multilabel", 8),
    "two of three": (3, "", "outputs=multilabel_logits,channels=[2,0]", 4),
    "argmax": (4, "ArgMax", "outputs=labels,num_classes=4", 4),
    "mask": (1, "Greater", "outputs=labels,num_classes=2", 2),
    "mask of 255": (1, "Times 255", "outputs=labels,values=[0,255]", 2),
}


@dataclass(frozen=True)
class File:
    """What an ONNX file is like."""

    layout: str = "nchw"
    form: str = "nchw"
    taken: str = "float32"
    given: str = "float32"
    head: str = "softmax"
    batch: int | str = "n"
    free: bool = True
    bands: int = 3
    size: tuple[int, int] = (18, 20)

    @property
    def channels(self) -> int:
        return HEADS[self.head][0]

    @property
    def is_map(self) -> bool:
        return self.head in ("argmax", "mask", "mask of 255")

    @property
    def is_quantised(self) -> bool:
        return self.given in ("uint8", "int8") and not self.is_map

    @property
    def possible(self) -> bool:
        """Whether there is such a file: of one channel without its dimension, of one image without the batch's."""
        one = self.channels == 1 or self.head == "argmax"
        whole = self.given in ("uint8", "int8")
        fine = (one or "c" in self.form) and (self.batch == 1 or "n" in self.form)
        return fine and not (whole and self.is_map and self.given == "int8")

    @property
    def options(self) -> str:
        """All that must be said of it."""
        parts = [HEADS[self.head][2]]
        if self.taken in ("int8",):
            parts.append(f"scale={IMAGE[self.taken][0]!r},zero_point={IMAGE[self.taken][1]}")
        if self.is_quantised:
            scale, zero = PROBABILITY if self.given == "uint8" else LOGIT
            parts.append(f"output_scale={scale!r},output_zero_point={zero}")
        return ",".join(part for part in parts if part)


def weight(channels: int, bands: int) -> Tensor:
    return torch.randn(channels, bands, 3, 3, generator=torch.Generator().manual_seed(0))


class Written:
    """Nodes and constants of a graph, each node on the one before."""

    def __init__(self, file: File) -> None:
        self.file, self.nodes, self.at = file, [], "image"
        self.constants = [numpy_helper.from_array(weight(file.channels, file.bands).numpy(), "weight")]

    def constant(self, value, dtype=np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, op: str, *more: str, **attributes) -> None:
        self.nodes.append(helper.make_node(op, [self.at, *more], [f"t{len(self.nodes)}"], **attributes))
        self.at = self.nodes[-1].output[0]

    def begin(self) -> None:
        """From the input to (N, B, H, W) float32."""
        kind = self.file.taken
        if kind != "float32":
            self.add("Cast", to=TensorProto.FLOAT)
        if kind in IMAGE:
            self.add("Sub", self.constant(IMAGE[kind][1]))
            self.add("Mul", self.constant(IMAGE[kind][0]))
        if self.file.layout == "nhwc":
            self.add("Transpose", perm=[0, 3, 1, 2])

    def head(self) -> None:
        """From the convolution to what the head promises."""
        op, kind = HEADS[self.file.head][1], self.file.given
        if op in ("Softmax", "Sigmoid"):
            self.add(op, **({"axis": 1} if op == "Softmax" else {}))
        elif op == "ArgMax":
            self.add(op, axis=1, keepdims=1)
        elif op:
            self.add("Greater", self.constant(0))
            self.add("Cast", to=TensorProto.FLOAT)
            self.add("Mul", self.constant(255 if op == "Times 255" else 1))
        if self.file.is_quantised:
            scale, zero = PROBABILITY if kind == "uint8" else LOGIT
            self.add("QuantizeLinear", self.constant(scale), self.constant(zero, kind))

    def end(self) -> None:
        """From (N, K, H, W) to the output's dimensions and type."""
        form = self.file.form
        if form != "nchw":
            order = {"nhwc": [0, 2, 3, 1], "hwc": [0, 2, 3, 1]}.get(form, [0, 1, 2, 3])
            self.add("Transpose", perm=order)
            dropped = [axis for axis, at in enumerate(order) if "nchw"[at] not in form]
            if dropped:
                self.add("Squeeze", self.constant(dropped, np.int64))
        if not self.file.is_quantised:
            self.add("Cast", to=TYPES[self.file.given])
        self.nodes[-1].output[0] = "answer"


def write(path: Path, file: File) -> Path:
    """The file, written node by node."""
    graph = Written(file)
    graph.begin()
    graph.add("Conv", "weight", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph.head()
    graph.end()
    height, width = ("h", "w") if file.free else file.size
    taken = {"n": file.batch, "c": file.bands, "h": height, "w": width}
    given = {**taken, "c": 1 if file.head == "argmax" else file.channels}
    given |= {"h": "y", "w": "x"} if file.free else {}
    image = helper.make_tensor_value_info("image", TYPES[file.taken], [taken[axis] for axis in file.layout])
    answer = helper.make_tensor_value_info("answer", TYPES[file.given], [given[axis] for axis in file.form])
    made = helper.make_graph(graph.nodes, "net", [image], [answer], graph.constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def seen(images: Tensor, kind: str) -> Tensor:
    """Images as they are once the input's type has rounded them."""
    if kind in IMAGE:
        return (images * 255).round() / 255
    return images.to(getattr(torch, kind)).float()


def expected(images: Tensor, file: File) -> Tensor:
    """Scores of the classes (N, C, H, W), by what the head means."""
    z = functional.conv2d(seen(images, file.taken), weight(file.channels, file.bands), padding=1).double()
    if file.given == "int8" and not file.is_map:
        z = ((z / LOGIT[0]).round() + LOGIT[1]).clamp(-128, 127).sub(LOGIT[1]).mul(LOGIT[0])
    if file.head in ("softmax", "logits"):
        return z.softmax(1)
    if file.head == "argmax":
        return functional.one_hot(z.argmax(1), 4).permute(0, 3, 1, 2).double()
    if file.is_map:
        return torch.cat([z <= 0, z > 0], 1).double()
    picked = {"one of four": [2], "two of three": [2, 0]}.get(file.head)
    p = (z if picked is None else z[:, picked]).sigmoid()
    if file.given in ("uint8", "float16", "bfloat16") and "Sigmoid" in HEADS[file.head][1]:
        p = (p * 255).round() / 255 if file.given == "uint8" else p.to(getattr(torch, file.given)).double()
    t = 0.3 if "0.3" in file.head else 0.5
    yes = p * (1 - t) / (p * (1 - t) + (1 - p) * t)
    sets = [torch.ones_like(yes[:, :1])]
    for channel in range(yes.shape[1]):
        q = yes[:, channel : channel + 1]
        sets = [s * (1 - q) for s in sets] + [s * q for s in sets]
    return torch.cat(sets, 1)
