"""Adaptive moments: the ellipse and the place of light, within a Gaussian that follows it."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import F64

_STEPS = 40
_LARGEST = 12.0
"""Pixels (sigma) beyond which a Gaussian has run away from its object."""


def reduced_shear(distortion: F64) -> F64:
    """|e| = (a-b)/(a+b) from |chi| = (a²-b²)/(a²+b²), (n, 2); NaN where |chi| is 1 or more."""
    squared = (distortion**2).sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(squared < 1, distortion / (1 + np.sqrt(1 - squared)), np.nan)


def pixel_grid(shape: tuple[int, ...]) -> tuple[F64, F64]:
    """x (1, 1, w) and y (1, h, 1) from the centre pixel, index size // 2."""
    height, width = shape[-2:]
    x, y = np.arange(width, dtype=np.float64) - width // 2, np.arange(height, dtype=np.float64) - height // 2
    return x[None, None, :], y[None, :, None]


def adaptive_moments(image: np.ndarray, start: float = 2.5) -> tuple[F64, F64]:
    """Covariance (n, 3: xx, xy, yy) px² of the Gaussian that fits each image best, and its flux in the weight (n,).

    See `best_gaussians`.
    """
    matrix, flux, _ = best_gaussians(image, start)
    return matrix, flux


def best_gaussians(image: np.ndarray, start: float = 2.5) -> tuple[F64, F64, F64]:
    """Covariance (n, 3: xx, xy, yy) px², flux in the weight (n,) and centre (n, 2: x, y) of the best Gaussians.

    Moments within an elliptical Gaussian that follows them (Bernstein & Jarvis 2002, section 3.1.2): for a Gaussian
    object the weighted covariance is half of the weight's. NaN where it does not converge.

    Args:
        image: (n, h, w), background removed; centres count from pixel size // 2.
        start: sigma in pixels of the first weight.
    """
    x, y = pixel_grid(image.shape)
    pixels = image.astype(np.float64)
    count = len(pixels)
    matrix = np.tile([start**2, 0.0, start**2], (count, 1))
    centre, flux = np.zeros((count, 2)), np.zeros(count)
    good, change = np.ones(count, bool), np.full(count, np.inf)
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            found, shift, flux = _weighted(pixels, x - centre[:, 0, None, None], y - centre[:, 1, None, None], matrix)
            centre = centre + 2 * shift
            following = 2 * found
            change = np.abs(following - matrix).max(1) / (matrix[:, 0] + matrix[:, 2])
            trace, determinant = (
                following[:, 0] + following[:, 2],
                following[:, 0] * following[:, 2] - following[:, 1] ** 2,
            )
            inside = (determinant > 0.01) & (trace < 2 * _LARGEST**2) & (flux > 0) & (np.abs(centre).max(1) < 6)
            good &= inside
            matrix = np.where(good[:, None], following, matrix)
            if not (good & (change > 1e-5)).any():
                break
    good &= change < 1e-2
    known = good[:, None]
    return np.where(known, matrix, np.nan), np.where(good, flux, np.nan), np.where(known, centre, np.nan)


def _weighted(pixels: F64, dx: F64, dy: F64, matrix: F64) -> tuple[F64, F64, F64]:
    """Covariance (n, 3), mean offset (n, 2) and sum (n,) of pixels under Gaussian weights of covariance `matrix`."""
    xx, xy, yy = matrix.T[:, :, None, None]
    determinant = xx * yy - xy**2
    light = np.exp(-0.5 * (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / determinant) * pixels
    total = light.sum((1, 2))
    across, along = light.sum(1), light.sum(2)  # the axes part: only xy needs both
    sx, sy = (across * dx[:, 0]).sum(1) / total, (along * dy[:, :, 0]).sum(1) / total
    qxx, qyy = (across * dx[:, 0] ** 2).sum(1) / total, (along * dy[:, :, 0] ** 2).sum(1) / total
    qxy = np.einsum("nyx,nx,ny->n", light, dx[:, 0], dy[:, :, 0], optimize=True) / total
    return np.stack([qxx, qxy, qyy], axis=1), np.stack([sx, sy], axis=1), total
