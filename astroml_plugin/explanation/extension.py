"""Summaries of an explanation as an annotation of the catalog, which queries and exports join to its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import save

from astroml_plugin.catalog import Catalog, runs
from astroml_plugin.catalog.annotation_files import WEIGHTS, Annotation, rows_of
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.explanation.store import ExplanationStore

MADE_BY = "explain"
_CACHED = 8
"""Blocks of summaries that are kept while files are written."""


def refuse_taken(catalog: Catalog, name: str) -> Annotation:
    """The annotation of that name, which is free or an explanation.

    Raises:
        InputError: `annotate` made it, or no annotation can have the name.
    """
    annotation = Annotation(catalog.url, name)
    record = annotation.record()
    if record is None:
        annotation.refuse_new()
    elif MADE_BY not in record["identity"]:
        raise InputError(f"{name} is an annotation of another kind: choose another --name")
    return annotation


def write_extension(
    catalog: Catalog,
    annotation: Annotation,
    store: ExplanationStore,
    tiles_of: Mapping[int, Sequence[str]],
) -> None:
    """Write the summaries that are there as an annotation, one file per file of the catalog.

    Args:
        catalog: the catalog.
        annotation: where they go.
        store: the explanation.
        tiles_of: block -> the tiles whose rows it holds, of those that are there.
    """
    record = store.record() or {}
    layout = store.layout()
    data = save({"none": np.zeros(0, np.float32)}, {MADE_BY: json.dumps(record["identity"], sort_keys=True)})
    head = hashlib.sha256(data).hexdigest()
    storage.write_atomic(storage.join(annotation.url, WEIGHTS), data)
    about = {"provenance": provenance(catalog, made_by=MADE_BY, annotation=annotation.name), "made": runs.now()}
    columns = [asdict(column) for column in layout.columns(str(record["number"]))]
    annotation.write_record(
        {"identity": {MADE_BY: record["identity"]}, "head": head, "columns": columns, "about": about}
    )
    blocks_of: dict[str, list[int]] = {}
    for block, tiles in sorted(tiles_of.items()):
        for tile in tiles:
            blocks_of.setdefault(tile, []).append(block)
    schema, read, written = annotation.schema(), lru_cache(_CACHED)(store.read), set()
    for rows in rows_of(catalog):
        wanted = sorted({block for unit in rows.units for block in blocks_of.get(unit, ())})
        units = pa.array(rows.units, pa.large_string())
        parts = [table.filter(pc.is_in(table["tile"], value_set=units)) for table in map(read, wanted)]
        file = annotation.file(rows, head)
        storage.write_table(
            storage.join(catalog.url, file), pa.concat_tables([schema.empty_table(), *parts]).cast(schema)
        )
        written.add(file)
    for file in sorted(annotation.files() - written):  # of parts that were replaced or merged
        storage.remove(storage.join(catalog.url, file))


def sampled(store: ExplanationStore, blocks: Sequence[int], most: int = 40) -> pa.Table:
    """Summaries of at most so many blocks, evenly chosen: enough to speak of all of them."""
    chosen = np.unique(np.linspace(0, len(blocks) - 1, min(most, len(blocks))).round().astype(int))
    return pa.concat_tables(list(_read(store, [blocks[place] for place in chosen])))


def _read(store: ExplanationStore, blocks: Sequence[int]) -> Iterator[pa.Table]:
    for block in blocks:
        yield store.read(block)


def taken_by(record: Mapping[str, Any], identity: Mapping[str, Any], name: str, url: str) -> InputError | None:
    """The error for an explanation of that name that was made otherwise; None where it is the same."""
    differs = [key for key, value in identity.items() if record["identity"].get(key) != value]
    if not differs:
        return None
    told = ", ".join(_WORDS.get(key, key) for key in differs)
    return InputError(
        f"the explanation {name} was made with another {told}: choose another --name, or remove {storage.redact(url)}"
    )


_WORDS = {
    "rows": "list of objects (--top, --by, --where, or the catalog has other rows now)",
    "outlines": "way to outline objects",
}
