"""The grammars of the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.cli import COMMANDS, build_parser
from segradius.cli.parser import gather
from segradius.core.errors import InputError
from segradius.core.text import options, size, value_of
from segradius.threats.budgets import budgets

norms = st.sampled_from(["l1", "l2", "linf"])
positive = st.floats(1e-6, 1e3)


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(norms, st.lists(positive, min_size=1, max_size=3, unique=True), min_size=1))
def test_budgets_written_out_are_read_back(table: dict[str, list[float]]):
    text = ",".join(f"{norm}={','.join(map(repr, values))}" for norm, values in table.items())
    expected = [(norm, value) for norm, values in table.items() for value in values]
    assert budgets(None, text) == expected
    assert budgets(list(table), table) == expected


def test_the_papers_budgets_are_the_default():
    assert budgets("l1,l2,linf", None) == [("l1", 750), ("l2", 1.5), ("linf", 0.006)]
    assert budgets(None, None) == [("l2", 1.5)]


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("l2,linf", "1.5", "with the norms l2,linf say which eps is whose"),
        ("l2", "linf=0.1", "eps is given for linf, but norm is l2"),
        ("l3", None, "unknown norm 'l3'"),
        (None, "l22=1", "unknown norm 'l22'; did you mean 'l2'"),
        (None, "0", "eps '0' is not above zero"),
        (None, "-1.5", "eps '-1.5' is not above zero"),
        (None, "nan", "'nan'"),
        (None, "l2=1.5,much", "eps 'much' is not a number"),
    ],
)
def test_budgets_that_cannot_be_meant_are_refused_by_name(norm, eps, message):
    with pytest.raises(InputError, match=message):
        budgets(norm, eps)


def test_option_values_are_numbers_lists_or_words():
    found = options("a=2,b=-4.5,loss=js,members=[pgd, dag],tau=1/4,c=1e-3,d=true,e=null,f=a/b")
    assert found == {
        "a": 2, "b": -4.5, "loss": "js", "members": ["pgd", "dag"], "tau": 0.25, "c": 0.001, "d": True, "e": None,
        "f": "a/b",
    }  # fmt: skip


def test_an_option_can_be_for_one_attack():
    assert options("tau=2,sea.steps=100,cr_pgd.samples=0") == {"tau": 2, "sea.steps": 100, "cr_pgd.samples": 0}


def test_an_option_without_a_name_is_refused():
    with pytest.raises(InputError, match="option 'js' has no name"):
        options("js")


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 9999), st.integers(1, 9999))
def test_sizes_are_height_times_width(height: int, width: int):
    assert size(f"{height}x{width}") == (height, width)


@pytest.mark.parametrize("text", ["240", "240x", "0x10", "-1x3", "a x b"])
def test_other_sizes_are_refused(text: str):
    with pytest.raises(InputError, match="expected height x width"):
        size(text)


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_is_read_back(value: float):
    assert value_of(repr(value)) == value


def test_repeated_options_are_gathered_and_others_left_alone():
    words = ["attack", "--eps", "l2=1", "--seed", "1", "--eps=linf=0.1", "--norm", "l2"]
    assert gather(words) == ["attack", "--eps", "l2=1,linf=0.1", "--seed", "1", "--norm", "l2"]


def test_a_config_file_gives_options_and_the_command_line_overrides_them(tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text("model: demo\ndata: scenes\nattack: [pgd, dag]\neps: {l2: [1, 2]}\nbatch_size: 3\n")
    given = build_parser().parse_args(["attack", "--config", str(file), "--batch-size", "4"]).attack
    assert (given.attack, given.eps) == (["pgd", "dag"], {"l2": [1, 2]})
    assert given.batch_size == "4"  # numbers of the command line are read, with fractions, where it is called


def test_an_unknown_key_in_a_config_file_is_refused_by_name(tmp_path, capsys):
    file = tmp_path / "experiment.yaml"
    file.write_text("model: demo\ndata: scenes\nsteeps: 3\n")
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(["attack", "--config", str(file)])
    assert stop.value.code == 2
    assert "steeps" in capsys.readouterr().err


def test_help_is_quick_because_torch_is_not_imported():
    program = "import sys; from segradius.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "matplotlib"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=lambda words: "".join(words) or "none")
def test_help_and_refusals_are_the_same_where_options_of_other_commands_wait(words, capsys):
    told = []
    for parser in (build_parser(), build_parser(words)):
        for more in ("--help", "--no-such-option"):
            with pytest.raises(SystemExit):
                parser.parse_args([*words, more])
        told.append(capsys.readouterr())
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["evaluate", "--speed", "exact"],
            "; --speed is an option of assess, attack, certify, paper, run, train; see segradius evaluate",
        ),
        (["attack", "--sped", "exact"], "; did you mean --speed?; see segradius attack"),
        (["verify", "--folder", "x"], "unrecognized arguments: --folder; see segradius verify"),  # is one by its place
    ],
)
def test_an_option_of_other_commands_is_said_to_be_theirs_and_one_that_is_near_is_named(words, told, capsys):
    with pytest.raises(SystemExit):
        build_parser(words).parse_args(words)
    assert told in capsys.readouterr().err


def test_help_tells_every_option_of_attack(capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(["attack", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--num-classes", "--batch-size", "--eps", "--overwrite", "segradius attack --model demo"):
        assert option in text


def test_a_list_that_begins_with_a_negative_number_is_a_value():
    given = build_parser().parse_args(["init", "d", "--range", "-200,300", "--yes"])
    assert (given.init.range, given.init.yes) == ("-200,300", True)
