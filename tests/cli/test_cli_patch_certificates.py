"""`segradius certify --patch` end to end: the library's numbers, attacks that contradict nothing, an exact ledger."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from served import IDS, LOCAL, loaded, place

import segradius as sr
from segradius.certification import FILLS, Looks, covering, look, looks_needed
from segradius.cli import main
from segradius.cli.certify_patch import PatchOptions, read_masks
from segradius.core.errors import InputError
from segradius.data import open_data

__all__ = ["place"]

MODEL = ["--model", "small_net:network", "--num-classes", "3"]
PATCH = ["--patch", "0.05", "--masks", "2x3", "--device", "cpu"]  # 2 × 2 of 8 × 10 pixels


def certify(out: str, *words: str, of: list[str] = MODEL) -> int:
    shown = [] if "--figures" in words else ["--figures", "0"]
    return main(["certify", "--data", "folder:data", *of, *PATCH, *words, *shown, "--out", out])


def report(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def rows(folder: str) -> dict[str, dict]:
    return {row["name"]: row for row in report(folder)["rows"]}


def library(folder: Path, double: bool = True) -> dict[str, Looks]:
    """Looks at every image, by the library's functions alone."""
    model, data = sr.wrap(loaded(folder), num_classes=3), open_data("folder:data")
    masks = covering(2, 8, 10, 2, 3)
    with model.frozen():
        return {
            data.ids[i]: look(model.top_class, data[i].image, 3, masks, FILLS["pyramid"], double=double)
            for i in range(len(data))
        }


def test_the_report_says_what_the_library_says(place, capsys):
    assert certify("out", "--figures", "1") == 0
    looks, data = library(place), open_data("folder:data")
    counts = dict.fromkeys(("base", "defended", "detection", "recovery", "alarms"), 0)
    for i, image in enumerate(data.ids):
        found, label = looks[image], data[i].label
        with np.load(f"out/certificates/{image}.npz") as kept:
            assert (kept["detection.class"] == np.where(found.detected, found.plain, -1)).all()
            assert (kept["recovery.class"] == np.where(found.recovered, found.answer, -1)).all()
            assert (kept["defended.class"] == found.answer.numpy()).all()
        right = {"base": found.plain == label, "defended": found.answer == label}
        right |= {"detection": right["base"] & found.detected, "recovery": right["defended"] & found.recovered}
        for name, each in (right | {"alarms": found.alarm}).items():
            counts[name] += int((each & (label != 255)).sum())
    got = rows("out")
    assert list(got) == ["base", "recovery", "detection", "defended"]
    for name in got:
        assert got[name]["pixacc"]["value"] == counts[name] / (3 * 78)
    assert got["detection"]["abstained"]["value"] == counts["alarms"] / (3 * 78)
    assert 0 < got["recovery"]["pixacc"]["value"] < got["detection"]["pixacc"]["value"] < 1
    told = report("out")
    assert told["experiment"]["masks"] == {"patch": 0.05, "masks": [2, 3], "fill": "pyramid", "recovery": True}
    assert told["ledger"]["certification"] == {"forward": 3 * looks_needed(6), "backward": 0}
    assert not Path("out/radius.png").exists()
    assert Path("out/figure.png").exists()
    shown = " ".join(capsys.readouterr().out.split())
    assert "those under the square too, the class that double masking gives" in shown
    lines = list(csv.DictReader(Path("out/per_image.csv").read_text().splitlines()))
    assert {(line["copies"], line["forward"], line["mean_radius"]) for line in lines} == {("0", "22", "")}


def test_detection_alone_takes_a_pass_for_each_mask(place):
    assert certify("out", "--detection-only", "--fill", "grey") == 0
    assert list(rows("out")) == ["base", "detection"]
    assert report("out")["ledger"]["certification"]["forward"] == 3 * 6


@pytest.mark.parametrize("words", [[], ["--detection-only"]])
def test_attacks_contradict_nothing_and_may_be_added(place, capsys, words):
    assert certify("out", "--limit", "2", *words) == 0
    before = {file.name: file.stat().st_mtime_ns for file in Path("out/certificates").iterdir()}
    assert certify("out", "--limit", "2", *words, "--attack", "flips", "--steps", "3") == 0
    assert before.keys() == {file.name for file in Path("out/certificates").iterdir()}
    told = report("out")
    kinds = ("detection",) if words else ("detection", "recovery")
    assert [(each["attack"], each["at"]) for each in told["attacked"]] == [
        (f"flips on the {seen}", kind) for seen in ("model", "masked views") for kind in kinds
    ]
    got = rows("out")
    for each in told["attacked"]:
        assert (each["lost"], each["contradicted"], each["images"]) == (0, 0, 2)
        assert each["promised"] == pytest.approx(got[each["at"]]["pixacc"]["value"])
        assert each["promised"] <= each["left"]
    assert told["ledger"]["certification"]["forward"] == 2 * looks_needed(6, double=not words)
    # The search takes 97 passes, the attack 4 and, on each of 6 masks, 4 more; judging twice all looks.
    looks = 2 * (1 + looks_needed(6, double=not words))
    assert told["ledger"]["crosscheck"]["forward"] == 2 * (97 + 4 + 6 * 4 + looks)
    assert "REFUTED" not in capsys.readouterr().out


def test_a_target_that_gives_scores_alone_is_certified_as_the_network_and_not_attacked(place, capsys):
    assert certify("network") == 0
    assert certify("target", of=LOCAL) == 0
    assert rows("network")["recovery"]["pixacc"] == rows("target")["recovery"]["pixacc"]
    for image in IDS:
        with np.load(f"network/certificates/{image}.npz") as one, np.load(f"target/certificates/{image}.npz") as two:
            assert (one["detection.class"] == two["detection.class"]).all()
    assert certify("attacked", "--attack", "flips", of=LOCAL) == 2
    assert "needs gradients" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--patch", "0.05", "--sigma", "0.1"], "sigma is for certificates by noise, and --patch draws none"),
        (["--patch", "0.05", "--lipschitz", "1"], "lipschitz and patch are two ways of certifying"),
        (["--masks", "3"], "masks is for --patch, which was not given"),
        (["--detection-only"], "detection-only is for --patch, which was not given"),
        (["--lipschitz", "1", "--fill", "grey"], "fill is for --patch, which was not given"),
        (["--patch", "0.05", "--masks", "3x0"], "masks '3x0'; expected rows x columns"),
        (["--patch", "0.05", "--masks", "65"], "expected a list of 2: a whole number in [1, 64]"),
        (["--patch", "0.05", "--fill", "gray"], "unknown fill 'gray'; did you mean 'grey'"),
        (["--patch", "0"], "patch is 0; expected a number in (0, 1]"),
        (["--patch", "0.005"], "a square of side 0 in an image of 8 × 10"),
        (["--patch", "0.05", "--attack", "flips", "--samples", "3"], "samples is for attacks on certificates by noise"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(place, capsys, words, told):
    given = ["--data", "folder:data", *MODEL, "--device", "cpu", "--out", "out"]
    assert main(["certify", *given, *words]) == 2
    assert told in capsys.readouterr().err


def test_masks_are_two_numbers_or_one():
    assert (read_masks("4x6"), read_masks("5"), read_masks(5)) == ((4, 6), (5, 5), (5, 5))
    with pytest.raises(InputError, match="expected rows x columns"):
        read_masks("many")
    assert PatchOptions().way() is None


def test_an_answer_that_is_not_finite_leaves_the_image_without_certificate(place):
    Path("nan_net.py").write_text(
        "import torch\nfrom small_net import network as net\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = net()\n\n"
        "    def forward(self, x):\n        z = self.net(x)\n"
        "        return torch.where((x == 0.5).any(), torch.nan, z)\n\n\ndef network():\n    return Net()\n"
    )
    assert certify("out", "--fill", "grey", of=["--model", "nan_net:network", "--num-classes", "3"]) != 0
