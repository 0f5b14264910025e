"""FITS bytes of a cut stamp: what the files of a tile have in common is made once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io.fits import Card, ImageHDU

from astroml_plugin.core.flags import MASK_BITS
from astroml_plugin.cutouts import RawStamps
from astroml_plugin.sky.wcs import Wcs, astropy_quiet
from astroml_plugin.sources.stamps import StampLayout
from astroml_plugin.sources.tile_table import TileInfo

_BLOCK = 2880
_KINDS = {"image": (">f4", -32), "variance": (">f4", -32), "mask": (">i4", 32), "psf": (">f4", -32)}
_OURS = {"object_id": "OBJECTID", "image": "IMAGE", "tile": "TILE", "flags": "FLAGS", "ra": "RA", "dec": "DEC"}
_LOCAL = {"jacobian", "crowded", "x", "y"}
_LONGEST_TEXT = 60
_OF_ARRAYS = re.compile(r"(NAXIS|SIMPLE|BITPIX|XTENSION|PCOUNT|GCOUNT|EXTEND|END\b)")
"""Cards that tell of an array, not of its coordinates."""


@dataclass(frozen=True)
class TileCards:
    """Header cards and coordinates that all files of one tile share."""

    info: TileInfo
    """The tile."""
    heads: dict[str, str]
    """Array -> the cards of its HDU before those of the WCS."""
    wcs: Wcs | None
    """Coordinates of the tile's array."""
    plain: list[str] | None
    """WCS cards of a stamp at the tile's first pixel, where moving it changes CRPIX alone; None elsewhere."""
    shape: tuple[int, ...]
    """Shape of an image in a file: (y, x), or (band, y, x) where there are several bands."""

    @classmethod
    def of(cls, info: TileInfo, layout: StampLayout) -> TileCards:
        """Make the cards of a tile for stamps of one layout."""
        bands, size = layout.bands, layout.size
        shape = size if len(bands) == 1 else (len(bands), *size)
        told: list[tuple[str, Any, str]] = [(f"BAND{number}", band, "") for number, band in enumerate(bands, 1)]
        told = [("FILTER", bands[0], "")] if len(bands) == 1 else told
        units = {info.units.get(band, "") for band in bands}
        unit = units.pop() if len(units) == 1 else ""
        zero_points = {*layout.zero_points}
        zero = zero_points.pop() if len(zero_points) == 1 else None
        told += [] if zero is None else [("MAGZERO", zero, "AB magnitude of one unit")]
        psf = () if layout.psf_size is None else (*shape[:-2], *layout.psf_size)
        bits = [(f"HIERARCH MP_{name}", int(np.log2(bit)), "") for name, bit in MASK_BITS.items()]
        with astropy_quiet():
            heads = {
                "image": _head("image", shape, [*([("BUNIT", unit, "")] if unit else []), *told]),
                "variance": _head("variance", shape, [*([("BUNIT", f"({unit})2", "")] if unit else []), *told]),
                "mask": _head("mask", shape, bits),
                "psf": _head("psf", psf, []),
            }
        wcs = info.wcs()
        return cls(info, heads, wcs, _movable(wcs, size), shape)

    def file(self, stamps: RawStamps, number: int, left: int, top: int, row: dict[str, Any]) -> bytes:
        """The file of one stamp.

        Args:
            stamps: some stamps of the tile.
            number: which of them.
            left, top: its first pixel in the parent image.
            row: what is known of the object.
        """
        wcs, tables = self._wcs_parts(left - self.info.outer.x0, top - self.info.outer.y0)
        parts = [_padded(_primary(row))]
        for name, (kind, _) in _KINDS.items():
            values = getattr(stamps, name)
            if values is None:
                continue
            plane = values[number][0] if len(self.shape) == 2 else values[number]
            plane = plane.view(np.int32) if name == "mask" else plane
            parts += [_padded(self.heads[name] + ("" if name == "psf" else wcs)), _data(plane, kind)]
        return b"".join([*parts, *map(_table_bytes, tables)])

    def _wcs_parts(self, x0: int, y0: int) -> tuple[str, list[ImageHDU]]:
        """WCS cards of a stamp whose first pixel is (x0, y0) of the tile's array, and HDUs of its lookup tables."""
        if self.wcs is None:
            return "", []
        tables: list[ImageHDU] = []
        if self.plain is not None:
            lines = _moved(self.plain, x0, y0)
        else:
            header, tables = self.wcs.shifted(x0, y0, (self.shape[-2], self.shape[-1])).fits_parts()
            lines = [card.image for card in header.cards if not _OF_ARRAYS.match(card.image)]
        several = len(self.shape) > 2
        return "".join(_whole(line) for line in lines if not (several and line.startswith("WCSAXES"))), tables


def _head(name: str, shape: tuple[int, ...], cards: list[tuple[str, Any, str]]) -> str:
    axes = [(f"NAXIS{number}", side, "") for number, side in enumerate(reversed(shape), 1)]
    first = [("XTENSION", "IMAGE", ""), ("BITPIX", _KINDS[name][1], ""), ("NAXIS", len(shape), ""), *axes]
    return "".join(map(_image, [*first, ("PCOUNT", 0, ""), ("GCOUNT", 1, ""), ("EXTNAME", name.upper(), ""), *cards]))


def _primary(row: dict[str, Any]) -> str:
    """Cards of the primary HDU: what is known of the object, as far as a card can hold it."""
    cards: list[tuple[str, Any, str]] = [
        ("SIMPLE", True, ""),
        ("BITPIX", 8, ""),
        ("NAXIS", 0, ""),
        ("EXTEND", True, ""),
    ]
    cards += [(key, row[name], "") for name, key in _OURS.items() if row[name] is not None]
    cards += [("X", row["x"], "from 0, in the parent image"), ("Y", row["y"], "from 0, in the parent image")]
    for name, value in row.items():
        if name not in _OURS and name not in _LOCAL and _fits_a_card(name, value):
            cards.append((f"HIERARCH LABEL {re.sub(r'[^A-Z0-9_-]', '_', name.upper())}", value, ""))
    with astropy_quiet():
        return "".join(map(_image, cards))


def _fits_a_card(name: str, value: Any) -> bool:
    if isinstance(value, str):
        return len(name) + len(value) < _LONGEST_TEXT - 8 and value.isascii() and value.isprintable()
    number = isinstance(value, bool | int) or (isinstance(value, float) and bool(np.isfinite(value)))
    return number and len(name) < _LONGEST_TEXT - 24


def _image(card: tuple[str, Any, str]) -> str:
    """A card as text of 80 characters, or several."""
    key, value, comment = card
    value = value.encode("ascii", "replace").decode() if isinstance(value, str) else value
    return str(Card(key, value, comment or None).image)


def _padded(text: str) -> bytes:
    whole = text + "END".ljust(80)
    return whole.ljust(-(-len(whole) // _BLOCK) * _BLOCK).encode("ascii")


def _data(values: np.ndarray, kind: str) -> bytes:
    data = np.asarray(values).astype(kind).tobytes()
    return data + b"\0" * (-len(data) % _BLOCK)


def _lines(wcs: Wcs) -> list[str]:
    """Cards without those of the axes' lengths."""
    return [line for line in wcs.header.split("\n") if not _OF_ARRAYS.match(line)]


def _whole(line: str) -> str:
    return line.ljust(-(-len(line) // 80) * 80)


def _table_bytes(hdu: ImageHDU) -> bytes:
    """An HDU with a lookup table of the WCS."""
    head = [("XTENSION", "IMAGE", ""), ("BITPIX", -32, ""), ("NAXIS", hdu.data.ndim, "")]
    head += [(f"NAXIS{number}", side, "") for number, side in enumerate(reversed(hdu.data.shape), 1)]
    cards = [*map(_image, [*head, ("PCOUNT", 0, ""), ("GCOUNT", 1, "")])]
    cards += [card.image for card in hdu.header.cards if not _OF_ARRAYS.match(card.image)]
    return _padded("".join(map(_whole, cards))) + _data(hdu.data, ">f4")


def _movable(wcs: Wcs | None, size: tuple[int, int]) -> list[str] | None:
    if wcs is None:
        return None
    here, there = (_lines(wcs.shifted(*by, size)) for by in ((0, 0), (3, 5)))
    return here if _moved(here, 3, 5) == there else None


def _moved(lines: list[str], x0: int, y0: int) -> list[str]:
    """Cards of a WCS moved by whole pixels: CRPIX changes."""
    return [_shifted(line, x0 if line[5] == "1" else y0) if line.startswith("CRPIX") else line for line in lines]


def _shifted(line: str, by: int) -> str:
    old = Card.fromstring(line.ljust(80))
    return str(Card(old.keyword, float(old.value) - by, old.comment).image[:80].rstrip())
