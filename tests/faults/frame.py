"""Injected faults: a registry, the folder that each is injected into, and the one judge of what came of it.

A fault is a function in a ``test_<subject>.py`` of this folder. It is given a `Case`, does its harm to the working
folder, runs the command, and returns a `Tried`. How to add one stands in CONTRIBUTING.md.
"""

from __future__ import annotations

import atexit
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from cli.served import furnish
from segradius.cli import main

#: What may come of a fault: the first three are as it should be.
FINE = ("right", "refused", "set aside")
WRONG = ("lost", "doubled", "silent", "traceback", "unclear")
OUT = "out"
# Batches of one: a sum over a batch is rounded otherwise where an image of it was set aside.
ATTACK = ("attack", "--attack", "pgd,cr_pgd", "--steps", "3", "--eps", "l2=0.5", "--batch-size", "1")
BLACK = ("attack", "--attack", "local_pbgd", "--queries", "24", "--eps", "linf=0.1", "--batch-size", "1")
CERTIFY = ("certify", "--sigma", "0.1", "--n0", "7", "--n", "60", "--figures", "0")
MODEL = ("--model", "small_net:network", "--num-classes", "3", "--data", "folder:data", "--device", "cpu")

Facts = Counter[tuple[tuple[str, ...], str]]


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit status (None if it was killed), both streams, and a traceback if it ended in one."""

    status: int | None
    shown: str = ""
    told: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Case:
    """A try of a fault.

    Attributes:
        folder: A copy of the prepared one, and the working folder; ``out`` in it is the command's.
        command: That was run to prepare it, with ``--out out``.
        wanted: Facts that it found, undisturbed.
        digest: Of its results.
        seconds: That it took.
        number: Of the try, from 0.
        random: Seeded by the fault's name and the number.
    """

    folder: Path
    command: tuple[str, ...]
    wanted: Facts
    digest: str
    seconds: float
    number: int
    random: random.Random

    @property
    def out(self) -> Path:
        """The command's folder."""
        return self.folder / OUT

    def run(self, *more: str, words: Sequence[str] | None = None) -> Ran:
        """The command with more words, or another one, in this process."""
        return run([*(self.command if words is None else words), *more])

    def killed(self, *more: str, after: float | None = None) -> Ran:
        """The command in a process of its own that SIGKILL ends after so many seconds, by default at any moment."""
        moment = self.random.uniform(0, 1.1 * self.seconds) if after is None else after
        return killed([*self.command, *more], moment)


@dataclass(frozen=True)
class Tried:
    """What came of a try.

    Attributes:
        ran: The command that met the fault, or the last one.
        names: A refusal names one of them: file, image, pixel, option.
        aside: Images that may be set aside, each to be named on the screen.
        found: Facts afterwards; by default those in ``out``.
        problem: What else was wrong, in words.
    """

    ran: Ran
    names: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    found: Facts | None = None
    problem: str = ""


@dataclass(frozen=True)
class Fault:
    """A registered fault.

    Attributes:
        name: Of its function, or as it was given.
        kind: What it is a case of, in the table.
        module: Whose tests it is among.
        strike: Does it.
        prepared: The folder that it needs, by the name of a function in `PREPARED`.
        finished: Whether the command was run in that folder before.
        expected: What may come of it, of `FINE`.
        few: Tries unless ``--faults`` says otherwise.
    """

    name: str
    kind: str
    module: str
    strike: Callable[[Case], Tried]
    prepared: str
    finished: bool
    expected: tuple[str, ...]
    few: int


FAULTS: dict[str, Fault] = {}
PREPARED: dict[str, Callable[[Path], Sequence[str]]] = {}


def fault(
    kind: str,
    expected: str | Sequence[str],
    prepared: str = "attack",
    *,
    finished: bool = False,
    few: int = 1,
    name: str = "",
) -> Callable[[Callable[[Case], Tried]], Callable[[Case], Tried]]:
    """A decorator that registers a fault; see `Fault`."""

    def register(strike: Callable[[Case], Tried]) -> Callable[[Case], Tried]:
        called, outcomes = name or strike.__name__, (expected,) if isinstance(expected, str) else tuple(expected)
        assert called not in FAULTS, f"two faults are called {called}"
        assert set(outcomes) <= set(FINE), f"{called}: expected some of {FINE}"
        FAULTS[called] = Fault(called, kind, strike.__module__, strike, prepared, finished, outcomes, few)
        return strike

    return register


def prepared(make: Callable[[Path], Sequence[str]]) -> Callable[[Path], Sequence[str]]:
    """Register a function that furnishes an empty folder and returns the command, by its name."""
    PREPARED[make.__name__] = make
    return make


@prepared
def attack(folder: Path) -> Sequence[str]:
    """A white-box attack and its guided one on three images of 8 × 10."""
    furnish(folder)
    return [*ATTACK, *MODEL, "--figures", "0"]


@prepared
def black(folder: Path) -> Sequence[str]:
    """A black-box attack that writes a checkpoint after every round."""
    furnish(folder)
    return [*BLACK, *MODEL, "--figures", "0", "--checkpoint-seconds", "0"]


@prepared
def certify(folder: Path) -> Sequence[str]:
    """A certification of the same images."""
    furnish(folder)
    return [*CERTIFY, *MODEL]


@prepared
def evaluate(folder: Path) -> Sequence[str]:
    """The accuracy of the same network."""
    furnish(folder)
    return ["evaluate", *MODEL]


@prepared
def train(folder: Path) -> Sequence[str]:
    """Four epochs of the same network, with a snapshot after every step."""
    furnish(folder)
    for kind in ("images", "masks"):
        (folder / "data" / kind).rename(folder / "data" / "train")
        (folder / "data" / kind).mkdir()
        shutil.copytree(folder / "data" / "train", folder / "data" / kind / "val")
        (folder / "data" / "train").rename(folder / "data" / kind / "train")
    words = ["--epochs", "4", "--batch-size", "2", "--crop", "8x8", "--scale", "1,1", "--lr", "0.01"]
    return ["train", *MODEL, *words, "--save-every", "1"]


def run(words: Sequence[str]) -> Ran:
    """A command line in this process."""
    shown, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(told), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Ran(main(list(words)), shown.getvalue(), told.getvalue())
        except SystemExit as stop:
            return Ran(int(stop.code or 0), shown.getvalue(), told.getvalue())
        except Exception:
            return Ran(1, shown.getvalue(), told.getvalue(), traceback.format_exc())


def begun(words: Sequence[str], before: Callable[[], object] = lambda: None, told: int | None = None) -> int:
    """A command line in a process of its own, by its number, after something was done there.

    Args:
        words: The command line.
        before: What is done first.
        told: A descriptor that its words go to; None for nowhere.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child runs one thread
        child = os.fork()
    if child:
        return child
    try:
        out = os.open(os.devnull, os.O_WRONLY) if told is None else told
        os.dup2(out, 1)
        os.dup2(out, 2)
        before()
        ran = run(words)
        os.write(out, (ran.traceback or ran.told)[-9000:].encode())
        os._exit(ran.status or 0)
    finally:
        os._exit(1)


def limited(words: Sequence[str], size: int) -> Ran:
    """A command line in a process of its own, which cannot write a file beyond so many bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    told, written = os.pipe()
    child = begun(words, limit, written)
    os.close(written)
    with os.fdopen(told, errors="replace") as stream:
        found = stream.read()
    _, status = os.waitpid(child, 0)
    return Ran(os.waitstatus_to_exitcode(status), told=found)


def killed(words: Sequence[str], seconds: float) -> Ran:
    """A command line in a process of its own, which SIGKILL ends after so many seconds unless it ended by itself."""
    child = begun(words)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Ran(os.waitstatus_to_exitcode(status))
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return Ran(None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status))


def digest(out: Path) -> str:
    """The digest of the results in a folder; empty where its command writes none into a file."""
    file = out / "results.json"
    return json.dumps(json.loads(file.read_text(encoding="utf-8"))["digest"]) if file.exists() else ""


def facts(out: Path) -> Facts:
    """What a folder of results says of each image, or of each step of a training, without times; a row is one fact."""
    found: Facts = Counter()
    for name in ("per_image.csv", "train.csv", "evaluations.csv"):
        if not (out / name).exists():
            continue
        with (out / name).open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                keys = [key for key in ("attack", "norm", "eps", "answer", "image", "step") if key in row]
                told = {key: value for key, value in row.items() if key not in keys and "seconds" not in (key or "")}
                found[(name, *(row[key] for key in keys)), json.dumps(told, sort_keys=True)] += 1
    for name in ("best.safetensors", "last.safetensors"):
        if (out / name).exists():
            found[(name,), hashlib.sha256((out / name).read_bytes()).hexdigest()] += 1
    return found


@dataclass(frozen=True)
class Prepared:
    """A furnished folder, the same after the command, the command, its facts and its time."""

    before: Path
    after: Path
    command: tuple[str, ...]
    wanted: Facts
    seconds: float = field(compare=False)


@cache
def prepare(name: str) -> Prepared:
    """Furnish a folder and run the command in a copy of it, once a session."""
    top = Path(mkdtemp(prefix="faults-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    (top / "before").mkdir()
    command = (*PREPARED[name](top / "before"), "--out", OUT)
    shutil.copytree(top / "before", top / "after")
    with at(top / "after"):
        run(command)  # what is imported at its first use is not in the time
        shutil.rmtree(top / "after" / OUT, ignore_errors=True)
        started = time.monotonic()
        ran = run(command)
    assert ran.status == 0, f"{' '.join(command)}: {ran.traceback or ran.told}"
    wanted = facts(top / "after" / OUT)
    assert wanted, f"{' '.join(command)} found nothing"
    return Prepared(top / "before", top / "after", command, wanted, time.monotonic() - started)


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    """In a folder, whose modules can be imported."""
    with contextlib.chdir(folder):
        for file in folder.glob("*.py"):  # another test's module of the same name would be taken for it
            sys.modules.pop(file.stem, None)
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(folder))]:
                del sys.modules[name]


def strike(it: Fault, number: int, folder: Path) -> tuple[str, str]:
    """Try a fault in an empty folder: what came of it, and what there is to say of that."""
    made = prepare(it.prepared)
    shutil.copytree(made.after if it.finished else made.before, folder, dirs_exist_ok=True)
    found = digest(made.after / OUT)
    case = Case(folder, made.command, made.wanted, found, made.seconds, number, random.Random(f"{it.name} {number}"))
    with at(folder):
        tried = it.strike(case)
    return judge(tried, made.wanted, facts(case.out) if tried.found is None else tried.found)


def judge(tried: Tried, wanted: Facts, found: Facts) -> tuple[str, str]:
    """What came of a try, one of `FINE` or `WRONG`, and what there is to say of that."""
    ran = tried.ran
    if ran.traceback or "Traceback (most recent call last)" in ran.told:
        return "traceback", ran.traceback or ran.told
    if tried.problem:
        return "silent", tried.problem
    if ran.status != 0:
        return _refused(tried)
    extra = {key: count for (key, _), count in _by_key(found).items() if count > 1}
    if extra:
        return "doubled", f"more than once: {sorted(extra)[:3]}"
    gone = [fact for fact in wanted if fact not in found]
    aside = [name for name in tried.aside if any(name in key for key, _ in gone)]
    there = {key for key, _ in found}
    left = [key for key, _ in gone if not any(name in key for name in aside)]
    if lost := [key for key in left if key not in there]:
        return "lost", f"{len(lost)} facts, {lost[:3]} among them; {ran.told}"
    if left:
        return "silent", f"other values of {left[:3]}: {[value for key, value in found if key in left][:3]}; {ran.told}"
    unnamed = [name for name in aside if name not in ran.shown + ran.told]
    if unnamed:
        return "silent", f"not a word of {unnamed}"
    return ("set aside" if aside else "right"), ran.shown + ran.told


def _by_key(found: Facts) -> Counter[tuple[tuple[str, ...], str]]:
    keys: Counter[tuple[tuple[str, ...], str]] = Counter()
    for (key, _), count in found.items():
        keys[key, ""] += count
    return keys


def _refused(tried: Tried) -> tuple[str, str]:
    """A refusal is exit status 2 and one line that names what is wrong."""
    ran = tried.ran
    lines = [line for line in ran.told.splitlines() if line.startswith("segradius: error: ")]
    if ran.status != 2 or len(lines) != 1 or not ran.told.rstrip().endswith(lines[0]):
        return "unclear", f"exit status {ran.status}, expected 2 and one line at the end: {ran.told}"
    if tried.names and not any(name in lines[0] for name in tried.names):
        return "unclear", f"expected one of {tried.names} to be named: {lines[0]}"
    return "refused", lines[0]


def test_fault(it: Fault, number: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A fault ends as it should: nothing lost, doubled, silent, no traceback. ``conftest.py`` gives every fault."""
    outcome, told = strike(it, number, tmp_path)
    record_property("fault", f"{it.kind}\t{outcome}")
    assert outcome in it.expected, f"{it.name}, try {number}: {outcome}; expected {' or '.join(it.expected)}: {told}"
