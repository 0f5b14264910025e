"""Draw docs/figures/segmentation.png: a simulated field, its truth, what Source Extractor and the bundle find and miss.

python docs/figures/draw_segmentation.py [BUNDLE]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from astroml_plugin.evaluation.baselines.extractor import ExtractorSettings, extract
from astroml_plugin.evaluation.detection_metrics import match
from astroml_plugin.simulation.fields import field_sky, truth_of
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.whole_tile import field_of, maps_of
from astroml_plugin.training.bundle import ModelBundle

EXTRACTOR = ExtractorSettings(3.5, 0.6, 12, 32, 0.005)
"""Tuned for completeness at a purity of 0.97 (benchmarks.segmentation)."""

SIDE, SEED, FAINTEST = 384, 970, 25.0


def main(bundle: str = "segmentation") -> Figure:
    """The figure."""
    tile, truth = truth_of(field_sky(SEED, SIDE, 0.7, 38))
    model = ModelBundle.load(bundle)
    task = model.task()
    assert isinstance(task, SegmentTask)
    ours = task.detect(maps_of(task, model.network(fused=True), tile), field_of(tile))
    image, variance, unusable = np.nan_to_num(tile.image[0]), tile.variance[0], tile.mask[0] != 0  # type: ignore[index]
    theirs = extract(image, variance, unusable, EXTRACTOR)
    owned = np.where(truth.foreground, truth.owner + 1, 0)
    figure = Figure(figsize=(12, 12.4), layout="constrained")
    axes = figure.subplots(2, 2)
    shown = np.arcsinh(image / 2.5)
    panels: list[tuple[Any, Any, str]] = [
        (None, None, "field, seeing 0.7″; crosses: truth brighter than 25 mag"),
        (owned, None, "truth: light above 1σ by its brightest contributor"),
        (theirs.labels, theirs, "Source Extractor, tuned for completeness"),
        (ours.labels, ours, "bundle segmentation"),
    ]
    bright = truth.mag < FAINTEST
    for axis, (labels, found, title) in zip(axes.ravel(), panels):
        axis.imshow(shown, cmap="gray_r", vmin=-1, vmax=5, origin="lower", interpolation="nearest")
        if labels is not None:
            axis.imshow(_coloured(labels), origin="lower", interpolation="nearest")
        if labels is None:
            axis.plot(truth.x[bright], truth.y[bright], "+", color="tab:blue", ms=5, mew=0.8)
        if found is not None:
            title += _marked(axis, found, truth, bright)
        axis.set_xlim(-0.5, SIDE - 0.5)
        axis.set_ylim(-0.5, SIDE - 0.5)
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def _marked(axis: Any, found: Any, truth: Any, bright: np.ndarray) -> str:
    """Missed (red circles) and false (yellow squares) objects; gives the counts."""
    matched = match(found.x, found.y, truth.x, truth.y)
    hit = np.zeros(len(truth.x), bool)
    hit[matched[matched >= 0]] = True
    missed, false = bright & ~hit, matched < 0
    axis.plot(truth.x[missed], truth.y[missed], "o", mfc="none", color="tab:red", ms=9, mew=1)
    axis.plot(found.x[false], found.y[false], "s", mfc="none", color="goldenrod", ms=9, mew=1.4)
    return (
        f"\n{len(found.x)} objects; missed brighter than 25 mag (circles): {missed.sum()} of {bright.sum()}; "
        f"false (squares): {false.sum()}"
    )


def _coloured(labels: np.ndarray) -> np.ndarray:
    """(h, w, 4) a colour per label, transparent background."""
    colours = np.random.default_rng(5).uniform(0.1, 1, (int(labels.max()) + 1, 4))
    colours[:, 3], colours[0, 3] = 0.55, 0
    return colours[labels]


if __name__ == "__main__":
    main(*sys.argv[1:]).savefig(Path(__file__).with_name("segmentation.png"), dpi=75)
