"""Whether the annotations of a catalog are right: their records, heads and rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from astroml_plugin.catalog import parts
from astroml_plugin.catalog.annotation_files import RECORD, WEIGHTS, Annotation, all_annotations, rows_of, verb_of
from astroml_plugin.catalog.beside import DAMAGED, set_aside
from astroml_plugin.catalog.small_files import UNREADABLE, Damage, line
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError

_AGAIN = "run the same `astroml-plugin {}` again"


def annotation_damages(catalog: Catalog, repair: bool) -> Iterator[Damage]:
    """Read all annotations; files that cannot be used are moved away by `repair`, and `annotate` makes them again.

    Rows that have no annotation yet are no damage: a query of that annotation says so.
    """
    for one in all_annotations(catalog.url):
        folder = one.url.removeprefix(catalog.url).strip("/")
        verb = "annotate"
        try:
            record = one.record() or {}
            verb = verb_of(record)
            head = storage.read_bytes(storage.join(one.url, WEIGHTS))
            if hashlib.sha256(head).hexdigest() != record["head"]:
                raise CorruptError(f"{WEIGHTS} is not the one of its record")
            schema = one.schema()
        except UNREADABLE as error:
            if repair:  # without its head nothing can be added to it
                for name in (RECORD, WEIGHTS):
                    if storage.exists(storage.join(one.url, name)):
                        set_aside(catalog.url, f"{folder}/{name}")
            yield _damage(f"{folder}/{RECORD}", line(error), repair, verb)
            continue
        yield from _files(catalog, one, str(record["head"]), schema, repair, verb)


def _files(
    catalog: Catalog, one: Annotation, head: str, schema: pa.Schema, repair: bool, verb: str
) -> Iterator[Damage]:
    there = one.files()
    for rows in rows_of(catalog):
        path = one.file(rows, head)
        if path not in there:
            continue
        try:
            with parts.open_parquet(storage.join(catalog.url, path), check=True) as file:
                if file.schema_arrow.names != schema.names or file.schema_arrow.types != schema.types:
                    raise CorruptError("it has other columns than its record says")
                for batch in file.iter_batches(parts.ROW_GROUP):
                    batch.validate(full=True)
        except UNREADABLE as error:
            if repair:
                set_aside(catalog.url, path)
            yield _damage(path, line(error), repair, verb)


def _damage(path: str, what: str, repair: bool, verb: str) -> Damage:
    moved = f"moved into {DAMAGED}, " if repair else ""
    return Damage(path, f"{what}; {moved}{_AGAIN.format(verb)}", mended=False)
