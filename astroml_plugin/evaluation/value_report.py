"""Report of any task whose catalog columns have a truth: errors with intervals, and residuals drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64, Columns
from astroml_plugin.evaluation import figures
from astroml_plugin.evaluation.bootstrap import row_intervals
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.value_metrics import FEWEST, pull_histogram, residual_bins, residual_figures, statistics


def assess(measured: Measurements, truth: Columns, repeats: int = 500) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of every column that has a truth, by the task, with errors of the input, and by other methods.

    Args:
        measured: columns (n,) of n objects.
        truth: column name -> (n,), NaN where unknown.
        repeats: bootstrap samples.

    Returns:
        Plain JSON, `columns` -> name -> figures of `value_metrics.residual_figures`, and where the column
        `<name>_err` is there `coverage_683` and `pull_half_width`, with `<name>_err95` also `coverage_95`;
        `perturbed` and `baselines` -> method -> the same. And file stem -> figure.
    """
    result: dict[str, Any] = {"columns": _figures(measured.own, truth, repeats)}
    for kind, methods in (("perturbed", measured.perturbed), ("baselines", measured.baselines)):
        if methods:
            result[kind] = {method: _figures(columns, truth, repeats) for method, columns in methods.items()}
    known = {name: np.isfinite(values) & np.isfinite(_values(measured.own, name)) for name, values in truth.items()}
    panels = {
        name: (truth[name][good], _values(measured.own, name)[good]) for name, good in known.items() if good.any()
    }
    return result, {"residuals": figures.residuals(panels)} if panels else {}


def _values(columns: Mapping[str, np.ndarray], name: str) -> F64:
    return np.asarray(columns[name], np.float64)


def _figures(columns: Mapping[str, np.ndarray], truth: Columns, repeats: int) -> dict[str, Any]:
    """Name -> figures of the columns that a method gives."""
    return {
        name: residual_figures(_values(columns, name), wanted, repeats)
        | _intervals(columns, name, wanted, repeats)
        | drawn_figures(columns, name, wanted)
        for name, wanted in truth.items()
        if name in columns
    }


def drawn_figures(columns: Mapping[str, np.ndarray], name: str, truth: F64) -> dict[str, Any]:
    """Numbers of the pictures of a column: `residual_bins`, and `pulls` where it has half-widths."""
    found = {"residual_bins": residual_bins(_values(columns, name), truth)}
    if f"{name}_err" in columns:
        found["pulls"] = pull_histogram(_values(columns, name), truth, _values(columns, f"{name}_err"))
    return {key: value for key, value in found.items() if value}


def _intervals(columns: Mapping[str, np.ndarray], name: str, truth: F64, repeats: int) -> dict[str, Any]:
    """Whether the column's half-widths hold what they say; nothing where it has none or objects are few."""
    if f"{name}_err" not in columns:
        return {}
    wide = f"{name}_err95" in columns
    value, narrow = _values(columns, name), _values(columns, f"{name}_err")
    good = np.isfinite(value) & np.isfinite(truth) & (narrow > 0)
    if good.sum() < FEWEST:
        return {}
    v, t, half = (values[good][:, None] for values in (value, truth, narrow))
    outer = _values(columns, f"{name}_err95")[good][:, None] if wide else half

    def figures_of(rows: Any) -> dict[str, float]:
        found = statistics(v[rows], t[rows], (half[rows], outer[rows]))
        names = ("coverage_683", "pull_half_width", *(["coverage_95"] if wide else []))
        return {figure: float(found[figure][0]) for figure in names}

    return row_intervals(figures_of, len(v), repeats)
