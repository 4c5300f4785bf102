"""`segradius paper` end to end at the scale demo: every table and figure, from nothing, once."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import segradius.models.segmenter as segmenter
from segradius.cli import main
from segradius.core.sums import sum_of
from segradius.paper.block import read_blocks
from segradius.paper.element import read_elements
from segradius.paper.measured import Measured, measured
from segradius.paper.plan import CARD, network_folder, parts
from segradius.paper.recipe import ASKED, is_trained
from segradius.paper.scale import Scale

PICTURES = ("svg", "pdf", "png")
DEMO = Scale.read("demo")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the paper, in the folder of all scales."""
    folder = tmp_path_factory.mktemp("paper")
    assert main(["paper", "all", "--out", str(folder), "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> Measured:
    return measured(out, DEMO, read_blocks(DEMO).values())


@pytest.fixture
def passes() -> Iterator[list[int]]:
    """Forward passes over single images so far, of any network."""
    counted, logits = [0], segmenter.Segmenter.logits

    def counting(self: Any, images: Any, *args: Any, **more: Any) -> Any:
        counted[0] += len(images)
        return logits(self, images, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter.Segmenter, "logits", counting)
        yield counted


def shown(out: Path) -> dict[str, str]:
    """Checksums of the files of tables and figures."""
    names = {show.name for each in read_elements().values() for show in each.shows}
    return {it.name: sum_of(it.read_bytes()) for it in sorted((out / "demo").glob("*.*")) if it.stem in names}


def test_every_element_has_its_page_its_numbers_and_its_picture(out: Path) -> None:
    for element in read_elements().values():
        for show in element.shows:
            page = (out / "demo" / f"{show.name}.md").read_text("utf-8")
            assert page.startswith(f"# {element.paper}")
            assert "Nothing is shown" not in page, f"{show.name}: {page}"
            pictures = {end for end in PICTURES if (out / "demo" / f"{show.name}.{end}").is_file()}
            assert pictures == (set(PICTURES) if f"]({show.name}.svg)" in page else set())
            if (out / "demo" / f"{show.name}.csv").is_file():
                assert list(csv.DictReader((out / "demo" / f"{show.name}.csv").read_text("utf-8").splitlines()))
            else:
                assert pictures


def test_every_network_is_trained_by_its_seed(out: Path) -> None:
    trained = {it.label: network_folder(out, DEMO, it.label) for it in DEMO.networks.values() if it.train}
    assert trained
    weights = {sum_of((folder / "last.safetensors").read_bytes()) for folder in trained.values()}
    assert len(weights) == len(trained)
    for label, folder in trained.items():
        assert yaml.safe_load((folder / ASKED).read_text())["seed"] == DEMO.networks[label].seed


def test_attacks_lower_the_accuracy_that_they_are_given(found: Measured) -> None:
    for block in ("white-l1", "white-l2", "white-linf"):
        for network in ("pspnet-0", "pspnet-1") if block == "white-l2" else ("pspnet-0",):
            mine = [row for row in found.seen if (row.block, row.network) == (block, network)]
            clean = sum(row.right for row in mine if not row.attack)
            for attack, eps in {(row.attack, row.eps) for row in mine if row.attack}:
                assert sum(row.right for row in mine if (row.attack, row.eps) == (attack, eps)) <= clean


def test_every_block_is_there_with_all_its_images(found: Measured, out: Path) -> None:
    for block in read_blocks(DEMO).values():
        for part in parts(block, DEMO, out):
            images = part.study["data"][part.data]["limit"]
            mine = [row for row in found.seen if row.block == block.name]
            assert len({row.image for row in mine}) == images or not mine
            assert mine or [row for row in found.certified if row.block == block.name]
        assert block.skip or not block.compute or block.name in found.computed


def test_what_is_there_is_not_run_again_and_gives_the_same_bytes(out: Path, passes: list[int]) -> None:
    before = shown(out)
    assert main(["paper", "all", "--out", str(out), "--device", "cpu"]) == 0
    assert passes == [0]
    assert shown(out) == before


def test_nothing_is_left_to_pay_for_what_is_there(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "run", "figure-3", "table-4", "--out", str(out), "--device", "cpu", "--cost"]) == 0
    assert "0 forward and 0 backward passes over images; about 0:00:00" in capsys.readouterr().out


def test_cost_tells_trainings_studies_and_computations_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "run", "figure-3", "--out", str(tmp_path / "new"), "--device", "cpu", "--cost"]) == 0
    told = capsys.readouterr().out
    (part,) = parts(read_blocks(DEMO)["white-l2"], DEMO, tmp_path)
    assert "train pspnet-0" in told
    assert "white-l2/scenes" in told
    steps, budgets = part.study["options"]["steps"], len(DEMO.values["eps_l2"].split(","))
    backward = len(part.subjects) * 2 * budgets * steps * part.study["data"]["scenes"]["limit"]
    (line,) = re.findall(r"white-l2/scenes.*", told)
    assert f"+{backward:,}" in line
    assert not (tmp_path / "new").exists()


def test_full_tells_passes_without_its_images_and_refuses_to_run_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "run", "table-5", "--scale", "full", "--out", str(tmp_path / "x"), "--cost"]) == 0
    line = re.search(r"fgsm/voc .*│\s+([\d,]+) │\s+(?:≤ )?([\d,]+)\+([\d,]+) │\s+\? │", capsys.readouterr().out)
    assert line is not None
    assert all(int(each.replace(",", "")) > 0 for each in line.groups())
    assert main(["paper", "run", "table-5", "--scale", "full", "--out", str(tmp_path / "x")]) == 2
    assert "scale full needs --given voc=PATH,cityscapes=PATH" in capsys.readouterr().err
    given = ",".join(f"{name}={tmp_path}" for name in Scale.read("full").given)
    assert main(["paper", "run", "table-5", "--scale", "full", "--out", str(tmp_path / "x"), "--given", given]) == 2
    told = capsys.readouterr().err
    assert re.search(r"pspnet-voc: .*pspnet50-voc\.safetensors is missing: github\.com/hszhao/semseg", told)
    assert "segradius models convert" in told
    assert not (tmp_path / "x").exists()


def test_what_is_given_wrongly_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    light = ["paper", "run", "figure-3", "--scale", "light", "--out", str(tmp_path / "x"), "--given"]
    assert main([*light, f"camvid={tmp_path / 'nowhere'}"]) == 2
    told = capsys.readouterr().err
    assert f"--given camvid={tmp_path / 'nowhere'}: there is no such folder" in told
    assert "to train" not in told
    assert main([*light, str(tmp_path)]) == 2
    assert f"--given has '{tmp_path}' without a name; expected NAME=PATH" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_claims_of_a_folder_without_measurements_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "claims", "figure-3", "--out", str(tmp_path / "x")]) == 0
    assert f"nothing was measured at scale demo in {tmp_path / 'x'}" in capsys.readouterr().err


def test_names_are_known_with_their_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "run", "figur-3"]) == 2
    assert "unknown element of the paper 'figur-3'; did you mean 'figure-3'" in capsys.readouterr().err
    assert main(["paper", "run"]) == 2
    assert "paper run needs names" in capsys.readouterr().err
    assert main(["paper", "runn"]) == 2
    assert "action is 'runn'; expected list or run or" in capsys.readouterr().err


def test_the_list_has_every_element(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segradius.core.screen.LOG_WIDTH", 500)
    assert main(["paper", "list"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in read_elements())
    assert "theorem-3 │ Regret against T │ 4.4 │ regret │ computed │" in told
    assert "│ 0 ×" not in told


def test_claims_are_judged_alike_by_packed_results(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "claims", "--out", str(out)]) == 0
    verdicts = json.loads((out / "demo" / "claims.json").read_text())["claims"]
    assert all(each["verdict"] for each in verdicts)
    told = capsys.readouterr().out.split("Files:")[0]
    packed, page = tmp_path / "packed", tmp_path / "page.md"
    assert main(["paper", "pack", "--out", str(out), "--to", str(packed)]) == 0
    one = ["--to", str(tmp_path / "one"), "--pictures", str(tmp_path / "f")]
    assert main(["paper", "pack", "figure-3", "--out", str(out), *one]) == 0
    drawn = {it.name: sum_of(it.read_bytes()) for it in (tmp_path / "f").iterdir()}
    assert {"figure-3.svg", "figure-13.md"} < set(drawn)
    assert drawn.items() <= shown(out).items()
    capsys.readouterr()
    more = ["--packed", str(packed), "--page", str(page), "--pictures", str(tmp_path / "f")]
    assert main(["paper", "claims", *more]) == 0
    assert capsys.readouterr().out.split("Page:")[0] == told
    assert "](f/figure-3.svg)" in page.read_text("utf-8")
    first = page.read_bytes()
    assert main(["paper", "claims", *more]) == 0
    assert page.read_bytes() == first


def test_what_was_trained_otherwise_is_refused_and_what_was_stopped_goes_on(out: Path, tmp_path: Path) -> None:
    network = DEMO.networks["pspnet-0"]
    folder = network_folder(tmp_path, DEMO, network.label)
    shutil.copytree(network_folder(out, DEMO, network.label), folder)
    assert is_trained(network, DEMO, tmp_path)
    log = (folder / "evaluations.csv").read_text().splitlines()
    (folder / "evaluations.csv").write_text("\n".join(log[:1]))
    assert not is_trained(network, DEMO, tmp_path)
    for file in ("evaluations.csv", ASKED):
        (folder / file).unlink()
    assert is_trained(network, DEMO, tmp_path)  # put there by hand
    (folder / CARD).unlink()
    assert not is_trained(network, DEMO, tmp_path)
    shutil.copy(network_folder(out, DEMO, network.label) / CARD, folder)
    asked = yaml.safe_load((network_folder(out, DEMO, network.label) / ASKED).read_text())
    (folder / ASKED).write_text(yaml.safe_dump({**asked, "lr": 0.5}))
    assert main(["paper", "train", "table-2", "--out", str(tmp_path)]) == 2
