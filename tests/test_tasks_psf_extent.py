"""PSF images that are smaller than their PSF are told from those that hold it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.tasks.psf_extent import cut_off
from astroml_plugin.training.bundle import ModelBundle


def psf(size: int, fwhm: float, beta: float | None = None) -> np.ndarray:
    """(size, size) float32: a Moffat, or a Gaussian, about pixel size // 2."""
    y, x = np.mgrid[:size, :size] - size // 2
    square = x**2 + y**2
    if beta is None:
        return np.exp(-4 * np.log(2) * square / fwhm**2).astype(np.float32)
    scale = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return ((1 + square / scale) ** -beta).astype(np.float32)


SLOPES = {
    (3.0, None): 0.000,
    (3.75, None): 0.003,
    (4.5, None): 0.022,
    (3.0, 4.77): 0.012,
    (3.0, 3.0): 0.035,
    (4.5, 3.0): 0.16,
    (3.0, 2.5): 0.053,
    (4.5, 2.5): 0.19,
}
"""FWHM in pixels and beta -> how far an image of 11 pixels moves the slope of e (GalSim, 120 galaxies of S/N 60)."""


@pytest.mark.parametrize(("fwhm", "beta"), list(SLOPES))
def test_eleven_pixels_are_flagged_where_they_matter_and_fifteen_under_broad_wings(
    fwhm: float, beta: float | None
) -> None:
    small, large = (torch.from_numpy(psf(size, fwhm, beta))[None, None] for size in (11, 15))
    assert bool(cut_off(small, 25)) == (SLOPES[fwhm, beta] > 0.01)
    assert bool(cut_off(large, 25)) == (SLOPES[fwhm, beta] > 0.1)
    assert not cut_off(torch.from_numpy(psf(25, fwhm, beta))[None, None], 25)


ADDED = {
    (15, 6.0, 2.5): 0.0087, (17, 6.0, 2.5): 0.0087, (19, 6.0, 2.5): 0.0064, (17, 4.5, 2.5): 0.0033,
    (21, 6.0, 3.0): 0.0028, (15, 3.0, 2.5): 0.0007, (21, 4.5, 3.0): 0.0009, (19, 4.5, 4.77): 0.0005,
    (17, 6.0, None): 0.0005,
}  # fmt: skip
"""Side, FWHM and beta -> shift of the mean e1 under a PSF of e1 = 0.05 (GalSim, 120 galaxies of S/N 100)."""


@pytest.mark.parametrize(("size", "fwhm", "beta"), list(ADDED))
def test_larger_images_are_flagged_where_they_add_to_shapes(size: int, fwhm: float, beta: float | None) -> None:
    assert bool(cut_off(torch.from_numpy(psf(size, fwhm, beta))[None, None], 25)) == (ADDED[size, fwhm, beta] > 0.002)


@pytest.mark.parametrize("size", [11, 12])
def test_rims_of_zeros_and_sums_hide_nothing(size: int) -> None:
    small = psf(size, 3.75, 3.0)
    padded = np.pad(small, ((25 - size) // 2 + (1 - size % 2), 25 - size - (25 - size) // 2 - (1 - size % 2)))
    both = torch.from_numpy(np.stack([padded, psf(25, 3.75, 3.0)]))[None] * 1e-12
    assert cut_off(both, 25).tolist() == [[True, False]]
    assert cut_off(torch.full((1, 1, 11, 11), torch.nan), 25).tolist() == [[False]]
    assert not cut_off(torch.from_numpy(small)[None, None], 11)  # the network was trained on such


@pytest.mark.parametrize("size", [15, 24, 25, 33])
def test_rims_below_zero_are_flagged_whatever_the_size(size: int) -> None:
    # 1 % of the peak too much sky taken off moves the slope of e by -8 %, 3 % by -29 % (GalSim, S/N 30 to 100)
    right = psf(size, 3.75)
    noise = np.random.default_rng(1).normal(0, 0.01, right.shape)
    both = torch.from_numpy(np.stack([right - 0.02, right + noise]).astype(np.float32))[None]
    assert cut_off(both, 25).tolist() == [[True, False]]


@pytest.mark.parametrize(("fwhm", "beta"), [(3.0, None), (3.75, 3.0), (4.5, 2.5), (6.0, 2.5), (8.0, 2.5)])
@pytest.mark.parametrize("size", [25, 33])
def test_sky_that_is_left_is_flagged_and_wings_are_not(size: int, fwhm: float, beta: float | None) -> None:
    # 1 % of the peak left on 25 pixels moves the slope of e by +6 %, 3 % by +15 % (GalSim, S/N 30 to 100)
    right = psf(size, fwhm, beta)
    noise = np.random.default_rng(1).normal(0, 0.005, right.shape)
    both = np.stack([right + (0.01 if fwhm < 5 else 0.06), right, right + noise]).astype(np.float32)
    assert cut_off(torch.from_numpy(both)[None], 25).tolist() == [[True, False, False]]


def test_the_bundle_flags_objects_of_the_band_that_it_reads() -> None:
    task = ModelBundle.load("ellipticity").task()
    image = np.random.default_rng(0).normal(size=(2, 2, 48, 48)).astype(np.float32)
    galaxy = 40 * np.exp(-0.5 * (np.hypot(*(np.mgrid[:48, :48] - 24)) / 3) ** 2)
    kernels = np.stack([np.pad(psf(11, 3.75, 3.0), 2), psf(15, 3.0, 3.0)])
    given = from_stamps(
        (image + galaxy).astype(np.float32), np.ones_like(image), np.stack([kernels, kernels]), bands=("g", "r")
    )
    flags = [task.prepare(given.select(band))[1] & int(ObjectFlag.OUT_OF_DOMAIN) for band in ("g", "r")]
    assert [flag.tolist() for flag in flags] == [[256, 256], [0, 0]]
