"""Draws docs/figures/anomalies.jpg: ordinary galaxies and simulated anomalies. python docs/figures/draw_anomalies.py"""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from astroml_plugin.simulation import AnomalySet

COLUMNS = 10
STRETCH = 4.0
BALANCE = np.array([1.6, 0.9, 0.55])[:, None, None]


def colours(image: np.ndarray) -> np.ndarray:
    """(y, x, 3) of g, r, i in nJy: asinh of the mean of the bands, so that colours stay (Lupton et al. 2004)."""
    light = np.maximum(image * BALANCE, 0)
    mean = light.mean(0)
    scaled = light * np.arcsinh(mean / STRETCH) / np.maximum(mean, 1e-3) / 5.5
    return np.clip(np.moveaxis(scaled[::-1], 0, -1), 0, 1)


def main() -> None:
    """Two rows of ordinary galaxies, then one row of each kind of anomaly."""
    rows = {"ordinary": (0.0, "merger", 0), "": (0.0, "merger", COLUMNS)}
    rows |= {kind: (1.0, kind, 0) for kind in AnomalySet.anomalies}
    figure = Figure(figsize=(COLUMNS, len(rows)))
    panels = figure.subplots(len(rows), COLUMNS, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    figure.subplots_adjust(left=0.04, right=1, top=1, bottom=0)
    for line, (label, (fraction, kind, first)) in zip(panels, rows.items()):
        shares = {name: float(name == kind) for name in AnomalySet.anomalies}
        count = first + COLUMNS
        block = AnomalySet(count, seed=990, block=count, anomaly_fraction=fraction, **shares).make(0)
        line[0].set_ylabel(label, fontsize=8)
        for panel, image in zip(line, block.image[first:]):
            panel.imshow(colours(image), origin="lower")
            panel.set(xticks=[], yticks=[])
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    Image.open(drawn).convert("RGB").save(Path(__file__).with_name("anomalies.jpg"), quality=90)


if __name__ == "__main__":
    main()
