"""TFLite files written table by table, without TensorFlow: one convolution, its ends in whole numbers or not."""

from __future__ import annotations

from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import torch

TYPES = {"float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8}
OPERATORS = ("CONV_2D", "SOFTMAX", "LOGISTIC", "DEQUANTIZE", "QUANTIZE")
#: What whole numbers stand for: of images in [0, 1], of probabilities.
SCALES = {"int8": (1 / 255, -128, 1 / 256, -128), "uint8": (1 / 255, 0, 1 / 256, 0)}


class Written:
    """The tables of a file, one after the other."""

    def __init__(self) -> None:
        self.buffers, self.tensors, self.operators = [schema.BufferT()], [], []

    def tensor(self, name, shape, kind, *, values=None, scale=None, signature=None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), TYPES[kind]
        if signature is not None:
            made.shapeSignature = list(signature)
        made.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale[0]], [scale[1]]
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(self, name, inputs, outputs, options=None) -> None:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = OPERATORS.index(name), inputs, outputs
        if options is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            made.builtinOptions = options
        self.operators.append(made)

    def save(self, path: Path, inputs, outputs) -> Path:
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, inputs, outputs
        graph.name = b"main"
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        for name in OPERATORS:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(builder.Output())
        return path


def build(
    path: Path,
    weight: torch.Tensor,
    *,
    kind="float32",
    head="SOFTMAX",
    batch=1,
    size=(8, 10),
    free=False,
    outputs=1,
    step=None,
) -> Path:
    """A 3 × 3 convolution with a torch weight (K, B, 3, 3), then a head; NHWC throughout.

    ``free`` declares batch and sides as free; ``outputs`` gives the answer so many times, ``step`` its scale and zero.
    """
    made, channels, bands = Written(), *weight.shape[:2]
    taken, given = (batch, *size, bands), (batch, *size, channels)
    free_of = lambda shape: (-1, -1, -1, shape[-1]) if free else None  # noqa: E731
    scales = SCALES.get(kind)
    image = made.tensor("image", taken, kind, scale=scales and scales[:2], signature=free_of(taken))
    at = image
    if scales:
        at = made.tensor("real", taken, "float32", signature=free_of(taken))
        made.operator("DEQUANTIZE", [image], [at], schema.DequantizeOptionsT())
    kernel = made.tensor(
        "w", (channels, 3, 3, bands), "float32", values=weight.permute(0, 2, 3, 1).contiguous().numpy()
    )
    bias = made.tensor("b", (channels,), "float32", values=np.zeros(channels, np.float32))
    z = made.tensor("z", given, "float32", signature=free_of(given))
    convolution = schema.Conv2DOptionsT()
    convolution.padding, convolution.strideH, convolution.strideW = schema.Padding.SAME, 1, 1
    made.operator("CONV_2D", [at, kernel, bias], [z], convolution)
    ends = []
    for number in range(outputs):
        end = z
        if head:
            end = made.tensor(f"p{number}", given, "float32", signature=free_of(given))
            options = schema.SoftmaxOptionsT() if head == "SOFTMAX" else None
            if options is not None:
                options.beta = 1.0
            made.operator(head, [z], [end], options)
        if scales:
            q = made.tensor(f"q{number}", given, kind, scale=step or scales[2:], signature=free_of(given))
            made.operator("QUANTIZE", [end], [q], schema.QuantizeOptionsT())
            end = q
        ends.append(end)
    return made.save(path, [image], ends)
