"""Draws docs/figures/lenses.jpg: simulated lenses and the negatives of each kind. python docs/figures/draw_lenses.py"""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from astroml_plugin.simulation import LensSet
from astroml_plugin.simulation.lenses import PAINTERS

COLUMNS = 9
STRETCH = 4.0
BALANCE = np.array([1.6, 0.9, 0.55])[:, None, None]


def colours(image: np.ndarray) -> np.ndarray:
    """(y, x, 3) of g, r, i in nJy: asinh of the mean of the bands, so that colours stay (Lupton et al. 2004)."""
    light = np.maximum(image * BALANCE, 0)
    mean = light.mean(0)
    scaled = light * np.arcsinh(mean / STRETCH) / np.maximum(mean, 1e-3) / 4.5
    return np.clip(np.moveaxis(scaled[::-1], 0, -1), 0, 1)


def main() -> None:
    """Three rows of lenses, then one row of each kind of negative."""
    block = LensSet(900, seed=990, block=900, variance=False).make(0)
    kinds = np.array(block.table["kind"].to_pylist())
    rows = [("lens", np.flatnonzero(kinds == "lens")[COLUMNS * k :][:COLUMNS]) for k in range(3)]
    rows += [(kind, np.flatnonzero(kinds == kind)[:COLUMNS]) for kind in PAINTERS if kind != "lens"]
    figure = Figure(figsize=(COLUMNS, len(rows)))
    panels = figure.subplots(len(rows), COLUMNS, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    figure.subplots_adjust(left=0.07, right=1, top=1, bottom=0)
    for line, (kind, chosen) in zip(panels, rows):
        line[0].set_ylabel(kind, fontsize=8)
        for panel, number in zip(line, chosen):
            panel.imshow(colours(block.image[number]), origin="lower")
        for panel in line:
            panel.set(xticks=[], yticks=[])
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    Image.open(drawn).convert("RGB").save(Path(__file__).with_name("lenses.jpg"), quality=90)


if __name__ == "__main__":
    main()
