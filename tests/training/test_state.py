"""Snapshots come back as they were saved or not at all, and logs go on where their run does."""

from __future__ import annotations

from pathlib import Path

import pytest
import small
import torch

from segradius.core.errors import InputError
from segradius.training.records import CHECKPOINT, Position, Snapshot, Table, sweep

IDENTITY = "model: a\ndata: b\nrecipe: c"


def snapshot(identity: str = IDENTITY) -> Snapshot:
    weights = {"weight": torch.randn(3, 2), "count": torch.tensor(7)}
    optimiser = {"state": {0: {"momentum_buffer": torch.randn(3, 2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return Snapshot(identity, Position(5, 0.25, 2), weights, optimiser, {"weight": torch.randn(3, 2)}, {"scale": 2.0})


def test_a_snapshot_comes_back(tmp_path: Path) -> None:
    saved = snapshot()
    saved.save(tmp_path)
    found = Snapshot.load(tmp_path, IDENTITY)
    assert found is not None
    assert (found.identity, found.position, found.scaler) == (IDENTITY, Position(5, 0.25, 2), {"scale": 2.0})
    small.assert_same(found.network, saved.network)
    small.assert_same(found.average, saved.average)
    assert torch.equal(found.optimiser["state"][0]["momentum_buffer"], saved.optimiser["state"][0]["momentum_buffer"])
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_first_position_comes_back(tmp_path: Path) -> None:
    """Its best score is minus infinity."""
    Snapshot(IDENTITY, Position(), {}, {}).save(tmp_path)
    found = Snapshot.load(tmp_path, IDENTITY)
    assert found is not None
    assert found.position == Position()


def test_no_snapshot_is_none(tmp_path: Path) -> None:
    assert Snapshot.load(tmp_path, IDENTITY) is None


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("model: x\ndata: b\nrecipe: c", "holds another run: model is x, and was a"),
        ("model: a\ndata: b\nrecipe: x", "recipe is x, and was c"),
        ("model: a\ndata: b", "recipe is absent, and was c"),
    ],
)
def test_another_run_is_told_by_its_difference(tmp_path: Path, identity: str, message: str) -> None:
    snapshot().save(tmp_path)
    with pytest.raises(InputError, match=message):
        Snapshot.load(tmp_path, identity)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "half"])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | str) -> None:
    snapshot().save(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"last\.pt is not a readable training checkpoint"):
        Snapshot.load(tmp_path, IDENTITY)


def test_a_file_without_the_fields_is_named(tmp_path: Path) -> None:
    torch.save({"identity": IDENTITY}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="not a readable training checkpoint"):
        Snapshot.load(tmp_path, IDENTITY)


def table(folder: Path) -> Table:
    made = Table(folder / "log.csv", ("step", "loss"))
    made.begin(0, None)
    made.add([{"step": i, "loss": 1 / i, "more": "left out"} for i in range(1, 8)])
    return made


def test_a_table_is_cut_back_to_a_step(tmp_path: Path) -> None:
    made = table(tmp_path)
    before = made.path.read_text().splitlines()
    made.begin(3, None)
    assert made.path.read_text().splitlines() == before[:4]
    made.add([{"step": 4, "loss": 0.1}])
    assert small.column(made.path, "step") == [1, 2, 3, 4]
    assert small.column(made.path, "loss") == [1, 1 / 2, 1 / 3, 0.1]
    made.begin(0, None)
    assert made.path.read_text() == "step,loss\n"


def test_a_table_is_what_the_snapshot_says_whatever_the_file_does(tmp_path: Path) -> None:
    made = table(tmp_path)
    known = made.text
    assert made.path.read_text() == known
    for content in (known.replace("5", "6"), "", "\x00"):
        made.path.write_text(content)
        made.begin(7, known)
        assert made.path.read_text() == made.text == known


@pytest.mark.parametrize("torn", ["8", "8,", "x", '8,"0.1', "\x00"])
def test_torn_lines_are_cut(tmp_path: Path, torn: str) -> None:
    made = table(tmp_path)
    with made.path.open("a") as file:
        file.write(torn)
    made.begin(7, None)
    assert small.column(made.path, "step") == list(range(1, 8))


def test_only_half_written_files_are_swept(tmp_path: Path) -> None:
    for name in (".last.pt.a1.pt", ".train.csv.b2.csv", "last.pt", "train.csv", ".hidden", ".other.pt.a1.pt"):
        (tmp_path / name).touch()
    sweep(tmp_path, (CHECKPOINT, "train.csv"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", ".other.pt.a1.pt", "last.pt", "train.csv"]
