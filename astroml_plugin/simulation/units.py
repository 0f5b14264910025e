"""Units of simulation work: one block of stamps or one tile of a sky, made and written from a small descriptor."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.simulation.skies import Sky
from astroml_plugin.simulation.stamped import Stamped
from astroml_plugin.sky.wcs import TileGeometry
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name

UNIT = "ct"
"""Unit of simulated pixels (counts with the camera's zero point)."""


@dataclass(frozen=True)
class BlockUnit:
    """One block of stamps to write; its index on disk is its index in the set."""

    url: str
    stamps: Stamped
    index: int


@dataclass(frozen=True)
class TileUnit:
    """One tile of a sky to write; its truth goes to `truth_url`."""

    url: str
    truth_url: str
    sky: Sky
    geometry: TileGeometry
    index: int
    psf_size: int
    source_id: str
    tiles: int
    """Tiles of the whole sky."""


def create_stamps(url: str, stamps: Stamped) -> Stamps:
    """An empty store with room for every block of `stamps`."""
    return Stamps.create(
        url,
        bands=stamps.camera.bands,
        size=(stamps.size, stamps.size),
        block=stamps.rows,
        pixel_scale=stamps.camera.pixel_scale,
        zero_points=(stamps.camera.zero_point,) * len(stamps.camera.bands),
        psf_size=(stamps.psf_size, stamps.psf_size),
        variance=stamps.variance,
        layers=getattr(stamps, "layers", ()),
    )


def write_block(unit: BlockUnit) -> int:
    """Make and write one block; gives its number of stamps."""
    block = unit.stamps.make(unit.index)
    store = Stamps.open(unit.url)
    checksum = store.write_block(unit.index, block.image, block.variance, block.psf, block.truth)
    store.commit_objects(unit.index, block.table, checksum)
    return len(block.table)


def create_survey(url: str, sky: Sky, *, tile_size: int, halo: int, psf_size: int) -> Survey:
    """An empty survey for tiles of `sky`, with one PSF cell per tile."""
    return Survey.create(
        url, bands=sky.camera.bands, tile_size=tile_size, halo=halo, psf_shape=(1, 1, psf_size, psf_size)
    )


def write_tile(unit: TileUnit) -> tuple[TileInfo, int]:
    """Make and write one tile and its truth; gives the row to commit and the number of objects it owns."""
    sky, geometry = unit.sky, unit.geometry
    tile, truth = sky.render(geometry.outer, unit.psf_size)
    truth = truth.filter(pa.array(geometry.inner.contains(truth["x"].to_numpy(), truth["y"].to_numpy())))
    checksum = Survey.open(unit.url).write_tile(unit.index, tile)
    storage.write_table(unit.truth_url, truth)
    size = (geometry.outer.height, geometry.outer.width)
    info = TileInfo(
        index=unit.index,
        name=tile_name(sky.name, geometry.row, geometry.column),
        image=sky.name,
        image_shape=(sky.height, sky.width),
        row=geometry.row,
        column=geometry.column,
        outer=geometry.outer,
        inner=geometry.inner,
        header=sky.wcs.shifted(geometry.outer.x0, geometry.outer.y0, size).header,
        units=dict.fromkeys(sky.camera.bands, UNIT),
        zero_points=dict.fromkeys(sky.camera.bands, sky.camera.zero_point),
        has_band=dict.fromkeys(sky.camera.bands, True),
        has_variance=True,
        has_mask=True,
        has_psf=True,
        source=f'[["simulated sky, seed {sky.seed}", 0, ""]]',
        source_id=unit.source_id,
        source_tiles=unit.tiles,
        checksum=checksum,
        bytes=tile.nbytes,
    )
    return info, len(truth)
