"""Real galaxies: HST images in GalSim's `RealGalaxyCatalog` layout, deconvolved in Fourier space.

GalSim's own `RealGalaxy` draws about 75 a second. Here the ratio of a galaxy's transform to that of its PSF is
tabulated once per process on a fine grid around the origin and read by cubic interpolation, at any shear and rotation.
The data: COSMOS F814W (Koekemoer et al. 2007; Leauthaud et al. 2007), prepared by Mandelbaum et al. (2012).
"""

from __future__ import annotations

import glob
import math
import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import C64, C128, F32, F64, I64
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.baselines.shape_features import shape_features
from astroml_plugin.simulation.profiles import Blur, Grid, Matrix, load_galsim

TEST_FRACTION = 0.4
"""Fraction of the objects of a catalog that is held out from training."""

_READING = threading.Lock()
"""One reader at a time: a catalog keeps its files open until it is closed."""

_K_MAX = 50.0
"""rad/arcsec: beyond it ground-based PSFs (FWHM above 0.4 arcsec) let nothing through."""

_PADDING = 4
"""Factor on the image's side; cubic interpolation of its transform is then good to 1e-3 at the image's edge."""

_LEAST = 0.02
"""Transform of HST's PSF below which nothing is restored."""

STRUCTURES = ("early", "late", "irregular")
"""Names of the structures that galaxies are told apart by."""

_CLEAR = 30.0
"""S/N of the whole image from which the structure is told."""

_MOST = 2000
"""Galaxies of a part whose structure is looked at; of larger ones so many are drawn."""

_ASYMMETRIC = 0.2
"""Asymmetry from which a galaxy is irregular. Mergers have 0.35 and more (Conselice 2003, ApJS 147, 1)."""


@dataclass(frozen=True)
class HstGalaxies:
    """A catalog of real galaxies."""

    path: str
    """Path of the FITS table."""
    count: int

    @classmethod
    def open(cls, path: str) -> HstGalaxies:
        """The catalog at `path`, a FITS table or the folder that holds it.

        Raises:
            InputError: there is none, or GalSim cannot read it.
        """
        return _open_catalog(path)

    def part(self, name: str, seed: int) -> I64:
        """Indices of the objects of `train`, `test` or `all`, by a seeded permutation; train and test share none.

        Raises:
            InputError: another name.
        """
        if name not in ("train", "test", "all"):
            raise InputError(f"a part of the real galaxies is train, test or all, not {name!r}")
        order = np.random.default_rng(seed).permutation(self.count)
        held_out = round(TEST_FRACTION * self.count)
        chosen = {"train": order[held_out:], "test": order[:held_out], "all": order}[name]
        if not len(chosen):
            raise InputError(f"{self.path} has {self.count} galaxies, none for the part {name!r}")
        return np.sort(chosen)

    def of_structure(self, structure: str, name: str, seed: int) -> I64:
        """Indices of the objects of a part (see `part`) whose structure is one of `STRUCTURES`.

        Galaxies of S/N 30 and more, by asymmetry, Gini and M20 on HST's own image: irregular where the asymmetry is
        0.2 or more or Gini > 0.33 - 0.14 M20, early where Gini > 0.80 + 0.14 M20, else late (Lotz et al. 2008, ApJ
        672, 177). Of a part of more than 2,000 objects so many are looked at.

        Raises:
            InputError: the part has none of them.
        """
        found = _structured(self, name, seed).get(structure)
        if found is None:
            raise InputError(f"the part {name!r} of {self.path} has no galaxy of S/N {_CLEAR:g} that is {structure}")
        return found


@dataclass(frozen=True)
class Picture:
    """One real galaxy as a profile; its plane is the sky in arcsec, +x along columns, around the image's centre."""

    path: str
    """FITS table of the catalog."""
    index: int
    """Row of the table."""

    @property
    def half_light_radius(self) -> float:
        """Arcsec, of the circle around the centre that holds half the image's flux."""
        return _restored(self.path, self.index).half_light_radius

    @property
    def spread(self) -> float:
        """Extent to the edge of the image (see `profiles.Profile.spread`)."""
        return _restored(self.path, self.index).radius

    def transform(self, matrix: Matrix, grid: Grid) -> C64:
        """Fourier transform after `matrix` (see `profiles.Profile.transform`)."""
        restored = _restored(self.path, self.index)
        kx, ky = grid.kx[None, :], grid.ky[:, None]
        u = (matrix.xx * kx + matrix.yx * ky) / restored.step
        v = (matrix.xy * kx + matrix.yy * ky) / restored.step
        return _interpolated(restored.table, u.astype(np.float32), v.astype(np.float32))

    def reach(self, matrix: Matrix, flux: float, blur: Blur) -> float:
        """Reach to the edge of the image (see `profiles.Profile.reach`)."""
        return matrix.stretch() * _restored(self.path, self.index).radius + blur.margin


class _Restored(NamedTuple):
    """A galaxy above the atmosphere and HST's optics."""

    table: C64
    """(2 m + 1, 2 m + 1) transform at k = -m ... m steps, rows along y; 1 at the centre."""
    step: float
    """rad/arcsec."""
    radius: float
    """Arcsec from the centre to the middle of the image's longer side."""
    half_light_radius: float
    """Arcsec."""


@lru_cache(maxsize=8)
def _open_catalog(path: str) -> HstGalaxies:
    table = _table_in(path) if os.path.isdir(path) else path
    return HstGalaxies(table, int(_catalog(table).nobjects))


def _table_in(folder: str) -> str:
    """The catalog in a folder: the one FITS table beside images and PSFs."""
    found = [
        name
        for name in sorted(glob.glob(os.path.join(glob.escape(folder), "*catalog*.fits")))
        if not name.endswith(("_fits.fits", "_selection.fits"))
    ]
    if not found:
        raise InputError(f"{folder} holds no RealGalaxyCatalog (*catalog*.fits): give the path of its FITS table")
    return found[0]


@lru_cache(maxsize=8)
def _catalog(table: str) -> Any:
    galsim = load_galsim()
    try:
        return galsim.RealGalaxyCatalog(os.path.basename(table), dir=os.path.dirname(table) or ".")
    except (OSError, KeyError) as error:
        raise InputError(f"{table} cannot be read as a RealGalaxyCatalog: {error}") from error


@lru_cache(maxsize=4096)
def _restored(path: str, index: int) -> _Restored:
    image, psf, scale = _read(path, index)
    side = 2 ** math.ceil(math.log2(_PADDING * max(*image.shape, *psf.shape)))
    step = 2 * math.pi / (side * scale)
    reach = min(math.ceil(_K_MAX / step), side // 2 - 1)
    k = np.arange(-reach, reach + 1)
    galaxy, optics = (_centred_transform(plane, side, k) for plane in (image, psf))
    kept = (np.abs(optics) > _LEAST * np.abs(optics).max()) & (np.hypot(k[:, None], k) * step <= _K_MAX)
    table = np.where(kept, galaxy / np.where(kept, optics, 1.0), 0.0)
    table /= table[reach, reach].real
    radius = max(image.shape) / 2 * scale
    return _Restored(table.astype(np.complex64), step, radius, _half_light_radius(image) * scale)


@lru_cache(maxsize=8)
def _structured(galaxies: HstGalaxies, name: str, seed: int) -> dict[str, I64]:
    """Structure -> indices of the galaxies of a part that have it; those that are too faint under an empty text."""
    chosen = galaxies.part(name, seed)
    if len(chosen) > _MOST:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MOST, replace=False))
    told = np.array([_structure(galaxies.path, int(index)) for index in chosen])
    return {str(structure): chosen[told == structure] for structure in np.unique(told)}


def _structure(path: str, index: int) -> str:
    """One of `STRUCTURES`, or nothing where the galaxy is too faint to tell."""
    image, variance = _read(path, index)[0].astype(np.float32), float(_catalog(path).variance[index])
    if image.sum() < _CLEAR * math.sqrt(variance * image.size):
        return ""
    side = min(image.shape)
    y, x = ((length - side) // 2 for length in image.shape)
    stamp = image[None, None, y : y + side, x : x + side]
    measured = shape_features(from_stamps(stamp, np.full_like(stamp, variance), None, bands=("F814W",)))
    asymmetry, gini, m20 = (measured.values[0, measured.names.index(name)] for name in ("asymmetry", "gini", "m20"))
    if asymmetry >= _ASYMMETRIC or gini > 0.33 - 0.14 * m20:
        return "irregular"
    return "early" if gini > 0.80 + 0.14 * m20 else "late"


def _read(path: str, index: int) -> tuple[F64, F64, float]:
    """Image, PSF (y, x) and arcsec per pixel of one galaxy."""
    catalog = _catalog(path)
    with _READING:
        try:
            galaxy, psf = catalog.getGalImage(index), catalog.getPSFImage(index)
        except OSError as error:
            raise InputError(f"galaxy {index} of {path} cannot be read: {error}") from error
        finally:
            catalog.close()
    return np.array(galaxy.array, np.float64), np.array(psf.array, np.float64), float(galaxy.scale)


def _centred_transform(image: F64, side: int, k: I64) -> C128:
    """Transform of `image`, zero-padded to `side`, about its true centre, at whole wave numbers `k` of both axes."""
    transform = np.fft.fft2(image, (side, side))[np.ix_(k, k)]
    y, x = ((length - 1) / 2 for length in image.shape)
    phase = [np.exp(2j * np.pi * k * centre / side) for centre in (y, x)]
    result: C128 = transform * phase[0][:, None] * phase[1]
    return result


def _half_light_radius(image: F64) -> float:
    """Pixels around the centre that hold half the sum of `image`."""
    y, x = np.indices(image.shape)
    radius = np.hypot(y - (image.shape[0] - 1) / 2, x - (image.shape[1] - 1) / 2).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(image.ravel()[order])
    return float(radius[order][np.argmax(growth >= growth[-1] / 2)])


def _interpolated(table: C64, u: F32, v: F32) -> C64:
    """`table` at (row v, column u) steps from its centre by cubic convolution (Keys 1981), 0 beyond."""
    side = len(table)
    middle = side // 2
    outside = (np.abs(u) > middle - 2) | (np.abs(v) > middle - 2)
    u, v = (np.where(outside, 0, values) + np.float32(middle) for values in (u, v))
    column, row = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    along_x, along_y = _weights(u - column), _weights(v - row)
    flat, first = table.ravel(), (row - 1) * side + column - 1
    total = np.zeros(u.shape, np.complex64)
    for j in range(4):
        line = np.zeros(u.shape, np.complex64)
        for i in range(4):
            line += along_x[i] * flat.take(first + (j * side + i))
        total += along_y[j] * line
    total[outside] = 0
    return total


def _weights(t: NDArray[np.floating[Any]]) -> list[F32]:
    """Weights of the points at -1, 0, 1, 2 for a place 0 <= t < 1 (Keys' kernel, a = -1/2)."""
    t = t.astype(np.float32)
    half = np.float32(0.5)
    square, cube = t * t, t * t * t
    return [
        half * (-cube + 2 * square - t),
        half * (3 * cube - 5 * square + 2),
        half * (-3 * cube + 4 * square + t),
        half * (cube - square),
    ]
