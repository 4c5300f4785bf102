"""The page of ``segradius report`` without a browser: its figures are those of the runs, and nothing in it can run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from report import pages
from segradius.cli import main as segradius
from segradius.evaluation.folders import RunFolder, run_folders
from segradius.report.plots import budget_plots, query_plots, sandwich
from segradius.report.story import Story, read_story
from segradius.report.subject import Subject, attack_command, certify_command, sentences, subjects
from segradius.report.webpage import webpage


class Read(HTMLParser):
    """Scripts of a page, its tables, and what it names elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.elsewhere: list[str | None] = []
        self.policy = ""
        self.cells: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, given: list[tuple[str, str | None]]) -> None:
        attributes = dict(given)
        self._inside = tag
        self.elsewhere += [value for name, value in given if name in ("src", "href", "action", "data", "srcset")]
        if tag == "script":
            self.scripts.append((attributes, ""))
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))
        elif self._inside == "bdi":
            self.cells.append(data)


def told(*folders: Path) -> list[Story]:
    return [read_story(run) for run in run_folders(folders)]


def one(*folders: Path) -> Subject:
    (found,) = subjects(told(*folders))
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("runs")
    return pages.attacked(place / "first"), pages.certified(place / "certified")


def traces(figure: Any, **meta: str) -> list[dict[str, Any]]:
    return [each for each in figure["data"] if all(each["meta"].get(name) == value for name, value in meta.items())]


def test_points_and_bands_are_the_figures_of_results_json(runs: tuple[Path, Path]):
    rows = json.loads((runs[0] / "results.json").read_text())["rows"]
    l2, linf = budget_plots(one(*runs))
    for plot, mine in ((l2, rows[1:3]), (linf, rows[3:])):
        for choice, name in (("PixAcc", "pixacc"), ("MIoU", "miou")):
            low, high, line = plot.choices[choice]["data"]
            shares = [rows[0][name], *(row[name] for row in mine)]
            assert line["x"] == [0.0, *(row["eps"] for row in mine)]  # nothing before, between or beyond
            assert line["y"] == [100 * each["value"] for each in shares]
            assert low["y"] == [100 * each["low"] for each in shares]
            assert high["y"] == [100 * each["high"] for each in shares]
            assert low["x"] == high["x"] == line["x"]


def test_the_strongest_attack_bounds_larger_balls_and_a_certificate_smaller_ones(runs: tuple[Path, Path]):
    plot = sandwich(one(*runs))
    assert plot is not None
    figure = plot.choices["whole range"]
    above = traces(figure, side="above")[-1]
    assert above["line"]["shape"] == "hv"
    assert above["x"] == [0.0, 0.5, 1.5]
    common, own = traces(figure, side="below")
    assert (common["x"], common["y"]) == ([0.0, 0.17], [60.0, 60.0])
    answer = json.loads((runs[1] / "results.json").read_text())["rows"][3]["curve"]
    for left, right, value in zip(own["x"][::2], own["x"][1::2], own["y"][::2], strict=True):
        assert value == 100 * answer["accuracy"][answer["edges"].index(right)]  # what is certified at the far end
        assert answer["edges"].index(right) == answer["edges"].index(left) + 1
    assert "smoothed network" in plot.note


def test_networks_of_a_study_are_called_by_its_labels(tmp_path: Path):
    stories = [
        read_story(RunFolder(f"{label}-s0", pages.attacked(tmp_path / label), "attack", label))
        for label in ("plain", "hard")
    ]
    spec = stories[0].experiment["model"]["spec"]
    stories[1].experiment["model"]["fingerprint"] = "other"
    assert [each.model for each in subjects(stories)] == [f"plain ({spec})", f"hard ({spec})"]
    assert f"How robust is plain ({spec}) and hard ({spec})?" in webpage(stories)
    own = replace(stories[0], run=replace(stories[0].run, model=spec))
    assert [each.model for each in subjects([own])] == [spec]


def test_a_command_that_is_proposed_is_about_the_same_network(tmp_path: Path):
    (story,) = told(pages.attacked(tmp_path / "first"))
    model = {"outputs": "probabilities", "normalisation": "none", "dtype": "bfloat16", "channels": [2, 0]}
    story.experiment["model"].update(model)
    story.experiment["data"].update(protocol="paper-voc")
    (subject,) = subjects([story])
    for command in (attack_command(subject), certify_command(subject)):
        assert "--normalisation none --outputs probabilities --channels 2,0 --dtype bfloat16" in command
        assert "--protocol paper-voc" in command


def test_one_side_alone_is_said_to_be_alone(runs: tuple[Path, Path]):
    lower, upper = sandwich(one(runs[1])), sandwich(one(runs[0]))
    assert lower is not None
    assert upper is not None
    assert "no attack in l2" in lower.note
    assert "nothing was certified" in upper.note


def test_a_weaker_attack_at_a_larger_budget_is_not_the_strongest(tmp_path: Path):
    folder = pages.attacked(tmp_path, plans=[("strong", "l2", 0.5), ("weak", "l2", 1.5)])
    report = json.loads((folder / "results.json").read_text())
    report["rows"][1]["pixacc"]["value"] = 0.01
    (folder / "SHA256SUMS").unlink()
    (folder / "results.json").write_text(json.dumps(report))
    subject = one(folder)
    assert "leaves 1.0 %" in sentences(subject)[1]
    plot = sandwich(subject)
    assert plot is not None
    assert traces(plot.choices[""], side="above")[-1]["y"] == [90.0, 1.0, 1.0]


def test_every_figure_is_one_that_plotly_takes(runs: tuple[Path, Path]):
    subject = one(*runs)
    plots = [*budget_plots(subject), *query_plots(subject), sandwich(subject)]
    assert len(plots) == 4
    for figure in (figure for plot in plots if plot for figure in plot.choices.values()):
        go.Figure(figure)  # refuses what it does not know


def test_the_verdict_has_its_intervals_and_stability_is_no_accuracy(runs: tuple[Path, Path], tmp_path: Path):
    first, second, third = sentences(one(*runs))
    assert first == "Unattacked, the network gets 90.0 % [85.9, 94.1] of pixels right on 6 images."
    assert re.fullmatch(
        r"The strongest attack tried leaves \d+\.\d % \[.+\] of pixels right at l2 1.5 \(pgd\) "
        r"and \d+\.\d % \[.+\] at l∞ 4/255 \(sea\), on 6 images\.",
        second,
    )
    assert "70.0 % [65.9, 74.1] of pixels stay right, each under every change within its own l2 radius, 0.2 on" in third
    own = " ".join(sentences(one(pages.attacked(tmp_path / "own", predicted=True))))
    assert "a stability" in own
    assert "pixels kept" in own
    assert " right at" not in own


def test_tables_hold_every_figure_and_few_images_have_no_interval(tmp_path: Path):
    folder = pages.attacked(tmp_path, images=("a", "b"))
    cells = Read(webpage(told(folder))).cells
    for row in json.loads((folder / "results.json").read_text())["rows"]:
        assert f"{100 * row['pixacc']['value']:.1f}" in cells
    assert "too few for an interval" in sentences(one(folder))[0]
    assert not any(each.get("fill") for plot in budget_plots(one(folder)) for each in plot.choices["PixAcc"]["data"])


def test_only_the_two_scripts_of_the_page_may_run_and_nothing_is_asked_for(runs: tuple[Path, Path], tmp_path: Path):
    names = [f"{name}{k}" for name in pages.HOSTILE for k in range(2)]
    hostile = pages.attacked(tmp_path / "x", model=pages.HOSTILE[1], classes=pages.HOSTILE, images=names)
    read = Read(webpage(told(hostile, *runs), title=pages.HOSTILE[0]))
    assert {each for each in read.elsewhere if each and not each.startswith("#")} == {"data:,"}
    data, code = ([each for each in read.scripts if ("type" in each[0]) == plain] for plain in (True, False))
    assert [attributes for attributes, _ in data] == [
        {"type": "application/json", "id": name} for name in ("facts", "pictures")
    ]
    assert [attributes for attributes, _ in code] == [{}, {}]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for _, text in code]
    assert f"script-src {' '.join(hashes)};" in read.policy
    assert read.policy.startswith("default-src 'none';")
    assert json.loads(data[0][1])["subjects"][0][0]["classes"][0]["name"] in [*pages.HOSTILE, r"r\u202etl\u2028\nname"]


def test_runs_of_one_model_and_data_are_told_together_and_seeds_are_lines_of_one_name(tmp_path: Path):
    folders = [pages.attacked(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    found = subjects(told(*folders, pages.certified(tmp_path / "c"), pages.attacked(tmp_path / "o", model="other")))
    assert [(each.model, len(each.stories)) for each in found] == [("demo", 4), ("other", 1)]
    lines = [each for each in next(budget_plots(found[0])).choices["PixAcc"]["data"] if "name" in each]
    assert {each["name"] for each in lines} == {"pgd (3 runs)"}
    assert [each["showlegend"] for each in lines] == [True, False, False]
    queries = [each for each in next(query_plots(found[0])).choices[""]["data"] if "name" in each]
    assert [(each["name"], each["showlegend"], each["meta"]["colour"]) for each in queries] == [
        ("sea, ε = 4/255", shown, 0) for shown in (True, False, False)
    ]


def test_a_folder_of_an_earlier_version_is_told_with_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = pages.attacked(tmp_path / "old", gallery=0, traces=False, verdicts=None)
    (folder / "SHA256SUMS").unlink()
    (folder / "confusion.csv").unlink()
    assert segradius(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "lacks confusion.csv (what classes become under attack); gallery" in page
    assert "nothing says whether the attacks can be believed" in page
    assert "1 run(s)" in capsys.readouterr().out


def test_what_is_damaged_unfinished_or_nothing_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = pages.attacked(tmp_path / "run")
    shot = next((folder / "gallery").glob("*.npz"))
    shot.write_bytes(shot.read_bytes()[:-1])
    out = tmp_path / "report.html"
    for asked, said in ((folder, shot.name), (tmp_path / "none", "none"), (tmp_path, "neither results")):
        assert segradius(["report", str(asked), "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
    assert segradius(["report", str(folder), "--out", str(tmp_path)]) == 2
    assert "expected a file" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(ValueError, match="not finished"):
        read_story(RunFolder("a", tmp_path, "attack"))


def test_a_gallery_names_no_file_outside_itself(tmp_path: Path):
    folder = pages.attacked(tmp_path)
    (folder / "SHA256SUMS").unlink()
    index = json.loads((folder / "gallery" / "index.json").read_text())
    (folder / "gallery" / "index.json").write_text(json.dumps([{**index[0], "file": "../../secret.npz"}]))
    with pytest.raises(ValueError, match="expected a file of the gallery"):
        told(folder)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_report_leaves_the_old_page_or_the_new_one(tmp_path: Path):
    folder, out = pages.attacked(tmp_path / "run"), tmp_path / "report.html"
    code = (
        "import sys; from segradius.core import storage; from segradius.cli import main\n"
        "def slowly(path, content, write=storage.Path.write_bytes):\n"
        "    open(path, 'wb').write(content[:9000]); print('half', flush=True); sys.stdin.read()\n"
        "storage.Path.write_bytes = slowly\n"
        "main(sys.argv[1:])"
    )
    out.write_text("the old page")
    words = [sys.executable, "-c", code, "report", str(folder), "--out", str(out)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.communicate()
    assert out.read_text() == "the old page"
    assert segradius(["report", str(folder), "--out", str(out)]) == 0
    assert out.read_text().endswith("</html>\n") or out.read_text().rstrip().endswith("</html>")
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".segradius")] == []


def test_the_drawing_library_is_the_published_one():
    file = Path(sys.modules["segradius.report.webpage"].__file__ or "").parent / "page" / "plotly-basic.min.js"
    content = file.read_bytes()
    assert b"Licensed under the MIT license" in content[:300]
    assert hashlib.sha256(content).hexdigest() == PUBLISHED
    assert b"</script" not in content.lower()
    assert b"<!--" not in content


#: Of plotly-basic.min.js in plotly.js-basic-dist-min 4.1.1, as npm has it.
PUBLISHED = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
