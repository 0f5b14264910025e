"""Making an annotation: a head from some rows, then its columns for all rows, file by file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog, runs
from astroml_plugin.catalog.annotating.heads import Head
from astroml_plugin.catalog.annotating.reading import batches, vectors_of
from astroml_plugin.catalog.annotation_files import WEIGHTS, Annotation, Rows, rows_of
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.ranking import names
from astroml_plugin.catalog.ranking.space import LATENT
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.locking import alone_in
from astroml_plugin.core.results import Result

Progress = Callable[[str, int, int], None]

_WITHOUT = "measure the objects by a bundle that stores vectors, as `anomaly` does"


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
    """Facts of the fit: labelled objects and accuracy by cross-validation; sizes, medoids and stability of clusters."""
    seconds: float
    """Wall time."""


@dataclass(frozen=True)
class Wanted:
    """Source and making of an annotation."""

    verb: str
    """Verb that makes it."""
    identity: Mapping[str, Any]
    """All that decides it, plain JSON: the same name with another identity is refused."""
    vectors: tuple[str, ...]
    """Columns of the catalog that the head looks at: one of vectors, or several of numbers."""
    fit: Callable[[], Head]
    """Makes the head, where it is not there yet."""


def vector_column(catalog: Catalog, name: str | None, otherwise: str = _WITHOUT) -> str:
    """The vector column of that name, or the only latent one.

    Args:
        catalog: with the vectors.
        name: of the column.
        otherwise: what to do where the catalog has none.

    Raises:
        InputError: there is none.
    """
    return names.vector_column(catalog.schema, name, LATENT, "--latent COLUMN", otherwise)


def make(catalog: Catalog, name: str, wanted: Wanted, progress: Progress | None = None) -> Annotated:
    """Make an annotation, or complete it: the head that is there is used again.

    Args:
        catalog: with the vectors.
        name: of the annotation.
        wanted: what it is made from.
        progress: called with (the verb, files done, files).

    Raises:
        InputError: another annotation of that name, or objects that nothing can be learned from.
    """
    began = time.monotonic()
    annotation = Annotation(catalog.url, name)
    storage.refuse_web(catalog.url)
    with alone_in(catalog.url, "annotates"):
        head, sha256 = _head(catalog, annotation, wanted)
        waiting, there = list(rows_of(catalog)), annotation.files()
        rows = done = left_out = 0
        files = {annotation.file(one, sha256): one for one in waiting}
        for number, (file, one) in enumerate(files.items()):
            if file not in there:
                table, twice = _annotated(catalog, one, wanted.vectors, head, annotation.schema())
                storage.write_table(storage.join(catalog.url, file), table)
                rows, done, left_out = rows + len(table), done + 1, left_out + twice
            if progress is not None:
                progress(wanted.verb, number + 1, len(files))
        for file in sorted(there - set(files)):  # of parts that were replaced or merged
            storage.remove(storage.join(catalog.url, file))
    columns = tuple(column.name for column in head.columns())
    seconds = round(time.monotonic() - began, 3)
    skipped = len(files) - done
    return Annotated(catalog.url, name, columns, rows, done, skipped, left_out, dict(head.about), seconds)


def _head(catalog: Catalog, annotation: Annotation, wanted: Wanted) -> tuple[Head, str]:
    record, place = annotation.record(), storage.join(annotation.url, WEIGHTS)
    if record is not None:
        differs = [key for key, value in wanted.identity.items() if record["identity"].get(key) != value]
        if differs:
            raise InputError(
                f"the annotation {annotation.name} was made with another {', '.join(differs)}: choose another "
                f"--name, or remove {storage.redact(annotation.url)}"
            )
        return Head.from_bytes(storage.read_bytes(place), record["head"]), record["head"]
    annotation.refuse_new()
    head = wanted.fit()
    data = head.to_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    storage.write_atomic(place, data)
    told = provenance(catalog, made_by=wanted.verb, annotation=annotation.name)
    annotation.write_record(
        {
            "identity": dict(wanted.identity),
            "head": sha256,
            "columns": [asdict(column) for column in head.columns()],
            "about": {**head.about, "provenance": told, "made": runs.now()},
        }
    )
    return head, sha256


def _annotated(
    catalog: Catalog, rows: Rows, vectors: Sequence[str], head: Head, schema: pa.Schema
) -> tuple[pa.Table, int]:
    """(rows of the annotation, rows left out)."""
    found = []
    for batch in batches(catalog, rows, ["object_id", "tile", *vectors]):
        key = {"object_id": batch["object_id"], "tile": batch["tile"]}
        made = head.apply(vectors_of(batch, vectors), batch["object_id"].to_numpy(), batch["tile"].to_pylist())
        found.append(pa.table(key | made).cast(schema))
    table = pa.concat_tables([schema.empty_table(), *found])
    counts = table.group_by(["object_id", "tile"]).aggregate([([], "count_all")])
    if len(counts) == len(table):
        return table, 0
    twice = counts.filter(pc.greater(counts["count_all"], 1)).select(["object_id", "tile"])
    once = table.join(twice, keys=["object_id", "tile"], join_type="left anti").select(schema.names)
    return once.cast(schema), len(table) - len(once)
