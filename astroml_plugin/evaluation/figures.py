"""Figures of the tasks. Drawn without a display, returned as matplotlib figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.core import storage


def write_figure(url: str, figure: Any, dpi: int = 120) -> None:
    """Write a matplotlib figure as PNG of so many pixels per inch."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=dpi)
    storage.write_atomic(url, sink.getvalue())


def blank_figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    """A figure of so many inches and its axes (row, column), without pyplot's global state.

    Args:
        width, height: inches.
        grid: arguments of `Figure.subplots`, for example `ncols=2`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid, squeeze=False)


def _axes(columns: int, side: float = 4.0) -> tuple[Any, Any]:
    """A figure with a row of square axes."""
    figure, panels = blank_figure(side * columns, side, ncols=columns)
    return figure, panels[0]


def true_against_measured(truth: np.ndarray, measured: np.ndarray, names: Sequence[str]) -> Any:
    """One panel per component: truth and measurement (n, k) with the line of equality."""
    figure, panels = _axes(len(names))
    for number, (panel, name) in enumerate(zip(panels, names)):
        panel.plot(truth[:, number], measured[:, number], ".", markersize=2, alpha=0.3, rasterized=True)
        low, high = float(truth[:, number].min()), float(truth[:, number].max())
        panel.plot([low, high], [low, high], "k-", linewidth=1)
        panel.set(xlabel=f"true {name}", ylabel=f"measured {name}", aspect="equal")
    return figure


def residuals(panels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Any:
    """One panel per name of (truth, measurement) (n,): their difference against truth, with its median and the central
    68.3 % in bins of equal numbers.
    """
    figure, axes = _axes(len(panels))
    for panel, (name, (truth, measured)) in zip(axes, panels.items()):
        difference = measured - truth
        panel.plot(truth, difference, ".", markersize=2, alpha=0.3, color=_COLOURS[0], rasterized=True)
        parts = np.array_split(np.argsort(truth, kind="stable"), min(12, max(1, len(truth) // 20)))
        middle = np.array([np.median(truth[rows]) for rows in parts])
        low, median, high = np.array([np.percentile(difference[rows], (15.865, 50, 84.135)) for rows in parts]).T
        error = [median - low, high - median]
        panel.errorbar(middle, median, error, fmt="o", color=_COLOURS[1], markersize=4, capsize=2, linewidth=1)
        panel.axhline(0, color="k", linewidth=0.8)
        reach = 1.5 * float(np.quantile(np.abs(difference), 0.99)) or 1.0
        panel.set(xlabel=f"true {name}", ylabel="measured − true", ylim=(-reach, reach))
    return figure


_COLOURS = ("#1b4f72", "#c0392b", "#e59866", "#7d8b3a", "#b7c27a", "#6c3483", "#bb8fce")
_MARKS = "oss^^DD"


def measured_density(truth: np.ndarray, measured: np.ndarray, names: Sequence[str]) -> Any:
    """One panel per component: density of truth and measurement (n, k), the line of equality, the median per bin."""
    figure, panels = _axes(len(names))
    for number, (panel, name) in enumerate(zip(panels, names)):
        good = np.isfinite(measured[:, number])
        x, y = truth[good, number], measured[good, number]
        reach = float(np.quantile(np.abs(np.concatenate([x, y])), 0.999))
        extent = (-reach, reach, -reach, reach)
        panel.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", extent=extent, mincnt=1, linewidths=0.1)
        panel.plot([-reach, reach], [-reach, reach], "k-", linewidth=0.8)
        edges = np.quantile(x, np.linspace(0, 1, 13))
        place = np.clip(np.digitize(x, edges) - 1, 0, 11)
        seen = [k for k in range(12) if (place == k).any()]
        panel.plot(
            [np.median(x[place == k]) for k in seen], [np.median(y[place == k]) for k in seen], "o", color=_COLOURS[1]
        )
        panel.set(xlabel=f"true {name}", ylabel=f"measured {name}", aspect="equal", xlim=extent[:2], ylim=extent[2:])
    return figure


def binned_panels(
    label: str, bins: Sequence[str], panels: Sequence[tuple[str, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]]
) -> Any:
    """Panels side by side; in each, per method, a value with its interval (value, low, high), each (k,), per bin."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _axes(len(panels))
    labels = list(panels[0][1])
    for axis, (text, series) in zip(axes, panels):
        for name, (value, low, high) in series.items():
            number = labels.index(name) % len(_COLOURS)
            x = np.arange(len(bins)) + 0.08 * (number - (len(labels) - 1) / 2)
            error = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
            style = {"color": _COLOURS[number], "marker": _MARKS[number], "markersize": 4, "capsize": 2}
            axis.errorbar(x, value, error, linestyle="-" if number == 0 else ":", linewidth=1, label=name, **style)
        axis.set_xticks(range(len(bins)), bins)
        axis.set(xlabel=label, ylabel=text)
        if text.startswith("RMSE"):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        else:
            axis.axhline(0, color="k", linewidth=0.6)
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def coverage_and_pull(
    bins: Sequence[str],
    series: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    nominal: Sequence[float],
    pull: np.ndarray,
) -> Any:
    """Coverage per bin against the nominal ones; the distribution of pulls (n, k) against a unit Gaussian."""
    figure, (left, right) = _axes(2)
    for (name, (value, low, high)), wanted, colour in zip(series.items(), nominal, _COLOURS):
        error = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
        left.errorbar(range(len(bins)), value, error, marker="o", markersize=4, capsize=2, color=colour, label=name)
        left.axhline(wanted, color=colour, linewidth=0.8, linestyle="--")
    left.set_xticks(range(len(bins)), bins)
    left.set(xlabel="signal to noise", ylabel="fraction of objects inside", ylim=(0.6, 1.0))
    left.legend(fontsize=8, frameon=False, loc="center left")
    grid = np.linspace(-5, 5, 81)
    for number, colour in zip(range(pull.shape[1]), _COLOURS):
        density, _ = np.histogram(pull[:, number], grid)
        width = len(pull) * (grid[1] - grid[0])
        right.stairs(density / width, grid, color=colour, label=f"e{'₁₂'[number]}")
    right.plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), "k-", linewidth=0.8, label="unit Gaussian")
    right.set(xlabel="(measured − true) / e_err", ylabel="density", yscale="log", ylim=(1e-4, 1))
    right.legend(fontsize=8, frameon=False)
    return figure


def labelled_grid(
    values: np.ndarray, labels: tuple[str, str], ticks: tuple[Sequence[str], Sequence[str]], title: str
) -> Any:
    """Numbers (row, column) as colours with the number in each cell; rows upwards. Empty rows and columns go."""
    there = np.isfinite(values)
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    values = values[np.ix_(rows, columns)]
    ticks = ([ticks[0][k] for k in rows.tolist()], [ticks[1][k] for k in columns.tolist()])
    figure, (panel,) = _axes(1)
    panel.set_facecolor("0.92")
    image = panel.imshow(values, origin="lower", cmap="viridis", aspect="auto")
    middle = float(np.nanmean(image.get_clim()))
    for row, column in np.ndindex(*values.shape):
        if np.isfinite(values[row, column]):
            colour = "white" if values[row, column] < middle else "black"
            panel.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    panel.set_yticks(range(len(ticks[0])), ticks[0])
    panel.set_xticks(range(len(ticks[1])), ticks[1])
    panel.set(ylabel=labels[0], xlabel=labels[1])
    panel.set_title(title, fontsize=10)
    return figure


def effect_bars(rows: Sequence[tuple[str, Sequence[Sequence[Sequence[float]]]]], texts: Sequence[str]) -> Any:
    """One panel per text, one line per row: [value, error] of both components with error bars."""
    figure, grid = blank_figure(4.2 * len(texts) + 1.6, 0.38 * len(rows) + 1.2, ncols=len(texts), sharey=True)
    panels = grid[0]
    for number, (panel, text) in enumerate(zip(panels, texts)):
        for component in (0, 1):
            values = np.array([pair[number][component] for _, pair in rows])
            y = np.arange(len(rows)) + 0.15 * (2 * component - 1)
            style = {"fmt": "os"[component], "color": _COLOURS[component], "markersize": 4, "capsize": 2}
            panel.errorbar(values[:, 0], y, xerr=values[:, 1], label=f"component {component + 1}", **style)
        panel.axvline(0, color="k", linewidth=0.6)
        panel.set(xlabel=text)
    panels[0].set_yticks(range(len(rows)), [name for name, _ in rows])
    panels[0].invert_yaxis()
    panels[0].legend(fontsize=8, frameon=False)
    return figure
