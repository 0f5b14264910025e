"""Figures of a training from the records of its epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.evaluation.figures import blank_figure

_MOST = 40
"""Layers that are named on an axis; of more every second, third, … is."""


def training_curves(records: Sequence[Mapping[str, Any]]) -> Any:
    """Training and validation loss of each epoch."""
    figure, ((panel,),) = blank_figure(4.0, 4.0)
    epochs = [record["epoch"] for record in records]
    for key, label in (("train_loss", "training"), ("validation_loss", "validation")):
        panel.plot(epochs, [record[key] for record in records], ".-", label=label)
    panel.set(xlabel="epoch", ylabel="loss")
    panel.legend()
    return figure


def layer_curves(records: Sequence[Mapping[str, Any]]) -> Any:
    """Size of the gradient of each layer's weights, and share of dead units of each activation, in each epoch.

    Rows are layers, the first one at the bottom; columns are epochs.
    """
    parts = [
        ("gradients", "gradient of a weight (rms), powers of ten", "viridis"),
        ("dead_units", "share of dead units", "magma_r"),
    ]
    parts = [part for part in parts if records[-1].get(part[0])]
    rows = max(len(records[-1][key]) for key, _, _ in parts)
    figure, (panels,) = blank_figure(5.2 * len(parts), 1.6 + 0.2 * min(rows, _MOST), ncols=len(parts))
    for panel, (key, text, colours) in zip(panels, parts):
        names = list(records[-1][key])
        values = np.array([[record.get(key, {}).get(name, np.nan) for record in records] for name in names], float)
        limits = {"vmin": 0.0, "vmax": 1.0}
        if key == "gradients":
            values = np.log10(np.where(values > 0, values, np.nan))
            limits = (
                {"vmin": float(max(np.nanmin(values), -12.0)), "vmax": float(np.nanmax(values))}
                if (np.isfinite(values).any())
                else {}
            )
        last = float(records[-1]["epoch"])
        extent = (float(records[0]["epoch"]) - 0.5, last + 0.5, -0.5, len(names) - 0.5)
        panel.set_facecolor("0.85")
        image = panel.imshow(
            values, origin="lower", aspect="auto", interpolation="nearest", cmap=colours, extent=extent, **limits
        )
        step = -(-len(names) // _MOST)
        panel.set_yticks(range(0, len(names), step), names[::step], fontsize=7)
        panel.set(xlabel="epoch")
        panel.set_title(text, fontsize=9)
        figure.colorbar(image, ax=panel)
    return figure
