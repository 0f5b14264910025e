"""Catalog columns of segmented objects: declared, and measured in each band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from astroml_plugin.catalog import Column
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F32, F64, I32, I64, Bool
from astroml_plugin.pixels import NANOJANSKY
from astroml_plugin.pixels.correlation import growth_in_gaussians, growth_in_squares
from astroml_plugin.tasks.detection import PARENT, Field
from astroml_plugin.tasks.segmentation.gaussian_fluxes import PointSources, fit_gaussians
from astroml_plugin.tasks.segmentation.layer_maps import SHARE, STAR, logistic
from astroml_plugin.tasks.segmentation.peaks import Segmentation, around
from astroml_plugin.tasks.segmentation.photometry import (
    aperture_flux,
    isophotal_flux,
    second_moments,
    seen_in_band,
    summed,
)
from astroml_plugin.tasks.segmentation.point_fits import compared, unlike
from astroml_plugin.tasks.segmentation.point_sources import NO_PROFILE, point_profile, point_sources
from astroml_plugin.tasks.segmentation.settings import SegmentSettings
from astroml_plugin.tasks.segmentation.signal import signal_at, variance_of

_FLUXES = (
    ("iso", "Flux within the outlines of the patch, its part of what it shares with neighbours"),
    ("aper", "Flux in a round aperture, neighbours taken out"),
    ("total", "Total flux: Gaussian fitted together with its neighbours', and its wings"),
)
_OPTICAL = ("U", "B", "V", "R", "I")

_PROFILES, _PROFILES_ALONE = 0.15, 0.2
"""Spread of the total flux of galaxies of one size and Gaussian flux, because their profiles differ; without a PSF."""

_UNFORESEEN = 0.006
"""Relative error of a star's total, foreseen from its PSF image, from which on the star is flagged. Totals are then 1
to 12 % too bright (Gaussian, Moffat of beta 2.5 to 4.77, FWHM 3 to 4.5 pixels, images of 13 to 15); below, 1.5 % at
most."""

_IS_STAR = 0.5
"""`p_star` above which an object has the PSF's width and wings."""


def declared_columns(bands: Sequence[str]) -> list[Column]:
    """Area, moments, star probability and blend, and three fluxes of each band, in nJy or in its own unit."""
    columns = [
        Column("area", "int32", "pix2", "phys.angArea", "Pixels of the object's outline"),
        *(
            Column(
                f"i{name}",
                "float32",
                "pix2",
                "src.morph.param",
                f"Second moment {name} of the light within the outline",
            )
            for name in ("xx", "yy", "xy")
        ),
        Column("peak_snr", "float32", "", "stat.snr", "Signal over noise of the pixel at the peak"),
        Column("p_object", "float32", "", "stat.probability", "Probability that an object is centred here"),
        Column("p_star", "float32", "", "stat.probability;src.class.starGalaxy", "Probability of a point source"),
        Column(PARENT, "int64", "", "meta.id.parent", "Brightest object of its patch of light; itself if alone"),
    ]
    for band in bands:
        for name, text in _FLUXES:
            ucd = f"phot.flux.density;em.opt.{band.upper()}" if band.upper() in _OPTICAL else "phot.flux.density"
            columns += [
                Column(f"flux_{name}_{band}", "float32", "nJy", ucd, f"{text}, band {band}"),
                Column(f"flux_{name}_{band}_err", "float32", "nJy", f"stat.error;{ucd}", "Its standard error"),
            ]
        for name, text in _FLUXES:
            own = f"{text}, band {band}, in the unit of its pixels: where no zero point is known, else null"
            columns += [
                Column(f"flux_{name}_{band}_own", "float32", "", "phot.flux", own),
                Column(f"flux_{name}_{band}_own_err", "float32", "", "stat.error;phot.flux", "Its standard error"),
            ]
    return columns


def measure_objects(
    maps: F32,
    field: Field,
    segmentation: Segmentation,
    pixel: tuple[I64, I64],
    centre: tuple[F64, F64],
    settings: SegmentSettings,
) -> tuple[dict[str, np.ndarray], F64, I32]:
    """Columns (n,) but the blend's, the S/N (n,) of each object's light, and flags (n,) of stars: OUT_OF_DOMAIN for an
    unsure total (the PSF image is too small for the wings of its PSF, or too noisy, or a star does not look like it),
    NO_PSF for one in which the wings of an unknown PSF are assumed.

    Args:
        maps: (channels, h, w); `star` and `share` are used.
        field: with a variance, measured or estimated.
        segmentation: of the field.
        pixel: rows and columns of the n peaks.
        centre: x and y of the n objects.
        settings: bands and aperture.
    """
    pixels, count = segmentation.pixels, len(pixel[0])
    lit = pixels.row, pixels.column
    share = np.where(pixels.other >= 0, np.clip(logistic(maps[SHARE][lit]), 0.0, 1.0), 1.0).astype(np.float32)
    signal = signal_at(field, lit)
    columns: dict[str, np.ndarray] = {
        "area": np.bincount(pixels.owner, minlength=count),
        **second_moments(signal * share, pixels, count),
        "peak_snr": signal_at(field, pixel),
        "p_star": logistic(around(maps[STAR], pixel, 1).mean((1, 2))),
    }
    galaxy = 1 - np.nan_to_num(columns["p_star"])
    parts, other = np.ones(maps.shape[1:], np.float32), np.full(maps.shape[1:], -1, np.int32)
    parts[lit], other[lit] = share, pixels.other
    flags = np.zeros(count, np.int32)
    profiles = _PROFILES_ALONE if field.psf is None else _PROFILES
    for number, band in enumerate(settings.bands):
        image, variance = field.image[number], variance_of(field)[number]
        unit = _nanojansky(field.zero_points[number] if field.zero_points else None)
        seen = seen_in_band(image, variance, pixels, count)
        units, own = np.where(seen, unit, np.nan), np.where(seen & np.isnan(unit), 1.0, np.nan)
        iso = isophotal_flux(image, variance, pixels, share, count)
        aper = aperture_flux(image, variance, centre, settings.aperture, parts, segmentation, other)
        stars = _stars(field, number, centre, columns["p_star"])
        light = (image, variance, centre, segmentation.labels, segmentation.patch)
        fitted = fit_gaussians(*light, stars)
        fitted, misfit = compared(*light, stars, fitted)
        growth = field.growth(number)
        fitted = replace(fitted, error=fitted.error * growth_in_gaussians(growth, fitted.sigma**2))
        iso = iso[0], iso[1] * growth_in_squares(growth, np.sqrt(columns["area"]))
        aper = aper[0], aper[1] * growth_in_squares(growth, np.full(count, np.sqrt(np.pi) * settings.aperture))
        unsure = stars.is_star & ((stars.error > _UNFORESEEN) | unlike(misfit))
        flags |= unsure * np.int32(ObjectFlag.OUT_OF_DOMAIN) | (stars.unknown & seen) * np.int32(ObjectFlag.NO_PSF)
        total = fitted.total, fitted.total_error(profiles * galaxy)
        for name, (flux, error) in (("iso", iso), ("aper", aper), ("total", total)):
            column = f"flux_{name}_{band}"
            columns |= {column: flux * units, f"{column}_err": error * units}
            columns |= {f"{column}_own": flux * own, f"{column}_own_err": error * own}
    return columns, summed(signal * share, pixels, count), flags


def blends(segmentation: Segmentation, snr: F64) -> tuple[Bool, I64]:
    """Whether (n,) an object shares its patch of light, and the number (n,) of the brightest object of its patch."""
    _, group = np.unique(segmentation.patch, return_inverse=True)
    order = np.lexsort((-snr, group))
    brightest = np.zeros(len(order), np.int64)
    leaders = order[np.flatnonzero(np.diff(group[order], prepend=-1))]
    if len(order):
        brightest[:] = leaders[group]
    return np.bincount(group, minlength=1)[group] > 1, brightest


def out_of_domain(field: Field, centre: tuple[F64, F64], psf_fwhm: tuple[float, float]) -> I32:
    """OUT_OF_DOMAIN (n,) where the PSF is sharper or broader (pixels) than those of the training data."""
    flags = np.zeros(len(centre[0]), np.int32)
    if field.psf is None or not len(flags):
        return flags
    low, high = psf_fwhm
    fwhm = field.psf_fwhm_at(*centre)
    fits = (fwhm > low) & (fwhm < high)
    return (~fits).astype(np.int32) * np.int32(ObjectFlag.OUT_OF_DOMAIN)


def _stars(field: Field, band: int, centre: tuple[F64, F64], p_star: np.ndarray) -> PointSources:
    """Point sources of a band of the field."""
    is_star = np.nan_to_num(p_star) > _IS_STAR
    if field.psf is None:
        return point_sources([NO_PROFILE], np.zeros(len(is_star), np.intp), is_star)
    profiles = [point_profile(cell) for row in field.psf[band] for cell in row]
    return point_sources(profiles, field.psf_cell_at(*centre), is_star)


def _nanojansky(zero_point: float | None) -> float:
    """nJy of one unit of an image; NaN where it is not known."""
    return (
        float("nan") if zero_point is None or not np.isfinite(zero_point) else 10 ** (0.4 * (NANOJANSKY - zero_point))
    )
