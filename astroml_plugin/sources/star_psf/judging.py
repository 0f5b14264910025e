"""Width and shape of stars that were left out of the fit, against what the PSF foretells for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astroml_plugin.core.typing import F64
from astroml_plugin.pixels import psf_fwhm
from astroml_plugin.pixels.moments import adaptive_moments, reduced_shear
from astroml_plugin.sources.star_psf.fitting import Fit, PsfField, Stars, fit_psf
from astroml_plugin.sources.star_psf.quality import Quality, Zone

_PARTS = 5
"""The stars are left out by a fifth at a time."""

_PER_ZONE, _MOST_ZONES = 12, 4
"""Stars that a zone of the image should have, and zones along each axis at most."""

_SIGMA = 1.4826


def shapes(images: F64) -> F64:
    """(n, 3): ln sigma, e1 and e2 of images (n, s, s) by adaptive moments; NaN where they have none."""
    matrix, _ = adaptive_moments(images, start=1.5)
    xx, xy, yy = matrix.T
    with np.errstate(invalid="ignore", divide="ignore"):
        e = reduced_shear(np.stack([xx - yy, 2 * xy], axis=1) / (xx + yy)[:, None])
        return np.column_stack([0.25 * np.log(xx * yy - xy**2), e])


def left_out(stars: Stars, fit: Fit, fwhm: float) -> F64:
    """(n, 3) what each star has more than the PSF of the others foretells: ln sigma, e1, e2; NaN where unknown.

    Args:
        stars: all that were fitted.
        fit: of all of them.
        fwhm: in pixels, about.
    """
    off = np.full((len(stars), 3), np.nan)
    used = np.flatnonzero(fit.kept)
    part = np.full(len(stars), -1)
    parts = min(_PARTS, len(used))
    part[used] = np.arange(len(used)) % max(parts, 1)
    for number in range(parts if len(used) > 2 else 0):
        out = used[part[used] == number]
        there = replace(fit, kept=fit.kept & (part != number))
        psf = fit_psf(stars, fwhm, fit.psf.order, start=there).psf
        off[out] = _offsets(psf, stars, fit, out)
    return off


def mean_offset(off: F64) -> float:
    """Typical size of offsets (n, 3), robustly."""
    known = off[np.isfinite(off).all(1)]
    return float(np.median(np.sqrt((known**2).sum(1)))) if len(known) else float("inf")


def quality_of(stars: Stars, fit: Fit, off: F64, shape: tuple[int, int], rejected: dict[str, int]) -> Quality:
    """Quality of a fit, in zones of the image.

    Args:
        stars: all that were fitted.
        fit: of all of them.
        off: as `left_out` gives them.
        shape: (height, width) of the image.
        rejected: as in `Choice`.
    """
    used = np.flatnonzero(fit.kept)
    count = int(np.clip(np.sqrt(len(used) / _PER_ZONE), 1, _MOST_ZONES)) if fit.psf.order else 1
    height, width = shape
    edges_x, edges_y = (np.linspace(0, side, count + 1).astype(int) for side in (width, height))
    boxes = [
        (int(edges_x[i]), int(edges_y[j]), int(edges_x[i + 1]), int(edges_y[j + 1]))
        for j in range(count)
        for i in range(count)
    ]
    zones = [_zone(box, stars, fit, off) for box in boxes]
    whole = _zone((0, 0, width, height), stars, fit, off)
    rejected = {**rejected, "unlike the PSF of the others": len(stars) - len(used)}
    return Quality(len(used), rejected, fit.psf.order, whole, tuple(zones))


def _offsets(psf: PsfField, stars: Stars, fit: Fit, out: np.ndarray) -> F64:
    """(n, 3) what stars have more than the PSF foretells: ln sigma, e1, e2; bad pixels are as foretold."""
    some = stars.part(out)
    values = np.tensordot(psf.terms(some.x, some.y), psf.nodes, 1)
    model = psf.drawn(values, fit.dx[out], fit.dy[out]) * fit.flux[out][:, None, None]
    return shapes(np.where(some.good, some.pixels, model)) - shapes(model)


def _zone(box: tuple[int, int, int, int], stars: Stars, fit: Fit, off: F64) -> Zone:
    x0, y0, x1, y1 = box
    inside = fit.kept & (stars.x >= x0) & (stars.x < x1) & (stars.y >= y0) & (stars.y < y1)
    middle = fit.psf.at(np.array([(x0 + x1 - 1) / 2]), np.array([(y0 + y1 - 1) / 2]))
    _, e1, e2 = shapes(middle)[0]
    known = off[inside & np.isfinite(off).all(1)]
    if len(known) < 2:
        mean, scatter = np.full(3, np.nan), np.full(3, np.nan)
    else:
        mean = np.median(known, axis=0)
        scatter = _SIGMA * np.median(np.abs(known - mean), axis=0)
    return Zone(
        *(*box, int(inside.sum()), psf_fwhm(middle[0]), float(e1), float(e2)),
        fwhm_off=float(mean[0]),
        fwhm_scatter=float(scatter[0]),
        e1_off=float(mean[1]),
        e2_off=float(mean[2]),
        e_scatter=float(np.hypot(scatter[1], scatter[2]) / np.sqrt(2)),
    )
