"""`segradius demo` shows a weaker network and says where the picture is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segradius.cli import main


def test_the_demo_leaves_a_table_and_a_picture_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    assert main(["demo", "--limit", "2", "--steps", "3"]) == 0
    assert torch.get_num_threads() == threads
    folder = tmp_path / "segradius-demo"
    clean, pgd, guided, _ = json.loads((folder / "results.json").read_text())["rows"]
    assert (pgd["name"], guided["name"], pgd["norm"], pgd["images"]) == ("pgd", "cr_pgd", "l2", 2)
    assert max(pgd["pixacc"]["value"], guided["pixacc"]["value"]) < clean["pixacc"]["value"] - 0.1
    assert max(pgd["sanity"]["length_over_eps"], guided["sanity"]["length_over_eps"]) <= 1 + 1e-5
    assert (folder / "figure.png").stat().st_size > 10_000
    assert str(Path("segradius-demo", "figure.png")) in capsys.readouterr().out
