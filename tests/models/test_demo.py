"""The demo network: what its committed weights are worth, and that it fits the scenes it is for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from segradius.data import SCENE_CLASSES, collate, open_data
from segradius.models import load_model
from segradius.models.demo import BINS, WEIGHTS, DemoNetwork


def test_committed_weights_have_the_accuracy_that_the_training_script_gave():
    data = open_data("scenes:96x128", split="test", limit=16)
    images, labels, _ = collate([data[i] for i in range(16)])
    with torch.no_grad():
        prediction = load_model("demo").logits(images).argmax(1)
    right = (prediction == labels)[labels != SCENE_CLASSES.ignore_index]
    assert right.double().mean().item() == pytest.approx(0.899, abs=0.02)


def test_it_labels_the_classes_of_the_scenes():
    assert load_model("demo").num_classes == len(SCENE_CLASSES.names)


def test_weights_are_finite_half_precision_and_small():
    state = load_file(WEIGHTS)
    floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.float16}
    assert all(bool(tensor.isfinite().all()) for tensor in floating)
    assert WEIGHTS.stat().st_size < 600_000


def test_it_runs_in_single_precision_in_evaluation_mode():
    model = load_model("demo")
    assert model.dtype == torch.float32
    assert not any(module.training for module in model.network.modules())


def test_every_pixel_sees_the_whole_image_through_the_pyramid():
    torch.manual_seed(0)
    network, image = DemoNetwork().eval(), torch.rand(1, 3, 96, 128, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, :, 0, 0].sum(), image)
    assert BINS[0] == 1
    assert float((gradient != 0).float().mean()) > 0.9
