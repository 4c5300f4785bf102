"""Workers in a Ray cluster of this machine: the same results, also when one is killed, and nothing left or let in."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from test_processes import found, is_running

from segradius.core.errors import InputError
from segradius.evaluation import InProcess
from segradius.evaluation.on_ray import in_cluster

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


def listening() -> set[str]:
    """Addresses on which something listens, as /proc/net/tcp and tcp6 have them, without ports."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {line[1] for line in lines if line[3] == "0A"}


LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at sockets in /proc")
def test_a_cluster_of_our_own_finds_the_same_and_leaves_nothing(monkeypatch, tmp_path, capsys):
    """Though an actor of it is killed; meanwhile nobody else can reach it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before, folders = listening(), set(Path(tempfile.gettempdir()).glob("sr-*"))
    environment, said, open_to_others = dict(os.environ), [], []

    def harm(job, steps):
        if not open_to_others:
            open_to_others.append([each for each in listening() - before if not each.startswith(LOOPBACK)])
            os.kill(of_this("ray::_Inside")[0], signal.SIGKILL)

    assert found(in_cluster(1, threads=1, warn=said.append), harm) == found(InProcess())
    assert open_to_others == [[]]
    assert len(said) == 1
    assert said[0].startswith("worker 1 ended (The actor")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    assert set(Path(tempfile.gettempdir()).glob("sr-*")) == folders
    assert dict(os.environ) == environment
    assert of_this("raylet") == []


def test_what_ray_cannot_do_is_refused_in_a_line():
    with pytest.raises(InputError, match=r"expected cpu or cuda"):
        in_cluster(1, "cuda:1")
    with pytest.raises(InputError, match=r"address ray://head:10001: Ray's client does not pass on"):
        in_cluster(1, address="ray://head:10001")
