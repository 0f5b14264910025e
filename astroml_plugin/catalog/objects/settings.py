"""How an objects table is read, as a user states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astroml_plugin.core.errors import InputError

NAMES: dict[str, tuple[str, ...]] = {
    "object_id": ("object_id", "objectId", "source_id", "SourceID", "NUMBER", "objid", "id_str", "id"),
    "ra": ("ra", "RA", "coord_ra", "ALPHA_J2000", "RAJ2000", "ALPHAWIN_J2000", "RA_ICRS", "raMean"),
    "dec": ("dec", "DEC", "coord_dec", "DELTA_J2000", "DEJ2000", "DELTAWIN_J2000", "DE_ICRS", "DECJ2000", "decMean"),
    "l": ("l", "GLON", "glon"),
    "b": ("b", "GLAT", "glat"),
    "x": ("x", "XWIN_IMAGE", "X_IMAGE", "xcentroid", "x_centroid", "xcenter", "x_fit"),
    "y": ("y", "YWIN_IMAGE", "Y_IMAGE", "ycentroid", "y_centroid", "ycenter", "y_fit"),
    "image": ("image",),
}
"""Names that are understood without a mapping, the preferred first; letter case may differ."""


@dataclass(frozen=True)
class ObjectSettings:
    """How to read an objects table."""

    format: str | None = None
    """parquet (also a folder or a HATS catalogue), csv, ecsv, fits, votable or sextractor; default: by suffix."""
    columns: str | Mapping[str, str] | None = None
    """Our names to the table's: "object_id=NUMBER,ra=ALPHA_J2000"; `object_id=#row` numbers the rows, `ra=NAME[rad]`
    says the unit."""
    frame: str | None = None
    """icrs, galactic or pixel; default: the first of these whose columns are there."""
    pixel_origin: int | None = None
    """Number of the first pixel, 0 or 1; default: 0, but 1 for columns named *_IMAGE."""
    objects_table: str | None = None
    """Name or number of a table within its file (EXTNAME or number of the HDU, name, ID or number of the TABLE);
    default: all that could be objects, which must have equal columns."""

    def __post_init__(self) -> None:
        if self.pixel_origin not in (None, 0, 1):
            raise InputError(
                f"the first pixel cannot have the number {self.pixel_origin}: use a pixel origin of 0 or 1"
            )

    def mapping(self) -> dict[str, str]:
        """`columns` as a dictionary; InputError when it cannot be read."""
        return parse_columns(self.columns)

    def identity(self) -> list[Any]:
        """Plain values that tell two settings apart."""
        return [self.format, sorted(self.mapping().items()), self.frame, self.pixel_origin, self.objects_table]


def parse_columns(columns: str | Mapping[str, str] | None) -> dict[str, str]:
    """Our names -> the table's, from "ours=theirs,ours=theirs" or a mapping."""
    if columns is None:
        return {}
    pairs = dict(columns) if isinstance(columns, Mapping) else {}
    if isinstance(columns, str):
        for word in filter(None, (word.strip() for word in columns.split(","))):
            ours, equals, theirs = word.partition("=")
            if not equals or not theirs.strip():
                raise InputError(f"'{word}' in --columns is not of the form object_id=NAME")
            pairs[ours.strip()] = theirs.strip()
    unknown = sorted(set(pairs) - set(NAMES))
    if unknown:
        raise InputError(f"--columns maps {', '.join(unknown)}; it can map {', '.join(NAMES)}")
    return pairs
