"""VOTables: every TABLE of a document; TABLEDATA is streamed, other encodings are read at once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects.raw import ARRAY, RawTable, arrow_column, local_file
from astroml_plugin.core import storage
from astroml_plugin.core.astropy_later import astropy_table, iterparser, votable
from astroml_plugin.core.errors import InputError

_TEXT = ("char", "unicodeChar")


@dataclass
class Fields:
    """The head of one TABLE."""

    title: str = ""
    """Name or ID of the table."""
    names: list[str] = field(default_factory=list)
    """Names of the fields."""
    units: dict[str, str] = field(default_factory=dict)
    """Field -> unit."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Fields of arrays."""
    nulls: dict[str, str] = field(default_factory=dict)
    """Field -> the text that stands for no value."""
    encoding: str = ""
    """TABLEDATA, BINARY, BINARY2 or FITS; empty where the table has no rows."""

    def add(self, data: Mapping[str, str]) -> str:
        """Take up a field by its attributes; gives its name."""
        name = data.get("name") or data["ID"]
        self.names.append(name)
        if data.get("unit"):
            self.units[name] = data["unit"]
        if data.get("arraysize", "1") != "1" and data.get("datatype") not in _TEXT:
            self.kinds[name] = ARRAY
        return name


@contextlib.contextmanager
def open_votable(url: str) -> Iterator[list[RawTable]]:
    """All tables of a VOTable that have fields.

    Raises:
        InputError: it has no fields.
    """
    with local_file(url) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heads = read_heads(str(path))
        if not any(head.names for head in heads):
            raise InputError(f"{storage.redact(url)} is no VOTable: it has no fields")
        yield [_table(path, number, head) for number, head in enumerate(heads) if head.names]


def _table(path: Path, number: int, head: Fields) -> RawTable:
    def chunks(columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        if head.encoding == "TABLEDATA":
            yield from _tabledata(path, number, head, columns, rows)
        elif head.encoding:
            table = list(votable.parse(path).iter_tables())[number].to_table(use_names_over_ids=True)
            yield from table_chunks(table, columns, rows)

    return RawTable(tuple(head.names), chunks, head.units, head.kinds, head.title, number)


def read_heads(source: str | BinaryIO) -> list[Fields]:
    """Heads of all TABLEs of a document, in their order."""
    heads: list[Fields] = []
    inside, current = False, ""
    with iterparser.get_xml_iterator(source) as events:
        for start, tag, data, _ in events:
            if tag == "TABLE":
                inside = start
                if start:
                    heads.append(Fields(data.get("name") or data.get("ID") or ""))
            elif not inside:
                continue
            elif tag == "FIELD":
                current = heads[-1].add(data) if start else ""
            elif tag == "VALUES" and start and current and data.get("null"):
                heads[-1].nulls.setdefault(current, data["null"].strip())
            elif tag in ("TABLEDATA", "BINARY", "BINARY2", "FITS") and start:
                heads[-1].encoding = tag
    return heads


def _tabledata(path: Path, number: int, head: Fields, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Rows of one TABLEDATA, streamed: the document is never held."""
    wanted = {head.names.index(name): name for name in columns}
    nulls = {name: head.nulls.get(name) for name in columns}
    values: dict[str, list[str | None]] = {name: [] for name in columns}
    cells, last, table = 0, len(head.names) - 1, -1
    with iterparser.get_xml_iterator(str(path)) as events:
        for start, tag, data, _ in events:
            if tag == "TABLE" and start:
                table += 1
            elif table != number:
                continue
            elif tag == "TD" and not start:  # the parser tells of cells, not of rows
                column = cells % len(head.names)
                cells += 1
                if column in wanted:
                    word = data.strip()
                    name = wanted[column]
                    values[name].append(None if not word or _is_null(word, nulls[name]) else word)
                if column == last and len(values[columns[0]]) >= rows:
                    yield _texts(values)
                    values = {name: [] for name in columns}
            elif tag == "TABLEDATA" and not start:
                break
    if values[columns[0]]:
        yield _texts(values)


def _is_null(word: str, null: str | None) -> bool:
    """Whether a cell holds the text that stands for none, also written as another form of the same number."""
    if null is None or word == null:
        return word == null
    try:
        return float(word) == float(null) and len(word) < 16
    except ValueError:
        return False


def _texts(values: Mapping[str, list[str | None]]) -> pa.Table:
    return pa.table({name: pa.array(column, pa.string()) for name, column in values.items()})


def table_chunks(table: astropy_table.Table, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Chunks of an astropy table; masked values are null."""
    for start in range(0, len(table), rows):
        block = table[start : start + rows]
        arrays: dict[str, Any] = {}
        for name in columns:
            values, mask = block[name], getattr(block[name], "mask", None)
            data = np.asarray(getattr(values, "data", values))
            plain = np.asarray(np.ma.getdata(data))
            arrays[name] = arrow_column(plain.astype(str) if plain.dtype.kind == "O" else plain, name, mask=mask)
        yield pa.table(arrays)
