"""The scripts behind the tables of defences: what they refuse, and numbers that follow in closed form."""

from __future__ import annotations

import csv
import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

import segradius as sr
from segradius.cli import main as segradius
from segradius.models.demo import demo
from segradius.radius import pixel_radius
from segradius.randomness import Randomness

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SCENES = "scenes:24x32"


@pytest.fixture
def defences(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("defences")


@pytest.fixture
def weakest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("radius_of_the_weakest")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the demo network: twice the same, and once with another number of steps and of images each."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps, limit in (("one", 2, 3), ("same", 2, 3), ("steps", 3, 3), ("images", 2, 2)):
        run = ["--model=demo", f"--data={SCENES}", "--attack=pgd,cr_pgd", "--eps=l2=0.5,1.5", "--figures=0"]
        assert segradius(["attack", *run, f"--steps={steps}", f"--limit={limit}", f"--out={folder / name}"]) == 0
    return folder


def test_a_network_is_level_with_itself_and_figures_are_those_of_the_run(
    defences: ModuleType, runs: Path, tmp_path: Path
):
    assert defences.main([str(runs / "one"), str(runs / "same"), "--labels=A,B", f"--out={tmp_path}"]) == 0
    differences = (tmp_path / "table.md").read_text().split("Paired")[1]
    assert differences.count("+0.0 [+0.0, +0.0] | 1 |") == 3  # clean and two budgets
    with (tmp_path / "defences.csv").open(newline="") as lines:
        found = [float(line["pixacc"]) for line in csv.DictReader(lines) if line["network"] == "B"]
    rows = json.loads((runs / "same" / "results.json").read_text())["rows"]
    assert found == [row["pixacc"]["value"] for row in rows]
    assert (tmp_path / "defences.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("other", "named"), [("steps", "steps of pgd (l2, ε = 0.5)"), ("images", "image val-00002")])
def test_unlike_runs_are_refused_by_name(
    defences: ModuleType, runs: Path, other: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        defences.main([str(runs / "one"), str(runs / other), f"--out={tmp_path / 'out'}"])
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_worst_of_an_image_is_its_least_accuracy(defences: ModuleType, runs: Path):
    network = defences.read(runs / "one", "A")
    each = [network.each_image(name, "l2", 1.5) for name in ("pgd", "cr_pgd")]
    worst = network.each_image("worst", "l2", 1.5)
    assert worst == [min(pair) for pair in zip(*each, strict=True)]
    assert len(worst) == 3


def test_names_of_points_that_coincide_do_not_overlap(defences: ModuleType):
    figure = Figure(figsize=(5, 4))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for _ in range(4):
        axis.errorbar(0.5, 0.5, 0.1, 0.1)
    defences._name_points(axis, ["one network", "another", "a third", "a fourth"])
    boxes = [text.get_window_extent() for text in axis.texts if isinstance(text, Annotation)]
    assert len(boxes) == 4
    assert all(not a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_a_network_does_not_change_against_itself(weakest: ModuleType, tmp_path: Path):
    given = ["--before=demo", "--after=demo", f"--data={SCENES}", "--limit=2", "--samples=2"]
    assert weakest.main([*given, f"--out={tmp_path / 'new' / 'out.json'}"]) == 0
    changes = json.loads((tmp_path / "new" / "out.json").read_text())["changes"]
    assert len(changes) == 8
    for each in changes:
        assert each["difference"] == [0, 0, 0]
        assert each["percent"] in ([0, 0, 0], None)
        assert each["means_in_pixel_units"] == pytest.approx([0.001 * mean for mean in each["means"]])


def test_the_radius_is_that_of_the_library(weakest: ModuleType):
    sample = sr.open_data(SCENES, limit=1)[0]
    found = weakest.radii(demo(), sample, weakest.Noise(0.1, 3, 7), 255)
    known = sample.label != 255
    theirs = pixel_radius(demo(), sample.image[None], Randomness(7, (sample.id,)), sigma=0.1, samples=3)
    torch.testing.assert_close(found[0], theirs.normalised[0, known].double(), atol=1e-6, rtol=1e-6)
    right = theirs.prediction[0, known] == sample.label[known]
    assert torch.equal(found[1] > 0, right)


def test_the_change_of_chosen_pixels_in_closed_form(weakest: ModuleType):
    """Two images of four pixels; the weakest half of before is (1, 2) and becomes (3, 5): +166.7 % of 1.5."""
    before = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, 1.0, 1.0, 1.0], [0.6, 0.7, 0.8, 0.9]]).double()
    after = torch.tensor([[3.0, 5.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [0.8, 0.9, 0.6, 0.7]]).double()
    images = [weakest.sums([before, after], 0.5)] * 2
    found = {(each.kind, each.pixels): each for each in weakest.changes(images, ("before", "after"))}
    first = found["radius", "weakest of before"]
    assert first.means == (1.5, 4.0)
    assert first.percent == pytest.approx((500 / 3,) * 3)
    assert first.right == (0.5, 1.0)
    assert found["radius", "weakest of after"].means == (3.5, 1.0)
    assert found["radius", "weakest of each"].means == (1.5, 1.0)
    assert found["radius", "all"].means == (2.5, 2.5)
    assert found["signed", "weakest of after"].means == (1.0, -1.0)
    assert math.isnan(found["signed", "weakest of before"].percent[0])  # of a mean of zero


def test_only_the_choice_of_each_network_is_free_of_regression_to_the_mean(weakest: ModuleType):
    """Two unrelated networks with radii of one distribution: the weakest of either seem strong under the other."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(2, 1, 500, generator=generator).double().expand(2, 3, 500) for _ in range(20)]
    images = [weakest.sums([first, second], 0.2) for first, second in draws]
    found = {each.pixels: each for each in weakest.changes(images, ("before", "after")) if each.kind == "radius"}
    assert found["weakest of before"].means == pytest.approx((0.1, 0.5), abs=0.03)
    assert found["weakest of after"].means == pytest.approx((0.5, 0.1), abs=0.03)
    _, low, high = found["weakest of each"].difference
    assert low <= 0 <= high
