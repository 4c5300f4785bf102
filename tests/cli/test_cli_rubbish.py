"""Every flag of every command is fed rubbish: one line and exit status 2, or a value that the flag declares."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segradius.cli import COMMANDS, build_parser, main
from segradius.cli.parser import flat_kinds
from segradius.core import text
from segradius.core.declared import fits, takes_number

NETWORK = {"model": "rubbish_net:network", "num_classes": "8"}
BASE = {
    "attack": {**NETWORK, "data": "scenes:16x16,1", "attack": "cr_pgd"},
    "certify": {**NETWORK, "data": "scenes:16x16,1", "n": "200"},
    "evaluate": {**NETWORK, "data": "scenes:16x16,1"},
    "train": {**NETWORK, "data": "scenes:16x16,4", "crop": "16x16", "out": "trained"},
    "demo": {},
    "export": {**NETWORK, "size": "16x16", "out": "model.onnx"},
}
#: Options that name a file or folder to be written, or that take any text and are looked at in the run.
ANY_TEXT = {"out", "aim", "labels", "device"}
#: What must stand beside a flag for it to mean something.
BESIDE = {
    "k": {"correction": "kfwer"}, "gap": {"hierarchy": "groups.yaml"}, "ohem_keep": {"ohem": "0.7"},
    "mix": {"adversary": "fast_adt"}, "steps": {"attack": "pgd"}, "samples": {"attack": "cr_pgd"},
    "share": {"attack": "pgd"}, "check_copies": {"attack": "pgd"}, "queries": {"attack": "local_pbgd"},
    "judge_every": {"attack": "local_pbgd"}, "gamma": {"attack": "local_pbgd"},
}  # fmt: skip
FEW = ["nonsense", "", "nan", "inf", "0", "-1", "2.5", "1000000000000"]
STRANGE = ["  ", "-inf", "1", "1e300", "1e-300", "[1,2]", "non[sense", "true", "1:30", "0x10", "cr(a=1)", 5000 * "9"]
#: All rubbish for all flags, which takes some minutes: SEGRADIUS_LARGE=1 pytest -s tests/cli/test_cli_rubbish.py
LARGE = bool(os.environ.get("SEGRADIUS_LARGE"))


class ReachedError(Exception):
    """The command took its options and would begin."""


def reached(*_: Any, **__: Any) -> None:
    raise ReachedError


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands stop where their work begins."""
    ready = build_parser()
    monkeypatch.setattr("segradius.cli.commands.build_parser", lambda words: ready)
    for place in ("segradius.cli.run_folder.carry_out", "segradius.training.fit", "segradius.models.export_onnx"):
        monkeypatch.setattr(place, reached)
    monkeypatch.chdir(tmp_path)
    Path("groups.yaml").write_text("first: [sky, road]\n")
    Path("rubbish_net.py").write_text("import torch\n\n\ndef network():\n    return torch.nn.Conv2d(3, 8, 1)\n")


def outcome(command: str, name: str, value: str, error: Callable[[], str]) -> str:
    """What a flag does with a text."""
    given = BASE[command] | (BESIDE.get(name, {}) if command in ("attack", "certify", "train") else {}) | {name: value}
    if name in ("budget", "answers", "input"):
        given["target"] = given.pop("model")
    if command == "attack" and name == "budget":
        given["attack"] = "local_pbgd"
    words = [f"--{option.replace('_', '-')}={each}" for option, each in given.items()]
    try:
        status = main([command, *words])
    except ReachedError:
        return "accepted"
    except SystemExit as stop:
        status = stop.code
    except BaseException as fault:
        return f"traceback {type(fault).__name__}: {fault}"
    told = error().splitlines()
    lines = [line for line in told if line.startswith("segradius: error: ")]
    return "refused" if status == 2 and len(lines) == 1 and told[-1:] == lines else f"status {status}: {told}"[:300]


@pytest.mark.parametrize("command", BASE)
def test_a_flag_takes_what_it_declares_and_refuses_the_rest(
    command: str, stopped: None, capsys: pytest.CaptureFixture[str], record_property: Callable[..., None]
):
    found: Counter[str] = Counter()
    wrong = []
    kinds = flat_kinds(COMMANDS[command])
    for name, kind in kinds.items():
        number = takes_number(kind) and str not in getattr(kind, "__args__", ())
        for value in FEW + STRANGE if LARGE else FEW if number else FEW[:2]:
            if kind is bool or (name in ANY_TEXT and value.strip()):
                continue
            capsys.readouterr()
            came = outcome(command, name, value, lambda: capsys.readouterr().err)
            silent = came == "accepted" and (not value.strip() or (number and not fits(kind, text.value_of(value))))
            found["silent" if silent else came.split()[0]] += 1
            if silent or came not in ("accepted", "refused"):
                wrong.append(f"--{name} {value[:30]!r}: {'silent' if silent else came}")
    counts = f"{command}: {len(kinds)} flags, {found.total()} tries: {dict(found)}"
    record_property("flags", counts)
    with capsys.disabled():
        print(f"\n{counts}")
    assert wrong == []
    assert found["refused"] > 0


def test_a_range_is_told_by_help_as_by_the_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["certify", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "(a number in [0.5, 1))" in told
    assert main(["certify", "--model", "demo", "--data", "scenes", "--tau", "0.4"]) == 2
    assert capsys.readouterr().err == "segradius: error: tau is 0.4; expected a number in [0.5, 1)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["attack", "--options", "steps=3", "--steps", "4"], "steps is 3; expected it once"),
        (["attack", "--options", "tau=1,tau=2"], "option 'tau' is given twice"),
        (
            ["attack", "--norm", "l1,l2", "--options", "sparse=0.2"],
            "does nothing in pgd: it is for norm=l1",
        ),
        (["attack", "--attack", "pbgd,cr_local_pbgd", "--options", "memory=0.5"], "does nothing in pbgd"),
        (
            ["train", "--optimiser", "adamw", "--momentum", "0.5"],
            "does nothing here: it is for optimiser=sgd",
        ),
        (
            ["train", "--adversary", "gaussian", "--eps", "0.1"],
            "does nothing here: gaussian attacks no image",
        ),
        (["train", "--adversary", "gaussian", "--norm", "l2"], "norm is l2, which does nothing here"),
        (["train", "--adversary", "gaussian", "--options", "sigma=x"], "sigma is 'x'; expected a number in [0, 1e3]"),
        (["train", "--adversary", "gaussian", "--options", "sigmo=1"], "did you mean 'sigma'"),
        (["train", "--adversary", "pgd_at", "--options", "steps=0"], "steps is 0; expected a whole number"),
        (["train", "--adversary", "fast_adt", "--options", "alpha=-1"], "alpha is -1; expected a number in"),
        (["train", "--schedule-options", "power=x"], "power is 'x'; expected a number"),
        (["train", "--scale", "0.5"], "scale is '0.5'"),
        (["train", "--scale", "nan,2"], "scale"),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    words: list[str], message: str, stopped: None, capsys: pytest.CaptureFixture[str]
):
    base = BASE[words[0]] | {"attack": "pgd"} if words[0] == "attack" else BASE[words[0]]
    flags = {f"--{name.replace('_', '-')}": value for name, value in base.items()}
    given = [word for flag, value in flags.items() if flag not in words for word in (flag, value)]
    assert main([words[0], *given, *words[1:]]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("segradius: error: ")
    assert message in last
