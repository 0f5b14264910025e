"""An approximate index of a latent space, for many questions about one large catalog (faiss, inverted lists).

One question is answered exactly by reading the catalog once (`top.like`), and building an index reads it once too: an
index pays from the second question on. It lives in memory, about 4 x numbers + 60 bytes per object, and is never saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog, sql
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking.space import Space
from astroml_plugin.catalog.ranking.top import FOLD_RADIUS, Ranked, condition, details, folded, numbered
from astroml_plugin.catalog.schema import without_dictionary
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.registry import optional
from astroml_plugin.core.typing import F32, I64

RECALL = 0.95
"""Mean fraction of the true nearest neighbours that must be found."""

NEIGHBOURS = 100
"""Number of nearest neighbours that the recall is of."""

_MISSING = 'an index needs faiss, which is not installed: pip install "astroml-plugin[index]"'
_QUESTIONS = 128
_EXACT = 20_000
"""Objects up to which all are compared."""

_PER_LIST = 64
"""Training vectors per inverted list."""

_ROWS = 2_000_000
"""Rows that are read at once, about."""

_KEYS = ("object_id", "image", "tile", "x", "y", "ra", "dec")


@dataclass(frozen=True)
class LatentIndex:
    """Nearest neighbours in latent space, nearly all of them, in a time that hardly grows with the catalog."""

    catalog: Catalog
    space: Space
    where: str | None
    """SQL condition on the rows inside."""
    recall: float
    """Measured while building: mean fraction of the 100 nearest neighbours that are found; 1 where all is compared."""
    lists: int
    """Inverted lists; 0 where all is compared."""
    probes: int
    """Lists that a question looks at."""
    seconds: float
    """Wall time of building."""
    _rows: pa.Table = field(repr=False)
    _index: Any = field(repr=False)

    @classmethod
    def build(
        cls,
        catalog: str,
        *,
        latent: str | None = None,
        features: Sequence[str] | None = None,
        where: str | None = None,
        recall: float = RECALL,
        progress: Callable[[int, int], None] | None = None,
    ) -> LatentIndex:
        """Read the vectors of a catalog and choose how many lists must be looked at for the recall.

        Args:
            catalog: path or URL.
            latent, features: the space, see `Space.of`.
            where: SQL condition on the rows that may be found.
            recall: mean fraction of the 100 nearest neighbours that must be found, on 128 objects of the catalog.
            progress: called with (rows read, rows to read).

        Raises:
            InputError: no such space, no object has a vector, faiss is not installed.
        """
        faiss = optional("faiss", _MISSING)
        if not 0 < recall <= 1:
            raise InputError(f"recall is {recall:g}, it must be above 0 and at most 1")
        began = time.monotonic()
        opened = Catalog.open(catalog)
        space = Space.of(opened, latent=latent, features=features)
        total = _count(opened, space, where)
        if not total:
            raise InputError(f"no object that passes has a vector in {space.name}: there is nothing to index")
        lists = 0 if total <= _EXACT else max(1, min(int(2 * total**0.5), total // _PER_LIST))
        index = _empty(faiss, opened, space, where, lists)
        asked = _sample(opened, space, where, min(_QUESTIONS, total))
        truth = _Exact(asked, min(NEIGHBOURS, total))
        tables = []
        for table, vectors in _blocks(opened, space, where):
            truth.see(faiss, vectors, index.ntotal)
            index.add(vectors)
            tables.append(table)
            if progress is not None:
                progress(index.ntotal, total)
        found, probes = (1.0, 0) if not lists else _tuned(index, asked, truth.numbers, recall, lists)
        rows = pa.concat_tables(tables).unify_dictionaries()
        seconds = round(time.monotonic() - began, 3)
        return cls(opened, space, where, found, lists, probes, seconds, rows, index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def like(self, object_id: int, count: int = 100, *, fold_radius: float = FOLD_RADIUS) -> Ranked:
        """The `count` objects nearest to one, as `top.like`: distances are exact, but a few neighbours may be missed.

        Raises:
            InputError: no such object, or it has no vector.
        """
        began = time.monotonic()
        vector = self.space.vector(self.catalog, object_id)
        limit = min(2 * count + 64, len(self))
        while True:
            squares, numbers = self._index.search(vector[None].astype(np.float32), limit)
            there = numbers[0] >= 0
            found = self._candidates(numbers[0][there], squares[0][there], object_id)
            chosen = folded(found, count, fold_radius)
            if chosen.complete or limit == len(self):
                break
            limit = min(4 * limit, len(self))
        kept = found.take(pa.array(chosen.kept))
        table = numbered(
            details(self.catalog, f"-{self.space.distance_sql(vector)}", kept), kept["rank_score"], chosen.members
        )
        name = f"likeness to {object_id} in {self.space.name} (index, recall {self.recall:.2f})"
        away = int(chosen.members.sum() - len(chosen.members))
        seconds = round(time.monotonic() - began, 3)
        return Ranked(self.catalog.url, name, len(self), len(self), away, table, seconds)

    def _candidates(self, numbers: I64, squares: F32, object_id: int) -> pa.Table:
        """Keys and rank_score in the order of `top.like`."""
        found = self._rows.take(pa.array(numbers))
        found = found.append_column("rank_score", pa.array(-np.sqrt(np.maximum(squares, 0)).astype(np.float64)))
        found = found.filter(pc.not_equal(found["object_id"], object_id))
        keys = [("rank_score", "descending"), *((name, "ascending") for name in ("object_id", "image", "x", "y"))]
        return pa.table({name: without_dictionary(found[name]) for name in found.column_names}).sort_by(keys)


class _Exact:
    """The true nearest neighbours of some questions, while blocks of vectors go by."""

    def __init__(self, asked: F32, count: int) -> None:
        self.asked, self.count = asked, count
        self.squares = np.full((len(asked), count), np.inf, np.float32)
        self.numbers = np.full((len(asked), count), -1, np.int64)

    def see(self, faiss: Any, vectors: F32, first: int) -> None:
        squares, numbers = faiss.knn(self.asked, vectors, min(self.count, len(vectors)))
        together = np.concatenate([self.squares, squares], axis=1)
        named = np.concatenate([self.numbers, numbers + first], axis=1)
        order = np.argsort(together, axis=1, kind="stable")[:, : self.count]
        self.squares, self.numbers = (np.take_along_axis(part, order, 1) for part in (together, named))


def _tuned(index: Any, asked: F32, truth: I64, recall: float, lists: int) -> tuple[float, int]:
    """(recall, probes): the fewest lists, by doubling, that find enough."""
    probes = 1
    while True:
        index.nprobe = probes
        numbers = index.search(asked, truth.shape[1])[1]
        found = float(np.mean([np.isin(true, got).mean() for true, got in zip(truth, numbers, strict=True)]))
        if found >= recall or probes >= lists:
            return found, probes
        probes = min(2 * probes, lists)


def _empty(faiss: Any, catalog: Catalog, space: Space, where: str | None, lists: int) -> Any:
    flat = faiss.IndexFlatL2(space.size)
    if not lists:
        return flat
    index = faiss.IndexIVFFlat(flat, space.size, lists)
    index.train(_sample(catalog, space, where, lists * _PER_LIST))
    return index


def _usable(space: Space, where: str | None) -> str:
    """Rows with a vector of finite numbers: only their distance to anything is finite."""
    return f"{condition(where)} AND isfinite({space.distance_sql(np.zeros(space.size))})"


def _count(catalog: Catalog, space: Space, where: str | None) -> int:
    text = f"SELECT count(*) AS n FROM catalog WHERE {_usable(space, where)}"  # noqa: S608
    return int(query(catalog.url, text).to_arrow()["n"][0].as_py())


def _sample(catalog: Catalog, space: Space, where: str | None, count: int) -> F32:
    """(count, size): vectors of objects that a hash of their ids chooses, the same ones every time."""
    text = (
        f"SELECT {space.sql} AS v FROM catalog WHERE {_usable(space, where)} "  # noqa: S608
        f"ORDER BY hash(object_id), object_id, image LIMIT {count}"
    )
    return np.ascontiguousarray(space.values(query(catalog.url, text).to_arrow()["v"]))


def _blocks(catalog: Catalog, space: Space, where: str | None) -> Iterator[tuple[pa.Table, F32]]:
    """(keys, vectors (n, size)) of the rows, some units at a time."""
    text = f"SELECT {sql.names(_KEYS)}, {space.sql} AS v FROM catalog WHERE {_usable(space, where)}"  # noqa: S608
    for units in _groups(catalog.current()):
        found = query(catalog.url, text, units=units).to_arrow()
        if found.num_rows:
            texts = {name: found[name].dictionary_encode() for name in ("image", "tile")}
            keys = {name: texts.get(name, found[name]) for name in _KEYS}
            yield pa.table(keys), np.ascontiguousarray(space.values(found["v"]))


def _groups(current: pa.Table) -> Iterator[list[str]]:
    """Units of about `_ROWS` rows together."""
    group: list[str] = []
    rows = 0
    for unit, count in zip(current["unit"].to_pylist(), current["rows"].to_pylist(), strict=True):
        group.append(unit)
        rows += count
        if rows >= _ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group
