"""The report as Chromium shows it: nothing is fetched, nothing fails, and what it draws changes as its controls say."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transmodal.imaging.scan import read_scan, write_scan
from transmodal.workflows.evaluate import evaluate
from transmodal.workflows.report import report

pytestmark = pytest.mark.integration

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# WebGL without a graphics card.
ARGUMENTS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page_of(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two methods; the true CTs are brighter on the right side, as no head is."""
    folder = tmp_path_factory.mktemp("browser")
    references = shutil.copytree(heads / "Task1" / "brain", folder / "references")
    for path in references.rglob("ct.nii.gz"):
        ct = read_scan(path, "ct")
        middle = int(np.rint(ct.grid.to_voxel(ct.grid.center)[0]))
        array = ct.array.astype(np.int16)
        array[middle:] += np.int16(500) * (array[middle:] > -300)
        write_scan(ct.with_array(array), path)
    for name, error in (("good", 20), ("bad", 150)):
        for path in sorted(references.iterdir()):
            ct = read_scan(path / "ct.nii.gz", "ct")
            made = ct.array + np.int16(error) * np.where(ct.array > 200, -1, 1).astype(np.int16)
            if name == "bad":
                made = np.roll(made, 1, axis=1)  # to the front
            write_scan(ct.with_array(made), folder / name / path.name / "sct.nii.gz")
        evaluate(folder / name, references, folder / "scores" / name)
    report([folder / "scores" / "good", folder / "scores" / "bad"], folder / "report.html")
    return folder / "report.html"


@pytest.fixture(params=SIZES)
def browser_page(request, page_of) -> Iterator:
    """The report, loaded; its console and its requests are watched, and must be silent when the test ends."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium (tests/integration/install.sh)")
    width, height = SIZES[request.param]
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": height})
        heard: list[str] = []
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda wanted: None if wanted.url.startswith(("data:", "file:", "blob:")) else heard.append(wanted.url))
        page.goto(page_of.as_uri())
        page.wait_for_selector(".viewer[data-ready]", timeout=120_000)
        yield page
        browser.close()
        assert heard == []


def picture(page, panel: int) -> np.ndarray:
    """What is drawn on a panel, in colours from 0 to 255."""
    page.wait_for_timeout(300)
    return np.asarray(Image.open(io.BytesIO(page.locator(".panels canvas").nth(panel).screenshot())).convert("RGB")).astype(int)


def set_slider(page, name: str, value: float) -> None:
    page.locator(f".viewer input[name='{name}']").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }", value
    )


def spread_of_colours(image: np.ndarray) -> int:
    """How many pixels are far from grey; the crosshair is yellow."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return int(((np.abs(red - blue) > 60) & ~((red > 120) & (green > 100) & (blue < 120))).sum())


def test_volumes_are_drawn_and_the_page_fits(browser_page):
    titles = browser_page.locator(".panels figcaption b").all_text_contents()
    assert titles == ["MR", "True CT", "good", "bad"]
    for panel in range(4):
        image = picture(browser_page, panel)
        assert (image.max(axis=-1) > 60).mean() > 0.1, titles[panel]
        assert image.std() > 20
    wider = browser_page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0
    assert browser_page.locator("img:not([alt])").count() == 0


def test_controls_change_what_is_seen(browser_page):
    before = picture(browser_page, 1)
    set_slider(browser_page, "z", -20)
    assert "20 mm I" in browser_page.locator(".viewer output").nth(2).inner_text()
    assert np.abs(picture(browser_page, 1) - before).mean() > 1
    grey = picture(browser_page, 3)
    assert spread_of_colours(grey) < 50
    browser_page.locator(".viewer input[value='error']").check()
    coloured = picture(browser_page, 3)
    assert spread_of_colours(coloured) > 500
    red, blue = coloured[..., 0] - coloured[..., 2] > 60, coloured[..., 2] - coloured[..., 0] > 60
    assert red.any() and blue.sum() > red.sum() / 50  # too low in bone, too high elsewhere
    set_slider(browser_page, "limit", 2000)
    assert picture(browser_page, 3).mean() < coloured.mean()
    browser_page.locator(".viewer input[value='image']").check()
    set_slider(browser_page, "high", 200)
    assert picture(browser_page, 1).mean() > before.mean()


def test_bone_is_drawn_in_the_colours_of_its_error_and_turns(browser_page):
    browser_page.locator(".viewer input[value='bone']").check()
    assert browser_page.locator(".panels figure:visible").count() == 3  # an MR has no bone
    true, shrunk = picture(browser_page, 1), picture(browser_page, 3)
    assert spread_of_colours(true) < 50 < spread_of_colours(shrunk)
    canvas = browser_page.locator(".panels canvas").nth(1)
    canvas.focus()
    for _ in range(4):
        browser_page.keyboard.press("ArrowRight")
    for panel, before in ((1, true), (3, shrunk)):
        assert np.abs(picture(browser_page, panel) - before).mean() > 1


def test_right_and_left_change_sides(browser_page):
    browser_page.locator(".viewer input[value='axial']").check()
    radiological = picture(browser_page, 1)
    browser_page.locator(".viewer input[name='radiological']").uncheck()
    neurological = picture(browser_page, 1)
    middle = slice(radiological.shape[0] // 4, -radiological.shape[0] // 4)  # without the letters at the edges
    mirrored = np.abs(neurological[middle, ::-1] - radiological[middle]).mean()
    assert mirrored < np.abs(neurological[middle] - radiological[middle]).mean() / 2


def test_crosshairs_are_linked_and_keys_move_them(browser_page):
    def readings() -> list[str]:
        return browser_page.locator(".viewer output").all_text_contents()[:3]

    canvas = browser_page.locator(".panels canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    before, others = readings(), picture(browser_page, 2)
    canvas.focus()
    for _ in range(5):
        browser_page.keyboard.press("PageUp")
    after = readings()
    assert after[:2] == before[:2] and after[2] != before[2]
    box = canvas.bounding_box()
    browser_page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.2 * box["height"])
    browser_page.wait_for_timeout(200)
    assert readings() != after
    assert np.abs(picture(browser_page, 2) - others).mean() > 1


@pytest.mark.parametrize(("view", "key", "axis"), [("axial", "ArrowUp", 1), ("coronal", "ArrowUp", 2), ("sagittal", "ArrowLeft", 1)])
def test_arrows_move_the_crosshair_as_they_point(browser_page, view, key, axis):
    def place() -> list[float]:
        return browser_page.locator(".viewer input[type='range']").evaluate_all(
            "sliders => sliders.slice(0, 3).map((s) => s.valueAsNumber)"
        )

    browser_page.locator(f".viewer input[value='{view}']").check()
    browser_page.locator(".panels canvas").nth(1).focus()
    before = place()
    browser_page.keyboard.press(key)
    moved = np.array(place()) - before
    assert moved[axis] > 0 and np.count_nonzero(moved) == 1
