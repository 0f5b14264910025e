"""Ingest of folders of JPEG, PNG or FITS pictures with a table into Stamps."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError
from pyarrow import csv

from astroml_plugin.compute.cluster import client_of, run_window
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.typing import Array
from astroml_plugin.sources.ingest.fields import file_identity
from astroml_plugin.sources.ingest.fits import read_image
from astroml_plugin.sources.ingest.npz import parse_ids
from astroml_plugin.sources.ingest.opening import SUFFIX
from astroml_plugin.sources.ingest.options import IngestOptions
from astroml_plugin.sources.ingest.records import SourceRecord, existing, recorded, reserve
from astroml_plugin.sources.ingest.result import IngestResult, Progress
from astroml_plugin.sources.stamps import StampLayout, Stamps, block_name


@dataclass(frozen=True)
class _PictureTask:
    """One block of picture files."""

    stamps: str
    index: int
    files: tuple[str, ...]
    objects: pa.Table = field(repr=False)


def ingest_pictures(
    folder: str, out: str, options: IngestOptions, client: Any = None, progress: Progress | None = None
) -> IngestResult:
    """Add the pictures that `options.table` names by file_loc, relative to `folder`, with its id_str and labels."""
    start = time.monotonic()
    assert options.table is not None
    table_url, folder = storage.absolute(options.table), storage.absolute(folder)
    unit = [list(options.zero_point)] if options.zero_point else []
    identity = storage.digest([file_identity(table_url), storage.redact(folder)], list(options.bands or ()), *unit)[:16]
    stamps = existing(out, options.codec)
    record = recorded(stamps, identity)
    if stamps is not None and record is not None and not record.missing(stamps):
        return IngestResult(stamps.url, stamps.kind, 0, record.blocks, 0, 0, time.monotonic() - start)
    objects, files = _picture_table(table_url, folder)
    stamps = _create_for(read_picture(files[0]), out, options) if stamps is None else stamps
    if (zero_points := options.zero_points(stamps.bands) or (None,) * len(stamps.bands)) != stamps.zero_points:
        raise InputError(
            f"{storage.redact(stamps.url)} has zero points {stamps.zero_points}, these pictures {zero_points}: use a "
            f"new output"
        )
    record = record or reserve(stamps, identity, table_url, len(files))
    missing = record.missing(stamps)
    tasks = _picture_tasks(stamps, record, missing, files, objects)
    done = rows = size = 0
    failed: list[tuple[str, str]] = []
    with client_of(client) as opened:
        for outcome in run_window(opened, write_pictures, tasks):
            if isinstance(outcome.error, OSError) or (outcome.error and not isinstance(outcome.error, AstromlError)):
                raise InputError(f"{storage.redact(stamps.url)} cannot be written: {outcome.error}") from outcome.error
            if outcome.error is not None:
                failed.append((block_name(outcome.item.index), str(outcome.error)))
            else:
                done, rows, size = done + 1, rows + len(outcome.item.files), size + outcome.value
            if progress is not None:
                progress("ingest", done + len(failed), len(missing))
    seconds = time.monotonic() - start
    skipped = record.blocks - len(missing)
    return IngestResult(stamps.url, stamps.kind, done, skipped, rows, size, seconds, tuple(failed))


def _picture_tasks(
    stamps: Stamps, record: SourceRecord, missing: set[int], files: Sequence[str], objects: pa.Table
) -> Iterator[_PictureTask]:
    for index in sorted(missing):
        first = (index - record.first_block) * stamps.block
        chosen = tuple(files[first : first + stamps.block])
        yield _PictureTask(stamps.url, index, chosen, objects.slice(first, len(chosen)))


def _create_for(picture: Array, out: str, options: IngestOptions) -> Stamps:
    count = len(picture)
    default = ("red", "green", "blue") if count == 3 else tuple(f"c{number:03d}" for number in range(count))
    names = options.bands or default
    if len(names) != count:
        raise InputError(f"the pictures have {count} bands, {len(names)} names are given ({','.join(names)})")
    layout = StampLayout(
        bands=names,
        size=(picture.shape[1], picture.shape[2]),
        dtype=picture.dtype.name,
        block=options.block,
        codec=options.codec_of_new,
        pixel_scale=options.checked_scale(),
        zero_points=options.zero_points(names),
    )
    return Stamps.create(out, layout)


def _picture_table(url: str, folder: str) -> tuple[pa.Table, list[str]]:
    """(objects with object_id and labels, picture files) of a CSV or Parquet table."""
    shown = storage.redact(url)
    try:
        if storage.path_of(url).lower().endswith((".parquet", ".pq")):
            table = storage.read_table(url)
        else:
            types = csv.ConvertOptions(column_types={"id_str": pa.string(), "file_loc": pa.string()})
            table = csv.read_csv(pa.BufferReader(storage.read_bytes(url)), convert_options=types)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{shown} is no readable CSV or Parquet table: {' '.join(str(error).split())}") from error
    if len({*table.column_names}) < table.num_columns:
        twice = max(table.column_names, key=table.column_names.count)
        raise InputError(f"{shown} has two columns named {twice}: rename one of them")
    identifier = next((name for name in ("id_str", "object_id", "id") if name in table.column_names), None)
    if identifier is None or "file_loc" not in table.column_names:
        raise InputError(f"{shown} needs the columns id_str and file_loc; it has {', '.join(table.column_names)}")
    if not len(table):
        raise InputError(f"{shown} has no rows")
    ids = parse_ids(table[identifier], shown)
    files = [_located(folder, name) for name in table["file_loc"].to_pylist()]
    labels = table.drop_columns([identifier, "file_loc"])
    return labels.add_column(0, "object_id", pa.array(ids)), files


def _located(folder: str, name: str) -> str:
    absolute = "://" in name or name.startswith("/")
    return name if absolute else storage.join(folder, name)


def write_pictures(task: _PictureTask) -> int:
    """Read one block's pictures and write it; gives its decoded bytes.

    Raises:
        InputError: a file is missing, unreadable, or of another size.
    """
    stamps = Stamps.open(task.stamps)
    shape = (len(stamps.bands), *stamps.size)
    image = np.empty((len(task.files), *shape), stamps.dtype)
    for number, url in enumerate(task.files):
        picture = read_picture(url)
        if picture.shape != shape:
            raise InputError(
                f"{storage.redact(url)} has (band, y, x) {picture.shape}, the others {shape}: bring all to one size"
            )
        image[number] = picture
    stamps.commit_objects(task.index, task.objects, stamps.write_block(task.index, image))
    return image.nbytes


def read_picture(url: str) -> np.ndarray:
    """A JPEG, PNG or FITS stamp as (band, y, x): uint8 for 8-bit pictures (transparency dropped), else float32.

    Raises:
        InputError: not there, or no picture.
    """
    if SUFFIX.search(url):
        return read_image(url)  # any FITS image or cube as (band, y, x) float32
    shown = storage.redact(url)
    try:
        with Image.open(io.BytesIO(storage.read_bytes(url))) as picture:
            values = np.asarray(_plain(picture))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{shown} does not exist: check file_loc and the folder") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{shown} is no readable picture: {' '.join(str(error).split())}") from error
    values = values if values.dtype == np.uint8 else values.astype(np.float32)
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _plain(picture: Image.Image) -> Image.Image:
    """Grey or RGB; palettes, CMYK and transparency resolved."""
    if picture.mode in ("L", "RGB", "F", "I") or picture.mode.startswith("I;"):
        return picture
    return picture.convert("L" if picture.mode in ("1", "LA") else "RGB")
