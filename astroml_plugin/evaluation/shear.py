"""Shear from measured ellipticities and their responses: means, biases and PSF leakage with bootstrap errors.

Three places know shear. `tasks.ellipticity` measures e and R of each object; `catalog.shear_sums` adds them up, from
arrays or where a catalog lies; the formulas here turn the sums into a shear, which `evaluation.shear_catalog` gives in
bins of a catalog and `evaluation.shape_report` of an evaluation.

Every formula is a function of weighted sums over objects per resampling block. With e measured and R_ij = de_i / dg_j
per object, an ensemble's shear is g = (<R> + R_S)^-1 <e>; R_S is what the selection (and the binning) responds to shear
(Sheldon & Huff 2017, ApJ 841, 24; Huff & Mandelbaum 2017, arXiv:1702.02600). Biases are g_est - g_true = m g_true + c
(Heymans et al. 2006, MNRAS 368, 1323), measured on sets of the same galaxies under +g and -g with the same noise (Pujol
et al. 2019, A&A 621, A2) and rotated by 90 degrees (Nakajima & Bernstein 2007, AJ 133, 1763). Leakage is g_est = ... +
alpha e_PSF (Jarvis et al. 2016, MNRAS 460, 2245).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.catalog.shear_sums import FIELDS
from astroml_plugin.core.typing import F64

_AT = {name: number for number, name in enumerate(FIELDS)}


@dataclass(frozen=True)
class Estimate:
    """A number with its error."""

    value: float
    """From the whole sample."""
    error: float
    """Standard deviation over bootstrap samples."""

    @classmethod
    def of(cls, values: ArrayLike) -> Estimate:
        """From values of the whole sample (first) and of the bootstrap samples (the others); not finite: left out."""
        array = np.asarray(values, np.float64)
        rest = array[1:][np.isfinite(array[1:])]
        return cls(float(array[0]), float(rest.std(ddof=1)) if len(rest) > 1 else float("nan"))

    def __str__(self) -> str:
        return f"{self.value:+.5f} ± {self.error:.5f}"


@dataclass(frozen=True)
class Bias:
    """Biases of the two components of an estimated shear."""

    m1: Estimate
    """Multiplicative, component 1."""
    m2: Estimate
    """Multiplicative, component 2."""
    c1: Estimate
    """Additive, component 1."""
    c2: Estimate
    """Additive, component 2."""


def mean(sums: F64, name: str) -> F64:
    """Weighted mean (...) of a field from sums (..., field); NaN where there is no weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., _AT[name]] / sums[..., 1]


def mean_ellipticity(sums: F64) -> F64:
    """<e> (..., 2) from sums (..., field)."""
    return np.stack([mean(sums, "e1"), mean(sums, "e2")], axis=-1)


def mean_response(sums: F64) -> F64:
    """<R> (..., 2, 2), R_ij = de_i / dg_j, from sums (..., field)."""
    rows = [np.stack([mean(sums, f"r{i}{j}") for j in (1, 2)], axis=-1) for i in (1, 2)]
    return np.stack(rows, axis=-2)


def shear(ellipticity: F64, response: F64) -> F64:
    """g = R^-1 e: (..., 2) from (..., 2) and (..., 2, 2); not finite where R cannot be inverted."""
    a, b, c, d = (response[..., i, j] for i in (0, 1) for j in (0, 1))
    e1, e2 = ellipticity[..., 0], ellipticity[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([d * e1 - b * e2, a * e2 - c * e1], axis=-1) / (a * d - b * c)[..., None]


def mean_shear(sums: F64, selection: F64 | float = 0.0) -> F64:
    """Shear (..., 2) of ensembles with sums (..., field) and selection response R_S (..., 2, 2)."""
    return shear(mean_ellipticity(sums), mean_response(sums) + selection)


def selection_from_metacalibration(sums: F64, step: float) -> F64:
    """R_S from the same objects selected by what their sheared images show (Sheldon & Huff 2017, eq. 14).

    Args:
        sums: (..., component j, sign, field) of the *unsheared* ellipticities of the objects that pass when sheared by
            sign * step in component j; the first sign is +.
        step: shear of the images of metacalibration.

    Returns:
        (..., 2, 2).
    """
    e = mean_ellipticity(sums)
    return np.moveaxis((e[..., 0, :] - e[..., 1, :]) / (2 * step), -2, -1)


def selection_from_branches(sums: F64) -> F64:
    """R_S from a calibration set with known shear: the response of the selected means, less the mean response.

    Args:
        sums: (..., component j, sign, field) of the selected objects of branches under +g_j (first) and -g_j.

    Returns:
        (..., 2, 2). A component without branches takes the other's diagonal: R_S is isotropic on average.
    """
    e, g = mean_ellipticity(sums), np.stack([mean(sums, "g1"), mean(sums, "g2")], axis=-1)
    sheared = np.stack([g[..., j, 0, j] - g[..., j, 1, j] for j in (0, 1)], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.moveaxis((e[..., 0, :] - e[..., 1, :]) / sheared[..., None], -2, -1)
    own = mean_response(sums.sum(-2))  # of the same galaxies: that of the other component's would add their scatter
    selection = total - np.stack([own[..., j, :, j] for j in (0, 1)], axis=-1)
    missing = np.atleast_1d(~np.isfinite(selection).all(-2))
    for j in (0, 1):
        alone = missing[..., j] & ~missing[..., 1 - j]
        selection[alone, :, j] = np.eye(2)[j] * selection[alone, 1 - j, 1 - j][..., None]
    return selection


def biases(sums: F64, selection: F64 | float = 0.0) -> tuple[F64, F64]:
    """Multiplicative and additive bias of `mean_shear`, each (..., 2).

    Args:
        sums: (..., component j, sign, field) of the branches under +g_j (first) and -g_j; a selection is made in every
            branch by itself, so that it is part of the bias.
        selection: R_S (..., 2, 2).
    """
    wide = np.asarray(selection)[..., None, None, :, :] if np.ndim(selection) else selection
    found = mean_shear(sums, wide)
    true = np.stack([mean(sums, "g1"), mean(sums, "g2")], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        m = np.stack(
            [(found[..., j, 0, j] - found[..., j, 1, j]) / (true[..., j, 0, j] - true[..., j, 1, j]) for j in (0, 1)],
            axis=-1,
        )
    rest = (found - np.where(np.isfinite(m), m, 1.0)[..., None, None, :] * true).mean(-2)
    return m - 1, _mean_of_finite(rest)


def _mean_of_finite(values: F64) -> F64:
    """Mean over the last axis but one of what is finite, NaN where nothing is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        result: F64 = np.where(there, values, 0.0).sum(-2) / np.where(there.any(-2), there.sum(-2), np.nan)
        return result


def leakage(sums: F64, selection: F64 | float = 0.0) -> F64:
    """alpha (..., 2): slope of the ellipticity against the PSF's, divided by the response; NaN where the PSF is one.

    Args:
        sums: (..., field) of objects whose PSF ellipticity varies independently of their own shape; best the same
            galaxies under +e_PSF and -e_PSF, so that their shapes cancel.
    """
    response = np.diagonal(mean_response(sums) + selection, axis1=-2, axis2=-1)
    found = []
    for i in (1, 2):
        psf, spread = mean(sums, f"psf{i}"), mean(sums, f"psf{i}_psf{i}")
        covariance = mean(sums, f"e{i}_psf{i}") - mean(sums, f"e{i}") * psf
        variance = spread - psf**2
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(variance > 1e-12 * spread, covariance / variance, np.nan) / response[..., i - 1])
    return np.stack(found, axis=-1)
