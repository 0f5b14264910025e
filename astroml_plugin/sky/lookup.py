"""Lookup tables of a WCS (HST's CPDIS and D2IMDIS): kept as text behind the FITS cards, so that a tile carries them.

Source: Calabretta et al., "Representations of distortions in FITS world coordinate systems" (draft of FITS Paper IV).
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from astroml_plugin.core.astropy_later import fits, fits_wcs
from astroml_plugin.core.typing import F32

NAMES = ("cpdis1", "cpdis2", "det2im1", "det2im2")
"""Tables that an astropy WCS may have: distortions, and corrections of the detector that come before them."""

MOST_VALUES = 1 << 18
"""More values than this in the tables of one image are not kept: each tile carries them."""

_LINE = "COMMENT LOOKUP "
_WIDTH = 80 - len(_LINE)
_CARD = re.compile(r"^(CPDIS|D2IMDIS|CPERR|D2IMERR|DP|D2IM)\d")


@dataclass(frozen=True)
class LookupTable:
    """Corrections of pixel positions on a grid, bilinear between its points."""

    name: str
    """One of `NAMES`; its digit is the axis that is corrected."""
    place: tuple[float, ...]
    """CRPIX, CRVAL and CDELT of the grid's two axes; CRVAL is a pixel of the image, counted from 1."""
    values: F32
    """(y, x) pixels to add."""

    def shifted(self, x0: int, y0: int) -> LookupTable:
        """The table for an array whose first pixel is (x0, y0) of the image."""
        place = (*self.place[:2], self.place[2] - x0, self.place[3] - y0, *self.place[4:])
        return replace(self, place=place)

    def lines(self) -> list[str]:
        """Lines of text that hold the table exactly."""
        data = base64.b64encode(zlib.compress(self.values.astype("<f4").tobytes(), 9)).decode("ascii")
        numbers = " ".join(repr(float(value)) for value in self.place)
        text = f"{self.name} {self.values.shape[0]} {self.values.shape[1]} {numbers} {data}"
        return [_LINE + text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)]


def tables_of(wcs: fits_wcs.WCS) -> list[LookupTable]:
    """The lookup tables of an astropy WCS."""
    found = [(name, getattr(wcs, name)) for name in NAMES]
    return [
        LookupTable(
            name,
            tuple(float(value) for pair in (table.crpix, table.crval, table.cdelt) for value in pair),
            np.asarray(table.data, np.float32),
        )
        for name, table in found
        if table is not None
    ]


def split_text(text: str) -> tuple[str, list[LookupTable]]:
    """(FITS cards without the lines of tables, the tables).

    Raises:
        ValueError, zlib.error: lines that hold no table.
    """
    if _LINE not in text:
        return text, []
    lines = text.split("\n")
    cards = [line for line in lines if not line.startswith(_LINE)]
    held = "".join(line.removeprefix(_LINE) for line in lines if line.startswith(_LINE))
    starts = [match.start() for match in re.finditer(rf"({'|'.join(NAMES)}) ", held)]
    ends = [*starts[1:], len(held)]
    return "\n".join(cards), [_read(held[start:end]) for start, end in zip(starts, ends, strict=True)]


def _read(text: str) -> LookupTable:
    name, height, width, *place, data = text.split(" ")
    rows, columns = int(height), int(width)
    if len(place) != 6 or min(rows, columns) < 1 or rows * columns > MOST_VALUES:
        raise ValueError("a lookup table cannot be read")
    raw = zlib.decompressobj().decompress(base64.b64decode(data), 4 * rows * columns)
    values = np.frombuffer(raw, "<f4").astype(np.float32).reshape(rows, columns)
    return LookupTable(name, tuple(map(float, place)), values)


def joined(cards: str, tables: Sequence[LookupTable]) -> str:
    """Cards with the lines of tables behind them."""
    return "\n".join([cards, *(line for table in tables for line in table.lines())])


def attach(wcs: fits_wcs.WCS, tables: Sequence[LookupTable]) -> None:
    """Give an astropy WCS its tables."""
    for table in tables:
        place = (table.place[:2], table.place[2:4], table.place[4:])
        setattr(wcs, table.name, fits_wcs.DistortionLookupTable(table.values, *place))


def fits_parts(cards: str, wcs: fits_wcs.WCS) -> tuple[fits.Header, list[fits.ImageHDU]]:
    """Header of a FITS file with these cards, and the HDUs of the tables that `wcs` has, to which it refers."""
    header = fits.Header.fromstring(cards, sep="\n")
    if not any(getattr(wcs, name) is not None for name in NAMES):
        return header, []
    written = wcs.to_fits(relax=True)
    header.extend([card for card in written[0].header.cards if _CARD.match(card.keyword)], unique=False)
    return header, list(written[1:])
