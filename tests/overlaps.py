"""One simulated sky and images of it that overlap: as rows of a catalog, and as pixels to find the sources in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.spatial import cKDTree

from astroml_plugin.catalog import Catalog, Column, primary, schema
from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.sky.wcs import Wcs, healpix29
from tests import universe

COLUMNS = (
    Column("label_id", "int32", "", "meta.id.part", "Number in the label map"),
    Column("source", "int64", "", "meta.id", "Number of the true source"),
)
SIDE = 400
"""Pixels along a side of the images that are rows only."""


@dataclass(frozen=True)
class Image:
    """An image of the sky."""

    name: str
    ra: float = 150.0
    dec: float = 2.0
    depth: float | None = 25.0
    """Magnitude down to which it shows sources, and which it says of itself; None: it says nothing, and shows all."""
    offset: float = 0.0
    """Arcsec by which its astrometry is off, towards the North."""
    fwhm: float = 1.0
    """Arcsec."""
    bad: frozenset[int] = frozenset()
    """Sources that it shows with a masked pixel."""
    blind: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """Where it has no pixels, of x and y."""

    def rows(self, ra: np.ndarray, dec: np.ndarray, magnitude: np.ndarray, tile: str) -> pa.Table:
        """Detections of the sources of a sky, with noise of 0.03 arcsec."""
        wcs = Wcs.from_header(universe.header(SIDE, SIDE, self.ra, self.dec))
        rng = np.random.default_rng(list(self.name.encode()))
        x, y = wcs.to_pixel(ra, dec)
        inside = (np.abs(x - SIDE / 2 + 0.5) < SIDE / 2) & (np.abs(y - SIDE / 2 + 0.5) < SIDE / 2)
        seen = inside & (magnitude < (self.depth or np.inf))
        if self.blind is not None:
            seen &= ~self.blind(x, y)
        number = np.flatnonzero(seen)
        x, y = (value[seen] + rng.normal(0, 0.03 / universe.SCALE, len(number)) for value in (x, y))
        there_ra, there_dec = wcs.to_sky(x, y)
        there_dec = there_dec + self.offset / 3600
        flags = np.where(np.isin(number, list(self.bad)), 2, 0).astype(np.int32)
        return pa.table(
            {
                "object_id": healpix29(there_ra, there_dec),
                "image": [self.name] * len(number),
                "tile": [tile] * len(number),
                **{"x": x, "y": y, "ra": there_ra, "dec": there_dec},
                "primary": np.ones(len(number), bool),
                "flags": flags,
                "label_id": np.arange(1, len(number) + 1, dtype=np.int32),
                "source": number,
            }
        )


def sky(count: int = 300, ra: float = 150.0, dec: float = 2.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Positions (degrees) and magnitudes (22 to 26) of sources about a place, 0.4 arcsec apart or more."""
    rng = np.random.default_rng(seed)
    wcs = Wcs.from_header(universe.header(SIDE, SIDE, ra, dec))
    x, y = rng.uniform(-50, SIDE + 50, (2, count))
    close = cKDTree(np.stack([x, y], 1)).query_pairs(0.4 / universe.SCALE, output_type="ndarray")
    x, y = np.delete(x, close[:, 1]), np.delete(y, close[:, 1])
    there_ra, there_dec = wcs.to_sky(x, y)
    return np.asarray(there_ra) % 360, there_dec, rng.uniform(22, 26, len(x))


def write(catalog: Catalog, stars: Sequence[np.ndarray], *images: Image, digest: str = "a" * 16, half: int = 0) -> None:
    """One run that adds a tile with the sources of each image (of its left or right half: 1, 2), and decides."""
    run, infos = catalog.start_run({"kind": "infer"}), []
    for image in images:
        unit = f"{image.name}_r0_c{half}"
        rows = image.rows(*stars, unit)
        if half:
            rows = rows.filter((np.asarray(rows["x"]) < SIDE / 2) == (half == 1))
        told = Exposure(image.name, SIDE, SIDE, image.depth, image.fwhm, True)
        infos.append(catalog.write_part(unit, digest, rows, told))
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run, {primary.FOLDER: primary.decide(catalog)})


def catalog_of(folder: Path | str, images: Sequence[Image], stars: Sequence[np.ndarray]) -> Catalog:
    """A finished catalog of images that overlap."""
    made = Catalog.create(str(folder), schema(COLUMNS), {"source": "s", "bundle": "b"})
    primary.begin(made.url, primary.MATCHED)
    write(made, stars, *images)
    return made


def painted(ra: float, dec: float, noise: float, *, offset: float = 0.0, seed: int = 1, count: int = 150) -> Callable:
    """A change for `universe.make_survey`: pixels of one sky of `count` sources, seen from (ra, dec) with a noise.

    Args:
        ra, dec: centre of the image in degrees, as its header has it.
        noise: of a pixel.
        offset: pixels by which all is shifted along y.
        seed: of the noise.
        count: of the sources, which lie within 30 pixels of the image about (150, 2).
    """

    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        height, width = image.shape[1:]
        home = Wcs.from_header(universe.header(height, width))
        here = Wcs.from_header(universe.header(height, width, ra, dec))
        rng = np.random.default_rng(0)
        places = rng.uniform(-30, 30 + np.array([[width], [height]]), (2, count))
        x, y = here.to_pixel(*home.to_sky(*places))
        flux = 10 ** rng.uniform(0.6, 2.0, count)
        image[:] = np.random.default_rng(seed).normal(0, noise, image.shape)
        variance[:] = noise**2
        at_y, at_x = np.mgrid[:height, :width]
        for one in range(count):
            image += flux[one] * np.exp(-((at_x - x[one]) ** 2 + (at_y - y[one] - offset) ** 2) / 18)

    return change
