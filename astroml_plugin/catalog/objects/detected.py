"""Identity of detected objects: ids that do not depend on the tiling, and the image that shows each best."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects.placing import Placer, edge_distance
from astroml_plugin.core import storage
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.sky.wcs import Wcs, healpix29
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import ParentImage, TileInfo

_PIXEL_IDS = 1 << 62
"""Ids from here on are those of pixels without a sky position: HEALPix indices of order 29 end at 12 * 4^29 < 2^62."""

_PIXEL_BITS = 40
"""Bits of such an id that number the pixels of an image; 22 bits tell images apart."""

_GROUP = 256


def object_ids(info: TileInfo, wcs: Wcs | None, peak_x: I64, peak_y: I64) -> I64:
    """The ids of objects by the pixels of their peaks.

    The HEALPix index (order 29, nested: cells of 0.4 mas) of the pixel's centre on the sky; where there is none, a
    number above 2^62 made of the image's name and the pixel's index.

    Args:
        info: tile.
        wcs: of the tile's array.
        peak_x, peak_y: (n,) pixels of the parent image.
    """
    image = int.from_bytes(hashlib.sha256(info.image.encode()).digest()[:8], "big") >> 42
    plain = _PIXEL_IDS + (image << _PIXEL_BITS) + peak_y * info.image_shape[1] + peak_x
    if wcs is None or not len(peak_x):
        return np.asarray(plain, np.int64)
    cells = healpix29(*wcs.to_sky(peak_x - info.outer.x0, peak_y - info.outer.y0))
    return np.where(cells >= 0, cells, plain)


@dataclass(frozen=True)
class Overlaps:
    """The parent images of a survey that overlap others on the sky. Small and picklable."""

    url: str | None
    """Parquet table with one row per image and image that overlaps it; None where none do."""

    @classmethod
    def build(cls, survey: Survey, folder: str) -> Overlaps:
        """Find them and write the table below `folder`."""
        rows = [_row(image, other) for image, others in Placer(survey).overlapping() for other in others]
        if not rows:
            return cls(None)
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        url = storage.join(folder, f"overlaps-{storage.digest(table['digest'].to_pylist())[:16]}.parquet")
        storage.write_table(url, table, row_group_size=_GROUP)
        return cls(url)

    @classmethod
    def open(cls, url: str | None) -> Overlaps:
        """Overlaps that were written; none without a file."""
        return cls(url)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Image -> digest of what overlaps it, for images that something overlaps."""
        if self.url is None:
            return {}
        table = storage.read_table(self.url, columns=["image", "digest"])
        found: dict[str, list[str]] = {}
        for name, digest in zip(table["image"].to_pylist(), table["digest"].to_pylist()):
            found.setdefault(name, []).append(digest)
        return {name: storage.digest(values)[:24] for name, values in found.items()}

    def of(self, image: str) -> list[ParentImage]:
        """Parent images that overlap one."""
        if self.url is None:
            return []
        rows = storage.read_table(self.url, filters=[("image", "=", image)]).to_pylist()
        return [_image(row) for row in rows]

    def primary(self, info: TileInfo, x: F64, y: F64, ra: F64, dec: F64) -> Bool:
        """Whether no overlapping image shows each position farther from its edge; ties go to the first name.

        The rule of `Placer` for objects that are given. It goes by position: an object may have been detected on one of
        the images only.

        Args:
            info: tile.
            x, y: (n,) pixels of the parent image.
            ra, dec: (n,) degrees.
        """
        best = np.ones(len(x), bool)
        mine = edge_distance(*info.image_shape, x, y)
        for other in self.of(info.image) if len(x) else []:
            wcs = other.wcs()
            assert wcs is not None
            there_x, there_y = wcs.to_pixel(ra, dec)
            theirs = np.where(other.tile_of(there_x, there_y) >= 0, edge_distance(*other.shape, there_x, there_y), -1)
            best &= ~((theirs > mine) | ((theirs == mine) & (other.name < info.image)))
        return best


_SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("image", "other", "header", "digest")],
        *[(name, pa.int32()) for name in ("height", "width", "step")],
        *[(name, pa.list_(pa.int32())) for name in ("rows", "columns")],
    ]
)


def _row(image: ParentImage, other: ParentImage) -> dict[str, Any]:
    places = sorted(other.tiles)
    values = {
        **{"image": image.name, "other": other.name, "header": other.header, "step": other.step},
        **{"height": other.shape[0], "width": other.shape[1]},
        **{"rows": [row for row, _ in places], "columns": [column for _, column in places]},
    }
    return {**values, "digest": storage.digest(values)[:24]}


def _image(row: dict[str, Any]) -> ParentImage:
    places = zip(row["rows"], row["columns"], strict=True)
    tiles = {place: number for number, place in enumerate(places)}
    return ParentImage(row["other"], (row["height"], row["width"]), row["header"], row["step"], tiles)
