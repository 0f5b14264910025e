"""Figures of merit as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def described(metrics: Mapping[str, Any]) -> list[str]:
    """Figures for a terminal, of every task: those of the catalog columns, of a search for one class, and what
    averaging over symmetries costs and gains; where a task says nothing of its columns, its plain figures of merit.
    """
    catalog = metrics.get("catalog", {})
    lines = [f"{name.replace('_', ' '):>20}  {_interval(value)}" for name, value in catalog.get("scores", {}).items()]
    for key, what in (("columns", ""), ("densities", "density of ")):
        for column, figures in catalog.get(key, {}).items():
            told = [f"{name.replace('_', ' ')} {_interval(value)}" for name, value in figures.items() if _figure(value)]
            lines.append(f"{what}{column}: {', '.join(told) or 'too few objects'}")
    lines += _shapes(catalog) + _rankings(catalog)
    if "search" in catalog:
        lines += ["", *_show_search(catalog["search"])]
    for row in metrics.get("symmetries", []):
        gain = row["accuracy_gain"]
        lines.append(
            f"{row['symmetries']} symmetries: {row['cost']:.2f} times the time, {row['objects_per_second']:,.0f} "
            f"objects/s, accuracy {row['accuracy']:.4f} ({gain['value']:+.4f}, 95 % {gain['low']:+.4f} to "
            f"{gain['high']:+.4f}), NLL {row['nll']:.4f}, ECE {row['ece']:.4f}"
        )
    return [*(lines or _plain(metrics)), *_flagged(metrics.get("typicality", {}))]


def _flagged(parts: Mapping[str, Any]) -> list[str]:
    """Plain figures of the objects that are like the training set, and of those that are flagged as unlike it."""
    names = {"unflagged": "typical", "flagged": "unlike the training set"}
    found = []
    for key, part in parts.items():
        figures = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in part.items() if isinstance(value, float)]
        found.append(f"{part['count']} {names[key]}: {', '.join(figures) or 'too few for figures'}")
    return found


def _plain(metrics: Mapping[str, Any]) -> list[str]:
    """Figures that are numbers, one per line."""
    found = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return [f"{name.replace('_', ' '):>20}  {value:.5g}" for name, value in found.items() if name != "failures"]


def _shapes(catalog: Mapping[str, Any]) -> list[str]:
    """Ellipticities: both components in all and in bins of signal-to-noise, other methods, and shear biases."""
    if "all" not in catalog:
        return []
    lines = [f"{'ellipticity':<20}  {'objects':>8}  " + "  ".join(f"{name:>17}" for name in _SHAPES)]
    rows = [("all", catalog["all"]), *((f"S/N {name}", row) for name, row in catalog.get("snr_bins", {}).items())]
    rows += [(name, found["successes"]["all"]) for name, found in catalog.get("baselines", {}).items()]
    for name, row in rows:
        cells = "  ".join(f"{_pair(row.get(key)):>17}" for key in _SHAPES)
        lines.append(f"{name:<20}  {row['count']:>8}  {cells}")
    for name, both in (catalog.get("shear") or {}).items():
        lines.append(f"{name}: " + ", ".join(f"{value:+.4g} ± {error:.2g}" for value, error in both))
    return lines


_SHAPES = ("rmse", "bias", "slope", "coverage_683", "pull_half_width")


def _pair(values: Any) -> str:
    return "" if values is None else " ".join(f"{value:.4f}" for value in values)


def _rankings(catalog: Mapping[str, Any]) -> list[str]:
    """Searches for anomalies, ours first."""
    found = catalog.get("rankings", {})
    names = [name for name, value in next(iter(found.values()), {}).items() if _figure(value)]
    lines = [f"{'ranking':<24}  " + "  ".join(f"{name:>24}" for name in names)] if found else []
    for ranking, figures in found.items():
        lines.append(f"{ranking:<24}  " + "  ".join(f"{_interval(figures[name]):>24}" for name in names))
    return lines


def _figure(value: Any) -> bool:
    """Whether it is a figure with an interval."""
    return isinstance(value, Mapping) and "value" in value


_SEARCH = {
    "auroc": "AUROC",
    "tpr0": "TPR0",
    "tpr10": "TPR10",
    "tpr_fpr_1e-3": "TPR at FPR 1e-3",
    "tpr_fpr_1e-4": "TPR at FPR 1e-4",
}


def _show_search(found: Mapping[str, Any]) -> list[str]:
    """The table of the strong-lens challenge, bins of the positives and kinds of negatives below."""
    rows = [("all", found)]
    for name, bins in found.get("bins", {}).items():
        rows += [(f"{name} {row['low']:.3g}-{row['high']:.3g}", row) for row in bins]
    rows += [(f"against {kind}", row) for kind, row in found.get("kinds", {}).items()]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{found['class']:<{width}}  positives  negatives  " + "  ".join(f"{text:>15}" for text in _SEARCH.values())
    ]
    for name, row in rows:
        values = "  ".join(f"{row[key]['value']:>15.4f}" for key in _SEARCH)
        lines.append(f"{name:<{width}}  {row['positives']:>9}  {row['negatives']:>9}  {values}")
    for row in found["purity_at_completeness"]:
        purity = ", ".join(f"{value:.3g} at a fraction of {prior}" for prior, value in row["purity"].items())
        lines.append(f"completeness {row['completeness']:.2f}: p >= {row['threshold']:.4g}, expected purity {purity}")
    return lines


def _interval(value: Mapping[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    return f"{value['value']:.4f}" + ("" if low is None or high is None else f"  ({low:.4f}-{high:.4f})")
