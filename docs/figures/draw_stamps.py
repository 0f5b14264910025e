"""Draws docs/figures/lenses.jpg or anomalies.jpg, rows of simulated stamps: draw_stamps.py lenses|anomalies"""

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from astroml_plugin.simulation import AnomalySet, LensSet
from astroml_plugin.simulation.lenses import PAINTERS

COLUMNS = 10
STRETCH = 4.0
BALANCE = np.array([1.6, 0.9, 0.55])[:, None, None]
WHITE = {"lenses": 4.5, "anomalies": 5.5}
"""Brightness, after the stretch, that is shown white."""

Rows = Iterator[tuple[str, np.ndarray]]


def colours(image: np.ndarray, white: float) -> np.ndarray:
    """(y, x, 3) of g, r, i in nJy: asinh of the mean of the bands, so that colours stay (Lupton et al. 2004)."""
    light = np.maximum(image * BALANCE, 0)
    mean = light.mean(0)
    scaled = light * np.arcsinh(mean / STRETCH) / np.maximum(mean, 1e-3) / white
    return np.clip(np.moveaxis(scaled[::-1], 0, -1), 0, 1)


def lenses() -> Rows:
    """Three rows of lenses, then one row of each kind of negative."""
    block = LensSet(900, seed=990, block=900, variance=False).make(0)
    kinds = np.array(block.table["kind"].to_pylist())
    for row in range(3):
        yield "lens", block.image[np.flatnonzero(kinds == "lens")[COLUMNS * row :][:COLUMNS]]
    for kind in PAINTERS:
        if kind != "lens":
            yield kind, block.image[np.flatnonzero(kinds == kind)[:COLUMNS]]


def anomalies() -> Rows:
    """Two rows of ordinary galaxies, then one row of each kind of anomaly."""
    rows = [("ordinary", 0.0, "merger", 0), ("", 0.0, "merger", COLUMNS)]
    for label, fraction, kind, first in rows + [(kind, 1.0, kind, 0) for kind in AnomalySet.anomalies]:
        shares = {name: float(name == kind) for name in AnomalySet.anomalies}
        count = first + COLUMNS
        yield label, AnomalySet(count, seed=990, block=count, anomaly_fraction=fraction, **shares).make(0).image[first:]


def main(name: str) -> None:
    """Draw and save."""
    rows = list({"lenses": lenses, "anomalies": anomalies}[name]())
    figure = Figure(figsize=(COLUMNS, len(rows)))
    panels = figure.subplots(len(rows), COLUMNS, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    figure.subplots_adjust(left=0.06, right=1, top=1, bottom=0)
    for line, (label, images) in zip(panels, rows):
        line[0].set_ylabel(label, fontsize=8)
        for panel, image in zip(line, images):
            panel.imshow(colours(image, WHITE[name]), origin="lower")
        for panel in line:
            panel.set(xticks=[], yticks=[])
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    Image.open(drawn).convert("RGB").save(Path(__file__).with_name(f"{name}.jpg"), quality=90)


if __name__ == "__main__":
    main(sys.argv[1])
