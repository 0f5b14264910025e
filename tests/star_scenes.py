"""A field of stars, galaxies and defects whose PSF is known at every pixel: Moffat profiles as sampled."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import F64

SIDE, NOISE, FULL = 512, 5.0, 20_000.0


def moffat(dx: F64, dy: F64, fwhm: float, e1: float, e2: float, beta: float = 3.0) -> F64:
    """Profile of unit light with the shape (a - b) / (a + b) = |e| at offsets from its centre."""
    norm = 1 - e1**2 - e2**2
    x = ((1 - e1) * dx - e2 * dy) / np.sqrt(norm)
    y = ((1 + e1) * dy - e2 * dx) / np.sqrt(norm)
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return np.asarray((beta - 1) / (np.pi * alpha**2) * (1 + (x * x + y * y) / alpha**2) ** -beta)


def psf_of(x: float, y: float, side: int = SIDE) -> tuple[float, float, float]:
    """FWHM, e1, e2 of the PSF at a place."""
    u, v = 2 * x / side - 1, 2 * y / side - 1
    return 3.2 * (1 + 0.05 * u - 0.03 * v), 0.02 + 0.03 * u, -0.01 + 0.02 * v


def true_psf(x: float, y: float, size: int, side: int = SIDE) -> F64:
    """(size, size) PSF at a place, of unit sum."""
    along = np.arange(size) - size // 2.0
    found = moffat(along[None, :], along[:, None], *psf_of(x, y, side))
    return np.asarray(found / found.sum())


def scene(seed: int = 1, stars: int = 110, galaxies: int = 120, side: int = SIDE) -> tuple[F64, F64]:
    """Image (side, side), and x, y of its stars (n, 2); some are full, and nothing is masked."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))

    def put(x: float, y: float, flux: float, shape: tuple[float, float, float], half: int) -> None:
        rows = slice(max(round(y) - half, 0), min(round(y) + half + 1, side))
        columns = slice(max(round(x) - half, 0), min(round(x) + half + 1, side))
        dx, dy = np.arange(columns.start, columns.stop) - x, np.arange(rows.start, rows.stop) - y
        image[rows, columns] += flux * moffat(dx[None, :], dy[:, None], *shape)

    places = rng.uniform(0, side - 1, (stars, 2))
    for x, y in places:
        flux = 3000 * 300 ** (rng.uniform() ** 1.5)
        put(x, y, flux, psf_of(x, y, side), 40 if flux > 5e4 else 20)
    for _ in range(galaxies):
        x, y = rng.uniform(0, side - 1, 2)
        fwhm, e1, e2 = psf_of(x, y, side)
        shape = (fwhm * (1.15 + rng.exponential(0.5)), e1 + rng.normal(0, 0.15), e2 + rng.normal(0, 0.15))
        put(x, y, 2000 * 30 ** rng.uniform(), shape, 24)
    image += rng.normal(size=image.shape) * np.sqrt(NOISE**2 + np.maximum(image, 0) / 2)
    image = np.minimum(image, FULL)
    for x, y in rng.integers(5, side - 5, (30, 2)):
        image[y, x : x + rng.integers(1, 4)] += rng.exponential(1000) + 200
    return image, places
