"""Contents of columns: counts by magnitude, and a histogram of each column of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.ranking.names import numeric_columns
from astroml_plugin.reporting.charts import Axis, Chart, Histogram, Line, Points
from astroml_plugin.reporting.pages import Block, Missing, Section, Table
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.reporting.words import many, number, share

NUMBERS, MAGNITUDES = "Columns of numbers", "Counts and magnitudes"
_SHOWN = 24
_LISTED = 60
_AT_ONCE = 20
_BINS = 40
_BANDS = 8
_STEP = 0.5
_NANOJANSKY = 31.4
"""AB magnitude of 1 nJy."""


@dataclass(frozen=True)
class Spread:
    """Numbers about one column, of the primary rows."""

    name: str
    rows: int
    """Rows with a finite value."""
    least: float
    low: float
    """0.5 % of the values are smaller."""
    median: float
    high: float
    """0.5 % of the values are larger."""
    most: float

    @property
    def logarithmic(self) -> bool:
        """Whether it is drawn by its logarithm: positive, over more than two decades."""
        return self.low > 0 and self.high / self.low > 100


def _metadata(field: pa.Field, key: str) -> str:
    return str((field.metadata or {}).get(key.encode(), b"").decode("utf-8", "replace"))


def spreads(subject: RunSubject, expressions: Sequence[tuple[str, str]]) -> list[Spread]:
    """Numbers about SQL expressions, given as (name, SQL)."""
    found: list[Spread] = []
    for start in range(0, len(expressions), _AT_ONCE):
        some = expressions[start : start + _AT_ONCE]
        parts = []
        for place, (_, text) in enumerate(some):
            value, good = f"({text})::DOUBLE", f"FILTER (isfinite(({text})::DOUBLE))"
            parts += [
                f"count(*) {good} AS n{place}",
                f"min({value}) {good} AS a{place}",
                f"max({value}) {good} AS z{place}",
            ]
            parts.append(f"approx_quantile({value}, [0.005, 0.5, 0.995]) {good} AS q{place}")
        row = subject.session.row(f"SELECT {', '.join(parts)} FROM catalog WHERE {PRIMARY}")  # noqa: S608
        found += [_spread(name, row, place) for place, (name, _) in enumerate(some)]
    return found


def _spread(name: str, row: dict[str, Any], place: int) -> Spread:
    count = int(row[f"n{place}"] or 0)
    if not count:
        return Spread(name, 0, math.nan, math.nan, math.nan, math.nan, math.nan)
    low, median, high = (float(value) for value in row[f"q{place}"])
    return Spread(name, count, float(row[f"a{place}"]), low, median, high, float(row[f"z{place}"]))


def histograms(
    subject: RunSubject, expressions: Sequence[tuple[str, str]], edges: Sequence[np.ndarray]
) -> list[Histogram]:
    """Histograms of SQL expressions over the primary rows, one pass over the columns that they read.

    Args:
        subject: the catalog.
        expressions: (name, SQL).
        edges: (bins + 1,) of one width, for each.
    """
    made: list[Histogram] = []
    for start in range(0, len(expressions), _AT_ONCE):
        some = expressions[start : start + _AT_ONCE]
        asked = []
        for place, ((_, text), ends) in enumerate(zip(some, edges[start:], strict=False)):
            low, width, count = float(ends[0]), float(ends[1] - ends[0]), len(ends) - 1
            value = f"({text})::DOUBLE"
            place_of = f"least(greatest(floor(({value} - {low!r}) / {width!r}), -1), {count})"
            top = f"CASE WHEN {value} = {float(ends[-1])!r} THEN {count - 1} ELSE {place_of} END"
            asked.append(
                f"SELECT {place} AS place, CASE WHEN isfinite({value}) THEN {top} END::INTEGER AS bin, count(*) AS n "  # noqa: S608
                f"FROM catalog WHERE {PRIMARY} GROUP BY bin"
            )
        rows = subject.session.rows(" UNION ALL ".join(asked))
        for place, ends in enumerate(edges[start : start + len(some)]):
            made.append(_histogram([row for row in rows if row["place"] == place], np.asarray(ends, float)))
    return made


def _histogram(rows: Iterable[dict[str, Any]], edges: np.ndarray) -> Histogram:
    counts = np.zeros(len(edges) - 1)
    outside = {"below": 0, "above": 0, "missing": 0}
    for row in rows:
        place = row["bin"]
        if place is None:
            outside["missing"] += int(row["n"])
        elif place < 0 or place >= len(counts):
            outside["below" if place < 0 else "above"] += int(row["n"])
        else:
            counts[place] = row["n"]
    return Histogram(edges, counts, **outside)


# ---- sections ----------------------------------------------------------------------------------------------------


def numbers(subject: RunSubject) -> Section | Missing:
    """A histogram of each column of numbers, of the first ones; all in a table."""
    if not subject.counts["objects"]:
        return Missing(NUMBERS, "the catalog has no rows")
    names = numeric_columns(subject.schema)
    if not names:
        return Missing(NUMBERS, "the catalog has no columns of numbers besides positions and flags")
    objects = subject.counts["objects"]
    found = spreads(subject, [(name, sql.name(name)) for name in names[:_LISTED]])
    drawn = [one for one in found if one.rows and one.high > one.low][:_SHOWN]
    fields = {field.name: field for field in subject.schema}
    made = histograms(subject, [(one.name, _drawn_sql(one)) for one in drawn], [_edges(one) for one in drawn])
    charts = [_chart(one, how, fields[one.name]) for one, how in zip(drawn, made, strict=True)]
    rows = [
        [one.name, _metadata(fields[one.name], "unit"), f"{one.rows:,}", share(objects - one.rows, objects)]
        + [number(value) for value in (one.least, one.median, one.most)]
        + [_metadata(fields[one.name], "description")]
        for one in found
    ]
    empty = [one.name for one in found if not one.rows]
    text = (
        "Primary rows only. Each histogram leaves out the outermost 0.5 % on both sides; positive columns of "
        "more than two "
        f"decades are drawn by their logarithm. {many(len(charts), 'column is', 'columns are')} drawn, "
        f"{len(found)} of {len(names)} are in the table."
    )
    if empty:
        text += f" No finite value at all: {', '.join(empty[:12])}{' and others' if len(empty) > 12 else ''}."
    head = ("column", "unit", "values", "missing", "least", "median", "most", "what it is")
    return Section(NUMBERS, text, [*charts, Table(head, rows, "All columns", len(names) - len(found), folded=True)])


def _drawn_sql(one: Spread) -> str:
    name = sql.name(one.name)
    return f"CASE WHEN {name} > 0 THEN log10({name}::DOUBLE) END" if one.logarithmic else name


def _edges(one: Spread) -> np.ndarray:
    low, high = (math.log10(one.low), math.log10(one.high)) if one.logarithmic else (one.low, one.high)
    return np.linspace(low, high, _BINS + 1)


def _chart(one: Spread, made: Histogram, field: pa.Field) -> Chart:
    unit = _metadata(field, "unit")
    label = f"{one.name} [{unit}]" if unit else one.name
    axis = Axis(f"log10 {label}" if one.logarithmic else label)
    return Chart(one.name, axis, Axis("objects"), [made.bars()], height=220, legend=False)


def magnitudes(subject: RunSubject) -> Section | Missing | None:
    """Counts in half magnitudes of columns that are magnitudes, or fluxes in nJy."""
    columns = _magnitude_columns(subject.schema)
    known, is_known = _with_values(subject, columns), True
    if not known and (own := _own_columns(subject.schema)):
        columns, known, is_known = own, _with_values(subject, own), False
    if not columns:
        return Missing(MAGNITUDES, "no column is a magnitude (unit mag) or a flux")
    if not known:
        return Missing(MAGNITUDES, "no object has a positive flux or a magnitude")
    edges = [np.arange(math.floor(one.low / _STEP), math.ceil(one.high / _STEP) + 1.5) * _STEP for _, one in known]
    made = histograms(subject, [pair for pair, _ in known], edges)
    lines: list[Line | Points] = []
    for (pair, _), how in zip(known, made, strict=True):
        middle, counts = (how.edges[1:] + how.edges[:-1]) / 2, np.where(how.counts > 0, how.counts, np.nan)
        error = np.sqrt(how.counts)
        lines.append(Line(middle, counts, pair[0], np.maximum(counts - error, 0.5), counts + error))
    figure = Chart(
        "Objects per half magnitude",
        Axis("magnitude (AB)" if is_known else "instrumental magnitude"),
        Axis("objects", log=True),
        lines,
        360,
        half=False,
    )
    rows = [
        [one.name, f"{one.rows:,}", share(subject.counts["objects"] - one.rows, subject.counts["objects"])]
        + [f"{value:.2f}" for value in (one.low, one.median, one.high)]
        for _, one in known
    ]
    text = (
        "Bands are one standard deviation of the counts (their square root). Where the counts turn over, objects begin "
        "to be missed. "
    )
    if is_known:
        text += "Fluxes in nJy became AB magnitudes, 31.4 − 2.5 lg f; those below 0 are missing here."
    else:
        text += (
            "No zero point is known: these are −2.5 lg f of fluxes in the unit of the pixels, no magnitudes of the "
            "sky; those below 0 are missing here. `ingest --zero-point` tells it."
        )
    if len(columns) > _BANDS:
        text += f" {len(columns) - len(known)} further columns are not drawn."
    head = ("column", "objects", "missing", "brightest 0.5 %", "median", "faintest 0.5 %")
    blocks: list[Block] = [figure, Table(head, rows, "Magnitudes")]
    return Section(MAGNITUDES, text, blocks)


def _with_values(subject: RunSubject, columns: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], Spread]]:
    """Columns that have any finite value, with their numbers: the first, of too many those of total fluxes alone."""
    totals = [pair for pair in columns if "total" in pair[0]] if len(columns) > _BANDS else []
    chosen = (totals or columns)[:_BANDS]
    return [(pair, one) for pair, one in zip(chosen, spreads(subject, chosen), strict=True) if one.rows]


def _own_columns(schema: pa.Schema) -> list[tuple[str, str]]:
    """(name, SQL of the instrumental magnitude) of fluxes without a unit."""
    return [
        (field.name, f"CASE WHEN {sql.name(field.name)} > 0 THEN -2.5 * log10({sql.name(field.name)}::DOUBLE) END")
        for field in schema
        if pa.types.is_floating(field.type)
        and not _metadata(field, "unit")
        and _metadata(field, "ucd").startswith("phot.flux")
    ]


def _magnitude_columns(schema: pa.Schema) -> list[tuple[str, str]]:
    """(name, SQL of the magnitude)."""
    found = []
    for field in schema:
        unit, ucd = _metadata(field, "unit"), _metadata(field, "ucd")
        if not pa.types.is_floating(field.type) or "stat.error" in ucd:
            continue
        name = sql.name(field.name)
        if unit == "mag" and ("phot.mag" in ucd or not ucd):
            found.append((field.name, name))
        elif unit == "nJy" and ("phot.flux" in ucd or "phot" in ucd):
            found.append((field.name, f"CASE WHEN {name} > 0 THEN {_NANOJANSKY} - 2.5 * log10({name}::DOUBLE) END"))
    return found
