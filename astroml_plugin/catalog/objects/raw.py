"""Tables as every reader of objects tables gives them: columns by name, read a bounded number of rows at a time."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import archives, storage
from astroml_plugin.core.errors import InputError

PLAIN, BYTES, ARRAY = "plain", "bytes", "array"
"""Kinds of columns: one number or text per row, bytes that may be text, or anything else."""


@dataclass(frozen=True)
class RawTable:
    """A table that is read on demand."""

    names: tuple[str, ...]
    """Names of the columns."""
    chunks: Callable[[Sequence[str], int], Iterator[pa.Table]]
    """(columns, rows) -> tables of these columns, of at most `rows` rows; formats of text give text."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Unit of a column where the file gives one."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """BYTES and ARRAY columns; all others are PLAIN."""
    title: str = ""
    """Name of the table within its file; empty where it has none."""
    number: int = 0
    """Number of the table within its file, as the format counts."""
    file: str = ""
    """Name of its file, where a pattern named several."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Our names -> its columns, where the file says which they are."""
    words: bool = False
    """Whether the file is text: all columns are words then."""
    doubt: str = ""
    """Why the units that the file gives cannot be read; empty where they can, or where it gives none."""

    @property
    def called(self) -> str:
        """The title, else the number; with the file where there are several."""
        return f"{self.file} {self.title}".strip() or str(self.number)


@contextlib.contextmanager
def local_file(url: str) -> Iterator[Path]:
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
        target = Path(folder) / storage.path_of(remote).rsplit("/", 1)[-1]
        storage.retrying(fs.get_file, remote, str(target))
        archives.check_file(target)
        yield target


def rechunk(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut tables anew into exactly `rows` rows each, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        if count >= rows:
            joined = pa.concat_tables(held, promote_options="permissive")
            whole = count - count % rows
            yield from (joined.slice(start, rows) for start in range(0, whole, rows))
            held, count = [joined.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(held, promote_options="permissive")


def arrow_column(values: np.ndarray, name: str, null: Any = None, mask: Any = None) -> pa.Array:
    """A column of one value per row; `null` is the integer that stands for none."""
    if values.ndim > 1 and values.size == len(values):
        values = values.reshape(-1)
        mask = None if mask is None else np.asarray(mask).reshape(-1)
    if values.ndim != 1:
        raise InputError(f"column {name} of the objects table holds arrays: give columns of single values")
    if values.dtype.kind in "SU":
        text = np.char.strip(np.char.decode(values, "ascii", "replace") if values.dtype.kind == "S" else values)
        return pa.array(text.astype(str), mask=mask)
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if null is not None and str(null) != "" and native.dtype.kind in "iu":
        mask = native == int(null) if mask is None else mask | (native == int(null))
    return pa.array(native, mask=mask)
