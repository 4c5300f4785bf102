"""`segradius verify` finds what is damaged, wherever it is, and ``--mend`` with the same command makes it whole."""

from __future__ import annotations

import shutil

from faults.frame import Case, Tried, facts, fault, test_fault
from faults.harm import bitten, change_a_row

__all__ = ["test_fault"]

UNREAD = {"results.sqlite", "last.pt"}  # may have bytes that say nothing
UNSEALED = {".yaml"}  # a card is a text of people


def verified(case: Case, *more: str) -> tuple[int | None, str]:
    """Exit status, and what was told."""
    ran = case.run(words=["verify", "out", *more])
    return (1 if ran.traceback else ran.status), ran.traceback + ran.shown + ran.told


for _command in ("attack", "black", "certify", "train"):

    @fault("verify", "right", _command, finished=True, few=2, name=f"verify_{_command}")
    def _verify(case: Case) -> Tried:
        """Any file of the folder, one byte."""
        before = verified(case)
        files = [file for file in sorted(case.out.rglob("*")) if file.is_file() and file.parent.name != "tensorboard"]
        file = case.random.choice([file for file in files if file.suffix not in UNSEALED and file.read_bytes()])
        shutil.copy(file, case.folder / "copy")
        bitten(file, case.random)
        status, told = verified(case)
        shutil.copy(case.folder / "copy", file)
        wrong = before[0] or "Traceback" in told or (status == 1 and file.name not in told) or status not in (0, 1)
        unnoticed = status == 0 and file.name not in UNREAD
        problem = f"{file.name}: {before}, {status}, {told}" if wrong or unnoticed else ""
        return Tried(case.run(), problem=problem)


for _command in ("attack", "black", "certify", "evaluate"):

    @fault("mended", "right", _command, finished=True, few=2, name=f"mended_{_command}")
    def _mended(case: Case) -> Tried:
        """A row is changed or gone; mended, the same command finds what it found, by its digest too."""
        wanted = facts(case.out)
        table = change_a_row(case)
        refused, (status, told) = case.run(), verified(case, "--mend")
        problem = "" if refused.status == 2 and status == 1 and "results.sqlite" in told else f"{status}: {told}"
        ran = case.run("--overwrite") if table == "meta" else case.run()
        return Tried(ran, problem=problem or ("" if facts(case.out) == wanted else f"other facts; {ran.told}"))
