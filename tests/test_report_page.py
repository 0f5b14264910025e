"""Pages in a real browser: they ask nothing of the network, fit two widths, and can be read without eyes or mouse."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.catalog import Column
from tests import universe
from tests.browser import Browser, chromium
from tests.ranked_catalogs import stamps_and_catalog
from tests.test_report import NASTY, made
from tests.test_report_kinds import classes, comparison, evaluation, studied
from workflows.cluster import cluster
from workflows.report import report

AXE = Path(os.environ.get("ASTROML_AXE", Path(__file__).parents[1] / ".axe/node_modules/axe-core/axe.min.js"))
"""Script of axe-core: `npm install --no-save --prefix .axe axe-core@4.14.1` puts it there."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
]
READY = "document.querySelectorAll('figure.chart .main-svg').length > 0"
DRAWN = "document.querySelectorAll('figure.chart .main-svg').length > 3"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with positions, labels of others and a column of numbers."""
    folder, rng, count = tmp_path_factory.mktemp("page"), np.random.default_rng(0), 2000
    columns = [
        Column("label", "string", "", "src.class"),
        Column("size", "float32", "<u>&$x_{"),
        Column("snr", "float64"),
    ]
    rows = {
        **{"label": [NASTY if k % 3 else "plain" for k in range(count)], "snr": rng.uniform(1, 99, count)},
        **{"size": rng.lognormal(0, 1, count), "ra": rng.uniform(0, 1, count), "dec": rng.uniform(0, 1, count)},
    }
    catalog = made(folder, columns, rows, count)
    report(catalog.url, out=str(folder / "p.html"), top=5)
    return folder / "p.html"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose objects have vectors, groups and stamps."""
    folder = tmp_path_factory.mktemp("mapped")
    _, catalog = stamps_and_catalog(folder, 120, colour=True)
    cluster(catalog.url, name="groups", clusters=3, bootstraps=2)
    report(catalog.url, out=str(folder / "p.html"), top=5)
    return folder / "p.html"


def a_survey(folder: Path) -> str:
    """A survey of two tiles on the sky."""
    universe.make_survey(str(folder / "s.zarr"), shape=(100, 150), tile_size=96, halo=16)
    return str(folder / "s.zarr")


SUBJECTS: dict[str, Callable[[Path], str]] = {
    "evaluation": lambda folder: evaluation(folder, {"catalog": classes()}),
    "study": studied,
    "survey": a_survey,
    "comparison": comparison,
    "stamps": lambda folder: universe.make_stamps(str(folder / "s.zarr"), count=40),
}
"""Kind of a page -> makes the thing that it is about."""


def opened(browser: Browser, page: Path, width: int, *, charts: str = DRAWN) -> None:
    """The page with all of its charts drawn, as the expression `charts` tells."""
    browser.events.clear()
    size = {"width": width, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", height=900, **size)
    browser.open(page.as_uri())
    browser.wait("document.readyState == 'complete'")
    height = browser.value("document.documentElement.scrollHeight")
    browser.command("Emulation.setDeviceMetricsOverride", height=int(height) + 100, **size)
    browser.wait(charts)


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_is_alone(browser: Browser, page: Path, width: int) -> None:
    opened(browser, page, width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert not browser.hosts()
    assert not browser.complaints()
    assert browser.value("document.querySelectorAll('b, i, u').length") == browser.value(
        "document.querySelectorAll('section[aria-labelledby=missing] b').length"
    )


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install --no-save --prefix .axe axe-core@4.14.1")
@pytest.mark.parametrize("subject", ["run", *SUBJECTS])
def test_axe_finds_nothing(browser: Browser, page: Path, subject: str, tmp_path: Path) -> None:
    if subject != "run":
        page, url = tmp_path / "p.html", SUBJECTS[subject](tmp_path)
        report(url, out=str(page))
    opened(browser, page, 1280, charts={"run": DRAWN, "stamps": "true"}.get(subject, READY))
    browser.value(AXE.read_text() + ";1")
    found = browser.value("axe.run().then(r => JSON.stringify(r.violations.map(v => [v.id, v.nodes[0].html])))")
    assert json.loads(found) == []


def test_the_keyboard_reaches_links_and_numbers(browser: Browser, page: Path) -> None:
    opened(browser, page, 1280)
    browser.press("Tab")
    assert browser.value("document.activeElement.className") == "skip"
    browser.value("document.querySelector('summary').focus()")
    browser.command("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r", windowsVirtualKeyCode=13)
    browser.wait("document.querySelector('details').open")
    unnamed = (
        "[...document.querySelectorAll('a, summary, pre, [tabindex]')].filter(e => e.tabIndex < 0 && e.id != 'main')"
    )
    assert browser.value(f"{unnamed}.length") == 0


def test_on_paper_charts_are_pictures(browser: Browser, page: Path) -> None:
    opened(browser, page, 1280)
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("getComputedStyle(document.querySelector('figure.drawn .live')).display") == "none"
        assert browser.value("getComputedStyle(document.querySelector('figure.drawn img.still')).display") == "block"
        assert browser.value("document.querySelector('img.still').naturalWidth") > 300
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("width", [1280, 400])
def test_points_of_a_map_show_their_stamps(browser: Browser, mapped: Path, width: int) -> None:
    opened(browser, mapped, width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert not browser.complaints()
    point = "document.querySelector('img.sheet').parentElement.querySelector('.scatterlayer .point')"
    browser.wait(point)
    assert browser.value("document.querySelector('.peek').hidden")
    place = json.loads(
        browser.value(
            f"(r => JSON.stringify([r.x + r.width / 2, r.y + r.height / 2]))({point}.getBoundingClientRect())"
        )
    )
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=place[0] - 1, y=place[1] - 1)
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    browser.wait("!document.querySelector('.peek').hidden")
    box = json.loads(browser.value("JSON.stringify(document.querySelector('.peek').getBoundingClientRect())"))
    assert box["left"] >= 0
    assert box["right"] <= width
    assert "data:image/jpeg" in browser.value("document.querySelector('.peek').style.backgroundImage")
