"""What is told from declared shapes alone, and the reading of answers in every layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.core.errors import AnswerError, InputError
from segradius.targets import Exchange
from segradius.targets.heads import Head
from segradius.targets.served import in_batches
from segradius.targets.signature import FORMS, TensorSpec, find_signature


def image(*shape: int | None, dtype: torch.dtype = torch.float32) -> TensorSpec:
    return TensorSpec("image", dtype, shape)


def answer(*shape: int | None) -> TensorSpec:
    return TensorSpec("answer", torch.float32, shape)


LABELS = {"num_classes": 5, "channels": Head("labels").of(5)[0]}


@pytest.mark.parametrize(
    ("taken", "given_back", "options", "expected"),
    [
        # layout, layout of the output, size, batch, classes
        ((None, 3, None, None), (None, 5, None, None), {}, ("nchw", "nchw", (None, None), None, 5)),
        ((4, 3, 24, 32), (4, 5, 24, 32), {}, ("nchw", "nchw", (24, 32), 4, 5)),
        ((None, 24, 32, 3), (None, 24, 32, 5), {}, ("nhwc", "nhwc", (24, 32), None, 5)),
        ((None, 24, 32, 3), (None, 5, 24, 32), {"num_classes": 5}, ("nhwc", "nchw", (24, 32), None, 5)),
        ((None, 3, 24, 32), (None, 24, 32, 5), {"num_classes": 5}, ("nchw", "nhwc", (24, 32), None, 5)),
        ((None,) * 4, (None,) * 4, {"num_classes": 5}, ("nchw", "nchw", (None, None), None, 5)),
        ((None,) * 4, (None,) * 4, {"num_classes": 5, "layout": "nhwc"}, ("nhwc", "nhwc", (None, None), None, 5)),
        ((None, 3, 24, 3), (None, 5, 24, 3), {}, ("nchw", "nchw", (24, 3), None, 5)),
        ((None, 3, 24, 3), (None, 3, 24, 5), {"layout": "nhwc"}, ("nhwc", "nhwc", (3, 24), None, 5)),
        ((None, 3, 24, 32), (None, 1, 24, 32), LABELS, ("nchw", "nchw", (24, 32), None, 5)),
        ((None, 3, 24, 32), (None, 24, 32), LABELS, ("nchw", "nhw", (24, 32), None, 5)),
        ((None, 3, 24, 32), (), {"num_classes": 5}, ("nchw", "nchw", (24, 32), None, 5)),
    ],
)
def test_what_shapes_tell(taken, given_back, options, expected):
    found = find_signature([image(*taken)], [answer(*given_back)], **options)
    assert (found.layout, found.output_layout, found.size, found.batch, found.num_classes) == expected


@pytest.mark.parametrize(
    ("taken", "given_back", "options", "message"),
    [
        (image(None, 24, 24, 32), answer(None, 5, 24, 32), {}, "does not tell how many bands an image has: give bands"),
        (image(3, 24, 32), answer(5, 24, 32), {}, "has 3 dimensions; expected 4"),
        (image(None, 3, 24, 32, dtype=torch.int64), answer(None, 5, 24, 32), {}, "int64 .* cannot hold images"),
        (image(None, 3, 24, 32), answer(None, 24, 32), {}, "none for classes: give outputs=sigmoid"),
        (image(None, 3, None, None), answer(None, None, None, None), {}, "give num_classes"),
        (image(None, 3, 24, 32), answer(None, 1, 24, 32), {}, "has 1 channel"),
        (image(None, 3, 24, 32), answer(None, 2), {}, "is no map of an image"),
        (image(1, 3, 24, 32), answer(1, 5, 9, 24, 32), {}, "is no map of an image"),
        (image(None, 3, 24, 32), answer(None, 5, 24, 32), {"num_classes": 6}, "no dimension of num_classes=6"),
    ],
)
def test_what_shapes_do_not_tell(taken, given_back, options, message):
    with pytest.raises(InputError, match=message):
        find_signature([taken], [given_back], **options)


def exchange(outputs: str = "probabilities", *, layout: str = "nchw") -> Exchange:
    shape = (None, 5, None, None) if layout == "nchw" else (None, None, None, 5)
    channels = Head(outputs).of(5)[0]
    found = find_signature([image(None, 3, None, None)], [answer(*shape)], num_classes=5, channels=channels)
    return Exchange(found, outputs)


def test_layouts_are_undone():
    images, scores = torch.rand(2, 3, 6, 7), torch.rand(2, 5, 6, 7).softmax(1)
    assert torch.equal(exchange().decode(scores, images), scores)
    swapped = exchange(layout="nhwc").decode(scores.permute(0, 2, 3, 1).contiguous(), images)
    assert torch.equal(swapped, scores)
    assert swapped.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_answers_come_as_float32(dtype: torch.dtype):
    given = torch.tensor([0.5, 0.25, 0.25, 0, 0]).view(1, 5, 1, 1).expand(1, 5, 2, 2)
    found = exchange().decode(given.to(dtype), torch.rand(1, 3, 2, 2, dtype=torch.float64))
    assert found.dtype == torch.float32
    assert torch.equal(found, given)


def test_every_answer_is_checked_for_its_values():
    images, wrong = torch.rand(1, 3, 2, 2), torch.full((1, 5, 2, 2), torch.nan)
    for _ in range(2):
        with pytest.raises(AnswerError, match="image 1 of 1: its values are NaN"):
            exchange().decode(wrong, images)


def test_scores_that_do_not_sum_to_one_are_taken_where_promised():
    images, best = torch.rand(1, 3, 2, 2), torch.tensor([0.6, 0.2, 0, 0, 0]).view(1, 5, 1, 1).expand(1, 5, 2, 2)
    with pytest.raises(AnswerError, match="outputs=scores"):
        exchange().decode(best, images)
    assert torch.equal(exchange("scores").decode(best, images), best)
    with pytest.raises(AnswerError, match=r"\[0, 6\]"):
        exchange("scores").decode(best * 10, images)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 3, 4), (2, 3, 4, 1)])
def test_maps_of_labels_have_one_channel_or_none(shape):
    labels = torch.arange(24).remainder(5).view(shape)
    found = exchange("labels").decode(labels, torch.rand(2, 3, 3, 4))
    assert torch.equal(found.argmax(1), labels.view(2, 3, 4))
    assert torch.equal(found.sum(1), torch.ones(2, 3, 4))


@given(st.integers(1, 20), st.integers(1, 6), st.booleans())
def test_batches_cover_every_image_once_in_order(count: int, size: int, fixed: bool):
    seen = []

    def ask(part: torch.Tensor, real: int) -> torch.Tensor:
        assert len(part) == size if fixed else len(part) == real <= size
        seen.extend(part[:real].flatten().tolist())
        return part * 2

    images = torch.arange(float(count)).view(-1, 1, 1, 1)
    assert torch.equal(in_batches(images, size, size if fixed else None, ask), images * 2)
    assert seen == list(range(count))


SIDES = st.sampled_from([None, 1, 2, 3, 4, 5, 8, 24, 32])
HEADS = st.sampled_from(
    [Head(), Head("logits"), Head("sigmoid"), Head("multilabel"), Head("labels"), Head("binary_logit", channels=(1,))]
)


@settings(deadline=None)
@given(
    st.lists(SIDES, min_size=0, max_size=5),
    st.lists(SIDES, min_size=0, max_size=5),
    HEADS,
    st.none() | st.integers(2, 9),
)
def test_any_shapes_are_read_or_refused_and_what_is_read_is_declared(taken, given_back, head, num_classes):
    try:
        channels, classes = head.of(num_classes)
        found = find_signature([image(*taken)], [answer(*given_back)], num_classes=classes, channels=channels)
    except InputError:
        return
    at = dict(zip(found.layout, taken, strict=True))
    assert at["c"] in (None, found.bands)
    assert (found.batch, found.size) == (at["n"], (at["h"], at["w"]))
    if found.settled and given_back:
        out = dict(zip(found.output_layout, given_back, strict=True))
        assert out.get("c") in (None, found.channels.count)


@settings(deadline=None)
@given(st.data(), st.sampled_from(FORMS), st.integers(1, 4), st.integers(1, 3))
def test_an_answer_is_put_in_order_or_refused(data, form: str, channels: int, count: int):
    """An output of which nothing is declared: each answer's own shape decides, and never for another order."""
    height, width = data.draw(st.integers(2, 9)), data.draw(st.integers(2, 9))
    if ("n" not in form and count > 1) or ("c" not in form and channels > 1):
        return
    head = Head("multilabel") if channels > 1 else Head("sigmoid")
    told, classes = head.of(2**channels)
    found = find_signature([image(None, 3, None, None)], [answer()], num_classes=classes, channels=told)
    truth = torch.rand(count, channels, height, width)
    order = ["nchw".index(axis) for axis in form if axis in "nchw"]
    dropped = [axis for axis in range(4) if axis not in order]
    raw = truth.permute(*dropped, *order).reshape([truth.shape[axis] for axis in order])
    try:
        arranged = found.arranged(raw, count, (height, width))
    except AnswerError as error:
        assert "give output_layout" in str(error) or channels in (height, width) or count in (height, width)  # noqa: PT017
        return
    assert torch.equal(arranged, truth)
