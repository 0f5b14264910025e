"""Values with intervals as charts and cells, as they stand in metrics.json and compare.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64
from astroml_plugin.reporting.charts import Axis, Chart, Points
from astroml_plugin.reporting.words import label, number


def is_figure(value: Any) -> bool:
    """Whether it is a value, perhaps with an interval."""
    return isinstance(value, Mapping) and isinstance(value.get("value"), int | float)


def cell(value: Any) -> str:
    """A figure for people: value, and its interval where there is one."""
    if is_figure(value):
        ends = value.get("low"), value.get("high")
        told = number(float(value["value"]))
        return told if None in ends else f"{told} ({number(float(ends[0]))} to {number(float(ends[1]))})"
    if isinstance(value, bool) or value is None:
        return number(value)
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(cell(one) for one in value)
    return str(value)


def ends_of(values: Sequence[Mapping[str, Any]]) -> tuple[F64, F64, F64]:
    """Value, low and high (n,) of figures; the value itself where there is no interval."""
    middle = np.array([_float(one.get("value")) for one in values])
    low, high = (np.array([_float(one.get(key)) for one in values]) for key in ("low", "high"))
    return middle, np.where(np.isfinite(low), low, middle), np.where(np.isfinite(high), high, middle)


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def intervals(title: str, what: str, named: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Figures below one another, the first on top, with their intervals lying."""
    names = [label(name, 28) for name in named][::-1]
    value, low, high = ends_of(list(named.values())[::-1])
    points = Points(value, np.arange(len(names), dtype=float), low=low, high=high, sideways=True, size=8)
    return Chart(title, Axis(what), Axis("", ticks=names), [points], 90 + 26 * len(names), legend=False)
