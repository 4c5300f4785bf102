"""``segradius export`` of results: tables and adversarial images that other programs read, whatever names are."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segradius as sr
from saved_runs import HOSTILE, runs, squares, threshold
from segradius.cli import main
from segradius.core.escapes import from_cell, visible
from segradius.evaluation.columns import column

TWO = f"{runs()['attack']},{runs()['crosscheck']}"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("tables")
    for form in ("csv", "json", "parquet"):
        assert main(["export", "--results", TWO, "--out", str(out / form), "--format", form]) == 0
    return {form: out / form for form in ("csv", "json", "parquet")}


def typed(cells: dict[str, str], table: str) -> dict[str, Any]:
    make = {"string": from_cell, "integer": int, "number": float}
    return {name: make[column(table, name).kind](cell) if cell else None for name, cell in cells.items()}


def test_every_form_holds_the_same_tables_and_those_are_the_runs(tables: dict[str, Path]):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = sr.load_results(runs()["attack"], runs()["crosscheck"])
    names = {file.stem for file in tables["csv"].glob("*.csv")}
    assert names == {"rows", "images", "classes", "differences", "confusion"} | {
        f"certified_{name}" for name in ("rows", "images", "classes", "curve", "checks")
    }
    for name in names:
        of_attacks, plain = not name.startswith("certified_"), name.removeprefix("certified_")
        with (tables["csv"] / f"{name}.csv").open(newline="") as file:
            lines = [typed(line, plain) for line in csv.DictReader(file)]
        assert json.loads((tables["json"] / f"{name}.json").read_text()) == lines
        assert parquet.read_table(tables["parquet"] / f"{name}.parquet").to_pylist() == lines
        run = found.runs[0 if of_attacks else 1]
        kept = [
            {key: value for key, value in line.items() if key in own}
            for line, own in zip(lines, run.table(plain), strict=True)
        ]
        assert kept == list(run.table(plain))
        assert {line["measurement"] for line in lines} == {run.name}


def test_a_data_package_says_what_every_column_is(tables: dict[str, Path]):
    package = json.loads((tables["csv"] / "datapackage.json").read_text())
    assert [run["kind"] for run in package["runs"]] == ["attack", "certify"]
    for resource in package["resources"]:
        file = tables["csv"] / resource["path"]
        header, *lines = file.read_text().splitlines()
        assert [field["name"] for field in resource["schema"]["fields"]] == header.split(",")
        assert "of a later version" not in {field["description"] for field in resource["schema"]["fields"]}
        assert (resource["bytes"], resource["rows"]) == (file.stat().st_size, len(lines))
        assert resource["hash"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert main(["verify", str(tables["csv"])]) == 0


def test_pandas_reads_the_tables_as_load_results_gives_them(tables: dict[str, Path]):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    found = sr.load_results(runs()["attack"]).to_pandas("rows")
    read = pandas.read_parquet(tables["parquet"] / "rows.parquet")
    pandas.testing.assert_frame_equal(read, found[list(read.columns)], check_dtype=False)


def test_what_was_exported_before_goes_and_other_files_are_never_written_among(tmp_path: Path, capsys: Any):
    words = ["export", "--results", str(runs()["crosscheck"]), "--out", str(tmp_path / "out")]
    assert main([*words, "--format", "json"]) == main(["export", "--results", str(runs()["evaluate"]), *words[3:]]) == 0
    left = {file.name for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")}
    assert left == {"rows.csv", "images.csv", "classes.csv", "confusion.csv", "datapackage.json", "SHA256SUMS"}
    before = (runs()["attack"] / "SHA256SUMS").read_bytes()
    assert main([*words[:3], "--out", str(runs()["attack"])]) == 2
    assert "holds other files, such as " in capsys.readouterr().err
    assert (runs()["attack"] / "SHA256SUMS").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [],
            "give one of --model (a network), --results (tables of results), --adversarial (adversarial images): none",
        ),
        (["--model", "demo", "--results", "x"], "--model and --results were given"),
        (["--results", "x", "--adversarial", "y"], "--results and --adversarial were given"),
        (["--results", "x", "--size", "3x4"], "size is for --model, a network; --results was given"),
        (["--adversarial", "x", "--weights", "w"], "weights is for --model, a network; --adversarial was given"),
        (["--adversarial", "x", "--format", "csv"], "format is for --results, tables; --adversarial was given"),
        (["--model", "demo"], "size is missing; expected height x width of the network's images, as --size 240x320"),
        (["--results", "nowhere"], "nowhere is no folder; expected the --out folder of segradius attack"),
        (["--adversarial", str(runs()["certify"])], "there is no attack among the runs"),
    ],
)
def test_what_cannot_be_is_refused_in_words(words: list[str], told: str, tmp_path: Path, capsys: Any):
    assert main(["export", *words, "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("out/[!.]*"))


def test_without_pyarrow_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any):
    load = importlib.import_module

    def absent(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert main(["export", "--results", TWO, "--out", str(tmp_path / "out"), "--format", "parquet"]) == 2
    assert "needs pyarrow, which is not installed: pip install 'segradius[parquet]'" in capsys.readouterr().err


NAMES = ("plain", "Plain", "=cmd|'c'!A1<b>\x1b[31mé,\"")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[sr.Results, Path]:
    """All adversarial images of files with hostile names, and what was exported of them."""
    root = tmp_path_factory.mktemp("exported")
    images, labels = squares(3)
    for name, image, label in zip(NAMES, images, labels, strict=True):
        for kind, pixels in (("images", image.permute(1, 2, 0) * 255), ("masks", label)):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels.round().to(torch.uint8).numpy()).save(root / kind / f"{name}.png")
    (root / "segradius.yaml").write_text("classes: [dark, bright]\n")
    found = sr.evaluate(
        threshold(), f"folder:{root}", ["pgd", "fgsm"], eps={"l2": 0.5, "linf": 4 / 255}, quiet=True,
        options={"pgd.steps": 3}, save_images=True, figures=0,
    )  # fmt: skip
    assert main(["export", "--adversarial", str(found.save(root / "run")), "--out", str(root / "out")]) == 0
    return found, root / "out"


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def test_what_is_loaded_back_is_exactly_what_was_judged(saved: tuple[sr.Results, Path]):
    found, out = saved
    keys = {(plan.label, *plan.threat): found.run.experiment.key(plan) for plan in found.run.experiment.attacks}
    assert len(lines_of(out)) == 4 * 3
    assert {line["id"] for line in lines_of(out)} == set(NAMES)
    for line in lines_of(out):
        exact = torch.from_numpy(np.load(out / line["npz"])["adversarial"])
        assert torch.equal(exact, found.store.example(keys[line["attack"], line["norm"], line["eps"]], line["id"]))
        png = torch.from_numpy(np.array(Image.open(out / line["file_name"]))).permute(2, 0, 1)
        assert torch.equal(png, (exact * 255).round().to(torch.uint8))
        for name, checksum in (("file_name", "sha256"), ("npz", "sha256_npz")):
            assert hashlib.sha256((out / line[name]).read_bytes()).hexdigest() == line[checksum]


def test_lengths_and_counts_are_those_of_the_original_files(saved: tuple[sr.Results, Path]):
    _, out = saved
    for line in lines_of(out):
        clean = torch.from_numpy(np.array(Image.open(line["image_file"]))).permute(2, 0, 1) / 255
        label = torch.from_numpy(np.array(Image.open(line["label_file"])))
        exact = torch.from_numpy(np.load(out / line["npz"])["adversarial"])
        png = torch.from_numpy(np.array(Image.open(out / line["file_name"]))).permute(2, 0, 1) / 255
        for image, length, right in ((exact, "length", "right"), (png, "length_png", "right_png")):
            change = (image.double() - clean.double()).flatten().norm(p={"l2": 2, "linf": math.inf}[line["norm"]])
            assert line[length] == pytest.approx(float(change), rel=1e-5, abs=1e-6)
            seen = threshold().logits(image[None]).argmax(1)[0]
            assert line[right] in (int((seen == label)[label != 255].sum()), None)
        assert line["pixels"] == int((label != 255).sum())
        assert line["eps_levels"] == (pytest.approx(4) if line["norm"] == "linf" else None)


def test_names_are_files_that_lie_in_the_folder_and_the_manifest_tells_them(saved: tuple[sr.Results, Path]):
    _, out = saved
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [from_cell(row["id"]) for row in rows] == [visible(line["id"]) for line in lines_of(out)]
    for row in rows:
        assert (out / row["file_name"]).resolve().is_relative_to(out.resolve())
    assert len({row["file_name"].casefold() for row in rows}) == len(rows)
    assert main(["verify", str(out)]) == 0


def test_hugging_faces_imagefolder_finds_every_image_with_what_it_is(saved: tuple[sr.Results, Path], tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    _, out = saved
    lines = lines_of(out)
    datasets.disable_progress_bars()
    found = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path), split="train")
    assert len(found) == len(lines)
    assert {row["npz"] for row in found} == {line["npz"] for line in lines}
    assert {(row["image"].size, row["norm"]) for row in found} == {((12, 8), "l2"), ((12, 8), "linf")}


def test_of_a_run_that_kept_a_few_it_says_how_many_and_how_to_keep_all(tmp_path: Path, capsys: Any):
    where = str(tmp_path / "run")
    run = ["attack", "--model=demo", "--data=scenes:24x32,12", "--attack=fgsm", "--eps=l2=1", "--figures=1"]
    assert main([*run, "--out", where]) == 0
    capsys.readouterr()
    assert main(["export", "--adversarial", where, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    count = len(lines_of(tmp_path / "out"))
    assert 0 < count < 12
    assert f"run: {count} of 12 adversarial images, as the others were not kept" in told
    assert f"--out {where} --save-images" in " ".join(told.split())
    for line in lines_of(tmp_path / "out"):
        assert line["length"] == pytest.approx(1, abs=1e-2)
        assert 0 < line["length_png"] < 2
    before = (tmp_path / "run" / "per_image.csv").read_bytes()
    way = " ".join(told.partition("to keep all: segradius ")[2].split("\n")[0].split())
    assert main(shlex.split(way)) == 0  # the way that it told
    assert (tmp_path / "run" / "per_image.csv").read_bytes() == before
    assert main(["export", "--adversarial", where, "--out", str(tmp_path / "out")]) == 0
    assert len(lines_of(tmp_path / "out")) == 12
    assert "12 of 12 adversarial images\n" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_or_without_its_images_is_exported_with_what_is_known(tmp_path: Path, capsys: Any):
    folder = Path(shutil.copytree(runs()["hostile"], tmp_path / "run"))
    assert main(["export", "--adversarial", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "image_file and label_file are not told, as the images are not where they were" in capsys.readouterr().err
    assert {line["id"] for line in lines_of(tmp_path / "out")} == {"plain", HOSTILE, "Plain"}
    (folder / "results.sqlite").unlink()
    assert main(["export", "--adversarial", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "has no results.sqlite, where adversarial images are kept" in capsys.readouterr().err


def test_images_taken_from_everywhere_and_labelled_by_the_network_are_exported_too(tmp_path: Path):
    run, out = str(tmp_path / "run"), tmp_path / "out"
    words = ["attack", "--model", "demo", "--data", "scenes:24x32", "--limit", "2", "--attack", "fgsm", "--eps", "0.01"]
    more = ["--order", "spread", "--labels", "predicted", "--save-images", "--device", "cpu", "--figures", "0"]
    assert main([*words, "--norm", "linf", *more, "--out", run]) == 0
    assert main(["export", "--adversarial", run, "--out", str(out)]) == 0
    assert len(lines_of(out)) == 2
