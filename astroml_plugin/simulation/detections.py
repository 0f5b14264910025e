"""Stamps of what a survey detects in one band: stars, galaxies of four kinds and artefacts, the kind as label."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32
from astroml_plugin.simulation.artefacts import artefact
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.designs import Single
from astroml_plugin.simulation.kinds import Irregular, RealGalaxies
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import Block, StampSet

_KIND = 23
"""Kind of the seeds of this module."""

_SEEDS = 1_000_000
"""First seed of the sets that stamps are drawn from: beyond those that people take."""

EDGE_ON = 0.48
"""|e| = (a - b) / (a + b) from which a disk is seen from the side: an axis ratio of 0.35."""

_GALAXIES = Population(star_fraction=0.0, ellipticity="rayleigh")
_POPULATIONS: dict[str, Population] = {
    "star": Population(star_fraction=1.0),
    "early": replace(
        _GALAXIES, sersic_n=(2.8, 6.0), half_light_radius=(0.2, 1.2), ellipticity_scale=0.12, ellipticity_max=0.4
    ),
    "disk": replace(
        _GALAXIES,
        sersic_n=(0.5, 1.5),
        half_light_radius=(0.3, 1.5),
        ellipticity_scale=0.35,
        ellipticity_max=0.85,
        bulge_probability=0.4,
    ),
    "irregular": replace(_GALAXIES, half_light_radius=(0.4, 1.5), ellipticity_scale=0.2, kinds=(Irregular(1.0),)),
    "artefact": Population(star_fraction=1.0),
}
"""Group -> what its stamps show; disks are `late` or `edge_on` by their ellipticity."""

_STRUCTURES = {"early": "early", "disk": "late", "irregular": "irregular"}
"""Group -> the structure of the real galaxies that are like it."""

_CLIP = (4.0, 400.0)
"""Levels of clipped stamps in units of the sky's noise, log-uniform."""

_FAINT = (0.01, 0.01)
"""S/N of the star of an artefact's stamp: there is none."""


@dataclass(frozen=True)
class DetectionSet(StampSet):
    """Stamps of detections. `population` is that of the neighbours, so that these say nothing of the kind; `snr` that
    of stars and galaxies.

    The label `kind` is one of `CLASSES`. Galaxies have true ellipticities and sizes as those of a `StampSet`.
    """

    block: int = 512
    population: Population = field(default_factory=lambda: Population(bulge_probability=0.3))
    snr: tuple[float, float] | None = (6.0, 400.0)
    neighbours: float = 25.0
    camera: Camera = field(
        default_factory=lambda: Camera(bands=("r",), psf_fwhm=(0.46, 1.2), psf_ellipticity=0.1, noise_correlation=0.05)
    )
    star: float = 0.25
    """Share of the stamps; so are the next ones."""
    early: float = 0.17
    """Spheroids, Sersic index 2.8 to 6."""
    disk: float = 0.28
    """Disks of any inclination, Sersic index 0.5 to 1.5, some with a bulge."""
    irregular: float = 0.1
    """Disks with knots."""
    artefact: float = 0.2
    """Detections of no object, see `artefacts.KINDS`."""
    clipped: float = 0.25
    """Share of the stamps, of any kind, whose pixels are cut off at a level of 4 to 400 times the noise of the sky
    (`clip` in the table, counts), as full wells and 8-bit pictures do."""

    hst: str | None = None
    """Catalog of real galaxies (`hst.HstGalaxies`); `real` of the galaxies that are no edge-on disks are then its
    galaxies of that structure, at the sizes of the others."""
    real: float = 1 / 3
    """Share of each kind."""
    part: str = "train"
    """Part of the catalog: train, test or all."""

    CLASSES: ClassVar[tuple[str, ...]] = ("star", "early", "late", "edge_on", "irregular", "artefact")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.design, Single) or len(self.camera.bands) != 1 or self.snr is None:
            raise InputError("detections are single stamps of one band, of a range of S/N: leave pairs and bands away")
        if not 0 <= self.clipped <= 1:
            raise InputError(f"a share of {self.clipped} clipped stamps lies outside 0 to 1")
        if not 0 <= self.real <= 1:
            raise InputError(f"a share of {self.real} real galaxies lies outside 0 to 1")
        if min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-6:
            raise InputError(f"the shares of the kinds of detections add up to 1, and none is below 0: {self.shares}")

    @property
    def shares(self) -> dict[str, float]:
        """Group -> its share."""
        return {name: getattr(self, name) for name in _POPULATIONS}

    def make(self, index: int) -> Block:
        """Block `index`, from its own seed."""
        rng, groups = self.generator(_KIND, index), list(self.shares)
        drawn = rng.choice(len(groups), self.block, p=list(self.shares.values()))[: self.block_length(index)]
        painter = np.random.Generator(np.random.PCG64(int(rng.integers(2**63))))
        blocks, places = [], []
        for number, group in enumerate(groups):
            here = np.flatnonzero(drawn == number)
            if len(here):
                seed = _SEEDS + (self.seed * len(groups) + number) * 100_000 + index
                blocks.append(_labelled(self._group(group, len(here), seed), group, painter, self))
                places.append(here)
        order = np.argsort(np.concatenate(places))
        image, variance, psf = (np.concatenate(planes)[order] for planes in zip(*(block[:3] for block in blocks)))
        table = pa.concat_tables([block.table for block in blocks]).take(order)
        level = self._levels(painter, len(table))
        image = np.minimum(image, level[:, None, None, None])
        table = table.append_column("clip", pa.array(np.where(np.isfinite(level), level, np.nan), pa.float32()))
        first = index * self.block
        ids = pa.array(np.arange(first, first + len(table), dtype=np.int64))
        return Block(image, variance, psf, table.set_column(0, "object_id", ids))

    def _levels(self, rng: np.random.Generator, count: int) -> F32:
        """(n,) counts at which the pixels of each stamp end, infinite for most."""
        low, high = np.log(_CLIP)
        levels = self.camera.sky_sigma * np.exp(rng.uniform(low, high, count))
        return np.where(rng.random(count) < self.clipped, levels, np.inf).astype(np.float32)

    def _group(self, group: str, count: int, seed: int) -> Block:
        """Stamps of one group."""
        names = ("size", "psf_size", "camera", "offset", "neighbours", "masked")
        shared = {name: getattr(self, name) for name in names} | {"around": self.population}
        snr = _FAINT if group == "artefact" else self.snr
        return StampSet(count, seed, count, population=self._shown(group), snr=snr, **shared).make(0)

    def _shown(self, group: str) -> Population:
        """Population that the stamps of a group show."""
        population, structure = _POPULATIONS[group], _STRUCTURES.get(group)
        if not self.hst or not structure:
            return population
        drawn = tuple(replace(kind, fraction=(1 - self.real) * kind.fraction) for kind in population.kinds)
        seen = RealGalaxies(self.hst, self.real, self.part, resized=True, structure=structure)
        return replace(population, kinds=(seen, *drawn))


def _labelled(block: Block, group: str, rng: np.random.Generator, stamps: DetectionSet) -> Block:
    """A block with its kinds, and with artefacts painted where it is theirs."""
    count = len(block.table)
    kinds, painted = np.full(count, group, object), np.full(count, None, object)
    if group == "disk":
        size = np.hypot(*(block.table[name].to_numpy() for name in ("e1", "e2")))
        kinds = np.where(size >= EDGE_ON, "edge_on", "late").astype(object)
    if group == "artefact":
        fwhm, sigma = block.table["psf_fwhm"].to_numpy() / stamps.camera.pixel_scale, stamps.camera.sky_sigma
        image = block.image.copy()
        for number in range(count):
            painted[number], made = artefact(rng, image[number, 0] / np.float32(sigma), float(fwhm[number]))
            image[number, 0] = made * np.float32(sigma)
        block = block._replace(image=image)
    table = block.table.append_column("kind", pa.array(kinds, pa.string()))
    return block._replace(table=table.append_column("artefact", pa.array(painted, pa.string())))
