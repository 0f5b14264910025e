"""Pieces of crowded sky with the truth of every pixel, block by block: what networks that find objects learn from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, Array
from astroml_plugin.evaluation.detection_metrics import Truth
from astroml_plugin.pixels import Tile, is_usable
from astroml_plugin.simulation.blocks import Blocks
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.objects import STAR
from astroml_plugin.simulation.population import Population, tail_fraction
from astroml_plugin.simulation.postage import Block
from astroml_plugin.simulation.profiles import psf_image
from astroml_plugin.simulation.skies import Sky, SkyObjects
from astroml_plugin.sky.wcs import Box
from astroml_plugin.tasks.segmentation.truth import LAYERS, Scene, truth_layers

_BLOCK = 23
"""Kind of the seeds of this module."""

FIELD_POPULATION = Population(tail=0.7)
"""Galaxies of 20-25.3 mag, dN/dm ~ 10^(0.35 m), and a tail to 26; stars of 17-25.3."""


class Contributions:
    """A ledger (see `skies.Ledger`) of the brightest object in every pixel of a box.

    Light is that of all bands together.
    """

    def __init__(self, box: Box) -> None:
        self.light = np.zeros((box.height, box.width), np.float32)
        self.brightest = np.zeros((box.height, box.width), np.float32)
        self.owner = np.full((box.height, box.width), -1, np.int32)
        self.x: list[float] = []
        self.y: list[float] = []
        self.star: list[float] = []
        self.object_id: list[int] = []

    def note(self, stamp: F32, x: int, y: int, cell: SkyObjects, i: int, box: Box) -> None:
        """Note the light that one object adds to the box (see `skies.Ledger`)."""
        height, width = self.owner.shape
        x0, x1, y0, y1 = max(x, 0), min(x + stamp.shape[2], width), max(y, 0), min(y + stamp.shape[1], height)
        light = stamp[:, y0 - y : y1 - y, x0 - x : x1 - x].sum(0)
        self.light[y0:y1, x0:x1] += light
        here = self.brightest[y0:y1, x0:x1]
        more = light > here
        here[more] = light[more]
        self.owner[y0:y1, x0:x1][more] = len(self.x)
        self.x.append(float(cell.x[i]) - box.x0)
        self.y.append(float(cell.y[i]) - box.y0)
        self.star.append(float(cell.objects.kind[i] == STAR))
        self.object_id.append(int(cell.object_id[i]))

    def scene(self, camera: Camera) -> Scene:
        """The truth of the box, once everything is drawn."""
        light = self.light
        foreground = light > camera.sky_sigma * np.sqrt(len(camera.bands))
        share = np.clip(self.brightest / np.maximum(light, 1e-9), 0, 1).astype(np.float32)
        where = np.array(self.x), np.array(self.y)
        return Scene(self.owner, foreground, share, *where, np.array(self.star, np.float32))


def render_scene(sky: Sky, box: Box, psf_size: int | None = None) -> tuple[Tile, pa.Table, Scene, Contributions]:
    """Observed pixels and truth table as `Sky.render`, and the truth of every pixel."""
    ledger = Contributions(box)
    tile, table = sky.render(box, psf_size, ledger)
    return tile, table, ledger.scene(sky.camera), ledger


def field_sky(seed: int, side: int, seeing: float, galaxies: float = 35.0, population: Population | None = None) -> Sky:
    """A sky of one band to find objects in.

    Args:
        seed: of everything.
        side: pixels.
        seeing: FWHM of the PSF, arcsec.
        galaxies: per arcmin^2, between the limits of the population's magnitudes: the tail and stars come on top.
        population: another than `FIELD_POPULATION`.
    """
    population = population or FIELD_POPULATION
    density = galaxies / (1 - tail_fraction(population)) / (1 - population.star_fraction)
    return Sky(side, side, seed, density, population, Camera(bands=("r",), psf_fwhm=(seeing, seeing)))


def truth_of(sky: Sky, psf_size: int | None = 25) -> tuple[Tile, Truth]:
    """Observed pixels of a whole sky of one band, and its truth as figures of merit need it."""
    tile, table, scene, ledger = render_scene(sky, Box(0, 0, sky.width, sky.height), psf_size)
    ids = table["object_id"].to_numpy()
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], ledger.object_id).clip(0, max(len(ids) - 1, 0))
    number = np.full(len(ledger.object_id) + 1, -1, np.int32)
    if len(ids):
        known = ids[order][place] == ledger.object_id
        number[:-1][known] = order[place][known]
    x, y, mag, flux, snr = (table[name].to_numpy() for name in ("x", "y", "mag", "flux", "snr"))
    truth = Truth(
        *(x, y, mag, flux, snr),
        np.array(table["class"].to_pylist(), object) == "star",
        scene.foreground,
        number[scene.owner],
        sky.psf_at(0, 0).fwhm / sky.camera.pixel_scale,
    )
    return tile, truth


@dataclass(frozen=True)
class FieldSet(Blocks):
    """Square pieces of simulated skies; small and picklable, it makes pixels when asked.

    Every block is one sky of its own PSF and density, cut into pieces.
    """

    count: int
    """Pieces."""
    seed: int = 1
    block: int = 16
    """Pieces per block, a square number."""
    size: int = 256
    """Side of a piece in pixels."""
    psf_size: int = 25
    """Side of the PSF images in pixels."""
    population: Population = FIELD_POPULATION
    camera: Camera = field(default_factory=lambda: Camera(bands=("r",), psf_fwhm=(0.5, 1.0)))
    density: tuple[float, float] = (35.0, 60.0)
    """Objects per arcmin^2, stars and tail included; uniform from block to block."""
    variance: ClassVar[bool] = True
    layers: ClassVar[tuple[str, ...]] = LAYERS

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0 or round(self.block**0.5) ** 2 != self.block or self.size < 32:
            raise InputError(
                f"fields need a count of 1 or more ({self.count}), a seed of 0 or more ({self.seed}), a square number "
                f"of pieces per block ({self.block}) and a size of 32 or more ({self.size})"
            )
        if not 0 <= self.density[0] <= self.density[1]:
            raise InputError(f"the density range {self.density} must rise from 0 or more")

    def sky(self, index: int) -> Sky:
        """The sky of block `index`."""
        rng = self.generator(_BLOCK, index)
        fwhm, density = float(rng.uniform(*self.camera.psf_fwhm)), float(rng.uniform(*self.density))
        side = round(self.block**0.5) * self.size
        camera = replace(self.camera, psf_fwhm=(fwhm, fwhm))
        return Sky(side, side, int(rng.integers(2**31)), density, self.population, camera)

    def make(self, index: int) -> Block:
        """Block `index`, from its own seed."""
        sky = self.sky(index)
        count = self.block_length(index)
        tile, _, scene, _ = render_scene(sky, Box(0, 0, sky.width, sky.height))
        assert tile.variance is not None
        assert tile.mask is not None
        unusable = ~is_usable(tile.mask)
        image, variance = np.where(unusable, 0, tile.image), np.where(unusable, 0, tile.variance)
        pieces = [self._pieces(plane)[:count] for plane in (image, variance, truth_layers(scene))]
        psf = psf_image(sky.psf_at(0, 0), self.psf_size, self.camera.pixel_scale)
        psfs = np.ascontiguousarray(np.broadcast_to(psf, (count, len(self.camera.bands), *psf.shape)))
        table = pa.table(
            {
                "object_id": pa.array(range(index * self.block, index * self.block + count), pa.int64()),
                "psf_fwhm": pa.array([sky.psf_at(0, 0).fwhm] * count),
                "density": pa.array([sky.density] * count),
            }
        )
        return Block(pieces[0], pieces[1], psfs, table, pieces[2])

    def _pieces(self, plane: Array) -> Array:
        """(n, layer, size, size) from (layer, y, x)."""
        side = round(self.block**0.5)
        cut = plane.reshape(len(plane), side, self.size, side, self.size)
        return np.ascontiguousarray(cut.transpose(1, 3, 0, 2, 4).reshape(-1, len(plane), self.size, self.size))
