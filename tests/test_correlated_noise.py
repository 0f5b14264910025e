"""Errors of fluxes, and depths, where the noise of pixels is correlated: held against the scatter of empty sky."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy import ndimage

from astroml_plugin.inference.exposure import of_field
from astroml_plugin.pixels.correlation import growth_in_gaussians, growth_in_squares, next_to_each_other
from astroml_plugin.sources.tile_table import TileInfo
from astroml_plugin.tasks.detection import Field
from astroml_plugin.tasks.segmentation.signal import estimated_variance
from astroml_plugin.tasks.segmentation.truth import truth_layers
from tests.test_ingest_background import sky_by
from tests.test_tasks_segment import TASK, gaussians, perfect, scene

KERNELS = {
    "gaussian": np.outer(*[np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.2**2))] * 2),
    "two pixels": np.ones((2, 2)),
    "drizzle": np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]),
}

ALONE = TASK.with_settings(companion=0.0)
"""Without the search for close companions, which takes clumps of noise for some."""


def noise(kernel: str, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """White noise through a kernel, of unit variance in a pixel."""
    found = ndimage.convolve(np.random.default_rng(seed).normal(size=shape), KERNELS[kernel], mode="wrap")
    return (found / np.sqrt((KERNELS[kernel] ** 2).sum())).astype("f4")


def growth_of(kernel: str) -> float:
    """As ingest measures it."""
    return sky_by(100 + noise(kernel, (1024, 1024)), "mesh").correlation


def sums(sky: np.ndarray, weight: np.ndarray) -> float:
    """Scatter of sums of sky pixels times a weight, over that of as much white noise."""
    total = ndimage.convolve(sky.astype("f8"), weight, mode="wrap")
    return float(total[::5, ::5].std() / np.sqrt((weight**2).sum()))


@pytest.mark.parametrize("kernel", KERNELS)
def test_noise_of_sums_is_that_of_empty_sky(kernel: str) -> None:
    growth, sky = growth_of(kernel), noise(kernel, (700, 700), 1)
    y, x = np.mgrid[-15:16, -15:16]
    for radius in (3.0, 5.0, 9.0):
        told = growth_in_squares(growth, np.array([np.sqrt(np.pi) * radius]))[0]
        assert told == pytest.approx(sums(sky, (np.hypot(x, y) <= radius) * 1.0), rel=0.1)
    for sigma in (1.2, 2.0, 3.5):
        told = growth_in_gaussians(growth, np.array([sigma**2]))[0]
        assert told == pytest.approx(sums(sky, np.exp(-(x**2 + y**2) / (2 * sigma**2))), rel=0.1)
    assert next_to_each_other(growth) == pytest.approx(
        np.corrcoef(sky[:, 1:].ravel(), sky[:, :-1].ravel())[0, 1], abs=0.2
    )


def test_white_and_unknown_noise_changes_nothing() -> None:
    for growth in (float("nan"), 0.9, 1.0, 1.1):
        assert growth_in_squares(growth, np.array([1.0, 30.0])).tolist() == [1.0, 1.0]
        assert growth_in_gaussians(growth, np.array([0.0, 30.0])).tolist() == [1.0, 1.0]
        assert next_to_each_other(growth) == 0


@pytest.mark.parametrize("given", [True, False])
def test_errors_of_fluxes_are_their_scatter(given: bool) -> None:
    side, step, kernel = 1024, 32, "gaussian"
    at = np.arange(step / 2, side, step)
    x, y = (plane.ravel() for plane in np.meshgrid(at, at))
    flux, sigma = np.full(x.size, 400.0), np.full(x.size, 2.0)
    light = np.zeros((side, side), "f4")
    stamp = gaussians(np.array([16.0]), np.array([16.0]), flux[:1], sigma[:1], (step, step))[0]
    light += np.tile(stamp, (side // step, side // step))
    owner = np.repeat(np.repeat(np.arange(x.size).reshape(len(at), -1), step, 0), step, 1)
    truth = scene(light[None], x, y)
    truth.owner[:] = owner
    image = (light + noise(kernel, light.shape, 2))[None]
    field = Field(
        image,
        np.ones_like(image) if given else None,
        None,
        None,
        ("r",),
        (0, 0),
        (31.4,),
        0.2,
        noise_growth=(growth_of(kernel),),
    )
    found = ALONE.detect(perfect(truth_layers(truth)), field)
    assert len(found) == x.size
    for name in ("iso", "aper"):
        values, errors = found.columns[f"flux_{name}_r"], found.columns[f"flux_{name}_r_err"]
        scatter = 1.4826 * np.median(np.abs(values - np.median(values)))
        assert np.median(errors) == pytest.approx(scatter, rel=0.1 if given else 0.15)


def test_depth_is_that_of_fluxes_with_the_psf_as_weight() -> None:
    image = noise("gaussian", (512, 512))[None]
    growth = growth_of("gaussian")
    y, x = np.mgrid[-12:13, -12:13]
    psf = np.exp(-(x**2 + y**2) / (2 * 2.0**2))
    measured = sums(image[0], psf)
    for variance in (np.ones_like(image), None):
        fields = [
            Field(image, variance, None, psf[None, None, None], ("r",), (0, 0), (31.4,), 0.2, noise_growth=known)
            for known in ((), (growth,))
        ]
        white, right = (
            of_field(cast(TileInfo, SimpleNamespace(image="a", image_shape=(512, 512))), field).depth
            for field in fields
        )
        assert white is not None
        assert right is not None
        lost = 2.5 * np.log10(measured)
        if variance is None:
            lost += 2.5 * np.log10(1 / np.sqrt(estimated_variance(fields[0], 0.0).max()))
        assert white - right == pytest.approx(lost, abs=0.12)
