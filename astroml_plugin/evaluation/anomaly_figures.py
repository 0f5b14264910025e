"""Figures of searches for anomalies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from astroml_plugin.evaluation.figures import blank_figure


def curves(ranked: Mapping[str, np.ndarray], odd: np.ndarray) -> Any:
    """Recall against the false-positive rate, the first ranking drawn thick."""
    figure, ((axes,),) = blank_figure(6.5, 5)
    for number, (name, score) in enumerate(ranked.items()):
        order = np.lexsort((odd, -score))
        found, wrong = np.cumsum(odd[order]) / odd.sum(), np.cumsum(~odd[order]) / (~odd).sum()
        axes.plot(
            np.maximum(wrong, 1e-4), found, lw=2.5 if number == 0 else 1, ls="-" if number < 8 else "--", label=name
        )
    axes.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1), xlabel="false-positive rate", ylabel="recall of the anomalies")
    axes.legend(fontsize=7)
    return figure


def spread(score: np.ndarray, odd: np.ndarray) -> Any:
    """Part of ordinary objects and of anomalies above each score; a calibrated score follows the dotted line."""
    figure, ((axes,),) = blank_figure(6.5, 4)
    for part, name in ((~odd, "ordinary"), (odd, "anomalies")):
        values = np.sort(score[part])[::-1]
        axes.step(values, np.arange(1, len(values) + 1) / len(values), label=name)
    line = np.linspace(0, max(1.0, float(np.quantile(score, 0.999))), 50)
    axes.plot(line, 10.0**-line, ":", color="0.4", label="as the score says")
    axes.set(yscale="log", xlabel="anomaly_score", ylabel="part above")
    axes.legend(fontsize=8)
    return figure
