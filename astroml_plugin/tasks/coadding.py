"""Several bands added up to the one band of a model's input, each in units of its noise."""

from __future__ import annotations

import torch
from torch import Tensor

from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks.gaps import lost_bands
from astroml_plugin.tasks.normalisation import border_level, border_width, known_width, missing_bands


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
    image, valid, spread = stamps.image.to(torch.float32), stamps.valid, stamps.variance
    level = border_level(image, valid, border)
    noise = border_width(image, valid, border) if spread is None else known_width(spread, valid, border)
    absent = missing_bands(image, valid) | lost_bands(stamps)
    taken = valid & ~absent[..., None, None]
    number = taken.sum(1, keepdim=True)
    count = number.clamp_min(1)
    scaled = ((image - level[..., None, None]) / noise[..., None, None]).masked_fill(~taken, 0.0)
    if spread is not None:
        relative = (spread / noise.square()[..., None, None]).masked_fill(~taken, 0.0)
        spread = relative.sum(1, keepdim=True) / count
    usable, bits = number > 0, stamps.bits
    return Cutouts(
        image=scaled.sum(1, keepdim=True) / count.sqrt(),
        variance=spread,
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


def _mean_psf(psf: Tensor) -> Tensor:
    """(n, 1, py, px) mean of the PSFs (n, band, py, px) that have a sum above 0; zeros where none has."""
    total = psf.to(torch.float32).sum((2, 3))
    good = total.isfinite() & (total > 0)
    share = torch.where(good, 1 / torch.where(good, total, 1.0), 0.0) / good.sum(1, keepdim=True).clamp_min(1)
    return (psf.nan_to_num(0.0, 0.0, 0.0) * share[..., None, None]).sum(1, keepdim=True)
