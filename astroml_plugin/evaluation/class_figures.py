"""Figures of classifications, from the plain values of `class_merit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.evaluation.figures import blank_figure
from astroml_plugin.evaluation.thresholds import RARE, ThresholdCurve

_COLOURS = ("#1b4f72", "#c0392b", "#7d8b3a", "#6c3483", "#e59866", "#117a65", "#7b7d7d", "#b7950b")
_TEXTS = {"balanced_accuracy": "balanced accuracy", "nll": "NLL", "ece": "ECE"}
_STYLES = ("-", "--", ":", "-.")


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """File stem -> figure of what `class_report.assess` or `assess_independent` found."""
    drawn = {"reliability": reliability(result["reliability"], result["scores"]["ece"], _said(result))}
    if "confusion" in result:
        drawn["confusion"] = confusion(np.array(result["confusion"]), result["classes"])
    curves = {name: ThresholdCurve.from_json(found["curve"]) for name, found in result["per_class"].items()}
    search = result.get("search")
    if search:
        curves = {search["class"]: curves[search["class"]]}
        said = f"probability of {search['class']}"
        drawn["reliability_search"] = reliability(search["reliability"], search["ece"], said)
        drawn["purity"] = purity(curves[search["class"]], search["class"])
    if curves:
        areas = {name: result["per_class"][name] for name in curves}
        drawn["curves"] = curves_of(curves, areas, rare=bool(search))
    return drawn


def _said(result: Mapping[str, Any]) -> str:
    return "probability of each class" if result.get("multi_label") else "probability of the most probable class"


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Any:
    """Fraction of each true class that is given each label, and the numbers of objects."""
    side = 2.2 + 0.85 * len(classes)
    figure, panels = blank_figure(side + 0.8, side)
    panel = panels[0, 0]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = panel.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*counts.shape):
        text = f"{100 * share[row, column]:.1f} %\n{counts[row, column]:,}"
        colour = "white" if share[row, column] > 0.55 else "black"
        panel.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    ticks = range(len(classes))
    panel.set_xticks(ticks, classes, rotation=30, ha="right")
    panel.set_yticks(ticks, [f"{name}\n({int(total):,})" for name, total in zip(classes, counts.sum(1))])
    panel.set(xlabel="label", ylabel="true class")
    figure.colorbar(image, ax=panel, label="fraction of the true class", shrink=0.8)
    return figure


def reliability(bins: Mapping[str, Any], ece: Mapping[str, float], said: str) -> Any:
    """Reliability diagram: fractions found against probabilities said, with 95 % intervals, above their histogram."""
    figure, panels = blank_figure(4.6, 5.2, nrows=2, sharex=True, height_ratios=[3.2, 1])
    above, below = panels[:, 0]
    x, y = np.array(bins["said"]), np.array(bins["found"])
    error = [np.maximum(y - bins["found_low"], 0), np.maximum(np.array(bins["found_high"]) - y, 0)]
    above.plot([0, 1], [0, 1], color="0.5", linewidth=1, label="perfect")
    style = {"color": _COLOURS[0], "markersize": 4, "capsize": 2, "linewidth": 1}
    above.errorbar(x, y, error, fmt="o", label="found, 95 % interval", **style)
    text = f"ECE {ece['value']:.4f}" + (f" ({ece['low']:.4f}–{ece['high']:.4f})" if "low" in ece else "")
    above.set(ylabel="fraction that is", xlim=(0, 1), ylim=(0, 1.02), title=text)
    above.title.set_fontsize(10)
    above.legend(fontsize=8, frameon=False, loc="upper left")
    low, high = np.array(bins["low"]), np.array(bins["high"])
    below.bar(low, bins["count"], high - low, align="edge", color=_COLOURS[0], alpha=0.5, edgecolor="white")
    below.set(xlabel=said, ylabel="objects", yscale="log", ylim=(0.8, None))
    return figure


def curves_of(curves: Mapping[str, ThresholdCurve], found: Mapping[str, Mapping[str, Any]], *, rare: bool) -> Any:
    """Precision against recall, and true- against false-positive rate, of each class against the rest."""
    figure, panels = blank_figure(9.2, 4.3, ncols=2)
    left, right = panels[0]
    least = 1.0
    for number, (name, curve) in enumerate(curves.items()):
        style = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _STYLES[number // len(_COLOURS) % 4]}
        passed = np.maximum(curve.true_positives + curve.false_positives, 1)
        label = f"{name}: average precision {found[name]['average_precision']['value']:.3f}"
        left.plot(curve.completeness, curve.true_positives / passed, label=label, linewidth=1.4, **style)
        rate = np.r_[0.0, curve.false_positives / curve.negatives]
        label = f"{name}: AUROC {found[name]['auroc']['value']:.4f}"
        right.step(rate, np.r_[0.0, curve.completeness], where="post", label=label, linewidth=1.4, **style)
        least = min(least, 0.7 / curve.negatives)
    left.set(xlabel="recall (completeness)", ylabel="precision (purity) in this sample", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="false-positive rate", ylabel="true-positive rate (completeness)", ylim=(0, 1.02))
    if rare:
        right.set_xscale("log")
        right.set_xlim(least, 1)
        for rate in RARE:
            if rate > least:
                right.axvline(rate, color="0.6", linewidth=0.8, linestyle=":")
    else:
        right.set_xlim(0, 1)
    left.legend(fontsize=8, frameon=False, loc="lower left")
    right.legend(fontsize=8, frameon=False, loc="upper left" if rare else "lower right")
    return figure


def purity(curve: ThresholdCurve, name: str) -> Any:
    """Expected purity against completeness for several class fractions; a band down to its 95 % lower end."""
    figure, panels = blank_figure(5.4, 4.3)
    panel = panels[0, 0]
    share = curve.positives / (curve.positives + curve.negatives)
    chosen = np.unique(np.linspace(0, len(curve.threshold) - 1, 200).astype(int))
    for colour, fraction in zip(_COLOURS, (share, *RARE)):
        found = [curve.at(float(value), fraction) for value in curve.threshold[chosen]]
        x, y, low = (np.array([getattr(one, key) for one in found]) for key in ("completeness", "purity", "purity_low"))
        text = f"{fraction:.3g} (this sample)" if fraction is share else f"{fraction:g}"
        panel.plot(x, y, color=colour, linewidth=1.4, label=f"{name} fraction {text}")
        panel.fill_between(x, low, y, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="completeness", ylabel="expected purity", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(fontsize=8, frameon=False, loc="outside upper center")
    return figure


def symmetry(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """Gain of each figure over no averaging, with paired 95 % intervals, against what it costs."""
    figure, panels = blank_figure(3.4 * len(names), 3.4, ncols=len(names))
    cost = np.array([row["cost"] for row in rows])
    for panel, name in zip(panels[0], names):
        value, low, high = (np.array([row[f"{name}_gain"][key] for row in rows]) for key in ("value", "low", "high"))
        error = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
        panel.errorbar(cost, value, error, fmt="o-", color=_COLOURS[0], markersize=4, capsize=2, linewidth=1)
        panel.axhline(0, color="0.5", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_xticks(cost, [f"{row['symmetries']}" for row in rows])
        panel.minorticks_off()
        panel.set(xlabel="symmetries (at their relative cost)", title=f"change of {_TEXTS.get(name, name)}")
        panel.title.set_fontsize(10)
    return figure
