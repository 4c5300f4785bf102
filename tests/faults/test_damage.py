"""One byte of a stored file is another one: what was stored comes back, or a line names the file."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable

from faults.frame import OUT, Case, Facts, Ran, Tried, facts, fault, test_fault
from faults.harm import DATABASE, bitten, change_a_row, picked
from segradius.evaluation.journal import FileJournal

__all__ = ["test_fault"]

EITHER = ("right", "refused")


for _command in ("attack", "black", "certify", "evaluate"):

    @fault("damaged results", EITHER, _command, finished=True, few=2, name=f"damaged_store_{_command}")
    def _store(case: Case) -> Tried:
        bitten(case.out / DATABASE, case.random)
        return Tried(case.run(), (DATABASE,))

    @fault("damaged results", "refused", _command, finished=True, few=2, name=f"changed_row_{_command}")
    def _row(case: Case) -> Tried:
        change_a_row(case)
        return Tried(case.run(), (DATABASE,))


@fault("damaged results", "right", "certify", finished=True, few=2)
def damaged_certificate_file(case: Case) -> Tried:
    """Files beside the store are made of it."""
    bitten(picked(case, "certificates/*.npz"), case.random)
    bitten(picked(case, "*.csv"), case.random)
    return Tried(case.run())


@fault("damaged results", "refused", "certify", finished=True, few=2)
def damaged_certificate_of_an_earlier_version(case: Case) -> Tried:
    """It had no store: its certificates and ``experiment.json`` are read back."""
    experiment = json.loads((case.out / "results.json").read_text())["experiment"]
    (case.out / "experiment.json").write_text(json.dumps(experiment))
    (case.out / DATABASE).unlink()
    if case.number % 2:
        picked(case, "certificates/*.npz").write_bytes(case.random.randbytes(300))
        return Tried(case.run(), (".npz",))
    broken = ('{"a', "[" * 100_000, '{"attacks": 3}', "3", '{"model": 1, "data": []}')
    (case.out / "experiment.json").write_text(broken[case.number // 2 % len(broken)])
    return Tried(case.run(), ("experiment.json", "another experiment"))


def stopped(case: Case, saves: int) -> Ran:
    """The command, interrupted when it has written so many checkpoints."""
    save, left = FileJournal.save, [saves]

    def counted(journal: FileJournal, snapshot: Callable[[], dict[str, object]]) -> None:
        save(journal, snapshot)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    FileJournal.save = counted  # type: ignore[method-assign]
    try:
        return case.run("--checkpoint-seconds", "0")
    finally:
        FileJournal.save = save  # type: ignore[method-assign]


for _command in ("black", "certify"):

    @fault("damaged checkpoint", "right", _command, few=2, name=f"damaged_checkpoint_{_command}")
    def _checkpoint(case: Case) -> Tried:
        stopped(case, case.random.randrange(1, 4))
        bitten(picked(case, "checkpoints/*.pt"), case.random)
        return Tried(case.run())


class Malice:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('ran', 'w').close()",)


def ran_no_code(case: Case, ran: Ran, *names: str, found: Facts | None = None) -> Tried:
    """What came of a file with code in it."""
    problem = "code in a pickle ran" if (case.folder / "ran").exists() else ""
    return Tried(ran, names, problem=problem, found=found)


@fault("pickle with code", "right", "black")
def code_in_a_checkpoint(case: Case) -> Tried:
    stopped(case, 2)
    picked(case, "checkpoints/*.pt").write_bytes(pickle.dumps(Malice()))
    return ran_no_code(case, case.run())


@fault("pickle with code", "refused", "train", finished=True)
def code_in_a_training_snapshot(case: Case) -> Tried:
    (case.out / "last.pt").write_bytes(pickle.dumps({"identity": "", "position": Malice()}))
    return ran_no_code(case, case.run(), "last.pt")


@fault("pickle with code", "refused", "evaluate")
def code_in_weights(case: Case) -> Tried:
    (case.folder / "weights.pt").write_bytes(pickle.dumps({"0.weight": Malice()}))
    return ran_no_code(case, case.run("--weights", "weights.pt"), "weights.pt")


@fault("damaged training", EITHER, "train", finished=True, few=3)
def damaged_training_snapshot(case: Case) -> Tried:
    bitten(case.out / "last.pt", case.random)
    return Tried(case.run(), ("last.pt",))


@fault("damaged training", "refused", "train", finished=True, few=2)
def damaged_weights(case: Case) -> Tried:
    """Of the card, and by themselves."""
    bitten(case.out / "best.safetensors", case.random)
    given = ("out/best.yaml",) if case.number % 2 else ("small_net:network", "--weights", "out/best.safetensors")
    words = ["evaluate", "--model", *given, "--data", "folder:data", "--split", "val", "--device", "cpu"]
    return Tried(case.run(words=[*words, "--out", "accuracy"]), ("best.safetensors", "small_net"))


@fault("damaged training", "right", "train", finished=True, few=2)
def damaged_log(case: Case) -> Tried:
    """Of a training that goes on or is finished."""
    bitten(picked(case, "*.csv"), case.random)
    return Tried(case.run())


@fault("damaged report", EITHER, "attack", finished=True, few=3)
def damaged_report(case: Case) -> Tried:
    """Read back by compare."""
    shutil.copytree(case.out, case.folder / "other")
    file = case.random.choice(("results.json", "per_image.csv", "SHA256SUMS"))
    if case.number % 3:
        bitten(case.out / file, case.random)
    else:
        (case.out / file).write_text(case.random.choice(("[" * 100_000, '{"a', "", "3")))
    whole = case.run(words=["compare", "other", "--labels", "one"])
    ran = case.run(words=["compare", OUT, "--labels", "one"])
    problem = "" if ran.status or ran.shown == whole.shown else "another table than before"
    return Tried(ran, (file, OUT), found=facts(case.folder / "other"), problem=problem)
