"""Fluxes and centres of stars under a PSF that is known."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from astroml_plugin.tasks.segmentation.gaussian_fluxes import fit_gaussians, recentred
from astroml_plugin.tasks.segmentation.point_sources import NO_PROFILE, point_profile, point_sources

SCALE, SIDE, STEP, NOISE = 0.2, 640, 58, 10.0
PSFS = {
    "Moffat 2.5": galsim.Moffat(beta=2.5, fwhm=0.75),
    "Moffat 3": galsim.Moffat(beta=3, fwhm=0.75),
    "Moffat 4.77": galsim.Moffat(beta=4.765, fwhm=0.75),
    "Kolmogorov": galsim.Kolmogorov(fwhm=0.75),
    "Gaussian": galsim.Gaussian(fwhm=0.75),
    "wide": galsim.Moffat(beta=3, fwhm=0.95),
    "sheared": galsim.Moffat(beta=3, fwhm=0.7).shear(g1=0.05, g2=0.03),
}


def sky(psf: galsim.GSObject, seed: int, faintest: float, brightest: float) -> tuple[np.ndarray, ...]:
    """Image of isolated stars, their x, y and fluxes; signal-to-noise ratios log-uniform within the limits."""
    drawn = np.random.default_rng(seed)
    image = drawn.normal(0, NOISE, (SIDE, SIDE))
    whole = np.arange(STEP, SIDE - STEP // 2, STEP)
    column, row = (at.ravel() for at in np.meshgrid(whole, whole))
    shift = drawn.uniform(-0.5, 0.5, (2, len(row)))
    unit = psf.drawImage(nx=51, ny=51, scale=SCALE).array
    snr = np.exp(drawn.uniform(np.log(faintest), np.log(brightest), len(row)))
    flux = snr * NOISE / np.sqrt((unit**2).sum())
    for place in range(len(row)):
        stamp = (psf * flux[place]).drawImage(nx=57, ny=57, scale=SCALE, offset=tuple(shift[:, place])).array
        image[row[place] - 28 : row[place] + 29, column[place] - 28 : column[place] + 29] += stamp
    return image.astype(np.float32), column + shift[0], row + shift[1], flux


def measured(psf: galsim.GSObject, size: int, seed: int, faintest: float, brightest: float) -> tuple[np.ndarray, ...]:
    """Ratios of measured to true totals, pulls, and errors of the centres, which start a quarter of a pixel off."""
    image, x, y, flux = sky(psf, seed, faintest, brightest)
    count = len(x)
    profile = point_profile(psf.drawImage(nx=size, ny=size, scale=SCALE).array)
    stars = point_sources([profile], np.zeros(count, int), np.ones(count, bool))
    nothing = np.zeros(image.shape, np.int32), np.arange(count)
    variance = np.full(image.shape, NOISE**2, np.float32)
    off = np.random.default_rng(seed + 1).normal(0, 0.2, (2, count))
    centre = recentred(image, variance, (x + off[0], y + off[1]), *nothing, stars)
    found = fit_gaussians(image, variance, centre, *nothing, stars)
    error = found.total_error(np.zeros(count))
    return found.total / flux, (found.total - flux) / error, np.concatenate([centre[0] - x, centre[1] - y])


@pytest.mark.parametrize("name", PSFS)
def test_bright_stars_have_their_flux_within_a_percent_and_errors_that_hold(name: str) -> None:
    ratio, pull, away = (
        np.concatenate(both) for both in zip(*(measured(PSFS[name], 33, seed, 300, 3000) for seed in (1, 3)))
    )
    assert np.median(ratio) == pytest.approx(1, abs=0.005)
    assert np.abs(ratio - 1).max() < 0.02
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1, abs=0.3)
    assert np.abs(away).max() < 0.05


def test_faint_stars_have_their_flux_and_errors_that_hold() -> None:
    ratio, pull, _ = measured(PSFS["Moffat 3"], 33, 5, 15, 60)
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("name", PSFS)
@pytest.mark.parametrize("size", [11, 15, 19])
def test_what_cannot_be_foreseen_has_an_error_that_flags_the_star(name: str, size: int) -> None:
    wanted = point_profile(PSFS[name].drawImage(nx=151, ny=151, scale=SCALE).array)
    profile = point_profile(PSFS[name].drawImage(nx=size, ny=size, scale=SCALE).array)
    assert np.isnan(profile.gain) or abs(profile.gain / wanted.gain - 1) < 0.015 or profile.error > 0.006


@pytest.mark.parametrize("name", PSFS)
@pytest.mark.parametrize("size", [25, 61])
def test_light_beyond_a_small_psf_image_is_foreseen(name: str, size: int) -> None:
    wanted = point_profile(PSFS[name].drawImage(nx=151, ny=151, scale=SCALE).array)
    profile = point_profile(PSFS[name].drawImage(nx=size, ny=size, scale=SCALE).array * 7.5)  # of any sum
    assert profile.gain == pytest.approx(wanted.gain, rel=0.01)
    assert abs(profile.gain / wanted.gain - 1) < 2 * profile.error + 0.002


@pytest.mark.parametrize("taken", [0.005, 0.01, 0.03])
def test_a_psf_image_from_which_sky_was_taken_has_an_error_that_flags_its_stars(taken: float) -> None:
    image = PSFS["Moffat 3"].drawImage(nx=33, ny=33, scale=SCALE).array
    wanted, profile = point_profile(image), point_profile(image - taken * image.max())
    assert np.isnan(profile.gain) or profile.error > 0.006
    assert np.isnan(profile.gain) or abs(profile.gain / wanted.gain - 1) < 3 * profile.error


@pytest.mark.parametrize("psf", [np.zeros((25, 25)), np.full((25, 25), np.nan), -np.ones((9, 9)), np.ones((3, 3))])
def test_a_psf_that_is_none_makes_no_stars(psf: np.ndarray) -> None:
    profile = point_profile(psf)
    if not np.isfinite(profile.gain):
        assert profile is NO_PROFILE
        assert not point_sources([profile], np.zeros(2, int), np.ones(2, bool)).is_star.any()
    else:
        assert profile.gain < 2


def test_stars_whose_psf_is_not_known_have_errors_that_hold_the_wings_of_all_psfs() -> None:
    pulls = []
    for name in ("Gaussian", "Moffat 2.5", "Moffat 4.77", "Kolmogorov"):
        image, x, y, flux = sky(PSFS[name], 11, 150, 1500)
        nothing = np.zeros(image.shape, np.int32), np.arange(len(x))
        stars = point_sources([NO_PROFILE], np.zeros(len(x), int), np.ones(len(x), bool))
        assert stars.unknown.all()
        found = fit_gaussians(image, np.full(image.shape, NOISE**2, np.float32), (x, y), *nothing, stars)
        assert np.median(found.total / flux) == pytest.approx(1, abs=0.02)
        pulls.append((found.total - flux) / found.total_error(np.zeros(len(x))))
        assert abs(np.median(pulls[-1])) < 1.5
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1, abs=0.3)


def test_an_object_that_is_no_star_is_fitted_as_before() -> None:
    image, x, y, _ = sky(PSFS["Moffat 3"], 7, 50, 100)
    nothing = np.zeros(image.shape, np.int32), np.arange(len(x))
    variance = np.full(image.shape, NOISE**2, np.float32)
    profile = point_profile(PSFS["Moffat 3"].drawImage(nx=33, ny=33, scale=SCALE).array)
    stars = point_sources([profile], np.zeros(len(x), int), np.zeros(len(x), bool))
    with_psf, without = (fit_gaussians(image, variance, (x, y), *nothing, given) for given in (stars, None))
    np.testing.assert_array_equal(with_psf.total, without.total)
    np.testing.assert_array_equal(with_psf.unsure, without.unsure)
