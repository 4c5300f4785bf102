"""A second process in a folder is refused, the first undisturbed; a killed one keeps nobody out and leaves nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from faults.frame import Case, Tried, begun, fault, test_fault
from segradius.core.locking import LOCK
from segradius.core.storage import PREFIX

__all__ = ["test_fault"]


def stopped(case: Case) -> int:
    """The same, held as soon as it owns the folder."""
    child = begun(case.command)
    end = time.monotonic() + 60
    while not ((case.out / LOCK).exists() and (case.out / LOCK).stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.001)
    os.kill(child, signal.SIGSTOP)
    return child


for _command in ("attack", "black", "certify", "evaluate", "train"):

    @fault("two processes in a folder", "refused", _command, name=f"second_{_command}")
    def _second(case: Case) -> Tried:
        first = stopped(case)
        try:
            ran = case.run()
        finally:
            os.kill(first, signal.SIGCONT)
            _, status = os.waitpid(first, 0)
        problem = "" if os.waitstatus_to_exitcode(status) == 0 else "the first was disturbed"
        if not problem and any(case.out.glob(".*")):
            problem = "the lock stayed"
        if f"process {first} on " not in ran.told:
            problem = f"not told who: {ran.told}"
        return Tried(ran, names=("out is in use",), problem=problem)

    @fault("a dead owner", "right", _command, name=f"dead_{_command}")
    def _dead(case: Case) -> Tried:
        first = stopped(case)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        assert (case.out / LOCK).exists()
        return Tried(case.run(), problem="the lock stayed" if (case.out / LOCK).exists() and case.run().status else "")


def lethal(number: int) -> None:
    """From now on the process is killed when so many files were written and are not yet in place."""
    replace, left = Path.replace, [number]

    def kill(self: Path, target: Path) -> Path:
        left[0] -= 1
        if self.name.startswith(PREFIX) and left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = kill  # type: ignore[method-assign,assignment]


def left(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob(f"{PREFIX}*"))


for _command, _files in (("attack", 4), ("black", 8), ("certify", 8), ("evaluate", 4), ("train", 4)):

    @fault("killed between writing and renaming", "right", _command, name=f"halfway_{_command}")
    def _halfway(case: Case, files: int = _files) -> Tried:
        child = begun(case.command, lambda: lethal(case.random.randrange(files)))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert len(left(case.out)) == 1
        ran = case.run()
        return Tried(ran, problem=f"left: {left(case.out)}" if left(case.out) else "")
