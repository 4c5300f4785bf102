"""``segradius gate``: each verdict and exit status; what is missing is not passed; files for pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml

import segradius.report.ruled as ruled_file
from cli.folders import changed, study
from segradius.cli import main as segradius
from segradius.metrics import jackknife, paired_difference
from segradius.report.compare import read_network
from segradius.report.policy import Rule

RUN = ["--model=demo", "--data=scenes:24x32", "--figures=0"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two attacks on eight images at two budgets."""
    out = tmp_path_factory.mktemp("base") / "base"
    attacks = ["--attack=pgd,cr_pgd", "--eps=l2=0.5,1.5", "--steps=2", "--limit=8"]
    assert segradius(["attack", *RUN, *attacks, f"--out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("certified") / "certified"
    certify = ["--sigma=0.1", "--n0=10", "--n=60", "--limit=6", "--radii=one"]
    assert segradius(["certify", *RUN, *certify, f"--out={out}"]) == 0
    return out


class Gate:
    """A command with the rules given, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, rules: list[dict[str, Any]], *folders: Path, more: tuple[str, ...] = (), **policy: Any) -> int:
        (self.folder / "policy.yaml").write_text(yaml.safe_dump({"rules": rules, **policy}))
        files = [f"--{kind}={self.folder / f'gate.{kind}'}" for kind in ("junit", "markdown", "json")]
        where = [f"--policy={self.folder / 'policy.yaml'}", *files, *more]
        return segradius(["gate", *map(str, folders), *where])

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "gate.json").read_text())

    @property
    def verdicts(self) -> list[str]:
        return [rule["verdict"] for rule in self.report["rules"]]

    @property
    def why(self) -> list[str]:
        return [figure["why"] for rule in self.report["rules"] for figure in rule["figures"]]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def rule(metric: str, require: str, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "require": require, **more}


def test_each_verdict_and_its_exit_status(base: Path, gate: Gate):
    row = json.loads((base / "results.json").read_text())["rows"][0]["pixacc"]
    kept = rule("pixacc", f"low >= {row['low'] - 0.01}", attack="clean", name="kept")
    open_ = rule("pixacc", f"low >= {row['value']}", attack="clean", name="open")
    broken = rule("pixacc", f"low >= {row['high'] + 0.01}", attack="clean", name="broken")
    advised = [each | {"tier": "advisory"} for each in (open_, broken)]
    for rules, status, verdicts in (
        ([kept], 0, ["PASS"]),
        ([kept, *advised], 0, ["PASS", "WARN", "WARN"]),
        ([kept, open_], 4, ["PASS", "INCONCLUSIVE"]),
        ([kept, open_, broken], 5, ["PASS", "INCONCLUSIVE", "BLOCK"]),
    ):
        assert gate(rules, base) == status
        assert gate.verdicts == verdicts
        suite = ElementTree.parse(gate.folder / "gate.junit").getroot()[0]
        assert (suite.get("failures"), suite.get("skipped")) == (
            str(verdicts.count("BLOCK")),
            str(verdicts.count("INCONCLUSIVE")),
        )
        assert [case.get("classname") for case in suite.iter("testcase")] == [
            each.get("tier", "critical") for each in rules
        ]
        assert (gate.folder / "gate.markdown").read_text().startswith(f"## {gate.report['verdict']}: ")
        assert gate.report["status"] == status


def test_few_images_are_inconclusive(base: Path, gate: Gate):
    assert gate([rule("pixacc", "value >= 0")], base, min_images=9) == 4
    assert gate.why == ["8 images; at least 9 are asked for"] * 2
    assert gate([rule("pixacc", "value >= 0", min_images=8)], base, min_images=9) == 0
    one = changed(base, gate.folder / "one", report=lambda it: it["rows"][0].update(images=1) or it)
    assert gate([rule("pixacc", "value >= 0", attack="clean")], one) == 4


MISSING = (
    (rule("pixacc", "low >= 0", attack="sea"), "missing: no sea; there is pgd, cr_pgd"),
    (rule("pixacc", "low >= 0", attack="pgd", eps=3), "missing: no pgd ε = 3; there is l2 ε = 0.5"),
    (rule("pixacc", "low >= 0", eps=2.0), "missing: no worst ε = 2; there is"),
    (rule("pixacc", "low >= 0", norm="linf", eps="4/255"), "missing: no worst linf ε = 0.0156863; there is"),
    (rule("iou", "low >= 0", attack="clean", **{"class": "rod"}), "there is no class 'rod'; did you mean 'road'?"),
    (rule("certified", "low >= 0"), "missing: no measurement is of its kind, model, data and seed"),
    (rule("pixacc", "low >= 0", model="other"), "missing: there is no model 'other'"),
    (rule("pixacc", "low >= 0", seed=7), "missing: no measurement is of its kind, model, data and seed"),
    (rule("dice", "low >= 0", attack="clean"), "missing: the run has no dice of it"),
    (rule("drop", "high <= 1", attack="clean"), "missing: of what is unattacked there is no drop"),
    (rule("sanity", "no fail", check="gradent"), "there is no check 'gradent'; did you mean 'gradient'?"),
)


@pytest.mark.parametrize(("asked", "told"), MISSING)
def test_what_is_missing_is_not_passed(base: Path, gate: Gate, asked: dict[str, Any], told: str):
    assert gate([asked], base) == 4
    assert told in gate.why[0]
    suite = ElementTree.parse(gate.folder / "gate.junit").getroot()[0]
    assert (suite.get("errors"), suite.get("skipped")) == ("1", "0")
    assert gate([asked | {"tier": "advisory"}], base) == 0
    assert gate.verdicts == ["WARN"]


def test_a_run_without_sanity_verdicts_does_not_pass_that_rule(base: Path, gate: Gate):
    old = changed(base, gate.folder / "old", report=lambda it: {k: v for k, v in it.items() if k != "verdicts"})
    assert gate([rule("sanity", "no fail")], old) == 4


def test_sanity_is_a_rule(base: Path, gate: Gate):
    def graded(grade: str, name: str) -> Path:
        def report(it: dict[str, Any]) -> dict[str, Any]:
            text = {"text": "it was seen", "advice": "mend it", "value": None}
            told = [{"name": each, "verdict": "pass", **text} for each in ("gradient", "steps")]
            return it | {"verdicts": [told[0], told[1] | {"verdict": grade}]}

        return changed(base, gate.folder / name, report=report)

    runs = {grade: graded(grade, grade) for grade in ("pass", "warn", "open", "fail")}
    expected = {"no fail": [0, 0, 0, 5], "no warn": [0, 5, 0, 5], "pass": [0, 5, 4, 5]}
    for require, statuses in expected.items():
        assert [gate([rule("sanity", require)], run) for run in runs.values()] == statuses
    assert gate.why == ["it was seen: mend it"]
    assert gate([rule("sanity", "no fail", check="gradient")], runs["fail"]) == 0


def figures(asked: Rule, *folders: Path) -> list[ruled_file.Figure]:
    found = ruled_file.sources(folders)
    return [each.figure for each in ruled_file.ruled(ruled_file.Policy((asked,)), found)[0].judged]


def test_figures_are_those_of_the_report(base: Path):
    rows = json.loads((base / "results.json").read_text())["rows"]
    assert [each.title for each in figures(Rule("miou", "low >= 0"), base)] == [
        "miou of worst of 2 (l2, ε = 0.5)", "miou of worst of 2 (l2, ε = 1.5)",
    ]  # fmt: skip
    assert [each.found.low for each in figures(Rule("pixacc", "low >= 0", attack="all"), base)] == [
        row["pixacc"]["low"] for row in rows[1:5]
    ]
    (road,) = figures(Rule("iou", "low >= 0", attack="cr_*", eps=1.5, of_class="road"), base)
    assert road.found.value == next(each for each in rows[4]["classes"] if each["name"] == "road")["iou"]["value"]
    (rounded,) = figures(Rule("miou_8bit", "low >= 0", eps=1.5), base)
    assert rounded.found.low == rows[-1]["rounded"]["miou"]["low"]
    (aside,) = figures(Rule("set_aside", "value <= 0"), base)
    assert (aside.found.value, aside.images) == (0.0, 8)
    assert figures(Rule("images", "value >= 8"), base)[0].found.value == 8


def test_a_drop_is_paired_over_images(base: Path):
    found = figures(Rule("drop", "high <= 1", eps=1.5), base)[0]
    network = read_network(base, "it")
    theirs = paired_difference(network.each_image("clean", "", 0.0), network.each_image("worst", "l2", 1.5))
    assert found.found.value == pytest.approx(theirs.mean)
    assert (found.found.low, found.found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_certified_accuracy_is_that_beyond_a_radius(certified: Path):
    report = json.loads((certified / "results.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    (common,) = figures(Rule("certified", "low >= 0", answer="segcertify", radius=0.05), certified)
    assert common.found.low == rows["segcertify"]["pixacc"]["low"]
    (beyond,) = figures(Rule("certified", "low >= 0", answer="segcertify", radius=0.07), certified)
    assert beyond.found.high == 0.0
    curve = rows["radii"]["curve"]
    (own,) = figures(Rule("certified", "low >= 0", answer="radii", radius=curve["edges"][9]), certified)
    assert own.found.value == pytest.approx(curve["accuracy"][9])
    assert 0 < own.found.low < own.found.value < own.found.high < 1
    records = ruled_file.read_records(certified)
    parts = torch.tensor([[sum(r.kinds["radii"].score.right[9:]), r.base_score.labelled] for r in records]).double()
    assert own.found == jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1])
    assert len(figures(Rule("certified", "low >= 0"), certified)) == 2


def test_a_rule_is_over_every_measurement_that_it_means(base: Path, certified: Path, gate: Gate):
    about = {name: {"model": name[0]} for name in ("a-d-s0", "b-d-s0")} | {"a-d-s0-certify": {"kind": "certify"}}
    runs = {"a-d-s0": base, "b-d-s0": base, "a-d-s0-certify": certified}
    whole = study(gate.folder / "whole", dict(runs), about)
    half = study(gate.folder / "half", runs | {"b-d-s0": None}, about)
    asked = [rule("pixacc", "low >= 0", attack="clean"), rule("certified", "low >= 0", answer="radii")]
    assert gate(asked, whole) == 0
    assert [len(each["figures"]) for each in gate.report["rules"]] == [2, 1]
    assert gate(asked, half) == 4
    assert "missing: b-d-s0 has no results" in gate.why
    assert gate([asked[0] | {"model": "a"}, asked[1]], half) == 0
    assert gate([rule("pixacc", "low >= 0", attack="clean", seed=3)], whole) == 4


def test_hostile_names_are_shown_and_not_obeyed(base: Path, gate: Gate, capsys: pytest.CaptureFixture[str]):
    name = 'x</failure><script>|`\x1b[31m"&\n'
    assert gate([rule("pixacc", "low >= 1", attack="clean", name=name)], base) == 5
    ElementTree.parse(gate.folder / "gate.junit")
    assert "<script>" not in (gate.folder / "gate.markdown").read_text()
    assert "\x1b" not in capsys.readouterr().out


def test_a_model_card_has_the_figures_as_hugging_face_reads_them(base: Path, certified: Path, gate: Gate):
    hub = pytest.importorskip("huggingface_hub")
    card = gate.folder / "README.md"
    card.write_text("---\nlicense: mit  # ours\n---\n# A network\n")
    more = (f"--model-card={card}",)
    assert gate([rule("pixacc", "low >= 0")], base, certified, more=more) == 0
    read = hub.ModelCard.load(card)
    assert read.data.license == "mit"
    assert read.text.strip() == "# A network"
    name, results = hub.repocard_data.model_index_to_eval_results(
        yaml.safe_load(card.read_text().split("---")[1])["model-index"]
    )
    assert name == "demo"
    rows = json.loads((base / "results.json").read_text())["rows"]
    mine = {each.metric_name: each for each in results}
    worst = mine["Mean IoU (worst of 2, l2, ε = 1.5)"]
    assert worst.metric_value == rows[-1]["miou"]["value"]
    assert (worst.task_type, worst.dataset_type, worst.metric_type) == ("image-segmentation", "scenes", "mean_iou")
    assert worst.metric_args["eps"] == 1.5
    assert worst.metric_args["low"] == rows[-1]["miou"]["low"]
    assert any(each.startswith("Pixel accuracy (certified, l2, r = 0.06745") for each in mine)
    hub.ModelCardData(model_name=name, eval_results=results).to_yaml()


def test_what_cannot_be_judged_is_refused(base: Path, gate: Gate, capsys: pytest.CaptureFixture[str]):
    assert segradius(["gate", str(base), "--policy=nowhere.yaml"]) == 2
    assert gate([rule("pixac", "low >= 0")], base) == 2
    assert "rule 1 of the policy" in capsys.readouterr().err
    assert gate([rule("pixacc", "low >= 0")], gate.folder) == 2


def test_a_rule_of_a_gate_may_ask_for_what_is_left_of_whole_images(tmp_path: Path) -> None:
    """The figure is that of the report's curve, at the next radius that was counted."""
    model = "lipschitz_unet,num_classes=8,widths=[8,8],blocks=[1,1]"
    words = ["--data", "scenes:24x32", "--limit", "3", "--lipschitz", "verified", "--out", str(tmp_path)]
    assert segradius(["certify", "--model", model, *words]) == 0
    report = json.loads((tmp_path / "results.json").read_text())["whole"]
    (found,) = figures(Rule("certified", "low >= 0", answer="whole", radius=report["edges"][5]), tmp_path)
    assert found.found.value == pytest.approx(report["accuracy"][5])
    (lacking,) = figures(Rule("certified", "low >= 0", answer="whole"), tmp_path)
    assert "radius" in lacking.missing


def test_certificates_that_an_attack_refuted_pass_no_rule_and_no_page_tells_them_as_proven(tmp_path: Path):
    """The network moves its logits by about as much as its images, and a hundredth of that is stated."""
    model = "lipschitz_unet,num_classes=8,widths=[8,8],blocks=[1,1]"
    words = ["--data", "scenes:24x32", "--limit", "2", "--lipschitz", "0.01", "--attack", "pgd", "--steps", "2"]
    assert segradius(["certify", "--model", model, *words, "--out", str(tmp_path / "run")]) == 0
    for answer, radius in (("whole", 0.1), ("lipschitz", None)):
        (found,) = figures(Rule("certified", "low >= 0", answer=answer, radius=radius), tmp_path / "run")
        assert found.verdict == ruled_file.Verdict.BLOCK
        assert "REFUTED by steepest" in found.why
    assert segradius(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "are REFUTED: steepest" in page
    assert "Whole images: what is left" in page
    assert "Certificates under attack" in page
    assert segradius(["compare", str(tmp_path / "run"), str(tmp_path / "run"), "--labels", "a,b"]) == 0
