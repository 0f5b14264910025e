"""Draws docs/figures/generation.jpg, drawn and restored galaxies: draw_generation.py GENERATOR RESTORER HST_CATALOG"""

import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.simulation import preset
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns

COLUMNS, SEED = 14, 990


def main(generator: str, restorer: str, hst: str) -> None:
    """Two rows of simulated and two of drawn galaxies; below, observed, restored and true ones."""
    torch.set_num_threads(1)
    count = 2 * COLUMNS
    simulated = replace(preset("light", hst), count=count, block=count, seed=SEED).make(0).image
    model = ModelBundle.load(generator)
    drawn = model.task().draw(model.network(), count, SEED).image
    seen = replace(preset("restoration"), count=COLUMNS, block=COLUMNS, seed=SEED, snr=(15.0, 60.0)).make(0)
    model = ModelBundle.load(restorer)
    cutouts = from_stamps(seen.image, seen.variance, seen.psf, bands=("r",), pixel_scale=0.2)
    restored = columns(model.task(), model.network(fused=True), cutouts)["restored"].reshape(seen.image.shape)
    rows = {
        "simulated": simulated[:COLUMNS],
        "": simulated[COLUMNS:],
        "drawn": drawn[:COLUMNS],
        " ": drawn[COLUMNS:],
        "observed": seen.image,
        "restored": restored,
        "truth": seen.truth,
    }
    figure = Figure(figsize=(COLUMNS, len(rows)))
    panels = figure.subplots(len(rows), COLUMNS, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    figure.subplots_adjust(left=0.03, right=1, top=1, bottom=0)
    for line, (label, images) in zip(panels, rows.items()):
        line[0].set_ylabel(label, fontsize=8)
        for panel, image in zip(line, images):
            light = image[0].astype(np.float32)
            panel.imshow(np.arcsinh(20 * light / light.max()), cmap="gray", vmin=-1, vmax=3.7, origin="lower")
            panel.set(xticks=[], yticks=[])
    page = BytesIO()
    figure.savefig(page, dpi=80)
    Image.open(page).convert("RGB").save(Path(__file__).with_name("generation.jpg"), quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
