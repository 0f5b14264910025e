"""Figures of the tasks. Drawn without a display, returned as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def _axes(columns: int, side: float = 4.0) -> tuple[Any, Any]:
    """A figure with a row of square axes, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side * columns, side), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def true_against_measured(truth: np.ndarray, measured: np.ndarray, names: Sequence[str]) -> Any:
    """One panel per component: truth and measurement (n, k) with the line of equality."""
    figure, panels = _axes(len(names))
    for number, (panel, name) in enumerate(zip(panels, names)):
        panel.plot(truth[:, number], measured[:, number], ".", markersize=2, alpha=0.3, rasterized=True)
        low, high = float(truth[:, number].min()), float(truth[:, number].max())
        panel.plot([low, high], [low, high], "k-", linewidth=1)
        panel.set(xlabel=f"true {name}", ylabel=f"measured {name}", aspect="equal")
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Any:
    """Counts (true, predicted), coloured by the fraction of each true class."""
    figure, (panel,) = _axes(1, 1.5 + 0.8 * len(classes))
    panel.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*counts.shape):
        panel.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8)
    ticks = range(len(classes))
    panel.set_xticks(ticks, classes, rotation=45, ha="right")
    panel.set_yticks(ticks, classes)
    panel.set(xlabel="predicted", ylabel="true")
    return figure


def reliability_diagram(confidence: np.ndarray, right: np.ndarray, bins: int) -> Any:
    """Accuracy against confidence of the most probable class, in equal-width bins."""
    figure, (panel,) = _axes(1)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(number, minlength=bins)
    seen = count > 0
    panel.plot([0, 1], [0, 1], "k-", linewidth=1)
    panel.plot(
        np.bincount(number, confidence, bins)[seen] / count[seen],
        np.bincount(number, right.astype(float), bins)[seen] / count[seen],
        "o-",
    )
    panel.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return figure


def training_curves(records: Sequence[dict[str, Any]]) -> Any:
    """Training and validation loss of each epoch."""
    figure, (panel,) = _axes(1)
    epochs = [record["epoch"] for record in records]
    for key, label in (("train_loss", "training"), ("validation_loss", "validation")):
        panel.plot(epochs, [record[key] for record in records], ".-", label=label)
    panel.set(xlabel="epoch", ylabel="loss")
    panel.legend()
    return figure
