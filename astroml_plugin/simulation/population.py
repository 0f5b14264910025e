"""What the simulated universe is made of: magnitudes, shapes, colours, classes and the camera that sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astroml_plugin.errors import InputError
from astroml_plugin.simulation.profiles import PSF_PROFILES, SERSIC_STEP, Psf, Shape

Float = NDArray[np.float64]

CLASSES = ("star", "spheroid", "disk")
"""Class names; spheroids have a Sersic index of 2 and more (the main component's), disks less."""

_DISK_LIMIT = 2.0

_POSITION = {"u": -1.4, "g": -1.0, "r": 0.0, "i": 0.55, "z": 0.9, "y": 1.1}
"""Where a band lies along a colour: magnitude = reference - colour x position."""


@dataclass(frozen=True)
class Population:
    """Distributions that objects are drawn from. Ranges are uniform unless said otherwise."""

    magnitude: tuple[float, float] = (20.0, 25.3)
    """Galaxies' magnitudes in the reference band, dN/dm proportional to 10^(slope m)."""
    slope: float = 0.35
    """Slope of the number counts."""
    star_magnitude: tuple[float, float] = (17.0, 25.3)
    """Stars' magnitudes, uniform; the brightest saturate."""
    star_fraction: float = 0.1
    """Stars per galaxy and star together."""
    sersic_n: tuple[float, float] = (0.5, 4.0)
    """Sersic index of the main component, on a grid of 0.1."""
    half_light_radius: tuple[float, float] = (0.3, 1.0)
    """Arcsec, sqrt(ab)."""
    ellipticity_scale: float = 0.1
    """a of p(|e|) proportional to |e| exp(-|e|/a), |e| = (a-b)/(a+b): most galaxies near round, the density
    in the (e1, e2) plane has a cusp at 0; rms 0.17 per component for a = 0.1. Angles are uniform."""
    ellipticity_max: float = 0.8
    """Ellipticities above this are drawn again."""
    bulge_probability: float = 0.0
    """Disks that carry a red bulge (Sersic 4, 0.4 of the half-light radius, the disk's own ellipticity, 10-40 % of the
    light in the reference band), so that their image changes from band to band."""
    shear: tuple[float, float] = (0.0, 0.0)
    """Shear (g1, g2) applied to every galaxy; `e1, e2` are after it."""

    def __post_init__(self) -> None:
        for name in ("magnitude", "star_magnitude", "sersic_n", "half_light_radius"):
            low, high = getattr(self, name)
            if not low <= high:
                raise InputError(f"{name} runs from {low} to {high}: give the lower value first")
        if not 0 <= self.star_fraction <= 1 or not 0 <= self.bulge_probability <= 1:
            raise InputError("star_fraction and bulge_probability lie between 0 and 1")
        if math.hypot(*self.shear) >= 0.5:
            raise InputError(f"a shear of {self.shear} is not weak: keep |g| below 0.5")


@dataclass(frozen=True)
class Camera:
    """Bands, pixels, noise and PSF. Fluxes are counts with `zero_point`."""

    bands: tuple[str, ...] = ("g", "r", "i")
    """Band names, any number; u g r i z y get their own colours, others lie in order between g and i."""
    pixel_scale: float = 0.2
    """Arcsec per pixel."""
    zero_point: float = 30.0
    """Magnitude of one count."""
    sky_sigma: float = 2.5
    """Standard deviation of the sky noise, counts per pixel."""
    gain: float = 20.0
    """Electrons per count for the objects' Poisson noise (with sigma 2.5 a sky of 21.2 mag/arcsec^2); 0 for none."""
    saturation: float = 3000.0
    """Counts above which a pixel of a sky is clipped and masked SATURATED."""
    psf_profile: str = "moffat"
    """moffat (beta 3) or kolmogorov."""
    psf_fwhm: tuple[float, float] = (0.7, 0.7)
    """Arcsec; the range over the field, or from stamp to stamp. The same in all bands."""
    psf_ellipticity: float = 0.0
    """Largest |e| of the PSF over the field, or from stamp to stamp."""
    bad_pixels: float = 1e-5
    """Fraction of a sky's pixels masked BAD, with NaN values."""
    cosmic_rays: float = 0.3
    """Cosmic-ray tracks per arcmin^2 and band, left in the pixels and masked COSMIC_RAY."""

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise InputError(f"bands {self.bands} must be at least one name, each once")
        if self.psf_profile not in PSF_PROFILES:
            raise InputError(f"no PSF profile {self.psf_profile!r}: use one of {', '.join(PSF_PROFILES)}")
        if self.psf_fwhm[0] <= 0 or self.psf_fwhm[0] > self.psf_fwhm[1]:
            raise InputError(f"PSF FWHM range {self.psf_fwhm} must be positive and rising")
        if min(self.pixel_scale, self.sky_sigma) <= 0 or self.gain < 0:
            raise InputError("pixel_scale and sky_sigma must be positive, gain not negative")

    @property
    def reference(self) -> int:
        """Index of the band that magnitudes, S/N and `flux` refer to: r, else the first."""
        return self.bands.index("r") if "r" in self.bands else 0

    def band_positions(self) -> Float:
        """(band,) place of each band along a colour, 0 at the reference band."""
        spread = np.linspace(-1.0, 0.55, len(self.bands)) if len(self.bands) > 1 else np.zeros(1)
        place = np.array([_POSITION.get(band, spread[i]) for i, band in enumerate(self.bands)])
        return place - place[self.reference]

    def variance(self, model: NDArray[np.float32]) -> NDArray[np.float32]:
        """Noise variance per pixel of a noiseless image, same shape."""
        sky = np.float32(self.sky_sigma**2)
        if self.gain == 0:
            return np.full_like(model, sky)
        return sky + np.maximum(model, 0) * np.float32(1.0 / self.gain)


@dataclass
class Objects:
    """A few objects, one array each; all (n,) but `mag` and `bulge`, which are (n, band)."""

    kind: NDArray[np.int64]
    """Index into CLASSES."""
    mag: Float
    """Magnitudes per band."""
    bulge: Float
    """Bulge-to-total light per band; 0 without a bulge."""
    sersic_n: Float
    """NaN for stars."""
    half_light_radius: Float
    """Arcsec, of the main component; NaN for stars."""
    e1: Float
    """Image ellipticity without the PSF, shear included; NaN for stars."""
    e2: Float
    """As `e1`."""
    g1: Float
    """Applied shear."""
    g2: Float
    """Applied shear."""

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: Any) -> Objects:
        """The objects at `index` (integers, slice or mask)."""
        return Objects(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def is_star(self, i: int) -> bool:
        """Whether object `i` is a point source."""
        return bool(self.kind[i] == 0)

    def shape(self, i: int) -> Shape:
        """The main component of galaxy `i`."""
        return Shape(float(self.sersic_n[i]), float(self.half_light_radius[i]), float(self.e1[i]), float(self.e2[i]))

    def bulge_shape(self, i: int) -> Shape:
        """The bulge of galaxy `i`."""
        return Shape(4.0, max(0.15, 0.4 * float(self.half_light_radius[i])), float(self.e1[i]), float(self.e2[i]))


def sheared_ellipticity(e1: Float, e2: Float, g1: Float, g2: Float) -> tuple[Float, Float]:
    """(e + g) / (1 + g* e): the ellipticity of round profiles of (e1, e2) after a shear (Seitz & Schneider 1997)."""
    e, g = e1 + 1j * e2, g1 + 1j * g2
    sheared = (e + g) / (1 + np.conj(g) * e)
    return sheared.real, sheared.imag


def draw_population(rng: np.random.Generator, count: int, population: Population, camera: Camera) -> Objects:
    """`count` objects. The draws are per object (fixed number each) but for rejected ellipticities."""
    star = rng.random(count) < population.star_fraction
    n = _on_grid(rng.uniform(*population.sersic_n, count), population.sersic_n)
    kind = np.where(star, 0, np.where(n >= _DISK_LIMIT, 1, 2))
    e1, e2 = _ellipticities(rng, count, population)
    g1, g2 = (np.full(count, value) for value in population.shear)
    e1, e2 = sheared_ellipticity(e1, e2, g1, g2)
    radius = rng.uniform(*population.half_light_radius, count)
    reference = np.where(star, rng.uniform(*population.star_magnitude, count), _counts(rng, count, population))
    with_bulge = (kind == 2) & (rng.random(count) < population.bulge_probability)
    main, bulge_colour, fraction = _colours(rng, kind), rng.normal(0.85, 0.06, count), rng.uniform(0.1, 0.4, count)
    mag, bulge = _band_magnitudes(reference, main, bulge_colour, np.where(with_bulge, fraction, 0.0), camera)
    gone = np.where(star, np.nan, 1.0)
    shear = np.where(star, 0.0, 1.0)
    return Objects(kind, mag, bulge, n * gone, radius * gone, e1 * gone, e2 * gone, g1 * shear, g2 * shear)


def _on_grid(n: Float, limits: tuple[float, float]) -> Float:
    snapped: Float = np.clip(np.round(n / SERSIC_STEP) * SERSIC_STEP, limits[0], limits[1])
    return snapped.round(6)


def _ellipticities(rng: np.random.Generator, count: int, population: Population) -> tuple[Float, Float]:
    size = rng.gamma(2.0, max(population.ellipticity_scale, 1e-12), count)
    while (large := size > population.ellipticity_max).any():
        size[large] = rng.gamma(2.0, population.ellipticity_scale, int(large.sum()))
    angle = rng.uniform(0, 2 * np.pi, count)
    return size * np.cos(angle), size * np.sin(angle)


def _counts(rng: np.random.Generator, count: int, population: Population) -> Float:
    """Magnitudes with dN/dm proportional to 10^(slope m), by inversion."""
    low, high = population.magnitude
    u, rate = rng.random(count), population.slope * math.log(10)
    if rate == 0 or high == low:
        return low + u * (high - low)
    return low + np.log1p(u * math.expm1(rate * (high - low))) / rate


def _colours(rng: np.random.Generator, kind: NDArray[np.int64]) -> Float:
    """(n,) colour per unit of band position: g - r. Stars 0.2-1.4, spheroids red, disks blue."""
    count = len(kind)
    star, red, blue = rng.uniform(0.2, 1.4, count), rng.normal(0.85, 0.1, count), rng.normal(0.45, 0.15, count)
    return np.choose(kind, [star, red, blue])


def _band_magnitudes(
    reference: Float, colour: Float, bulge_colour: Float, fraction: Float, camera: Camera
) -> tuple[Float, Float]:
    """Magnitudes and bulge-to-total light, both (n, band)."""
    place = camera.band_positions()
    main = (1 - fraction)[:, None] * 10 ** (0.4 * colour[:, None] * place)
    bulge = fraction[:, None] * 10 ** (0.4 * bulge_colour[:, None] * place)
    total = main + bulge
    return reference[:, None] - 2.5 * np.log10(total), bulge / total


def flux_of(mag: Float, camera: Camera) -> Float:
    """Counts of a magnitude."""
    return 10 ** (0.4 * (camera.zero_point - mag))


def magnitude_of(flux: Float, camera: Camera) -> Float:
    """Magnitude of counts."""
    return camera.zero_point - 2.5 * np.log10(flux)


def draw_psf(rng: np.random.Generator, camera: Camera) -> Psf:
    """One PSF of the camera's ranges, ellipticity uniform in the disk |e| <= psf_ellipticity."""
    fwhm = rng.uniform(*camera.psf_fwhm)
    size, angle = camera.psf_ellipticity * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
    return Psf(camera.psf_profile, fwhm, size * math.cos(angle), size * math.sin(angle))


def truth_columns(objects: Objects, camera: Camera) -> dict[str, pa.Array]:
    """Label columns that stamps and skies share: class, magnitudes, fluxes and shapes."""
    reference = camera.reference
    flux = flux_of(objects.mag, camera)
    columns: dict[str, pa.Array] = {
        "class": pa.array([CLASSES[kind] for kind in objects.kind], pa.string()),
        "mag": pa.array(objects.mag[:, reference]),
        "flux": pa.array(flux[:, reference]),
    }
    if len(camera.bands) > 1:
        columns |= {f"mag_{band}": pa.array(objects.mag[:, i]) for i, band in enumerate(camera.bands)}
    columns["bulge_fraction"] = pa.array(objects.bulge[:, reference])
    for name in ("e1", "e2", "sersic_n", "half_light_radius"):
        columns[name] = pa.array(getattr(objects, name))
    columns |= {"shear_g1": pa.array(objects.g1), "shear_g2": pa.array(objects.g2)}
    return columns
