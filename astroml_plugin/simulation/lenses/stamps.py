"""Stamps of strong lenses and of what is mistaken for them, block by block, with truth."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, F64
from astroml_plugin.simulation.blocks import Blocks
from astroml_plugin.simulation.lenses.bodies import HARD, PAINTERS, Lens, source_plane
from astroml_plugin.simulation.lenses.galaxies import (
    blue_magnitudes,
    draw_deflector,
    draw_field,
    draw_magnitude,
    draw_source,
)
from astroml_plugin.simulation.lenses.light import FIELD, FINE, positions
from astroml_plugin.simulation.lenses.painting import Canvas
from astroml_plugin.simulation.postage import Block
from astroml_plugin.simulation.profiles import PSF_PROFILES, Psf, psf_image

_TRIES = 200


@dataclass(frozen=True)
class LensCamera:
    """g, r and i of the LSST after ten years. Fluxes are nJy."""

    bands: tuple[str, ...] = ("g", "r", "i")
    """Always these three."""
    pixel_scale: float = 0.2
    """Arcsec per pixel."""
    zero_point: float = 31.4
    """AB magnitude of one nJy, all bands."""
    depth: tuple[float, float, float] = (27.4, 27.5, 26.8)
    """Magnitude of a point source at 5 sigma (Ivezic et al. 2019, ApJ 873, 111, table 1)."""
    depth_fwhm: float = 0.75
    """Arcsec: the PSF that `depth` is meant for; sets the sky noise of a pixel."""
    gain: tuple[float, float, float] = (165.0, 336.0, 282.0)
    """Electrons per nJy over all exposures: 80, 184 and 184 of 30 s at 1 e/s for 28.5, 28.36 and 28.17 mag."""
    psf_fwhm: tuple[float, float] = (0.55, 0.95)
    """Arcsec, r; g and i scatter around it within the same range."""
    psf_ellipticity: float = 0.05
    """Largest |e|."""

    def __post_init__(self) -> None:
        if self.bands != ("g", "r", "i"):
            raise InputError(f"lenses are simulated in g, r, i, not in {', '.join(self.bands)}")
        if not 0.3 <= self.psf_fwhm[0] <= self.psf_fwhm[1] or not 0 <= self.psf_ellipticity < 0.5:
            raise InputError("psf_fwhm must rise from 0.3 arcsec or more, psf_ellipticity lie between 0 and 0.5")
        if min(self.gain) <= 0 or min(self.pixel_scale, self.depth_fwhm) <= 0:
            raise InputError("gain, pixel_scale and depth_fwhm must be positive")

    @property
    def sigma(self) -> F64:
        """(band,) sky noise of a pixel in nJy: 1.4, 1.3 and 2.4 with the defaults."""
        flux = 10 ** (0.4 * (self.zero_point - np.array(self.depth)))
        pixels = 2.266 * (self.depth_fwhm / self.pixel_scale) ** 2
        return flux / (5 * math.sqrt(pixels))

    def variance(self, model: F32) -> F32:
        """(band, y, x) noise variance of a noiseless image of that shape."""
        sky = (self.sigma**2).astype(np.float32)[:, None, None]
        gain = np.array(self.gain, np.float32)[:, None, None]
        return np.add(sky, np.maximum(model, 0) / gain, dtype=np.float32)


@dataclass(frozen=True)
class PaintedSet(Blocks):
    """Stamps that are painted one by one among field galaxies and stars; small and picklable.

    The object's centre lies at pixel `size // 2` + `offset`.
    """

    count: int
    """Stamps."""
    seed: int = 1
    block: int = 512
    """Stamps per block: the unit of seeds and of work."""
    size: int = 64
    """Side in pixels, even."""
    psf_size: int = 25
    """Side of the PSF images in pixels."""
    camera: LensCamera = field(default_factory=LensCamera)
    galaxies: float = 50.0
    """Field galaxies per arcmin^2, r of 20 to 26.2, around every stamp."""
    stars: float = 2.0
    """Stars per arcmin^2."""
    offset: float = 0.5
    """Objects are centred within this many pixels in x and y."""
    variance: bool = True
    """Whether variance images are stored."""

    kind: ClassVar[int]
    """Kind of the seeds: sets of different kinds share none."""

    def _check(self, name: str, fraction: str, others: str) -> None:
        """Refuse numbers out of range.

        Args:
            name: of what the stamps are of, for people.
            fraction: field with the fraction of the stamps.
            others: what `shares` are of, for people.

        Raises:
            InputError: says which.
        """
        if self.count < 1 or self.block < 1 or self.seed < 0:
            raise InputError("stamps need a count and a block of at least 1 and a seed of 0 or more")
        if not FIELD <= self.size <= 128 or self.size % 2 or not 3 <= self.psf_size <= 64:
            raise InputError(
                f"stamps of {name} have an even side of {FIELD} to 128 pixels and PSFs of 3 to 64, "
                f"not {self.size} and {self.psf_size}"
            )
        shares = self.shares
        if not 0 <= getattr(self, fraction) <= 1 or abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
            raise InputError(f"{fraction} lies between 0 and 1, and the shares of the {others} add up to 1: {shares}")

    @property
    @abstractmethod
    def shares(self) -> dict[str, float]:
        """Kind of stamp -> its share."""

    @abstractmethod
    def paint(self, seed: int) -> Painted:
        """One stamp; everything in it comes from its seed."""

    def make(self, index: int) -> Block:
        """Block `index`, from its own seed; `Block.variance` is None where it is not asked for.

        Raises:
            InputError: there is no such block.
        """
        rng = self.generator(self.kind, index)
        seeds = rng.integers(0, 2**63, self.block)
        made = [self.paint(int(seed)) for seed in seeds[: self.block_length(index)]]
        first = index * self.block
        rows = [{"object_id": first + i, **stamp.truth()} for i, stamp in enumerate(made)]
        table = pa.Table.from_pylist(rows)
        position = pa.nulls(len(rows), pa.float64())
        table = table.add_column(1, "ra", position).add_column(2, "dec", position)
        spread = np.stack([stamp.variance for stamp in made]) if self.variance else None
        image, psf = (np.stack([getattr(stamp, name) for stamp in made]) for name in ("image", "psf"))
        return Block(image, spread, psf, table)


class Painted(Protocol):
    """One stamp: pixels (band, y, x) and label columns."""

    image: F32
    variance: F32
    psf: F32

    def truth(self) -> dict[str, object]:
        """Label columns, NaN where there is no such thing."""


@dataclass(frozen=True)
class LensSet(PaintedSet):
    """Simulated lenses and non-lenses; small and picklable, it makes pixels when asked.

    Every stamp starts from a lens that was accepted; the class decides whether its arcs are painted or something else
    (see `bodies`).
    """

    lens_fraction: float = 0.5
    """Stamps that are lenses."""
    unlensed: float = 0.27
    """Fraction of the negatives with the deflector and source of a lens, not lensed. The next ones are fractions of the
    negatives too."""
    spiral: float = 0.14
    """Blue-armed spirals."""
    ring: float = 0.05
    """Rings."""
    merger: float = 0.09
    """Mergers."""
    companions: float = 0.10
    """Small galaxies around the deflector."""
    edge_on: float = 0.11
    """Disks on edge."""
    plain: float = 0.24
    """Deflectors alone."""
    theta_e: tuple[float, float] = (0.7, 2.0)
    """Einstein radii in arcsec, uniform before lenses are accepted."""
    source_mag: tuple[float, float] = (21.5, 25.0)
    """Unlensed r magnitudes of sources."""
    source_slope: float = 0.0
    """dN/dm proportional to 10^(slope m); as many bright as faint ones by default, to learn from and to be binned."""
    arc_snr: float = 20.0
    """Least S/N of the arcs: their flux over its noise in the pixels above 1 sigma, in the best band."""
    arc_pixels: int = 20
    """Fewest pixels in which the arcs are above 1 sigma, in that band."""
    magnification: float = 1.6
    """Least ratio of lensed to unlensed flux."""

    kind: ClassVar[int] = 17

    def __post_init__(self) -> None:
        self._check("lenses", "lens_fraction", "negatives")
        if not 0.2 <= self.theta_e[0] <= self.theta_e[1] <= 2.5 or not self.source_mag[0] < self.source_mag[1]:
            raise InputError("theta_e must rise within 0.2 to 2.5 arcsec, source_mag from bright to faint")
        if min(self.galaxies, self.stars, self.source_slope) < 0 or not 0 <= self.offset <= 0.5:
            raise InputError("galaxies, stars and source_slope are 0 or more, offset is 0 to 0.5 pixels")

    @property
    def shares(self) -> dict[str, float]:
        """Kind of negative -> its share of them."""
        return {name: getattr(self, name) for name in PAINTERS if name != "lens"}

    def paint(self, seed: int) -> Painted:
        """One stamp; everything in it comes from its seed."""
        return _Stamp(self, seed)


class _Stamp:
    """One stamp: everything in it comes from its seed."""

    def __init__(self, stamps: LensSet, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        camera = self.camera = stamps.camera
        self.stamps, self.kind = stamps, _kind(rng, stamps)
        self.psfs = draw_psfs(rng, camera)
        self.shift = tuple(rng.uniform(-stamps.offset, stamps.offset, 2).tolist())
        self.canvas = Canvas(self.psfs, stamps.size, camera.pixel_scale, (self.shift[0], self.shift[1]))
        self.surroundings = draw_field(rng, self.canvas.side, stamps.galaxies, stamps.stars, camera.zero_point)
        noise = rng.standard_normal((3, stamps.size, stamps.size), dtype=np.float32)
        self.lens = accepted_lens(stamps, rng, self.canvas)
        self.body = PAINTERS[self.kind](self.lens, rng, camera.zero_point, positions(camera.pixel_scale))
        model = self.canvas.light([*self.body.components, *self.surroundings], self.body.layers)
        self.variance = camera.variance(model)
        self.image = model + noise * np.sqrt(self.variance)
        self.psf = np.stack([psf_image(psf, stamps.psf_size, camera.pixel_scale) for psf in self.psfs])

    def truth(self) -> dict[str, object]:
        """The label columns; NaN where there is no such thing."""
        lens, deflector = self.lens, self.lens.deflector
        found = self.kind == "lens"

        def only(value: float) -> float:
            return float(value) if found else math.nan

        arcs = lens.mag - 2.5 * math.log10(lens.magnification)
        return {
            "class": "lens" if found else "other",
            "kind": self.kind,
            "hard": self.kind in HARD,
            "theta_e": only(deflector.theta_e),
            "source_mag": self.body.source_mag,
            "magnification": only(lens.magnification),
            "arc_snr": only(lens.snr),
            "arc_pixels": lens.pixels if found else 0,
            "arc_mag": only(arcs[1]),
            **{f"deflector_mag_{band}": mag for band, mag in zip(self.camera.bands, deflector.mag)},
            "deflector_radius": deflector.half_light_radius,
            "deflector_redshift": deflector.redshift,
            "source_redshift": only(deflector.source_redshift),
            "velocity_dispersion": only(deflector.velocity_dispersion),
            "mass_e1": only(deflector.mass_e1),
            "mass_e2": only(deflector.mass_e2),
            "gamma1": only(deflector.gamma1),
            "gamma2": only(deflector.gamma2),
            "source_x": only(lens.source.x),
            "source_y": only(lens.source.y),
            "source_radius": only(lens.source.half_light_radius),
            "offset_x": self.shift[0],
            "offset_y": self.shift[1],
            **{f"psf_fwhm_{band}": psf.fwhm for band, psf in zip(self.camera.bands, self.psfs)},
        }


def accepted_lens(stamps: LensSet, rng: np.random.Generator, canvas: Canvas) -> Lens:
    """Lenses are drawn until one is bright and magnified enough.

    Args:
        stamps: what is enough, and the camera.
        rng: source of chance.
        canvas: of the stamp that it is drawn on.

    Raises:
        InputError: none was.
    """
    for _ in range(_TRIES):
        lens = _drawn_lens(stamps, rng, canvas)
        if lens is not None:
            return lens
    raise InputError(
        f"none of {_TRIES} lenses reached arc_snr {stamps.arc_snr}, arc_pixels {stamps.arc_pixels} and "
        f"magnification {stamps.magnification}: ask for less"
    )


def _drawn_lens(stamps: LensSet, rng: np.random.Generator, canvas: Canvas) -> Lens | None:
    camera = stamps.camera
    deflector = draw_deflector(rng, stamps.theta_e)
    mag = blue_magnitudes(rng, draw_magnitude(rng, stamps.source_mag, stamps.source_slope))
    radius, angle = deflector.theta_e * rng.random(), rng.uniform(0, 2 * math.pi)
    source = draw_source(rng, float(mag[1]), radius * math.cos(angle), radius * math.sin(angle))
    x, y = positions(camera.pixel_scale)
    plane = source.at(*source_plane(deflector, x, y))
    magnification = float(plane.sum()) * (camera.pixel_scale / FINE) ** 2
    if magnification <= stamps.magnification:
        return None
    flux = 10 ** (0.4 * (camera.zero_point - mag))
    arcs = canvas.pixels(flux.astype(np.float32)[:, None, None] * canvas.sampled(plane))
    light = canvas.pixels(canvas.analytic(deflector.components(camera.zero_point)))
    snr, pixels = _detection(arcs, camera.variance(arcs + light))
    if snr < stamps.arc_snr or pixels < stamps.arc_pixels:
        return None
    return Lens(deflector, source, mag, magnification, plane, snr, pixels)


def _kind(rng: np.random.Generator, stamps: LensSet) -> str:
    is_lens, choice = rng.random() < stamps.lens_fraction, rng.random()
    other = chosen(stamps.shares, choice)
    return "lens" if is_lens else other


def chosen(shares: Mapping[str, float], choice: float) -> str:
    """The name in whose part of 0 to 1 `choice` falls; `shares` add up to 1."""
    names = list(shares)
    return names[min(int(np.searchsorted(np.cumsum(list(shares.values())), choice)), len(names) - 1)]


def draw_psfs(rng: np.random.Generator, camera: LensCamera) -> list[Psf]:
    """One per band, of one profile, similar in width."""
    profile, fwhm = str(rng.choice(PSF_PROFILES)), rng.uniform(*camera.psf_fwhm)
    found = []
    for factor in (1.04, 1.0, 0.97):
        width = float(np.clip(fwhm * factor * rng.normal(1.0, 0.06), *camera.psf_fwhm))
        size, angle = camera.psf_ellipticity * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        found.append(Psf(profile, width, size * math.cos(angle), size * math.sin(angle)))
    return found


def _detection(arcs: F32, variance: F32) -> tuple[float, int]:
    """S/N of the arcs in their pixels above 1 sigma, and how many those are, in the band where S/N is highest."""
    above = arcs > np.sqrt(variance)
    signal = np.where(above, arcs, 0).sum((1, 2), dtype=np.float64)
    noise = np.sqrt(np.where(above, variance, 0).sum((1, 2), dtype=np.float64))
    snr = signal / np.maximum(noise, 1e-9)
    best = int(snr.argmax())
    return float(snr[best]), int(above[best].sum())
