"""Views: a box of one parent image, chosen by a tile, a cone on the sky, an object, or the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.cones import Cone, ConeLike, checked_cone
from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.showing.options import SIDE
from astroml_plugin.sky.wcs import Box, Wcs, separation
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, parent_wcs

_CORNERS = [f"{axis}_corner{number}" for axis in ("ra", "dec") for number in range(4)]


@dataclass(frozen=True)
class View:
    """A box of a parent image."""

    image: str
    """The parent image."""
    box: Box
    """Pixels that are shown, within the image."""
    wcs: Wcs | None
    """World coordinates of the parent image; None without any."""
    tiles: tuple[TileInfo, ...]
    """Tiles that own pixels of the box."""
    title: str
    """Description in words."""
    circle: tuple[float, float, float] | None = None
    """(x, y, radius) in pixels of the parent image of a cone that was asked for."""
    object_id: int | None = None
    """Object that was asked for."""

    def jacobian(self) -> F64 | None:
        """(2, 2) arcsec per pixel in the middle (rows West and North, columns x and y); None without a sky there."""
        if self.wcs is None:
            return None
        x, y = (self.box.x0 + self.box.x1 - 1) / 2, (self.box.y0 + self.box.y1 - 1) / 2
        matrix: F64 = self.wcs.jacobian(x, y)[0]
        return matrix if np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0 else None


def choose(
    survey: Survey,
    catalog: Catalog | None = None,
    *,
    tile: str | None = None,
    cone: ConeLike | None = None,
    object_id: int | None = None,
    image: str | None = None,
    side: int = SIDE,
) -> View:
    """The view that was asked for; without any wish the first image, or the one with a name.

    Args:
        survey: the pixels.
        catalog: of the object.
        tile: name of a tile: the pixels that it owns.
        cone: (ra, dec, radius) in degrees, or as `checked_cone` takes it.
        object_id: an object of the catalog.
        image: name of a parent image.
        side: pixels around an object.

    Raises:
        InputError: two wishes at once, or nothing there.
    """
    if sum(one is not None for one in (tile, cone, object_id)) > 1:
        raise InputError("a picture shows one thing: give one of --tile, --cone and --object")
    if tile is not None:
        return _of_tile(survey, tile)
    if cone is not None:
        return _of_cone(survey, checked_cone(cone), image)
    if object_id is not None:
        if catalog is None:
            raise InputError("--object needs a catalog that knows it: give the catalog in place of the survey")
        return _of_object(survey, catalog, object_id, side)
    return _whole(survey, image)


def _index(survey: Survey) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = survey.columns(["index", "name", "image"]).to_pydict()
    if not columns["index"]:
        raise InputError(f"{storage.redact(survey.url)} has no tiles yet: ingest images first")
    return columns


def _nearest(wanted: str, names: Sequence[object], what: str) -> InputError:
    import difflib

    known = list(dict.fromkeys(map(str, names)))
    near = difflib.get_close_matches(wanted, known, 3, 0.4) or known[:3]
    return InputError(f"there is no {what} {wanted!r}: there are {len(known)}, for example {', '.join(near)}")


def _of_tile(survey: Survey, name: str) -> View:
    index = _index(survey)
    if name not in index["name"]:
        raise _nearest(name, index["name"], "tile")
    info = survey.tile(int(str(index["index"][index["name"].index(name)])))
    return _view(survey, info.image, info.inner, f"tile {name}")


def _whole(survey: Survey, image: str | None) -> View:
    images = _index(survey)["image"]
    chosen = str(images[0]) if image is None else image
    if chosen not in images:
        raise _nearest(chosen, images, "image")
    others = len(set(images)) - 1
    more = f" ({others} more in the survey: --image NAME)" if others and image is None else ""
    return _view(survey, chosen, None, f"image {chosen}{more}")


def _of_object(survey: Survey, catalog: Catalog, object_id: int, side: int) -> View:
    text = (
        f"SELECT image, tile, x, y FROM catalog WHERE object_id = {int(object_id)} "  # noqa: S608
        'ORDER BY "primary" DESC, image, x, y LIMIT 1'
    )
    found = query(catalog.url, text).to_arrow().to_pylist()
    if not found:
        raise InputError(f"the catalog has no object {object_id}: give the object_id of one of its rows")
    row = found[0]
    if row["x"] is None or not np.isfinite(row["x"]):
        raise InputError(f"object {object_id} has no position in an image: it cannot be shown")
    x0, y0 = int(np.floor(row["x"] + 0.5)) - side // 2, int(np.floor(row["y"] + 0.5)) - side // 2
    box = Box(x0, y0, x0 + side, y0 + side)
    return _view(survey, str(row["image"]), box, f"object {object_id}", object_id=object_id)


def _of_cone(survey: Survey, cone: Cone, image: str | None) -> View:
    ra, dec, radius = cone
    _index(survey)
    table = survey.columns(["index", "image", *_CORNERS])
    corners = np.array([table[name].to_numpy(zero_copy_only=False) for name in _CORNERS], float)
    if not np.isfinite(corners).all(0).any():
        raise InputError("a cone needs world coordinates, and no image of the survey has any: give --tile or --object")
    gap = separation(corners[:4], corners[4:], ra, dec)
    reach = separation(corners[:4], corners[4:], corners[0], corners[4]).max(0)
    near = np.flatnonzero(np.nan_to_num(gap.min(0), nan=999.0) <= radius + reach + 1e-6)
    names = table["image"].to_pylist()
    best: tuple[float, str, float, float, float] | None = None
    for name in dict.fromkeys(names[k] for k in near.tolist() if image in (None, names[k])):
        info = survey.tile(int(table["index"][names.index(name)].as_py()))
        wcs = info.wcs()
        if wcs is None:
            continue
        whole = parent_wcs(info, wcs)
        x, y = (float(value[0]) for value in whole.to_pixel(ra, dec))
        if not np.isfinite(x):
            continue
        height, width = info.image_shape
        inside = min(x, width - 1 - x, y, height - 1 - y)
        pixels = radius * 3600 / whole.pixel_scale
        if inside > -pixels and (best is None or inside > best[0]):
            best = (inside, name, x, y, pixels)
    if best is None:
        where = "no image" if image is None else f"image {image} does not"
        raise InputError(
            f"{where} of the survey {'reaches' if image is None else 'reach'} into a cone of {radius:g} degrees at "
            f"{ra:g} {dec:+g}: `export SURVEY --to reg` shows where its tiles are"
        )
    _, name, x, y, pixels = best
    half = max(pixels * 1.05, 8.0)
    box = Box(int(x - half), int(y - half), int(x + half) + 1, int(y + half) + 1)
    return _view(survey, name, box, f"{radius * 60:.3g} arcmin around {ra:.5f} {dec:+.5f}", circle=(x, y, pixels))


def _view(
    survey: Survey,
    image: str,
    box: Box | None,
    title: str,
    circle: tuple[float, float, float] | None = None,
    object_id: int | None = None,
) -> View:
    """The view of a box (None: all) of an image, cut to the image."""
    names = ["index", "image", "image_height", "image_width", *(f"inner_{side}" for side in ("x0", "y0", "x1", "y1"))]
    table = survey.columns(names)
    mine = np.array(table["image"].to_pylist(), object) == image
    if not mine.any():
        raise InputError(f"the survey has no image {image!r}: it was replaced since the catalog was made")
    first = int(np.flatnonzero(mine)[0])
    height, width = (int(table[name][first].as_py()) for name in ("image_height", "image_width"))
    shown = (Box(0, 0, width, height) if box is None else box).clipped(height, width)
    if shown.width < 1 or shown.height < 1:
        raise InputError(f"{title} lies outside image {image} of {width} x {height} pixels")
    x0, y0, x1, y1 = (table[f"inner_{side}"].to_numpy() for side in ("x0", "y0", "x1", "y1"))
    meets = mine & (x0 < shown.x1) & (x1 > shown.x0) & (y0 < shown.y1) & (y1 > shown.y0)
    tiles = tuple(survey.tile(int(table["index"][k].as_py())) for k in np.flatnonzero(meets).tolist())
    source = tiles[0] if tiles else survey.tile(int(table["index"][first].as_py()))
    own = source.wcs()
    wcs = None if own is None else parent_wcs(source, own)
    return View(image, shown, wcs, tiles, title, circle, object_id)
