"""New columns for the rows of another HATS catalogue: the same partitions, joined by ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from astroml_plugin.catalog.hats.library import hats, quietly
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError

_SAME_PLACE = 1e-9
"""Degrees within which two positions are the same."""


@dataclass(frozen=True)
class Joined:
    """How the rows of an extension meet those of its primary catalogue."""

    matched: int
    """Rows of the extension whose id the primary has in the same partition."""
    strangers: int
    """Rows of the extension whose id it does not have there: a join leaves them out."""
    without: int
    """Rows of the primary for which the extension has none: a join gives them nulls."""
    same_place: bool
    """Whether all matched rows have the positions of the primary."""


@dataclass(frozen=True)
class Primary:
    """A HATS catalogue that gets new columns."""

    url: str
    """The catalogue, or the collection that holds it, as an absolute path or URL."""
    column: str
    """Name of the column of ids."""
    ra: str
    """Name of the column of right ascensions."""
    dec: str
    """Name of the column of declinations."""
    pixels: tuple[tuple[int, int], ...]
    """(order, number) of its partitions."""
    catalog: Any
    """The catalogue as the library hats has it."""

    @classmethod
    def open(cls, url: str, column: str) -> Primary:
        """The catalogue at `url`.

        Raises:
            InputError: there is none, or it has no such column of whole numbers.
        """
        place = storage.absolute(url)
        try:
            with quietly():
                found = hats().read_hats(place)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"there is no HATS catalogue at {storage.redact(place)}: {error}") from error
        catalog = getattr(found, "main_catalog", found)
        names = list(catalog.schema.names)
        if column not in names:
            raise InputError(
                f"the HATS catalogue {storage.redact(place)} has no column {column!r}: name its column of ids with "
                f"--extends-id, one of {', '.join(names[:20])}"
            )
        if not pa.types.is_integer(catalog.schema.field(column).type):
            raise InputError(f"the column {column!r} of {storage.redact(place)} holds no whole numbers: ids are int64")
        info = catalog.catalog_info
        pixels = tuple((int(pixel.order), int(pixel.pixel)) for pixel in catalog.get_healpix_pixels())
        return cls(place, column, info.ra_column, info.dec_column, pixels, catalog)

    def joined(self, extension: Any) -> Joined:
        """Compare ids and positions with a written extension (of the library hats), partition by partition."""
        from hats.io.paths import pixel_catalog_file

        matched = strangers = without = 0
        same = True
        theirs = {(int(pixel.order), int(pixel.pixel)) for pixel in extension.get_healpix_pixels()}
        for order, number in sorted(theirs | set(self.pixels)):
            pixel = _pixel(order, number)
            mine = _read(pixel_catalog_file, extension, pixel, ["object_id", "ra", "dec"], (order, number) in theirs)
            other = _read(
                pixel_catalog_file,
                self.catalog,
                pixel,
                [self.column, self.ra, self.dec],
                (order, number) in self.pixels,
            )
            place = pc.index_in(mine[0].cast(pa.int64()), value_set=other[0].cast(pa.int64()))
            found = np.asarray(pc.is_valid(place))
            at = np.asarray(pc.drop_null(place).cast(pa.int64()))
            matched += int(found.sum())
            strangers += int((~found).sum())
            without += len(other[0]) - int(pc.sum(pc.is_in(other[0].cast(pa.int64()), value_set=mine[0])).as_py() or 0)
            for own, given in zip(mine[1:], other[1:], strict=True):
                gap = np.abs(np.asarray(own)[found] - np.asarray(given)[at])
                same = same and bool((np.minimum(gap, np.abs(gap - 360)) < _SAME_PLACE).all())
        return Joined(matched, strangers, without, same)


def _pixel(order: int, number: int) -> Any:
    from hats.pixel_math.healpix_pixel import HealpixPixel

    return HealpixPixel(order, number)


def _read(path_of: Any, catalog: Any, pixel: Any, columns: list[str], there: bool) -> list[pa.Array]:
    """Columns of one partition, empty where there is none."""
    if not there:
        return [pa.array([], pa.int64()), pa.array([], pa.float64()), pa.array([], pa.float64())]
    suffix = catalog.catalog_info.npix_suffix
    path = path_of(catalog.catalog_base_dir, pixel, npix_suffix=suffix)
    table = pq.read_table(path.path, filesystem=path.fs, columns=columns)
    return [table[name].combine_chunks() for name in columns]
