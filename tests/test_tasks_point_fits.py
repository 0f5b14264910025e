"""What is no point source is told from stars by its misfit, and stars that share light have theirs."""

from __future__ import annotations

from collections.abc import Callable

import galsim
import numpy as np
import pytest

from astroml_plugin.tasks.segmentation.gaussian_fluxes import fit_gaussians, recentred
from astroml_plugin.tasks.segmentation.peaks import Pixels
from astroml_plugin.tasks.segmentation.photometry import flat_tops
from astroml_plugin.tasks.segmentation.point_fits import compared, unlike
from astroml_plugin.tasks.segmentation.point_sources import point_profile, point_sources

SCALE, STEP, NOISE, COUNT = 0.2, 90, 10.0, 16
PSF = galsim.Moffat(beta=3, fwhm=0.75)
Part = tuple[galsim.GSObject, float, float, float]
"""What there is of an object at unit flux, its x and y from the object's place, and its flux."""


def sky(parts: Callable[[float], list[Part]], seed: int, snr: float = 1000) -> tuple[np.ndarray, ...]:
    """Image of 16 groups of objects, drawn at any angle; x, y, flux and group of each part, flux of a star of `snr`."""
    drawn = np.random.default_rng(seed)
    across = int(np.sqrt(COUNT))
    image = drawn.normal(0, NOISE, (STEP * (across + 1),) * 2)
    flux = snr * NOISE / np.sqrt((PSF.drawImage(nx=51, ny=51, scale=SCALE).array ** 2).sum())
    truth = []
    for group in range(COUNT):
        row, column = STEP * (group // across + 1), STEP * (group % across + 1)
        right, down = drawn.uniform(-0.5, 0.5, 2)
        for profile, x, y, part in parts(drawn.uniform(0, 2 * np.pi)):
            stamp = (profile * flux * part).drawImage(nx=79, ny=79, scale=SCALE, offset=(right + x, down + y)).array
            image[row - 39 : row + 40, column - 39 : column + 40] += stamp
            truth.append((column + right + x, row + down + y, flux * part, group))
    return image.astype(np.float32), *np.array(truth).T


def measured(
    image: np.ndarray,
    place: tuple[np.ndarray, np.ndarray],
    patch: np.ndarray,
    masked: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Totals before and after the comparison, errors before and after, and misfits of objects that are all stars."""
    profile = point_profile(PSF.drawImage(nx=33, ny=33, scale=SCALE).array)
    count = len(patch)
    stars = point_sources([profile], np.zeros(count, int), np.ones(count, bool))
    variance = np.full(image.shape, NOISE**2, np.float32)
    if masked is not None:
        image, variance = np.where(masked, 0, image), np.where(masked, 0, variance)
    light = np.zeros(image.shape, np.int32), patch
    centre = recentred(image, variance, place, *light)
    before = fit_gaussians(image, variance, centre, *light, stars)
    after, misfit = compared(image, variance, centre, *light, stars, before)
    none = np.zeros(count)
    return before.total, after.total, before.total_error(none), after.total_error(none), misfit


def pair(away: float, ratio: float) -> Callable[[float], list[Part]]:
    """Two stars about their centre of light, of unit flux together."""
    first, second = 1 / (1 + ratio), ratio / (1 + ratio)

    def parts(angle: float) -> list[Part]:
        x, y = away * np.cos(angle), away * np.sin(angle)
        return [(PSF, -x * second, -y * second, first), (PSF, x * first, y * first, second)]

    return parts


def galaxy(size: float, index: float) -> Callable[[float], list[Part]]:
    """A round galaxy of this half-light radius and Sersic index."""
    profile = galsim.Convolve(galsim.Sersic(index, half_light_radius=size), PSF)
    return lambda _: [(profile, 0.0, 0.0, 1.0)]


def as_one(parts: Callable[[float], list[Part]], seed: int) -> tuple[np.ndarray, ...]:
    """Totals over truth, pulls before and after, misfits, of groups that are taken for one star each."""
    image, x, y, flux, group = sky(parts, seed)
    group = group.astype(int)
    whole = np.bincount(group, flux)
    place = np.bincount(group, flux * x) / whole, np.bincount(group, flux * y) / whole
    before, after, error_before, error, misfit = measured(image, place, np.arange(COUNT))
    return after / whole, (before - whole) / error_before, (after - whole) / error, misfit


@pytest.mark.parametrize(("away", "ratio"), [(1.5, 1), (2.5, 1), (4, 1), (3, 0.3)])
def test_pairs_that_are_one_row_are_flagged_and_their_errors_hold(away: float, ratio: float) -> None:
    total, before, pull, misfit = as_one(pair(away, ratio), 11)
    assert unlike(misfit).all()
    assert np.median(np.abs(before)) > 5
    assert np.abs(pull).max() < 2
    assert np.abs(total - 1).max() < 0.12


@pytest.mark.parametrize(("size", "index"), [(0.15, 1.0), (0.15, 4.0), (0.25, 4.0)])
def test_galaxies_that_are_taken_for_stars_are_flagged_and_their_errors_hold(size: float, index: float) -> None:
    _, before, pull, misfit = as_one(galaxy(size, index), 12)
    assert unlike(misfit).all()
    assert np.median(np.abs(before)) > 10
    assert np.abs(pull).max() < 2


def test_stars_that_are_alone_stay_as_they_are() -> None:
    image, x, y, _, _ = sky(lambda _: [(PSF, 0.0, 0.0, 1.0)], 13)
    before, after, error_before, error, misfit = measured(image, (x, y), np.arange(COUNT))
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(error, error_before, rtol=0.02)
    assert misfit.max() < 0.01


@pytest.mark.parametrize("reach", [1, 3])
def test_stars_with_masked_cores_have_errors_that_hold(reach: int) -> None:
    image, x, y, flux, _ = sky(lambda _: [(PSF, 0.0, 0.0, 1.0)], 17)
    rows, columns = np.indices(image.shape)
    masked = np.zeros(image.shape, bool)
    for right, down in zip(x, y, strict=True):
        masked |= (np.abs(columns - round(right)) <= reach) & (np.abs(rows - round(down)) <= reach)
    _, after, _, error, _ = measured(image, (x, y), np.arange(COUNT), masked)
    assert np.abs((after - flux) / error).max() < 3
    assert np.abs(after / flux - 1).max() < 0.05
    assert (error > 0.01 * flux).all()


@pytest.mark.parametrize(("away", "ratio"), [(10, 10), (6, 3), (5, 1), (4, 0.3)])
def test_stars_that_share_light_have_their_own_and_errors_that_hold(away: float, ratio: float) -> None:
    def parts(angle: float) -> list[Part]:
        return [(PSF, 0.0, 0.0, 1.0), (PSF, away * np.cos(angle), away * np.sin(angle), ratio)]

    image, x, y, flux, group = sky(parts, 14)
    off = np.random.default_rng(3).normal(0, 0.2, (2, len(x)))
    before, after, error_before, error, _ = measured(image, (x + off[0], y + off[1]), group.astype(int))
    assert np.sqrt(np.mean(((before - flux) / error_before) ** 2)) > 10
    assert np.sqrt(np.mean(((after - flux) / error) ** 2)) < 1.5
    np.testing.assert_allclose(after, flux, rtol=0.04)


def test_a_galaxy_that_is_taken_for_a_star_does_not_spoil_the_star_beside_it() -> None:
    profile = galsim.Convolve(galsim.Exponential(half_light_radius=0.5), PSF)

    def parts(angle: float) -> list[Part]:
        return [(PSF, 0.0, 0.0, 1.0), (profile, 8 * np.cos(angle), 8 * np.sin(angle), 1.0)]

    image, x, y, flux, group = sky(parts, 15)
    _, after, _, error, misfit = measured(image, (x, y), group.astype(int))
    assert np.abs(after / flux - 1)[::2].max() < 0.05
    assert np.abs((after - flux) / error).max() < 2.5
    assert unlike(misfit)[1::2].all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_of_a_psf_image_is_in_the_error_of_its_stars(seed: int) -> None:
    image = PSF.drawImage(nx=33, ny=33, scale=SCALE).array
    right = point_profile(image)
    for part in (0.02, 0.005):
        noisy = point_profile(image + np.random.default_rng(seed).normal(0, part * image.max(), image.shape))
        assert abs(noisy.gain / right.gain - 1) < 3 * noisy.error
        assert noisy.error > 0.006
    assert right.error < 0.006


@pytest.mark.parametrize("slope", [0.0, 1e-2])
def test_tops_that_were_cut_off_are_seen_without_a_mask(slope: float) -> None:
    image, x, y, _, _ = sky(lambda _: [(PSF, 0.0, 0.0, 1.0)], 16)
    rows, columns = np.nonzero(image > 3 * NOISE)
    owner = np.hypot(rows[:, None] - y, columns[:, None] - x).argmin(1)
    pixels = Pixels(rows, columns, owner, np.full(len(rows), -1))
    variance = np.full(image.shape, NOISE**2, np.float32)
    assert not flat_tops(image, variance, pixels, COUNT).any()
    assert not flat_tops(image, np.zeros_like(variance), pixels, COUNT).any()
    clipped = np.minimum(image, 0.6 * image.max()) - slope * np.arange(image.shape[1], dtype=np.float32)
    assert flat_tops(clipped, variance, pixels, COUNT).all()
