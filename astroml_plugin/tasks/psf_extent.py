"""PSF images that end before their PSF does, and those with too much or too little sky: their wings are not right."""

from __future__ import annotations

import torch
from torch import Tensor

from astroml_plugin.core.tracing import constant
from astroml_plugin.pixels import native, native_light

_SMALL = 0.6
"""Part of the PSF image that a network sees, below which a PSF counts as small: 15 of 25 pixels."""

_EDGE_SMALL, _EDGE = 0.004, 0.006
"""Mean of the outermost pixels over the peak from which a small PSF, and a larger one, is cut off.

Measured with the bundle `ellipticity` for Gaussian, Moffat (beta 2.5 to 4.77) and Kolmogorov PSFs of FWHM 3 to 4.5
pixels. On 11 pixels the slope of e moves by 1.2 to 19 % where the edge is 0.0048 or more, and by 0.3 % at 0.0034. On
15 to 21 pixels, with 120 galaxies of S/N 100 under a PSF of e1 = 0.05 and FWHM 3 to 6: above the limit it moves by up
to +6 %, and the mean of e1 by +0.001 to +0.009; below by 1.6 % and 0.0017 at most."""

_FLATTEST = 2.4
"""Slope, light ~ radius^-slope, between two thirds of the image and its edge: a flatter edge above `_EDGE_SMALL` is
sky. PSFs of FWHM up to 8 pixels on 25 have 3 and more."""


def cut_off(psf: Tensor, size: int) -> Tensor:
    """(n, band) bool: PSF images of which too much light lies outside, or of any size with a rim below zero or of sky.

    Args:
        psf: (n, band, py, px) of any size and sum, as stored; a rim of zeros is not counted as part of it.
        size: side in pixels of the PSF image that the network sees: a PSF that fills it is as in training.
    """
    height, width = int(psf.shape[-2]), int(psf.shape[-1])
    rings = _rings(height, width, psf.device)
    sums, counts, peak = _ring_sums(psf, rings)
    place = torch.arange(rings.shape[1], device=psf.device)
    outermost = torch.where(counts > 0, place, -1).amax(2)
    edge = sums.gather(2, outermost.clamp_min(0)[..., None])[..., 0]
    edge = edge / counts.gather(2, outermost.clamp_min(0)[..., None])[..., 0].clamp_min(1)
    side = (2 * outermost + 1).clamp_max(min(height, width))
    limit = torch.where(side < _SMALL * size, _EDGE_SMALL, _EDGE)
    inside = (2 * outermost + 1) // 3
    inner = sums.gather(2, inside.clamp_min(0)[..., None])[..., 0]
    inner = inner / _ring_sizes(height, width, psf.device)[inside.clamp_min(0)]
    flat = inner < edge * (outermost / inside.clamp_min(1)) ** _FLATTEST
    sky = (edge < -_EDGE_SMALL * peak) | (flat & (edge > _EDGE_SMALL * peak))
    return (peak > 0) & (((side < size) & (edge > limit * peak)) | sky)


def _ring_sums(psf: Tensor, rings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums, and counts of pixels that are not 0, (n, band, ring), and peaks (n, band)."""
    if native.takes(psf):
        sums, counts, peak = native_light.psf_rings(psf.numpy(), int(rings.shape[1]))
        return torch.from_numpy(sums), torch.from_numpy(counts), torch.from_numpy(peak)
    pixels = psf.to(torch.float32).nan_to_num().flatten(2)
    return pixels @ rings, (pixels != 0).to(torch.float32) @ rings, pixels.amax(2)


@constant
def _ring_sizes(height: int, width: int, device: torch.device) -> Tensor:
    """(rings,) pixels of each ring of `_rings`."""
    return _rings(height, width, device).sum(0)


@constant
def _rings(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width, rings): 1 where a pixel lies in the square ring of that radius about pixel size // 2."""
    y, x = (torch.arange(side, device=device) - side // 2 for side in (height, width))
    radius = torch.maximum(y.abs()[:, None].expand(height, width), x.abs()[None].expand(height, width)).flatten()
    return (radius[:, None] == torch.arange(int(radius.max()) + 1, device=device)).to(torch.float32)
