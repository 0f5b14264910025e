"""Has a distribution moved? Population stability and two-sample distances against a reference, tile by tile.

Objects of one tile share its noise and seeing: they are not as many witnesses as they are objects. Distances are judged
by the number of independent ones, which the scatter between tiles tells (Kish 1965, Survey Sampling).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core import foreign
from astroml_plugin.core.typing import F64, I64

KNOTS = 21
"""Quantiles that a reference keeps: every 5 %."""

BINS = 10
"""Bins of the population stability index: tenths of the reference."""

STABILITY = 0.25
"""Population stability index from which a distribution is called another one."""

CHANCE = 0.01
"""Chance that anything of a page is reported where nothing has moved."""

FEWEST = 12
"""Values below which nothing is compared."""

_MARGIN = 0.5
"""Widths of the reference beyond its ends within which values are still like it."""
_MOST = 0.5
"""Part of the values beyond these margins from which they are called another distribution."""
COVERED = 0.8
"""Part of the values in the middle nine tenths of the reference from which nothing is new, however they are spread."""
_SPREAD = np.linspace(-1, 1, 41)
_POINTS = 200
_MOVES = tuple(np.linspace(-1, 1, 9).tolist())
_GROUPS = 3
"""Tiles from which their scatter is measured."""


@dataclass(frozen=True)
class Distribution:
    """Quantiles of a number, and how many independent values they rest on."""

    quantiles: F64
    """(KNOTS,) from the least to the most."""
    count: int
    """Values."""
    groups: int
    """Tiles that they are of; as many as values where each is of its own."""
    alike: float
    """Part of the variance that lies between tiles, 0 to 1."""

    @classmethod
    def of(cls, values: ArrayLike, groups: I64 | None = None) -> Distribution | None:
        """The distribution of values (n,), finite ones alone; None where these are fewer than 12.

        Args:
            values: (n,).
            groups: (n,) number of each value's tile; None: every value is a witness of its own.
        """
        known, kept = _finite(values, groups)
        if len(known) < FEWEST:
            return None
        quantiles = np.quantile(known, np.linspace(0, 1, KNOTS))
        count = len(known) if kept is None else len(np.unique(kept))
        return cls(quantiles, len(known), count, 0.0 if kept is None else alike(known, kept))

    def spread(self, tolerance: Tolerance) -> F64:
        """(KNOTS,) quantiles of the values, where these are spread over a tolerance."""
        if tolerance == Tolerance():
            return self.quantiles
        knots = np.linspace(0, 1, KNOTS)
        values = np.interp((np.arange(_POINTS) + 0.5) / _POINTS, knots, self.quantiles)
        return np.asarray(np.quantile(tolerance.blurred(values), knots), np.float64)

    @property
    def independent(self) -> float:
        """Independent values."""
        return independent(self.count, self.groups, self.alike)

    def to_json(self) -> dict[str, Any]:
        """Plain values, numbers with six digits."""
        return {
            "quantiles": [float(f"{value:.6g}") for value in self.quantiles],
            "count": self.count,
            "groups": self.groups,
            "alike": round(self.alike, 4),
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Distribution:
        """The distribution that `to_json` gave.

        Raises:
            InputError: it is none.
        """
        kinds: Mapping[str, foreign.Kinds] = {"quantiles": list, "count": int, "groups": int, "alike": foreign.NUMBER}
        told = foreign.record(value, kinds, where, "leave it away, or make it again")
        with foreign.refusing(where, "leave it away, or make it again"):
            quantiles = np.asarray(told["quantiles"], np.float64).reshape(KNOTS)
        return cls(quantiles, told["count"], told["groups"], float(told["alike"]))


@dataclass(frozen=True)
class Tolerance:
    """Differences that are no drift: values are spread by as much, and moved by as much to where they fit best."""

    relative: float = 0.0
    """Part of the value."""
    absolute: float = 0.0
    """In the unit of the value."""

    def blurred(self, values: F64) -> F64:
        """(41 n,) the values (n,) spread evenly over their tolerance."""
        if not self.relative and not self.absolute:
            return values
        reach = self.relative * np.abs(values) + self.absolute
        return np.asarray((values[:, None] + reach[:, None] * _SPREAD).ravel(), np.float64)

    def reach(self, value: float) -> float:
        """Difference from a value that does not count."""
        return self.relative * abs(value) + self.absolute

    def moved(self, edges: F64, part: float) -> F64:
        """Edges (k,) among values, where these have been moved by a part (-1 to 1) of the tolerance."""
        return np.asarray((edges - part * self.absolute) / (1 + part * self.relative), np.float64)


@dataclass(frozen=True)
class Drift:
    """How far some values lie from a reference."""

    median: float
    """Median of the values."""
    usual: float
    """Median of the reference."""
    stability: float
    """Population stability index over tenths of the reference; 0 is the same."""
    distance: float
    """Kolmogorov's two-sample distance, 0 to 1, looked at every 5 % of the reference."""
    chance: float
    """Distance that chance alone goes beyond once in as many times as asked for."""
    beyond: float
    """Part of the values beyond the reference's ends and half of its width."""
    covered: float
    """Part of the values in the middle nine tenths of the reference."""
    count: int
    """Values."""

    @property
    def reported(self) -> bool:
        """Whether it is called a drift: another distribution, and more so than chance makes it; or most lie outside."""
        return (self.distance > self.chance and self.stability > STABILITY) or self.beyond > _MOST

    @property
    def outside(self) -> bool:
        """Whether it is reported, and more than a fifth of the values lie where the reference has few."""
        return self.reported and self.covered < COVERED


def drift_from(
    reference: Distribution,
    values: ArrayLike,
    groups: I64,
    *,
    level: float = CHANCE,
    tolerance: Tolerance | None = None,
    shared: float | None = None,
) -> Drift | None:
    """Compare values with a reference; None where fewer than 12 are finite.

    Args:
        reference: of the same number.
        values: (n,).
        groups: (n,) number of each value's tile.
        level: chance of a false report that is borne.
        tolerance: differences that do not count.
        shared: part of the variance between tiles, where these values are of one tile; else it is measured.
    """
    known, kept = _finite(values, groups)
    if len(known) < FEWEST or kept is None:
        return None
    part = between_tiles(reference, known, kept) if shared is None else shared
    own = independent(len(known), len(np.unique(kept)), part)
    borne = tolerance or Tolerance()
    blurred = np.sort(borne.blurred(known))
    edges, below = _edges(reference.spread(borne))
    moved = [(_distance(blurred, borne.moved(edges, part), below), part) for part in _MOVES]
    distance, by = min(moved) if borne != Tolerance() else moved[len(_MOVES) // 2]
    critical = math.sqrt(-0.5 * math.log(level / 2) * (1 / own + 1 / reference.independent))
    least, most = float(reference.quantiles[0]), float(reference.quantiles[-1])
    margin = _MARGIN * (most - least)
    low, high = least - margin - borne.reach(least), most + margin + borne.reach(most)
    step = (KNOTS - 1) // 20
    first, last = float(reference.quantiles[step]), float(reference.quantiles[-1 - step])
    inside = (known >= first - borne.reach(first)) & (known <= last + borne.reach(last))
    return Drift(
        median=float(np.median(known)),
        usual=float(reference.quantiles[KNOTS // 2]),
        stability=_stability((edges, below), blurred, borne.moved(edges, by), (reference.independent, own)),
        distance=distance,
        chance=min(critical, 1.0),
        beyond=float(((known < low) | (known > high)).mean()),
        covered=float(inside.mean()),
        count=len(known),
    )


def _distance(values: F64, edges: F64, below: F64) -> float:
    seen = np.searchsorted(values, edges, side="right") / len(values)
    return float(np.abs(seen - below).max(initial=0.0))


def between_tiles(reference: Distribution, values: F64, groups: I64) -> float:
    """Part of the variance of values (n,) that lies between tiles: measured, or of few tiles by the reference."""
    if len(np.unique(groups)) >= _GROUPS:
        return alike(values, groups)
    rest = np.concatenate([values[groups == one] - np.median(values[groups == one]) for one in np.unique(groups)])
    inside = np.subtract(*np.quantile(rest, [0.84, 0.16]))
    knots = np.linspace(0, 1, KNOTS)
    whole = np.subtract(*np.interp([0.84, 0.16], knots, reference.quantiles))
    return float(np.clip(1 - (inside / whole) ** 2, 0, 1)) if whole > 0 else 1.0


def alike(values: F64, groups: I64) -> float:
    """Intraclass correlation of the ranks of values (n,) in groups (n,), 0 to 1 (one-way analysis of variance)."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count, kinds = len(values), len(sizes)
    if kinds < 2 or count <= kinds:
        return 0.0
    _, order, ties = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - 0.5 * (ties - 1))[order]
    means = np.bincount(place, ranks) / sizes
    between = float((sizes * (means - ranks.mean()) ** 2).sum() / (kinds - 1))
    within = float(((ranks - means[place]) ** 2).sum() / (count - kinds))
    size = (count - float((sizes**2).sum()) / count) / (kinds - 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 1.0


def independent(count: int, groups: int, part: float) -> float:
    """Independent values among `count` in `groups` tiles, of whose variance `part` lies between tiles."""
    return count / (1 + max(count / max(groups, 1) - 1, 0) * part)


def _finite(values: ArrayLike, groups: I64 | None) -> tuple[F64, I64 | None]:
    given = np.asarray(values, np.float64)
    good = np.isfinite(given)
    return given[good], None if groups is None else groups[good]


def _edges(quantiles: F64) -> tuple[F64, F64]:
    """(k,) values, and the part of the reference at or below each: a value that it has often is parted from others."""
    values, first, counts = np.unique(quantiles[1:-1], return_index=True, return_counts=True)
    place = (first + 1) / (KNOTS - 1)
    last = (first + counts) / (KNOTS - 1)
    often = counts > 1
    edges = np.concatenate([values, np.nextafter(values[often], -np.inf)])
    parts = np.concatenate([last, np.where(quantiles[0] == values[often], 0.0, place[often])])
    parts[: len(values)][values == quantiles[-1]] = 1.0
    order = np.argsort(edges, kind="stable")
    return edges[order], parts[order]


def _stability(reference: tuple[F64, F64], values: F64, moved: F64, independents: tuple[float, float]) -> float:
    """Population stability index, half an independent value added to each bin of both.

    Args:
        reference: its edges, and its part at or below each.
        values: sorted.
        moved: the edges among the values.
        independents: independent values of the reference, and of the values.
    """
    edges, below = reference
    step = slice(1, None, 2) if len(edges) == KNOTS - 2 else slice(None)
    wanted = np.diff(below[step], prepend=0.0, append=1.0)
    places = np.searchsorted(values, moved[step], side="right")
    seen = np.diff(places / len(values), prepend=0.0, append=1.0)
    smooth = [
        (part * number + 0.5) / (number + 0.5 * len(part))
        for part, number in zip((wanted, seen), independents, strict=True)
    ]
    return float(((smooth[1] - smooth[0]) * np.log(smooth[1] / smooth[0])).sum())
