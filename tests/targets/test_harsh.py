"""Harsher answers and inputs against NumPy, Python and Pillow, and what survives of the prediction."""

from __future__ import annotations

import itertools
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import segradius as sr
from segradius.core.contracts import ANSWERS, LABELS_ALONE
from segradius.core.errors import InputError
from segradius.targets import (
    Harsh,
    Jpeg,
    LabelsOnly,
    Metered,
    Rounded,
    TopK,
    Uint8,
    fingerprint,
    layers,
    parse_answers,
    parse_inputs,
)

COARSE = st.integers(0, 64).map(lambda n: n / 64)  # many ties, and halves of every number of digits


def scores_of(elements=COARSE):
    shape = st.tuples(st.integers(1, 2), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3))
    return hnp.arrays(np.float32, shape, elements=elements)


def constant(scores: torch.Tensor) -> sr.Segmenter:
    """A model whose probabilities are always these (N, C, H, W)."""
    return sr.wrap(lambda x: scores.clamp_min(1e-30).log(), num_classes=scores.shape[1], name="constant")


def some_model() -> sr.Segmenter:
    torch.manual_seed(0)
    return sr.wrap(torch.nn.Conv2d(3, 5, 3, padding=1))


@given(scores_of(st.floats(0, 1, width=32)), st.integers(1, 8))
def test_rounded_is_what_python_rounds_to(array, digits):
    python = np.array([round(float(value), digits) for value in array.ravel()], np.float32).reshape(array.shape)
    assert np.array_equal(Rounded(digits)(torch.from_numpy(array)).numpy(), python)


@given(scores_of(), st.integers(1, 7))
def test_top_k_keeps_the_first_k_of_a_stable_sort(array, k):
    order = np.argsort(-array, axis=1, kind="stable")
    kept = np.zeros_like(array)
    for n, h, w in np.ndindex(array.shape[0], *array.shape[2:]):
        best = order[n, :k, h, w]
        kept[n, best, h, w] = array[n, best, h, w]
    assert np.array_equal(TopK(k)(torch.from_numpy(array)).numpy(), kept)


@given(scores_of())
def test_labels_are_the_first_of_the_largest(array):
    found = LabelsOnly()(torch.from_numpy(array)).numpy()
    assert np.array_equal(found, np.eye(array.shape[1], dtype=np.float32)[array.argmax(1)].transpose(0, 3, 1, 2))


@given(scores_of(), st.permutations([Rounded(2), TopK(2), LabelsOnly()]), st.integers(0, 3))
def test_changes_are_done_in_their_order_and_keep_the_prediction_but_for_rounding(array, changes, count):
    chosen = tuple(changes[:count])
    scores = torch.from_numpy(array)
    by_hand = scores
    for change in chosen:
        by_hand = change(by_hand)
    target = Harsh(Fixed(scores), answers=chosen)
    found = target.scores(torch.rand(len(array), 3, *array.shape[2:]))
    assert torch.equal(found, by_hand)
    assert target.offers == (LABELS_ALONE if LabelsOnly() in chosen else ANSWERS)
    if Rounded(2) not in chosen[: chosen.index(LabelsOnly()) if LabelsOnly() in chosen else count]:
        assert torch.equal(found.argmax(1), scores.argmax(1))


class Fixed:
    """A target with one answer."""

    name, offers, device = "fixed", ANSWERS, torch.device("cpu")

    def __init__(self, answer: torch.Tensor) -> None:
        self.answer, self.num_classes = answer, answer.shape[1]

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer

    def frozen(self):
        return sr.wrap(lambda x: x, num_classes=3).frozen()


@given(hnp.arrays(np.float32, (1, 3, 4, 5), elements=st.floats(0, 1, width=32)))
def test_uint8_is_the_nearest_of_255_and_survives_itself_and_a_png(array):
    images = torch.from_numpy(array)
    once = Uint8()(images)
    assert torch.equal(Uint8()(once), once)
    assert (once - images).abs().max() <= 0.5 / 255 + 1e-7
    pixels = np.floor(array.astype(np.float64) * 255 + 0.5)
    away_from_halves = np.abs(array.astype(np.float64) * 255 % 1 - 0.5) > 1e-4
    assert np.array_equal((once.numpy() * 255).round()[away_from_halves], pixels[away_from_halves])
    file = BytesIO()
    Image.fromarray((once[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "PNG")
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    assert torch.equal(read, once[0])


def test_every_byte_survives():
    steps = (torch.arange(256.0) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(Uint8()(steps), steps)
    assert torch.equal(Uint8()(steps.double()).float(), steps)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("quality", [10, 75, 95])
def test_jpeg_is_pillows_image_by_image(quality, bands):
    images = torch.rand(3, bands, 21, 30)
    found = Jpeg(quality)(images)
    for image, answer in zip(images, found, strict=True):
        pixels = Image.fromarray((image * 255).add(0.5).floor().byte().permute(1, 2, 0).squeeze(-1).numpy())
        file = BytesIO()
        pixels.save(file, format="JPEG", quality=quality)
        back = np.asarray(Image.open(BytesIO(file.getvalue())))
        assert np.array_equal(back, (answer * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy())
        assert torch.equal(Jpeg(quality)(image[None])[0], answer)


def test_jpeg_has_no_fourth_band():
    with pytest.raises(InputError, match="jpeg is for grey and colour images; these have 4 bands"):
        Jpeg(80)(torch.rand(1, 4, 8, 8))


def test_the_target_is_asked_about_the_changed_image():
    model, images = some_model(), torch.rand(2, 3, 16, 24)
    inner = Harsh(model, inputs=(Jpeg(80),))
    outer = Metered(Harsh(inner, answers=(Rounded(3),), inputs=(Uint8(),)))
    received = Jpeg(80)(Uint8()(images))
    assert torch.equal(outer.scores(images), Rounded(3)(model.scores(received)))
    assert [type(layer) for layer in layers(outer)] == [Metered, Harsh, Harsh, sr.Segmenter]


def test_wrappers_are_the_target_in_everything_else():
    model = some_model()
    target = Metered(Harsh(model, answers=(TopK(2),)))
    assert (target.name, target.num_classes, target.device, target.offers) == ("Conv2d", 5, model.device, ANSWERS)
    model.network.train()
    with target.frozen():
        assert not model.network.training
    assert model.network.training


def test_top_k_leaves_a_sum_below_one_and_the_prediction():
    model, images = some_model(), torch.rand(2, 3, 8, 8)
    full, top = model.scores(images), Harsh(model, answers=(TopK(2),)).scores(images)
    assert torch.equal((top > 0).sum(1), torch.full((2, 8, 8), 2))
    assert torch.equal(top[top > 0], full[top > 0])
    assert torch.equal(top.argmax(1), full.argmax(1))


def test_fingerprints_tell_every_harshness_and_order_apart():
    model = some_model()
    changes = [(), (Rounded(2),), (Rounded(3),), (TopK(2),), (TopK(2), Rounded(2)), (Rounded(2), TopK(2))]
    inputs = [(), (Uint8(),), (Jpeg(90),), (Jpeg(80),)]
    found = [fingerprint(Harsh(model, *pair)) for pair in itertools.product(changes, inputs) if any(pair)]
    assert len(set(found) | {fingerprint(model)}) == 24
    assert fingerprint(Harsh(sr.wrap(lambda x: x, num_classes=3), answers=(TopK(1),))) == ""


def test_words_of_the_command_line():
    assert parse_answers("digits=3, top=2") == (Rounded(3), TopK(2))
    assert parse_answers("labels") == (LabelsOnly(),)
    assert parse_inputs("uint8,jpeg=90") == (Uint8(), Jpeg(90))


@pytest.mark.parametrize(
    "text", ["digits", "digits=x", "digits=0", "digits=9", "top=0", "labels=1", "", "jpeg=90", "top=-1"]
)
def test_other_words_for_answers_are_refused(text):
    with pytest.raises(InputError):
        parse_answers(text)


@pytest.mark.parametrize("text", ["jpeg", "jpeg=0", "jpeg=96", "uint8=1", "png", "digits=3", "jpeg=9.5"])
def test_other_words_for_inputs_are_refused(text):
    with pytest.raises(InputError):
        parse_inputs(text)
