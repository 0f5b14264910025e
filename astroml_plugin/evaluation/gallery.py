"""Pictures of measured objects: ellipticities against the truth, cutouts with their classes, whole fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from astroml_plugin.core.typing import Array
from astroml_plugin.evaluation.figures import write_figure

COLOURS = {"star": "#e69f00", "spheroid": "#d55e00", "disk": "#0072b2"}
"""Colour-blind safe (Okabe & Ito); other classes are grey."""

_SOFTENING = 4.0
_BACKGROUND = "#101018"


@dataclass(frozen=True)
class Snapshot:
    """One cutout to show."""

    image: Array
    """(band, y, x); one band is shown grey, three and more as blue, green, red."""
    title: str
    """Above it."""
    label: str = ""
    """Measured class: the frame's colour."""
    right: bool | None = None
    """Whether the class is the true one; None where nobody knows."""
    outline: NDArray[np.bool_] | None = None
    """(y, x) the object's own pixels; None where nobody knows."""


@dataclass(frozen=True)
class Shapes:
    """Measured and true ellipticities of n galaxies."""

    true: Array
    """(n, 2)"""
    measured: Array
    """(n, 2)"""
    snr: Array
    """(n,)"""

    def scatter(self, low: float, high: float) -> tuple[int, float]:
        """Galaxies with S/N in [low, high) and the RMSE per component."""
        chosen = (self.snr >= low) & (self.snr < high)
        if not chosen.any():
            return 0, float("nan")
        return int(chosen.sum()), float(np.sqrt(((self.measured - self.true)[chosen] ** 2).mean()))


@dataclass(frozen=True)
class Field:
    """A real image with its objects."""

    name: str
    image: Array
    """(y, x)"""
    x: Array
    y: Array
    labels: Sequence[str] = field(default_factory=list)
    """Class of each object."""
    snapshots: Sequence[Snapshot] = field(default_factory=list)
    note: str = ""
    """Below the title."""


def stretched(image: Array) -> Array:
    """(y, x) or (y, x, 3) values in [0, 1] from (band, y, x) pixels: asinh in units of the noise, colours kept."""
    planes = np.asarray(image, float)
    seen = np.isfinite(planes)
    if not seen.any(axis=(1, 2)).all():
        return np.zeros(planes.shape[1:])
    level = np.array([np.median(plane[good]) for plane, good in zip(planes, seen, strict=True)])[:, None, None]
    planes = np.where(seen, planes - level, 0.0)
    noise = max(1.4826 * float(np.median(np.abs(planes[seen]))), 1e-12)
    planes /= noise
    top = max(float(np.percentile(planes[seen], 99.7)), 12.0)
    total = np.maximum(planes.mean(0), 0)
    factor = np.arcsinh(total / _SOFTENING) / np.maximum(total, 1e-9) / np.arcsinh(top / _SOFTENING)
    if len(planes) < 3:
        floor = np.arcsinh(planes[0] / _SOFTENING) / np.arcsinh(top / _SOFTENING)
        grey: Array = np.clip(0.12 + 0.88 * floor, 0, 1)
        return grey
    chosen = planes[np.linspace(len(planes) - 1, 0, 3).round().astype(int)]
    noise_floor = 0.06 + 0.01 * chosen * (total < _SOFTENING)
    colours: Array = np.clip(np.moveaxis(np.maximum(chosen * factor, noise_floor), 0, -1), 0, 1)
    return colours


def cut(image: np.ndarray, x: float, y: float, size: int) -> np.ndarray:
    """Pixels (band, size, size) around (x, y) of `image` (band, y, x), NaN beyond its edges."""
    x0, y0 = int(np.floor(x + 0.5)) - size // 2, int(np.floor(y + 0.5)) - size // 2
    left, low = max(x0, 0), max(y0, 0)
    part = image[:, low : max(y0 + size, 0), left : max(x0 + size, 0)]
    whole = np.full((len(image), size, size), np.nan, np.float32)
    whole[:, low - y0 : low - y0 + part.shape[1], left - x0 : left - x0 + part.shape[2]] = part
    return whole


def simulated_picture(url: str, shapes: Shapes, snapshots: Sequence[Snapshot], note: str) -> None:
    """Measured against true ellipticity on the left, cutouts with their classes on the right."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[1, 1.15])
    left, right = halves
    _plot_shapes(left.subplots(), shapes)
    _plot_snapshots(right, snapshots, 4)
    right.suptitle("measured classes; a red title is a wrong one", fontsize=11)
    figure.suptitle(note, fontsize=12)
    write_figure(url, figure, dpi=110)


def images_picture(url: str, fields: Sequence[Field]) -> None:
    """One row per image: the field with its objects, and some of them cut out."""
    figure = Figure(figsize=(13, 4.1 * len(fields)), layout="constrained")
    rows: Any = figure.subfigures(len(fields), 1, squeeze=False)
    for row, shown in zip(rows[:, 0], fields, strict=True):
        left, right = row.subfigures(1, 2, width_ratios=[1.25, 1])
        _plot_field(left.subplots(), shown)
        _plot_snapshots(right, shown.snapshots, 4)
    write_figure(url, figure, dpi=110)


def _plot_shapes(axes: Axes, shapes: Shapes) -> None:
    order = np.argsort(shapes.snr)
    for component, marker in ((0, "o"), (1, "^")):
        points = axes.scatter(
            shapes.true[order, component],
            shapes.measured[order, component],
            c=np.log10(shapes.snr[order]),
            s=14,
            marker=marker,
            cmap="viridis",
            vmin=1.0,
            vmax=2.3,
            linewidths=0,
            alpha=0.85,
        )
    axes.plot([-1, 1], [-1, 1], color="black", linewidth=0.8)
    axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), aspect="equal")
    axes.set(xlabel="true ellipticity", ylabel="measured ellipticity (posterior mean)")
    axes.grid(alpha=0.2)
    bar = axes.figure.colorbar(points, ax=axes, shrink=0.8, label="S/N")
    ticks = [10, 20, 50, 100, 200]
    bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[str(tick) for tick in ticks])
    lines = []
    for low, high in ((10, 20), (20, 50), (50, 100), (100, np.inf)):
        count, rmse = shapes.scatter(low, high)
        if count:
            band = f"S/N {low}-{high:.0f}" if np.isfinite(high) else f"S/N > {low}"
            lines.append(f"{band}: RMSE {rmse:.3f} ({count})")
    axes.text(0.03, 0.97, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=9)
    kinds = [
        Line2D([], [], marker=marker, linestyle="", color="grey", label=f"$e_{n}$")
        for n, marker in ((1, "o"), (2, "^"))
    ]
    axes.legend(handles=kinds, loc="lower right", frameon=False)


def _plot_snapshots(figure: SubFigure, snapshots: Sequence[Snapshot], columns: int) -> None:
    if not snapshots:
        return
    rows = -(-len(snapshots) // columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for axes, shot in zip(grid.ravel(), snapshots, strict=False):
        axes.axis("on")
        axes.set(xticks=[], yticks=[])
        axes.imshow(stretched(shot.image), origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if shot.outline is not None and 0 < shot.outline.sum() < shot.outline.size:
            axes.contour(shot.outline.astype(float), levels=[0.5], colors="white", linewidths=0.7, alpha=0.8)
        axes.set_title(shot.title, fontsize=8, color="#c00000" if shot.right is False else "black", pad=3)
        for spine in axes.spines.values():
            spine.set(color=COLOURS.get(shot.label, "grey"), linewidth=2.5)


def _plot_field(axes: Axes, shown: Field) -> None:
    axes.set_facecolor(_BACKGROUND)
    axes.imshow(stretched(shown.image[None]), origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    radius = 0.012 * max(shown.image.shape)
    for label in sorted(set(shown.labels)):
        chosen = np.array([mine == label for mine in shown.labels])
        axes.scatter(
            np.asarray(shown.x)[chosen],
            np.asarray(shown.y)[chosen],
            s=min(60.0, 14 * max(radius, 1.0)),
            facecolors="none",
            edgecolors=COLOURS.get(label, "grey"),
            linewidths=0.9,
            label=f"{label} ({int(chosen.sum())})",
        )
    height, width = shown.image.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5))
    axes.set_title(f"{shown.name}\n{shown.note}", fontsize=9)
    axes.tick_params(labelsize=7)
    if len(set(shown.labels)) > 0:
        axes.legend(fontsize=7, loc="upper right", framealpha=0.8)
