"""Simulated postage stamps with truth, block by block; every block can be made again alone and identically."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astroml_plugin.errors import InputError
from astroml_plugin.simulation import drawing
from astroml_plugin.simulation.population import (
    Camera,
    Objects,
    Population,
    draw_population,
    draw_psf,
    truth_columns,
)
from astroml_plugin.simulation.profiles import GRIDS, Psf, grid_size, psf_image

Float = NDArray[np.float32]

_BLOCK = 11
"""Kind of the seeds of this module, beside those of skies."""

_ROUNDS = 6
"""Steps of the search for the flux of a given S/N; 6 leave less than 1e-3."""


@dataclass(frozen=True)
class StampSet:
    """A set of simulated stamps; small and picklable, it makes pixels when asked.

    An object's centre lies at pixel `size // 2` (0-based) + `offset`, as a cutout of a Survey has it.
    """

    count: int
    """Stamps."""
    seed: int = 1
    block: int = 1024
    """Stamps per block: the unit of seeds and of work."""
    size: int = 48
    """Side in pixels."""
    psf_size: int = 25
    """Side of the PSF images in pixels."""
    population: Population = field(default_factory=Population)
    camera: Camera = field(default_factory=lambda: Camera(bands=("r",)))
    snr: tuple[float, float] | None = (10.0, 200.0)
    """Matched-filter S/N in the reference band, log-uniform, sets the flux; None: the population's magnitudes do."""
    offset: float = 0.5
    """Centres are uniform within this many pixels in x and y."""
    neighbours: float = 0.0
    """Other objects per arcmin^2 in and around the stamps, of the population's magnitudes."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.block < 1 or self.seed < 0:
            raise InputError("stamps need a count and a block of at least 1 and a seed of 0 or more")
        if not 8 <= self.size <= GRIDS[-1] - 16 or not 3 <= self.psf_size <= 200:
            raise InputError(f"a stamp of {self.size} with a PSF of {self.psf_size} pixels: sizes are 8-240 and 3-200")
        if self.snr is not None and not 0 < self.snr[0] <= self.snr[1]:
            raise InputError(f"S/N range {self.snr} must be positive and rising")

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.count // self.block)

    def block_length(self, index: int) -> int:
        """Stamps in block `index`; the last may be shorter."""
        return min(self.block, self.count - index * self.block)


class Block(NamedTuple):
    """Pixels and truth of one block."""

    image: Float
    """(n, band, y, x)"""
    variance: Float
    """(n, band, y, x)"""
    psf: Float
    """(n, band, psf_y, psf_x), pixel response included, sum about 1."""
    table: pa.Table
    """object_id, ra, dec (null) and the labels."""


def make_block(stamps: StampSet, index: int) -> Block:
    """Block `index` of `stamps`, from its own seed."""
    if not 0 <= index < stamps.blocks:
        raise InputError(f"no block {index} in {stamps.count} stamps: there are {stamps.blocks}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([stamps.seed, _BLOCK, index])))
    # A short last block draws like a whole one: its stamps do not depend on the count.
    objects = draw_population(rng, stamps.block, stamps.population, stamps.camera)
    psfs = [draw_psf(rng, stamps.camera) for _ in range(stamps.block)]
    shift = rng.uniform(-stamps.offset, stamps.offset, (stamps.block, 2))
    target = (
        None
        if stamps.snr is None
        else np.exp(rng.uniform(math.log(stamps.snr[0]), math.log(stamps.snr[1]), stamps.block))
    )
    seeds = rng.integers(0, 2**63, stamps.block)
    count, bands = stamps.block_length(index), len(stamps.camera.bands)
    image = np.zeros((count, bands, stamps.size, stamps.size), np.float32)
    psf = np.empty((count, bands, stamps.psf_size, stamps.psf_size), np.float32)
    snr = np.empty(count)
    for i in range(count):
        goal = None if target is None else float(target[i])
        own = np.random.Generator(np.random.PCG64(int(seeds[i])))
        snr[i] = _draw_stamp(image[i], objects, i, psfs[i], (float(shift[i, 0]), float(shift[i, 1])), goal, stamps, own)
        psf[i] = psf_image(psfs[i], stamps.psf_size, stamps.camera.pixel_scale)
    variance = stamps.camera.variance(image)
    image += np.sqrt(variance) * rng.standard_normal((stamps.block, *image.shape[1:]), dtype=np.float32)[:count]
    table = _labels(
        objects.take(slice(0, count)), psfs[:count], snr, shift[:count], index * stamps.block, stamps.camera
    )
    return Block(image, variance, psf, table)


def _draw_stamp(
    canvas: Float,
    objects: Objects,
    i: int,
    psf: Psf,
    shift: tuple[float, float],
    target: float | None,
    stamps: StampSet,
    rng: np.random.Generator,
) -> float:
    """Draw object `i` and its neighbours on `canvas` (band, y, x), its flux set by `target`; gives its S/N."""
    camera, half = stamps.camera, stamps.size // 2
    size = grid_size(min(max(drawing.reach(objects, i, psf, camera), half + 4), 1.3 * stamps.size))
    stamp = drawing.draw(objects, i, psf, camera, *shift, size)
    first = size // 2 - half
    stamp = stamp[:, first : first + stamps.size, first : first + stamps.size]
    if target is not None:
        factor = _flux_factor(stamp[camera.reference], target, camera)
        stamp *= np.float32(factor)
        objects.mag[i] -= 2.5 * math.log10(factor)
    canvas += stamp
    if stamps.neighbours > 0:
        _add_neighbours(canvas, psf, stamps, rng)
    return drawing.signal_to_noise(stamp[camera.reference], camera)


def _flux_factor(model: Float, target: float, camera: Camera) -> float:
    """What `model` must be multiplied by to be seen at S/N `target`, its own Poisson noise included."""
    factor = 1.0
    for _ in range(_ROUNDS):
        factor *= (target / drawing.signal_to_noise(model * np.float32(factor), camera)) ** 1.2
    return factor


def _add_neighbours(canvas: Float, psf: Psf, stamps: StampSet, rng: np.random.Generator) -> None:
    side = 2 * stamps.size
    area = (side * stamps.camera.pixel_scale / 60) ** 2
    others = draw_population(rng, int(rng.poisson(stamps.neighbours * area)), stamps.population, stamps.camera)
    for j in range(len(others)):
        x, y = rng.uniform(-side / 2, side / 2, 2) + stamps.size // 2
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        size = drawing.natural_size(others, j, psf, stamps.camera)
        stamp = drawing.draw(others, j, psf, stamps.camera, x - column, y - row, size)
        drawing.add(canvas, stamp, column - size // 2, row - size // 2)


def _labels(
    objects: Objects, psfs: list[Psf], snr: NDArray[np.float64], shift: NDArray[np.float64], first: int, camera: Camera
) -> pa.Table:
    count = len(objects)
    columns = {
        "object_id": pa.array(np.arange(first, first + count, dtype=np.int64)),
        "ra": pa.nulls(count, pa.float64()),
        "dec": pa.nulls(count, pa.float64()),
        **truth_columns(objects, camera),
        "snr": pa.array(snr),
        "offset_x": pa.array(shift[:, 0]),
        "offset_y": pa.array(shift[:, 1]),
    }
    for name in ("fwhm", "e1", "e2"):
        columns[f"psf_{name}"] = pa.array([getattr(psf, name) for psf in psfs], pa.float64())
    return pa.table(columns)
