"""One coherent simulated sky: objects and noise belong to the sky, so every tiling of it has the same pixels.

Objects are drawn per cell of 512 pixels, noise and defects per block of 256 pixels, each from a seed of its own
(`SeedSequence([seed, kind, row, column])`). A tile is the sum of all objects that reach it, in the order of their ids,
plus the noise of the blocks it lies on: any part of the sky can be made again alone, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import pyarrow as pa
from astropy.io.fits import Card

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import F32, F64, I64, U32, Bool
from astroml_plugin.pixels import Tile
from astroml_plugin.simulation import drawing
from astroml_plugin.simulation.artefacts import PAINTED, artefact
from astroml_plugin.simulation.camera import NOISE_MARGIN, Camera, correlated
from astroml_plugin.simulation.defects import track
from astroml_plugin.simulation.objects import Objects, truth_columns
from astroml_plugin.simulation.population import Population, draw_population
from astroml_plugin.simulation.profiles import GRIDS, Psf, psf_image
from astroml_plugin.sky.wcs import Box, Wcs

CELL = 512
"""Side in pixels of the squares that objects are drawn by."""

NOISE_BLOCK = 256
"""Side in pixels of the squares that noise and defects are drawn by."""

SKY_POPULATION = Population(bulge_probability=0.3)
"""Default population of a sky."""

_OBJECTS, _NOISE, _DEFECTS, _FIELD, _ARTEFACTS = 1, 2, 3, 4, 5
_PAINTED = NOISE_BLOCK // 2  # side of the squares that artefacts are painted on
_MOST_ARTEFACTS = 1000.0
_FADING = 24  # pixels from the rim of such a square within which they fade
_MARGIN = GRIDS[-1] // 2
_IDS_PER_CELL = 100_000
_PSF_WAVE = 4000.0


@dataclass(frozen=True)
class Sky:
    """A simulated parent image; small and picklable, it makes pixels when asked."""

    height: int
    """Pixels along y."""
    width: int
    """Pixels along x."""
    seed: int = 1
    density: float = 30.0
    """Objects (galaxies and stars) per arcmin^2."""
    population: Population = SKY_POPULATION
    camera: Camera = field(default_factory=Camera)
    name: str = "sky"
    """Name of the parent image."""
    ra: float = 150.1
    """Degrees, of the image's centre."""
    dec: float = 2.2
    """Degrees, of the image's centre."""
    rotation: float = 20.0
    """Degrees from North through East of the image's +y axis."""
    artefacts: float = 0.0
    """Trails, ghosts, hot pixels and the like (`artefacts.PAINTED`) per arcmin² and band, none of them masked, each on
    a square of 128 pixels with fading rims."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.seed < 0 or not 0 <= self.density < math.inf:
            raise InputError("a sky needs positive height and width, seed and density of 0 or more")
        if not 0 <= self.artefacts <= _MOST_ARTEFACTS:
            raise InputError(f"artefacts ({self.artefacts}) per arcmin² and band lie from 0 to {_MOST_ARTEFACTS}")
        if self.density * self._cell_area > _IDS_PER_CELL / 2:
            raise InputError(f"a density of {self.density} per arcmin^2 is beyond what a sky can number: lower it")

    @property
    def _cell_area(self) -> float:
        """Arcmin^2 of one cell."""
        return (CELL * self.camera.pixel_scale / 60) ** 2

    @cached_property
    def wcs(self) -> Wcs:
        """TAN world coordinates of the parent image, East to the left at rotation 0."""
        scale, angle = self.camera.pixel_scale / 3600, math.radians(self.rotation)
        cards: dict[str, float | str] = {
            **{"NAXIS1": self.width, "NAXIS2": self.height, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
            **{"CRVAL1": self.ra, "CRVAL2": self.dec, "CUNIT1": "deg", "CUNIT2": "deg"},
            **{"CRPIX1": (self.width + 1) / 2, "CRPIX2": (self.height + 1) / 2},
            **{"CD1_1": -scale * math.cos(angle), "CD1_2": scale * math.sin(angle)},
            **{"CD2_1": scale * math.sin(angle), "CD2_2": scale * math.cos(angle), "RADESYS": "ICRS"},
        }
        return Wcs("\n".join(Card(key, value).image.rstrip() for key, value in cards.items()))

    # --- objects --------------------------------------------------------------------------------------------------

    def psf_at(self, x: float, y: float) -> Psf:
        """The PSF at a pixel position: a smooth field within the camera's ranges."""
        camera = self.camera
        low, high = camera.psf_fwhm
        if low == high and camera.psf_ellipticity == 0:
            return Psf(camera.psf_profile, low, 0.0, 0.0)
        waves = _psf_waves(self.seed)
        value = np.sin((waves[:, 0] * x + waves[:, 1] * y) / _PSF_WAVE + waves[:, 2])
        e1, e2 = camera.psf_ellipticity * value[1:] / math.sqrt(2)
        return Psf(camera.psf_profile, (low + high) / 2 + (high - low) / 2 * float(value[0]), float(e1), float(e2))

    def cell(self, row: int, column: int) -> SkyObjects:
        """The objects of one cell (cells of row or column -1 lie before the image)."""
        return _cell_objects(replace(self, name=""), row, column)

    def cells(self, box: Box) -> Iterator[SkyObjects]:
        """All cells whose objects may reach `box`, row by row."""
        rows = range(max(-1, (box.y0 - _MARGIN) // CELL), min(-(-self.height // CELL), (box.y1 + _MARGIN) // CELL) + 1)
        columns = range(
            max(-1, (box.x0 - _MARGIN) // CELL), min(-(-self.width // CELL), (box.x1 + _MARGIN) // CELL) + 1
        )
        for row in rows:
            for column in columns:
                yield self.cell(row, column)

    # --- pixels ---------------------------------------------------------------------------------------------------

    def model(self, box: Box, ledger: Ledger | None = None) -> tuple[F32, pa.Table]:
        """Noiseless counts (band, y, x) of `box` (which may reach beyond the image) and its objects' truth.

        A `ledger` is told of every object that is drawn.
        """
        canvas = np.zeros((len(self.camera.bands), box.height, box.width), np.float32)
        image = Box(0, 0, self.width, self.height)
        tables = []
        for cell in self.cells(box):
            inside = box.contains(cell.x, cell.y) & image.contains(cell.x, cell.y)
            snr = np.full(len(cell.x), np.nan)
            for i in range(len(cell.x)):
                snr[i] = self._draw(canvas, cell, i, box, bool(inside[i]), ledger)
            tables.append(self._truth(cell, snr, inside))
        return canvas, pa.concat_tables(tables)

    def _draw(self, canvas: F32, cell: SkyObjects, i: int, box: Box, measure: bool, ledger: Ledger | None) -> float:
        """Add one object where it reaches the box; gives its S/N when asked."""
        x, y, size = float(cell.x[i]), float(cell.y[i]), int(cell.size[i])
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        x0, y0 = column - size // 2, row - size // 2
        if x0 >= box.x1 or y0 >= box.y1 or x0 + size <= box.x0 or y0 + size <= box.y0:
            return math.nan
        stamp = drawing.draw(cell.objects, i, self.psf_at(x, y), self.camera, x - column, y - row, size)
        drawing.add(canvas, stamp, x0 - box.x0, y0 - box.y0)
        if ledger is not None:
            ledger.note(stamp, x0 - box.x0, y0 - box.y0, cell, i, box)
        return drawing.signal_to_noise(stamp[self.camera.reference], self.camera) if measure else math.nan

    def _truth(self, cell: SkyObjects, snr: F64, keep: Bool) -> pa.Table:
        objects, camera = cell.objects.take(keep), self.camera
        x, y = cell.x[keep], cell.y[keep]
        ra, dec = self.wcs.to_sky(x, y) if len(x) else (x, y)
        columns = {
            "object_id": pa.array(cell.object_id[keep], pa.int64()),
            "image": pa.array([self.name] * len(x), pa.string()),
            **{"x": x, "y": y, "ra": ra, "dec": dec},
            **truth_columns(objects, camera),
            "snr": snr[keep],
        }
        psfs = [self.psf_at(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        for name in ("fwhm", "e1", "e2"):
            columns[f"psf_{name}"] = pa.array([getattr(psf, name) for psf in psfs], pa.float64())
        return pa.table(columns)

    def render(self, box: Box, psf_size: int | None = None, ledger: Ledger | None = None) -> tuple[Tile, pa.Table]:
        """Observed pixels of `box` and the truth of the objects centred in it; `ledger` as in `model`.

        `Tile.image` and `variance` (band, y, x) float32, NaN beyond the image; `mask` with NO_DATA there; `psf` the
        PSF at the box's centre on (band, 1, 1, psf_size, psf_size), None without `psf_size`.
        """
        model, truth = self.model(box, ledger)
        mask = np.zeros(model.shape, np.uint32)
        saturated = model >= self.camera.saturation
        np.minimum(model, np.float32(self.camera.saturation), out=model)
        variance = self.camera.variance(model)
        image = np.add(model, np.sqrt(variance) * self._noise(box), dtype=np.float32)
        mask[saturated] |= int(MaskBit.SATURATED)
        self._add_defects(image, mask, box)
        outside = np.ones(model.shape[1:], bool)
        part = box.clipped(self.height, self.width)
        outside[max(part.y0 - box.y0, 0) : part.y1 - box.y0, max(part.x0 - box.x0, 0) : part.x1 - box.x0] = False
        image[:, outside] = variance[:, outside] = np.nan
        mask[:, outside] = int(MaskBit.NO_DATA)
        return Tile(image, variance, mask, self._psf(box, psf_size)), truth

    def _psf(self, box: Box, size: int | None) -> F32 | None:
        if size is None:
            return None
        psf = self.psf_at((box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2)
        one = psf_image(psf, size, self.camera.pixel_scale)
        return np.ascontiguousarray(np.broadcast_to(one, (len(self.camera.bands), 1, 1, size, size)))

    def _blocks(self, box: Box) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
        """Noise blocks of the image under `box`: row, column, slices of the box, slices of the block."""
        part = box.clipped(self.height, self.width)
        for row in range(part.y0 // NOISE_BLOCK, -(-part.y1 // NOISE_BLOCK)):
            for column in range(part.x0 // NOISE_BLOCK, -(-part.x1 // NOISE_BLOCK)):
                y, x = row * NOISE_BLOCK, column * NOISE_BLOCK
                y0, y1 = max(y, part.y0), min(y + NOISE_BLOCK, part.y1)
                x0, x1 = max(x, part.x0), min(x + NOISE_BLOCK, part.x1)
                here = slice(y0 - box.y0, y1 - box.y0), slice(x0 - box.x0, x1 - box.x0)
                yield row, column, here, (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))

    def _noise(self, box: Box) -> F32:
        """Unit normal deviates (band, y, x) with the camera's correlation, 0 beyond the image."""
        if self.camera.noise_correlation == 0:
            return self._white_noise(box)
        more = NOISE_MARGIN
        wider = Box(box.x0 - more, box.y0 - more, box.x1 + more, box.y1 + more)
        return correlated(self._white_noise(wider), self.camera.noise_correlation)

    def _white_noise(self, box: Box) -> F32:
        bands = len(self.camera.bands)
        noise = np.zeros((bands, box.height, box.width), np.float32)
        for row, column, here, there in self._blocks(box):
            rng = _generator(self.seed, _NOISE, row, column)
            block = rng.standard_normal((bands, NOISE_BLOCK, NOISE_BLOCK), dtype=np.float32)
            noise[:, here[0], here[1]] = block[:, there[0], there[1]]
        return noise

    def _add_defects(self, image: F32, mask: U32, box: Box) -> None:
        """Bad pixels (NaN) and cosmic rays, in place."""
        for row, column, here, there in self._blocks(box):
            rays, bad = self._defects(row, column)
            rays, bad = rays[:, there[0], there[1]], bad[:, there[0], there[1]]
            pixels, bits = image[:, here[0], here[1]], mask[:, here[0], here[1]]
            if self.artefacts:
                pixels += self._painted(row, column)[:, there[0], there[1]]
            pixels += rays
            bits[rays > 0] |= int(MaskBit.COSMIC_RAY)
            pixels[bad] = np.nan
            bits[bad] |= int(MaskBit.BAD)

    def _defects(self, row: int, column: int) -> tuple[F32, Bool]:
        """Cosmic-ray counts and bad pixels of one noise block, (band, block, block)."""
        rng, bands = _generator(self.seed, _DEFECTS, row, column), len(self.camera.bands)
        shape = (bands, NOISE_BLOCK, NOISE_BLOCK)
        rays, bad = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for _ in range(rng.poisson(self.camera.bad_pixels * bad.size)):
            bad[rng.integers(bands), rng.integers(NOISE_BLOCK), rng.integers(NOISE_BLOCK)] = True
        area = (NOISE_BLOCK * self.camera.pixel_scale / 60) ** 2
        for _ in range(rng.poisson(self.camera.cosmic_rays * area * bands)):
            band = rng.integers(bands)
            y, x = track(rng, NOISE_BLOCK)
            rays[band, y, x] = rng.uniform(50, 500)
        return rays, bad

    def _painted(self, row: int, column: int) -> F32:
        """Light of the artefacts of one noise block, counts (band, block, block)."""
        rng, camera = _generator(self.seed, _ARTEFACTS, row, column), self.camera
        light = np.zeros((len(camera.bands), NOISE_BLOCK, NOISE_BLOCK), np.float32)
        nothing = np.zeros((_PAINTED, _PAINTED), np.float32)
        rim = np.minimum(np.arange(_PAINTED) + 1, _PAINTED - np.arange(_PAINTED)).clip(0, _FADING) / _FADING
        fading = np.outer(rim, rim).astype(np.float32)
        middle = (column + 0.5) * NOISE_BLOCK, (row + 0.5) * NOISE_BLOCK
        fwhm = self.psf_at(*middle).fwhm / camera.pixel_scale
        for band, factor in zip(light, camera.noise_of_bands or (1.0,) * len(light), strict=True):
            for _ in range(rng.poisson(self.artefacts * (NOISE_BLOCK * camera.pixel_scale / 60) ** 2)):
                y, x = rng.integers(0, NOISE_BLOCK - _PAINTED + 1, 2)
                _, made = artefact(rng, nothing, fwhm, PAINTED)
                band[y : y + _PAINTED, x : x + _PAINTED] += made * fading * np.float32(camera.sky_sigma * factor)
        return light


class Ledger(Protocol):
    """Takes note of who gave which light."""

    def note(self, stamp: F32, x: int, y: int, cell: SkyObjects, i: int, box: Box) -> None:
        """Object `i` of a cell was drawn: `stamp` (band, n, n), its first pixel at (x, y) of the box."""


@dataclass(frozen=True)
class SkyObjects:
    """The objects of one cell."""

    object_id: I64
    x: F64
    """Pixels of the parent image, 0-based."""
    y: F64
    objects: Objects
    size: I64
    """Side of the square each is drawn on."""


@lru_cache(maxsize=256)
def _cell_objects(sky: Sky, row: int, column: int) -> SkyObjects:
    rng = _generator(sky.seed, _OBJECTS, row + 1, column + 1)
    count = int(rng.poisson(sky.density * sky._cell_area))
    x, y = rng.uniform(0, CELL, count) + column * CELL, rng.uniform(0, CELL, count) + row * CELL
    objects = draw_population(rng, count, sky.population, sky.camera)
    across = -(-sky.width // CELL) + 2
    first = ((row + 1) * across + column + 1) * _IDS_PER_CELL
    positions = zip(x.tolist(), y.tolist(), strict=True)
    sizes = [drawing.natural_size(objects, i, sky.psf_at(*at), sky.camera) for i, at in enumerate(positions)]
    return SkyObjects(np.arange(first, first + count, dtype=np.int64), x, y, objects, np.array(sizes, np.int64))


@lru_cache(maxsize=8)
def _psf_waves(seed: int) -> F64:
    """(3, 3): wave vector and phase of FWHM, e1 and e2 over the field."""
    rng = _generator(seed, _FIELD)
    angle, phase = rng.uniform(0, 2 * math.pi, (2, 3))
    return np.stack([2 * math.pi * np.cos(angle), 2 * math.pi * np.sin(angle), phase], axis=1)


def _generator(*key: int) -> np.random.Generator:
    """The random numbers that belong to `key` (seed, kind, place), whoever asks for them."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))
