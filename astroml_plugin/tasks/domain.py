"""Is a stamp like those the model was trained on? Cheap statistics of the network's input against its."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.tracing import constant, is_traced
from astroml_plugin.cutouts import is_complete
from astroml_plugin.pixels import native, native_light

_APERTURE = 3.0  # Gaussian sigma in pixels of the aperture that tells the S/N
_INNER, _OUTER = 1.5, 4.0  # Gaussian sigmas in pixels of the apertures whose ratio is the concentration
_CORE = 4.0  # pixels about the centre that must be valid
_LEAST_VALID = 0.75  # fraction of the stamp
_CELL = 5  # pixels: side of the cells in which neighbours are looked for; odd, with one about the object's pixel
_NEIGHBOUR_SIGMA, _NEIGHBOUR_PART = 7.0, 0.1  # excess over the opposite cell, in noise and in central brightness
_CLEAR = 8.0  # pixels from the centre beyond which a cell counts as a neighbour's
_BRIGHTER = 2.0  # times the brightest training stamp


@dataclass(frozen=True)
class DomainLimits:
    """Limits of the training stamps' properties, beyond which an object is out of the domain."""

    measured: bool = False
    """False: nothing is flagged."""
    faintest: float = 0.0
    """Aperture S/N of the faintest."""
    brightest: float = 0.0
    """Aperture S/N of the brightest."""
    most_concentrated: float = 0.0
    """Concentration relative to the PSF's, of the smallest; 1 is a point source. 0: there was no PSF."""


def measure_limits(image: Tensor, psf: Tensor | None = None) -> DomainLimits:
    """Limits from some hundred training stamps, as the network sees them (arguments as for `domain_bits`).

    Concentrations scatter with the noise: only the brighter half of the stamps is asked, and half of the way from
    there to a point source is allowed.
    """
    light, _ = _light(image)
    snr = _snr(light, image)
    concentrated = 0.0
    if psf is not None:
        bright = snr >= snr.median()
        ratio = (_concentration(light) / _concentration(_light(psf)[0]))[bright]
        ratio = ratio[ratio.isfinite()]
        if len(ratio):
            concentrated = 0.5 * (1.0 + min(1.0, float(torch.quantile(ratio, 0.99))))
    return DomainLimits(True, float(snr.min()), float(snr.max()), concentrated)


def domain_bits(limits: DomainLimits, valid: Tensor, image: Tensor, psf: Tensor | None = None) -> Tensor:
    """(n,) int32, OUT_OF_DOMAIN where a stamp should not be believed.

    Fainter than any training stamp or much brighter, as concentrated as its PSF, with a bright neighbour, with bad
    pixels in its core or too many in all.

    Args:
        limits: of the training set.
        valid: (n, band, h, w) bool.
        image: (n, band, h, w) as the network sees it, in units of the noise.
        psf: (n, band, py, px) of unit sum, 0 where there is none; or None.
    """
    light, cells = _light(image)
    snr = _snr(light, image)
    odd = (snr < limits.faintest) | (snr > _BRIGHTER * limits.brightest) | _has_neighbour(cells)
    if psf is not None and limits.most_concentrated > 0:
        odd |= _concentration(light) > limits.most_concentrated * _concentration(_light(psf)[0])
    if not is_complete(valid):
        core = valid & _disk(valid.shape[-1], valid.device)
        wanted = int(_disk(valid.shape[-1], valid.device).sum()) * valid.shape[1]
        odd |= (core.flatten(1).sum(1) < wanted) | (valid.flatten(1).float().mean(1) < _LEAST_VALID)
    return odd.to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN)


def aperture_snr(image: Tensor, level: Tensor, variance: Tensor, valid: Tensor) -> Tensor:
    """(n,) S/N in a round Gaussian aperture of sigma 3 px about pixel size // 2, all bands together.

    The S/N of `baselines.shapes.aperture_snr` with the background removed and without the pixels that are not valid.

    Args:
        image: (n, band, h, w).
        level: (n, band) background.
        variance: (n, band, h, w), or (n, band, 1, 1) where it is the same in all pixels.
        valid: (n, band, h, w) bool.
    """
    weight = _aperture(int(image.shape[-2]), int(image.shape[-1]), image.device)
    square = weight.square()
    if not is_traced() and is_complete(valid):
        light, area = image.flatten(2) @ weight, weight.sum()
        noise = variance.flatten(2) @ square if variance.shape[-1] > 1 else variance.flatten(1) * square.sum()
    else:
        used = valid.flatten(2).to(torch.float32)
        light, area = torch.where(valid, image, 0.0).flatten(2) @ weight, used @ weight
        noise = torch.where(valid, variance, 0.0).flatten(2) @ square
    seen = noise > 0
    each = torch.where(seen, (light - level * area) / noise.clamp_min(1e-30).sqrt(), 0.0)
    return each.sum(1) / seen.sum(1).clamp_min(1).sqrt()


@constant
def _aperture(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width,) the Gaussian of the S/N about the centre pixel."""
    y, x = (torch.arange(side, dtype=torch.float32, device=device) - side // 2 for side in (height, width))
    return torch.exp(-0.5 * (y[:, None].square() + x.square()) / _APERTURE**2).flatten()


@constant
def _sums(size: int, device: torch.device) -> Tensor:
    """(size², 3 + cells²): Gaussians about pixel size // 2, then cells of `_CELL` pixels, in units of their noise."""
    axis = torch.arange(size, dtype=torch.float32, device=device) - size // 2
    columns = []
    for sigma in (_APERTURE, _INNER, _OUTER):
        profile = torch.exp(-0.5 * (axis / sigma).square())
        columns.append((profile[:, None] * profile).flatten())
    cells = _cells(size)
    place = torch.div(torch.arange(size, device=device) - size // 2 + cells * _CELL // 2, _CELL, rounding_mode="floor")
    member = (place[:, None] == torch.arange(cells, device=device)).float() / _CELL**0.5
    grid = (member[:, None, :, None] * member[None, :, None, :]).reshape(size * size, cells * cells)
    return torch.cat([torch.stack(columns, dim=1), grid], dim=1)


def _cells(size: int) -> int:
    """Cells along a side: an odd number about pixel size // 2, so that opposite cells are opposite about the object."""
    whole = (2 * ((size + 1) // 2) - 1) // _CELL
    return whole - 1 + whole % 2


@constant
def _disk(size: int, device: torch.device) -> Tensor:
    """(size, size) bool, the core."""
    axis = torch.arange(size, device=device) - size // 2
    return torch.hypot(axis[:, None].float(), axis.float()) <= _CORE


@lru_cache(maxsize=16)
def _apertures(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(3, size²) Gaussians and (size,) cell of a row or column, -1 of none, of `_sums`."""
    cells = _cells(size)
    place = (np.arange(size) - size // 2 + cells * _CELL // 2) // _CELL
    weights = _sums(size, torch.device("cpu"))[:, :3].T.numpy()
    return np.ascontiguousarray(weights), np.where((place >= 0) & (place < cells), place, -1).astype(np.int64)


def _light(image: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 3) light in the apertures and (n, cells, cells) in the cells, all bands together, noise as of one band."""
    cells = _cells(image.shape[-1])
    bands = image.shape[1]
    if native.takes(image) and image.shape[-1] == image.shape[-2]:
        weights, place = _apertures(int(image.shape[-1]))
        sums = torch.from_numpy(native_light.light(image.numpy(), weights, place, cells))
        return sums[:, :3], sums[:, 3:].reshape(-1, cells, cells) / _CELL
    together = image[:, 0] if bands == 1 else image.sum(1) / bands**0.5
    light = together.flatten(1) @ _sums(image.shape[-1], image.device)
    return light[:, :3], light[:, 3:].reshape(-1, cells, cells)


def _snr(light: Tensor, image: Tensor) -> Tensor:
    """(n,) S/N in a fixed Gaussian aperture of an image in units of its noise."""
    return light[:, 0] / _sums(image.shape[-1], image.device)[:, 0].square().sum().sqrt()


def _concentration(light: Tensor) -> Tensor:
    """(n,) light in the inner over that in the outer aperture."""
    return light[:, 1] / light[:, 2].clamp_min(1e-12)


@constant
def _far_cells(cells: int, device: torch.device) -> Tensor:
    """(cells, cells) bool: cells away from the centre."""
    axis = (torch.arange(cells, dtype=torch.float32, device=device) - (cells - 1) / 2) * _CELL
    return torch.hypot(axis[:, None], axis) > _CLEAR


def _has_neighbour(cells: Tensor) -> Tensor:
    """(n,) bool: a cell away from the centre is much brighter than the one opposite to it."""
    far = _far_cells(cells.shape[-1], cells.device)
    if not bool(far.any()):  # a stamp too small for neighbours
        return torch.zeros(len(cells), dtype=torch.bool, device=cells.device)
    excess = (cells - cells.flip((1, 2)))[:, far].amax(1)
    return (excess > _NEIGHBOUR_SIGMA) & (excess > _NEIGHBOUR_PART * cells.flatten(1).amax(1))
