"""One part: a unit's rows as Parquet bytes, and what its name and footer say about them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from astroml_plugin.catalog.export.headers import reader_metadata, text_lengths
from astroml_plugin.catalog.schema import HEALPIX, verify
from astroml_plugin.core import foreign, formats, storage, web
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sky.wcs import healpix29, separation

PARTS = "parts"
COMPACT = "parts/compact"
"""Folder of merged parts."""

ROW_GROUP = 32_768
"""Rows per row group: the grain at which a cone skips what it does not need."""

_FORBIDDEN = frozenset("/\\\0\n\r?#*")
_LONGEST = 180
SORT_COLUMNS = (HEALPIX, "object_id", "image", "x", "y")
"""Order of the rows in every part; nulls come last."""


_ALL_DIFFERENT = (HEALPIX, "object_id")


@dataclass(frozen=True)
class PartInfo:
    """One unit's rows in one file: a row of the manifest."""

    path: str
    """File, relative to the catalog."""
    unit: str
    """Unit whose rows these are."""
    digest: str
    """Hex digest of all that decides the rows."""
    rows: int
    """Rows of the unit."""
    bytes: int
    """Size of the file (of a merged file: the unit's share)."""
    healpix_min: int | None
    """Smallest `_healpix_29`, None when no row has a sky position."""
    healpix_max: int | None
    """Largest `_healpix_29`."""
    nulls: int
    """Rows without a sky position."""
    ra: float | None
    """Centre of a circle around the positions, degrees; None when no row has one."""
    dec: float | None
    """Centre of the circle."""
    radius: float | None
    """Radius of the circle in degrees: a HEALPix range alone is wide where it crosses the borders of large cells."""


@dataclass(frozen=True)
class MergedFile:
    """Contents of a compacted file, from its footer."""

    path: str
    """File, relative to the catalog."""
    members: tuple[PartInfo, ...]
    """The units inside; `path` of each is this file."""
    replaces: tuple[str, ...]
    """Files that this one takes the place of."""


def part_path(unit: str, digest: str) -> str:
    """parts/<xxx>/<unit>-<digest>.parquet; InputError for a unit name that is no file name."""
    if not unit or unit.startswith(".") or _FORBIDDEN & set(unit) or len(unit.encode()) > _LONGEST:
        raise InputError(
            f"unit name {unit[:60]!r} cannot be a file name: it needs no path separators, no leading dot, "
            f"and at most {_LONGEST} bytes"
        )
    return f"{PARTS}/{hashlib.sha256(unit.encode()).hexdigest()[:3]}/{unit}-{digest}.parquet"


def parse_path(path: str) -> tuple[str, str] | None:
    """(unit, digest) of a part's relative path; None for any other file."""
    folders = path.split("/")
    if len(folders) != 3 or folders[0] != PARTS or folders[1] == "compact" or not path.endswith(".parquet"):
        return None
    unit, dash, digest = folders[2].removesuffix(".parquet").rpartition("-")
    return (unit, digest) if dash and unit and digest else None


def is_merged(path: str) -> bool:
    """Whether a relative path names a compacted file."""
    return path.startswith(COMPACT + "/") and path.endswith(".parquet")


def with_healpix(table: pa.Table) -> pa.Table:
    """`table` with the `_healpix_29` column computed from ra, dec where it is absent (null without a position)."""
    if HEALPIX in table.column_names:
        return table
    ra, dec = (_degrees(table[name]) for name in ("ra", "dec"))
    index = healpix29(ra, dec)
    return table.append_column(HEALPIX, pa.array(index, pa.int64(), mask=index < 0))


def _degrees(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy())


def encode_part(
    declared: pa.Schema, table: pa.Table, unit: str, digest: str, told: Mapping[str, str] | None = None
) -> tuple[PartInfo, bytes]:
    """The sorted, verified rows of one unit as Parquet bytes, and their manifest row.

    Args:
        declared: the catalog's schema.
        table: the rows, in any order.
        unit, digest: as in `PartInfo`.
        told: more key-value metadata for the footer.

    Raises:
        ValueError: the table is not what the schema declares; the column is named.
    """
    checked = verify(with_healpix(table), declared)
    ordered = checked.take(
        pc.sort_indices(checked, sort_keys=[(name, "ascending") for name in SORT_COLUMNS])
    ).combine_chunks()
    low, high, nulls = healpix_range(ordered[HEALPIX])
    ra, dec, radius = circle(_degrees(ordered["ra"]), _degrees(ordered["dec"]))
    footer = {
        **{"unit": unit, "digest": digest, "rows": ordered.num_rows, "healpix_min": low, "healpix_max": high},
        **{"nulls": nulls, "ra": ra, "dec": dec, "radius": radius},
    }
    metadata = {**reader_metadata(declared, text_lengths(ordered)), formats.PART: json.dumps(footer), **(told or {})}
    described = with_metadata(ordered.schema, metadata)
    sink = io.BytesIO()
    with parquet_writer(sink, described) as writer:
        writer.write_table(ordered.cast(described), row_group_size=ROW_GROUP)
    data = sink.getvalue()
    return PartInfo(path=part_path(unit, digest), bytes=len(data), **footer), data


def parquet_writer(target: Any, described: pa.Schema) -> pq.ParquetWriter:
    """A writer of rows as all parts have them: zstd, a checksum in each page, and no list of values where each differs.

    Args:
        target: file or path.
        described: schema of the rows.
    """
    repeated = [
        field.name
        for field in described
        if field.name not in _ALL_DIFFERENT and not pa.types.is_floating(_element(field.type))
    ]
    return pq.ParquetWriter(target, described, compression="zstd", write_page_checksum=True, use_dictionary=repeated)


def _element(kind: pa.DataType) -> pa.DataType:
    """Type of the numbers of a vector; of other columns their own."""
    return kind.value_type if pa.types.is_fixed_size_list(kind) else kind


def with_metadata(schema: pa.Schema, metadata: dict[str, str]) -> pa.Schema:
    """`schema` with more metadata. (Key-values that are only in the Parquet footer are hidden from Arrow's readers.)"""
    own = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    return schema.with_metadata({**own, **metadata})


def circle(ra: np.ndarray, dec: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """(ra, dec, radius) in degrees of a circle that holds all finite positions; None without any."""
    finite = np.isfinite(ra) & np.isfinite(dec)
    if not finite.any():
        return None, None, None
    a, d = np.radians(ra[finite]), np.radians(dec[finite])
    x, y, z = (np.cos(d) * np.cos(a)).mean(), (np.cos(d) * np.sin(a)).mean(), np.sin(d).mean()
    ra0, dec0 = float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    return ra0, dec0, float(separation(ra[finite], dec[finite], ra0, dec0).max()) + 1e-9


def healpix_range(column: pa.ChunkedArray) -> tuple[int | None, int | None, int]:
    """(smallest, largest, nulls) of a `_healpix_29` column."""
    if column.null_count == len(column):
        return None, None, len(column)
    bounds = pc.min_max(column)
    return bounds["min"].as_py(), bounds["max"].as_py(), column.null_count


def open_parquet(url: str, *, check: bool = False) -> pq.ParquetFile:
    """A Parquet file for partial reading, local or remote; close it after use.

    Args:
        url: the file.
        check: compare pages with their checksums while they are read; reading one that differs raises an OSError.
    """
    if storage.is_local(url):
        return pq.ParquetFile(storage.local_path(url).expanduser(), page_checksum_verification=check)
    if storage.is_web(url):
        return pq.ParquetFile(web.open_file(url), page_checksum_verification=check)
    fs, path = storage.filesystem(url)
    return pq.ParquetFile(fs.open(path, "rb"), page_checksum_verification=check)


def key_values(catalog: str, path: str) -> tuple[dict[bytes, bytes], int]:
    """Key-value metadata and size in bytes of one file."""
    url = storage.join(catalog, path)
    remedy = "it is no whole Parquet file, delete it and run again"
    with foreign.refusing(path, remedy, CorruptError), open_parquet(url) as file:
        metadata = dict(file.metadata.metadata or {})
    return metadata, size_of(url)


def raw_footer(path: Path) -> bytes:
    """The footer of a local Parquet file as it is stored.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError: it is too short, or does not end as a Parquet file does.
    """
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        size, magic = struct.unpack("<I4s", file.read(8))
        if magic != b"PAR1":
            raise ValueError("it does not end as a Parquet file does")
        file.seek(-8 - size, os.SEEK_END)
        return file.read(size)


def told_by(footer: bytes, path: str) -> bool:
    """Whether the footer of a part names the very unit and digest that its relative path names."""
    named = parse_path(path)
    return named is not None and _opening(*named).encode() in footer


def _opening(unit: str, digest: str) -> str:
    """The beginning of a part's own record in its footer."""
    return json.dumps({"unit": unit, "digest": digest})[:-1]


def size_of(url: str) -> int:
    """Bytes of one file."""
    if storage.is_local(url):
        return storage.local_path(url).stat().st_size
    if storage.is_web(url):
        return storage.head(url)[0] or 0
    fs, path = storage.filesystem(url)
    return int(fs.size(path) or 0)


def read_part_info(catalog: str, path: str) -> PartInfo:
    """The manifest row of a part, from its footer."""
    metadata, size = key_values(catalog, path)
    if formats.PART.encode() not in metadata:
        raise CorruptError(f"{path} has no footer of this package: delete it and run again")
    with foreign.refusing(f"the footer of {path}", "delete it and run again", CorruptError):
        info = PartInfo(path=path, bytes=size, **json.loads(metadata[formats.PART.encode()]))
        pa.Table.from_pylist([{**asdict(info), "time": 0}], schema=MANIFEST_SCHEMA)  # values of other types raise
    return info


def merged_metadata(merged: MergedFile) -> dict[str, str]:
    """Key-value metadata that tell the units inside a merged file (compressed: there may be 10^5)."""
    rows = [[value for name, value in asdict(member).items() if name != "path"] for member in merged.members]
    packed = zlib.compress(json.dumps({"members": rows, "replaces": merged.replaces}).encode(), 6)
    return {formats.PART_MEMBERS: base64.b64encode(packed).decode()}


def read_merged(catalog: str, path: str) -> MergedFile:
    """Read the footer of a merged file."""
    metadata, _ = key_values(catalog, path)
    packed = metadata.get(formats.PART_MEMBERS.encode())
    if packed is None:
        raise CorruptError(f"{path} has no list of its units: it was not written by this package")
    with foreign.refusing(f"the list of units of {path}", "delete it and run infer again", CorruptError):
        value: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
        return MergedFile(path, tuple(PartInfo(path, *row) for row in value["members"]), tuple(value["replaces"]))


MANIFEST_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("unit", pa.string()),
        ("digest", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("healpix_min", pa.int64()),
        ("healpix_max", pa.int64()),
        ("nulls", pa.int64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("radius", pa.float64()),
        ("time", pa.int64()),
    ]
)
"""A manifest file: one row per unit and file, `time` in ns orders entries of one unit."""


def manifest_table(parts: Iterable[PartInfo], time_ns: int) -> pa.Table:
    """Manifest rows of `parts`, all of one moment."""
    infos = list(parts)
    columns = {field.name: [getattr(info, field.name) for info in infos] for field in fields(PartInfo)}
    return pa.table({**columns, "time": [time_ns] * len(infos)}, schema=MANIFEST_SCHEMA)
