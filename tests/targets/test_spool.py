"""A spool gives an answer to whoever asks the same in the same order again, and asks everything else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segradius as sr
from segradius.targets import Metered, Spooled, fingerprint, lasting, layers

MODEL = sr.wrap(lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1), num_classes=4)
IMAGES = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def spooled(folder: Path, **more) -> tuple[Spooled, Metered]:
    meter = Metered(MODEL)
    return Spooled(meter, folder, **more), meter


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.data())
def test_after_a_kill_only_the_questions_that_were_not_answered_are_asked(asked: list[int], data):
    done = data.draw(st.integers(0, len(asked)))
    with tempfile.TemporaryDirectory() as folder:
        first, before = spooled(Path(folder))
        for image in asked[:done]:
            first.scores(IMAGES[[image]])
        second, after = spooled(Path(folder))
        for image in asked:
            assert torch.equal(second.scores(IMAGES[[image]]), MODEL.scores(IMAGES[[image]]))
    assert (before.answered, after.answered) == (done, len(asked) - done)


def test_within_a_run_a_repeated_question_is_a_question(tmp_path):
    target, meter = spooled(tmp_path)
    for _ in range(3):
        target.scores(IMAGES)
    assert meter.answered == 9


def test_a_stage_forgets_the_answers_of_the_others_and_finds_its_own(tmp_path):
    first, _ = spooled(tmp_path)
    for stage in ("one", "two"):
        first.begin(stage)
        first.scores(IMAGES)
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    again, meter = spooled(tmp_path)
    again.begin("two")
    again.scores(IMAGES)
    assert meter.answered == 0
    again.begin("one")
    again.scores(IMAGES)
    assert meter.answered == 3


def test_a_damaged_answer_is_asked_again(tmp_path):
    first, _ = spooled(tmp_path)
    first.scores(IMAGES)
    one, *_ = sorted(tmp_path.rglob("*.npz"))
    one.write_bytes(one.read_bytes()[:40])
    again, meter = spooled(tmp_path)
    assert torch.equal(again.scores(IMAGES), MODEL.scores(IMAGES))
    assert meter.answered == 1


def test_it_is_full_beyond_its_limit_until_the_next_stage(tmp_path):
    target, _ = spooled(tmp_path, limit=3 * 4 * 4 * 5 * 4 - 1)
    target.scores(IMAGES[:2])
    assert not target.full
    target.scores(IMAGES[2:])
    assert target.full
    target.begin("next")
    assert not target.full


def test_questions_are_cut_to_the_size_of_the_targets_requests(tmp_path):
    class Two:
        batch, num_classes, name, offers = 2, 4, "two", frozenset({"scores", "labels"})
        sizes: list[int] = []  # noqa: RUF012

        def scores(self, images):
            self.sizes.append(len(images))
            return MODEL.scores(images)

    Spooled(Two(), tmp_path).scores(IMAGES)
    assert Two.sizes == [2, 1]


def test_it_is_a_layer_that_changes_no_identity(tmp_path):
    target, meter = spooled(tmp_path)
    assert list(layers(target)) == [target, meter, MODEL]
    assert fingerprint(target) == fingerprint(meter)
    assert (target.name, target.num_classes, target.offers, target.device) == (
        meter.name, meter.num_classes, meter.offers, meter.device,
    )  # fmt: skip


def test_what_changes_no_answer_is_left_out_of_a_targets_text():
    url = "oip:http://localhost:8000/v2/models/roads"
    assert lasting(f"{url},rate=3,token_env=T,batch=2,retries=0,wire=json") == url
    assert lasting(f"{url},normalisation={{mean: [0, 0, 0]}},read=3").startswith(f"{url},normalisation=")
    assert lasting("onnx:a.onnx,threads=2,outputs=logits") == "onnx:a.onnx,outputs=logits"
    for unchanged in ("demo", "card.yaml", "smp:Unet,classes=3", url):
        assert lasting(unchanged) == unchanged
