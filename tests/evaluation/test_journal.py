"""Checkpoints: what is kept comes back, when it is kept, and what is made of a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.attacks import BLACK_BOX
from segradius.core.errors import InputError
from segradius.evaluation import Checkpoints, FileJournal
from segradius.evaluation.journal import FORMAT, digest
from segradius.objectives.view import Feedback

NETWORK = torch.nn.Conv2d(3, 4, 3, padding=1)
IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(96).view(2, 6, 8) % 4


class StopError(Exception):
    pass


class Dying:
    """A journal whose process dies after some rounds, before or after it is written."""

    def __init__(self, journal: FileJournal, rounds: int) -> None:
        self.journal, self.left = journal, rounds

    def load(self):
        return self.journal.load()

    def save(self, standing):
        self.journal.save(standing)
        self.left -= 1
        if not self.left:
            raise StopError


def journal(folder: Path, seconds: float = 0, warn=pytest.fail) -> FileJournal:
    return Checkpoints(folder, seconds, warn=warn).journal("key", ("a", "b"))


@pytest.mark.parametrize("guided", ["", "cr_"])
@pytest.mark.parametrize("name", BLACK_BOX)
@pytest.mark.parametrize("rounds", [1, 3])
def test_every_black_box_attack_goes_on_from_a_file_to_the_same_result(tmp_path, name, guided, rounds):
    model = sr.wrap(NETWORK, num_classes=4)
    own = {"nes": {"population": 4}, "zoo": {"coordinates": 2}}.get(name, {})
    extra = {"samples": 2} if guided else {}
    try:
        attack = sr.make_attack(guided + name, norm="linf", eps=0.1, queries=50, **own, **extra)
    except InputError as error:
        pytest.fail(str(error))
    whole = attack(model, IMAGES, LABELS)
    with pytest.raises(StopError):
        attack(model, IMAGES, LABELS, journal=Dying(journal(tmp_path), rounds))
    found = attack(model, IMAGES, LABELS, journal=journal(tmp_path))
    assert torch.equal(found.delta, whole.delta)
    assert torch.equal(found.prediction, whole.prediction)
    assert found.ledger.by_purpose() == whole.ledger.by_purpose()
    for part in ("queries", "judged", "loss", "pixacc", "best"):
        assert torch.equal(getattr(found.trace, part).nan_to_num(9), getattr(whole.trace, part).nan_to_num(9))


def test_a_standing_comes_back_as_plain_tensors_without_what_they_were_cut_from(tmp_path):
    large = torch.rand(1000, 1000)
    kept = {"mean": Feedback(large[0], large[1]), "state": {"delta": large[:, 0], "step": None}, "trace": [(2, True)]}
    one = journal(tmp_path)
    one.save(lambda: kept)
    assert one.path.stat().st_size < 50_000
    found = journal(tmp_path).load()
    assert type(found["mean"]) is tuple
    assert torch.equal(found["mean"][1], large[1])
    assert torch.equal(found["state"]["delta"], large[:, 0])
    assert (found["state"]["step"], found["trace"]) == (None, [(2, True)])


def test_a_standing_is_written_when_the_last_one_is_old_enough(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("segradius.evaluation.journal.time.monotonic", lambda: now[0])
    one, made = journal(tmp_path, seconds=30), []
    for now[0] in (101.0, 129.0, 130.0, 131.0, 161.0):
        one.save(lambda: made.append(now[0]) or {"at": now[0]})
    assert made == [130.0, 161.0]
    assert journal(tmp_path).load() == {"at": 161.0}


def test_without_a_file_there_is_no_standing(tmp_path):
    assert journal(tmp_path / "absent").load() is None
    journal(tmp_path / "absent").remove()


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "another file": lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
    "another format": lambda path: torch.save({"format": FORMAT + 1}, path),
    "no standing": lambda path: torch.save([1, 2], path),
    "code": lambda path: torch.save({"format": FORMAT, "saves": 1, "images": (), "standing": {"a": Path("x")}}, path),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_cannot_be_read_is_set_aside_with_a_warning(tmp_path, kind):
    one, told = journal(tmp_path), []
    one.save(lambda: {"a": 1})
    DAMAGED[kind](one.path)
    assert journal(tmp_path, warn=told.append).load() is None
    (warning,) = told
    assert str(one.path) in warning
    assert list(tmp_path.iterdir()) == [one.path.with_suffix(".damaged")]


def test_what_a_kill_left_half_written_is_no_checkpoint_and_is_removed_in_the_end(tmp_path):
    place = Checkpoints(tmp_path)
    (tmp_path / ".key-batch.pt.x7.pt").write_bytes(b"half")
    assert not place.waiting()
    assert place.paid() == 0
    place.tidy()
    assert not tmp_path.exists()


def test_the_file_of_a_batch_whose_results_are_stored_is_dropped(tmp_path):
    journal(tmp_path).save(lambda: {"a": 1})
    place = Checkpoints(tmp_path)
    place.drop_finished({"key": {"a", "c"}}.__getitem__)
    assert place.waiting()
    place.drop_finished({"key": {"a", "b", "c"}}.__getitem__)
    assert not place.waiting()


def test_a_negative_interval_is_refused(tmp_path):
    with pytest.raises(InputError, match="checkpoint_seconds is -1"):
        Checkpoints(tmp_path, -1)


def test_the_digest_of_a_batch_changes_with_its_ids_and_its_pixels():
    changed = IMAGES.clone()
    changed[0, 0, 0, 0] += 1e-3
    found = [digest(("a", "b"), IMAGES), digest(("a", "c"), IMAGES), digest(("a", "b"), changed)]
    assert len({*found, digest(("a", "b"), IMAGES, LABELS)}) == 4
    assert digest(("a", "b"), IMAGES.clone()) == found[0]
