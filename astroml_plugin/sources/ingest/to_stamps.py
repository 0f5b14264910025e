"""Ingest of postage stamps: .npz archives, and folders of JPEG, PNG or FITS with a table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.compute.cluster import run_window
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.sources.ingest.npz import NpzArray, decoded, open_npz
from astroml_plugin.sources.ingest.pictures import read_picture
from astroml_plugin.sources.ingest.plans import file_identity
from astroml_plugin.sources.ingest.result import IngestResult, Progress, as_client
from astroml_plugin.sources.stamps import Stamps, block_name

_PARTS = ("images", "psf", "variance", "bands", "pixel_scale")
_KNOWN = (*_PARTS, "object_id", "ra", "dec")
_INT64 = np.iinfo(np.int64)


def parse_ids(values: Any, where: str) -> np.ndarray:
    """Ids of any kind -> int64, kept exactly; duplicates stay.

    Raises:
        InputError: text that is no whole number, or a number beyond int64.
    """
    given = (
        values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array | pa.ChunkedArray) else np.asarray(values)
    )
    if given.dtype.kind == "i":
        return given.astype(np.int64)
    try:
        ids = [_parse_id(value) for value in given.tolist()]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{where}: ids must be whole numbers within 64 bits ({error}): number the objects anew"
        ) from error
    return np.array(ids, np.int64)


def _parse_id(value: Any) -> int:
    if isinstance(value, bytes):
        value = value.decode("ascii")
    if isinstance(value, float) and (not value.is_integer() or abs(value) > 2**53):
        raise ValueError(f"{value!r} is no exact whole number")
    number = int(value.strip()) if isinstance(value, str) else int(value)
    if not _INT64.min <= number <= _INT64.max:
        raise ValueError(f"{value!r} is beyond int64")
    return number


# --- one .npz archive -------------------------------------------------------------------------------------------------


def ingest_npz(
    url: str,
    *,
    out: str,
    bands: Sequence[str] | None,
    npz_map: Mapping[str, str],
    layout: str | None,
    block: int | None = None,
    pixel_scale: float | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Add the stamps of an .npz archive, streamed block by block: memory does not grow with the archive."""
    start = time.monotonic()
    url = storage.absolute(url)
    settings = {"npz_map": dict(npz_map), "layout": layout, "bands": list(bands) if bands else None}
    identity = storage.digest([file_identity(url)], settings)[:16]
    stamps = _existing(out)
    record = None if stamps is None else _record(stamps, identity)
    if stamps is not None and record is not None and not _missing_blocks(stamps, record):
        return IngestResult(stamps.url, stamps.kind, 0, record["blocks"], 0, 0, time.monotonic() - start)
    with open_npz(url) as archive:
        content = _Content.of(url, archive, npz_map, layout, bands, pixel_scale)
        stamps = stamps or content.create(out, block)
        content.refuse_other(stamps)
        if record is None:
            _refuse_again(stamps, url)
            record = _reserve(stamps, identity, url, content.count)
        return _stream(stamps, content, record, progress, start)


@dataclass(frozen=True)
class _Content:
    """The arrays of one archive by their part."""

    url: str
    images: NpzArray
    layout: str
    """Letters n, y, x and perhaps c: the axes of `images`."""
    variance: NpzArray | None
    psf: NpzArray | None
    bands: tuple[str, ...]
    pixel_scale: float | None
    columns: dict[str, NpzArray]
    """Per-object arrays: ids, positions, labels."""
    left_out: tuple[str, ...] = ()
    """What is none of these, with its shape."""

    @property
    def count(self) -> int:
        """Number of stamps."""
        return self.images.shape[0]

    @classmethod
    def of(
        cls,
        url: str,
        archive: Mapping[str, NpzArray],
        npz_map: Mapping[str, str],
        layout: str | None,
        bands: Sequence[str] | None,
        pixel_scale: float | None,
    ) -> _Content:
        """Sort the arrays of an archive; InputError when images are missing or have another layout."""
        shown = storage.redact(url)
        renamed = {source: part for part, source in npz_map.items()}
        if missing := [name for name in renamed if name not in archive]:
            raise InputError(f"{shown} has no array {', '.join(missing)}; it has {', '.join(archive)}")
        parts = {renamed.get(name, name): array for name, array in archive.items()}
        if "images" not in parts:
            raise InputError(
                f"{shown} has no array 'images' but {', '.join(archive)}: map one with --npz-map images=NAME"
            )
        images = parts["images"]
        layout = layout or {3: "nyx", 4: "ncyx"}.get(len(images.shape), "")
        if (
            sorted(layout) not in (sorted("nyx"), sorted("ncyx"))
            or layout[0] != "n"
            or len(layout) != len(images.shape)
        ):
            raise InputError(
                f"{shown}: images of shape {images.shape} do not have the layout {layout!r}: give --layout with one "
                "letter per axis out of n (first), c, y, x, for example nyxc"
            )
        count = images.shape[0]
        columns = {
            name: array
            for name, array in parts.items()
            if (name not in _KNOWN or name in ("object_id", "ra", "dec")) and array.shape[:1] == (count,)
        }
        scale = parts["pixel_scale"].read() if "pixel_scale" in parts and pixel_scale is None else pixel_scale
        return cls(
            url=url,
            images=images,
            layout=layout,
            variance=parts.get("variance"),
            psf=parts.get("psf"),
            bands=_band_names(url, parts, images.shape[layout.index("c")] if "c" in layout else 1, bands),
            pixel_scale=None if scale is None else float(np.ravel(scale)[0]),
            columns={name: array for name, array in columns.items() if len(array.shape) <= 2},
            left_out=tuple(
                f"{name} {array.shape}"
                for name, array in parts.items()
                if name not in _PARTS and (name not in columns or len(array.shape) > 2)
            ),
        )

    def create(self, out: str, block: int | None) -> Stamps:
        """A store for these stamps."""
        height, width = (self.images.shape[self.layout.index(axis)] for axis in "yx")
        return Stamps.create(
            out,
            bands=self.bands,
            size=(height, width),
            dtype="uint8" if self.images.dtype in (np.uint8, np.bool_) else "float32",
            block=block,
            pixel_scale=self.pixel_scale,
            psf_size=None if self.psf is None else (self.psf.shape[-2], self.psf.shape[-1]),
            variance=self.variance is not None,
        )

    def refuse_other(self, stamps: Stamps) -> None:
        """InputError when the store at hand holds stamps of another kind."""
        size = tuple(self.images.shape[self.layout.index(axis)] for axis in "yx")
        mine = (self.bands, size, self.variance is not None, self.psf is not None)
        theirs = (stamps.bands, stamps.size, stamps.has_variance, stamps.has_psf)
        for name, a, b in zip(("bands", "size", "variance", "psf"), mine, theirs, strict=True):
            if a != b:
                raise InputError(
                    f"{storage.redact(stamps.url)} has {name} {b}, {storage.redact(self.url)} {a}: use a new output"
                )

    def cut(self, values: np.ndarray) -> np.ndarray:
        """(n, ...) in the archive's layout -> (n, band, y, x)."""
        ordered = values.transpose([self.layout.index(axis) for axis in "ncyx" if axis in self.layout])
        return ordered if "c" in self.layout else ordered[:, None]

    def cut_psf(self, values: np.ndarray) -> np.ndarray:
        """PSFs (n, y, x) or (n, band, y, x) -> (n, band, y, x) float32."""
        values = values.astype(np.float32, copy=False)
        return values if values.ndim == 4 else np.repeat(values[:, None], len(self.bands), axis=1)


def _band_names(url: str, parts: Mapping[str, NpzArray], count: int, bands: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(bands) if bands else None
    if names is None and "bands" in parts:
        names = tuple(str(name) for name in decoded(np.atleast_1d(parts["bands"].read())).tolist())
    names = names or tuple(f"c{number:03d}" for number in range(count))
    if len(names) != count:
        raise InputError(f"{storage.redact(url)} has {count} bands, {len(names)} names are given ({','.join(names)})")
    return names


def _stream(
    stamps: Stamps, content: _Content, record: Mapping[str, Any], progress: Progress | None, start: float
) -> IngestResult:
    """Read every array block by block, in step, and write the blocks that are missing."""
    missing, rows, size = _missing_blocks(stamps, record), 0, 0
    readers = {"images": content.images, "variance": content.variance, "psf": content.psf, **content.columns}
    with contextlib.ExitStack() as stack:
        blocks = {name: stack.enter_context(array.blocks(stamps.block)) for name, array in readers.items() if array}
        for number in range(record["blocks"]):
            index = record["first_block"] + number
            if index not in missing:
                for reader in blocks.values():
                    reader.skip()
                continue
            values = {name: reader.read() for name, reader in blocks.items()}
            rows, size = rows + len(values["images"]), size + values["images"].nbytes
            _write_block(stamps, content, index, number * stamps.block, values)
            if progress is not None:
                progress("ingest", number + 1, record["blocks"])
    done = len(missing)
    seconds = time.monotonic() - start
    skipped = record["blocks"] - done
    return IngestResult(stamps.url, stamps.kind, done, skipped, rows, size, seconds, left_out=content.left_out)


def _write_block(stamps: Stamps, content: _Content, index: int, first: int, values: dict[str, np.ndarray]) -> None:
    image = content.cut(values.pop("images"))
    variance, psf = values.pop("variance", None), values.pop("psf", None)
    table: dict[str, Any] = {}
    ids = values.pop("object_id", None)
    table["object_id"] = (
        np.arange(first, first + len(image)) if ids is None else parse_ids(ids, storage.redact(content.url))
    )
    table |= dict(_as_columns(values))
    try:
        checksum = stamps.write_block(
            index,
            image.astype(stamps.dtype, copy=False),
            None if variance is None else content.cut(variance).astype(np.float32, copy=False),
            None if psf is None else content.cut_psf(psf),
        )
        stamps.commit_objects(index, pa.table(table), checksum)
    except OSError as error:
        raise InputError(f"{storage.redact(stamps.url)} cannot be written: {storage.redact(str(error))}") from error


def _as_columns(values: Mapping[str, np.ndarray]) -> Iterator[tuple[str, pa.Array]]:
    """Arrow columns of label arrays: text decoded, (n, k) as lists, structured fields apart."""
    for name, column in values.items():
        if column.dtype.names:
            yield from _as_columns({f"{name}_{part}": column[part] for part in column.dtype.names})
        elif column.ndim == 2:
            flat = np.ascontiguousarray(column).reshape(-1)
            yield name, pa.FixedSizeListArray.from_arrays(pa.array(decoded(flat)), column.shape[1])
        else:
            yield name, pa.array(decoded(column))


# --- what is stored already -------------------------------------------------------------------------------------------


def _existing(out: str) -> Stamps | None:
    return Stamps.open(out) if storage.exists(storage.join(storage.absolute(out), "zarr.json")) else None


def _record_url(stamps: Stamps, identity: str) -> str:
    return storage.join(stamps.url, "sources", f"{identity}.json")


def _record(stamps: Stamps, identity: str) -> dict[str, Any] | None:
    url = _record_url(stamps, identity)
    return storage.read_json(url) if storage.exists(url) else None


def _refuse_again(stamps: Stamps, url: str) -> None:
    """InputError where an archive of this name was brought in before: its stamps would stand there twice."""
    sources = storage.join(stamps.url, "sources")
    for name in storage.list_files(sources, ".json"):
        if storage.read_json(storage.join(sources, name))["url"] == storage.redact(url):
            raise InputError(
                f"{storage.redact(url)} is already in {storage.redact(stamps.url)}, and has changed since or is read "
                "with other options: use a new output, or another name if these are other objects"
            )


def _reserve(stamps: Stamps, identity: str, url: str, count: int) -> dict[str, Any]:
    """Make room for `count` stamps and write down where, so that a rerun goes on in the same blocks."""
    if count < 1:
        raise InputError(f"{storage.redact(url)} holds no stamps")
    blocks = -(-count // stamps.block)
    record = {"url": storage.redact(url), "first_block": stamps.reserve(blocks), "blocks": blocks, "count": count}
    storage.write_json(_record_url(stamps, identity), record)
    return record


def _missing_blocks(stamps: Stamps, record: Mapping[str, Any]) -> set[int]:
    stored = {unit.index for unit in stamps.units()}
    return set(range(record["first_block"], record["first_block"] + record["blocks"])) - stored


# --- a folder of pictures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PictureTask:
    """One block of picture files."""

    stamps: str
    index: int
    files: tuple[str, ...]
    objects: pa.Table = field(repr=False)


def ingest_pictures(
    folder: str,
    table_url: str,
    *,
    out: str,
    bands: Sequence[str] | None,
    block: int | None = None,
    pixel_scale: float | None = None,
    client: Any = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Add stamps named by a CSV or Parquet table with id_str and file_loc (relative to `folder`) and label columns."""
    start = time.monotonic()
    table_url, folder = storage.absolute(table_url), storage.absolute(folder)
    identity = storage.digest([file_identity(table_url), storage.redact(folder)], list(bands or ()))[:16]
    stamps = _existing(out)
    record = None if stamps is None else _record(stamps, identity)
    if stamps is not None and record is not None and not _missing_blocks(stamps, record):
        return IngestResult(stamps.url, stamps.kind, 0, record["blocks"], 0, 0, time.monotonic() - start)
    objects, files = _picture_table(table_url, folder)
    stamps = stamps or _create_for(read_picture(files[0]), out, bands, block, pixel_scale)
    record = record or _reserve(stamps, identity, table_url, len(files))
    missing = _missing_blocks(stamps, record)
    tasks = _picture_tasks(stamps, record, missing, files, objects)
    done = rows = size = 0
    failed: list[tuple[str, str]] = []
    with as_client(client) as opened:
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
    skipped = record["blocks"] - len(missing)
    return IngestResult(stamps.url, stamps.kind, done, skipped, rows, size, seconds, tuple(failed))


def _picture_tasks(
    stamps: Stamps, record: Mapping[str, Any], missing: set[int], files: Sequence[str], objects: pa.Table
) -> Iterator[_PictureTask]:
    for index in sorted(missing):
        first = (index - record["first_block"]) * stamps.block
        chosen = tuple(files[first : first + stamps.block])
        yield _PictureTask(stamps.url, index, chosen, objects.slice(first, len(chosen)))


def _create_for(
    picture: np.ndarray, out: str, bands: Sequence[str] | None, block: int | None, pixel_scale: float | None
) -> Stamps:
    count = len(picture)
    default = ("red", "green", "blue") if count == 3 else tuple(f"c{number:03d}" for number in range(count))
    names = tuple(bands) if bands else default
    if len(names) != count:
        raise InputError(f"the pictures have {count} bands, {len(names)} names are given ({','.join(names)})")
    size = (picture.shape[1], picture.shape[2])
    return Stamps.create(out, bands=names, size=size, dtype=picture.dtype.name, block=block, pixel_scale=pixel_scale)


def _picture_table(url: str, folder: str) -> tuple[pa.Table, list[str]]:
    """(objects with object_id and labels, picture files) of a CSV or Parquet table."""
    from pyarrow import csv

    shown = storage.redact(url)
    try:
        if url.lower().endswith((".parquet", ".pq")):
            table = storage.read_table(url)
        else:
            types = csv.ConvertOptions(column_types={"id_str": pa.string(), "file_loc": pa.string()})
            table = csv.read_csv(pa.BufferReader(storage.read_bytes(url)), convert_options=types)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{shown} is no readable CSV or Parquet table: {' '.join(str(error).split())}") from error
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
