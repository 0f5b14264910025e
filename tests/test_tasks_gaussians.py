"""Gaussians fitted to all objects of a patch together, and total fluxes from them."""

import numpy as np
import pytest

from astroml_plugin.tasks.segmentation.gaussian_fluxes import fit_gaussians

SIDE = 96
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float64)


def gaussian(x, y, sigma, flux):
    return flux * np.exp(-((COLUMNS - x) ** 2 + (ROWS - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def fit(image, x, y, labels=None, patch=None, variance=None):
    x, y = np.array(x, float), np.array(y, float)
    labels = np.zeros(image.shape, np.int32) if labels is None else labels
    variance = np.ones(image.shape, np.float32) if variance is None else variance
    patch = np.ones(len(x), np.int64) if patch is None else np.array(patch)
    return fit_gaussians(image.astype(np.float32), variance, (x, y), labels, patch)


def test_a_gaussian_alone_is_measured() -> None:
    found = fit(gaussian(40.3, 50.8, 2.6, 5000), [40.3], [50.8])
    assert found.flux[0] == pytest.approx(5000, rel=0.01)
    assert found.sigma[0] == pytest.approx(2.6, rel=0.01)
    assert found.error[0] == pytest.approx(np.sqrt(4 * np.pi) * 2.6, rel=0.02)  # 1 / sqrt(sum of g²), unit noise


@pytest.mark.parametrize("apart", [4.0, 6.0, 9.0])
def test_a_pair_is_taken_apart(apart) -> None:
    image = gaussian(45, 50, 2.0, 6000) + gaussian(45 + apart, 50, 2.4, 2000)
    found = fit(image, [45, 45 + apart], [50, 50])
    np.testing.assert_allclose(found.flux, [6000, 2000], rtol=0.1 if apart == 4 else 0.04)
    lonely = fit(image, [45, 45 + apart], [50, 50], patch=[1, 2])  # nobody knows of the other
    assert lonely.flux[1] > 1.15 * found.flux[1]
    assert found.error[1] > fit(gaussian(54, 50, 2.4, 2000), [54], [50]).error[0]


def test_errors_of_faint_objects_are_those_seen() -> None:
    rng = np.random.default_rng(5)
    grid = np.arange(20, SIDE - 20, 28.0)
    x, y = (item.ravel() for item in np.meshgrid(grid, grid))
    light = sum(gaussian(*place, 2.0, 300.0) for place in zip(x, y))
    fits = [
        fit(light + rng.normal(0, 4, light.shape), x, y, variance=np.full(light.shape, 16, np.float32))
        for _ in range(60)
    ]
    fluxes, errors = (np.concatenate([getattr(one, name) for one in fits]) for name in ("flux", "error"))
    assert fluxes.mean() == pytest.approx(300, rel=0.05)
    assert np.median(errors) < fluxes.std() < 1.5 * np.median(errors)  # the size is free


def test_total_fluxes_have_the_wings_of_galaxies_and_stars() -> None:
    radius = np.hypot(COLUMNS - 48.2, ROWS - 47.9)
    for profile in ((1 + (radius / 2.7) ** 2) ** -3.0, np.exp(-np.sqrt(radius**2 + 1) / 2.2)):
        image = 20_000 * profile / profile.sum()
        found = fit(image, [48.2], [47.9])
        assert found.flux[0] < 0.93 * 20_000
        assert found.total[0] == pytest.approx(20_000, rel=0.1)


def test_bad_pixels_and_other_patches_are_left_out() -> None:
    image = gaussian(48, 48, 2.2, 4000)
    variance = np.ones(image.shape, np.float32)
    labels = np.zeros(image.shape, np.int32)
    image[46:49, 50] = 0
    variance[46:49, 50] = 0
    image[60:64, 44:52] += 500
    labels[60:64, 44:52] = 2
    labels[44:53, 44:53] = 1
    found = fit(image, [48, 48], [48, 61], labels, [1, 2], variance)
    assert found.flux[0] == pytest.approx(4000, rel=0.02)
    nothing = fit(image, [48], [48], variance=np.zeros_like(variance))
    assert np.isnan(nothing.flux[0])
    assert np.isnan(nothing.total[0])


def test_half_an_object_at_the_border_of_the_image_gives_its_flux_roughly() -> None:
    found = fit(gaussian(0, 40, 2.5, 3000), [0], [40])
    assert found.flux[0] == pytest.approx(3000, rel=0.15)


def test_nobody_is_fitted_with_nobody() -> None:
    found = fit(np.zeros((SIDE, SIDE)), [], [])
    assert found.flux.shape == found.total.shape == (0,)
