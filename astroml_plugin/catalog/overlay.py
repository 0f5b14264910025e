"""Reading label maps: one tile or any box of a parent image, with the objects of all tiles that reach into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits

from astroml_plugin.catalog.export.fits import card_text
from astroml_plugin.catalog.export.texts import ENCODED, plain_or_coded
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.merge import publishing
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.sky.wcs import Box, Wcs
from astroml_plugin.sources.tile_table import TileInfo

OBJECTS_SCHEMA = pa.schema(
    [("label", pa.uint32()), ("object_id", pa.int64()), ("tile", pa.large_string()), ("label_id", pa.int32())]
)


@dataclass(frozen=True)
class LabelImage:
    """The objects of a box, pixel by pixel."""

    labels: np.ndarray
    """(y, x) uint32: 0 background, else a number of `objects`. Of a tile that was asked for, its own `label_id`."""
    objects: pa.Table
    """`label`, and the `object_id`, `tile` and `label_id` of the catalog's row."""
    image: str
    """Parent image."""
    box: Box
    """Box of the image in pixels."""
    header: str | None
    """WCS cards of the box; None without a WCS."""
    missing: tuple[str, ...]
    """Tiles that reach into the box and have no label map yet."""
    contested: int
    """Pixels that two objects of different tiles claim; the tile that was asked for, then the first one, has them."""

    def object_ids(self) -> np.ndarray:
        """(y, x) int64: the catalog's `object_id` of each pixel, -1 for background. The same in any tiling."""
        ids = np.full(int(self.labels.max(initial=0)) + 1, -1, np.int64)
        ids[self.objects["label"].to_numpy()] = self.objects["object_id"].to_numpy()
        values: np.ndarray = ids[self.labels]
        return values

    def write_fits(self, to: str) -> None:
        """Write labels with the WCS of the box, and the objects as a table, whole or not at all."""
        header, tables = (fits.Header(), []) if self.header is None else Wcs(self.header).fits_parts()
        header["IMAGE"] = (card_text(self.image), "parent image")
        header["X0"], header["Y0"] = (self.box.x0, "its pixel (from 0) that is first here"), (self.box.y0, "")
        tiles, coded = plain_or_coded(self.objects["tile"].to_pylist())
        columns = [
            fits.Column("label", "J", array=self.objects["label"].to_numpy().astype(np.int32)),
            fits.Column("object_id", "K", array=self.objects["object_id"].to_numpy()),
            fits.Column("tile", f"{max([1, *map(len, tiles)])}A", array=np.array([*tiles, ""])[:-1]),
            fits.Column("label_id", "J", array=self.objects["label_id"].to_numpy()),
        ]
        image = fits.PrimaryHDU(self.labels.astype(np.int32), header)
        table = fits.BinTableHDU.from_columns(columns, name="OBJECTS")
        if coded:
            table.header["TCOMM3"] = ENCODED
        with publishing(storage.absolute(to)) as target:
            fits.HDUList([image, table, *tables]).writeto(target, checksum=True)


def read_labels(
    catalog: Place,
    *,
    tile: str | None = None,
    image: str | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> LabelImage:
    """The label map of a tile's outer box, or of any box of a parent image; objects of other tiles are laid over it.

    Args:
        catalog: path or URL.
        tile: name of a tile (the catalog's column `tile`).
        image: instead: name of a parent image; may be left away where there is only one.
        box: half-open pixels (x0, y0, x1, y1) of it; the whole image if not given.

    Raises:
        InputError: no label maps, no such tile or image, or the tile is not done.
    """
    maps = LabelMaps.open(text_of(catalog))
    asked, where = _where(maps, tile, image, box)
    files = _finished(maps)
    canvas = _Canvas(np.zeros((where.height, where.width), np.uint32), where)
    missing = []
    for info in _reaching(maps, asked, where, first=tile):
        if info.index in files:
            canvas.paint(maps, info, files[info.index], keep=info.name == tile)
        elif info.name == tile:
            raise InputError(f"tile {tile} has no label map yet: run the same infer again")
        else:
            missing.append(info.name)
    objects = pa.concat_tables([OBJECTS_SCHEMA.empty_table(), *canvas.objects])
    header = _header(asked, where)
    return LabelImage(canvas.labels, objects, asked.image, where, header, tuple(missing), canvas.contested)


@dataclass
class _Canvas:
    """A label image in the making."""

    labels: np.ndarray
    where: Box
    objects: list[pa.Table] = field(default_factory=list)
    contested: int = 0
    last: int = 0

    def paint(self, maps: LabelMaps, info: TileInfo, file: str, *, keep: bool) -> None:
        """Lay a tile's objects over what is background yet, under new numbers or (`keep`) their own."""
        local = maps.read(info.index)[_slices(self.where, info.outer)]
        ids = np.unique(local[local > 0])
        numbers = np.zeros(int(local.max(initial=0)) + 1, np.uint32)
        numbers[ids] = ids if keep else np.arange(self.last + 1, self.last + 1 + len(ids))
        self.last = max(self.last, int(numbers.max()))
        into = self.labels[_slices(info.outer, self.where)]
        self.contested += int(((into > 0) & (local > 0)).sum())
        np.copyto(into, numbers[local], where=into == 0)
        self.objects.append(_objects(file, info, ids, numbers))


def _finished(maps: LabelMaps) -> dict[int, str]:
    """Tile index -> file of its rows, for tiles that have rows and a label map."""
    present, current = maps.present(), Catalog.open(maps.catalog).current()
    file = dict(zip(current["unit"].to_pylist(), current["path"].to_pylist()))
    table = maps.index_table()
    pairs = zip(table["index"].to_pylist(), table["name"].to_pylist())
    return {index: storage.join(maps.catalog, file[name]) for index, name in pairs if index in present and name in file}


def _where(
    maps: LabelMaps, tile: str | None, image: str | None, box: tuple[int, int, int, int] | None
) -> tuple[TileInfo, Box]:
    """A tile of the image that is asked for, and the box."""
    table = maps.index_table()
    if tile is not None:
        if image is not None or box is not None:
            raise InputError("give a tile, or an image and a box of it, not both")
        found = table.filter(pc.equal(table["name"], tile))
        if not found.num_rows:
            raise InputError(f"there is no tile {tile!r}: the column `tile` of the catalog names them")
        info = maps.tile(found["index"][0].as_py())
        return info, info.outer
    names = pc.unique(table["image"]).to_pylist()
    if image is None and len(names) != 1:
        raise InputError(f"the catalog has {len(names)} images: say which (for example {', '.join(names[:3])})")
    if image is not None and image not in names:
        raise InputError(f"there is no image {image!r}: the column `image` of the catalog names them")
    found = table.filter(pc.equal(table["image"], image or names[0]))
    info = maps.tile(found["index"][0].as_py())
    height, width = info.image_shape
    where = Box(*box) if box is not None else Box(0, 0, width, height)
    if where.width < 1 or where.height < 1:
        raise InputError(f"the box {box} is empty: give x0 < x1 and y0 < y1")
    return info, where


def _reaching(maps: LabelMaps, asked: TileInfo, where: Box, first: str | None) -> Iterator[TileInfo]:
    """Tiles of the image whose outer box meets a box: the one named `first`, then by index."""
    table = maps.index_table()
    table = table.filter(pc.equal(table["image"], asked.image))
    x0, y0 = (table[f"inner_{side}"].to_numpy() - maps.halo for side in ("x0", "y0"))
    meets = (x0 < where.x1) & (x0 + maps.tile_size > where.x0) & (y0 < where.y1) & (y0 + maps.tile_size > where.y0)
    found = table.filter(pa.array(meets))
    names, indices = found["name"].to_pylist(), found["index"].to_pylist()
    for _, index in sorted(zip([name != first for name in names], indices)):
        yield maps.tile(index)


def _slices(cover: Box, box: Box) -> tuple[slice, slice]:
    """Rows and columns of the second box that the first one covers."""
    rows = slice(max(cover.y0 - box.y0, 0), max(min(cover.y1, box.y1) - box.y0, 0))
    return rows, slice(max(cover.x0 - box.x0, 0), max(min(cover.x1, box.x1) - box.x0, 0))


def _objects(file: str, info: TileInfo, ids: np.ndarray, numbers: np.ndarray) -> pa.Table:
    """OBJECTS_SCHEMA of those of a tile's objects that are seen."""
    rows = storage.read_table(file, columns=["object_id", "label_id"], filters=[("tile", "=", info.name)])
    rows = rows.filter(pc.is_in(rows["label_id"], value_set=pa.array(ids.astype(np.int32)))).sort_by("label_id")
    local = rows["label_id"].to_numpy()
    columns = [pa.array(numbers[local]), rows["object_id"], pa.array([info.name] * len(local)), rows["label_id"]]
    return pa.table(columns, names=OBJECTS_SCHEMA.names).cast(OBJECTS_SCHEMA)


def _header(info: TileInfo, where: Box) -> str | None:
    wcs: Wcs | None = info.wcs()
    if wcs is None:
        return None
    return wcs.shifted(where.x0 - info.outer.x0, where.y0 - info.outer.y0, (where.height, where.width)).header
