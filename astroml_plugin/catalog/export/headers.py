"""Headers within Parquet files in which other readers find units, UCDs, descriptions and where the rows come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from astroml_plugin.catalog.export.facts import facts
from astroml_plugin.catalog.export.votable import Field, header
from astroml_plugin.catalog.schema import Column, columns_of, is_text
from astroml_plugin.core import formats

TEXT_LENGTH = "table::len::"
"""Prefix of astropy's Parquet metadata keys for the length of text columns."""

_VOTABLE = {
    "bool": "boolean", "uint8": "unsignedByte", "int8": "short", "int16": "short", "uint16": "int", "int32": "int",
    "float16": "float", "float32": "float", "float64": "double", "string": "unicodeChar",
}  # fmt: skip


def reader_metadata(declared: pa.Schema, lengths: Mapping[str, int]) -> dict[str, str]:
    """Parquet key-values that let VOParquet readers and astropy's `Table.read` restore units, UCDs and descriptions.

    Args:
        declared: columns of the file; what its metadata say of the rows' origin goes into the headers too.
        lengths: longest text of each text column: both readers of astropy need a fixed length.
    """
    about = (declared.metadata or {}).get(formats.PROVENANCE.encode(), b"").decode()
    kinds = tuple(_kind(field.type) for field in declared)
    return dict(_reader_metadata(columns_of(declared), kinds, tuple(sorted(lengths.items())), about))


def text_lengths(table: pa.Table) -> dict[str, int]:
    """Characters of the longest text in each text column, at least 1."""
    text = [field.name for field in table.schema if is_text(field.type)]
    return {name: pc.max(pc.utf8_length(table[name])).as_py() or 1 for name in text}


def _kind(kind: pa.DataType) -> tuple[str, int]:
    """NumPy's name of the numbers or texts of a column, and the length of its vectors (0: none)."""
    if pa.types.is_fixed_size_list(kind):
        return _kind(kind.value_type)[0], kind.list_size
    if is_text(kind):
        return "string", 0
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype()).name, 0
    return ("float64" if pa.types.is_decimal(kind) else "string"), 0


@lru_cache(maxsize=256)
def _reader_metadata(
    columns: tuple[Column, ...], kinds: tuple[tuple[str, int], ...], lengths: tuple[tuple[str, int], ...], about: str
) -> dict[str, str]:
    told: dict[str, Any] = json.loads(about) if about else {}
    sizes = dict(lengths)
    fields = []
    for column, (kind, length) in zip(columns, kinds, strict=True):
        size = str(sizes.get(column.name, 1)) if kind == "string" else str(length or "")
        fields.append(Field(column, _VOTABLE.get(kind, "long"), size))
    return {
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": header(fields, facts(told)),
        "table_meta_yaml": _astropy_yaml(columns, kinds, told),
        **{f"{TEXT_LENGTH}{name}": str(length) for name, length in lengths},
    }


def _astropy_yaml(columns: tuple[Column, ...], kinds: tuple[tuple[str, int], ...], told: dict[str, Any]) -> str:
    """Columns and origin as astropy writes them with `Table.write`; astropy itself takes 0.4 s to import."""
    lines = ["datatype:"]
    for column, (kind, length) in zip(columns, kinds, strict=True):
        entry: dict[str, Any] = {"name": column.name, "unit": column.unit, "description": column.description}
        entry["datatype"] = "string" if length else kind
        entry["subtype"] = f"{kind}[{length}]" if length else ""
        lines.append(f"- {_flow({key: value for key, value in entry.items() if value}, column.ucd)}")
    lines += ["meta: !!omap", *(f"- {_flow({key: value})}" for key, value in told.items())] if told else []
    return "\n".join(lines)


def _flow(mapping: dict[str, Any], ucd: str = "") -> str:
    """A mapping as one line of YAML, with a UCD as its `meta`."""
    line = yaml.safe_dump(mapping, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return f"{line[:-1]}, meta: !!omap [{_flow({'ucd': ucd})}]}}" if ucd else line
