"""Drawing galaxies and stars: GalSim's radial profiles on our own Fourier grid.

GalSim draws one Sersic galaxy under a Moffat PSF in about 3 ms, most of it finding grid sizes and building lookup
tables again. Here the radial Fourier profiles are tabulated once per process with GalSim (Rowe et al. 2015, A&C 10,
121), and an object costs two table lookups and one inverse FFT per band. `tests/test_simulation.py` holds the result
against `galsim.drawImage`.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.errors import InputError

Float = NDArray[np.float32]

SERSIC_STEP = 0.1
"""Sersic indices are multiples of this, so that every profile drawn is exactly one of GalSim's."""

PSF_PROFILES = ("moffat", "kolmogorov")

MOFFAT_BETA = 3.0

_STEP = 0.01
_LENGTH = 6001
_OVERSAMPLING = 2
"""Real-space oversampling of the Fourier grid: what the pixels fold back is drawn, not cut off."""

GRIDS = (32, 48, 64, 96, 128, 192, 256)
"""Allowed sides of a drawn object in pixels."""


def load_galsim() -> ModuleType:
    """The galsim module; InputError that names the extra when it is not installed."""
    try:
        import galsim
    except ImportError:
        message = 'simulating needs GalSim, which is not installed: pip install "astroml-plugin[sim]"'
        raise InputError(message) from None
    return galsim  # type: ignore[no-any-return]


class Shape(NamedTuple):
    """One elliptical component."""

    sersic_n: float
    """Sersic index, a multiple of `SERSIC_STEP`."""
    half_light_radius: float
    """Arcsec, sqrt(ab): the radius of the circle of the same area."""
    e1: float
    """(a-b)/(a+b) cos 2 phi, phi from +x towards +y."""
    e2: float
    """(a-b)/(a+b) sin 2 phi."""


class Psf(NamedTuple):
    """A point-spread function before the pixel response."""

    profile: str
    """One of `PSF_PROFILES`."""
    fwhm: float
    """Arcsec."""
    e1: float
    """As `Shape.e1`."""
    e2: float
    """As `Shape.e2`."""


@lru_cache(maxsize=256)
def _sersic_table(tenths: int) -> Float:
    """Fourier transform of a Sersic profile of unit flux and half-light radius at k = 0, 0.01, ... 60."""
    galsim = load_galsim()
    return _radial(galsim.Sersic(tenths * SERSIC_STEP, half_light_radius=1.0))


@lru_cache(maxsize=8)
def _psf_table(profile: str) -> Float:
    """Fourier transform of a PSF of unit flux and FWHM at k = 0, 0.01, ... 60."""
    galsim = load_galsim()
    if profile == "moffat":
        return _radial(galsim.Moffat(beta=MOFFAT_BETA, fwhm=1.0))
    if profile == "kolmogorov":
        return _radial(galsim.Kolmogorov(fwhm=1.0))
    raise InputError(f"no PSF profile {profile!r}: use one of {', '.join(PSF_PROFILES)}")


def _radial(profile: object) -> Float:
    image = profile.drawKImage(nx=2 * _LENGTH - 1, ny=1, scale=_STEP)  # type: ignore[attr-defined]
    return np.ascontiguousarray(image.real.array[0, _LENGTH - 1 :], dtype=np.float32)


class _Grid(NamedTuple):
    """Wave numbers of an oversampled real FFT, each (2 size, size + 1) float32 unless said otherwise."""

    kxx: Float
    kxy: Float
    kyy: Float
    pixel: Float
    """Pixel response, with the factor that keeps unit flux after subsampling."""
    kx: NDArray[np.floating]
    """(size + 1,)"""
    ky: NDArray[np.floating]
    """(2 size,)"""


@lru_cache(maxsize=32)
def _grid(size: int, pixel_scale: float) -> _Grid:
    side, spacing = size * _OVERSAMPLING, pixel_scale / _OVERSAMPLING
    kx = 2 * np.pi * np.fft.rfftfreq(side, spacing)
    ky = 2 * np.pi * np.fft.fftfreq(side, spacing)
    response = np.sinc(kx * pixel_scale / 2 / np.pi)[None, :] * np.sinc(ky * pixel_scale / 2 / np.pi)[:, None]
    x, y = np.meshgrid(kx, ky)
    planes = (x * x, 2 * x * y, y * y, response * _OVERSAMPLING**2)
    xx, xy, yy, pixel = (np.ascontiguousarray(plane, dtype=np.float32) for plane in planes)
    return _Grid(xx, xy, yy, pixel, kx, ky)


def _sheared(table: Float, radius: float, e1: float, e2: float, grid: _Grid) -> Float:
    """The radial `table` at |S k| radius, with S the area-preserving shear of ellipticity (e1, e2)."""
    norm = radius * radius / (1.0 - e1 * e1 - e2 * e2)
    xx = norm * ((1 + e1) ** 2 + e2 * e2)
    yy = norm * ((1 - e1) ** 2 + e2 * e2)
    xy = norm * 2 * e2
    squared = np.float32(xx) * grid.kxx
    squared += np.float32(xy) * grid.kxy
    squared += np.float32(yy) * grid.kyy
    position = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
    position *= np.float32(1.0 / _STEP)
    np.minimum(position, np.float32(_LENGTH - 2), out=position)
    index = position.astype(np.int32)
    position -= index
    low = table[index]
    index += 1
    return low + position * (table[index] - low)


def psf_transform(psf: Psf, size: int, pixel_scale: float) -> Float:
    """Fourier transform of `psf` times the pixel response on the grid of `size`, (2 size, size + 1)."""
    grid = _grid(size, pixel_scale)
    return _sheared(_psf_table(psf.profile), psf.fwhm, psf.e1, psf.e2, grid) * grid.pixel


def shape_transform(shape: Shape, size: int, pixel_scale: float) -> Float:
    """Fourier transform of a Sersic component of unit flux on the grid of `size`, (2 size, size + 1)."""
    table = _sersic_table(round(shape.sersic_n / SERSIC_STEP))
    return _sheared(table, shape.half_light_radius, shape.e1, shape.e2, _grid(size, pixel_scale))


def to_image(transform: Float, size: int, pixel_scale: float, dx: float, dy: float) -> Float:
    """Pixels (size, size) of a transform, its centre at pixel (size/2 + dx, size/2 + dy) counted from 0."""
    grid = _grid(size, pixel_scale)
    shift_x = (size / 2 + dx) * pixel_scale
    shift_y = (size / 2 + dy) * pixel_scale
    phase = np.exp(-1j * shift_y * grid.ky).astype(np.complex64)[:, None] * np.exp(-1j * shift_x * grid.kx).astype(
        np.complex64
    )
    side = size * _OVERSAMPLING
    fine = np.fft.irfft2(phase * transform, s=(side, side))
    return np.ascontiguousarray(fine[::_OVERSAMPLING, ::_OVERSAMPLING], dtype=np.float32)


@lru_cache(maxsize=16)
def psf_image(psf: Psf, size: int, pixel_scale: float) -> Float:
    """The effective PSF (pixel response included) on (size, size) pixels, centre at pixel size // 2, sum about 1."""
    side = grid_size(size / 2 + 8)
    full = to_image(psf_transform(psf, side, pixel_scale), side, pixel_scale, 0.0, 0.0)
    origin = side // 2 - size // 2
    return np.ascontiguousarray(full[origin : origin + size, origin : origin + size])


def grid_size(radius: float) -> int:
    """The smallest allowed side that reaches `radius` pixels from the centre."""
    return next((size for size in GRIDS if size >= 2 * radius), GRIDS[-1])
