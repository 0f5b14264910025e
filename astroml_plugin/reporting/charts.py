"""Charts as plain values: what is drawn, without a library. `interactive` and `still` draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.typing import F64

COLOURS = ("#1b4f72", "#b03a2e", "#5b6b1f", "#6c3483", "#a04000", "#0e6655", "#5d6d7e", "#7d6608")
"""Colours of series in their order; each has a contrast of 4.5 or more against white."""


def floats(values: ArrayLike) -> F64:
    """(n,) float64; None becomes NaN."""
    return np.asarray(values, np.float64)


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    label: str
    """Quantity and unit."""
    log: bool = False
    """Whether it is logarithmic."""
    ticks: Sequence[str] = ()
    """Names of the places 0, 1, 2, …; empty for numbers."""
    limits: tuple[float, float] | None = None
    """First and last value; None: as the data have them. The first may be the larger one."""


@dataclass(frozen=True)
class Bars:
    """Upright bars."""

    x: F64
    """(n,) middles."""
    y: F64
    """(n,) heights."""
    name: str = ""
    """For the legend."""
    width: float | None = None
    """Width of each bar; None: 0.8."""
    low: F64 | None = None
    """(n,) lower ends of intervals."""
    high: F64 | None = None
    """(n,) upper ends."""
    sideways: bool = False
    """Whether bars lie: `x` counts along the upright axis then."""


@dataclass(frozen=True)
class Line:
    """A line through points; NaN breaks it."""

    x: F64
    y: F64
    name: str = ""
    low: F64 | None = None
    """(n,) lower edge of a band."""
    high: F64 | None = None
    """(n,) upper edge of a band."""
    dashed: bool = False
    step: bool = False
    """Whether values hold to the next point."""
    colour: str = ""
    """Default: the next of `COLOURS`."""
    width: float = 1.6
    texts: Sequence[str] = ()
    """Texts that readers see who point at the places."""


@dataclass(frozen=True)
class Points:
    """Points with error bars."""

    x: F64
    y: F64
    name: str = ""
    low: F64 | None = None
    """(n,) lower ends of intervals of `y`."""
    high: F64 | None = None
    """(n,) upper ends."""
    texts: Sequence[str] = ()
    """Texts that readers see who point at them."""
    colour: str = ""
    size: float = 6.0
    sideways: bool = False
    """Whether the intervals are those of `x`."""
    hidden: bool = False
    """Whether only the texts are there, for areas that are drawn below."""
    values: F64 | None = None
    """(n,) numbers that colour them, grey where not finite; None: one colour."""
    bar: str = ""
    """Label of the colour bar of `values`."""
    pictures: Sequence[int] = ()
    """Numbers of the pictures of the chart's sheet that readers see who point at them."""


@dataclass(frozen=True)
class Grid:
    """Coloured cells in rows and columns."""

    values: F64
    """(row, column), NaN for none."""
    texts: Sequence[Sequence[str]] = ()
    """Words in each cell."""
    bar: str = ""
    """Label of the colour bar."""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Areas:
    """Polygons coloured by a value."""

    x: F64
    """(n, corner)"""
    y: F64
    """(n, corner)"""
    values: F64
    """(n,), NaN is grey."""
    bar: str = ""
    """Label of the colour bar."""
    log: bool = False
    """Whether colours follow the logarithm."""
    texts: Sequence[str] = ()
    """Texts that readers see who point at them."""
    border: bool = False
    """Whether white lines part them."""


@dataclass(frozen=True)
class Words:
    """Texts at places."""

    x: F64
    y: F64
    texts: Sequence[str]


Series = Bars | Line | Points | Grid | Areas | Words


@dataclass(frozen=True)
class Sheet:
    """Small pictures in one, row by row."""

    data: bytes = field(repr=False)
    """JPEG."""
    side: int
    """Pixels of each picture."""
    columns: int
    """Pictures side by side."""


@dataclass(frozen=True)
class Chart:
    """One chart."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    height: int = 320
    """Pixels on a screen."""
    equal: bool = False
    """Whether both axes have one scale, as maps do."""
    bare: bool = False
    """Whether axes are left away."""
    alt: str = ""
    """Description for those who cannot see it; default made of title and axes."""
    legend: bool = True
    half: bool = True
    """Whether two such charts stand side by side where there is room."""
    sheet: Sheet | None = None
    """Pictures of its points."""


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of one width."""

    edges: F64
    """(n + 1,)"""
    counts: F64
    """(n,)"""
    below: int = 0
    """Values below the first edge."""
    above: int = 0
    """Values beyond the last edge."""
    missing: int = field(default=0)
    """Rows without a finite value."""

    def bars(self, name: str = "") -> Bars:
        """The bins as bars."""
        middle = (self.edges[1:] + self.edges[:-1]) / 2
        return Bars(middle, self.counts, name, width=float(self.edges[1] - self.edges[0]))
