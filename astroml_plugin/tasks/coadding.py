"""Several bands added up to the one band of a model's input, each in units of its noise."""

from __future__ import annotations

import torch
from torch import Tensor

from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks.gaps import lost_bands
from astroml_plugin.tasks.normalisation import SPARSE, border_level, border_pixels, border_width, missing_bands


def coadded(stamps: Cutouts, band: str, border: int) -> Cutouts:
    """Stamps of one band: the sum of (pixel - background) / noise over the bands, divided by the root of their number.

    The noise of the sum is 1, as long as that of the bands is independent. Bands that an object lacks, or has lost near
    its centre, are left out. The PSF is the mean of the PSFs of unit sum: that of a source that is as bright in all.

    Args:
        stamps: of one band or more.
        band: name of the one band.
        border: pixels from the rim that tell background and noise, as of `Normalisation`.
    """
    if len(stamps.bands) == 1:
        return stamps
    image, valid = stamps.image.to(torch.float32), stamps.valid
    level, noise = border_level(image, valid, border), _noise(stamps, border)
    absent = missing_bands(image, valid) | lost_bands(stamps)
    taken = valid & ~absent[..., None, None]
    number = taken.sum(1, keepdim=True)
    count = number.clamp_min(1)
    scaled = ((image - level[..., None, None]) / noise[..., None, None]).masked_fill(~taken, 0.0)
    variance = None
    if stamps.variance is not None:
        spread = (stamps.variance / noise.square()[..., None, None]).masked_fill(~taken, 0.0)
        variance = spread.sum(1, keepdim=True) / count
    usable, bits = number > 0, stamps.bits
    return Cutouts(
        image=scaled.sum(1, keepdim=True) / count.sqrt(),
        variance=variance,
        valid=usable,
        psf=None if stamps.psf is None else stamps.of_psf(_mean_psf),
        jacobian=stamps.jacobian,
        bits=None if bits is None else bits.amax(1, keepdim=True).masked_fill(usable, 0),
        bands=(band,),
        pixel_scale=stamps.pixel_scale,
        off_centre=stamps.off_centre,
        step=stamps.step,
        noise_estimated=stamps.noise_estimated,
    )


def _noise(stamps: Cutouts, border: int) -> Tensor:
    """(n, band) noise of a pixel, by the variance where there is one."""
    if stamps.variance is None:
        return border_width(stamps.image.to(torch.float32), stamps.valid, border)
    edge = border_pixels(stamps.variance, stamps.valid, border)[..., ::SPARSE]
    spread = edge.nanmedian(-1).values.nan_to_num()
    return torch.where(spread > 0, spread.clamp_min(0).sqrt(), 1.0)


def _mean_psf(psf: Tensor) -> Tensor:
    """(n, 1, py, px) mean of the PSFs (n, band, py, px) that have a sum above 0; zeros where none has."""
    total = psf.to(torch.float32).sum((2, 3))
    good = total.isfinite() & (total > 0)
    share = torch.where(good, 1 / torch.where(good, total, 1.0), 0.0) / good.sum(1, keepdim=True).clamp_min(1)
    return (psf.nan_to_num(0.0, 0.0, 0.0) * share[..., None, None]).sum(1, keepdim=True)
