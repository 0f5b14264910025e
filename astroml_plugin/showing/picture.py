"""The picture of a view: colours by wavelength, what cannot be used, objects, tiles, compass and scale bar."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.patheffects import withStroke

from astroml_plugin.core.redaction import redact
from astroml_plugin.core.typing import U8, Bool
from astroml_plugin.labelling.paint import UNUSABLE, Painter, colours
from astroml_plugin.showing.marks import Compass, compass, scale_bar
from astroml_plugin.showing.objects import Objects
from astroml_plugin.showing.pixels import Pixels
from astroml_plugin.showing.view import View

CLEAN, FLAGGED, CHOSEN = "#39d3f2", "#ffb000", "#ffffff"
"""Colours of marks: objects without a flag, with one, and the one that was asked for."""

_RIM = (57, 211, 242)
_NAMED = 40
"""Objects up to which their ids are written."""

_INCHES, _DPI = 9.0, 130


@dataclass(frozen=True)
class Showing:
    """A picture and what is on it."""

    png: bytes
    legend: tuple[str, ...]
    """Sentences that say what is seen."""
    size: tuple[int, int] = (0, 0)
    """(width, height) of the picture in pixels."""
    spots: tuple[tuple[float, float, float, str], ...] = ()
    """(x, y, radius, text) of each object that is marked, in pixels of the picture, y down."""


def painted(pixels: Pixels, contrast: float = 1.0) -> U8:
    """(y, x, 3) with the first row below: Lupton's stretch of three bands by wavelength, or grey of one.

    Pixels without a value in any band are violet; those that lack some bands, or stand for a block with unusable
    pixels, are half violet.
    """
    usable = np.isfinite(pixels.image)
    painter = Painter.of([pixels.image], pixels.bands)
    shown = painter.picture(pixels.image, usable, contrast=contrast)[::-1].copy()
    partly = pixels.bad.any(0) & usable.any(0)
    shown[partly] = (0.55 * shown[partly] + 0.45 * np.array([200, 60, 200])).astype(np.uint8)
    shown[~usable.any(0)] = UNUSABLE
    return shown


def colour_words(bands: Sequence[str]) -> str:
    """Which bands are which colours."""
    if len(bands) == 1:
        return f"band {bands[0]}, grey"
    parts = [" + ".join(bands[k] for k in chosen) for chosen in colours(bands)]
    return ", ".join(f"{colour} {part}" for colour, part in zip(("red", "green", "blue"), parts, strict=True))


def show_view(
    view: View, pixels: Pixels, objects: Objects | None = None, *, contrast: float = 1.0, names: bool | None = None
) -> Showing:
    """Paint a view.

    Args:
        view: the view.
        pixels: its pixels.
        objects: rows to mark; None: no catalog.
        contrast: above 1 shows fainter light.
        names: whether ids are written; None: where there are few objects.
    """
    box = view.box
    shown = painted(pixels, contrast)
    if objects is not None and objects.outlines is not None:
        shown[_binned(objects.outlines, pixels.factor, shown.shape)] = _RIM
    wide = box.width / box.height
    size = (_INCHES, _INCHES / wide + 0.75) if wide >= 1 else (_INCHES * wide + 0.6, _INCHES + 0.75)
    figure = Figure((max(size[0], 3.5), max(size[1], 2.5)), _DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    factor = pixels.factor
    right, top = box.x0 + shown.shape[1] * factor - 0.5, box.y0 + shown.shape[0] * factor - 0.5
    extent = (box.x0 - 0.5, right, box.y0 - 0.5, top)
    axes.imshow(shown, origin="lower", extent=extent, interpolation="nearest")
    axes.set(xlim=(box.x0 - 0.5, box.x1 - 0.5), ylim=(box.y0 - 0.5, box.y1 - 0.5))
    axes.set_xlabel("x [pixels of the image]", fontsize=8)
    axes.set_ylabel("y", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title(_plain(f"{view.title}\n{colour_words(pixels.bands)}"), fontsize=9, loc="left")
    legend = _marked(axes, view, objects, names)
    _tiles(axes, view)
    _corners(axes, view)
    sink = io.BytesIO()
    with warnings.catch_warnings():  # letters that the font lacks
        warnings.simplefilter("ignore")
        figure.savefig(sink, format="png")
    width, height = (round(float(value)) for value in figure.bbox.size)
    spots = () if objects is None else _spots(axes, view, objects, height)
    return Showing(sink.getvalue(), (*_seen(pixels), *legend), (width, height), spots)


def _spots(axes: Any, view: View, objects: Objects, height: int) -> tuple[tuple[float, float, float, str], ...]:
    """Places of the marks in the picture."""
    rows = objects.rows.to_pylist()
    if not rows:
        return ()
    middle = axes.transData.transform([(row["x"], row["y"]) for row in rows])
    edge = axes.transData.transform((rows[0]["x"] + _radius(view, len(rows)), rows[0]["y"]))
    radius = float(edge[0] - middle[0][0])
    texts = [
        f"{row['object_id']}{'' if row['label'] is None else ' ' + row['label']}, flags {row['flags']}" for row in rows
    ]
    return tuple((float(x), float(height - y), radius, text) for (x, y), text in zip(middle, texts, strict=True))


def _radius(view: View, count: int) -> float:
    """Pixels of the survey of the circle around one of so many objects: smaller where they are crowded."""
    apart = np.sqrt(view.box.width * view.box.height / max(count, 1))
    return float(np.clip(0.4 * apart, 2.5, max(6.0, 0.008 * max(view.box.width, view.box.height))))


def _plain(text: str) -> str:
    return redact(text).replace("$", r"\$")


def _binned(outlines: Bool, factor: int, shape: tuple[int, ...]) -> Bool:
    """Rims in the picture's blocks."""
    if factor == 1:
        return outlines
    whole = np.zeros((shape[0] * factor, shape[1] * factor), bool)
    whole[: outlines.shape[0], : outlines.shape[1]] = outlines
    return np.asarray(whole.reshape(shape[0], factor, shape[1], factor).any((1, 3)))


def _seen(pixels: Pixels) -> tuple[str, ...]:
    told = [f"Colours: {colour_words(pixels.bands)}, asinh stretch of Lupton et al. (2004) in units of the noise."]
    if pixels.factor > 1:
        told.append(f"Each pixel of the picture is the mean of {pixels.factor} x {pixels.factor} pixels.")
    lost = float((~np.isfinite(pixels.image)).all(0).mean())
    partly = float(pixels.bad.any(0).mean()) - lost
    if lost or partly:
        told.append(
            f"Violet pixels cannot be used in any band ({lost:.2%}); half violet ones in some band, or in part "
            f"({partly:.2%})."
        )
    return (*told, *pixels.problems)


def _marked(axes: Any, view: View, objects: Objects | None, names: bool | None) -> list[str]:
    """Circles around objects, and what they mean."""
    if view.circle is not None:
        x, y, radius = view.circle
        axes.add_patch(Circle((x, y), radius, fill=False, edgecolor="white", linewidth=1, linestyle="--"))
    if objects is None:
        return []
    rows = objects.rows.to_pylist()
    radius = _radius(view, len(rows))
    written = len(rows) <= _NAMED if names is None else names
    for row in rows:
        colour = CHOSEN if row["object_id"] == view.object_id else FLAGGED if row["flags"] else CLEAN
        style = {"linestyle": "-" if row["primary"] else ":", "linewidth": 1.0}
        axes.add_patch(Circle((row["x"], row["y"]), radius, fill=False, edgecolor=colour, **style))
        if written:
            text = str(row["object_id"]) if row["label"] is None else f"{row['object_id']} {row['label']}"
            place = (row["x"] + radius, row["y"] + radius)
            axes.text(*place, _plain(text), fontsize=5.5, color=colour, clip_on=True, path_effects=_HALO)
    more = f" ({len(rows):,} are marked)" if objects.total > len(rows) else ""
    told = [f"{objects.total:,} objects{more}: blue without a flag, orange with one; dotted rows are not primary."]
    if objects.outlines is not None:
        told.append("Blue rims: outlines of the objects that a bundle found.")
    return told


_HALO = [withStroke(linewidth=1.6, foreground="black")]


def _tiles(axes: Any, view: View) -> None:
    """Borders of tiles, where there are several."""
    for info in view.tiles if len(view.tiles) > 1 else ():
        own = info.inner
        style: dict[str, Any] = {"edgecolor": "#d0d0d0", "linewidth": 0.5, "linestyle": "--", "alpha": 0.6}
        axes.add_patch(Rectangle((own.x0 - 0.5, own.y0 - 0.5), own.width, own.height, fill=False, **style))


def _corners(axes: Any, view: View) -> None:
    """Scale bar below on the left, compass on the right."""
    box, jacobian = view.box, view.jacobian()
    bar = scale_bar(box.width, jacobian)
    x, y = box.x0 + 0.04 * box.width, box.y0 + 0.05 * box.height
    rim = [withStroke(linewidth=4.5, foreground="black")]
    axes.plot([x, x + bar.pixels], [y, y], color="white", linewidth=2.5, path_effects=rim)
    style: dict[str, Any] = {"color": "white", "fontsize": 9, "path_effects": _HALO}
    axes.text(x + bar.pixels / 2, y + 0.012 * box.height, bar.text, ha="center", va="bottom", **style)
    if jacobian is not None:
        _draw_compass(axes, compass(jacobian), view, style)


def _draw_compass(axes: Any, found: Compass, view: View, style: dict[str, Any]) -> None:
    box = view.box
    length = 0.07 * min(box.width, box.height)
    both = np.array([found.north, found.east])
    corner = np.array([box.x1 - 2.0 * length, box.y0 + 2.0 * length])
    start = corner - length * both.sum(0) / 2
    for (dx, dy), letter in zip(both.tolist(), "NE", strict=True):
        arrow = {"arrowstyle": "-|>", "color": "white", "linewidth": 1.6}
        axes.annotate("", start + length * np.array([dx, dy]), start, arrowprops=arrow)
        axes.text(*(start + 1.35 * length * np.array([dx, dy])), letter, ha="center", va="center", **style)
