"""Making an annotation: a head from some rows, then its columns for all rows, file by file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog, parts, runs
from astroml_plugin.catalog.annotating import heads
from astroml_plugin.catalog.annotating.heads import Head
from astroml_plugin.catalog.annotation_files import WEIGHTS, Annotation, Rows, rows_of
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.ranking.names import one_of, unknown
from astroml_plugin.catalog.ranking.space import LATENT
from astroml_plugin.catalog.schema import is_vector, matrix, type_name
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.hashing import id_fractions
from astroml_plugin.core.locking import alone_in
from astroml_plugin.core.results import Result

SAMPLE = 50_000
"""Objects that clusters are fitted on."""

_BATCH = 65_536
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, repr=False)
class Annotated(Result):
    """Outcome of a run."""

    catalog: str
    """URL of the catalog."""
    name: str
    """Name of the annotation: the view to join in queries."""
    columns: tuple[str, ...]
    """Names of its columns."""
    rows: int
    """Rows written by this run."""
    files: int
    """Files of the catalog annotated by this run."""
    files_skipped: int
    """Files that were annotated before."""
    left_out: int
    """Rows whose object_id occurs twice in their tile: they cannot be joined, and have no row."""
    about: dict[str, Any]
    """Facts of the fit: labelled objects, accuracy by cross-validation."""
    seconds: float
    """Wall time."""


@dataclass(frozen=True)
class Wanted:
    """Kind, vectors and labels that an annotation is made from: its identity."""

    kind: str
    """One of classes, clusters, distances."""
    latent: str
    """Vector column."""
    seed: int = 0
    clusters: int = 0
    """Number of clusters."""
    labels: str = ""
    """Digest of ids and labels, or of the examples' ids."""


def vector_column(catalog: Catalog, name: str | None) -> str:
    """The vector column of that name, or the only latent one.

    Raises:
        InputError: there is none.
    """
    remedy = "--latent COLUMN"
    found = name or one_of(catalog.schema, LATENT, "vectors of objects", remedy)
    if found not in catalog.schema.names:
        raise unknown(catalog.schema, found, remedy)
    kind = catalog.schema.field(found).type
    if not is_vector(kind):
        raise InputError(f"column '{found}' is {type_name(kind)}, no vector: choose another one by {remedy}")
    return found


def make(
    catalog: Catalog,
    name: str,
    wanted: Wanted,
    ids: np.ndarray,
    labels: np.ndarray,
    progress: Progress | None = None,
) -> Annotated:
    """Make an annotation, or complete it: the head that is there is used again.

    Args:
        catalog: with the vectors.
        name: of the annotation.
        wanted: what it is made from.
        ids: (n,) int64, labelled objects or examples.
        labels: (n,) texts of classes.
        progress: called with ("annotate", files done, files).

    Raises:
        InputError: another annotation of that name, or objects that nothing can be learned from.
    """
    began = time.monotonic()
    annotation = Annotation(catalog.url, name)
    storage.refuse_web(catalog.url)
    with alone_in(catalog.url, "annotates"):
        head, sha256 = _head(catalog, annotation, wanted, ids, labels)
        waiting, there = list(rows_of(catalog)), annotation.files()
        rows = done = left_out = 0
        names = {annotation.file(one, sha256): one for one in waiting}
        for number, (file, one) in enumerate(names.items()):
            if file not in there:
                table, twice = _annotated(catalog, one, wanted.latent, head, annotation.schema())
                storage.write_table(storage.join(catalog.url, file), table)
                rows, done, left_out = rows + len(table), done + 1, left_out + twice
            if progress is not None:
                progress("annotate", number + 1, len(names))
        for file in sorted(there - set(names)):  # of parts that were replaced or merged
            storage.remove(storage.join(catalog.url, file))
    columns = tuple(column.name for column in head.columns())
    seconds = round(time.monotonic() - began, 3)
    skipped = len(names) - done
    return Annotated(catalog.url, name, columns, rows, done, skipped, left_out, dict(head.about), seconds)


def _head(
    catalog: Catalog, annotation: Annotation, wanted: Wanted, ids: np.ndarray, labels: np.ndarray
) -> tuple[Head, str]:
    record, place = annotation.record(), storage.join(annotation.url, WEIGHTS)
    if record is not None:
        if record["identity"] != asdict(wanted):
            differs = [key for key, value in asdict(wanted).items() if record["identity"].get(key) != value]
            raise InputError(
                f"the annotation {annotation.name} was made with another {', '.join(differs)}: choose another "
                f"--name, or remove {storage.redact(annotation.url)}"
            )
        return Head.from_bytes(storage.read_bytes(place), record["head"]), record["head"]
    annotation.refuse_new()
    head = _fit(catalog, wanted, ids, labels)
    data = head.to_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    storage.write_atomic(place, data)
    told = provenance(catalog, made_by="annotate", annotation=annotation.name)
    annotation.write_record(
        {
            "identity": asdict(wanted),
            "head": sha256,
            "columns": [asdict(column) for column in head.columns()],
            "about": {**head.about, "provenance": told, "made": runs.now()},
        }
    )
    return head, sha256


def _fit(catalog: Catalog, wanted: Wanted, ids: np.ndarray, labels: np.ndarray) -> Head:
    if wanted.kind == heads.CLUSTERS:
        _, vectors = _sample(catalog, wanted.latent, wanted.seed)
        return heads.fit_clusters(vectors, wanted.clusters, wanted.seed)
    found, vectors = _of_objects(catalog, wanted.latent, ids)
    if not len(found):
        raise InputError(f"none of the {len(ids)} objects has a vector in the catalog: give its object_ids")
    if wanted.kind == heads.DISTANCES:
        return heads.fit_distances(vectors, found)
    order = np.argsort(ids, kind="stable")
    head = heads.fit_classes(vectors, labels[order][np.searchsorted(ids[order], found)], wanted.seed)
    about = {**head.about, "not_found": int(len(ids) - len(found))}
    return Head(head.kind, head.arrays, head.names, about)


def _batches(catalog: Catalog, rows: Rows, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of one file, in bounded memory."""
    place = storage.join(catalog.url, rows.path)
    with (
        foreign.refusing(storage.redact(place), "run `astroml-plugin verify CATALOG --repair`", CorruptError),
        parts.open_parquet(place) as file,
    ):
        for batch in file.iter_batches(_BATCH, columns=list(columns)):
            mine = pc.is_in(batch["tile"], value_set=pa.array(rows.units, batch["tile"].type))
            yield batch.filter(mine)


def _annotated(catalog: Catalog, rows: Rows, latent: str, head: Head, schema: pa.Schema) -> tuple[pa.Table, int]:
    """(rows of the annotation, rows left out)."""
    found = []
    for batch in _batches(catalog, rows, ["object_id", "tile", latent]):
        columns = {"object_id": batch["object_id"], "tile": batch["tile"]} | head.apply(matrix(batch[latent]))
        found.append(pa.table(columns).cast(schema))
    table = pa.concat_tables([schema.empty_table(), *found])
    counts = table.group_by(["object_id", "tile"]).aggregate([([], "count_all")])
    if len(counts) == len(table):
        return table, 0
    twice = counts.filter(pc.greater(counts["count_all"], 1)).select(["object_id", "tile"])
    once = table.join(twice, keys=["object_id", "tile"], join_type="left anti").select(schema.names)
    return once.cast(schema), len(table) - len(once)


def _of_objects(catalog: Catalog, latent: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) of objects that have a finite vector, once each, and the vectors (n, k)."""
    wanted = pa.array(np.unique(ids))
    keys, vectors = [np.zeros(0, np.int64)], []
    for rows in rows_of(catalog):
        for batch in _batches(catalog, rows, ["object_id", "tile", "primary", latent]):
            chosen = batch.filter(pc.and_(batch["primary"], pc.is_in(batch["object_id"], value_set=wanted)))
            values = matrix(chosen[latent])
            good = np.isfinite(values).all(axis=1)
            keys.append(chosen["object_id"].to_numpy()[good])
            vectors.append(values[good])
    found, first = np.unique(np.concatenate(keys), return_index=True)
    return found, np.concatenate(vectors)[first] if vectors else np.zeros((0, 0))


def _sample(catalog: Catalog, latent: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and vectors of `SAMPLE` objects, the same ones however the catalog is split into parts."""
    keys, vectors = np.zeros(0, np.int64), None
    for rows in rows_of(catalog):
        for batch in _batches(catalog, rows, ["object_id", "tile", "primary", latent]):
            chosen = batch.filter(batch["primary"])
            values = matrix(chosen[latent])
            good = np.isfinite(values).all(axis=1)
            keys = np.concatenate([keys, chosen["object_id"].to_numpy()[good]])
            vectors = values[good] if vectors is None else np.concatenate([vectors, values[good]])
            order = np.lexsort([keys, id_fractions(keys, seed)])[:SAMPLE]
            keys, vectors = keys[order], vectors[order]
    if vectors is None or not len(vectors):
        raise InputError("no object of the catalog has a vector: measure it with a bundle that gives one")
    return keys, vectors
