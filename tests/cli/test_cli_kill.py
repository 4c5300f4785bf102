"""`kill -9` at chosen requests: the same command goes on, nothing is asked twice, and the same bytes come out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from served import BOTH, COMMAND, LOCAL, adversarial, attack, place, queries, report, server, stub, text

import segradius
from targets import oip_stub

__all__ = ["place"]

PROGRAM = "import sys, torch; torch.set_num_threads(1); from segradius.cli import main; sys.exit(main())"


class Killer:
    """Sends SIGKILL to a process once, before or after the answer to a request."""

    def __init__(self, number: int, moment: str) -> None:
        self.number, self.moment, self.process, self.request = number, moment, None, None

    def strike(self, number: int, moment: str) -> bool:
        if self.process is None or (number, moment) != (self.number, self.moment):
            return False
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        return True


@contextmanager
def lethal(place: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch) -> Iterator[oip_stub.Stub]:
    """A server whose client is killed, by the number of the request."""

    class Handler(oip_stub.Handler):
        def do_POST(self):  # noqa: N802
            number = self.stub.received.total()
            super().do_POST()
            killer.strike(number, "after")

    def fault(number: int) -> str | None:
        return "drop" if killer.strike(number, "before") else None

    monkeypatch.setattr(oip_stub, "Handler", Handler)
    with oip_stub.serving(stub(place, fault=fault)) as served:
        yield served


def start(words: list[str], out: str) -> subprocess.Popen:
    """The command in a process of its own."""
    source = Path(segradius.__file__).parents[1]
    where = os.pathsep.join([str(source), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, *COMMAND, *BOTH, *words, "--out", out]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("number", "moment", "seconds"),
    [
        (1, "before", "1000"),  # the clean images, second request
        (9, "after", "1000"),  # in the first attack, from the spool alone
        (17, "before", "0"),  # in the second round of a call of several requests, from a checkpoint of every round
        (30, "after", "0"),
    ],
)
def test_a_killed_run_goes_on_and_asks_nothing_twice(place, monkeypatch, number, moment, seconds):
    assert attack("local", *LOCAL) == 0
    with oip_stub.serving(stub(place)) as fine:
        assert attack("whole", *server(fine.url)) == 0
    killer = Killer(number, moment)
    with lethal(place, killer, monkeypatch) as served:
        words = [*server(served.url), "--checkpoint-seconds", seconds]
        killer.process = start(words, "parts")
        killer.process.communicate(timeout=120)
        assert killer.process is None, "the process was not killed"
        assert not Path("parts/results.json").exists()
        again = start(words, "parts")
        _, error = again.communicate(timeout=120)
        assert again.returncode == 0, error.decode()
    twice = served.answered - fine.answered
    assert set(served.answered) == set(fine.answered)
    assert twice.total() <= (moment == "after")  # the answer was on its way to the process that was killed
    for name in ("per_image.csv", "trace.csv"):
        assert text("parts", name) == text("whole", name)
    assert torch.equal(adversarial("parts"), adversarial("whole"))
    torch.testing.assert_close(adversarial("parts"), adversarial("local"), rtol=0, atol=1e-5)
    assert report("parts")["rows"] == report("whole")["rows"]
    assert report("parts")["runtime"]["target"]["answered"] == queries("parts") == sum(fine.images)


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_a_killed_run_on_a_network_here_goes_on_to_the_same_files(place, seconds):
    """Without a spool: what came after the last checkpoint is done again, and counted once."""
    words = [*LOCAL, "--checkpoint-seconds", seconds, "--queries", "200"]
    assert attack("whole", *words) == 0
    process = start(words, "parts")
    killed = Path("parts/checkpoints") if seconds == "0" else Path("parts/results.sqlite")
    while process.poll() is None and not (any(killed.glob("[!.]*.pt")) if killed.is_dir() else killed.exists()):
        pass
    process.kill()
    process.communicate()
    assert not Path("parts/results.json").exists()
    assert attack("parts", *words) == 0
    for name in ("per_image.csv", "trace.csv"):
        assert text("parts", name) == text("whole", name)
    assert torch.equal(adversarial("parts"), adversarial("whole"))
    assert report("parts")["runtime"]["target"]["answered"] == queries("parts") == queries("whole")
