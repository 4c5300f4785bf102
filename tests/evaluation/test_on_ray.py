"""Workers in a Ray cluster of this machine: the same results, also when one is killed, and nothing left or let in."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from test_processes import found, is_running

from segradius.core.errors import InputError
from segradius.evaluation import InProcess, on_ray
from segradius.evaluation.messages import Gone, Here
from segradius.evaluation.on_ray import in_cluster
from segradius.evaluation.worker import Setup

pytest.importorskip("ray", reason="ray is not installed: pip install 'segradius[ray]'")

#: Ray closes no file of its own before the interpreter does.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


def of_this(pattern: str) -> list[int]:
    """Processes whose command line, with what is below this one, has a text."""
    children = {os.getpid()}
    stats = {int(p.name): p for p in Path("/proc").iterdir() if p.name.isdecimal()}
    for number in sorted(stats):
        try:
            parent = int((stats[number] / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in children:
            children.add(number)
    return [n for n in children if is_running(n) and pattern in (stats[n] / "cmdline").read_text()]


def listening() -> list[str]:
    """Addresses on which processes below this one listen, as /proc/net/tcp and tcp6 have them."""
    mine = set()
    for process in of_this(""):
        for file in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):
                mine.add(str(file.readlink()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in mine]


LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at sockets in /proc")
def test_a_cluster_of_our_own_finds_the_same_and_leaves_nothing(monkeypatch, tmp_path, capsys):
    """Though an actor of it is killed; meanwhile nobody else can reach it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    place = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short, for the names of sockets
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    environment, said, heard = dict(os.environ), [], []

    def harm(job, steps):
        if not heard:
            actor = of_this("ray::_Inside")[0]
            os.kill(actor, signal.SIGSTOP)  # it must not be done before it is killed
            heard.extend(listening())
            os.kill(actor, signal.SIGKILL)

    assert found(in_cluster(1, threads=1, warn=said.append), harm) == found(InProcess())
    assert heard
    assert [each for each in heard if not each.startswith(LOOPBACK)] == []
    (ended,) = [words for words in said if "waits for a node" not in words]
    assert ended.startswith("worker 1 ended (The actor")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    assert list(place.glob("sr-*")) == []
    shutil.rmtree(place)
    assert dict(os.environ) == environment
    assert of_this("raylet") == []


def test_what_ray_cannot_do_is_refused_in_a_line():
    with pytest.raises(InputError, match=r"expected cpu or cuda"):
        in_cluster(1, "cuda:1")
    with pytest.raises(InputError, match=r"address ray://head:10001: Ray's client does not pass on"):
        in_cluster(1, address="ray://head:10001")


@pytest.mark.parametrize("has_room", [True, False])
def test_the_silence_of_a_worker_counts_at_once_where_nothing_keeps_ray_from_making_it(monkeypatch, has_room):
    """Elsewhere it may wait for a node, and so is none that hangs."""
    ray = MagicMock(**{"wait.return_value": ([1], [])})
    ray.exceptions.RayError = ray.exceptions.RayTaskError = OSError
    monkeypatch.setattr(on_ray, "_ray", lambda: ray)
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    on_ray._Actor("worker 1", Setup.of_driver(), inbox, has_room=has_room)
    assert isinstance(inbox.get(timeout=9)[1], Here if has_room else Gone)
