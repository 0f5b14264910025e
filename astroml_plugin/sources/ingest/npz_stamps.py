"""Ingest of .npz archives into Stamps, block by block."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, Array
from astroml_plugin.pixels import NANOJANSKY, refuse_implausible
from astroml_plugin.sources.ingest.fields import file_identity
from astroml_plugin.sources.ingest.npz import NpzArray, decoded, open_npz, parse_ids
from astroml_plugin.sources.ingest.options import IngestOptions
from astroml_plugin.sources.ingest.pixels import as_float32
from astroml_plugin.sources.ingest.records import SourceRecord, existing, recorded, refuse_changed, reserve
from astroml_plugin.sources.ingest.result import IngestResult, Progress
from astroml_plugin.sources.stamps import StampLayout, Stamps

_SMALLEST_PSF, _LARGEST_PSF = 3, 1024
_PARTS = ("images", "psf", "variance", "mask_bits", "bands", "pixel_scale", "zero_point")
_PLACES = frozenset(("object_id", "ra", "dec"))
_LARGEST_STAMP, _LARGEST_LABEL = 2**28, 2**16
"""Bytes of one object's image, and of one of its labels, at most."""


def ingest_npz(url: str, out: str, options: IngestOptions, progress: Progress | None = None) -> IngestResult:
    """Add the stamps of an .npz archive, streamed block by block: memory does not grow with the archive."""
    start = time.monotonic()
    url = storage.absolute(url)
    bands = list(options.bands) if options.bands else None
    settings: dict[str, Any] = {"npz_map": dict(options.npz_map), "layout": options.layout, "bands": bands}
    settings |= {"zero_point": list(options.zero_point)} if options.zero_point else {}
    identity = storage.digest([file_identity(url)], settings)[:16]
    stamps = existing(out, options.codec)
    record = recorded(stamps, identity)
    if stamps is not None and record is not None and not record.missing(stamps):
        return IngestResult(stamps.url, stamps.kind, 0, record.blocks, 0, 0, time.monotonic() - start)
    with open_npz(url) as archive:
        content = _Content.of(url, archive, options)
        stamps = content.create(out, options) if stamps is None else stamps
        content.refuse_other(stamps)
        if record is None:
            refuse_changed(stamps, url)
            record = reserve(stamps, identity, url, content.count)
        return _stream(stamps, content, record, progress, start)


@dataclass(frozen=True)
class _Content:
    """Arrays of one archive, sorted by what they are."""

    url: str
    images: NpzArray
    layout: str
    """Letters n, y, x and perhaps c: the axes of `images`."""
    variance: NpzArray | None
    psf: NpzArray | None
    mask: NpzArray | None
    """Bits of `MaskBit`, of the images' shape."""
    bands: tuple[str, ...]
    pixel_scale: float | None
    zero_points: tuple[float, ...]
    """AB magnitude of one unit per band; empty where it is not known."""
    unit: NpzArray | None
    """Zero points (n,) or (n, band) where each stamp has its own: such stamps are stored in nJy."""
    columns: dict[str, NpzArray]
    """Per-object arrays: ids, positions, labels."""
    left_out: tuple[str, ...] = ()
    """Arrays that belong to none of these, with their shapes."""

    @property
    def count(self) -> int:
        """Number of stamps."""
        return self.images.shape[0]

    @classmethod
    def of(cls, url: str, archive: Mapping[str, NpzArray], options: IngestOptions) -> _Content:
        """Sort the arrays of an archive.

        Raises:
            InputError: images are missing or have another layout.
        """
        parts = _renamed(url, archive, options.npz_map)
        _refuse_wide(url, parts)
        images = parts["images"]
        layout = _checked_layout(url, images, options.layout)
        for name in ("images", "variance", "psf", "mask_bits"):
            if name in parts:
                _check_pixels(url, name, parts[name], images, layout)
        _refuse_odd_positions(url, parts)
        per_object = {
            name
            for name, array in parts.items()
            if name not in _PARTS and array.shape[:1] == images.shape[:1] and len(array.shape) <= 2
        }
        scale = options.checked_scale()
        if scale is None and "pixel_scale" in parts:
            scale = _one_number(parts["pixel_scale"])
        bands = _band_names(url, parts, images.shape[layout.index("c")] if "c" in layout else 1, options.bands)
        zero_points, unit = _zero_points(url, parts, bands, options)
        return cls(
            url=url,
            images=images,
            layout=layout,
            variance=parts.get("variance"),
            psf=parts.get("psf"),
            mask=parts.get("mask_bits"),
            bands=bands,
            pixel_scale=scale,
            zero_points=zero_points,
            unit=unit,
            columns={name: array for name, array in parts.items() if name in per_object},
            left_out=tuple(
                f"{name} {array.shape}"
                for name, array in parts.items()
                if name not in _PARTS and name not in per_object
            ),
        )

    def create(self, out: str, options: IngestOptions) -> Stamps:
        """A store for these stamps."""
        return Stamps.create(out, self._stamp_layout(), block=options.block, codec=options.codec_of_new)

    def _stamp_layout(self) -> StampLayout:
        height, width = (self.images.shape[self.layout.index(axis)] for axis in "yx")
        return StampLayout(
            bands=self.bands,
            size=(height, width),
            dtype="uint8" if self.images.dtype in (np.uint8, np.bool_) else "float32",
            pixel_scale=self.pixel_scale,
            zero_points=self.zero_points,
            psf_size=None if self.psf is None else (self.psf.shape[-2], self.psf.shape[-1]),
            variance=self.variance is not None,
            mask=self.mask is not None,
        )

    def refuse_other(self, stamps: Stamps) -> None:
        """InputError when the store at hand holds stamps of another kind."""
        if found := stamps.differs(self._stamp_layout()):
            name, held, mine = found
            raise InputError(
                f"{storage.redact(stamps.url)} has {name} {held}, {storage.redact(self.url)} {mine}: use a new output"
            )

    def cut(self, values: Array) -> Array:
        """(n, ...) in the archive's layout -> (n, band, y, x)."""
        ordered = values.transpose([self.layout.index(axis) for axis in "ncyx" if axis in self.layout])
        return ordered if "c" in self.layout else ordered[:, None]

    def in_nanojansky(self, image: Array, variance: Array | None, zero_points: Array) -> tuple[Array, Array | None]:
        """Image and variance (n, band, y, x) of stamps that have their own zero points (n,) or (n, band)."""
        each = np.asarray(zero_points, np.float64).reshape(len(image), -1, 1, 1)
        factor = 10 ** (0.4 * (NANOJANSKY - each))
        return image * factor, None if variance is None else variance * np.square(factor)

    def cut_psf(self, values: Array) -> F32:
        """PSFs (n, y, x) or (n, band, y, x) -> (n, band, y, x) float32."""
        values = values.astype(np.float32, copy=False)
        return values if values.ndim == 4 else np.repeat(values[:, None], len(self.bands), axis=1)


def _refuse_wide(url: str, parts: Mapping[str, NpzArray]) -> None:
    """A whole block of every array is held: one object may not fill the memory."""
    for name, array in parts.items():
        most = _LARGEST_STAMP if name in _PARTS else _LARGEST_LABEL
        if array.shape[:1] == parts["images"].shape[:1] and array.row_bytes > most:
            raise InputError(
                f"{storage.redact(url)}: array {array.name} has {array.row_bytes / 1e6:.3g} MB per object, "
                f"{most / 1e6:.3g} at most: leave it out of the archive"
            )


def _renamed(url: str, archive: Mapping[str, NpzArray], npz_map: Mapping[str, str]) -> dict[str, NpzArray]:
    """Part -> array; InputError where a named array or the images are missing."""
    shown = storage.redact(url)
    part_of = {source: part for part, source in npz_map.items()}
    if missing := [name for name in part_of if name not in archive]:
        raise InputError(f"{shown} has no array {', '.join(missing)}; it has {', '.join(archive)}")
    parts = {part_of.get(name, name): array for name, array in archive.items()}
    if "images" not in parts:
        raise InputError(f"{shown} has no array 'images' but {', '.join(archive)}: map one with --npz-map images=NAME")
    return parts


def _checked_layout(url: str, images: NpzArray, layout: str | None) -> str:
    """The letters of the images' axes; InputError where they do not fit the shape."""
    layout = layout or {3: "nyx", 4: "ncyx"}.get(len(images.shape), "")
    letters = sorted(layout)
    if letters not in (sorted("nyx"), sorted("ncyx")) or layout[0] != "n" or len(layout) != len(images.shape):
        raise InputError(
            f"{storage.redact(url)}: images of shape {images.shape} do not have the layout {layout!r}: give --layout "
            "with one letter per axis out of n (first), c, y, x, for example nyxc"
        )
    return layout


def _check_pixels(url: str, name: str, array: NpzArray, images: NpzArray, layout: str) -> None:
    """InputError where an array of pixels holds no numbers, or does not fit the images."""
    shown = storage.redact(url)
    if array.dtype.kind not in "biuf" or 0 in array.shape[1:]:
        raise InputError(f"{shown}: array {name} of shape {array.shape} and type {array.dtype} holds no pixels")
    count, bands = images.shape[0], images.shape[layout.index("c")] if "c" in layout else 1
    fits = {
        "images": True,
        "variance": array.shape == images.shape,
        "mask_bits": array.shape == images.shape and array.dtype.kind in "iu",
        "psf": array.shape[:1] == (count,)
        and (len(array.shape) == 3 or (len(array.shape) == 4 and array.shape[1] == bands)),
    }
    if not fits[name]:
        wanted = (
            f"{images.shape}" if name in ("variance", "mask_bits") else f"({count}, y, x) or ({count}, {bands}, y, x)"
        )
        raise InputError(f"{shown}: array {name} has shape {array.shape}, {wanted} fits the images")
    if name == "psf" and min(array.shape[-2:]) < _SMALLEST_PSF:
        raise InputError(
            f"{shown}: PSFs of {array.shape[-2:]} pixels hold no PSF: save them with {_SMALLEST_PSF} pixels a side at "
            f"least, or leave {array.name} out"
        )
    if name == "psf" and max(array.shape[-2:]) > _LARGEST_PSF:
        raise InputError(f"{shown}: PSFs of {array.shape[-2:]} pixels are refused, cut them to {_LARGEST_PSF} at most")


def _refuse_odd_positions(url: str, parts: Mapping[str, NpzArray]) -> None:
    """Ids and positions are one number, or one text, per stamp."""
    count = parts["images"].shape[0]
    for name in _PLACES.intersection(parts):
        array = parts[name]
        if array.dtype.kind not in "iufSU" or array.shape not in ((count,), (count, 1)):
            raise InputError(
                f"{storage.redact(url)}: array {array.name} of shape {array.shape} and type {array.dtype} is no "
                f"{name}: save one number per stamp ({count}), or map another name with --npz-map"
            )


def _one_number(array: NpzArray) -> float:
    """The pixel scale of an archive."""
    values = array.read().reshape(-1) if array.dtype.kind in "iuf" and array.shape in ((), (1,)) else np.zeros(0)
    if len(values) != 1 or not 0 < float(values[0]) < np.inf:
        raise InputError("array pixel_scale must hold one number above 0: save it so, or give --pixel-scale")
    return float(values[0])


def _band_names(url: str, parts: Mapping[str, NpzArray], count: int, bands: tuple[str, ...] | None) -> tuple[str, ...]:
    names = bands or None
    if names is None and "bands" in parts:
        given = parts["bands"]
        if given.dtype.kind not in "SUiu" or len(given.shape) > 1:
            raise InputError(
                f"{storage.redact(url)}: array bands of shape {given.shape} and type {given.dtype} holds no names: "
                f"save one text per band, or give --bands"
            )
        with foreign.refusing("array bands", "save one text per band in UTF-8, or give --bands"):
            names = tuple(str(name) for name in decoded(np.atleast_1d(given.read())).tolist())
    names = names or tuple(f"c{number:03d}" for number in range(count))
    if len(names) != count:
        raise InputError(f"{storage.redact(url)} has {count} bands, {len(names)} names are given ({','.join(names)})")
    return names


def _zero_points(
    url: str, parts: Mapping[str, NpzArray], bands: tuple[str, ...], options: IngestOptions
) -> tuple[tuple[float, ...], NpzArray | None]:
    """Zero points of the bands; and those of each stamp, which is then stored in nJy."""
    if options.zero_point or "zero_point" not in parts:
        return options.zero_points(bands), None
    given, count = parts["zero_point"], parts["images"].shape[0]
    if given.dtype.kind not in "iuf":
        values = np.array([np.nan])
    elif given.shape in ((), (1,), (len(bands),)):
        values = np.ravel(given.read()).astype(np.float64)
        values = np.repeat(values, len(bands)) if len(values) == 1 else values
    elif given.shape in ((count,), (count, 1), (count, len(bands))):
        stated = given.read().astype(np.float64)
        refuse_implausible(stated[~np.isnan(stated)], f"zero_point of {storage.redact(url)}", "write NaN")
        return (NANOJANSKY,) * len(bands), given
    else:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise InputError(
            f"{storage.redact(url)}: zero_point of shape {given.shape} must hold AB magnitudes, one for all, one per "
            f"band ({len(bands)}) or one per stamp ({count}): mend it, or give --zero-point"
        )
    refuse_implausible(values, f"zero_point of {storage.redact(url)}", "take the array out of the archive")
    return tuple(float(value) for value in values), None


def _stream(
    stamps: Stamps, content: _Content, record: SourceRecord, progress: Progress | None, start: float
) -> IngestResult:
    """Read every array block by block, in step, and write the blocks that are missing."""
    missing, rows, size = record.missing(stamps), 0, 0
    readers = {"images": content.images, "variance": content.variance, "psf": content.psf, "mask_bits": content.mask}
    readers |= content.columns
    readers["zero_point"] = content.unit
    with contextlib.ExitStack() as stack:
        blocks = {name: stack.enter_context(array.blocks(stamps.block)) for name, array in readers.items() if array}
        for number in range(record.blocks):
            index = record.first_block + number
            if index not in missing:
                for reader in blocks.values():
                    reader.skip()
                continue
            values = {name: reader.read() for name, reader in blocks.items()}
            rows, size = rows + len(values["images"]), size + values["images"].nbytes
            _write_block(stamps, content, index, number * stamps.block, values)
            if progress is not None:
                progress("ingest", number + 1, record.blocks)
    done = len(missing)
    seconds = time.monotonic() - start
    skipped = record.blocks - done
    return IngestResult(stamps.url, stamps.kind, done, skipped, rows, size, seconds, left_out=content.left_out)


def _write_block(stamps: Stamps, content: _Content, index: int, first: int, values: dict[str, Array]) -> None:
    image = content.cut(values.pop("images"))
    variance, psf = values.pop("variance", None), values.pop("psf", None)
    mask = values.pop("mask_bits", None)
    spread = None if variance is None else content.cut(variance)
    if (zero_points := values.pop("zero_point", None)) is not None:
        image, spread = content.in_nanojansky(image, spread, zero_points)
    table: dict[str, Any] = {}
    ids, shown = values.pop("object_id", None), storage.redact(content.url)
    table["object_id"] = np.arange(first, first + len(image)) if ids is None else parse_ids(ids.reshape(-1), shown)
    values |= {name: values[name].reshape(-1) for name in _PLACES.intersection(values)}
    table |= dict(_as_columns(values))
    try:
        checksum = stamps.write_block(
            index,
            as_float32(image, f"the images of {shown}") if stamps.dtype == np.float32 else image.astype(stamps.dtype),
            None if spread is None else as_float32(spread, f"the variance of {shown}"),
            None if psf is None else content.cut_psf(psf),
            mask=None if mask is None else content.cut(mask).astype(np.uint32),
        )
        stamps.commit_objects(index, pa.table(table), checksum)
    except OSError as error:
        raise InputError(f"{storage.redact(stamps.url)} cannot be written: {storage.redact(str(error))}") from error


def _as_columns(values: Mapping[str, Array]) -> Iterator[tuple[str, pa.Array]]:
    """Arrow columns of label arrays: text decoded, (n, k) as lists, structured fields apart."""
    for name, column in values.items():
        if column.dtype.names:
            yield from _as_columns({f"{name}_{part}": column[part] for part in column.dtype.names})
            continue
        with foreign.refusing(f"array {name[:80]} as a column", "save it as numbers or text, or leave it out"):
            if column.ndim > 2:
                raise ValueError(f"{column.ndim} axes")
            values = pa.array(decoded(np.ascontiguousarray(column).reshape(-1)))
            yield name, pa.FixedSizeListArray.from_arrays(values, column.shape[1]) if column.ndim == 2 else values
