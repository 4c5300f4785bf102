"""One process owns a folder; the second is told; a dead one keeps nobody out, and what it left half written goes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import segradius
from segradius.core.errors import InputError
from segradius.core.locking import LOCK, owned
from segradius.core.storage import write_atomically

#: A process that owns a folder until its input ends, and says when it does.
OWNER = """
import os, signal, sys
from pathlib import Path
from segradius.core.locking import owned
from segradius.core.storage import replacing
place = Path(sys.argv[1])
with owned(place):
    print("owned", flush=True)
    sys.stdin.read(1)
    if "die" in sys.argv:
        with replacing((place if place.is_dir() else place.parent) / "whole.txt") as new:
            new.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
"""


def owner(place: Path, *more: str) -> subprocess.Popen[bytes]:
    """Started, and in possession."""
    environment = {**os.environ, "PYTHONPATH": str(Path(segradius.__file__).parents[1])}
    command = [sys.executable, "-c", OWNER, str(place), *more]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"owned\n"
    return process


def end(process: subprocess.Popen[bytes]) -> int:
    process.communicate(b"x", timeout=60)
    return process.returncode


@pytest.fixture(params=["folder", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path if request.param == "folder" else tmp_path / "model.onnx"


def test_the_second_is_told_who_has_it_and_where(place: Path):
    first = owner(place)
    with pytest.raises(InputError) as told, owned(place):
        pass
    assert str(told.value).startswith(f"{place} is in use: process {first.pid} on {socket.gethostname()} ")
    assert "\n" not in str(told.value)
    assert end(first) == 0
    with owned(place):
        pass
    assert list((place if place.is_dir() else place.parent).iterdir()) == []


def test_a_killed_owner_keeps_nobody_out_and_what_it_left_is_removed(place: Path):
    folder = place if place.is_dir() else place.parent
    target = folder / "whole.txt"
    target.write_text("before")
    assert end(owner(place, "die")) == -signal.SIGKILL
    assert len(left := [file for file in folder.iterdir() if file.suffix == ".txt" and file != target]) == 1
    assert left[0].read_text() == "half"
    with owned(target if place != folder else folder):
        assert not left[0].exists()
    assert target.read_text() == "before"


def test_what_others_left_in_named_sub_folders_is_removed_and_nothing_else(tmp_path: Path):
    for name in ("maps", "spool/a", "mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".segradius-x.png-1.png").touch()
        (tmp_path / name / ".hidden").touch()
    with owned(tmp_path, ("maps", "spool/*")):
        pass
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob(".*"))
    assert left == ["maps/.hidden", "mine/.hidden", "mine/.segradius-x.png-1.png", "spool/a/.hidden"]


def test_another_way_to_the_same_folder_is_the_same_folder(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with owned(tmp_path / "a"), pytest.raises(InputError, match="in use"), owned(tmp_path / "b"):
        pass


def wait(pipe) -> None:
    pipe.recv()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_worker_that_outlives_its_owner_holds_nothing(tmp_path: Path, method: str):
    context = multiprocessing.get_context(method)
    mine, other = context.Pipe()
    with owned(tmp_path):
        worker = context.Process(target=wait, args=(other,))
        worker.start()
        assert (tmp_path / LOCK).exists()
    with owned(tmp_path):  # while it is alive
        assert worker.is_alive()
        mine.send(None)
        worker.join()
        assert (tmp_path / LOCK).exists()
        with pytest.raises(InputError, match="in use"), owned(tmp_path):
            pass


def test_an_unreadable_owner_is_an_owner(tmp_path: Path):
    with owned(tmp_path):
        (tmp_path / LOCK).write_bytes(b"\xff{")
        with pytest.raises(InputError, match="another process has just begun"), owned(tmp_path):
            pass


def test_a_temporary_file_of_the_longest_name_can_be_written(tmp_path: Path):
    name = "n" * 251 + ".npz"
    write_atomically(tmp_path / name, b"1")
    assert [file.name for file in tmp_path.iterdir()] == [name]
