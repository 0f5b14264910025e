"""DuckDB on the files of a catalog: no network, no extensions, no other files than those named."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.web import PROTOCOL, WebFiles

if TYPE_CHECKING:
    import duckdb

_SAFE = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def connect(**options: str) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that never reaches for the network by itself."""
    import duckdb  # here, as most runs ask nothing and do without what it takes to load

    database = duckdb.connect(config={**_SAFE, **options})
    with contextlib.suppress(duckdb.InvalidInputException):  # a notebook without ipywidgets has no bar to switch off
        database.execute("SET enable_progress_bar = false")  # it would draw on stdout, between the data
    return database


@lru_cache(maxsize=1)
def reserved() -> frozenset[str]:
    """Words of SQL that name nothing without quotes, in small letters."""
    with connect() as database:
        text = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        return frozenset(str(word).lower() for (word,) in database.execute(text).fetchall())


def lock(connection: duckdb.DuckDBPyConnection, folders: Sequence[str], files: Sequence[str] = ()) -> None:
    """From here on only `files` and those below `folders` can be opened, and no setting can be changed."""
    connection.execute("SET allowed_directories = ?", [[form for one in folders for form in (one, glob_escape(one))]])
    connection.execute("SET allowed_paths = ?", [[form for name in files for form in (name, glob_escape(name))]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def root(connection: duckdb.DuckDBPyConnection, catalog: str) -> str:
    """DuckDB's name of a catalog's folder; the fsspec filesystem of a remote one is registered."""
    if storage.is_local(catalog):
        return str(storage.local_path(storage.absolute(catalog)))
    if storage.is_web(catalog):
        if not connection.filesystem_is_registered(PROTOCOL):
            connection.register_filesystem(WebFiles())
        return WebFiles.folder(catalog)
    fs, folder = storage.filesystem(catalog)
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    if not connection.filesystem_is_registered(protocol):
        connection.register_filesystem(fs)
    return f"{protocol}://{folder}"


def scan(files: Sequence[str], *, file_name: bool = False) -> str:
    """SQL that reads Parquet files with one schema."""
    listed = ", ".join(quote(glob_escape(name)) for name in files)
    return f"read_parquet([{listed}], hive_partitioning = false{', filename = true' if file_name else ''})"


def glob_escape(name: str) -> str:
    """A file name that is taken literally: DuckDB prefers a pattern's matches to the file of that name."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def quote(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """A SQL name."""
    return '"' + column.replace('"', '""') + '"'


_NUMBERS = {
    "uint8": "UTINYINT", "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "float": "FLOAT", "double": "DOUBLE",
}  # fmt: skip


def typed_names(schema: pa.Schema) -> str:
    """SQL names of all columns; vectors as arrays of their length, which array_distance and the like need."""
    return ", ".join(_typed(field.name, field.type) for field in schema)


def _typed(column: str, kind: pa.DataType) -> str:
    if not pa.types.is_fixed_size_list(kind):
        return name(column)
    return f"{name(column)}::{_NUMBERS[str(kind.value_type)]}[{kind.list_size}] AS {name(column)}"


def names(columns: Sequence[str]) -> str:
    """SQL names, comma-separated."""
    return ", ".join(name(column) for column in columns)
