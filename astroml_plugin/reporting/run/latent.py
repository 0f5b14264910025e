"""A map of the vectors that a bundle stores: like objects lie together, and show themselves to those who point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.ranking.names import is_number, unknown
from astroml_plugin.catalog.schema import is_text, is_vector, matrix
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.reporting.charts import COLOURS, Axis, Chart, Points, Sheet
from astroml_plugin.reporting.pages import Block, Missing, Note, Section
from astroml_plugin.reporting.run.beside import CLUSTERS, all_beside, joined
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.reporting.run.thumbnails import sheet
from astroml_plugin.reporting.run.top import score_of
from astroml_plugin.reporting.words import many, number

TITLE = "Map of the latent space"
METHODS = ("pca", "tsne", "umap")

_POINTS = 800
_SIDE = 40
"""Pixels of a stamp of a point."""

_FEWEST = 20
_KINDS = len(COLOURS)


@dataclass(frozen=True)
class Colour:
    """Column or expression that colours the points."""

    label: str
    """For people."""
    sql: str
    """Expression over the catalog and the annotation."""
    annotation: str = ""
    """Annotation that must be joined."""
    by_kind: bool = False
    """Whether values are kinds, not numbers."""


def section(subject: RunSubject) -> Section | Missing:
    """Two coordinates of a sample of vectors, coloured by a column."""
    column = _vectors(subject)
    if column is None:
        return Missing(TITLE, "the catalog has no column of vectors: `anomaly` gives one")
    colour = colour_of(subject)
    rows = _rows(subject, column, colour)
    values = np.asarray(matrix(rows[column]), np.float64)
    good = np.isfinite(values).all(1)
    rows, values = rows.filter(pa.array(good)), values[good]
    if len(values) < _FEWEST:
        return Missing(TITLE, f"{len(values)} objects have a finite {column}: {_FEWEST} are needed")
    method = subject.options.map
    places, told = _PLACED[method](values)
    stamps, why = _stamps(subject, rows)
    series = _series(rows, places, colour, stamps)
    names = {"pca": "principal component", "tsne": "t-SNE", "umap": "UMAP"}[method]
    chart = Chart(
        f"{column} by {method}" + (f", coloured by {colour.label}" if colour else ""),
        Axis(f"{names} 1"),
        Axis(f"{names} 2"),
        series,
        height=520,
        half=False,
        sheet=stamps,
        alt=f"Map of {len(values)} objects by their {column}",
    )
    text = (
        f"{many(len(values), 'object')} of {subject.counts['objects']:,}, drawn by their hashed ids. {told} Point at "
        "one to see it."
    )
    blocks: list[Block] = [chart] if not why else [Note(f"No stamps: {why}"), chart]
    return Section(TITLE, text, blocks)


def _vectors(subject: RunSubject) -> str | None:
    """The column of vectors: `latent`, one that ends so, or the first."""
    vectors = [field for field in subject.schema if is_vector(field.type)]
    names = [str(field.name) for field in vectors if pa.types.is_floating(field.type.value_type)]
    ends = [name for name in names if name == "latent"] or [name for name in names if name.endswith("_latent")]
    return next(iter([*ends, *names]), None)


# ---- colours -----------------------------------------------------------------------------------------------------


def colour_of(subject: RunSubject) -> Colour | None:
    """The column that was asked for; else the newest clusters, else what ranks the objects; None where there is none.

    Raises:
        InputError: neither the catalog nor an annotation has that column.
    """
    wanted = subject.options.colour
    if wanted is None:
        return _usual(subject)
    if wanted in subject.schema.names:
        kind = subject.schema.field(wanted).type
        if not is_number(kind) and not is_text(kind):
            raise InputError(f"column '{wanted}' has neither numbers nor labels: choose another one by --colour")
        return Colour(wanted, f"catalog.{sql.name(wanted)}", by_kind=is_text(kind) or pa.types.is_boolean(kind))
    for one in all_beside(subject):
        if wanted in one.columns:
            by_kind = wanted in ("cluster", "class", "medoid")
            return Colour(f"{wanted} of {one.name}", f"{sql.name(one.name)}.{sql.name(wanted)}", one.name, by_kind)
    raise unknown(subject.schema, wanted, "--colour COLUMN, of the catalog or of an annotation")


def _usual(subject: RunSubject) -> Colour | None:
    for one in all_beside(subject):
        if one.kind == CLUSTERS:
            return Colour(f"cluster of {one.name}", f"{sql.name(one.name)}.cluster", one.name, by_kind=True)
    scored = score_of(subject)
    if scored is None:
        return None
    return Colour(scored[0], f"({scored[0]})" if subject.options.by else f"catalog.{sql.name(scored[0])}")


def _rows(subject: RunSubject, column: str, colour: Colour | None) -> pa.Table:
    value = "NULL" if colour is None else colour.sql
    value = f"({value})::VARCHAR" if colour is not None and colour.by_kind else f"({value})::DOUBLE"
    join = f"LEFT JOIN {sql.name(colour.annotation)} USING (object_id, tile) " if colour and colour.annotation else ""
    text = (
        f"SELECT object_id, tile, x, y, catalog.{sql.name(column)}, {value} AS colour_ FROM catalog {join}"  # noqa: S608
        f"WHERE {PRIMARY} AND catalog.{sql.name(column)} IS NOT NULL ORDER BY hash(object_id), tile LIMIT {_POINTS}"
    )
    return joined(subject, text)


def _series(rows: pa.Table, places: F64, colour: Colour | None, stamps: Sheet | None) -> list[Points]:
    ids, values = rows["object_id"].to_pylist(), rows["colour_"].to_pylist()
    shown = list(range(len(ids)))

    def points(chosen: Sequence[int], name: str, paint: str, numbers: F64 | None = None, bar: str = "") -> Points:
        at = np.asarray(chosen, np.int64)
        texts = [f"{ids[k]}" if values[k] is None else f"{ids[k]}: {_told(values[k])}" for k in chosen]
        pictures = list(chosen) if stamps is not None else []
        style: dict[str, Any] = {
            "texts": texts,
            "colour": paint,
            "size": 6,
            "values": numbers,
            "bar": bar,
            "pictures": pictures,
        }
        return Points(places[at, 0], places[at, 1], name, **style)

    if colour is None:
        return [points(shown, "", COLOURS[0])]
    if not colour.by_kind:
        numbers = np.array([np.nan if value is None else value for value in values], float)
        return [points(shown, "", COLOURS[0], _clipped(numbers), colour.label)]
    counts = {kind: values.count(kind) for kind in dict.fromkeys(values) if kind is not None}
    kinds = sorted(sorted(counts, key=lambda kind: -counts[kind])[:_KINDS], key=_order)
    of = "cluster " if colour.label.startswith("cluster of ") else ""
    found = [
        points([k for k in shown if values[k] == kind], "noise" if of and kind == "-1" else f"{of}{kind}", COLOURS[at])
        for at, kind in enumerate(kinds)
    ]
    rest = [k for k in shown if values[k] not in kinds]
    return found + ([points(rest, "others", "#b8bec7")] if rest else [])


def _order(kind: str) -> tuple[int, float, str]:
    """Numbers by their value, other texts behind them."""
    try:
        return 0, float(kind), kind
    except ValueError:
        return 1, 0.0, kind


def _told(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _clipped(numbers: F64) -> F64:
    """Values with the outermost hundredth on both sides drawn in."""
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return numbers
    low, high = np.quantile(known, [0.01, 0.99])
    return np.asarray(np.where(np.isfinite(numbers), np.clip(numbers, low, high), np.nan))


def _stamps(subject: RunSubject, rows: pa.Table) -> tuple[Sheet | None, str]:
    """(the stamps of the rows in one picture, ""), or (None, why there are none)."""
    try:
        return sheet(subject.pixels(), rows.select(["object_id", "tile", "x", "y"]).to_pylist(), _SIDE), ""
    except AstromlError as error:
        return None, storage.redact(str(error))


# ---- projections -------------------------------------------------------------------------------------------------


def check_map(method: str) -> None:
    """InputError unless a projection can be made here."""
    if method not in METHODS:
        raise InputError(f"--map {method} is unknown: choose {', '.join(METHODS)}")
    if method == "umap":
        _umap_library()


def _pca(values: F64) -> tuple[F64, str]:
    centred = values - values.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    part = np.square(sizes) / max(float(np.square(sizes).sum()), 1e-300)
    wide = np.zeros((2, values.shape[1]))
    wide[: min(2, len(axes))] = axes[:2]
    return centred @ wide.T, f"The two axes hold {part[:2].sum():.0%} of the variance."


def _tsne(values: F64) -> tuple[F64, str]:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(values) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(values)
    told = "Neighbours are kept; distances between groups and sizes of groups mean nothing."
    return np.asarray(found, np.float64), f"t-SNE (perplexity {perplexity:.0f}). {told}"


def _umap(values: F64) -> tuple[F64, str]:
    library = _umap_library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = library.UMAP(n_components=2, random_state=0).fit_transform(values)
    return np.asarray(found, np.float64), "UMAP. Neighbours are kept; distances between groups mean little."


def _umap_library() -> Any:
    try:
        import umap
    except ImportError as error:
        what = "--map umap needs the extra `umap`: pip install 'astroml-plugin[umap]', or take --map tsne"
        raise InputError(what) from error
    return umap


_PLACED: dict[str, Callable[[F64], tuple[F64, str]]] = {"pca": _pca, "tsne": _tsne, "umap": _umap}
