"""The top of a catalog by any score, exactly and reproducibly, without loading it.

DuckDB keeps the best rows while it streams the columns that decide; the other columns are read afterwards, from the
parts that hold the chosen rows. Higher is better; equal scores are ordered by object_id.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import HEALPIX, Catalog, sql, unlike_training
from astroml_plugin.catalog.answers import TableResult
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking.fold import Folded, fold
from astroml_plugin.catalog.ranking.names import check_numeric, one_of
from astroml_plugin.catalog.ranking.space import Space
from astroml_plugin.catalog.schema import is_vector
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64

SCORE = "anomaly_score"
"""Column that ranks where nothing else is said."""

FOLD_RADIUS = 1.0
"""Arcsec within which rows are one object."""

MOST_CANDIDATES = 2_000_000
"""Rows that are looked at for near-duplicates."""

LARGEST_TOP = 1_000_000

_KEYS = ("object_id", "image", "tile", "x", "y", "ra", "dec")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, repr=False)
class Ranked(TableResult):
    """A short list."""

    catalog: str
    """URL of the catalog."""
    by: str
    """Name of the order, for people."""
    objects: int
    """Primary rows that were asked for."""
    ranked: int
    """Rows among them with a finite score."""
    folded: int
    """Near-duplicates that were folded away above the end of the list."""
    table: pa.Table = field(repr=False)
    """rank (from 1), rank_score, folded (rows that this one stands for besides itself), then the catalog's columns."""
    seconds: float = field(default=0.0, compare=False)
    """Wall time."""
    note: str = ""
    """A sentence where many rows do not compete only because they are unlike what the bundle was trained on."""

    def to_arrow(self) -> pa.Table:
        """The list as Arrow."""
        return self.table

    def _title(self, table: pa.Table) -> str:
        return f"Ranked: top {table.num_rows:,} of {self.ranked:,} by {self.by}, {self.folded} near-duplicates folded"


def score_sql(schema: pa.Schema, score: str | None = None, option: str = "--score") -> tuple[str, str]:
    """(SQL, name for people) of a score: a column, or an expression over columns.

    Args:
        schema: of the catalog.
        score: default `anomaly_score`, or the only `<bundle>_anomaly_score`.
        option: of the command that chooses it, for people.

    Raises:
        InputError: no such column, several to choose from, or one that holds no numbers.
    """
    remedy = f"{option} COLUMN"
    name = score.strip() if score else one_of(schema, SCORE, "an anomaly_score", remedy)
    if _IDENTIFIER.fullmatch(name) or name in schema.names:
        check_numeric(schema, name, remedy)
        return sql.name(name), name
    return f"(\n{name}\n)", name


def top(
    catalog: str,
    count: int = 100,
    *,
    score: str | None = None,
    where: str | None = None,
    fold_radius: float = FOLD_RADIUS,
    fold_latent: float = 0.0,
    latent: str | None = None,
) -> Ranked:
    """The `count` objects of highest score.

    Args:
        catalog: path or URL of the catalog.
        count: rows of the list; fewer where the catalog has fewer.
        score: column or SQL expression; see `score_sql`. Rows where it is null, NaN or infinite are not ranked.
        where: SQL condition on the rows that compete.
        fold_radius: arcsec within which rows are folded into the best of them; 0: only equal object_ids are.
        fold_latent: distance in the latent space within which rows are folded; 0: none.
        latent: column of that space.

    Returns:
        The list; the same one whenever the catalog's rows are the same, however they are split into parts.

    Raises:
        InputError: columns that are not there, SQL that fails, numbers out of range.
    """
    began = time.monotonic()
    opened = Catalog.open(catalog)
    expression, name = score_sql(opened.schema, score)
    space = Space.of(opened, latent=latent) if fold_latent > 0 else None
    table, counts, folded = _list(opened, expression, where, count, fold_radius, space, fold_latent)
    note = unlike_training.sentence(opened, where)
    return Ranked(opened.url, name, *counts, folded, table, round(time.monotonic() - began, 3), note)


def like(
    catalog: str,
    object_id: int,
    count: int = 100,
    *,
    latent: str | None = None,
    features: Sequence[str] | None = None,
    where: str | None = None,
    fold_radius: float = FOLD_RADIUS,
) -> Ranked:
    """The `count` objects nearest to one in latent space, by exact comparison with every row.

    Args:
        catalog: path or URL of the catalog.
        object_id: whose neighbours; itself is not listed.
        count: rows of the list.
        latent, features: the space, see `Space.of`.
        where: SQL condition on the rows that compete.
        fold_radius: arcsec within which rows are folded into the nearest of them.

    Returns:
        The list, nearest first; rank_score is minus the Euclidean distance.

    Raises:
        InputError: no such object, no such space, SQL that fails.
    """
    began = time.monotonic()
    opened = Catalog.open(catalog)
    space = Space.of(opened, latent=latent, features=features)
    expression = f"-{space.distance_sql(space.vector(opened, object_id))}"
    other = f"object_id <> {int(object_id)}" + (f" AND (\n{where}\n)" if where else "")
    table, counts, folded = _list(opened, expression, other, count, fold_radius, None, 0.0)
    name = f"likeness to {object_id} in {space.name}"
    note = unlike_training.sentence(opened, where)
    return Ranked(opened.url, name, *counts, folded, table, round(time.monotonic() - began, 3), note)


def pool(catalog: Catalog, expression: str, space: Space, *, where: str | None = None, count: int) -> pa.Table:
    """The `count` rows of highest score with their vectors: keys, rank_score, vector; for what learns from them."""
    _check(count, 0.0, 0.0)
    return _candidates(catalog, expression, where, count, space)


def details(catalog: Catalog, expression: str, keys: pa.Table) -> pa.Table:
    """All columns but vectors of rows given by object_id, image, tile; in their order.

    Of several rows with the same three, which a store with repeated ids may have, the one of highest score.
    """
    names = [item.name for item in catalog.schema if not is_vector(item.type) and item.name != HEALPIX]
    wanted = keys.select(["object_id", "image", "tile"])
    if not wanted.num_rows:
        return catalog.schema.empty_table().select(names)
    text = (
        f"SELECT {sql.names(names)} FROM catalog WHERE object_id IN (SELECT object_id FROM wanted) "  # noqa: S608
        f'AND "primary" ORDER BY ({expression})::DOUBLE DESC NULLS LAST, object_id, image, x, y'
    )
    tables = {"wanted": wanted}
    found = query(catalog.url, text, tables=tables, units=set(wanted["tile"].to_pylist())).to_arrow()
    place: dict[tuple[int, str, str], int] = {}
    for row, key in enumerate(_tuples(found)):
        place.setdefault(key, row)
    return found.take(pa.array([place[key] for key in _tuples(wanted)], pa.int64()))


def _tuples(table: pa.Table) -> list[tuple[int, str, str]]:
    return list(zip(*(table[name].to_pylist() for name in ("object_id", "image", "tile")), strict=True))


def _list(
    catalog: Catalog,
    expression: str,
    where: str | None,
    count: int,
    fold_radius: float,
    space: Space | None,
    fold_latent: float,
) -> tuple[pa.Table, tuple[int, int], int]:
    """(rows of the list, (objects, ranked), folded)."""
    _check(count, fold_radius, fold_latent)
    counts = counted(catalog, expression, where)
    limit = min(2 * count + 64, MOST_CANDIDATES)
    while True:
        found = _candidates(catalog, expression, where, limit, space)
        chosen = folded(found, count, fold_radius, space, fold_latent)
        if chosen.complete or found.num_rows < limit:
            break
        if limit == MOST_CANDIDATES:
            raise InputError(
                f"the first {limit} rows fold into {len(chosen.kept)} objects, not {count}: choose a smaller "
                f"--fold-radius than {fold_radius:g} arcsec, or a smaller --top"
            )
        limit = min(4 * limit, MOST_CANDIDATES)
    kept = found.take(pa.array(chosen.kept))
    return (
        numbered(details(catalog, expression, kept), kept["rank_score"], chosen.members),
        counts,
        int(chosen.members.sum() - len(chosen.members)),
    )


def _check(count: int, fold_radius: float, fold_latent: float) -> None:
    if not 1 <= count <= LARGEST_TOP:
        raise InputError(f"a list of {count} objects: --top must be 1 to {LARGEST_TOP}; query orders whole catalogs")
    if not 0 <= fold_radius <= 3600:
        raise InputError(f"--fold-radius is {fold_radius:g} arcsec, it must be 0 to 3600")
    if not (fold_latent >= 0 and np.isfinite(fold_latent)):
        raise InputError(f"--fold-latent is {fold_latent:g}, it must be a distance of 0 or more")


def folded(
    found: pa.Table, count: int, fold_radius: float, space: Space | None = None, fold_latent: float = 0.0
) -> Folded:
    """`fold` of a table of candidates in rank order."""
    return fold(
        np.asarray(found["object_id"]),
        _degrees(found["ra"]),
        _degrees(found["dec"]),
        count,
        radius=fold_radius / 3600,
        vectors=None if space is None else space.values(found["vector"]),
        vector_radius=fold_latent,
    )


def _degrees(column: pa.ChunkedArray) -> F64:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)


def counted(catalog: Catalog, expression: str, where: str | None) -> tuple[int, int]:
    """(primary rows that pass `where`, those of them with a finite score)."""
    text = (
        f"SELECT count(*) AS objects, count(*) FILTER (isfinite(({expression})::DOUBLE)) AS ranked "  # noqa: S608
        f"FROM catalog WHERE {condition(where)}"
    )
    row = query(catalog.url, text).to_arrow().to_pylist()[0]
    return int(row["objects"]), int(row["ranked"])


def condition(where: str | None) -> str:
    """SQL of the rows that compete: one per object."""
    return '"primary"' + (f" AND (\n{where}\n)" if where else "")


def _candidates(catalog: Catalog, expression: str, where: str | None, limit: int, space: Space | None) -> pa.Table:
    vector = "" if space is None else f", {space.sql} AS vector"
    text = (
        f"SELECT {sql.names(_KEYS)}{vector}, ({expression})::DOUBLE AS rank_score FROM catalog "  # noqa: S608
        f"WHERE {condition(where)} AND isfinite(({expression})::DOUBLE) "
        f"ORDER BY rank_score DESC, object_id, image, x, y LIMIT {limit}"
    )
    return query(catalog.url, text).to_arrow()


def numbered(rows: pa.Table, score: pa.ChunkedArray, members: I64) -> pa.Table:
    """`rows` with rank, rank_score and folded in front."""
    own = [name for name in rows.column_names if name not in ("rank", "rank_score", "folded")]
    table = rows.select(own)
    fields = [pa.field("rank", pa.int64()), pa.field("rank_score", pa.float64()), pa.field("folded", pa.int64())]
    arrays = [pa.array(np.arange(1, len(rows) + 1)), score.combine_chunks(), pa.array(members - 1)]
    return pa.Table.from_arrays([*arrays, *table.columns], schema=pa.schema([*fields, *table.schema]))
