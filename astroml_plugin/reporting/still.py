"""Charts as pictures by matplotlib: for paper, and for readers without scripts."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image as Pillow

from astroml_plugin.core.typing import F64
from astroml_plugin.reporting.charts import COLOURS, Areas, Axis, Bars, Chart, Grid, Line, Points, Words
from astroml_plugin.reporting.colours import NOTHING, SCALE, at, css, scaled
from astroml_plugin.reporting.words import label

_WIDTH, _DPI = 6.4, 120
_MANY = 12


def png(chart: Chart) -> bytes:
    """A chart as PNG."""
    height = max(chart.height / 100, 1.6)
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots()
    named = bool(chart.y.ticks)
    below = (
        1.1 if _is_turned(chart.x) else 0.55
    ) / height  # margins as they are: a layout by itself takes as long again
    figure.subplots_adjust(left=0.3 if named else 0.13, right=0.97, top=0.96, bottom=min(below, 0.5))
    for number, series in enumerate(chart.series):
        _DRAWN[type(series)](axes, series, COLOURS[number % len(COLOURS)])
    _set(axes, chart)
    sink = io.BytesIO()
    with warnings.catch_warnings():  # letters that the font lacks, and axes without any value
        warnings.simplefilter("ignore")
        figure.savefig(sink, format="png", dpi=_DPI)
    return small(sink.getvalue())


def small(data: bytes) -> bytes:
    """A PNG of a figure with 128 colours: a third of the bytes."""
    picture = Pillow.open(io.BytesIO(data)).convert("RGB")
    sink = io.BytesIO()
    picture.quantize(128).save(sink, "PNG", optimize=True)
    return min(sink.getvalue(), data, key=len)


def _text(text: str, longest: int = 32) -> str:
    """A text that matplotlib takes for no formula."""
    return label(text, longest).replace("$", r"\$")


def _set(axes: Any, chart: Chart) -> None:
    for axis, which in ((chart.x, "x"), (chart.y, "y")):
        _set_axis(axes, axis, which)
    if chart.equal:
        axes.set_aspect("equal")
    if chart.bare:
        axes.axis("off")
    else:
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    if chart.legend and 1 < len(names) <= _MANY:
        axes.legend(handles, names, fontsize=8, frameon=False)


def _is_turned(axis: Axis) -> bool:
    """Whether the names along a lower axis are too long to stand side by side."""
    return bool(axis.ticks) and max(map(len, axis.ticks)) * len(axis.ticks) > 60


def _set_axis(axes: Any, axis: Axis, which: str) -> None:
    getattr(axes, f"set_{which}label")(_text(axis.label, 80))
    if axis.log:
        getattr(axes, f"set_{which}scale")("log")
    if axis.ticks:
        style = {"rotation": 35, "ha": "right"} if which == "x" and _is_turned(axis) else {}
        names = [_text(name) for name in axis.ticks]
        getattr(axes, f"set_{which}ticks")(range(len(names)), names, fontsize=8, **style)
    if axis.limits is not None:
        getattr(axes, f"set_{which}lim")(*axis.limits)


def _ends(y: F64, low: F64 | None, high: F64 | None) -> list[F64] | None:
    if low is None or high is None:
        return None
    return [np.maximum(np.nan_to_num(y - low), 0), np.maximum(np.nan_to_num(high - y), 0)]


def _bars(axes: Any, series: Bars, colour: str) -> None:
    width = 0.8 if series.width is None else series.width
    style: dict[str, Any] = {"color": colour, "alpha": 0.85, "label": _text(series.name, 60) or None}
    style |= {"ecolor": "#1b2a41", "error_kw": {"elinewidth": 1, "capsize": 2}}
    ends = _ends(series.y, series.low, series.high)
    if series.sideways:
        axes.barh(series.x, series.y, height=width, xerr=ends, **style)
    else:
        axes.bar(series.x, series.y, width=width, yerr=ends, **style)


def _line(axes: Any, series: Line, colour: str) -> None:
    colour = series.colour or colour
    style: dict[str, Any] = {"color": colour, "linewidth": series.width, "label": _text(series.name, 60) or None}
    style["linestyle"] = "--" if series.dashed else "-"
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(series.x, series.y, drawstyle="steps-post" if series.step else "default", **style)


def _points(axes: Any, series: Points, colour: str) -> None:
    if series.hidden:
        return
    if series.values is not None:
        _coloured(axes, series)
        return
    ends = _ends(series.x if series.sideways else series.y, series.low, series.high)
    style: dict[str, Any] = {"color": series.colour or colour, "markersize": series.size * 0.7, "linewidth": 1}
    style |= {"capsize": 2, "label": _text(series.name, 60) or None, "fmt": "o"}
    axes.errorbar(series.x, series.y, **{"xerr" if series.sideways else "yerr": ends}, **style)


def _coloured(axes: Any, series: Points) -> None:
    """Points by their values, grey where there is none."""
    assert series.values is not None
    known = np.isfinite(series.values)
    scale = colors.LinearSegmentedColormap.from_list("points", [(place, css(colour)) for place, colour in SCALE])
    size = (0.7 * series.size) ** 2
    axes.scatter(series.x[~known], series.y[~known], s=size, color=css(NOTHING))
    if known.any():
        drawn = axes.scatter(series.x[known], series.y[known], s=size, c=series.values[known], cmap=scale)
        axes.figure.colorbar(drawn, ax=axes, label=_text(series.bar, 60), shrink=0.8)


def _grid(axes: Any, series: Grid, _: str) -> None:
    low, high = series.limits or (None, None)
    image = axes.imshow(series.values, cmap="Blues", origin="lower", aspect="auto", vmin=low, vmax=high)
    top = np.nanmax(series.values) if np.isfinite(series.values).any() else 1.0
    for row, cells in enumerate(series.texts):
        for column, text in enumerate(cells):
            dark = series.values[row, column] > 0.55 * (high or top)
            axes.text(column, row, _text(text), ha="center", va="center", fontsize=7, color="w" if dark else "k")
    axes.figure.colorbar(image, ax=axes, label=_text(series.bar, 60), shrink=0.8)


def _areas(axes: Any, series: Areas, _: str) -> None:
    places = scaled(series.values, log=series.log)
    shade = np.array([NOTHING if np.isnan(place) else at(place) for place in places.tolist()]).reshape(-1, 3) / 255
    corners = np.stack([series.x, series.y], axis=2)
    axes.add_collection(
        PolyCollection(list(corners), facecolors=shade, edgecolors="w" if series.border else shade, linewidths=0.4)
    )
    axes.autoscale_view()
    known = series.values[np.isfinite(places)]
    if len(known) and known.min() < known.max():
        kind = colors.LogNorm if series.log else colors.Normalize
        low, high = float(known.min()), float(known.max())
        norm = kind(low, high)
        scale = colors.LinearSegmentedColormap.from_list("areas", [(place, css(colour)) for place, colour in SCALE])
        axes.figure.colorbar(ScalarMappable(norm, scale), ax=axes, label=_text(series.bar, 60), shrink=0.8)


def _words(axes: Any, series: Words, _: str) -> None:
    for x, y, text in zip(series.x, series.y, series.texts, strict=True):
        if np.isfinite(x) and np.isfinite(y):
            axes.text(x, y, _text(text), ha="center", va="center", fontsize=7, color="#4a5568")


_DRAWN: dict[type, Callable[[Any, Any, str], None]] = {
    Bars: _bars,
    Line: _line,
    Points: _points,
    Grid: _grid,
    Areas: _areas,
    Words: _words,
}
