"""The page of ``segradius report`` as people use it, in one Chromium for all of these tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from report import pages
from segradius.core.escapes import visible
from segradius.evaluation.folders import run_folders
from segradius.report.story import read_story
from segradius.report.webpage import webpage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose names are hostile, with a certificate; and of a second model."""
    place = tmp_path_factory.mktemp("page")
    bad = {"name": pages.HOSTILE[0], "verdict": "fail", "text": pages.HOSTILE[1], "advice": pages.HOSTILE[2]}
    images = [f"{name} {k}" for k in range(2) for name in pages.HOSTILE[:3]]
    runs = [
        pages.attacked(
            place / "<i>first", classes=pages.HOSTILE, images=images, verdicts=[bad], model=pages.HOSTILE[1]
        ),
        pages.certified(place / "certified", model=pages.HOSTILE[1]),
        pages.attacked(place / "other", model="other", predicted=True, traces=False, command='it\'s; rm -rf "$HOME"'),
    ]
    page = place / "report.html"
    page.write_text(webpage([read_story(run) for run in run_folders(runs)], title=pages.HOSTILE[0]), "utf-8")
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as run:
        found = run.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@contextmanager
def looked_at(browser: Any, file: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """The page, as wide and as dark as a test asks; whatever it complains of or asks for is a failure."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(10_000)
    wrong: list[str] = []
    page = context.new_page()
    page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
    page.route(
        lambda url: not url.startswith(("file:", "data:", "blob:")),
        lambda route: (wrong.append(route.request.url), route.abort()),
    )
    page.goto(file.as_uri())
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def opened(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, just opened."""
    with looked_at(browser, file, **getattr(request, "param", {})) as page:
        yield page


@pytest.fixture(scope="module")
def used(browser: Any, file: Path) -> Iterator[Any]:
    """The page, as another test may have left it."""
    with looked_at(browser, file) as page:
        yield page


PIXELS = """() => {
    const [shown, seen] = [document.querySelector('.stage canvas'), document.createElement('canvas')];
    [seen.width, seen.height] = [shown.width, shown.height];
    const context = seen.getContext('2d', { willReadFrequently: true });
    context.drawImage(shown, 0, 0);
    return [...context.getImageData(0, 0, seen.width, seen.height).data];
}"""


def at(page: Any, x: int, y: int) -> list[int]:
    """The colour of a pixel of the first image."""
    place = 4 * (32 * y + x)
    found: list[int] = page.evaluate(PIXELS)[place : place + 3]
    return found


def look_through(page: Any) -> None:
    for section in page.query_selector_all("section:visible"):
        section.scroll_into_view_if_needed()
        page.wait_for_timeout(30)


@pytest.mark.parametrize(
    "opened", [{"width": w, "scheme": s} for w in (1280, 390) for s in ("light", "dark")], indirect=True
)
def test_all_of_it_can_be_seen_without_scrolling_sideways(opened: Any):
    look_through(opened)
    opened.wait_for_selector(".stage canvas")
    opened.wait_for_selector(".plot .main-svg")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_hostile_names_are_text_and_nothing_else(used: Any):
    look_through(used)
    used.wait_for_selector(".stage canvas")
    seen = used.inner_text("body")
    for name in pages.HOSTILE:
        assert visible(name) in seen
    drawn = "".join(used.locator(".plot svg").all_text_contents())
    assert "ε" in drawn
    assert used.evaluate("window.harm") is None
    assert used.locator("img[onerror], b[onclick], script[src], i:text('first')").count() == 0
    assert used.title() == pages.HOSTILE[0]


def test_what_is_wrong_stands_above_the_first_figure(used: Any):
    used.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    alarm, plot = used.locator(".alarm.fail").first, used.locator(".plot").first
    assert alarm.bounding_box()["y"] < plot.bounding_box()["y"] < 900


def test_the_slider_shows_more_of_the_unattacked_image(used: Any):
    used.locator(".lens").first.scroll_into_view_if_needed()
    used.click("[data-mode=none]")
    slider = used.locator(".slide").first
    slider.focus()
    used.keyboard.press("End")
    clean = used.evaluate(PIXELS)
    used.keyboard.press("Home")
    attacked = used.evaluate(PIXELS)
    for _ in range(50):
        used.keyboard.press("ArrowRight")
    half, width = used.evaluate(PIXELS), 4 * used.evaluate("document.querySelector('.stage canvas').width")
    assert slider.input_value() == "50"
    assert clean != attacked
    for row in range(0, len(half), width):
        assert half[row : row + width // 2] == clean[row : row + width // 2]
        assert half[row + width // 2 : row + width] == attacked[row + width // 2 : row + width]


def test_a_pixel_is_told_by_pointer_and_by_keyboard(used: Any):
    used.locator(".lens").first.scroll_into_view_if_needed()
    canvas = used.locator(".stage canvas").first
    canvas.scroll_into_view_if_needed()
    box, readout = canvas.bounding_box(), used.locator(".readout").first
    canvas.hover(position={"x": 8.5 / 32 * box["width"], "y": 18.5 / 24 * box["height"]})
    names = [visible(name) for name in pages.HOSTILE]
    assert f"label: {names[0]} · before: {names[0]} · after: {names[3]}" in readout.inner_text()
    canvas.hover(position={"x": 24.5 / 32 * box["width"], "y": 5.5 / 24 * box["height"]})
    assert f"label: {names[1]} · before: {names[1]} · after: {names[1]} · radius: 0.24" in readout.inner_text()
    canvas.hover(position={"x": 1, "y": 1})
    assert "x 0, y 0 · label: void" in readout.inner_text()
    canvas.focus()
    used.keyboard.press("Shift+ArrowRight")
    used.keyboard.press("ArrowDown")
    assert "x 10, y 1 · label: <script>" in readout.inner_text()


def test_overlays_have_the_colours_of_their_classes(used: Any):
    used.locator(".lens").first.scroll_into_view_if_needed()
    used.click("[data-mode=label]")
    used.locator(".opacity").first.fill("100")
    assert [at(used, 8, 12), at(used, 24, 12)] == [list(each) for each in pages.PALETTE[:2]]
    used.click("[data-mode=changed]")
    used.locator(".stage canvas").first.scroll_into_view_if_needed()
    assert at(used, 8, 20) == [213, 94, 0]


def test_tables_are_sorted_by_number_both_ways_and_what_is_not_known_stands_last(used: Any):
    head = used.locator("#tables0 th", has_text="PixAcc %").first
    column = (
        "() => [...document.querySelectorAll('#tables0 table')[0].tBodies[0].rows].map(row => row.cells[6].textContent)"
    )
    head.locator("button").click()
    down = [float(each.split()[0]) for each in used.evaluate(column)]
    head.locator("button").press("Enter")
    up = [float(each.split()[0]) for each in used.evaluate(column)]
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert head.get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("granted", [True, False])
def test_a_row_gives_the_command_that_made_it(opened: Any, granted: bool):
    if not granted:
        opened.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    opened.evaluate("document.addEventListener('copy', () => { window.taken = String(document.activeElement.value) })")
    if granted:
        opened.evaluate("navigator.clipboard.writeText = async (words) => { window.taken = words }")
    opened.click("[role=tab] >> nth=1")
    opened.locator("#tables1 .copy").first.click()
    opened.wait_for_selector("#said:not(:empty)")
    assert opened.inner_text("#said") == "Copied the command."
    assert opened.evaluate("window.taken") == 'it\'s; rm -rf "$HOME"'


def test_models_are_changed_by_the_keyboard_and_stability_is_named_so(opened: Any):
    tab = opened.locator("[role=tab]").first
    tab.focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("[role=tab]").nth(1).get_attribute("aria-selected") == "true"
    assert opened.locator("[role=tabpanel]:visible").count() == 1
    shown = opened.inner_text("#subject1")
    assert "stability" in shown
    assert "kept" in shown
    assert "PixAcc" not in shown


def test_dark_is_chosen_by_a_button_and_print_is_light(opened: Any):
    opened.click("#theme")
    assert opened.get_attribute("#theme", "aria-pressed") == "true"
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    opened.emulate_media(media="print")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.locator("[role=tabpanel]:visible").count() == 2
    assert opened.pdf().startswith(b"%PDF")


def test_a_figure_changes_what_it_shows_and_every_attack_can_be_looked_at(used: Any):
    figure = used.locator(".plot").first
    figure.locator("[data-choice=MIoU]").click()
    assert "MIoU, %" in "".join(figure.locator("svg").all_text_contents())
    select = used.locator("#lens0")
    select.scroll_into_view_if_needed()
    for option in json.loads(used.inner_text("#facts") or used.text_content("#facts"))["subjects"][0]:
        select.select_option(label=option["label"])
        used.wait_for_selector(".strip img >> nth=1")
        assert used.locator(".classes").first.locator("tbody tr").count() == 4
    used.locator("#attack0 .every summary").click()
    used.wait_for_selector("#attack0 .images tbody tr >> nth=5")
