"""Tables of any common format, a bounded number of rows at a time, as Arrow tables of the columns asked for."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.table import Table
from astropy.utils.xml import iterparser

from astroml_plugin.catalog.parts import open_parquet
from astroml_plugin.core import archives, foreign, storage
from astroml_plugin.core.errors import InputError

SUFFIXES = {
    "parquet": "parquet", "parq": "parquet", "pq": "parquet", "csv": "csv", "tsv": "csv", "fits": "fits", "fit": "fits",
    "vot": "votable", "votable": "votable", "xml": "votable", "cat": "sextractor", "sex": "sextractor",
}  # fmt: skip
"""File name suffix -> format (a compression suffix may follow)."""

FORMATS = tuple(sorted(set(SUFFIXES.values())))

_REMEDIES = {
    "parquet": "is it Parquet, and whole? Write it again",
    "csv": "save it as CSV in UTF-8 with as many values in every row as names in the first, numbers in its columns of "
    "positions, and no line breaks within values",
    "fits": "is it FITS with a binary table, and whole? Write it again",
    "votable": "is it a VOTable, and whole? Write it again",
    "sextractor": "is it ASCII_HEAD of Source Extractor? Write it again",
}

_NULLS = ["", "NaN", "nan", "NAN", "null", "NULL", "None", "NA", "N/A", "--", "inf", "-inf", "Inf", "-Inf"]
_CSV_BLOCK = 8 << 20


@dataclass(frozen=True)
class RawTable:
    """A table that is read on demand."""

    names: tuple[str, ...]
    """Names of the columns."""
    chunks: Callable[[Sequence[str], Sequence[str], int], Iterator[pa.Table]]
    """(columns, those of them to read as text where the file has only text, rows) -> tables of at most `rows` rows."""
    units: dict[str, str] = field(default_factory=dict)
    """Unit of a column where the file gives one."""


def table_format(url: str, given: str | None = None) -> str:
    """The format given, or that of the suffix; InputError when neither says."""
    if given is not None:
        if given not in FORMATS:
            raise InputError(f"table format '{given}' is not known: use one of {', '.join(FORMATS)}")
        return given
    words = [word.lower() for word in url.rsplit("/", 1)[-1].split(".")[1:]]
    for word in reversed([word for word in words if word not in ("gz", "bz2", "zst")]):
        if word in SUFFIXES:
            return SUFFIXES[word]
        break
    raise InputError(
        f"cannot tell the format of {storage.redact(url)} by its suffix: use --objects-format {'|'.join(FORMATS)}"
    )


@contextlib.contextmanager
def open_table(url: str, given: str | None = None) -> Iterator[RawTable]:
    """Open a table for reading in chunks.

    Raises:
        InputError: it is not there, or not what its format says.
    """
    kind = table_format(url, given)
    openers = {"parquet": _parquet, "csv": _csv, "fits": _fits, "votable": _votable, "sextractor": _sextractor}
    place = storage.redact(url)
    what = f"the objects table {place}"
    with contextlib.ExitStack() as stack:
        try:
            with foreign.refusing(what, _REMEDIES[kind]):
                raw = stack.enter_context(openers[kind](url))
        except FileNotFoundError as error:
            raise InputError(f"the objects table {place} does not exist") from error

        def chunks(columns: Sequence[str], text: Sequence[str], rows: int) -> Iterator[pa.Table]:
            with foreign.refusing(what, _REMEDIES[kind]):
                read = raw.chunks(columns, text, rows)
            while True:
                with foreign.refusing(what, _REMEDIES[kind]):
                    chunk = next(read, None)
                if chunk is None:
                    return
                yield chunk  # errors of who uses it are no errors of the file

        yield replace(raw, chunks=chunks)


@contextlib.contextmanager
def _local(url: str) -> Iterator[Path]:
    """A local copy of a file, removed at the end; a local file itself."""
    if storage.is_local(url):
        path = storage.local_path(url).expanduser()
        if not path.is_file():
            raise FileNotFoundError(str(path))
        archives.check_file(path)
        yield path
        return
    fs, remote = storage.filesystem(url)
    with tempfile.TemporaryDirectory(prefix="astroml-") as folder:
        target = Path(folder) / remote.rsplit("/", 1)[-1]
        storage.retrying(fs.get_file, remote, str(target))
        archives.check_file(target)
        yield target


@contextlib.contextmanager
def _parquet(url: str) -> Iterator[RawTable]:
    with open_parquet(url) as file:

        def chunks(columns: Sequence[str], text: Sequence[str], rows: int) -> Iterator[pa.Table]:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
                yield pa.Table.from_batches([batch])

        fields = file.schema_arrow
        units = {f.name: f.metadata[b"unit"].decode() for f in fields if f.metadata and b"unit" in f.metadata}
        yield RawTable(tuple(fields.names), chunks, units)


@contextlib.contextmanager
def _csv(url: str) -> Iterator[RawTable]:
    with _local(url) as path:
        header, skip, delimiter = _csv_header(path)

        def chunks(columns: Sequence[str], text: Sequence[str], rows: int) -> Iterator[pa.Table]:
            types = {name: pa.string() if name in text else pa.float64() for name in columns}
            reader = pacsv.open_csv(
                path,
                read_options=pacsv.ReadOptions(skip_rows=skip, column_names=list(header), block_size=_CSV_BLOCK),
                parse_options=pacsv.ParseOptions(delimiter=delimiter),
                convert_options=pacsv.ConvertOptions(
                    include_columns=list(columns), column_types=types, null_values=_NULLS, strings_can_be_null=True
                ),
            )
            yield from _rechunk((pa.Table.from_batches([batch]) for batch in reader), rows)

        yield RawTable(header, chunks)


def _csv_header(path: Path) -> tuple[tuple[str, ...], int, str]:
    """(column names, lines to skip, delimiter): comment lines come before the header."""
    lines = 0
    with pa.input_stream(str(path), compression="detect") as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8-sig"):
            lines += 1
            if line.startswith("#") or not line.strip():
                continue
            delimiter = max(",\t;", key=line.count)
            return tuple(name.strip().strip('"') for name in line.rstrip("\r\n").split(delimiter)), lines, delimiter
    raise InputError(f"{path.name} has no rows")


def _rechunk(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut tables anew into exactly `rows` rows each, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        if count >= rows:
            joined = pa.concat_tables(held)
            whole = count - count % rows
            yield from (joined.slice(start, rows) for start in range(0, whole, rows))
            held, count = [joined.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(held)


@contextlib.contextmanager
def _fits(url: str) -> Iterator[RawTable]:
    with _local(url) as path, fits.open(path, memmap=True) as opened:
        hdu = next((h for h in opened if isinstance(h, fits.BinTableHDU | fits.TableHDU)), None)
        if hdu is None or isinstance(hdu, fits.CompImageHDU):
            raise InputError(f"{storage.redact(url)} has no table extension")
        units = {column.name: column.unit for column in hdu.columns if column.unit}
        names = tuple(name for name in hdu.columns.names if name)
        yield RawTable(names, lambda c, t, r: _fits_chunks(path, hdu, c, r), units)


def _fits_chunks(path: Path, hdu: Any, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    total = hdu.header["NAXIS2"]
    nulls = {name: hdu.columns[name].null for name in columns}
    for start in range(0, total, rows):
        block = hdu.data[start : start + rows]
        yield pa.table({name: _arrow(np.asarray(block[name]), nulls[name]) for name in columns})


def _arrow(values: np.ndarray, null: Any = None, mask: Any = None) -> pa.Array:
    """A column of one value per row; `null` is the integer that stands for none."""
    if values.ndim != 1:
        raise InputError("a column of the objects table holds arrays: give columns of single values")
    if values.dtype.kind in "SU":
        text = np.char.strip(np.char.decode(values, "ascii", "replace") if values.dtype.kind == "S" else values)
        return pa.array(text.astype(str), mask=mask)
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if null is not None and str(null) != "" and native.dtype.kind in "iu":
        mask = native == int(null) if mask is None else mask | (native == int(null))
    return pa.array(native, mask=mask)


def _table_chunks(table: Table, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    for start in range(0, len(table), rows):
        block = table[start : start + rows]
        arrays = {}
        for name in columns:
            values, mask = block[name], getattr(block[name], "mask", None)
            data = np.asarray(getattr(values, "data", values))
            plain = np.asarray(np.ma.getdata(data))
            arrays[name] = _arrow(plain.astype(str) if plain.dtype.kind == "O" else plain, mask=mask)
        yield pa.table(arrays)


@contextlib.contextmanager
def _sextractor(url: str) -> Iterator[RawTable]:
    """Source Extractor's ASCII_HEAD (a small file: read at once)."""
    with _local(url) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, format="ascii.sextractor")
    yield RawTable(tuple(table.colnames), lambda c, t, r: _table_chunks(table, c, r))


@dataclass
class _Fields:
    """Fields that the head of a VOTable declares."""

    names: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    encoding: str = ""


@contextlib.contextmanager
def _votable(url: str) -> Iterator[RawTable]:
    with _local(url) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = _votable_head(path)
        if not head.names:
            raise InputError(f"{storage.redact(url)} is no VOTable: it has no fields")
        if head.encoding == "TABLEDATA":
            yield RawTable(tuple(head.names), lambda c, t, r: _tabledata(path, head.names, c, t, r), head.units)
            return
        table = parse_single_table(path).to_table(use_names_over_ids=True)
        yield RawTable(tuple(table.colnames), lambda c, t, r: _table_chunks(table, c, r), head.units)


def _votable_head(path: Path) -> _Fields:
    head = _Fields()
    with iterparser.get_xml_iterator(str(path)) as events:
        for start, tag, data, _ in events:
            if start and tag == "FIELD":
                name = data.get("name") or data["ID"]
                head.names.append(name)
                if data.get("unit"):
                    head.units[name] = data["unit"]
            elif start and tag in ("TABLEDATA", "BINARY", "BINARY2", "FITS"):
                head.encoding = tag
                break
            elif not start and tag == "TABLE":
                break
    return head


def _tabledata(
    path: Path, names: list[str], columns: Sequence[str], text: Sequence[str], rows: int
) -> Iterator[pa.Table]:
    """Rows of the first TABLEDATA, streamed: the document is never held."""
    wanted = {names.index(name): name for name in columns}
    values: dict[str, list[str | None]] = {name: [] for name in columns}
    cells, last = 0, len(names) - 1
    with iterparser.get_xml_iterator(str(path)) as events:
        for start, tag, data, _ in events:
            if tag == "TD" and not start:  # the parser tells of cells, not of rows
                column = cells % len(names)
                cells += 1
                if column in wanted:
                    values[wanted[column]].append(data.strip() or None)
                if column == last and len(values[columns[0]]) >= rows:
                    yield _typed(values, text)
                    values = {name: [] for name in columns}
            elif tag == "TABLEDATA" and not start:
                break
    if values[columns[0]]:
        yield _typed(values, text)


def _typed(values: dict[str, list[str | None]], text: Sequence[str]) -> pa.Table:
    columns = {}
    for name, column in values.items():
        array = pa.array(column, pa.string())
        columns[name] = array if name in text else pa.array([_number(word) for word in column], pa.float64())
    return pa.table(columns)


def _number(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError as error:
        raise InputError(f"'{word}' in the objects table is no number") from error
