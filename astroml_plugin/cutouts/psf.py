"""Widths of many images of point-spread functions, on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from astroml_plugin.core.tracing import constant
from astroml_plugin.pixels import native, native_light

_CORE = 1 / 3  # of the peak: pixels above it tell the width
_HALF = 5  # pixels from the centre that are looked at: the cores of FWHMs up to 8 pixels, and flat ones beyond
_LEAST = 4  # such pixels


def psf_fwhms(psf: Tensor) -> Tensor:
    """FWHM in pixels of PSF images, each as `psf_fwhm` has it: (...) float32 from (..., py, px).

    One look at the pixels about pixel size // 2: a PSF that lies elsewhere by more than some pixels has another width
    here.
    """
    height, width = int(psf.shape[-2]), int(psf.shape[-1])
    half_y, half_x = min(_HALF, (height - 1) // 2), min(_HALF, (width - 1) // 2)
    count, x, y, square, xx, yy, xy, cubic_x, cubic_y, fourth, lost, lost_x, lost_y, lost_square, peak = _core_sums(
        psf, half_y, half_x
    ).unbind(-1)
    at_x, at_y = x / count.clamp_min(1), y / count.clamp_min(1)  # where the core lies
    away = at_x.square() + at_y.square()
    apart = square - away * count  # sum of the squares of the distances from there, and of their squares
    turned = at_x.square() * xx + 2 * at_x * at_y * xy + at_y.square() * yy
    wide = fourth + 4 * turned - 4 * (at_x * cubic_x + at_y * cubic_y) + 2 * away * square - 3 * away.square() * count
    told = lost_square - 2 * (at_x * lost_x + at_y * lost_y) + away * lost
    slope = (count * told - apart * lost) / (count * wide - apart.square()).clamp_min(1e-30)
    fits = (count >= _LEAST) & (slope < 0) & (peak > 0)
    return torch.where(fits, (-4 * math.log(2) / torch.where(fits, slope, -1.0)).sqrt(), torch.nan).to(torch.float32)


def _core_sums(psf: Tensor, half_y: int, half_x: int) -> Tensor:
    """(..., 15): ten sums over the core, four of them times the logarithm of the light over the peak, and the peak."""
    height, width = int(psf.shape[-2]), int(psf.shape[-1])
    if native.takes(psf) and psf.numel():
        sums = native_light.psf_core(psf.reshape(-1, 1, height, width).numpy(), (half_y, half_x), _CORE)
        return torch.from_numpy(sums).reshape(*psf.shape[:-2], -1)
    rows = slice(height // 2 - half_y, height // 2 + half_y + 1)
    light = torch.nan_to_num(psf[..., rows, width // 2 - half_x : width // 2 + half_x + 1].to(torch.float32)).flatten(
        -2
    )
    peak = light.amax(-1, keepdim=True)
    core = light > _CORE * peak
    level = torch.where(core, light / peak, 1.0).log()
    powers = _powers(half_y, half_x, psf.device)
    return torch.cat([core.to(torch.float32) @ powers, level @ powers[:, :4], peak], dim=-1)


@constant
def _powers(half_y: int, half_x: int, device: torch.device) -> Tensor:
    """(pixels, 10): 1, x, y, r², x², y², xy, x r², y r² and r⁴ of the pixels about the centre."""
    y, x = (torch.arange(-half, half + 1, dtype=torch.float32, device=device) for half in (half_y, half_x))
    down, across = (plane.flatten() for plane in torch.meshgrid(y, x, indexing="ij"))
    square = down.square() + across.square()
    plain = [torch.ones_like(square), across, down, square, across.square(), down.square(), across * down]
    return torch.stack([*plain, across * square, down * square, square.square()], dim=1)
