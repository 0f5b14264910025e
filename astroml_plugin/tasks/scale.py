"""Pixels of another size than those of the training: which stamps are resampled, and what is then out of the domain.

What a model knows are pixels: sizes in them, and the width of the PSF in them. Where its answer depends on sizes on the
sky (`sizes` = "arcsec": lenses, classes) stamps are brought to its pixel scale. Where it does not (`sizes` = "pixels":
ellipticities, with the PSF beside them) they stay as they are as long as the PSF is as wide, in pixels, as in training,
and are else resampled so that it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F64
from astroml_plugin.cutouts import REACH, Cutouts, crop, merged, psf_fwhms, resampled, resampled_side, source_side
from astroml_plugin.tasks.normalisation import gaussian_psf
from astroml_plugin.tasks.pictures import as_pictures, shows
from astroml_plugin.tasks.settings import TaskSettings

_FARTHEST = 2.1
"""Factor by which pixels are made smaller at most, and larger where no PSF tells what is left of the sharpness."""

_SAMPLED = 2.0
"""FWHM in the source's pixels below which a PSF is not sampled: pixels between cannot be told."""

_LADDER = tuple(2 ** (number / 2) for half in range(1, 9) for number in (half, -half))
"""Steps that are tried where neither the source's pixels nor the model's own fit, the smallest change first."""

_WIDER, _AT_LEAST = 1.03, 1.1
"""Factor on the widest training PSF, and both ways on their middle where all are of about one width. Below the sharpest
there is none: ellipticities on pixels twice as large are better resampled than taken as they are."""


def measured_range(psf: Tensor) -> tuple[float, float]:
    """Range of the FWHM, in pixels, of training PSFs (n, band, py, px); (0, 0) where none is known."""
    known = _mean_fwhm(psf)
    known = known[known.isfinite()]
    if not len(known):
        return 0.0, 0.0
    low, high = float(known.min()), float(known.max())
    middle = (low * high) ** 0.5
    return round(min(low, middle / _AT_LEAST), 3), round(max(high * _WIDER, middle * _AT_LEAST), 3)


def differs(settings: TaskSettings, pixel_scale: float | None) -> bool:
    """Whether a source's pixels, in arcsec, are not those of the training; false where one is unknown."""
    mine = settings.pixel_scale
    return bool(mine and pixel_scale and abs(pixel_scale / mine - 1) > settings.pixel_scale_tolerance)


def resamples(settings: TaskSettings, pixel_scale: float | None) -> bool:
    """Whether stamps of a source may have to be resampled: 8-bit pictures are none of measured light, and never are."""
    return settings.resample == "auto" and settings.dtype != "uint8" and differs(settings, pixel_scale)


def refuse_other(settings: TaskSettings, pixel_scale: float | None) -> None:
    """Refuse stamps of another scale for what sets a bundle anew, where sizes on the sky count.

    Raises:
        InputError: says both scales.
    """
    if settings.sizes == "arcsec" and differs(settings, pixel_scale):
        raise InputError(
            f"the stamps have {pixel_scale:.4g} arcsec per pixel and the bundle was trained at "
            f"{settings.pixel_scale:.4g}: give stamps of its own scale"
        )


def steps(settings: TaskSettings, pixel_scale: float, fwhm: F64, widest: float = np.inf) -> F64:
    """(n,) side of the pixels that a model is given, in pixels of the source; 1: as they are.

    Args:
        settings: of the task.
        pixel_scale: arcsec per pixel of the source.
        fwhm: (n,) of each object's PSF in pixels of the source, NaN where unknown.
        widest: largest step that the source has pixels for.
    """
    chosen = np.ones(len(fwhm))
    if not resamples(settings, pixel_scale):
        return chosen
    own = float(settings.pixel_scale or pixel_scale) / pixel_scale
    if settings.sizes == "arcsec":
        return chosen * own
    low, high = settings.psf_fwhm
    open_ = ~((fwhm >= low) & (fwhm <= high)) & np.isfinite(fwhm) & (high > 0)
    for step in (own, *_LADDER):
        if step <= widest and open_.any():
            fits = open_ & (fwhm / step >= low) & (fwhm / step <= high) & ((step > 1) | (fwhm >= _SAMPLED))
            chosen[fits] = step
            open_ &= ~fits
    return chosen


def widest_step(size: int, halo: int) -> float:
    """Largest step at which stamps of `size` pixels, and their moves, find their pixels within a halo; 1 at least."""
    fitting = [step for step in np.arange(1.0, 16.0, 0.05) if source_side(size + 2 * REACH, float(step)) <= 2 * halo]
    return float(max(fitting, default=1.0))


def fwhm_of(settings: TaskSettings, psf: Tensor | None, count: int, pixel_scale: float | None) -> F64:
    """(count,) FWHM in pixels of the PSFs (count, band, py, px), or of the one that is assumed; NaN where unknown."""
    found = np.full(count, np.nan) if psf is None else _mean_fwhm(psf).cpu().numpy().astype(np.float64)
    if settings.assumed_psf_fwhm and pixel_scale:
        found = np.where(np.isfinite(found), found, settings.assumed_psf_fwhm / pixel_scale)
    return found


def to_scale(settings: TaskSettings, stamps: Cutouts) -> Cutouts:
    """Stored stamps with pixels as the model knows them, on their device; for a model of pictures, as such.

    Where objects have different steps, all are cut or padded to one size that holds the model's input.

    Raises:
        InputError: stamps that are too small on the sky, for a model that takes only whole ones.
    """
    if shows(settings, stamps.bands):
        return as_pictures(settings, stamps)
    if not resamples(settings, stamps.pixel_scale) or stamps.image.dtype == torch.uint8 or not len(stamps):
        return stamps
    assert stamps.pixel_scale is not None
    fwhm = fwhm_of(settings, stamps.psf, len(stamps), stamps.pixel_scale)
    chosen = steps(settings, stamps.pixel_scale, fwhm)
    if (chosen == 1).all():
        return stamps
    groups = [(float(step), np.flatnonzero(chosen == step)) for step in np.unique(chosen)]
    parts = [_resampled(stamps.take(torch.from_numpy(rows).to(stamps.image.device)), step) for step, rows in groups]
    if settings.resize == "refuse":
        parts = [crop(part, settings.stamp_size) for part in parts]
    elif len(parts) > 1:
        wanted = settings.stamp_size + 2 * REACH
        least = min(int(min(part.image.shape[-2:])) for part in parts)
        parts = [crop(part, wanted if least >= wanted else settings.stamp_size) for part in parts]
    return merged(parts, [rows for _, rows in groups])


def _resampled(stamps: Cutouts, step: float) -> Cutouts:
    return stamps if step == 1 else resampled(stamps, step)


def scaled_size(settings: TaskSettings, size: tuple[int, int], pixel_scale: float | None) -> tuple[int, int]:
    """Size (h, w) in the model's pixels of stored stamps of a size.

    Raises:
        InputError: it is too small for a model that takes only whole ones.
    """
    if settings.sizes != "arcsec" or not resamples(settings, pixel_scale):
        return size
    assert pixel_scale is not None
    step = float(settings.pixel_scale or pixel_scale) / pixel_scale
    found = resampled_side(size[0], step), resampled_side(size[1], step)
    side = settings.stamp_size
    if settings.resize == "refuse" and min(found) < side:
        raise InputError(
            f"stamps of {size[1]} x {size[0]} px of {pixel_scale:.4g} arcsec are {found[1]} x {found[0]} px of the "
            f"model's {settings.pixel_scale:.4g}, and it takes {side} x {side}: give larger stamps"
        )
    return (side, side) if settings.resize == "refuse" else found


def scale_bits(settings: TaskSettings, stamps: Cutouts) -> Tensor:
    """(n,) int32: OUT_OF_DOMAIN where the PSF, in pixels, or the pixels themselves are not those of the training.

    NO_VARIANCE where the noise of resampled pixels was estimated.

    Args:
        settings: of the task.
        stamps: the model's bands.
    """
    device, count = stamps.image.device, len(stamps)
    odd = torch.zeros(count, dtype=torch.bool, device=device)
    low, high = settings.psf_fwhm
    step = None if stamps.step is None else stamps.step.to(device)
    fwhm = None if stamps.psf is None or (high <= 0 and step is None) else stamps.of_psf(_mean_fwhm)
    if settings.assumed_psf_fwhm and stamps.scales is not None:
        assumed = (settings.assumed_psf_fwhm / stamps.scales).to(device, torch.float32)
        fwhm = assumed if fwhm is None else torch.where(fwhm.isfinite(), fwhm, assumed)
    if fwhm is not None and high > 0:
        odd |= (fwhm < low) | (fwhm > high)
    if settings.sizes == "arcsec" and differs(settings, stamps.pixel_scale):
        assert stamps.scales is not None
        odd |= ((stamps.scales / float(settings.pixel_scale or 1) - 1).abs() > settings.pixel_scale_tolerance).to(
            device
        )
    if step is not None:
        odd |= step < 1 / _FARTHEST
        odd |= (step > _FARTHEST) if fwhm is None else (step > _FARTHEST) & ~fwhm.isfinite()
        odd |= False if fwhm is None else (step < 1) & (fwhm * step < _SAMPLED)
    estimated = stamps.noise_estimated and settings.normalisation.unit == "noise"
    return odd.to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN) | int(ObjectFlag.NO_VARIANCE) * estimated


def _mean_fwhm(psf: Tensor) -> Tensor:
    """(n,) FWHM of PSFs (n, band, py, px), mean of the bands that have one."""
    return psf_fwhms(psf).nanmean(1)


def assume(psf: Tensor, absent: Tensor, settings: TaskSettings, stamps: Cutouts) -> None:
    """Put the assumed PSF, in the pixels of each stamp, where (n,) there is none among PSFs (n, band, y, x)."""
    scales = stamps.scales
    if scales is None:
        if not settings.pixel_scale:
            raise InputError("a PSF cannot be assumed where neither source nor model have a pixel scale")
        scales = torch.full((len(stamps),), settings.pixel_scale, dtype=torch.float64)
    for one in scales.unique().tolist():
        these = absent & (scales == one).to(absent.device)
        psf[these] = gaussian_psf(settings.assumed_psf_fwhm / one, int(psf.shape[-1])).to(psf)
