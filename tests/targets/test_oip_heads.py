"""A server whose model is not a softmax over colour images: the options of a file, over either wire."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oip_stub import Stub, serving

from segradius.core.errors import InputError, TargetError
from segradius.targets import open_target


def logits(channels: int):
    """Of (N, B, H, W): each channel four times the mean of the bands, less what differs by channel."""
    return lambda x: 4 * x.mean(1, keepdims=True) - np.arange(1.5, 1.5 + channels).reshape(1, -1, 1, 1).astype(x.dtype)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-z.astype(np.float64)))).astype(np.float32)


def sets(z: np.ndarray) -> torch.Tensor:
    """Probability of each set of channels, from their logits: the product of the sigmoids."""
    p, found = sigmoid(z), [np.ones_like(z[:, :1])]
    for channel in range(z.shape[1]):
        q = p[:, channel : channel + 1]
        found = [s * (1 - q) for s in found] + [s * q for s in found]
    return torch.from_numpy(np.concatenate(found, 1))


def images(bands: int = 3, count: int = 3) -> torch.Tensor:
    return torch.rand(count, bands, 18, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wire", ["binary", "json"])
@pytest.mark.parametrize(
    ("channels", "model", "options", "picked"),
    [
        (1, lambda x: sigmoid(logits(1)(x)), "outputs=sigmoid", [0]),
        (1, logits(1), "outputs=binary_logit", [0]),
        (1, lambda x: sigmoid(logits(1)(x))[:, 0], "outputs=sigmoid", [0]),
        (3, lambda x: sigmoid(logits(3)(x)), "outputs=multilabel", [0, 1, 2]),
        (3, logits(3), "outputs=multilabel_logits,channels=[2,0]", [2, 0]),
        (3, lambda x: sigmoid(logits(3)(x)).transpose(0, 2, 3, 1), "outputs=multilabel,output_layout=nhwc", [0, 1, 2]),
    ],
)
def test_yes_no_channels_become_sets(wire: str, channels: int, model, options: str, picked: list[int]):
    x = images(1)
    expected = sets(logits(channels)(x.numpy())[:, picked])
    shape = model(x.numpy()).shape
    free = [side if side in (1, 3) else -1 for side in shape[1:]]
    with serving(Stub(model, shape=(-1, 1, -1, -1), output_shape=(-1, *free))) as stub:
        target = open_target(f"oip:{stub.url},wire={wire},{options}")
        assert (target.bands, target.num_classes) == (1, 2 ** len(picked))
        torch.testing.assert_close(target.scores(x), expected, rtol=0, atol=1e-5)


def test_a_mask_of_bytes_is_a_map_of_labels_or_a_probability():
    x = images()
    p = sigmoid(logits(1)(x.numpy()))
    mask = lambda x: ((sigmoid(logits(1)(x)) > 0.5) * 255).astype(np.uint8)  # noqa: E731
    with serving(Stub(mask, output_shape=(-1, 1, -1, -1), output_datatype="UINT8")) as stub:
        target = open_target(f"oip:{stub.url},outputs=labels,values=[0,255]")
        assert torch.equal(target.scores(x).argmax(1), torch.from_numpy(p[:, 0] > 0.5).long())
        with pytest.raises(TargetError, match=r"255 among them; expected 0 to 1: .*values=\[0, 255\]"):
            open_target(f"oip:{stub.url},outputs=labels,num_classes=2").scores(x)
    grey = lambda x: (sigmoid(logits(1)(x)) * 255).round().astype(np.uint8)  # noqa: E731
    with serving(Stub(grey, output_shape=(-1, 1, -1, -1), output_datatype="UINT8")) as stub:
        with pytest.raises(TargetError, match="give output_scale"):
            open_target(f"oip:{stub.url},outputs=sigmoid").scores(x)
        found = open_target(f"oip:{stub.url},outputs=sigmoid,output_scale=1/255").scores(x)
        torch.testing.assert_close(found[:, 1:], torch.from_numpy(p), rtol=0, atol=1 / 500)


def test_an_input_of_whole_numbers_is_given_what_they_stand_for():
    x, model = images(), lambda x: sigmoid(logits(1)((x.astype(np.float32) + 128) / 255))
    with serving(Stub(model, datatype="INT8", output_shape=(-1, 1, -1, -1))) as stub:
        with pytest.raises(InputError, match="takes whole numbers: give scale and zero_point"):
            open_target(f"oip:{stub.url},outputs=sigmoid")
        target = open_target(f"oip:{stub.url},outputs=sigmoid,scale=1/255,zero_point=-128")
        expected = sets(logits(1)((x * 255).round().numpy() / 255))
        torch.testing.assert_close(target.scores(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wire", ["binary", "json"])
def test_other_inputs_are_given_what_is_said(wire: str):
    x, model = images(), lambda x: sigmoid(logits(1)(x))
    with serving(Stub(model, output_shape=(-1, 1, -1, -1), others={"level": None})) as stub:
        with pytest.raises(InputError, match=r"2 inputs .*input_name=… and give the others inputs=\{level: "):
            open_target(f"oip:{stub.url},outputs=sigmoid")
        target = open_target(f"oip:{stub.url},outputs=sigmoid,wire={wire},inputs={{level: 0.25}}")
        torch.testing.assert_close(target.scores(x), sets(logits(1)(x.numpy())), rtol=0, atol=1e-5)
        assert stub.others == {"level": [0.25]}
