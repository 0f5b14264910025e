"""Galaxies with redshifts: bulge and disk with spectra of old and young stars through bands, with noise and PSF."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, F64
from astroml_plugin.simulation.blocks import Blocks
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.postage import Block
from astroml_plugin.simulation.seds import distances, fluxes

_KIND = 7
_FINE = 2
"""Pixels of the drawing on each pixel's side."""
_CHARACTERISTIC, _FAINT_SLOPE = -21.2, -1.05
"""Absolute r magnitude at 70 km/s/Mpc and slope of the luminosity function (Blanton et al. 2003, ApJ 592, 819)."""
_FAINTEST = -17.0
_DEPTHS = {"u": 25.0, "g": 26.2, "r": 26.2, "i": 25.6, "z": 25.0, "y": 24.0}
"""AB magnitudes of point sources at five sigma, about two years of LSST."""
_SERSIC = {1.0: 1.678, 4.0: 7.669}
"""Sersic index -> b of its profile, exp(-b ((r/r_half)^(1/n) - 1))."""
_KPC = {"disk": (5.0, 0.26, 0.75), "bulge": (3.2, 0.6, 1.4)}
"""Half-light radius in kpc at the characteristic luminosity, its power of the luminosity (Shen et al. 2003), and of
1/(1 + z) (van der Wel et al. 2014)."""


@dataclass(frozen=True)
class RedshiftSet(Blocks):
    """Stamps of single galaxies of a flux-limited sample, with redshifts; small and picklable."""

    count: int
    """Stamps."""
    seed: int = 1
    block: int = 1024
    """Stamps per block: the unit of seeds and of work."""
    size: int = 32
    """Side in pixels."""
    psf_size: int = 25
    """Side of the PSF images in pixels."""
    camera: Camera = field(
        default_factory=lambda: Camera(bands=("g", "r", "i", "z", "y"), psf_fwhm=(0.6, 0.9), zero_point=31.4)
    )
    """Bands, pixel scale, zero point and PSF; the noise follows the depth."""
    highest: float = 1.5
    """Largest redshift."""
    faintest: float = 22.5
    """Magnitude limit in i, or in the last band where there is no i."""
    variance: ClassVar[bool] = True
    """Whether variance images are stored."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.block < 1 or self.seed < 0:
            raise InputError("stamps need a count and a block of at least 1 and a seed of 0 or more")
        if not 0.05 <= self.highest <= 2 or not 12 <= self.faintest <= 26 or not 16 <= self.size <= 128:
            raise InputError(
                f"a set of redshifts needs a highest of 0.05 to 2 ({self.highest}), a faintest of 12 to 26 "
                f"({self.faintest}) and a size of 16 to 128 ({self.size})"
            )

    def make(self, index: int) -> Block:
        """Block `index`, from its own seed."""
        rng, count = self.generator(_KIND, index), self.block_length(index)
        drawn = _galaxies(self, rng, count)
        fwhm = rng.uniform(*self.camera.psf_fwhm, count)
        noise = np.array([_noise(band, self.camera) for band in self.camera.bands])
        image = np.empty((count, len(noise), self.size, self.size), np.float32)
        for start in range(0, count, 128):
            part = slice(start, min(start + 128, count))
            image[part] = _drawn({name: values[part] for name, values in drawn.items()}, fwhm[part], self)
        image += rng.standard_normal(image.shape, np.float32) * noise[:, None, None].astype(np.float32)
        spread = np.broadcast_to(np.square(noise)[:, None, None], image.shape).astype(np.float32)
        psf = _moffat(fwhm / self.camera.pixel_scale, self.psf_size)
        seen = np.repeat(psf[:, None], len(noise), axis=1).astype(np.float32)
        return Block(image, spread, seen, _labels(self, index, drawn))


def _galaxies(asked: RedshiftSet, rng: np.random.Generator, count: int) -> dict[str, F64]:
    """Galaxies above the magnitude limit, as they come in a cone: arrays of length n, `flux` (n, 2, band)."""
    bands = asked.camera.bands
    judge = bands.index("i") if "i" in bands else len(bands) - 1
    parts: list[dict[str, F64]] = []
    while sum(len(part["redshift"]) for part in parts) < count:
        found = _candidates(asked, rng, 4 * count)
        magnitude = asked.camera.zero_point - 2.5 * np.log10(found["flux"].sum(1)[:, judge])
        kept = magnitude < asked.faintest
        parts.append({name: values[kept] for name, values in found.items()})
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _candidates(asked: RedshiftSet, rng: np.random.Generator, count: int) -> dict[str, F64]:
    redshifts, comoving = distances(asked.highest)
    volume = comoving**3 / comoving[-1] ** 3
    redshift = np.clip(np.interp(rng.uniform(0, 1, count), volume, redshifts), 0.01, None)
    distance = np.interp(redshift, redshifts, comoving)
    absolute = _absolute(rng, count)
    luminosity = 10 ** (-0.4 * (absolute - _CHARACTERISTIC))
    early = rng.uniform(0, 1, count) < np.clip(0.35 + 0.15 * np.log10(luminosity) - 0.15 * redshift, 0.05, 0.8)
    bulge = np.where(early, rng.beta(6, 1.5, count), rng.beta(1.2, 5, count))
    young = np.where(early, rng.beta(1.2, 12, count), rng.beta(3, 2.2, count))  # of the disk; bulges are old
    dust = np.where(early, 0.03, rng.gamma(2.0, 0.09, count)).clip(0, 0.6)
    bands, judge = tuple(asked.camera.bands), 1
    shape = fluxes(("r", *bands), redshift, np.zeros(count), dust, asked.highest)
    blue = fluxes(("r", *bands), redshift, young, dust, asked.highest)
    rest = fluxes(("r",), np.zeros(count), young, dust, asked.highest)[:, 0]
    old_rest = fluxes(("r",), np.zeros(count), np.zeros(count), dust, asked.highest)[:, 0]
    modulus = 5 * np.log10(distance * (1 + redshift) * 1e5)
    bright = 10 ** (-0.4 * (absolute + modulus - asked.camera.zero_point))
    whole = bulge * old_rest + (1 - bulge) * rest
    light = np.stack([bulge[:, None] * shape[:, judge:], (1 - bulge)[:, None] * blue[:, judge:]], 1)
    flux = light / whole[:, None, None] * bright[:, None, None]
    angular = distance / (1 + redshift) * 1000 / 206265  # kpc per arcsec
    radii = {}
    for name, (size, power, evolving) in _KPC.items():
        scatter = np.exp(rng.normal(0, 0.25, count))
        radii[name] = size * luminosity**power * (1 + redshift) ** -evolving * scatter / angular
    axis = np.where(early, rng.uniform(0.5, 1.0, count), rng.uniform(0.2, 1.0, count))
    return {
        "redshift": redshift,
        "absolute_magnitude": absolute,
        "bulge_fraction": bulge,
        "young_fraction": young,
        "reddening": dust,
        "bulge_radius": np.clip(radii["bulge"], 0.05, 3.0),
        "disk_radius": np.clip(radii["disk"], 0.1, 4.0),
        "axis_ratio": axis,
        "angle": rng.uniform(0, np.pi, count),
        "offset": rng.uniform(-0.5, 0.5, (count, 2)),
        "flux": flux,
    }


def _absolute(rng: np.random.Generator, count: int) -> F64:
    """Absolute magnitudes from a Schechter function down to the faintest."""
    grid = np.linspace(_CHARACTERISTIC - 3, _FAINTEST, 600)
    size = 10 ** (-0.4 * (grid - _CHARACTERISTIC))
    number = size ** (_FAINT_SLOPE + 1) * np.exp(-size)
    return np.asarray(np.interp(rng.uniform(0, 1, count), np.cumsum(number) / number.sum(), grid))


def _drawn(galaxies: dict[str, F64], fwhm: F64, asked: RedshiftSet) -> F32:
    """(n, band, y, x) noiseless images."""
    side, scale = asked.size * _FINE, asked.camera.pixel_scale / _FINE
    axis = (np.arange(side) - (asked.size // 2 + 0.5) * _FINE + 0.5) * scale
    dx = axis[None, None, :] - galaxies["offset"][:, 0, None, None] * asked.camera.pixel_scale
    dy = axis[None, :, None] - galaxies["offset"][:, 1, None, None] * asked.camera.pixel_scale
    cosine, sine = (function(galaxies["angle"])[:, None, None] for function in (np.cos, np.sin))
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    seeing = np.fft.rfft2(np.fft.ifftshift(_moffat(fwhm / scale, side), axes=(1, 2)))
    found = np.zeros((len(fwhm), len(asked.camera.bands), asked.size, asked.size), np.float32)
    ratios = galaxies["axis_ratio"]
    parts = (("bulge_radius", 4.0, np.maximum(ratios, 0.6)), ("disk_radius", 1.0, ratios))
    for number, (radius, index, ratio) in enumerate(parts):
        flat = ratio[:, None, None]
        distance = np.sqrt(along**2 * flat + across**2 / flat + (0.3 * scale) ** 2) / galaxies[radius][:, None, None]
        light = np.exp(-_SERSIC[index] * (distance ** (1 / index) - 1))
        light /= light.sum((1, 2), keepdims=True)
        blurred = np.fft.irfft2(np.fft.rfft2(light) * seeing, s=(side, side))
        binned = blurred.reshape(len(fwhm), asked.size, _FINE, asked.size, _FINE).sum((2, 4))
        found += (galaxies["flux"][:, number, :, None, None] * binned[:, None]).astype(np.float32)
    return found


def _moffat(fwhm: F64, side: int) -> F64:
    """(n, side, side) Moffat PSFs of beta 3 and unit sum on pixel side // 2, FWHM (n,) in pixels."""
    axis = np.square(np.arange(side) - side // 2)
    core = np.square(fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1)))[:, None, None]
    values = (1 + (axis[:, None] + axis[None, :])[None] / core) ** -3.0
    return np.asarray(values / values.sum((1, 2), keepdims=True))


def _noise(band: str, camera: Camera) -> float:
    """Standard deviation of a pixel from the depth of a band for point sources under the middle PSF."""
    fwhm = float(np.mean(camera.psf_fwhm))
    faint = 10 ** (-0.4 * (_DEPTHS[band] - camera.zero_point)) / 5
    return float(faint / (np.sqrt(4 * np.pi) * fwhm / camera.pixel_scale / 2.3548))


def _labels(asked: RedshiftSet, index: int, galaxies: dict[str, F64]) -> pa.Table:
    count = len(galaxies["redshift"])
    first = index * asked.block
    whole = galaxies["flux"].sum(1)
    magnitudes = (asked.camera.zero_point - 2.5 * np.log10(whole)).astype(np.float32)
    plain = {name: values for name, values in galaxies.items() if values.ndim == 1}
    return pa.table(
        {
            "object_id": np.arange(first, first + count, dtype=np.int64),
            "ra": pa.nulls(count, pa.float64()),
            "dec": pa.nulls(count, pa.float64()),
            **{name: values.astype(np.float32) for name, values in plain.items()},
            **{f"mag_{band}": magnitudes[:, place] for place, band in enumerate(asked.camera.bands)},
        }
    )
