"""Draw the pictures of pages and of `show` in docs/figures, from a simulated sky; needs Chromium.

python docs/figures/draw_reports.py SCRATCH
"""

from __future__ import annotations

import base64
import io
import sys
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from astroml_plugin.simulation import Camera
from astroml_plugin.sources.survey import Survey
from tests.browser import Browser
from workflows.cluster import cluster
from workflows.infer import infer
from workflows.report import report
from workflows.show import show
from workflows.simulate import simulate

HERE = Path(__file__).parent
WIDTH, SEEN = 900, 1228
"""Pixels of a picture, and of the window that the page is seen in."""
TILES = {"count": 9, "tile_size": 640, "halo": 128, "psf_size": 25}
PICTURES = {
    "report_drift.png": ("noisier", "Drift", 790),
    "report_groups.jpg": ("known", "Groups without labels", 1500),
    "report_latent_map.png": ("known", "Map of the latent space", 2000),
}
"""File -> (catalog, section of its page, pixels of its height at most)."""


def main(scratch: str) -> None:
    """Make what is missing below `scratch`, and draw."""
    catalogs = {name: _catalog(Path(scratch) / name, noise) for name, noise in (("known", 1.0), ("noisier", 1.6))}
    if not (Path(catalogs["known"]) / "annotations").exists():
        cluster(catalogs["known"], name="clusters", clusters=3)
    pages = {name: Path(scratch) / f"{name}.html" for name in catalogs}
    report(catalogs["known"], out=str(pages["known"]))
    report(catalogs["noisier"], out=str(pages["noisier"]), reference=catalogs["known"])
    browser = Browser()
    for name, (of, title, height) in PICTURES.items():
        _kept(_section(browser, pages[of], title, height), HERE / name)
    browser.close()
    found = str(Path(scratch) / "found")
    if not Path(found).exists():
        infer(str(Path(scratch) / "known" / "survey.zarr"), bundle="segmentation", out=found)
    drawn = Path(scratch) / "show.png"
    show(found, out=str(drawn), tile=next(iter(Survey.open(str(Path(scratch) / "known" / "survey.zarr")))).name)
    _kept(Image.open(drawn).convert("RGB"), HERE / "show.jpg")


def _catalog(folder: Path, noise: float) -> str:
    """The catalog of a sky measured by `anomaly` at the true places; its band g has so much of the usual noise."""
    out = folder / "catalog"
    if not out.exists():
        camera = replace(Camera(), sky_sigma=Camera().sky_sigma * noise)
        made = simulate(out=str(folder), kind="survey", seed=7, camera=camera, **TILES)
        infer(made.source, bundle="anomaly", objects=str(folder / "truth.parquet"), out=str(out))
    return str(out)


def _section(browser: Browser, page: Path, title: str, highest: int) -> Image.Image:
    """A picture of one section of a page."""
    size = {"width": SEEN, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", height=900, **size)
    browser.open(page.as_uri())
    found = f"[...document.querySelectorAll('h2')].find(one => one.textContent == '{title}')?.closest('section')"
    browser.wait(f"document.readyState == 'complete' && {found}")
    height = browser.value("document.documentElement.scrollHeight")
    browser.command("Emulation.setDeviceMetricsOverride", height=int(height) + 100, **size)
    browser.wait(f"{found}.querySelectorAll('.main-svg').length > 0")
    time.sleep(3)  # charts are drawn as they come into view
    box = browser.value(
        f"(() => {{const r = {found}.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]}})()"
    )
    clip = {"x": box[0], "y": box[1] + browser.value("scrollY"), "width": box[2], "height": min(box[3], highest)}
    shot = browser.command("Page.captureScreenshot", format="png", clip={**clip, "scale": 1})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def _kept(picture: Image.Image, file: Path) -> None:
    """Write a picture, no wider than pages of the docs."""
    picture.thumbnail((WIDTH, 2 * WIDTH))
    if file.suffix == ".jpg":
        picture.save(file, quality=82)
    else:
        picture.save(file, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
