"""How large the page of ``segradius report`` is, how long it takes to make, and how long a browser needs to open it.

    python benchmarks/report_page.py --images 300 --jobs 20 --out page.json

The runs are made by hand, in the form of ``segradius attack``: so many images of 240 × 320 with noise that no picture
format makes small, 19 classes, jobs of two models in three norms, a gallery of three images most and least hurt a job,
and a trace of a black-box attack. Opened in headless Chromium, several times, from a disk: seconds until the load
event, until the first figure is drawn, and until the first image of a gallery is.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from report import pages
from segradius.evaluation.folders import run_folders
from segradius.report.story import read_story
from segradius.report.webpage import webpage


def measure(
    images: int = 300,
    jobs: int = 20,
    classes: int = 19,
    height: int = 240,
    width: int = 320,
    repeats: int = 5,
    out: str | None = None,
) -> None:
    """Print what a page takes, as JSON.

    Args:
        images: Of each run.
        jobs: Attacks at their budgets, of both models together.
        classes: Their number.
        height: Of the images.
        width: Of the images.
        repeats: How often the page is opened.
        out: File of the figures.
    """
    with tempfile.TemporaryDirectory() as place:
        runs = _runs(Path(place), images, jobs, classes, (height, width))
        begun = time.perf_counter()
        page = webpage([read_story(run) for run in run_folders(runs)])
        made = time.perf_counter() - begun
        file = Path(place) / "report.html"
        file.write_text(page, "utf-8")
        found = {"images": images, "jobs": jobs, "MB": len(page.encode()) / 1e6, "seconds to make": made}
        found |= _opened(file, repeats)
    text = json.dumps(found, indent=1)
    print(text)
    if out:
        Path(out).write_text(text)


def _runs(place: Path, images: int, jobs: int, classes: int, size: tuple[int, int]) -> list[Path]:
    names = tuple(f"val-{k:05}" for k in range(images))
    budgets = [(norm, eps) for norm in ("l2", "linf") for eps in (0.5 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)]
    plans = [(attack, *budget) for attack in ("pgd", "sea", "flip_apgd", "square") for budget in budgets]
    of_each = [plans[: jobs - jobs // 2], plans[: jobs // 2]]
    kinds = [f"class {k}" for k in range(classes)]
    return [
        pages.attacked(
            place / str(k), model=f"model {k}", plans=mine, images=names, classes=kinds, gallery=3, size=size, block=8
        )
        for k, mine in enumerate(of_each)
    ]


def _opened(file: Path, repeats: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    loads, figures, galleries = [], [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            begun = time.perf_counter()
            page.goto(file.as_uri(), wait_until="load")
            loads.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"))
            page.wait_for_selector(".plot .main-svg")
            figures.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            page.locator(".lens").first.scroll_into_view_if_needed()
            page.wait_for_selector(".stage canvas")
            galleries.append(time.perf_counter() - begun)
            page.close()
        browser.close()
    kinds = {"to the load event": loads, "to a figure": figures, "to a gallery, scrolled to": galleries}
    return {f"seconds {name}, median and worst": [statistics.median(each), max(each)] for name, each in kinds.items()}


if __name__ == "__main__":
    auto_cli(measure)
