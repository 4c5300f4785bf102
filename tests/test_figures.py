"""Figures of the documentation are those of the committed data: marked tables whole, others value by value.

Intervals stand in the data of certificates, and are compared; those of black-box attacks are made of the images anew.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
Lines = list[list[str]]


@pytest.fixture(scope="module")
def tables() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "studies"))
        yield importlib.import_module("tables")


def test_marked_tables_are_what_their_data_say(tables: ModuleType) -> None:
    """After a change, `python studies/tables.py write` makes them anew."""
    found = [each for page in tables.pages() for each in tables.marked(page)]
    assert [f"{each.page.name}: {each.what}" for each in found if each.found != each.expected] == []
    for page in {each.page for each in found}:
        lost = [each for each in found if each.page == page and not each.has_data]
        assert ("not kept" in page.read_text("utf-8")) == bool(lost), f"{page.name} says whether its data are there"


def test_every_run_is_a_command_and_leaves_no_path_of_a_machine(tables: ModuleType) -> None:
    for file in (DOCS / "data").glob("*/runs.yaml"):
        listed = yaml.safe_load(file.read_text("utf-8"))["runs"]
        given = {name: "X" for name in ("camvid", "weights", "undefended", "networks", "card")}
        argued = ",".join(f"{name}={value}" for name, value in given.items())
        assert tables.run(file.parent.name, argued, show=True) == 0
        for folder in (path for path in file.parent.iterdir() if path.is_dir()):
            assert folder.name in listed
            assert not [
                f for f in folder.iterdir() if re.search(r"[\": ]/(tmp|home|work|root|usr)/", f.read_text("utf-8"))
            ]


def page_table(page: str, *header: str, after: str = "") -> Lines:
    """Rows of the first table whose header begins so, below some words; bold marks dropped."""
    text = (DOCS / f"{page}.md").read_text("utf-8")
    lines = text[text.index(after) :].replace("**", "").splitlines()
    cells = [[cell.strip() for cell in line[1:-1].split("|")] if line.startswith("|") else [] for line in lines]
    first = next(k for k, row in enumerate(cells) if row[: len(header)] == list(header))
    end = next((k for k in range(first, len(cells)) if not cells[k]), len(cells))
    return cells[first + 2 : end]


def values(rows: Lines) -> Lines:
    """Without the intervals."""
    return [[re.sub(r" [\[(].*[\])]", "", cell) for cell in row] for row in rows]


def data(name: str) -> Any:
    return json.loads((DOCS / "data" / f"{name}.json").read_text("utf-8"))


def percent(found: dict[str, float]) -> str:
    low, high = (f"{100 * found[end]:.1f}" for end in ("low", "high"))
    return f"{100 * found['value']:.1f} [{low}, {high}]"


# Certificates


def test_simulated_coverage() -> None:
    line = "{shared:g}|{certificate}|{error:.4f}|[{low:.4f}, {high:.4f}]|{false_share:.5f}|{power:.3f}|{copies:.0f}"
    expected = [line.format(**row).split("|") for row in data("certification/coverage")["rows"]]
    assert page_table("certification-results", "shared noise") == expected


def test_certified_against_exact_radii() -> None:
    line = "{certificate}|{certified:.3f}|{above}|{least:.4f}|{median:.4f}|{largest:.4f}|{within_5_percent:.3f}"
    expected = [
        [*line.format(**row).split("|"), "none" if row["band"] is None else "{:.2f}, {:.2f}".format(*row["band"])]
        for row in data("certification/linear")["rows"]
    ]
    assert page_table("certification-results", "certificate", "certified") == expected


def test_certificates_on_camvid() -> None:
    names = {"smoothed": "smoothed, uncertified", "segcertify": "certified", "radii": "certified, own radii"}
    expected = []
    for run in data("certification/camvid"):
        for row in (row for row in run["rows"] if row["name"] in names):
            abstained = "" if row["name"] == "smoothed" else percent(row["abstained"])
            about = [run["network"], f"{run['sigma']:g}", str(run["n"]), str(run["images"]), names[row["name"]]]
            expected.append([*about, percent(row["pixacc"]), percent(row["miou"]), abstained])
    assert page_table("certification-results", "network", "σ") == expected


def test_votes_against_mean_confidences() -> None:
    expected = []
    for name, row in data("certification/soft")["rows"].items():
        shares = [f"{100 * row[part] / row['pixels']:.1f}" for part in ("certified", "right")]
        expected.append([name.lower(), *shares, f"{row['radius'] / row['right']:.4f}"])
    found = page_table("certification-results", "certificate", "certified %")
    assert [[name.lower(), *rest] for name, *rest in found] == expected


def test_what_every_certificate_costs() -> None:
    expected = []
    for row in data("certification/costs")["rows"]:
        over = row["seconds"] / row["bare"]
        told = f"{over:.2f}" if row["passes"] else f"+{over:.4f}"
        axes = ("side", "classes", "n")
        grown = [f"{row['growth'][axis]:.2f}" for axis in axes]
        grown += ["" if row["memory_growth"][axis] is None else f"{row['memory_growth'][axis]:.2f}" for axis in axes]
        expected.append(
            [row["name"], f"{row['seconds']:.4f}", str(row["passes"] or ""), told, f"{row['memory']:.0f}", *grown]
        )
    assert page_table("certification-results", "certificate", "seconds") == expected


def test_groups_early_stopping_and_regions() -> None:
    named: dict[tuple[str, str], tuple[Any, str]] = {}
    for run in data("certification/beyond"):
        region = "noise in the middle quarter only"
        if run["hierarchy"]:
            named["gaussian", "`--n0 100 --n 1000`"] = run, "segcertify"
            named["gaussian", "with `--hierarchy examples/camvid_groups.yaml`"] = run, "adaptive"
        elif run["early_stop"]:
            named["gaussian", "with `--early-stop 0.1`"] = run, "segcertify"
        elif run["region"]:
            label = region if run["network"] == "gaussian" else f"{region} (`--region`)"
            named[run["network"], label] = run, "segcertify"
        else:
            named[run["network"], "`--n0 20 --n 250`"] = run, "segcertify"
    for network, options, pixacc, miou, abstained, copies in page_table("certification-results", "network", "options"):
        run, answer = named.pop((network, options))
        row = next(row for row in run["rows"] if row["name"] == answer)
        assert (pixacc, abstained) == (percent(row["pixacc"]), percent(row["abstained"]))
        assert miou == ("–" if row["miou"]["value"] is None else f"{100 * row['miou']['value']:.1f}")
        assert copies == f"{run['copies']:,.0f}"
    assert not named


def test_attacked_inside_the_radius() -> None:
    counts = ("images", "pixels", "flipped", "lost", "below", "images_lost", "images_below")
    expected = []
    for row in data("certification/crosscheck")["rows"]:
        for name, each in row["summaries"].items():
            used = "–" if each["used"] is None else f"{each['used']:.2f}"
            caught = [fault.partition(",")[0] for fault in row["refuted"] if fault.endswith(f", {name}")]
            cells = [str(each[count]) for count in counts]
            expected.append(
                [f"{row['subject']}: {row['certifier']}, {name}", *cells, used, " and ".join(caught) or "no"]
            )
    assert page_table("certification-results", "subject, certifier, verdict") == expected


def test_segcertify_as_a_defence() -> None:
    expected = [
        [
            *(percent(row["pixacc"][name]) for name in ("network", "smoothed", "certified")),
            f"{100 * row['abstained']:.1f}",
        ]
        for row in data("certification/defence")["rows"]
    ]
    assert [row[1:] for row in page_table("certification-results", "attack", "network %")] == expected


CLEVER = {
    "none": "no attack", "PGD": "PGD", "CR-PGD, M = 8": "CR-PGD", "smoothing at x, weights kept": "smoothing",
    "CLEVER 10, 32 at x, weights kept": "CLEVER (10, 32)", "CLEVER 10, 1 at x, weights kept": "CLEVER (10, 1)",
    "CLEVER 10, 1, refreshed every 8 steps": "CLEVER (10, 1), refreshed",
}  # fmt: skip


def test_clever_guides_pgd() -> None:
    rows = values(page_table("certification-results", "attack", "120 × 160, ε = 0.75, n = 4"))
    for column, name in enumerate(("clever", "clever-240x320"), start=1):
        images = data(f"certification/{name}")["images"]
        for row in rows:
            label = CLEVER[row[0]]
            if label not in images[0]["right"]:
                assert row[column] == "not run"
                continue
            share = sum(each["right"][label] for each in images) / sum(each["pixels"] for each in images)
            assert row[column] == f"{100 * share:.1f}", row[0]


def test_clever_ranks_pixels() -> None:
    images = data("certification/clever")["images"]
    for label, *cells in page_table("certification-results", "radius", "with smoothing of 256 copies"):
        name = {"smoothing, M = 8": "smoothing"}.get(label, re.sub(r"CLEVER, (.*)", r"CLEVER (\1)", label))
        for cell, other in zip(cells, ("smoothing", "slope", "PGD"), strict=True):
            found = [each["ranks"][name][other] for each in images]
            digits = 3 if cell == "1.000" else 2
            span = "" if digits == 3 else f" ({min(found):.2f} to {max(found):.2f})".replace("-", "−")
            assert cell == f"{mean(found):.{digits}f}{span}"


# Black-box attacks


def left(name: str, queries: int) -> str:
    """Pooled accuracy after so many queries."""
    curves = data(f"black-box/{name}")["curves"]
    right = sum(each["right"][str(queries)] for each in curves)
    return f"{100 * right / sum(each['pixels'] for each in curves):.1f}"


CURVES = {
    "l2": (
        (12, 24, 50, 100, 200, 400, 800, 2000, 4000),
        ("pbgd", "cr_pbgd", "nes", "opge", "square", "simba", "local_200", "local_400", "local_800", "local_2000"),
    ),
    "linf": ((12, 24, 50, 100, 200, 400), ("pbgd", "cr_pbgd", "local", "local_400", "search")),
    "l1": ((12, 24, 50, 100, 200), ("pbgd", "cr_pbgd", "local")),
}


AFTER = {"l2": "**l2, ε = 10**", "linf": "**l∞, ε = 0.05**", "l1": "**l1, ε = 10000**"}


@pytest.mark.parametrize("norm", CURVES)
def test_accuracy_against_queries(norm: str) -> None:
    marks, names = CURVES[norm]
    rows = values(page_table("black-box", "attack", "12", after=AFTER[norm]))
    assert len(rows) == len(names)
    for name, (_, *cells) in zip(names, rows, strict=True):
        for queries, cell in zip(marks, cells, strict=False):
            assert cell == "" or cell == left(f"{norm}/{name}", queries), f"{name} at {queries}"
            assert cell or queries > data(f"black-box/{norm}/{name}")["queries"]


def test_one_thing_at_a_time() -> None:
    for _, label, *cells in page_table("black-box", "changed", "label"):
        name = "old_defaults" if label == "`local_200`" else label.strip("`")
        assert cells == [left(f"ablation/{name}", queries) for queries in (50, 100, 200)], label


def test_defaults_of_local_pbgd() -> None:
    labels = {
        "nothing": "old_defaults",
        "window of 33": "window_33",
        "low frequencies": "low_frequencies",
        "both": "window_33_low",
    }
    for label, *cells in page_table("black-box", "changed", "l2"):
        assert cells == [left(f"defaults/{norm}-{labels[label]}", 200) for norm in ("l2", "linf", "l1")]


def test_with_and_without_gradients() -> None:
    for attack, price, cell in page_table("black-box", "attack", "passes or queries an image"):
        queries = int(re.sub(r"\D", "", price)) if "queries" in price else 200
        names: dict[str, str | Sequence[str]] = {
            "CR-PGD (T = 50, M = 8)": "white_cr_pgd", "flip_pgd (T = 50)": "white_flip_pgd", "SimBA": "simba",
            "CR-PBGD": "cr_pbgd", "local_pbgd": f"local_{queries}",
        }  # fmt: skip
        assert cell == left(f"l2/{names[attack]}", queries), attack


# Time


def test_what_the_loop_costs() -> None:
    measured = {row["name"]: row for row in data("overhead/camvid")["rows"]}
    names = {
        "segradius `pgd`, l∞": "segradius pgd linf", "segradius `pgd`, l2": "segradius pgd l2",
        "segradius `cr_pgd`, `samples=0`": "segradius cr_pgd l2, samples=0",
        "segradius `cr_pgd`, M = 8, INT = 8, bfloat16": "segradius cr_pgd l2, M=8 INT=8 bfloat16",
        "torchattacks PGDL2": "torchattacks PGDL2",
    }  # fmt: skip
    expected = []
    for label, name in names.items():
        row = measured[name]
        times = [f"{row[part]:.3f}" for part in ("ratio", "low", "per_pass")]
        expected.append([label, f"{row['forward']} + {row['backward']}", *times])
    assert page_table("results", "", "passes f + b") == expected
