"""Vectors of a catalog's rows, file by file: all of them in bounded memory, those of some objects, or a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog, parts
from astroml_plugin.catalog.annotation_files import Rows, rows_of
from astroml_plugin.catalog.schema import is_vector, matrix
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.hashing import id_fractions
from astroml_plugin.core.typing import F64, I64

_BATCH = 65_536


@dataclass(frozen=True)
class Sample:
    """Objects that a head is fitted on: those whose hashed ids are smallest, however the catalog is split."""

    ids: I64
    """(n,) object_id."""
    tiles: np.ndarray
    """(n,) texts."""
    vectors: F64
    """(n, k), finite."""
    objects: int
    """Primary rows of the catalog."""
    flagged: int
    """Primary rows that were left out because they carry a flag."""
    without: int
    """Primary rows without a finite vector."""


def batches(catalog: Catalog, rows: Rows, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of one file of a catalog, 65,536 at a time.

    Args:
        catalog: the catalog.
        rows: which of its files.
        columns: to read; `tile` among them.
    """
    place = storage.join(catalog.url, rows.path)
    with (
        foreign.refusing(storage.redact(place), "run `astroml-plugin verify CATALOG --repair`", CorruptError),
        parts.open_parquet(place) as file,
    ):
        for batch in file.iter_batches(_BATCH, columns=list(columns)):
            mine = pc.is_in(batch["tile"], value_set=pa.array(rows.units, batch["tile"].type))
            yield batch.filter(mine)


def vectors_of(batch: pa.RecordBatch, columns: Sequence[str]) -> np.ndarray:
    """(n, k) numbers of rows: those of a vector column, or of several columns of numbers; NaN where there is none."""
    if len(columns) == 1 and is_vector(batch.schema.field(columns[0]).type):
        return matrix(batch[columns[0]])
    numbers = [pc.cast(batch[name], pa.float64(), safe=False) for name in columns]
    return np.stack([one.to_numpy(zero_copy_only=False) for one in numbers], 1)


def of_objects(catalog: Catalog, columns: Sequence[str], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) of objects that have a finite vector, once each, and the vectors (n, k).

    Args:
        catalog: the catalog.
        columns: of the vectors.
        ids: (m,) object ids that are wanted.
    """
    wanted = pa.array(np.unique(ids))
    keys, vectors = [np.zeros(0, np.int64)], []
    for rows in rows_of(catalog):
        for batch in batches(catalog, rows, ["object_id", "tile", "primary", *columns]):
            chosen = batch.filter(pc.and_(batch["primary"], pc.is_in(batch["object_id"], value_set=wanted)))
            values = vectors_of(chosen, columns)
            good = np.isfinite(values).all(axis=1)
            keys.append(chosen["object_id"].to_numpy()[good])
            vectors.append(values[good])
    found, first = np.unique(np.concatenate(keys), return_index=True)
    return found, np.concatenate(vectors)[first] if vectors else np.zeros((0, 0))


def sample(catalog: Catalog, columns: Sequence[str], size: int, *, flagged: bool, seed: int) -> Sample:
    """At most `size` primary rows with finite vectors, in one pass over the catalog.

    Args:
        catalog: the catalog.
        columns: of the vectors.
        size: objects.
        flagged: whether rows that carry a flag may be among them.
        seed: decides which objects.

    Raises:
        InputError: no row can be used.
    """
    found = _Sampling(size, seed)
    for rows in rows_of(catalog):
        for batch in batches(catalog, rows, ["object_id", "tile", "primary", "flags", *columns]):
            found.take(batch.filter(batch["primary"]), columns, flagged=flagged)
    if not len(found.ids):
        if found.flagged:
            raise InputError(
                f"all {found.flagged:,} objects that have {_names(columns)} carry a flag: --flagged uses them"
            )
        raise InputError(f"no object of the catalog has {_names(columns)}: measure it with a bundle that gives one")
    vectors = np.asarray(found.vectors, np.float64)
    return Sample(found.ids, found.tiles, vectors, found.objects, found.flagged, found.without)


def _names(columns: Sequence[str]) -> str:
    return f"a finite {columns[0]}" if len(columns) == 1 else f"finite numbers in {', '.join(columns)}"


class _Sampling:
    """Sample in the making: it never holds more than its size and one batch."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.ids, self.tiles = np.zeros(0, np.int64), np.zeros(0, object)
        self.places, self.vectors = np.zeros(0), np.zeros((0, 0))
        self.objects = self.flagged = self.without = 0

    def take(self, batch: pa.RecordBatch, columns: Sequence[str], *, flagged: bool) -> None:
        """Look at primary rows."""
        values, flags = vectors_of(batch, columns), batch["flags"].to_numpy()
        good = np.isfinite(values).all(axis=1)
        self.objects += len(values)
        self.without += int((~good).sum())
        if not flagged:
            self.flagged += int((good & (flags != 0)).sum())
            good &= flags == 0
        ids = batch["object_id"].to_numpy()
        places = id_fractions(ids, self.seed)
        if len(self.ids) == self.size:
            good &= places <= self.places[-1]
        if not good.any():
            return
        tiles = np.asarray(batch["tile"].filter(pa.array(good)).to_pylist(), object)
        earlier = self.vectors if len(self.ids) else np.zeros((0, values.shape[1]))
        self.ids, self.tiles = np.concatenate([self.ids, ids[good]]), np.concatenate([self.tiles, tiles])
        self.places, self.vectors = np.concatenate([self.places, places[good]]), np.concatenate([earlier, values[good]])
        order = np.lexsort([self.ids, self.places])[: self.size]
        self.ids, self.tiles, self.places = self.ids[order], self.tiles[order], self.places[order]
        self.vectors = self.vectors[order]
