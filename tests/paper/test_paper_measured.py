"""What is read of a study's folders is what its reports say, packed or not."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rooms import BLOCK, room

import segradius as sr
from segradius.cli.commands import main
from segradius.core.errors import DamagedError, InputError
from segradius.evaluation.attack_summary import Row
from segradius.metrics.counts import Pixels
from segradius.paper.block import Block
from segradius.paper.measured import Measured, Seen, measured, miou_of
from segradius.paper.packed import read_packed, write_packed
from segradius.paper.plan import parts
from segradius.paper.scale import Scale

QUERIED: dict[str, Any] = {
    "about": "a black box",
    "networks": {"role": "plain"},
    "study": {
        "seeds": [0, 1],
        "budgets": {"eps": "l2=2"},
        "attacks": {"PBGD": {"attack": "pbgd", "queries": 6}},
    },
}
AIMED: dict[str, Any] = {
    "about": "with an aim",
    "networks": {"role": "plain"},
    "study": {"budgets": {"eps": "l2=2"}, "attacks": {"to": {"attack": "pgd", "steps": 2, "aim": "sky"}}},
}
CERTIFIED: dict[str, Any] = {
    "about": "certificates",
    "networks": {"role": "plain"},
    "images": {"limit": 1},
    "study": {"certify": {"n0": 5, "n": 60}, "sweeps": {"certify.sigma": [0.1, 0.2]}},
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scale, dict[str, Block], Path]:
    """The folder of all scales, the scale, its blocks, and the study's folder of ``white``; all measured."""
    folder = tmp_path_factory.mktemp("measured")
    place = room(folder / "room", blocks_queried=QUERIED, blocks_aimed=AIMED, blocks_certified=CERTIFIED)
    scale, out = Scale.read("demo", place), folder / "out"
    blocks = {name: Block.read(name, scale, place) for name in ("white", "queried", "aimed", "certified")}
    for block in blocks.values():
        for part in parts(block, scale, out):
            file = folder / f"{block.name}.yaml"
            file.write_text(json.dumps(part.study), "utf-8")
            assert main(["run", str(file), "--out", str(out / "demo" / part.name), "--figures", "0"]) == 0
    return out, scale, blocks, out / "demo" / "white" / "scenes"


@pytest.fixture(scope="module")
def found(there: tuple[Path, Scale, dict[str, Block], Path]) -> Measured:
    out, scale, blocks, _ = there
    return measured(out, scale, blocks.values())


def test_rows_are_those_of_per_image_csv(there: tuple[Path, Scale, dict[str, Block], Path], found: Measured) -> None:
    mine = {(it.attack, *sorted(it.options.items()), it.eps, it.image): it for it in found.seen if it.block == "white"}
    named = {
        "clean": ("",),
        "PGD": ("PGD",),
        "CR samples=1": ("CR", ("samples", 1)),
        "CR samples=2": ("CR", ("samples", 2)),
    }
    lines = sr.load_results(there[3]).per_image()
    assert len(lines) == len(mine) == 2 * (1 + 3 * 2)
    for line in lines:
        it = mine[*named[str(line["attack"])], line["eps"], line["image"]]
        assert (it.right, it.labelled) == (line["right"], line["pixels"])
        assert (it.forward, it.backward) == (line["forward"], line["backward"])
        assert (it.network, it.family, it.role, it.seed, it.data) == ("a-0", "a", "plain", 0, "scenes")
        assert it.norm == line["norm"]


def test_the_papers_miou_follows_from_rows(there: tuple[Path, Scale, dict[str, Block], Path], found: Measured) -> None:
    for row in sr.load_results(there[3]).rows:
        assert isinstance(row, Row)
        if row.name in ("clean", "PGD"):
            label = "" if row.name == "clean" else "PGD"
            mine = [
                it for it in found.seen if (it.block, it.attack) == ("white", label) and it.eps == (row.eps or None)
            ]
            total = math.fsum(it.miou * it.classes for it in mine) / sum(it.classes for it in mine)
            assert total == pytest.approx(row.miou_image.value, abs=1e-8)


def test_miou_of_an_image_by_hand() -> None:
    # classes 0: IoU 1/2, 1: absent from both, 2: predicted alone, IoU 0
    assert miou_of(Pixels([1, 0, 0], [1, 0, 1], [2, 0, 0])) == (2, 0.25)
    assert math.isnan(miou_of(Pixels([0], [0], [0]))[1])


def test_seeds_of_a_block_are_options_and_images_unattacked_count_once(found: Measured) -> None:
    queried = [it for it in found.seen if it.block == "queried"]
    assert [it.options for it in queried if it.attack] == [{"seed": 0}] * 2 + [{"seed": 1}] * 2
    assert len([it for it in queried if not it.attack]) == 2


def test_of_an_aim_pixels_that_reach_it_are_told(found: Measured) -> None:
    aimed = [it for it in found.seen if it.block == "aimed" and it.attack]
    assert all(it.eligible and it.reached is not None and 0 <= it.reached <= it.eligible for it in aimed)
    assert {it.reached for it in found.seen if it.block == "white"} == {None}


def test_traces_grow_and_end_with_the_last_query(found: Measured) -> None:
    for seed in (0, 1):
        for image in {it.image for it in found.seen}:
            queries = [it.queries for it in found.traced if it.options == {"seed": seed} and it.image == image]
            assert queries == sorted(queries)
            assert 0 < queries[-1] <= 6


def test_certificates_are_told_by_what_was_swept(found: Measured) -> None:
    sigmas = {it.options["sigma"]: it for it in found.certified if it.answer == "segcertify"}
    assert set(sigmas) == {0.1, 0.2}
    assert all(it.copies == 65 and it.right + it.abstained <= it.labelled for it in sigmas.values())


def test_what_the_block_does_not_ask_for_any_more_is_left_out(
    there: tuple[Path, Scale, dict[str, Block], Path],
) -> None:
    out, scale, blocks, _ = there
    fewer = replace(
        blocks["white"], study={**BLOCK["study"], "sweeps": {"CR.samples": [1]}, "budgets": {"eps": "l2=1,2"}}
    )
    found = measured(out, scale, [fewer])
    assert {it.options.get("samples") for it in found.seen} == {None, 1}


def test_packed_results_are_the_same_rows(
    there: tuple[Path, Scale, dict[str, Block], Path], found: Measured, tmp_path: Path
) -> None:
    boxes = there[0] / "demo" / "boxes"
    boxes.mkdir(exist_ok=True)
    (boxes / "a.npz").write_bytes(b"arrays")
    whole = replace(found, computed={"boxes": {"a": [1.5, None]}}, folders={**found.folders, ("boxes", ""): boxes})
    assert write_packed(whole, "demo", tmp_path, {"versions": {"torch": "2"}}) == []
    again, about = read_packed(tmp_path, "demo")
    assert about["versions"] == {"torch": "2"}

    def rows(kind: str, of: Measured) -> list[str]:
        return sorted(map(repr, getattr(of, kind)))  # as NaN is not equal to itself

    for kind in ("seen", "certified", "traced"):
        assert rows(kind, again) == rows(kind, whole)
        assert rows(kind, whole)
    assert again.computed == whole.computed
    assert (again.folders["boxes", ""] / "a.npz").read_bytes() == b"arrays"


def test_blocks_that_are_packed_no_more_go(found: Measured, tmp_path: Path) -> None:
    write_packed(found, "demo", tmp_path, {})
    write_packed(found.of(["white"]), "demo", tmp_path, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["SHA256SUMS", "about.json", "white.images.csv"]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "white.images.csv").read_text())))
    assert (lines[0]["attack"], lines[0]["eps"], lines[0]["options"]) == ("", "", "")


def test_packed_results_that_were_changed_or_of_another_scale_are_refused(found: Measured, tmp_path: Path) -> None:
    write_packed(found, "demo", tmp_path, {})
    with pytest.raises(InputError, match="is of scale demo; expected light"):
        read_packed(tmp_path, "light")
    table = tmp_path / "white.images.csv"
    table.write_text(table.read_text().replace("a-0,scenes", "a-0,scenes ", 1))
    with pytest.raises(DamagedError, match=r"white\.images\.csv is damaged or was changed"):
        read_packed(tmp_path, "demo")
    with pytest.raises(InputError, match=r"has no about\.json"):
        read_packed(tmp_path / "nowhere", "demo")


def test_rows_are_told_of_one_block_or_another(found: Measured) -> None:
    assert {it.block for it in found.of(["white"]).seen} == {"white"}
    assert isinstance(found.of(["white"]).seen[0], Seen)
    assert set(found.of(["queried"]).folders) == {("queried", "scenes")}


def test_unfinished_measurements_are_left_out(
    there: tuple[Path, Scale, dict[str, Block], Path], tmp_path: Path
) -> None:
    _, scale, blocks, _ = there
    assert measured(tmp_path, scale, blocks.values()).seen == ()
