"""Drawing galaxies and stars: radial profiles of GalSim on our own Fourier grid.

GalSim draws one Sersic galaxy under a Moffat PSF in about 3 ms, most of it finding grid sizes and building lookup
tables again. Here the radial Fourier profiles are tabulated once per process with GalSim (Rowe et al. 2015, A&C 10,
121); a part of an object costs two table lookups and one small inverse FFT. `tests/test_simulation.py` holds the
result against `galsim.drawImage`.

A profile knows its Fourier transform and how far it reaches. A 2×2 map gives it size, ellipticity, rotation and shear:
an image f(M⁻¹x)/|M| has the transform F(Mᵀk). A new kind of light is one more class with `transform` and `reach`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.registry import optional
from astroml_plugin.core.typing import C64, F32, Array

SERSIC_STEP = 0.1
"""Sersic indices are multiples of this, so that every profile drawn is exactly one of GalSim's."""

PSF_PROFILES = ("moffat", "kolmogorov")

MOFFAT_BETA = 3.0

_STEP = 0.01
_LENGTH = 6001

_REACH_OF_PSF = 3.75
"""FWHM in pixels times wave number in Nyquist from where a Moffat PSF with its pixels is below 2e-4: not drawn."""

FOLDED = 0.01
"""Share of a galaxy's light that may lie beyond the grid of a stamp, from where it folds back: the response of broad
moments to shear changes by less than 5e-5 in the mean of Sersic n 0.5-4 (measured against grids of 256 pixels)."""

GRIDS = (32, 48, 64, 80, 96, 112, 128, 160, 192, 256)
"""Allowed sides of a drawn object in pixels."""


def load_galsim() -> Any:
    """The galsim module; InputError that names the extra when it is not installed."""
    return optional("galsim", 'simulating needs GalSim, which is not installed: pip install "astroml-plugin[sim]"')


# --- linear maps ----------------------------------------------------------------------------------------------------


class Matrix(NamedTuple):
    """A linear map of the image plane, rows (xx, xy) and (yx, yy)."""

    xx: float
    xy: float
    yx: float
    yy: float

    def after(self, first: Matrix) -> Matrix:
        """The map that does `first`, then this one."""
        return Matrix(
            self.xx * first.xx + self.xy * first.yx,
            self.xx * first.xy + self.xy * first.yy,
            self.yx * first.xx + self.yy * first.yx,
            self.yx * first.xy + self.yy * first.yy,
        )

    def apply(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Where (x, y) goes; numbers or arrays."""
        return self.xx * x + self.xy * y, self.yx * x + self.yy * y

    def stretch(self) -> float:
        """The larger singular value: how long a unit vector can become."""
        half = (self.xx**2 + self.xy**2 + self.yx**2 + self.yy**2) / 2
        area = self.xx * self.yy - self.xy * self.yx
        return math.sqrt(half + math.sqrt(max(half * half - area * area, 0.0)))


def ellipse(e1: float, e2: float, radius: float = 1.0) -> Matrix:
    """The map of the unit circle to an ellipse with sqrt(ab) = `radius`, |e| = (a-b)/(a+b); a shear if radius is 1."""
    norm = radius / math.sqrt(1.0 - e1 * e1 - e2 * e2)
    return Matrix(norm * (1 + e1), norm * e2, norm * e2, norm * (1 - e1))


def rotation(angle: float) -> Matrix:
    """The map that turns +x towards +y by `angle` radians; exact for quarter turns."""
    quarters = angle / (math.pi / 2)
    if quarters == round(quarters):
        cosine, sine = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[round(quarters) % 4]
    else:
        cosine, sine = math.cos(angle), math.sin(angle)
    return Matrix(cosine, -sine, sine, cosine)


# --- the Fourier grid -----------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """Wave numbers beyond Nyquist: what pixels fold back is drawn, not cut off. Planes are (rows, columns) float32."""

    size: int
    """Side of the image in pixels."""
    pixel_scale: float
    """Arcsec per pixel."""
    kxx: F32
    kxy: F32
    kyy: F32
    pixel: F32
    """Pixel response."""
    kx: Array
    """(columns,) rad/arcsec, from 0 up."""
    ky: Array
    """(rows,) rad/arcsec, in the order of an FFT."""


@lru_cache(maxsize=32)
def make_grid(size: int, pixel_scale: float, oversampling: float = 2.0) -> Grid:
    """Wave numbers up to `oversampling` (1 to 2, in steps of 1/4) times Nyquist for an image of `size` pixels."""
    half = round(size * oversampling / 2)
    unit = 2 * math.pi / (size * pixel_scale)
    kx = unit * np.arange(half + 1)
    ky = unit * np.concatenate([np.arange(half), np.arange(-half, 0)])
    response = np.sinc(kx * pixel_scale / 2 / np.pi)[None, :] * np.sinc(ky * pixel_scale / 2 / np.pi)[:, None]
    x, y = np.meshgrid(kx, ky)
    planes = (x * x, 2 * x * y, y * y, response)
    xx, xy, yy, pixel = (np.ascontiguousarray(plane, dtype=np.float32) for plane in planes)
    return Grid(size, pixel_scale, xx, xy, yy, pixel, kx, ky)


def grid_for(psf: Psf, size: int, pixel_scale: float) -> Grid:
    """The grid that what `psf` lets through needs."""
    narrow = psf.fwhm * (1 - math.hypot(psf.e1, psf.e2)) / pixel_scale
    steps = (step for step in (1.0, 1.25, 1.5) if narrow * step >= _REACH_OF_PSF)
    return make_grid(size, pixel_scale, next(steps, 2.0))


def to_image(transform: Array, grid: Grid, dx: float, dy: float) -> F32:
    """Pixels (size, size) of a transform on `grid`, its centre at pixel (size/2 + dx, size/2 + dy) counted from 0."""
    half_side = grid.size / 2
    phase_y = np.exp(-1j * (half_side + dy) * grid.pixel_scale * grid.ky).astype(np.complex64)
    phase_x = np.exp(-1j * (half_side + dx) * grid.pixel_scale * grid.kx).astype(np.complex64)
    spectrum = (phase_y[:, None] * phase_x) * transform
    pixels: F32 = np.fft.irfft2(_folded(spectrum, grid.size), s=(grid.size, grid.size)).astype(np.float32, copy=False)
    return pixels


def _folded(spectrum: C64, size: int) -> C64:
    """The half spectrum (size, size/2 + 1) of the pixels: wave numbers beyond Nyquist added where they fall."""
    half = len(spectrum) // 2
    rows = np.zeros((size, spectrum.shape[1]), spectrum.dtype)
    rows[:half] = spectrum[:half]
    rows[size - half :] += spectrum[half:]
    folded = rows[:, : size // 2 + 1]
    mirrored = np.conj(rows[-np.arange(size), size // 2 :][:, ::-1])  # columns half, ..., size/2 of -k
    folded[:, size - half :] += mirrored
    return folded


def grid_size(radius: float) -> int:
    """The smallest allowed side that reaches `radius` pixels from the centre."""
    return next((size for size in GRIDS if size >= 2 * radius), GRIDS[-1])


# --- profiles -------------------------------------------------------------------------------------------------------


class Blur(NamedTuple):
    """How a PSF widens things, in pixels."""

    core: float
    """Scale length of the PSF."""
    margin: float
    """Added around anything extended."""
    limit: float
    """Counts per pixel at which a drawing may end."""


class Profile(Protocol):
    """Light of unit flux around the origin."""

    @property
    def spread(self) -> float:
        """Radius beyond which lies `FOLDED` of the light."""

    def transform(self, matrix: Matrix, grid: Grid) -> Array:
        """Fourier transform after `matrix`, real or complex, on the planes of `grid` or broadcast to them."""

    def reach(self, matrix: Matrix, flux: float, blur: Blur) -> float:
        """Pixels from the origin to where it falls to `blur.limit`; `matrix` leads to pixels."""


@dataclass(frozen=True)
class Point:
    """A point source."""

    spread: ClassVar[float] = 0.0

    def transform(self, matrix: Matrix, grid: Grid) -> F32:
        """Fourier transform after `matrix` (see `Profile.transform`)."""
        return np.ones((1, 1), np.float32)

    def reach(self, matrix: Matrix, flux: float, blur: Blur) -> float:
        """Reach of the wings of a Moffat PSF of beta 3 (see `Profile.reach`)."""
        wings = blur.core * (max(flux, 0.0) * 2 / (math.pi * blur.core**2) / blur.limit) ** (1 / 6)
        return float(max(2 * blur.margin, wings))


@dataclass(frozen=True)
class Sersic:
    """A round Sersic profile with a half-light radius of 1."""

    n: float
    """Index, a multiple of `SERSIC_STEP` from 0.3 to 6.2."""

    @property
    def spread(self) -> float:
        """Extent of the light (see `Profile.spread`)."""
        return _sersic_spread(self.n)

    def transform(self, matrix: Matrix, grid: Grid) -> F32:
        """Fourier transform after `matrix` (see `Profile.transform`)."""
        return _radial_at(_sersic_table(round(self.n / SERSIC_STEP)), matrix, grid)

    def reach(self, matrix: Matrix, flux: float, blur: Blur) -> float:
        """Reach above the noise (see `Profile.reach`)."""
        n, b = self.n, 2 * self.n - 1 / 3
        area = abs(matrix.xx * matrix.yy - matrix.xy * matrix.yx)
        brightness = flux / (2 * math.pi * n * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n) * area)
        scale = (1 + max(0.0, math.log(max(brightness / blur.limit, 1.0))) / b) ** n
        return float(matrix.stretch() * max(scale, 2.5) + blur.margin)


@dataclass(frozen=True)
class Knots:
    """Point sources around the origin."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    weight: tuple[float, ...]
    """Shares of the flux, sum 1."""

    @property
    def spread(self) -> float:
        """Extent to the outermost knot (see `Profile.spread`)."""
        return max(math.hypot(x, y) for x, y in zip(self.x, self.y, strict=True))

    def transform(self, matrix: Matrix, grid: Grid) -> C64:
        """Fourier transform (see `Profile.transform`): a sum of phases, added up here as a BLAS only starts threads."""
        x, y = matrix.apply(np.array(self.x), np.array(self.y))
        along_y = (np.array(self.weight)[:, None] * np.exp(-1j * y[:, None] * grid.ky)).astype(np.complex64)
        along_x = np.exp(-1j * x[:, None] * grid.kx).astype(np.complex64)
        total = np.zeros((len(grid.ky), len(grid.kx)), np.complex64)
        for row, column in zip(along_y, along_x, strict=True):
            total += row[:, None] * column
        return total

    def reach(self, matrix: Matrix, flux: float, blur: Blur) -> float:
        """Reach above the noise (see `Profile.reach`)."""
        x, y = matrix.apply(np.array(self.x), np.array(self.y))
        return float(np.hypot(x, y).max()) + Point().reach(matrix, flux * max(self.weight), blur)


class Psf(NamedTuple):
    """A point-spread function before the pixel response."""

    profile: str
    """One of `PSF_PROFILES`."""
    fwhm: float
    """Arcsec."""
    e1: float
    """(a-b)/(a+b) cos 2 phi, phi from +x towards +y."""
    e2: float
    """(a-b)/(a+b) sin 2 phi."""


@lru_cache(maxsize=256)
def _sersic_table(tenths: int) -> F32:
    """Fourier transform of a Sersic profile of unit flux and half-light radius at k = 0, 0.01, ... 60."""
    galsim = load_galsim()
    return _radial(galsim.Sersic(tenths * SERSIC_STEP, half_light_radius=1.0))


@lru_cache(maxsize=256)
def _sersic_spread(n: float) -> float:
    """Radius in half-light radii, from the light within r of exp(-b r^(1/n)), with x = b r^(1/n)."""
    x = np.linspace(0, 60 + 10 * n, 20_000)[n < 0.5 :]  # below 0.5 the integrand has a pole at 0
    light = np.cumsum(x ** (2 * n - 1) * np.exp(-x))
    half, most = np.interp([0.5, 1 - FOLDED], light / light[-1], x)
    return float((most / half) ** n)


@lru_cache(maxsize=8)
def _psf_table(profile: str) -> F32:
    """Fourier transform of a PSF of unit flux and FWHM at k = 0, 0.01, ... 60."""
    galsim = load_galsim()
    if profile == "moffat":
        return _radial(galsim.Moffat(beta=MOFFAT_BETA, fwhm=1.0))
    if profile == "kolmogorov":
        return _radial(galsim.Kolmogorov(fwhm=1.0))
    raise InputError(f"no PSF profile {profile!r}: use one of {', '.join(PSF_PROFILES)}")


def _radial(profile: object) -> F32:
    image = profile.drawKImage(nx=2 * _LENGTH - 1, ny=1, scale=_STEP)  # type: ignore[attr-defined]
    return np.ascontiguousarray(image.real.array[0, _LENGTH - 1 :], dtype=np.float32)


def _radial_at(table: F32, matrix: Matrix, grid: Grid) -> F32:
    """The radial `table` at |Mᵀk|."""
    squared = np.float32(matrix.xx**2 + matrix.xy**2) * grid.kxx
    squared += np.float32(matrix.xx * matrix.yx + matrix.xy * matrix.yy) * grid.kxy
    squared += np.float32(matrix.yx**2 + matrix.yy**2) * grid.kyy
    position = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
    position *= np.float32(1.0 / _STEP)
    np.minimum(position, np.float32(_LENGTH - 2), out=position)
    index = position.astype(np.intp)
    position -= index
    low = table.take(index)
    index += 1
    rise = table.take(index)
    rise -= low
    rise *= position
    rise += low
    values: F32 = rise
    return values


@lru_cache(maxsize=32)
def psf_transform(psf: Psf, size: int, pixel_scale: float) -> F32:
    """Fourier transform of `psf` times the pixel response on `grid_for(psf, size, pixel_scale)`."""
    return response(psf, grid_for(psf, size, pixel_scale))


def response(psf: Psf, grid: Grid) -> F32:
    """Fourier transform of `psf` times the pixel response on `grid`."""
    return _radial_at(_psf_table(psf.profile), ellipse(psf.e1, psf.e2, psf.fwhm), grid) * grid.pixel


@lru_cache(maxsize=16)
def psf_image(psf: Psf, size: int, pixel_scale: float) -> F32:
    """The effective PSF (pixel response included) on (size, size) pixels, centre at pixel size // 2, sum about 1."""
    side = grid_size(size / 2 + 8)
    full = to_image(psf_transform(psf, side, pixel_scale), grid_for(psf, side, pixel_scale), 0.0, 0.0)
    origin = side // 2 - size // 2
    return np.ascontiguousarray(full[origin : origin + size, origin : origin + size])
