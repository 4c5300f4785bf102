"""Section 5.2.2's running time, with a clock that counts passes: what is then known exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.models.demo import demo
from segradius.paper.computed import running_time
from segradius.paper.computed.subject import Subject, compute, expected_passes


def test_on_a_clock_that_counts_passes_the_ratio_is_that_of_the_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """INT = M = 8 over T = 16 steps: 16 + 1 passes of PGD, 16 + 16 + 1 of CR-PGD."""
    asked, logits = [0], sr.Segmenter.logits

    def counted(self: sr.Segmenter, x: torch.Tensor, **p: torch.dtype | None) -> torch.Tensor:
        asked[0] += len(x)
        return logits(self, x, **p)

    monkeypatch.setattr(sr.Segmenter, "logits", counted)
    monkeypatch.setattr(running_time, "clock_of", lambda device: lambda: asked[0])
    images = sr.open_data("scenes:16x24", limit=5)
    on = Subject("tiny-0", "tiny", "plain", 0, "scenes", images, demo)
    options = {"steps": 16, "repeats": 2}
    found = compute("running_time", [on], tmp_path, options)
    pgd, guided = found["rows"]
    assert (pgd["attack"], pgd["passes"]) == ("PGD", {"forward": 17, "backward": 16, "radius": 0})
    assert (guided["attack"], guided["passes"]) == ("CR-PGD", {"forward": 33, "backward": 16, "radius": 16})
    assert pgd["each"] == [17] * 5
    assert guided["ratio"] == pytest.approx({"value": 33 / 17, "low": 33 / 17, "high": 33 / 17, "n": 5})
    assert guided["overhead"]["value"] == pytest.approx(16 / 17)
    assert pgd["overhead"]["value"] == 0
    assert [found["passes"][0][name] for name in ("forward", "both", "noisy")] == [1, 1, 1]
    assert guided["expected"] == pytest.approx(33 / 17)  # on that clock a backward pass takes no time
    assert asked[0] + (5 * 2 + 1) * (16 + 16 + 1) == expected_passes("running_time", [on], options)
    assert compute("running_time", [on], tmp_path, options) == found


def test_repeats_take_turns_and_the_least_counts():
    now, order = [0.0], []
    costs = {"a": iter([5.0, 2.0, 3.0]), "b": iter([1.0, 7.0, 4.0])}

    def run(label: str) -> None:
        order.append(label)
        now[0] += next(costs[label])

    runs = {label: (lambda label=label: run(label)) for label in costs}
    assert running_time._least(runs, lambda: now[0], 3) == {"a": 2.0, "b": 1.0}
    assert order == ["a", "b", "b", "a", "a", "b"]
