"""What CONTRIBUTING.md adds works as it stands there, in a package outside the repository that is a plug-in."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segradius as sr
from segradius.core.errors import InputError
from segradius.data import open_data
from segradius.models import load_model

PAGE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
FILES = dict(re.findall(r"^`([\w/.]+\.py)`\n```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
CODE = {Path(name).stem: text for name, text in FILES.items() if name.startswith("src/")}
TESTS = {Path(name).name: text for name, text in FILES.items() if name.startswith("tests/")}
GROUP, MODULE = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n\w+ = "(\w+)"$', PAGE.read_text(), re.M)[0]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package made of the page's files, announced as if it were installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / MODULE).mkdir()
    (folder / MODULE / "__init__.py").write_text(f"from {MODULE} import {', '.join(CODE)}\n")
    for name, text in CODE.items():
        (folder / MODULE / f"{name}.py").write_text(text)
    info = folder / f"{MODULE}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{MODULE} = {MODULE}\n")
    return folder


def run(package: Path | None, where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of this Python, in a folder, with the package installed or not."""
    added = [str(package)] if package else []
    path = os.pathsep.join([*added, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run([sys.executable, *command], cwd=where, env=environment, capture_output=True, text=True)


def listed(package: Path | None, where: Path) -> set[str]:
    """First words of the lines of ``segradius list``, of every kind to which the page adds."""
    kinds = ["losses", "attacks", "data", "models"]
    found = run(package, where, "-c", f"from segradius.cli import main\nfor kind in {kinds}: main(['list', kind])")
    assert found.returncode == 0, found.stderr
    return {line.split()[0] for line in found.stdout.splitlines() if line.strip()}


def street(folder: Path) -> Path:
    """Two images of KITTI's layout, with labels in bands."""
    rng = np.random.default_rng(0)
    for kind in ("image_2", "semantic"):
        (folder / "training" / kind).mkdir(parents=True)
    for number in range(2):
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(
            folder / "training" / "image_2" / f"{number}.png"
        )
        ids = np.repeat(np.array([7, 8, 26, 0], dtype=np.uint8), 4)  # road, pavement, car, void
        Image.fromarray(np.repeat(ids[:, None], 24, 1)).save(folder / "training" / "semantic" / f"{number}.png")
    return folder


def network(file: Path) -> Path:
    """A convolution of 19 classes, exported for any size."""
    torch.manual_seed(0)
    some = torch.export.Dim.AUTO
    program = torch.export.export(
        torch.nn.Conv2d(3, 19, 3, padding=1).eval(),
        (torch.rand(2, 3, 16, 24),),
        dynamic_shapes=({0: some, 2: some, 3: some},),
    )
    torch.export.save(program, file)
    return file


def test_the_page_shows_five_files_and_a_test_of_each():
    assert list(CODE) == ["gap", "ffgsm", "random_search", "kitti", "exported"]
    assert list(TESTS) == [f"test_{name}.py" for name in CODE]
    rooms = [Path(name).parts[2] for name in FILES if name.startswith("src/")]
    assert rooms == ["objectives", "attacks", "attacks", "data", "models"]


def test_the_page_s_own_tests_pass(package, tmp_path):
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    found = run(package, tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", ".")
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{len(TESTS)} passed" in found.stdout


def test_what_was_added_is_listed_and_is_not_without_the_package(package, tmp_path):
    names = {"gap", "ffgsm", "random_search", "kitti", "exported:model.pt2"}
    assert names <= listed(package, tmp_path)
    assert not names & listed(None, tmp_path)


def test_all_five_together_from_the_command_line(package, tmp_path):
    data, model = street(tmp_path / "kitti"), network(tmp_path / "model.pt2")
    common = ["--model", f"exported:{model}", "--data", f"kitti:{data}", "--norm", "l2", "--eps", "2", "--figures", "0"]
    white = ["--attack", "ffgsm,cr_ffgsm,pgd", "--options", "loss=gap", "--steps", "2"]
    black = ["--attack", "random_search,cr_random_search", "--options", "loss=gap", "--queries", "25"]
    for name, options in (("white", white), ("black", black)):
        found = run(package, tmp_path, "-m", "segradius", "attack", *common, *options, "--out", name)
        assert found.returncode == 0, found.stdout + found.stderr
        with (tmp_path / name / "per_image.csv").open() as file:
            attacked = {row["attack"] for row in csv.DictReader(file)}
        assert set(options[1].split(",")) <= attacked


def test_without_the_package_the_names_are_unknown():
    for call, name in (
        (lambda: sr.make_attack("ffgsm"), "ffgsm"),
        (lambda: sr.make_attack("cr_random_search"), "cr_random_search"),
        (lambda: sr.make_attack("pgd", loss="gap"), "gap"),
        (lambda: open_data("kitti:."), "kitti"),
        (lambda: load_model("exported:model.pt2"), "exported"),
    ):
        with pytest.raises(InputError, match=f"unknown [a-z ]+ '{name}'"):
            call()
