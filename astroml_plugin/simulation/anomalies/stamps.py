"""Stamps of ordinary galaxies and of anomalies among them, block by block, with truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32
from astroml_plugin.simulation.anomalies.scenes import KINDS, Scene, Trail
from astroml_plugin.simulation.lenses.bodies import Lens
from astroml_plugin.simulation.lenses.galaxies import draw_field
from astroml_plugin.simulation.lenses.light import positions
from astroml_plugin.simulation.lenses.painting import Canvas
from astroml_plugin.simulation.lenses.stamps import LensSet, Painted, PaintedSet, accepted_lens, chosen, draw_psfs
from astroml_plugin.simulation.profiles import psf_image

_TRUTH = (
    *("flux_ratio", "separation", "tidal_fraction"),
    *("theta_e", "arc_snr", "ring_radius", "trail_peak"),
)
"""Label columns that only some kinds have."""


@dataclass(frozen=True)
class AnomalySet(PaintedSet):
    """Ordinary galaxies of r 19-22.5 with field galaxies and stars around them, and anomalies; small and picklable.

    Kind, noise, surroundings and shape of a stamp follow from its seed alone: the same set under another camera or
    offset shows the same scenes.
    """

    anomaly_fraction: float = 0.01
    """Stamps that are not ordinary galaxies, as a survey has them unasked."""
    merger: float = 0.25
    """Fraction of the anomalies that are two galaxies in interaction; the next ones are fractions of them too."""
    lens: float = 0.25
    """Strong lenses."""
    ring: float = 0.25
    """Ring galaxies."""
    trail: float = 0.25
    """Trails of satellites across an ordinary galaxy."""

    kind: ClassVar[int] = 19
    anomalies: ClassVar[tuple[str, ...]] = tuple(name for name in KINDS if name != "normal")

    def __post_init__(self) -> None:
        self._check("anomalies", "anomaly_fraction", "kinds")
        if min(self.galaxies, self.stars) < 0 or not 0 <= self.offset <= 0.5:
            raise InputError("galaxies and stars are 0 or more, offset is 0 to 0.5 pixels")

    @property
    def shares(self) -> dict[str, float]:
        """Kind of anomaly -> its share of them."""
        return {name: getattr(self, name) for name in self.anomalies}

    def paint(self, seed: int) -> Painted:
        """One stamp; everything in it comes from its seed."""
        return _Stamp(self, seed)


class _Stamp:
    """One stamp: everything in it comes from its seed."""

    def __init__(self, stamps: AnomalySet, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        camera = self.camera = stamps.camera
        self.stamps, self.kind = stamps, _kind(rng, stamps)
        self.psfs = draw_psfs(rng, camera)
        self.shift = tuple((rng.uniform(-1, 1, 2) * stamps.offset).tolist())
        self.canvas = Canvas(self.psfs, stamps.size, camera.pixel_scale, (self.shift[0], self.shift[1]))
        self.surroundings = draw_field(rng, self.canvas.side, stamps.galaxies, stamps.stars, camera.zero_point)
        noise = rng.standard_normal((3, stamps.size, stamps.size), dtype=np.float32)
        grid = positions(camera.pixel_scale)
        self.scene = KINDS[self.kind](rng, grid, camera.zero_point, lambda: self._lens(rng))
        model = self._model(self.scene)
        self.variance = camera.variance(model)
        self.image = model + noise * np.sqrt(self.variance)
        self.psf = np.stack([psf_image(psf, stamps.psf_size, camera.pixel_scale) for psf in self.psfs])

    def _lens(self, rng: np.random.Generator) -> Lens:
        """One that is bright enough under this PSF at the ten-year depth, whatever the depth of this camera."""
        return accepted_lens(LensSet(1, size=self.stamps.size), rng, self.canvas)

    def _model(self, scene: Scene) -> F32:
        model = self.canvas.light([*scene.components, *self.surroundings], scene.layers)
        return model if scene.trail is None else model + self._line(scene.trail)

    def _line(self, trail: Trail) -> F32:
        """(band, size, size) of a trail, as wide as PSF and trail together."""
        size, scale = self.stamps.size, self.camera.pixel_scale
        y, x = np.mgrid[:size, :size] - size / 2
        across = x * math.sin(trail.angle) - y * math.cos(trail.angle) - trail.distance
        sigma = np.array([math.hypot(psf.fwhm / 2.355, trail.width) / scale for psf in self.psfs])[:, None, None]
        peak = (trail.peak * self.camera.sigma)[:, None, None]
        values: F32 = (peak * np.exp(-0.5 * (across / sigma) ** 2)).astype(np.float32)
        return values

    def truth(self) -> dict[str, object]:
        """The label columns; NaN where there is no such thing."""
        galaxy = self.scene.galaxy
        return {
            "class": "normal" if self.kind == "normal" else "anomaly",
            "kind": self.kind,
            "galaxy_type": galaxy.type,
            **{f"mag_{band}": float(mag) for band, mag in zip(self.camera.bands, galaxy.mag)},
            "half_light_radius": galaxy.half_light_radius,
            "neighbours": len(self.surroundings),
            **{name: float(self.scene.truth.get(name, math.nan)) for name in _TRUTH},
            "offset_x": self.shift[0],
            "offset_y": self.shift[1],
            **{f"psf_fwhm_{band}": psf.fwhm for band, psf in zip(self.camera.bands, self.psfs)},
        }


def _kind(rng: np.random.Generator, stamps: AnomalySet) -> str:
    odd, choice = rng.random() < stamps.anomaly_fraction, rng.random()
    other = chosen(stamps.shares, choice)
    return other if odd else "normal"
