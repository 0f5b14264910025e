"""Fields of stars and galaxies whose PSF varies, with what goes wrong in raw images; GalSim draws them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import galsim
import numpy as np

SIDE = 2048
NOISE, GAIN = 10.0, 2.0
FULL = 60_000.0
"""Level at which pixels are full; nothing masks them."""


@dataclass(frozen=True)
class Kind:
    """A kind of PSF."""

    profile: str
    """moffat, kolmogorov or optical."""
    fwhm: float
    """In pixels, about."""
    seed: int
    stars: int = 400
    galaxies: int = 2500
    side: int = SIDE

    @property
    def name(self) -> str:
        """What the results page calls it."""
        return f"{self.profile}, {self.fwhm:g} px"


def psf_at(kind: Kind, x: float, y: float) -> Any:
    """PSF at a place of the field: FWHM varies by 15 %, e by 0.06."""
    u, v = 2 * x / kind.side - 1, 2 * y / kind.side - 1
    fwhm = kind.fwhm * (1 + 0.06 * u - 0.04 * v + 0.04 * u * u)
    if kind.profile == "moffat":
        plain = galsim.Moffat(beta=3.0, fwhm=fwhm)
    elif kind.profile == "kolmogorov":
        plain = galsim.Kolmogorov(fwhm=fwhm)
    else:
        telescope = galsim.OpticalPSF(
            lam_over_diam=0.35 * kind.fwhm,
            defocus=0.1 + 0.03 * u,
            astig1=0.04 + 0.03 * v,
            astig2=0.02,
            coma1=0.04,
            coma2=0.03 * u,
            obscuration=0.3,
            oversampling=1.0,
            pad_factor=1.0,
        )
        plain = galsim.Convolve(galsim.Kolmogorov(fwhm=0.75 * fwhm), telescope)
    return plain.shear(g1=0.02 + 0.03 * u - 0.02 * v * v, g2=-0.01 + 0.025 * v + 0.02 * u * v)


def psf_images(kind: Kind, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """(n, size, size) true PSFs at n places, pixels included, of unit sum over all the plane."""
    drawn = [psf_at(kind, *at).drawImage(nx=size, ny=size, scale=1.0).array for at in zip(x, y, strict=True)]
    return np.stack(drawn).astype(np.float64)


@lru_cache(maxsize=256)
def _drawn_once(kind: Kind, column: int, row: int) -> Any:
    """The PSF that galaxies of a part of the field have."""
    psf = psf_at(kind, (column + 0.5) / 8 * kind.side, (row + 0.5) / 8 * kind.side)
    return galsim.InterpolatedImage(psf.drawImage(nx=128, ny=128, scale=0.5, method="no_pixel"), flux=1.0)


def field(kind: Kind) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(image, variance, truth: x, y, flux, star) of a field."""
    rng = np.random.default_rng(kind.seed)
    light = galsim.ImageD(kind.side, kind.side, xmin=0, ymin=0)
    params = galsim.GSParams(maximum_fft_size=16384)
    rows = []

    def put(profile: Any, x: float, y: float, half: int) -> None:
        column, row = round(x), round(y)
        bounds = galsim.BoundsI(column - half, column + half, row - half, row + half)
        stamp = profile.drawImage(bounds=bounds, scale=1.0, center=galsim.PositionD(x, y), dtype=float)
        if (both := stamp.bounds & light.bounds).isDefined():
            light[both] += stamp[both]

    for _ in range(kind.stars):
        x, y = rng.uniform(0, kind.side, 2)
        flux = 600 * 1e4 ** (rng.uniform() ** 1.6)
        put(psf_at(kind, x, y).withFlux(flux), x, y, 64 if flux > 3e4 else 32)
        rows.append((x, y, flux, 1.0))
    for _ in range(kind.galaxies):
        x, y = rng.uniform(0, kind.side, 2)
        flux = 500 * 200 ** (rng.uniform() ** 2.2)
        radius = max(0.15 * kind.fwhm, np.exp(rng.normal(np.log(0.6 * kind.fwhm * (flux / 2000) ** 0.25), 0.4)))
        disc = rng.uniform() < 0.6
        plain = (
            galsim.Exponential(half_light_radius=radius)
            if disc
            else galsim.DeVaucouleurs(half_light_radius=min(radius, 2 * kind.fwhm))
        )
        shape = {"q": rng.uniform(0.3, 1), "beta": rng.uniform(0, np.pi) * galsim.radians}
        psf = _drawn_once(kind, int(x / kind.side * 8), int(y / kind.side * 8))
        put(galsim.Convolve(plain.shear(**shape).withFlux(flux), psf, gsparams=params), x, y, 32)
        rows.append((x, y, flux, 0.0))
    image = light.array
    variance = NOISE**2 + np.maximum(image, 0) / GAIN
    image = image + rng.normal(size=image.shape) * np.sqrt(variance)
    _spoil(image, rng, kind.side)
    columns = np.array(rows).T
    return image, variance, dict(zip(("x", "y", "flux", "star"), columns, strict=True))


def _spoil(image: np.ndarray, rng: np.random.Generator, side: int) -> None:
    """Full pixels, cosmic rays that nobody masks, and columns without a value."""
    np.minimum(image, FULL, out=image)
    for _ in range(side * side // 14_000):
        length, angle = rng.exponential(4) + 1, rng.uniform(0, np.pi)
        x, y, level = *rng.uniform(10, side - 40, 2), rng.exponential(3000) + 200
        steps = np.arange(0, length, 0.7)
        image[(y + steps * np.sin(angle)).astype(int), (x + steps * np.cos(angle)).astype(int)] += level
    image[:, rng.integers(0, side, 3)] = np.nan
