"""`segradius list` names everything that is registered."""

from __future__ import annotations

import importlib

import pytest

from segradius.cli import main

REGISTRIES = {
    "attacks": "segradius.attacks:ATTACKS",
    "losses": "segradius.objectives.losses:LOSSES",
    "weightings": "segradius.objectives.weightings:WEIGHTINGS",
    "models": "segradius.models:MODELS",
    "sources": "segradius.models:SOURCES",
    "targets": "segradius.targets:TARGETS",
    "data": "segradius.data:DATA",
    "protocols": "segradius.data:PROTOCOLS",
    "defences": "segradius.training:ADVERSARIES",
    "corrections": "segradius.certification:CORRECTIONS",
    "fills": "segradius.certification:FILLS",
}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_is_listed_with_its_summary(kind: str, capsys: pytest.CaptureFixture[str]):
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    module, _, name = REGISTRIES[kind].partition(":")
    registry = getattr(importlib.import_module(module), name)
    assert len(registry) > 0
    for entry in registry:
        assert entry in shown
        assert " ".join(registry.summary(entry).replace("``", "").split()[:4]) in shown


def test_an_option_that_most_attacks_take_is_named_once_and_those_without_it_say_so(capsys: pytest.CaptureFixture[str]):
    assert main(["list", "attacks"]) == 0
    white, _, black = capsys.readouterr().out.partition("Black-box attacks")
    lines = {line.split()[0]: line for line in white.splitlines() if line.strip()}
    assert "alpha, keep, patch, place, restarts, start, steps" in lines["All"]
    assert "steps" not in lines["pgd"]
    assert lines["apgd"].rstrip().endswith("Options: loss, weighting. Without alpha.")
    assert "marks, memory, queries" in black


def test_models_and_targets_name_every_source_by_example(capsys: pytest.CaptureFixture[str]):
    from segradius.models import SOURCES
    from segradius.targets import TARGETS

    for kind, registry in (("models", SOURCES), ("targets", TARGETS)):
        assert main(["list", kind]) == 0
        shown = capsys.readouterr().out
        assert all(registry.facts(name)["example"] in shown for name in registry)
        assert "pip install 'segradius[" in shown


def test_an_unknown_kind_is_refused_with_the_kinds_there_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["list", "atacks"])
    assert stop.value.code == 2
    assert "attacks" in capsys.readouterr().err


def test_what_an_option_may_be_is_listed_in_the_words_of_its_declaration(capsys: pytest.CaptureFixture[str]):
    from segradius.attacks import ATTACKS, BLACK_BOX, attack_options
    from segradius.core.declared import expected

    assert main(["list", "attacks"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for name in (*ATTACKS, *BLACK_BOX):
        for option, parameter in attack_options(name).items():
            assert any(expected(parameter.annotation) in line for line in lines), (name, option)
    assert any(line.startswith("sparse") and "a number in (0, 1], with norm=l1" in line for line in lines)


def test_a_text_that_names_something_says_where_the_names_are_and_no_python_type_is_shown(
    capsys: pytest.CaptureFixture[str],
):
    from segradius.attacks import ATTACKS, BLACK_BOX, attack_options
    from segradius.core.declared import expected

    where = {
        "loss": "segradius list losses",
        "weighting": "segradius list weightings",
        "directions": "docs/estimators.md",
    }
    taken = [option for name in (*ATTACKS, *BLACK_BOX) for option in attack_options(name).items()]
    bare = {name for name, parameter in taken if expected(parameter.annotation) == "a text"}
    assert not bare
    for name, parameter in taken:
        if name in where and expected(parameter.annotation) != "dlr or margin":
            assert expected(parameter.annotation) == f"a text (see {where[name]})"
    assert main(["list", "attacks"]) == 0
    shown = capsys.readouterr().out
    assert "a whole number in [1, 1e8] or Rounds(count) from Python; default" in shown
    for kind in ("losses", "weightings"):
        assert main(["list", kind]) == 0
