"""The camera: bands, pixels, noise and PSF; magnitudes to counts and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, F64
from astroml_plugin.simulation.profiles import PSF_PROFILES, Psf

_POSITION = {"u": -1.4, "g": -1.0, "r": 0.0, "i": 0.55, "z": 0.9, "y": 1.1}
"""Where a band lies along a colour: magnitude = reference - colour x position."""


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
    noise_of_bands: tuple[float, ...] = ()
    """Sky noise of each band in units of `sky_sigma`; empty: all alike."""
    gain: float = 20.0
    """Electrons per count for the objects' Poisson noise (with sigma 2.5 a sky of 21.2 mag/arcsec^2); 0 for none."""
    noise_correlation: float = 0.0
    """Correlation of the noise of adjacent pixels, 0 to 0.5, as resampling leaves it; `variance` does not tell."""
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
    """Cosmic-ray tracks per arcmin^2 and band, left in the pixels of a sky and masked COSMIC_RAY."""

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise InputError(f"bands {self.bands} must be at least one name, each once")
        if self.psf_profile not in PSF_PROFILES:
            raise InputError(f"no PSF profile {self.psf_profile!r}: use one of {', '.join(PSF_PROFILES)}")
        if self.psf_fwhm[0] <= 0 or self.psf_fwhm[0] > self.psf_fwhm[1]:
            raise InputError(f"PSF FWHM range {self.psf_fwhm} must be positive and rising")
        if not 0 <= self.psf_ellipticity < 0.9:
            raise InputError(f"a PSF ellipticity of {self.psf_ellipticity} lies outside 0 to 0.9")
        if min(self.pixel_scale, self.sky_sigma) <= 0 or self.gain < 0:
            raise InputError("pixel_scale and sky_sigma must be positive, gain not negative")
        if self.noise_of_bands and (len(self.noise_of_bands) != len(self.bands) or min(self.noise_of_bands) <= 0):
            raise InputError(f"noise_of_bands {self.noise_of_bands} must be a positive number for each of {self.bands}")
        if not 0 <= self.noise_correlation <= 0.5:
            raise InputError(f"a noise correlation of {self.noise_correlation} lies outside 0 to 0.5")

    @property
    def reference(self) -> int:
        """Index of the band that magnitudes, S/N and `flux` refer to: r, else the first."""
        return self.bands.index("r") if "r" in self.bands else 0

    def band_positions(self) -> F64:
        """(band,) place of each band along a colour, 0 at the reference band."""
        spread = np.linspace(-1.0, 0.55, len(self.bands)) if len(self.bands) > 1 else np.zeros(1)
        place = np.array([_POSITION.get(band, spread[i]) for i, band in enumerate(self.bands)])
        values: F64 = place - place[self.reference]
        return values

    def variance(self, model: F32) -> F32:
        """Noise variance per pixel of a noiseless image of all bands (band, y, x), or of the reference band (y, x)."""
        factors = np.array(self.noise_of_bands or (1.0,) * len(self.bands))
        sky = ((self.sky_sigma * factors) ** 2).astype(np.float32)
        level = sky[:, None, None] if model.ndim == 3 else sky[self.reference]
        if self.gain == 0:
            return np.zeros_like(model) + level
        return np.add(level, np.maximum(model, 0) * np.float32(1.0 / self.gain), dtype=np.float32)


NOISE_MARGIN = 1
"""Pixels around an image that its correlated noise depends on."""


def correlated(white: F32, correlation: float) -> F32:
    """Unit normal deviates whose neighbours have `correlation`, from white ones with `NOISE_MARGIN` more on each side.

    Three weights (a, 1, a) along each axis: the correlation is 2a/(1 + 2a²) at one pixel, a²/(1 + 2a²) at two.

    Args:
        white: (..., y + 2, x + 2).
        correlation: of pixels one apart along an axis.

    Returns:
        (..., y, x).
    """
    if correlation == 0:
        return white[..., 1:-1, 1:-1]
    a = (1 - math.sqrt(1 - 2 * correlation**2)) / (2 * correlation)
    centre, side = np.float32(1 / (1 + 2 * a * a)), np.float32(a / (1 + 2 * a * a))
    rows = white[..., 1:-1, :] + np.float32(a) * (white[..., :-2, :] + white[..., 2:, :])
    columns: F32 = np.add(rows[..., :-2], rows[..., 2:], dtype=np.float32)
    values: F32 = np.add(centre * rows[..., 1:-1], side * columns, dtype=np.float32)
    return values


def flux_of(mag: F64, camera: Camera) -> F64:
    """Counts of a magnitude."""
    return 10 ** (0.4 * (camera.zero_point - mag))


def draw_psf(rng: np.random.Generator, camera: Camera) -> Psf:
    """One PSF of the camera's ranges, ellipticity uniform in the disk |e| <= psf_ellipticity."""
    fwhm = rng.uniform(*camera.psf_fwhm)
    size, angle = camera.psf_ellipticity * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
    return Psf(camera.psf_profile, fwhm, size * math.cos(angle), size * math.sin(angle))
