"""Features of classical entries of the strong-lens finding challenge (Metcalf et al. 2019, A&A 625, A119)."""

from __future__ import annotations

import numpy as np
import torch

from astroml_plugin.core.tracing import constant
from astroml_plugin.core.typing import Array
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.baselines.feature_table import Features, cleaned, in_parts, stretched
from astroml_plugin.evaluation.baselines.radial_profile import rings_of


def gabor_features(cutouts: Cutouts) -> Features:
    """Responses to a bank of Gabor filters: 3 wavelengths, 6 directions, of the mean of the bands and first less last.

    Mean and standard deviation of the amplitude over all directions, and the largest direction over their mean, each in
    the centre, in an annulus and outside it, as fed to a support vector machine by Hartley et al. 2017 (MNRAS 471,
    3378).

    Args:
        cutouts: n stamps of 16 px or more, raw pixels.
    """
    return in_parts(cutouts, _gabor_part)


_WAVELENGTHS = (3.0, 6.0, 12.0)
_DIRECTIONS = 6


@constant
def _gabor_bank(size: tuple[int, int], wavelength: float) -> torch.Tensor:
    """(direction, h, w // 2 + 1) transfer functions of zero mean, for stamps of that size."""
    ky, kx = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    bank = np.zeros((_DIRECTIONS, *kx.shape))
    width = 0.56 * wavelength
    for number in range(_DIRECTIONS):
        angle = np.pi * number / _DIRECTIONS
        fx, fy = np.cos(angle) / wavelength, np.sin(angle) / wavelength
        for sign in (1, -1):
            bank[number] += np.exp(-2 * (np.pi * width) ** 2 * ((kx - sign * fx) ** 2 + (ky - sign * fy) ** 2))
    bank[:, 0, 0] = 0
    return torch.from_numpy(bank.astype(np.float32))


def _gabor_part(cutouts: Cutouts) -> dict[str, Array]:
    pixels, noise = cleaned(cutouts)
    bands = [stretched(pixels[:, number], noise[:, number]) for number in range(pixels.shape[1])]
    planes = {"mean": np.mean(bands, axis=0)}
    if len(bands) > 1:
        planes["difference"] = bands[0] - bands[-1]
    columns: dict[str, Array] = {}
    for name, plane in planes.items():
        for number, wavelength in enumerate(_WAVELENGTHS):
            binned, step = _halved(plane, number)
            columns |= _gabor_columns(binned, wavelength / step, f"gabor_{name}_{wavelength:g}")
    return columns


def _halved(plane: Array, times: int) -> tuple[Array, int]:
    """Images (n, h, w) averaged in 2 x 2 pixels up to so many times, while 16 px remain; and pixels per pixel."""
    step = 1
    while step < 2**times and min(plane.shape[1:]) >= 32:
        height, width = plane.shape[1] // 2, plane.shape[2] // 2
        plane = plane[:, : 2 * height, : 2 * width].reshape(len(plane), height, 2, width, 2).mean((2, 4))
        step *= 2
    return plane, step


def _gabor_columns(plane: Array, wavelength: float, name: str) -> dict[str, Array]:
    size = plane.shape[1:]
    columns: dict[str, Array] = {}
    turned = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(plane)))
    found = torch.fft.irfft2(turned[:, None] * _gabor_bank(size, wavelength), s=size).abs().flatten(2)
    radius, fourth = rings_of(size).radius.reshape(-1), min(size) / 4
    inner, outer = radius < fourth / 2, radius >= fourth
    for zone, where in {"centre": inner, "annulus": ~inner & ~outer, "outside": outer}.items():
        weight = torch.from_numpy(where.astype(np.float32)) / where.sum()
        mean, square = (found @ weight).numpy(), ((found**2) @ weight).numpy()
        middle = mean.mean(1)
        columns[f"{name}_{zone}_mean"] = middle
        columns[f"{name}_{zone}_scatter"] = np.sqrt(np.maximum(square.mean(1) - middle**2, 0))
        columns[f"{name}_{zone}_direction"] = mean.max(1) / np.maximum(middle, 1e-12)
    return columns


def edge_features(cutouts: Cutouts) -> Features:
    """Histograms of oriented gradients of the mean of the bands: 9 directions in cells of an eighth of the stamp.

    Cells are normalised in blocks of 2 x 2 (Dalal & Triggs 2005, CVPR 1, 886), as fed to a logistic regression by
    Avestruz et al. 2019 (ApJ 877, 58).

    Args:
        cutouts: n stamps of 16 px or more, raw pixels.
    """
    return in_parts(cutouts, _edge_part)


_CELLS, _BINS = 8, 9


def _edge_part(cutouts: Cutouts) -> dict[str, Array]:
    pixels, noise = cleaned(cutouts)
    plane = stretched(pixels.mean(1), np.sqrt((noise**2).sum(1)) / pixels.shape[1])
    count, height, width = plane.shape
    dy, dx = np.zeros_like(plane), np.zeros_like(plane)
    dy[:, 1:-1], dx[:, :, 1:-1] = plane[:, 2:] - plane[:, :-2], plane[:, :, 2:] - plane[:, :, :-2]
    size = np.hypot(dx, dy)
    place = (np.arctan2(dy, dx) % np.pi) * (_BINS / np.pi)
    low = place.astype(np.int64)
    step = (place - low).astype(np.float32)
    cell = np.add.outer(np.arange(height) * _CELLS // height * _CELLS, np.arange(width) * _CELLS // width)
    base = (np.arange(count)[:, None, None] * _CELLS**2 + cell) * _BINS
    total = count * _CELLS**2 * _BINS
    histogram = np.bincount((base + low % _BINS).ravel(), (size * (1 - step)).ravel(), total)
    histogram += np.bincount((base + (low + 1) % _BINS).ravel(), (size * step).ravel(), total)
    cells = histogram.reshape(count, _CELLS, _CELLS, _BINS)
    blocks = np.concatenate([cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], axis=-1)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-6)
    flat = blocks.reshape(count, -1)
    return {f"edge_{number}": flat[:, number] for number in range(flat.shape[1])}
