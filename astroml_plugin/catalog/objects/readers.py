"""Objects tables of any common format: which format, which files, which of their tables."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from astroml_plugin.catalog.objects.fits_tables import open_fits, open_sextractor
from astroml_plugin.catalog.objects.parquets import open_parquet_files, open_parquet_table
from astroml_plugin.catalog.objects.raw import RawTable
from astroml_plugin.catalog.objects.texts import open_text
from astroml_plugin.catalog.objects.votables import open_votable
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError

SUFFIXES = {
    "parquet": "parquet", "parq": "parquet", "pq": "parquet", "csv": "csv", "tsv": "csv", "ecsv": "ecsv",
    "fits": "fits", "fit": "fits", "fts": "fits", "ldac": "fits",
    "vot": "votable", "votable": "votable", "xml": "votable", "cat": "sextractor", "sex": "sextractor",
}  # fmt: skip
"""File name suffix -> format (a compression suffix may follow)."""

FORMATS = tuple(sorted(set(SUFFIXES.values())))

_OPENERS = {
    "parquet": open_parquet_table,
    "csv": open_text,
    "ecsv": open_text,
    "fits": open_fits,
    "votable": open_votable,
    "sextractor": open_sextractor,
}
_TEXT = (
    "save it as CSV in UTF-8 with as many values in every row as names in the first, numbers in its columns of "
    "positions, and no line breaks within values"
)
_REMEDIES = {
    "parquet": "is it Parquet, and whole? Write it again",
    "csv": _TEXT,
    "ecsv": _TEXT,
    "fits": "is it FITS with a binary table, and whole? Write it again",
    "votable": "is it a VOTable, and whole? Write it again",
    "sextractor": "is it ASCII_HEAD of Source Extractor? Write it again",
}
_BEGINNINGS = ((b"SIMPLE  =", "fits"), (b"PAR1", "parquet"), (b"<?xml", "votable"), (b"<VOTABLE", "votable"))


def table_format(url: str, given: str | None = None) -> str:
    """The format given, or that of the suffix or, where this may be of several, of the first bytes.

    Raises:
        InputError: nothing says which.
    """
    if given is not None:
        if given not in FORMATS:
            raise InputError(f"table format '{given}' is not known: use one of {', '.join(FORMATS)}")
        return given
    words = [word.lower() for word in storage.path_of(url).rstrip("/").rsplit("/", 1)[-1].split(".")[1:]]
    suffix = next((word for word in reversed(words) if word not in ("gz", "bz2", "zst")), "")
    found = SUFFIXES.get(suffix)
    if found not in (None, "sextractor"):
        return str(found)
    if found is None and _is_folder(url):
        return "parquet"
    told = next((kind for begins, kind in _BEGINNINGS if _first_bytes(url).startswith(begins)), found)
    if told is None:
        raise InputError(
            f"cannot tell the format of {storage.redact(url)} by its suffix: use --objects-format {'|'.join(FORMATS)}"
        )
    return told


def _is_folder(url: str) -> bool:
    if storage.is_local(url):
        return storage.local_path(url).expanduser().is_dir()
    if storage.is_web(url):
        return storage.path_of(url) == url and any(
            storage.exists(storage.join(url, name)) for name in ("hats.properties", "properties")
        )
    return bool(storage.list_files(url, ".parquet"))


def _first_bytes(url: str) -> bytes:
    if not storage.is_local(url):
        return b""
    try:
        with storage.local_path(url).expanduser().open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def matching_files(url: str) -> list[str]:
    """Files that a pattern (`*`, `?`, `[`) names, sorted; anything else stands for itself."""
    if not any(mark in url for mark in "*?[") or (
        storage.is_local(url) and storage.local_path(url).expanduser().exists()
    ):
        return [url]
    if storage.is_local(url):
        found = sorted(glob.glob(str(storage.local_path(url).expanduser()), recursive=True))
    elif storage.is_web(url):
        return [url]
    else:
        fs, path = storage.filesystem(url)
        found = sorted(fs.unstrip_protocol(name) for name in storage.retrying(fs.glob, path))
    if not found:
        raise InputError(f"no objects table is called {storage.redact(url)}: check the pattern")
    return found


@contextlib.contextmanager
def open_tables(url: str, given: str | None = None, table: str | None = None) -> Iterator[list[RawTable]]:
    """Open the tables of a file, or of all files that a pattern names.

    Args:
        url: path or URL of a file, a folder of Parquet files or a HATS catalogue, or a pattern.
        given: the format; default by suffix.
        table: name or number of the table within its file; default all.

    Raises:
        InputError: it is not there, is a catalog of this package, is not what its format says, or has no such table.
    """
    _refuse_catalog(url)
    with contextlib.ExitStack() as stack:
        tables: list[RawTable] = []
        files = matching_files(url)
        if len(files) > 1 and all(table_format(file, given) == "parquet" and not _is_folder(file) for file in files):
            what = f"the objects table {storage.redact(url)}"
            with foreign.refusing(what, _REMEDIES["parquet"]):
                tables = stack.enter_context(open_parquet_files(files))
            yield [replace(one, chunks=_guarded(one, what, _REMEDIES["parquet"])) for one in tables]
            return
        for file in files:
            opened = stack.enter_context(_open_file(file, given))
            short = file.rstrip("/").rsplit("/", 1)[-1] if len(files) > 1 else ""
            tables += [replace(one, file=short) for one in opened if _is_called(one, table)]
            if not tables and table is not None:
                known = ", ".join(dict.fromkeys(one.called for one in opened))
                raise InputError(f"{storage.redact(file)} has no table '{table}': it has {known}")
        yield tables


def _refuse_catalog(url: str) -> None:
    place = storage.absolute(url)
    if storage.path_of(place) != place or storage.is_web(place):
        return
    if storage.exists(storage.join(place, "schema.json")):
        shown = storage.redact(url)
        select = "SELECT object_id, ra, dec FROM catalog WHERE " + '"primary"'  # noqa: S608 - told, not asked
        raise InputError(
            f"{shown} is a catalog, a folder of several tables: write its rows to one by `astroml-plugin query {shown} "
            f"'{select}' --to objects.parquet` (image, x, y in place of ra, dec without a sky), and give that"
        )


def _is_called(raw: RawTable, table: str | None) -> bool:
    return table is None or table.lower() == raw.title.lower() or table == str(raw.number)


@contextlib.contextmanager
def _open_file(url: str, given: str | None) -> Iterator[list[RawTable]]:
    kind = table_format(url, given)
    what = f"the objects table {storage.redact(url)}"
    with contextlib.ExitStack() as stack:
        with foreign.refusing(what, _REMEDIES[kind]):
            try:
                tables = stack.enter_context(_OPENERS[kind](url))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise InputError(f"{what} does not exist") from error
        yield [replace(one, chunks=_guarded(one, what, _REMEDIES[kind])) for one in tables]


def _guarded(raw: RawTable, what: str, remedy: str) -> Callable[[Sequence[str], int], Iterator[pa.Table]]:
    """Chunks whose errors become one sentence."""

    def chunks(columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        with foreign.refusing(what, remedy):
            read = raw.chunks(columns, rows)
        while True:
            with foreign.refusing(what, remedy):
                chunk = next(read, None)
            if chunk is None:
                return
            yield chunk  # errors of who uses it are no errors of the file

    return chunks


@contextlib.contextmanager
def open_table(url: str, given: str | None = None) -> Iterator[RawTable]:
    """Open the first table of a file that has columns."""
    with open_tables(url, given) as tables:
        yield tables[0]


def file_names(url: str) -> Sequence[str]:
    """Files that a table's rows are read from: of a folder or a pattern all of them."""
    found: list[str] = []
    for file in matching_files(url):
        if storage.is_local(file) and storage.local_path(file).expanduser().is_dir():
            folder = str(storage.local_path(file).expanduser())
            found += [storage.join(folder, name) for name in storage.list_files(folder)]
        else:
            found.append(file)
    return found
