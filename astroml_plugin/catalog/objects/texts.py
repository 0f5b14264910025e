"""CSV, ECSV and columns between blanks, in UTF-8, UTF-16 or Latin-1."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from astroml_plugin.catalog.objects.raw import ARRAY, RawTable, local_file, rechunk
from astroml_plugin.catalog.objects.sky_coords import hints_of
from astroml_plugin.core import foreign
from astroml_plugin.core.astropy_later import table_meta
from astroml_plugin.core.errors import InputError

NULLS = ["", "NaN", "nan", "NAN", "null", "NULL", "None", "NA", "N/A", "<NA>", "--", "inf", "-inf", "Inf", "-Inf"]
"""Words that stand for no value."""

_BLOCK = 8 << 20
_LOOKED_AT = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?\d+[:hd ]\s*\d+.*|nan|inf")


@dataclass
class _Head:
    """How a text file begins."""

    names: tuple[str, ...]
    skip: int
    delimiter: str
    encoding: str
    units: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def open_text(url: str) -> Iterator[list[RawTable]]:
    """The one table of a text file.

    Raises:
        InputError: no rows, no line of column names, or an encoding that cannot be told.
    """
    with local_file(url) as path:
        head = _read_head(path)
        read = _by_blanks if head.delimiter == " " else _by_delimiter
        table = RawTable(head.names, lambda c, r: read(path, head, c, r), head.units, head.kinds, words=True)
        yield [replace(table, hints=head.hints)]


def _by_delimiter(path: Path, head: _Head, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    stream = pa.input_stream(str(path), compression="detect")
    # Always: Arrow checks no text that it shows to the handler of odd rows. Under this name UTF-8 is decoded too.
    encoding = "utf-8-sig" if head.encoding == "utf-8" else head.encoding
    stream = pa.transcoding_input_stream(stream, encoding, "utf-8")
    with stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(skip_rows=head.skip, column_names=list(head.names), block_size=_BLOCK),
            parse_options=pacsv.ParseOptions(
                delimiter=head.delimiter,
                invalid_row_handler=lambda row: "skip" if (row.text or "").startswith("#") else "error",
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
        yield from rechunk((pa.Table.from_batches([batch]) for batch in reader), rows)


def _by_blanks(path: Path, head: _Head, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    nulls, places = set(NULLS), [head.names.index(name) for name in columns]
    with _opened(path, head.encoding) as text:
        for _ in range(head.skip):
            next(text, "")
        lines = (one.replace("\t", " ").strip() for one in text)
        held: list[list[str | None]] = []
        for cells in csv.reader((one for one in lines if one and one[0] != "#"), delimiter=" ", skipinitialspace=True):
            if len(cells) != len(head.names):
                raise InputError(
                    f"{path.name} cannot be read as csv: a row has {len(cells)} values and there are "
                    f"{len(head.names)} names of columns"
                )
            held.append([None if cells[place] in nulls else cells[place] for place in places])
            if len(held) == rows:
                yield _columns(held, columns)
                held = []
        if held:
            yield _columns(held, columns)


def _columns(rows: list[list[str | None]], names: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array(list(column), pa.string()) for name, column in zip(names, zip(*rows, strict=True))})


@contextlib.contextmanager
def _opened(path: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    with pa.input_stream(str(path), compression="detect") as stream:
        yield io.TextIOWrapper(stream, encoding=encoding, errors="replace")


def _encoding(path: Path) -> str:
    """By the mark at the beginning, else by the bytes: UTF-8, UTF-16 without a mark, or Latin-1."""
    with pa.input_stream(str(path), compression="detect") as stream:
        data = stream.read(_LOOKED_AT)
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if b"\0" in data:
        for name, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
            if zeros.count(0) > 0.7 * len(zeros):
                return name
        raise InputError(f"{path.name} holds zero bytes, so it is no text: save it as CSV in UTF-8")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _read_head(path: Path) -> _Head:
    """Column names, lines before the rows, delimiter; comment lines come before, and may hold the names."""
    encoding = _encoding(path)
    comments: list[str] = []
    with _opened(path, encoding) as text:
        for number, one in enumerate(text):
            word = one.strip("\r\n\ufeff")
            if word.startswith("#") or not word.strip():
                comments.append(word)
                continue
            if comments and comments[0].startswith("# %ECSV"):
                return _ecsv(path, comments, word, number + 1, encoding)
            return _plain(path, comments, word, number, encoding)
    raise InputError(f"{path.name} has no rows")


def _plain(path: Path, comments: list[str], first: str, before: int, encoding: str) -> _Head:
    delimiter = _delimiter(first)
    cells = _cells(first, delimiter)
    numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in cells)
    told = next((one.lstrip("# \t") for one in reversed(comments) if one.strip("# \t")), "")
    names = _cells(told, _delimiter(told)) if told else []
    if numbers and len(names) == len(cells) and not any(_NUMBER.fullmatch(name) for name in names):
        return _Head(tuple(names), before, delimiter, encoding)
    if 2 * numbers >= len(cells) > 0 and numbers:
        raise InputError(f"{path.name} begins with numbers: give it a first line with the names of its columns")
    return _Head(tuple(cells), before + 1, delimiter, encoding)


def _ecsv(path: Path, comments: list[str], first: str, skip: int, encoding: str) -> _Head:
    try:
        header: dict[str, Any] = table_meta.get_header_from_yaml(
            [one[2:] for one in comments[1:] if one.startswith("# ")]
        )
        delimiter = str(header.get("delimiter", " "))
        columns = {str(one["name"]): one for one in header["datatype"]}
    except Exception as error:  # YAML of any kind
        raise InputError(f"the header of {path.name} is no ECSV: {foreign.in_words(error)}") from error
    names = tuple(_cells(first, delimiter))
    units = {name: str(one["unit"]) for name, one in columns.items() if one.get("unit")}
    kinds = {name: ARRAY for name, one in columns.items() if one.get("subtype")}
    return _Head(names, skip, delimiter, encoding, units, kinds, hints_of(header, names))


def _delimiter(text: str) -> str:
    bare = re.sub(r'"[^"]*"', "", text)
    best = max(",\t;|", key=bare.count)
    return best if best in bare else " "


def _cells(text: str, delimiter: str) -> list[str]:
    bare = text.replace("\t", " ").strip() if delimiter == " " else text
    return [cell.strip() for cell in next(csv.reader([bare], delimiter=delimiter, skipinitialspace=True), [])]
