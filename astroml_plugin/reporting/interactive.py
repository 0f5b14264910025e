"""Charts as JSON for plotly's JavaScript: SVG traces alone, as WebGL needs code that the page's policy forbids."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64
from astroml_plugin.reporting.charts import COLOURS, Areas, Axis, Bars, Chart, Grid, Line, Points, Words
from astroml_plugin.reporting.colours import NOTHING, SCALE, bucketed, css
from astroml_plugin.reporting.words import label

_INK = "#1b2a41"
_GRID = "#e3e7ec"
_MANY = 12
"""Series beyond which a legend is left away."""


def library() -> str | None:
    """The JavaScript of plotly; None where the package is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    return str(get_plotlyjs())


def figure(chart: Chart) -> dict[str, Any]:
    """`data` and `layout` of a chart, as plain JSON."""
    data: list[dict[str, Any]] = []
    for number, series in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        data += _TRACES[type(series)](series, colour)
    named = [trace for trace in data if trace.get("showlegend")]
    layout: dict[str, Any] = {
        "height": chart.height,
        "margin": {"l": 64, "r": 16, "t": 12, "b": 56},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "xaxis": _axis(chart.x, chart),
        "yaxis": _axis(chart.y, chart),
        "showlegend": chart.legend and 1 < len(named) <= _MANY,
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        "hovermode": "closest",
        "bargap": 0,
        "hoverlabel": {"align": "left"},
    }
    if chart.equal:
        layout["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
        layout["xaxis"]["constrain"] = layout["yaxis"]["constrain"] = "domain"
    if any(isinstance(series, Bars) and series.sideways for series in chart.series) or len(chart.y.ticks) > 0:
        layout["margin"]["l"] = 170
    return {"data": data, "layout": layout}


def _axis(axis: Axis, chart: Chart) -> dict[str, Any]:
    told: dict[str, Any] = {
        "title": {"text": _text(axis.label, 80)},
        "gridcolor": _GRID,
        "zeroline": False,
        "linecolor": "#8895a7",
        "showline": True,
        "ticks": "outside",
        "visible": not chart.bare,
        "automargin": True,
    }
    if axis.log:
        told |= {"type": "log", "exponentformat": "power", "dtick": 1}
    if axis.ticks:
        told |= {"tickvals": list(range(len(axis.ticks))), "ticktext": [_text(name) for name in axis.ticks]}
        told["showgrid"] = False
    if axis.limits is not None:
        told["range"] = [math.log10(end) if axis.log else end for end in axis.limits]
    return told


def _text(text: str, longest: int = 32) -> str:
    """A text that plotly shows as it is: it takes a few tags of HTML."""
    return html.escape(label(text, longest), quote=False)


def plain(values: F64 | Sequence[float]) -> list[float | None]:
    """Numbers with six digits, None for what is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in np.asarray(values, float).tolist()]


def _named(name: str) -> dict[str, Any]:
    return {"name": _text(name, 60), "showlegend": bool(name)}


def _errors(y: F64, low: F64 | None, high: F64 | None, colour: str) -> dict[str, Any] | None:
    if low is None or high is None:
        return None
    up, down = np.maximum(np.nan_to_num(high - y), 0), np.maximum(np.nan_to_num(y - low), 0)
    told = {"type": "data", "symmetric": False, "array": plain(up), "arrayminus": plain(down)}
    return {**told, "color": colour, "thickness": 1.2, "width": 3}


def _bars(series: Bars, colour: str) -> list[dict[str, Any]]:
    long, across = ("x", "y") if series.sideways else ("y", "x")
    trace: dict[str, Any] = {
        "type": "bar",
        across: plain(series.x),
        long: plain(series.y),
        "orientation": "h" if series.sideways else "v",
        "marker": {"color": colour, "line": {"width": 0}},
        **_named(series.name),
    }
    trace["width"] = 0.8 if series.width is None else series.width
    if (error := _errors(series.y, series.low, series.high, _INK)) is not None:
        trace[f"error_{long}"] = error
    return [trace]


def _band(x: F64, low: F64, high: F64, colour: str) -> dict[str, Any]:
    """One outline around each run of known ends: plotly's filling between two lines reaches across gaps."""
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(low) & np.isfinite(high))
    along, up = [], []
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        along += [*x[run], *x[run[::-1]], math.nan]
        up += [*low[run], *high[run[::-1]], math.nan]
    outline = {"x": plain(np.array(along[:-1])), "y": plain(np.array(up[:-1])), "fill": "toself"}
    style = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return {"type": "scatter", **outline, "fillcolor": _faint(colour), **style}


def _line(series: Line, colour: str) -> list[dict[str, Any]]:
    colour = series.colour or colour
    traces: list[dict[str, Any]] = []
    if series.low is not None and series.high is not None:
        traces.append(_band(series.x, series.low, series.high, colour))
    style: dict[str, Any] = {"color": colour, "width": series.width, "dash": "dash" if series.dashed else "solid"}
    if series.step:
        style["shape"] = "hv"
    trace: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": plain(series.x), "y": plain(series.y)}
    trace |= {"line": style, "connectgaps": False, **_named(series.name)}
    return [*traces, _pointed(trace, series.texts, quiet=not series.name)]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _pointed(trace: dict[str, Any], texts: Sequence[str], *, quiet: bool = False) -> dict[str, Any]:
    """A trace with what is read where a reader points."""
    if len(texts):
        return {**trace, "text": [_text(text, 200) for text in texts], "hoverinfo": "text"}
    return {**trace, "hoverinfo": "skip"} if quiet else trace


def _points(series: Points, colour: str) -> list[dict[str, Any]]:
    colour = series.colour or colour
    style: dict[str, Any] = {"color": colour, "size": series.size}
    if series.values is not None:
        style |= _coloured(series.values, series.bar)
    if series.hidden:
        style |= {"opacity": 0, "size": 14}
    trace: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": plain(series.x), "y": plain(series.y)}
    trace |= {"marker": style, **_named(series.name)}
    along = series.x if series.sideways else series.y
    if (error := _errors(along, series.low, series.high, colour)) is not None:
        trace["error_x" if series.sideways else "error_y"] = error
    if len(series.pictures):
        trace["customdata"] = list(series.pictures)
    return [_pointed(trace, series.texts)]


def _coloured(values: F64, bar: str) -> dict[str, Any]:
    """Colours of points by their values; grey where there is none."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    scale = [[place, css(colour)] for place, colour in SCALE]
    told = {"colorscale": scale, "cmin": low, "cmax": high, "showscale": True, "colorbar": _bar(bar)}
    return {**told, "color": [css(NOTHING) if one is None else one for one in plain(values)]}


def _grid(series: Grid, _: str) -> list[dict[str, Any]]:
    trace: dict[str, Any] = {"type": "heatmap", "z": [plain(row) for row in series.values], "showlegend": False}
    trace |= {"colorscale": "Blues", "reversescale": False, "hoverongaps": False, "colorbar": _bar(series.bar)}
    trace["colorscale"] = [[place, css(colour)] for place, colour in _paper_scale()]
    if series.limits is not None:
        trace |= {"zmin": series.limits[0], "zmax": series.limits[1]}
    if len(series.texts):
        trace |= {"text": [[_text(cell) for cell in row] for row in series.texts], "texttemplate": "%{text}"}
    return [trace]


def _paper_scale() -> Iterator[tuple[float, tuple[int, int, int]]]:
    """White to the first colour of series."""
    for place in (0.0, 0.5, 1.0):
        yield place, (round(255 - 228 * place), round(255 - 176 * place), round(255 - 141 * place))


def _bar(text: str) -> dict[str, Any]:
    return {"title": {"text": _text(text, 60), "side": "right"}, "thickness": 12, "outlinewidth": 0}


def _areas(series: Areas, _: str) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for colour, chosen in bucketed(series.values, log=series.log):
        x, y = (_closed(values[chosen]) for values in (series.x, series.y))
        shape: dict[str, Any] = {"type": "scatter", "mode": "lines", "fill": "toself", "x": x, "y": y}
        line = {"color": "#ffffff" if series.border else css(colour), "width": 1.0 if series.border else 0.6}
        traces.append(
            {**shape, "fillcolor": css(colour), "line": line, "hoverinfo": "skip", "showlegend": False, "opacity": 1}
        )
    middle = Points(np.nanmean(series.x, axis=1), np.nanmean(series.y, axis=1), texts=series.texts, hidden=True)
    known = series.values[np.isfinite(series.values) & ((series.values > 0) | (not series.log))]
    traces += _points(middle, COLOURS[0])
    if len(known) and known.min() < known.max():
        low, high = float(known.min()), float(known.max())
        ends = [math.log10(end) if series.log else end for end in (low, high)]
        told = _bar(f"{series.bar}{' (log10)' if series.log else ''}")
        scale = [[place, css(colour)] for place, colour in SCALE]
        marker = {"color": ends, "colorscale": scale, "showscale": True, "colorbar": told, "size": 0.1, "opacity": 0}
        nowhere = {"x": [None, None], "y": [None, None], "mode": "markers", "hoverinfo": "skip"}
        traces.append({"type": "scatter", **nowhere, "marker": marker, "showlegend": False})
    return traces


def _closed(corners: F64) -> list[float | None]:
    """Corners (n, k) one polygon after the other, each closed, None between them."""
    gap = np.full((len(corners), 1), np.nan)
    return plain(np.hstack([corners, corners[:, :1], gap]).ravel())


def _words(series: Words, _: str) -> list[dict[str, Any]]:
    trace: dict[str, Any] = {"type": "scatter", "mode": "text", "x": plain(series.x), "y": plain(series.y)}
    trace |= {"text": [_text(text) for text in series.texts], "hoverinfo": "skip", "showlegend": False}
    return [{**trace, "cliponaxis": False, "textfont": {"size": 11, "color": "#4a5568"}}]


_TRACES: dict[type, Callable[[Any, str], list[dict[str, Any]]]] = {
    Bars: _bars,
    Line: _line,
    Points: _points,
    Grid: _grid,
    Areas: _areas,
    Words: _words,
}
