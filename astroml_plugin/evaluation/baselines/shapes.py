"""Ellipticities the classical way: adaptive moments, GalSim's HSM REGAUSS, ngmix's maximum likelihood.

All take stamps with the background removed and give the reduced shear |e| = (a-b)/(a+b) in the pixel frame (x = column,
e2 > 0 along x = y); an object that a method cannot measure is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.registry import optional
from astroml_plugin.core.typing import F64
from astroml_plugin.pixels.moments import adaptive_moments, pixel_grid, reduced_shear

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray, float], F64]
"""(image (n, h, w), variance (n, h, w), psf (n, py, px) of unit sum, arcsec per pixel) -> (n, 2)."""


def moments(image: np.ndarray, variance: np.ndarray, psf: np.ndarray, pixel_scale: float) -> F64:
    """Adaptive moments of the object less those of the PSF: exact for Gaussians, biased for anything else.

    Bernstein & Jarvis 2002 (AJ 123, 583) with the correction of Gaussians only; no failure is repaired.
    """
    seen, _ = adaptive_moments(image)
    blur, _ = adaptive_moments(psf)
    return _shape(seen - blur)


def unweighted_moments(image: np.ndarray, variance: np.ndarray, psf: np.ndarray, pixel_scale: float) -> F64:
    """Second moments of all pixels less those of the PSF: right without noise, useless with it."""
    return _shape(_plain(image) - _plain(psf))


def _shape(covariance: F64) -> F64:
    """(n, 2) of (n, 3) moments xx, xy, yy; NaN where they are no ellipse."""
    xx, xy, yy = covariance.T
    with np.errstate(invalid="ignore", divide="ignore"):
        chi = np.stack([xx - yy, 2 * xy], axis=1) / (xx + yy)[:, None]
        return np.where((xx + yy > 0)[:, None], reduced_shear(chi), np.nan)


def _plain(image: np.ndarray) -> F64:
    x, y = pixel_grid(image.shape)
    pixels = image.astype(np.float64)
    total = pixels.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        cx, cy = (pixels * x).sum((1, 2)) / total, (pixels * y).sum((1, 2)) / total
        dx, dy = x - cx[:, None, None], y - cy[:, None, None]
        return np.stack([(pixels * item).sum((1, 2)) / total for item in (dx * dx, dx * dy, dy * dy)], axis=1)


def hsm(image: np.ndarray, variance: np.ndarray, psf: np.ndarray, pixel_scale: float) -> F64:
    """REGAUSS of Hirata & Seljak 2003 (MNRAS 343, 459) as in GalSim (Mandelbaum et al. 2005); failures are NaN."""
    galsim = optional("galsim", 'HSM needs GalSim, which is not installed: pip install "astroml-plugin[sim]"')
    distortion = np.full((len(image), 2), np.nan)
    for number in range(len(image)):
        stamp = galsim.Image(np.ascontiguousarray(image[number], np.float32), scale=pixel_scale)
        response = galsim.Image(np.ascontiguousarray(psf[number], np.float32), scale=pixel_scale)
        noise = float(np.median(variance[number]))
        height, width = image.shape[1:]
        centre = galsim.PositionD(width // 2 + 1, height // 2 + 1)  # GalSim counts from 1
        result = galsim.hsm.EstimateShear(stamp, response, sky_var=noise, guess_centroid=centre, strict=False)
        if not result.error_message:
            distortion[number] = result.corrected_e1, result.corrected_e2
    return reduced_shear(distortion)


def ngmix(image: np.ndarray, variance: np.ndarray, psf: np.ndarray, pixel_scale: float, *, seed: int = 1) -> F64:
    """Maximum likelihood of an exponential disk with priors (Sheldon 2014, MNRAS 444, L25); failures are NaN."""
    missing = "ngmix is not installed: pip or conda install ngmix, or leave this baseline out"
    package = optional("ngmix", missing)
    rng = np.random.RandomState(seed)
    bootstrapper = _ngmix_fitter(package, rng, pixel_scale)
    found = np.full((len(image), 2), np.nan)
    for number in range(len(image)):
        observation = _ngmix_observation(package, image[number], variance[number], psf[number], pixel_scale)
        try:
            result = bootstrapper.go(observation)
        except package.gexceptions.BootPSFFailure:
            continue
        if result["flags"] == 0:
            found[number] = result["g"]
    return found


def _ngmix_fitter(package: Any, rng: np.random.RandomState, pixel_scale: float) -> Any:
    prior = package.joint_prior.PriorSimpleSep(
        cen_prior=package.priors.CenPrior(0.0, 0.0, pixel_scale, pixel_scale, rng=rng),
        g_prior=package.priors.GPriorBA(0.2, rng=rng),
        T_prior=package.priors.TwoSidedErf(-0.1, 0.03, 100.0, 1.0, rng=rng),
        F_prior=package.priors.TwoSidedErf(-1e2, 1.0, 1e9, 1.0, rng=rng),
    )
    guess = package.guessers.TPSFFluxAndPriorGuesser(rng=rng, T=0.5, prior=prior)
    runner = package.runners.Runner(package.fitting.Fitter("exp", prior=prior), guesser=guess, ntry=3)
    psf_guess = package.guessers.CoellipPSFGuesser(rng=rng, ngauss=3)
    psf_runner = package.runners.PSFRunner(package.fitting.CoellipFitter(ngauss=3), guesser=psf_guess, ntry=3)
    return package.bootstrap.Bootstrapper(runner=runner, psf_runner=psf_runner)


def _ngmix_observation(
    package: Any, image: np.ndarray, variance: np.ndarray, psf: np.ndarray, pixel_scale: float
) -> Any:
    def placed(shape: tuple[int, ...]) -> Any:
        return package.DiagonalJacobian(row=shape[0] // 2, col=shape[1] // 2, scale=pixel_scale)

    response = package.Observation(psf.astype(np.float64), weight=np.full(psf.shape, 1e8), jacobian=placed(psf.shape))
    return package.Observation(
        image.astype(np.float64), weight=1.0 / variance, jacobian=placed(image.shape), psf=response
    )


def aperture_snr(image: np.ndarray, variance: np.ndarray, sigma: float = 3.0) -> F64:
    """(n,) S/N in a round Gaussian aperture of so many pixels about the centre: what a selection can be made on."""
    x, y = pixel_grid(image.shape)
    weight = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    noise = np.sqrt((weight**2 * variance).sum((1, 2)))
    return np.asarray((weight * image).sum((1, 2)) / noise, np.float64)


METHODS: dict[str, Measure] = {"hsm": hsm, "moments": moments, "unweighted": unweighted_moments, "ngmix": ngmix}
"""By the name that `evaluate --baselines` takes."""


def measure(
    method: str,
    image: np.ndarray,
    variance: np.ndarray,
    psf: np.ndarray,
    pixel_scale: float,
    *,
    pool: Executor | None = None,
    chunk: int = 256,
) -> F64:
    """Run one of `METHODS` in chunks, in this process or in those of a pool.

    Args:
        image, variance: (n, h, w), background removed.
        psf: (n, py, px).
        pixel_scale: arcsec.

    Returns:
        (n, 2).

    Raises:
        InputError: no such method, or its package is not installed.
    """
    if method not in METHODS:
        raise InputError(f"no baseline {method!r}: use {', '.join(METHODS)}")
    parts = [slice(start, start + chunk) for start in range(0, len(image), chunk)]
    pieces = [(image[part], variance[part], psf[part]) for part in parts]
    work = partial(_measure_part, method, pixel_scale)
    found = list(map(work, pieces) if pool is None else pool.map(work, pieces))
    return np.concatenate(found) if found else np.zeros((0, 2))


def _measure_part(method: str, pixel_scale: float, piece: tuple[np.ndarray, np.ndarray, np.ndarray]) -> F64:
    return METHODS[method](*piece, pixel_scale)
