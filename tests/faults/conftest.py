"""How often each fault is tried, and the table of what came of it at the end."""

from __future__ import annotations

from collections import Counter

import pytest

from faults.frame import FAULTS, FINE, WRONG


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, metavar="N", help="tries of each injected fault (tests/faults)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "it" not in metafunc.fixturenames or "number" not in metafunc.fixturenames:
        return
    tries = metafunc.config.getoption("faults", default=None)
    mine = [fault for fault in FAULTS.values() if fault.module == metafunc.module.__name__]
    every = [(fault, number) for fault in mine for number in range(tries or fault.few)]
    metafunc.parametrize(("it", "number"), every, ids=[f"{fault.name}-{number}" for fault, number in every])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    told = [value for report in reports for name, value in report.user_properties if name == "fault"]
    counts = Counter(tuple(value.split("\t")) for value in told)
    if not counts:
        return
    outcomes = [outcome for outcome in (*FINE, *WRONG) if outcome in FINE[:3] or any(o == outcome for _, o in counts)]
    terminalreporter.write_sep("=", "injected faults")
    terminalreporter.write_line(f"{'kind':40}{'tries':>8}" + "".join(f"{outcome:>11}" for outcome in outcomes))
    for kind in (*sorted({kind for kind, _ in counts}), "all"):
        row = [sum(n for (k, o), n in counts.items() if kind in (k, "all") and o == outcome) for outcome in outcomes]
        terminalreporter.write_line(f"{kind:40}{sum(row):8}" + "".join(f"{n:11}" for n in row))
