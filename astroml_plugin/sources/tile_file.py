"""A tile as one FITS file, from which planes and boxes are read alone. docs/formats.md describes the file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.flags import MASK_BITS
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.core.typing import Array
from astroml_plugin.pixels import Tile, band_index
from astroml_plugin.sky.headers import astropy_quiet
from astroml_plugin.sky.wcs import Box, Wcs
from astroml_plugin.sources import tile_arrays
from astroml_plugin.sources.ingest.one_tile import ReadTile
from astroml_plugin.sources.tile_table import TileInfo

FORMAT = "astroml-tile"
"""Value of the card TILEFMT."""
VERSION = 1
"""Value of the card TILEVER; files of a greater one are refused."""
PLANES = {"image": np.float32, "variance": np.float32, "mask": np.uint32, "psf": np.float32}
"""Planes and their types. Each is an extension of its name in capitals, where the tile has it."""
COMPONENTS = (*PLANES, "wcs", "bands")
"""Parts of a tile that can be read alone."""

_ABOUT = "TILE"
_OF_ARRAYS = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTEND|EXTNAME|EXTVER|BSCALE|BZERO|END|)$"
)
"""Keywords of cards that say how an array is stored."""
_AGAIN = "write the tile again"
_DIMENSIONS = {"image": 3, "variance": 3, "mask": 3, "psf": 5}


def write_tile(read: ReadTile, file: Any) -> None:
    """Write a tile as a new FITS file.

    Args:
        read: pixels, place and bands.
        file: path, or a binary file that is open for writing.

    Raises:
        InputError: the file exists.
    """
    planes = {name: values for name in PLANES if (values := getattr(read.tile, name)) is not None}
    about = {
        "bands": list(read.bands),
        "notes": list(read.notes),
        "info": _plain(read.info),
        "crc32": {name: [_crc(of_band) for of_band in values] for name, values in planes.items()},
    }
    primary = fits.PrimaryHDU()
    primary.header["TILEFMT"], primary.header["TILEVER"] = (FORMAT, "tile of astroml-plugin"), VERSION
    hdus = [primary, *(_plane_hdu(name, planes[name], read) for name in planes), _about_hdu(about)]
    if not isinstance(file, str | os.PathLike):
        fits.HDUList(hdus).writeto(file)
        return
    path = Path(file)
    if path.exists():
        raise InputError(f"{path} exists: give another name, or remove it")
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        fits.HDUList(hdus).writeto(half, overwrite=True)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def read_tile(file: Any, box: Box | None = None, bands: Sequence[str] | None = None) -> ReadTile:
    """A tile, or the pixels of a box of it as a tile that owns just these.

    Whole bands are compared with the checksums that were written; of a box only its own pixels are read.

    Args:
        file: path, or an open binary file that can seek.
        box: pixels of the parent image within the tile; None: all.
        bands: bands that are read, in this order; None: all.

    Raises:
        InputError: no such file or band, or the box reaches beyond the tile.
        CorruptError: the file is damaged, or none of a tile.
    """
    with opened(file) as tile_file:
        info = tile_file.info if box is None else tile_arrays.part_of(tile_file.info, box)
        image = tile_file.plane("image", box, bands)
        if image is None:
            raise CorruptError(f"{tile_file.shown} has no image: {_AGAIN}")
        pixels = Tile(image, *(tile_file.plane(name, box, bands) for name in ("variance", "mask", "psf")))
        return ReadTile(pixels, info, tile_file.bands if bands is None else tuple(bands), tile_file.notes)


def read_component(file: Any, component: str, box: Box | None = None, bands: Sequence[str] | None = None) -> Any:
    """One part of a tile and nothing else.

    Args:
        file: as for `read_tile`.
        component: one of `COMPONENTS`.
        box: as for `read_tile`.
        bands: as for `read_tile`.

    Returns:
        Array of a plane, or None where the tile has none; `Wcs` of the pixels, or None; list of the bands' names.

    Raises:
        InputError: as `read_tile`; or no such component.
        CorruptError: as `read_tile`.
    """
    if component not in COMPONENTS:
        raise InputError(f"a tile has no component {component!r}: choose one of {', '.join(COMPONENTS)}")
    with opened(file) as tile_file:
        info = tile_file.info if box is None else tile_arrays.part_of(tile_file.info, box)
        if component == "bands":
            return list(tile_file.bands if bands is None else bands)
        return info.wcs() if component == "wcs" else tile_file.plane(component, box, bands)


@dataclass(frozen=True)
class TileFile:
    """An open file of a tile."""

    shown: str
    """Names it in messages."""
    hdus: fits.HDUList
    """Extensions of the file; pixels are read when they are asked for."""
    info: TileInfo
    """Place, WCS, zero points."""
    bands: tuple[str, ...]
    """Names of the band axis."""
    notes: tuple[str, ...]
    """Sentences of its ingest."""
    sums: Mapping[str, list[int]]
    """CRC-32 of the bytes of each plane in each band, little-endian."""

    def plane(self, name: str, box: Box | None = None, bands: Sequence[str] | None = None) -> Array | None:
        """One plane of `PLANES` in some bands or all, whole or in a box; None where the tile has none.

        Raises:
            InputError: a band is not there.
            CorruptError: the plane is missing, of another shape, or altered.
        """
        index = band_index(self.bands, self.bands if bands is None else bands)
        if name not in self.sums:
            return None
        outer = self.info.outer
        with _intact(self.shown):
            hdu = self.hdus[name.upper()]
            if not isinstance(hdu, fits.ImageHDU) or len(hdu.shape) != _DIMENSIONS[name]:
                raise ValueError(f"{name.upper()} is no plane of a tile")
            if name != "psf" and hdu.shape != (len(self.bands), outer.height, outer.width):
                raise ValueError(f"{name.upper()} has shape {hdu.shape}")
            cut = None if name == "psf" else box
            shape = hdu.shape[1:] if cut is None else (cut.height, cut.width)
            values: Any = np.empty((len(index), *shape), PLANES[name])
            for number, band in enumerate(index):
                if cut is not None:
                    y, x = cut.y0 - outer.y0, cut.x0 - outer.x0
                    values[number] = hdu.section[band, y : y + cut.height, x : x + cut.width]
                    continue
                values[number] = hdu.section[band]
                if _crc(values[number]) != self.sums[name][band]:
                    raise ValueError(f"the pixels of {name.upper()} were altered")
        return tile_arrays.cells_within(values, outer, box) if name == "psf" and box is not None else values


@contextmanager
def opened(file: Any) -> Iterator[TileFile]:
    """A tile's file, open while the block runs.

    Args:
        file: path, or an open binary file that can seek.

    Raises:
        InputError: there is no such file.
        CorruptError: it is damaged, or none of a tile.
    """
    named = isinstance(file, str | os.PathLike)
    shown = storage.redact(os.fspath(file)) if named else str(getattr(file, "name", "the file"))
    if named and not os.path.exists(file):
        raise InputError(f"{shown} does not exist: check the path")
    with contextlib.ExitStack() as stack:
        # a stream: astropy would unpack what it thinks is packed
        stream = stack.enter_context(open(file, "rb")) if named else file
        stack.enter_context(astropy_quiet())
        with _intact(shown):
            hdus = fits.open(stream, memmap=False, lazy_load_hdus=True)
            kind, version = hdus[0].header.get("TILEFMT"), hdus[0].header.get("TILEVER")
        if kind != FORMAT:
            raise CorruptError(
                f"{shown} holds no tile (card TILEFMT is not {FORMAT}): give a file that Tile.write wrote"
            )
        if not isinstance(version, int) or version > VERSION:
            raise CorruptError(f"{shown} is a tile of format {version}, known is {VERSION}: use a newer astroml-plugin")
        with _intact(shown):
            about = json.loads(str(hdus[_ABOUT].data["json"][0]))
            bands = tuple(str(band) for band in about["bands"])
            info = from_mapping(TileInfo, about["info"], "the tile's own record")
            sums = {name: [int(value) for value in about["crc32"][name]] for name in PLANES if name in about["crc32"]}
            found = TileFile(shown, hdus, info, bands, tuple(map(str, about["notes"])), sums)
        yield found


@contextmanager
def _intact(shown: str) -> Iterator[None]:
    """Reading of our own file: whatever fails there is damage."""
    try:
        with foreign.refusing(shown, _AGAIN, CorruptError):
            yield
    except InputError as error:
        raise CorruptError(f"{shown} is damaged ({error}): {_AGAIN}") from error


def _crc(values: Array) -> int:
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return zlib.crc32(plain.reshape(-1).view(np.uint8).data)


def _plain(info: TileInfo) -> dict[str, Any]:
    """JSON values of a tile's place; numbers that are not known are left out."""
    found = to_mapping(replace(info, checksum=""))
    for record in found["quality"].values():
        for name in [name for name, value in record.items() if not np.isfinite(value)]:
            del record[name]
    return found


def _plane_hdu(name: str, values: Array, read: ReadTile) -> fits.ImageHDU:
    header = fits.Header()
    if name != "psf":
        header.update(sky_cards(read.info.wcs()))
        header["HIERARCH PARENT X0"], header["HIERARCH PARENT Y0"] = read.info.outer.x0, read.info.outer.y0
    if name == "mask":
        for bit, value in MASK_BITS.items():
            header[f"HIERARCH MP_{bit}"] = value.bit_length() - 1
    for number, band in enumerate(read.bands):
        header[f"BAND{number}"] = band
    return fits.ImageHDU(np.asarray(values, PLANES[name]), header, name=name.upper())


def sky_cards(wcs: Wcs | None) -> fits.Header:
    """Cards of a WCS for a plane of its pixels, without those of an array; none of a WCS that needs lookup tables."""
    if wcs is None:
        return fits.Header()
    with astropy_quiet():
        header, tables = wcs.fits_parts()
    return (
        fits.Header() if tables else fits.Header([card for card in header.cards if not _OF_ARRAYS.match(card.keyword)])
    )


def _about_hdu(about: dict[str, Any]) -> fits.BinTableHDU:
    text = json.dumps(about)
    return fits.BinTableHDU.from_columns([fits.Column("json", f"{len(text)}A", array=[text])], name=_ABOUT)
