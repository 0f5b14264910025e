"""Probabilities of classes against votes of people: fractions where many voted, and classes where they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import class_metrics
from astroml_plugin.evaluation.figures import blank_figure

CONFIDENT = 0.8
"""Fraction of an object's votes that its first class has, at least, where people agree."""

_BINS = 10


def against_votes(
    probabilities: F64, votes: F64, classes: Sequence[str], labels: I64, *, confident: float = CONFIDENT
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Judge probabilities by fractions of votes, and by the classes of objects that people agree on.

    Args:
        probabilities: (n, class), NaN for objects that could not be measured.
        votes: (n, class) numbers or fractions of votes, none of the sums 0.
        classes: their names.
        labels: (n,) numbers of the classes that the objects are called.
        confident: least fraction of votes for the first class where people agree.

    Returns:
        Plain JSON, and file stem -> figure.
    """
    good = np.isfinite(probabilities).all(1)
    p, counts, called = probabilities[good], np.asarray(votes, np.float64)[good], labels[good]
    total = counts.sum(1, keepdims=True)
    fraction = counts / total
    agreed = fraction.max(1) >= confident
    sure: dict[str, Any] = {"least_fraction": confident, "count": int(agreed.sum())}
    if agreed.sum() > 1:
        first = fraction.argmax(1)
        sure |= class_metrics.classification(p[agreed], first[agreed], labels=called[agreed])
    per_class = {}
    for number, name in enumerate(classes):
        said, found = p[:, number], fraction[:, number]
        several = total[:, 0] > 1 + 1e-3  # fractions without numbers say nothing of their noise
        noise = found * (1 - found) / np.maximum(total[:, 0], 1) if several.all() else np.full(len(found), np.nan)
        per_class[name] = {
            "bias": float((said - found).mean()),
            "rms": float(np.sqrt(np.square(said - found).mean())),
            "vote_noise": float(np.sqrt(noise.mean())) if several.all() else None,
            "bins": _bins(said, found),
        }
    result = {"confident": sure, "fractions": per_class}
    return result, {"votes": _figure(per_class)} if len(p) else {}


def _bins(said: F64, found: F64) -> list[dict[str, float]]:
    """Mean fraction of votes, with its standard error, in bins of the probability."""
    place = np.minimum((said * _BINS).astype(int), _BINS - 1)
    rows = []
    for number in np.unique(place):
        inside = place == number
        spread = float(found[inside].std() / np.sqrt(inside.sum()))
        said_, found_ = float(said[inside].mean()), float(found[inside].mean())
        rows.append({"count": int(inside.sum()), "said": said_, "voted": found_, "error": spread})
    return rows


def _figure(per_class: dict[str, Any]) -> Any:
    """Fractions of votes against probabilities, for each class."""
    figure, panels = blank_figure(4.8, 4.6)
    axes = panels[0, 0]
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, label="perfect")
    for name, found in list(per_class.items())[:10]:
        said, voted, error = (np.array([row[key] for row in found["bins"]]) for key in ("said", "voted", "error"))
        axes.errorbar(said, voted, 1.96 * error, marker="o", markersize=4, capsize=2, linewidth=1, label=name)
    axes.set(xlabel="probability", ylabel="fraction of votes (95 % of the mean)", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
