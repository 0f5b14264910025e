"""Galaxies as surveys have them: cut from simulated skies of many depths, with their neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial import KDTree

from astroml_plugin.core import storage
from astroml_plugin.core.typing import F64, Bool
from workflows.cutouts import cutouts
from workflows.simulate import simulate
from workflows.train import Progress

_RIM = 40
"""Pixels from the edge of a sky within which nothing is cut."""

GAIN = 125.0
"""Electrons per count times the variance of the sky: noise of the sky and of objects change together with the depth."""


@dataclass(frozen=True)
class SkySet:
    """Galaxies of simulated skies, each sky with a depth, a density and a PSF of its own; one tile each."""

    name: str
    """Name of the folders of stamps in the scratch directory."""
    seed: int
    """Of the first sky; the next ones have the next numbers."""
    skies: int = 16
    """How many."""
    side: int = 1280
    """Pixels of their sides."""
    sigma: tuple[float, float] = (0.2, 3.0)
    """Sky noise of the first and of the last sky in r, counts of 30 mag; the others lie evenly between in its ln."""
    size: int = 64
    """Side of a stamp in pixels."""
    bands: tuple[str, ...] = ("g", "r", "i")
    """Bands of the stamps."""
    snr: float = 10.0
    """S/N in r of the faintest galaxies that are cut."""
    brighter: float = math.inf
    """No other object within `near` pixels is more than so many times as bright."""
    near: float = 20.0
    """Pixels."""

    def made(self, scratch: str, progress: Progress | None = None) -> list[str]:
        """Stamps of each sky, made below `scratch` where they are missing."""
        return [self._cut(scratch, number, progress) for number in range(self.skies)]

    def _cut(self, scratch: str, number: int, progress: Progress | None) -> str:
        folder = storage.join(scratch, "skies", f"{self.seed + number}")
        sky = simulate(out=folder, kind="survey", seed=self.seed + number, progress=progress, **self.options(number))
        truth = storage.read_table(sky.truth)
        out = storage.join(scratch, f"{self.name}-{self.seed + number}.zarr")
        wanted = truth.filter(pa.array(self.chosen(truth)))
        return cutouts(sky.source, out=out, objects=wanted, size=self.size, bands=self.bands).out

    def options(self, number: int) -> dict[str, Any]:
        """Options of `simulate` for one of the skies: what is not told here is drawn from its seed."""
        random = np.random.default_rng([self.seed + number, 77])
        low, high = (math.log(end) for end in self.sigma)
        sigma = math.exp(low + (high - low) * (number + 0.5) / self.skies)
        wide = bool(random.random() < 0.5)
        fwhm = np.sort(random.uniform(0.55, 0.95, 2)).round(3).tolist()
        camera = {
            "sky_sigma": round(sigma, 4),
            "gain": round(GAIN / sigma**2, 3),
            "noise_of_bands": [round(random.uniform(0.9, 1.2), 3), 1.0, round(random.uniform(1.0, 2.0), 3)],
            "psf_profile": str(random.choice(["moffat", "kolmogorov"])),
            "psf_fwhm": fwhm,
            "psf_ellipticity": 0.05,
        }
        population = {
            "magnitude": [19.0, 25.5],
            "tail": 0.7,
            "star_fraction": 0.15,
            "bulge_probability": 0.3,
            "sersic_n": [0.5, 6.0] if wide else [0.5, 4.0],
            "half_light_radius": [0.2, 1.2] if wide else [0.3, 1.0],
        }
        return {
            "shape": (self.side, self.side),
            "tile_size": self.side + 256,
            "bands": ("g", "r", "i"),
            "density": round(random.uniform(20, 50), 2),
            "changes": {"population": population, "camera": camera},
        }

    def chosen(self, truth: pa.Table) -> Bool:
        """(n,) of the objects of a sky, those that are cut."""
        columns = {name: truth[name].to_numpy(zero_copy_only=False) for name in ("x", "y", "mag", "snr", "class")}
        place = np.stack([columns["x"], columns["y"]], axis=1)
        inside: Bool = ((place >= _RIM) & (place < self.side - _RIM)).all(1)
        bright = brightest_beside(place, columns["mag"], self.near)
        galaxies = (columns["class"] != "star") & (columns["snr"] >= self.snr)
        return inside & galaxies & (columns["mag"] - bright <= 2.5 * math.log10(self.brighter))


def brightest_beside(place: F64, mag: F64, near: float) -> F64:
    """(n,) magnitude of the brightest other object within `near` pixels of each place (n, 2); infinite without one."""
    found = np.full(len(mag), np.inf)
    pairs = KDTree(place).query_pairs(near, output_type="ndarray")
    for here, there in ((0, 1), (1, 0)):
        np.minimum.at(found, pairs[:, here], mag[pairs[:, there]])
    return found
