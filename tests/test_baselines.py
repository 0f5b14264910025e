"""Classical shapes: exact on Gaussians, failures are NaN, the frame is ours."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation.baselines import shapes

SIZE = 40


def gaussian(covariance: np.ndarray, size: int = SIZE, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """(size, size) float32 Gaussian of unit sum about pixel size // 2 + shift (x, y)."""
    y, x = np.mgrid[:size, :size] - size // 2
    inverse = np.linalg.inv(covariance)
    dx, dy = x - shift[0], y - shift[1]
    image = np.exp(-0.5 * (inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2))
    return (image / image.sum()).astype(np.float32)


def ellipse(e1: float, e2: float, size: float) -> np.ndarray:
    """Covariance of reduced shear (e1, e2) and trace 2 size²."""
    chi = 2 * np.array([e1, e2]) / (1 + e1**2 + e2**2)
    return size**2 * np.array([[1 + chi[0], chi[1]], [chi[1], 1 - chi[0]]])


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two Gaussian galaxies (0.2, -0.1) under an elliptical Gaussian PSF, off the centre."""
    psf = ellipse(0.05, 0.03, 1.6)
    seen = ellipse(0.2, -0.1, 2.5) + psf
    image = np.stack([gaussian(seen), gaussian(seen, shift=(0.4, -0.3))])
    return image, np.full_like(image, 1e-10), np.stack([gaussian(psf, 25)] * 2)


@pytest.mark.parametrize("method", ["moments", "hsm"])
def test_gaussians_are_measured_exactly(scene: tuple[np.ndarray, ...], method: str) -> None:
    if method == "hsm":
        pytest.importorskip("galsim")
    found = shapes.measure(method, *scene, 0.2)  # type: ignore[call-arg, arg-type]
    np.testing.assert_allclose(found, [[0.2, -0.1]] * 2, atol=3e-3)


def test_unweighted_moments_without_noise(scene: tuple[np.ndarray, ...]) -> None:
    np.testing.assert_allclose(shapes.unweighted_moments(*scene, 0.2), [[0.2, -0.1]] * 2, atol=5e-3)  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("method", ["moments", "unweighted", "hsm"])
def test_what_cannot_be_measured_is_nan(scene: tuple[np.ndarray, ...], method: str) -> None:
    if method == "hsm":
        pytest.importorskip("galsim")
    image, variance, psf = scene
    image = np.concatenate([image[:1], 0 * image[:1]])
    found = shapes.measure(method, image, variance, psf, 0.2)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_processes_change_nothing(scene: tuple[np.ndarray, ...]) -> None:
    one = shapes.measure("moments", *scene, 0.2, chunk=1)  # type: ignore[call-arg, arg-type, misc]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        two = shapes.measure("moments", *scene, 0.2, chunk=1, pool=pool)  # type: ignore[call-arg, arg-type, misc]
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("method", "package"), [("hsm", "galsim"), ("ngmix", "ngmix")])
def test_an_absent_package_is_named(
    scene: tuple[np.ndarray, ...], method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks a module that cannot be imported
    with pytest.raises(InputError, match="install"):
        shapes.METHODS[method](*scene, 0.2)  # type: ignore[call-arg, arg-type]


def test_unknown_methods_are_refused(scene: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(InputError, match="hsm, moments"):
        shapes.measure("nonsense", *scene, 0.2)  # type: ignore[call-arg, arg-type]


def test_reduced_shear_of_a_distortion() -> None:
    np.testing.assert_allclose(shapes.reduced_shear(np.array([[0.6, 0.0]])), [[1 / 3, 0.0]])
    assert np.isnan(shapes.reduced_shear(np.array([[1.0, 0.0]]))).all()


def test_aperture_snr_of_noise_is_that_of_a_unit_normal() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (2000, 32, 32))
    assert shapes.aperture_snr(noise, np.full_like(noise, 9.0)).std() == pytest.approx(1, abs=0.05)
