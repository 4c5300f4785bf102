"""SIGKILL at any moment: the same command goes on, and finds what an unbroken run does."""

from __future__ import annotations

from faults.frame import Case, Tried, digest, fault, test_fault

__all__ = ["test_fault"]

for _command in ("attack", "black", "certify", "train"):

    @fault("SIGKILL", "right", _command, few=2, name=f"killed_{_command}")
    def _killed(case: Case) -> Tried:
        case.killed()
        ran = case.run()
        return Tried(ran, problem="" if digest(case.out) == case.digest else "another digest of the results")
