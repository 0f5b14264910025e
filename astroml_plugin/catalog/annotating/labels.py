"""Labels that people give objects of a catalog, from a table of theirs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import csv

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.typing import I64
from astroml_plugin.sources.ingest.npz import parse_ids
from astroml_plugin.sources.labels import label_texts


def labelled_ids(table: Place | pa.Table, column: str) -> tuple[I64, np.ndarray]:
    """Ids (n,) and labels (n,) as text; rows without a label are left out.

    Args:
        table: path or URL of a CSV or Parquet table, or an Arrow table, with object_id.
        column: of the labels.

    Raises:
        InputError: it cannot be read, lacks a column, or gives one object two labels.
    """
    found = table if isinstance(table, pa.Table) else _read(table)
    if "object_id" not in found.column_names:
        raise InputError(
            f"the labels need the columns object_id and {column}: they have {', '.join(found.column_names)}"
        )
    ids, texts = parse_ids(found["object_id"], "the labels"), label_texts(found, column)
    kept = np.array([text is not None for text in texts], bool)
    pairs = sorted({*zip(ids[kept].tolist(), texts[kept].tolist())})
    unique = np.array([identity for identity, _ in pairs], np.int64)
    if len(np.unique(unique)) < len(unique):
        twice = unique[1:][np.diff(unique) == 0][0]
        raise InputError(f"object {twice} has two labels: keep one of them")
    return unique, np.array([text for _, text in pairs], object)


def _read(url: Place) -> pa.Table:
    shown = storage.redact(url)
    with foreign.refusing(shown, "give a CSV or Parquet table with object_id and labels"):
        try:
            if storage.path_of(url).lower().endswith((".parquet", ".pq")):
                return storage.read_table(url)
            data = pa.BufferReader(storage.read_bytes(url))
            return csv.read_csv(data, convert_options=csv.ConvertOptions(column_types={"object_id": pa.int64()}))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{shown} does not exist: check the path") from None
