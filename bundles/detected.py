"""What our own segmentation finds on simulated skies, with its true kind: part of the training of `objects`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage
from astroml_plugin.inference.options import ObjectTable
from astroml_plugin.simulation.found import labelled_detections
from bundles.skies import GAIN
from workflows.cutouts import cutouts
from workflows.infer import infer
from workflows.simulate import simulate
from workflows.train import Progress

_ARTEFACTS = 0.4
"""Largest part of the detections of a sky that are artefacts: one trail is found many times."""

FINDER = "segmentation"
"""Bundle that detects."""


@dataclass(frozen=True)
class DetectedSet:
    """Detections on skies of many depths, densities and PSFs, every other sky in r alone, the others in g, r and i."""

    seed: int
    """Of the first sky; the next ones have the next numbers."""
    skies: int
    """How many."""
    side: int = 1280
    """Pixels of their sides."""
    size: int = 48
    """Side of a stamp in pixels."""
    bands: tuple[str, ...] | None = None
    """Bands of the stamps; None for all of a sky."""
    sigma: tuple[float, float] = (0.2, 3.0)
    """Sky noise of the first and of the last sky in r, counts of 30 mag; the others lie evenly between in its ln."""

    def made(self, scratch: str, progress: Progress | None = None) -> list[str]:
        """Stamps of each sky, made below `scratch` where they are missing; `kind` is the label."""
        return [self._cut(storage.join(scratch, f"detected-{self.seed + n}"), n, progress) for n in range(self.skies)]

    def _cut(self, folder: str, number: int, progress: Progress | None) -> str:
        out = storage.join(folder, "stamps.zarr")
        sky = simulate(out=folder, kind="survey", seed=self.seed + number, progress=progress, **self.options(number))
        catalog = infer(sky.source, bundle=FINDER, out=storage.join(folder, "catalog"), progress=progress).catalog
        wanted = self.chosen(_rows(catalog), storage.read_table(str(sky.truth)), self.seed + number)
        objects = ObjectTable(table=wanted, frame="pixel")
        return cutouts(sky.source, out=out, objects=objects, size=self.size, bands=self.bands).out

    def options(self, number: int) -> dict[str, Any]:
        """Options of `simulate` for one of the skies: what is not told here is drawn from its seed."""
        random = np.random.default_rng([self.seed + number, 78])
        low, high = (math.log(end) for end in self.sigma)
        sigma = math.exp(low + (high - low) * (number + 0.5) / self.skies)
        bands, artefacts = (("r",), 2.0) if number % 2 else (("g", "r", "i"), 0.8)
        noise = [round(random.uniform(0.9, 1.2), 3), 1.0, round(random.uniform(1.0, 2.0), 3)]
        camera = {
            "sky_sigma": round(sigma, 4),
            "gain": round(GAIN / sigma**2, 3),
            "noise_of_bands": noise if len(bands) > 1 else [],
            "noise_correlation": 0.05,
            "psf_profile": str(random.choice(["moffat", "kolmogorov"])),
            "psf_fwhm": np.sort(random.uniform(0.48, 1.15, 2)).round(3).tolist(),
            "psf_ellipticity": 0.08,
        }
        population = {
            **{"magnitude": [18.5, 25.5], "tail": 0.7, "star_fraction": 0.3, "bulge_probability": 0.3},
            **{"star_magnitude": [17.0, 25.8], "half_light_radius": [0.2, 1.4]},
            "sersic_n": [0.5, 6.0] if random.random() < 0.5 else [0.5, 1.5],
            **{"ellipticity": "rayleigh", "ellipticity_scale": 0.27, "ellipticity_max": 0.85},
            "kinds": [{"kind": "irregular", "fraction": 0.15}],
        }
        return {
            "shape": (self.side, self.side),
            "tile_size": self.side + 256,
            "bands": bands,
            "density": round(random.uniform(25, 60), 2),
            "changes": {
                "population": population,
                "camera": camera,
                "sky": {"artefacts": artefacts, "ra": (self.seed + number) / 10},  # each its own place on the sky
            },
        }

    def chosen(self, found: pa.Table, truth: pa.Table, seed: int) -> pa.Table:
        """Detections of a sky that are cut: those of a sure kind, and not too many artefacts."""
        sure = labelled_detections(found, truth, shape=(self.side, self.side))
        odd = np.array(sure["kind"].to_pylist(), object) == "artefact"
        most = int(_ARTEFACTS / (1 - _ARTEFACTS) * (len(odd) - odd.sum()))
        kept = np.ones(len(odd), bool)
        kept[np.random.default_rng([seed, 79]).permutation(np.flatnonzero(odd))[most:]] = False
        return sure.filter(pa.array(kept))


def _rows(catalog: str) -> pa.Table:
    """Rows of a catalog of detections, with their flux in r."""
    wanted = 'SELECT object_id, image, x, y, flux_total_r AS flux, peak_snr FROM catalog WHERE "primary"'
    return query(catalog, wanted).to_arrow().sort_by("object_id")
