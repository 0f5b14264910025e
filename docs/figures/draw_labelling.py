"""Draws labelling.jpg: the page of `label` on simulated lenses, as Chromium shows it. From the repository's root:

    PYTHONPATH=. python docs/figures/draw_labelling.py

Simulates 384 stamps (seed 801), ranks them by the bundle `lens`, scores a few and takes a screenshot.
"""

from __future__ import annotations

import io
import tempfile
import threading
from pathlib import Path

from PIL import Image

from astroml_plugin.labelling.server import LabelServer
from astroml_plugin.labelling.session import Session, SessionSettings
from tests.browser import Browser
from workflows.infer import infer
from workflows.label import open_labels
from workflows.simulate import simulate

OUT = Path(__file__).with_name("labelling.jpg")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = simulate(out=f"{folder}/sky", preset="lenses", count=384, seed=801)
        catalog = infer(made.source, bundle="lens", out=f"{folder}/lenses").catalog
        session = Session(catalog, open_labels(catalog, who="ana"), SessionSettings(score="p_lens"))
        with LabelServer(session) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            OUT.write_bytes(screenshot(server.url))
            server.shutdown()
            thread.join()


def screenshot(url: str) -> bytes:
    browser = Browser((1360, 850))
    browser.open(url)
    browser.wait("typeof state !== 'undefined' && state && document.querySelectorAll('.cell img').length > 20")
    browser.press("5", "4", "5", "3", "5", "1", "4")
    browser.wait("Object.keys(state.mine).length === 7 && document.getElementById('large').complete")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        browser.picture(Path(file.name))
        picture = Image.open(file.name).convert("RGB")
    browser.close()
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=82, optimize=True)
    return sink.getvalue()


if __name__ == "__main__":
    main()
