import numpy as np
import pytest
import torch
from torch import Tensor

from astroml_plugin.tasks.ellipticity import metacalibration

torch.set_num_threads(1)
SIZE = 48
GALAXY = np.array([[6.0, 1.0], [1.0, 4.0]])
PSF = np.array([[3.2, -0.3], [-0.3, 2.8]])
SHEARS = (np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]))


def gaussian(moments: np.ndarray, x0: float = 0.0, y0: float = 0.0, size: int = SIZE) -> Tensor:
    """(1, 1, size, size) float32 of unit flux and the second moments (2, 2), around pixel size // 2 + (x0, y0)."""
    y, x = np.mgrid[:size, :size] - size // 2
    inverse = np.linalg.inv(moments)
    dx, dy = x - x0, y - y0
    power = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
    image = np.exp(-0.5 * power) / (2 * np.pi * np.sqrt(np.linalg.det(moments)))
    return torch.from_numpy(image.astype(np.float32))[None, None]


def sheared(component: int, g: float, place: tuple[float, float]) -> Tensor:
    """The galaxy sheared about its own centre, then blurred."""
    matrix = (np.eye(2) + g * SHEARS[component]) / np.sqrt(1 - g**2)
    return gaussian(matrix @ GALAXY @ matrix.T + PSF, *place)


@pytest.mark.parametrize("component", [0, 1])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, -0.3)])
@pytest.mark.parametrize("psf_size", [25, 24, 64])
def test_only_the_galaxy_is_sheared_about_its_centre(component: int, place: tuple[float, float], psf_size: int) -> None:
    true = (sheared(component, 0.01, place) - sheared(component, -0.01, place)) / 0.02
    psf = 7 * gaussian(PSF, size=psf_size)
    found = metacalibration.Shearing(psf, SIZE, torch.tensor([place]))(sheared(component, 0.0, place))[component]
    assert float((found - true).abs().max()) < 2e-3 * float(true.abs().max())


def test_shear_without_a_centre_moves_the_galaxy() -> None:
    place = (0.4, 0.0)
    image = sheared(0, 0.0, place)
    psf = gaussian(PSF, size=25)
    found = (
        metacalibration.Shearing(psf, SIZE)(image)[0]
        - metacalibration.Shearing(psf, SIZE, torch.tensor([place]))(image)[0]
    )
    moved = (sheared(0, 0.0, (0.41, 0.0)) - sheared(0, 0.0, (0.39, 0.0))) / 0.02 * 0.4
    assert float((found - moved).abs().max()) < 0.02 * float(moved.abs().max())


def test_wings_go_on_where_the_psf_image_ends() -> None:
    radius = np.hypot(*(np.mgrid[:95, :95] - 47))
    moffat = torch.from_numpy(((1 + radius**2 / 3.4**2) ** -3).astype(np.float32))[None, None]
    cut = moffat[..., 35:60, 35:60]
    found = metacalibration._with_wings(cut, 95)
    ring = torch.from_numpy((radius > 13) & (radius < 25))
    missing = float(moffat[..., ring].sum())
    assert float(found[..., ring].sum()) == pytest.approx(missing, rel=0.2)
    assert torch.equal(found[..., 35:60, 35:60], cut)


def test_centres_are_right_in_the_mean_at_any_noise() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(-0.5, 0.5, (400, 2))
    clean = torch.cat([gaussian(GALAXY + PSF, *place) for place in places])
    ones = torch.ones_like(clean)
    exact = metacalibration.centres(clean, 1e-12 * ones).numpy()
    np.testing.assert_allclose(exact, places, atol=0.01)
    sigma = float(clean[0].square().sum().sqrt()) / 12  # S/N 12
    noisy = clean + sigma * torch.from_numpy(rng.normal(size=clean.shape).astype(np.float32))
    found = metacalibration.centres(noisy, sigma**2 * ones).numpy()
    slope = (found * places).sum() / (found**2).sum()
    assert 0.9 < slope < 1.15
    assert (found**2).mean() < 0.8 / 12  # shrunk


@pytest.mark.slow
def test_spurious_response_of_the_noise_cancels_by_itself_and_against_features() -> None:
    """Against brute force: the response of a nonlinear measurement to a shear of the noiseless galaxy alone."""
    size, count, sigma = 12, 16_000, 1.0
    rng = np.random.default_rng(1)
    probes = torch.from_numpy(rng.normal(size=(3, size * size)).astype(np.float32)) / size
    clean = 6 * gaussian(GALAXY, size=size).expand(count, 1, size, size) / float(gaussian(GALAXY, size=size).max())
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)) * sigma
    psf = gaussian(0.4 * PSF, size=9)
    shearing = metacalibration.Shearing(psf, size)

    def seen(image: Tensor) -> Tensor:
        a, b, c = (image.flatten(1) @ probes.T).T
        return torch.stack([a * b + 0.1 * a * a * c, torch.tanh(b) + a * c], dim=1)

    def features(image: Tensor) -> Tensor:
        a, b, _ = (image.flatten(1) @ probes.T).T
        return torch.stack([torch.ones_like(a), a, b * b], dim=1)

    image = clean + noise
    true = torch.stack([metacalibration.derivative(seen, image, slope) for slope in shearing(clean)], dim=2)
    found = metacalibration.responses(
        seen, image, sigma**2 * torch.ones_like(image), shearing, torch.Generator().manual_seed(5), features=features
    )
    h = features(image)[:, None, None, :]
    for sample in (found.own - true, (found.own - true)[..., None] * h - found.product):
        mean, error = sample.mean(0), sample.std(0) / count**0.5
        assert float((mean / error.clamp_min(1e-9)).abs().max()) < 4.5
    spurious = (found.seen - true).mean(0) / ((found.seen - true).std(0) / count**0.5)
    assert float(spurious.abs().max()) > 5  # which is there if nothing is done
