"""Parquet: a file, a folder or pattern of files, a HATS catalogue; units as astropy and VOParquet write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from astroml_plugin.catalog.objects.raw import ARRAY, BYTES, RawTable
from astroml_plugin.catalog.objects.sky_coords import hints_of
from astroml_plugin.catalog.objects.votables import read_heads
from astroml_plugin.catalog.parts import open_parquet
from astroml_plugin.catalog.schema import is_text
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.astropy_later import table_meta
from astroml_plugin.core.errors import InputError

SUFFIXES = (".parquet", ".parq", ".pq")

_PROPERTIES = ("hats.properties", "properties")
_COLLECTION = "collection.properties"
_PARTITION = re.compile(r"(^|/)Norder=(\d+)/(Dir=\d+/)?Npix=(\d+)(\.\w+$|/)")
_VOTABLE = b"IVOA.VOTable-Parquet.content"
_YAML = b"table_meta_yaml"


@contextmanager
def open_parquet_table(url: str) -> Iterator[list[RawTable]]:
    """The one table of a file, a folder or a HATS catalogue.

    Raises:
        InputError: a folder without Parquet files, or a HATS catalogue that is none of objects or lacks a partition.
        FileNotFoundError: nothing is there.
    """
    if storage.path_of(url).endswith(SUFFIXES) and not _is_folder(url):
        yield [_table([url])]
        return
    collection = _read_properties(url, (_COLLECTION,))
    if primary := collection.get("hats_primary_table_url"):
        url = primary if "://" in primary else storage.join(url, primary)
    properties = _read_properties(url, _PROPERTIES)
    if properties:
        yield [_hats(url, properties)]
    elif files := folder_files(url):
        yield [_table(files)]
    else:
        yield [_table([url])]


@contextmanager
def open_parquet_files(files: Sequence[str]) -> Iterator[list[RawTable]]:
    """One table of the rows of several files."""
    yield [_table(files)]


def _is_folder(url: str) -> bool:
    return storage.is_local(url) and storage.local_path(url).expanduser().is_dir()


def folder_files(url: str) -> list[str]:
    """Parquet files below a folder, sorted; of partitions HATS lays out only those; hidden ones are left out.

    Raises:
        InputError: a local folder without such files.
    """
    if storage.is_web(url) or (storage.is_local(url) and not _is_folder(url)):
        return []
    place = _plain(url)
    names = [name for name in storage.list_files(place) if name.endswith(SUFFIXES)]
    names = [name for name in names if not any(part.startswith(("_", ".")) for part in name.split("/"))]
    if partitions := [name for name in names if _PARTITION.search(name)]:
        names = sorted(partitions, key=_partition)
    if not names and storage.is_local(url):
        raise InputError(f"the folder {storage.redact(url)} has no Parquet file (.parquet) in it: give one that has")
    return [storage.join(place, name) for name in names]


def _partition(name: str) -> tuple[int, int, str]:
    found = _PARTITION.search(name)
    assert found is not None
    return int(found[2]), int(found[4]), name


def _read_properties(folder: str, names: Sequence[str]) -> dict[str, str]:
    """Keys and values of the first of these files that is there; none where none is."""
    if storage.is_local(folder) and not _is_folder(folder):
        return {}
    for name in names:
        try:
            text = storage.read_bytes(storage.join(folder, name)).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            continue
        pairs = (one.partition("=") for one in text.splitlines() if "=" in one and not one.lstrip().startswith("#"))
        return {key.strip(): value.strip() for key, _, value in pairs}
    return {}


def _hats(url: str, properties: dict[str, str]) -> RawTable:
    place, kind = storage.redact(url), properties.get("dataproduct_type", "object")
    if kind not in ("object", "source", "nested"):
        raise InputError(
            f"the HATS catalogue {place} is of type '{kind}', which lists no objects: give the catalogue it belongs to"
        )
    rows = properties.get("hats_nrows", "")
    files = _partitions(url, properties)
    table = _table(files, int(rows) if rows.isdigit() else None, place)
    given = {"ra": properties.get("hats_col_ra", ""), "dec": properties.get("hats_col_dec", "")}
    hints = {ours: theirs for ours, theirs in given.items() if theirs in table.names}
    return RawTable(table.names, table.chunks, table.units, table.kinds, hints=hints)


def _partitions(url: str, properties: dict[str, str]) -> list[str]:
    """Files of all partitions; those that the catalogue's list names must be there."""
    names = [] if storage.is_web(url) else [n for n in storage.list_files(_plain(url)) if _PARTITION.search(n)]
    there = {_partition(name)[:2] for name in names}
    try:
        listed = storage.read_bytes(storage.join(url, "partition_info.csv")).decode()
        rows = [(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(io.StringIO(listed))]
    except (FileNotFoundError, KeyError, ValueError):
        rows = sorted(there)
    if storage.is_web(url):
        suffix = properties.get("hats_npix_suffix", ".parquet")
        if suffix == "/":
            raise InputError(f"the HATS catalogue {storage.redact(url)} has folders as partitions: copy it to a disk")
        names = [f"dataset/Norder={o}/Dir={p // 10000 * 10000}/Npix={p}{suffix}" for o, p in rows]
        there = set(rows)
    if lacking := sorted(set(rows) - there):
        order, pixel = lacking[0]
        raise InputError(
            f"the HATS catalogue {storage.redact(url)} lacks {len(lacking)} of its {len(rows)} partitions, the first "
            f"is Norder={order}, Npix={pixel}: copy it anew"
        )
    if not names:
        raise InputError(f"the HATS catalogue {storage.redact(url)} has no partitions: copy it anew")
    return [storage.join(_plain(url), name) for name in sorted(names, key=_partition)]


def _plain(url: str) -> str:
    return str(storage.local_path(url).expanduser()) if storage.is_local(url) else url


def _table(files: Sequence[str], rows_told: int | None = None, place: str = "") -> RawTable:
    """One list of the rows of several files of equal columns."""
    with open_parquet(files[0]) as file:
        schema = file.schema_arrow
    units, _ = _units(schema)

    def chunks(columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        count = 0
        for url in files:
            with open_parquet(url) as file:
                _check_alike(file, url, files[0], columns, units)
                for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
                    count += batch.num_rows
                    yield pa.Table.from_batches([batch])
        if rows_told is not None and count != rows_told:
            raise InputError(f"the HATS catalogue {place} says it has {rows_told} rows and has {count}: copy it anew")

    return described(schema, chunks)


def described(schema: pa.Schema, chunks: Callable[[Sequence[str], int], Iterator[pa.Table]]) -> RawTable:
    """A table of a schema, with the units and the places on the sky that its metadata tell.

    Args:
        schema: of all columns.
        chunks: see `RawTable`.
    """
    units, doubt = _units(schema)
    kinds = {one.name: kind for one in schema if (kind := _kind(one.type))}
    return RawTable(tuple(schema.names), chunks, units, kinds, hints=_hints(schema), doubt=doubt)


def _check_alike(file: pq.ParquetFile, url: str, first: str, columns: Sequence[str], units: dict[str, str]) -> None:
    if url == first:
        return
    schema, place = file.schema_arrow, storage.redact(url)
    own, _ = _units(schema)
    for name in columns:
        if name not in schema.names:
            raise InputError(f"{place} has no column {name} and {storage.redact(first)} has: give tables of one kind")
        here, there = own.get(name), units.get(name)
        if here != there:
            raise InputError(
                f"column {name} of {place} has the unit {here}, that of {storage.redact(first)} {there}: "
                "give tables with the same units"
            )


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return BYTES
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "" if is_text(kind) or number or pa.types.is_null(kind) else ARRAY


def _units(schema: pa.Schema) -> tuple[dict[str, str], str]:
    """Units by the fields' own metadata, else by astropy's, else by a VOTable header (VOParquet); and in words, which
    of these cannot be read."""
    metadata = schema.metadata or {}
    units: dict[str, str] = {}
    doubts = []
    for key, reader in ((_VOTABLE, _units_of_votable), (_YAML, _units_of_yaml)):
        if key in metadata:
            try:
                units |= reader(metadata[key])
            except Exception as error:  # noqa: BLE001  metadata of someone else's making: told where a unit is lacking
                doubts.append(f"{key.decode()}: {foreign.in_words(error)}")
    own = {f.name: f.metadata[b"unit"].decode() for f in schema if f.metadata and b"unit" in f.metadata}
    return units | own, "; ".join(doubts)


def _units_of_votable(header: bytes) -> dict[str, str]:
    heads = read_heads(io.BytesIO(header))
    return dict(heads[0].units) if heads else {}


def _hints(schema: pa.Schema) -> dict[str, str]:
    """The columns of a SkyCoord by astropy's metadata; none where it cannot be read."""
    text = (schema.metadata or {}).get(_YAML, b"")
    if b"SkyCoord" not in text:
        return {}
    try:
        return hints_of(table_meta.get_header_from_yaml(text.decode().split("\n")), schema.names)
    except Exception:  # noqa: BLE001  metadata of someone else's making: columns go by their names then
        return {}


def _units_of_yaml(text: bytes) -> dict[str, str]:
    header = table_meta.get_header_from_yaml(text.decode().split("\n"))
    return {str(one["name"]): str(one["unit"]) for one in header["datatype"] if one.get("unit")}
