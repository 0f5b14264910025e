"""Errors that real data have and a model was not told of: of the PSF model, the background, the noise.

All take and give `Cutouts`, so that a measurement can be repeated on the same objects.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.cutouts import Cutouts

Perturbation = Callable[[Cutouts], Cutouts]

_CORRELATION = (0.1, 1.0, 0.1)
"""Kernel of the correlated noise along both axes: neighbours correlate by 0.2, as resampling of images makes them."""


def psf_error(cutouts: Cutouts, *, growth: float = 0.0, e1: float = 0.0, e2: float = 0.0) -> Cutouts:
    """The PSF model wrong to first order: its size by the fraction `growth`, its reduced shear by (e1, e2).

    The map x -> (1 + growth)(1 + e)x changes an image I by -(growth + e1)·x ∂I/∂x - (growth - e1)·y ∂I/∂y
    - e2 (y ∂I/∂x + x ∂I/∂y) - 2 growth I. The derivatives are exact for band-limited images.
    """
    if cutouts.psf is None:
        return cutouts
    psf = cutouts.psf.double()
    along_y, along_x = _derivatives(psf)
    height, width = psf.shape[-2:]
    y = (torch.arange(height, device=psf.device) - height // 2)[:, None]
    x = (torch.arange(width, device=psf.device) - width // 2)[None, :]
    change = -(growth + e1) * x * along_x - (growth - e1) * y * along_y
    change = change - e2 * (y * along_x + x * along_y) - 2 * growth * psf
    return replace(cutouts, psf=(psf + change).to(cutouts.psf.dtype))


def _derivatives(image: Tensor) -> tuple[Tensor, Tensor]:
    """d/dy and d/dx of images (..., h, w), by Fourier transform."""
    found = []
    for axis in (-2, -1):
        size = image.shape[axis]
        frequency = torch.fft.fftfreq(size, dtype=torch.float64, device=image.device)
        if size % 2 == 0:
            frequency[size // 2] = 0.0  # the highest frequency of an even side has no derivative
        factor = 2j * torch.pi * frequency
        transform = torch.fft.fft(image, dim=axis) * (factor[:, None] if axis == -2 else factor)
        found.append(torch.fft.ifft(transform, dim=axis).real)
    return found[0], found[1]


def background_error(cutouts: Cutouts, *, sigmas: float) -> Cutouts:
    """A constant of so many noise standard deviations added to every usable pixel."""
    return replace(cutouts, image=cutouts.image + sigmas * _sigma(cutouts) * cutouts.valid)


def more_noise(cutouts: Cutouts, *, correlated: bool) -> Cutouts:
    """Twice the noise variance: Gaussian noise is added, white or correlated between neighbours; the variance says so.

    The noise depends on the stamps alone: white and correlated noise are made of the same deviates.
    """
    seed = zlib.crc32(np.ascontiguousarray(cutouts.image[:1].cpu().numpy()).tobytes())
    generator = torch.Generator().manual_seed(seed)
    height, width = cutouts.image.shape[-2:]
    noise = torch.randn((*cutouts.image.shape[:2], height + 2, width + 2), generator=generator)
    if correlated:
        kernel = torch.tensor(_CORRELATION)
        plane = kernel[:, None] * kernel[None, :]
        plane = plane / plane.square().sum().sqrt()
        noise = torch.nn.functional.conv2d(noise.flatten(0, 1)[:, None], plane[None, None]).reshape(cutouts.image.shape)
    else:
        noise = noise[..., 1:-1, 1:-1]
    image = cutouts.image + noise.to(cutouts.image) * _sigma(cutouts) * cutouts.valid
    return replace(cutouts, image=image, variance=None if cutouts.variance is None else 2 * cutouts.variance)


def _sigma(cutouts: Cutouts) -> Tensor:
    """Noise of each stamp's sky, (n, band, 1, 1): from the variance, else from the differences of neighbours."""
    if cutouts.variance is not None:
        spread = torch.where(cutouts.valid, cutouts.variance, torch.nan).flatten(2)
        return spread.nanmedian(2).values.nan_to_num().sqrt()[..., None, None]
    steps = (cutouts.image[..., 1:] - cutouts.image[..., :-1]).float().flatten(2).abs()
    return (steps.median(2).values * 1.4826 / 2**0.5)[..., None, None]


USUAL: Mapping[str, Perturbation] = {
    "PSF FWHM +1 %": partial(psf_error, growth=0.01),
    "PSF FWHM −1 %": partial(psf_error, growth=-0.01),
    "PSF e1 +0.005": partial(psf_error, e1=0.005),
    "PSF e2 +0.005": partial(psf_error, e2=0.005),
    "background +0.1 σ": partial(background_error, sigmas=0.1),
    "background −0.1 σ": partial(background_error, sigmas=-0.1),
    "noise × √2, white": partial(more_noise, correlated=False),
    "noise × √2, correlated": partial(more_noise, correlated=True),
}
"""By name; the last is to be compared with the one before it."""
