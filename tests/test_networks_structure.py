"""Fixed measurements: what they answer to, and what they do not."""

import numpy as np
import pytest
import torch
from torch import Tensor

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.baselines.shape_features import shape_features
from astroml_plugin.networks.layers import fast_asinh
from astroml_plugin.networks.structure import PARTS, Structure, _highest
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform

torch.set_num_threads(1)


def galaxies(count: int = 24, size: int = 64, seed: int = 0, brightness: float = 60.0) -> Tensor:
    """(n, 2, size, size) inclined exponential disks in units of the noise."""
    rng = np.random.default_rng(seed)
    axis = np.arange(size) - size // 2
    image = np.empty((count, 2, size, size))
    for number in range(count):
        turn, q = rng.uniform(0, np.pi), rng.uniform(0.5, 1)
        y, x = np.meshgrid(axis - rng.uniform(-0.5, 0.5), axis - rng.uniform(-0.5, 0.5), indexing="ij")
        along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / q
        image[number] = brightness * np.exp(-np.hypot(along, across) / rng.uniform(2.5, 4))
    return torch.from_numpy(image + rng.normal(size=image.shape)).float()


def measured(image: Tensor) -> dict[str, Tensor]:
    found = Structure()(image, torch.ones_like(image))
    return {name: found[:, number] for number, name in enumerate(PARTS)}


@pytest.mark.parametrize("size", [48, 63, 64])
def test_symmetries_change_nothing(size: int) -> None:
    image = galaxies(8, size)
    plain = Structure()(image, torch.ones_like(image))
    for symmetry in SYMMETRIES[1:]:
        turned = Structure()(transform(image, symmetry), torch.ones_like(image))
        torch.testing.assert_close(turned[:, :5], plain[:, :5], atol=2e-3, rtol=2e-3)


def test_a_companion_shows_in_asymmetry_second_source_and_residual() -> None:
    image = galaxies()
    paired = image + galaxies(seed=9, brightness=30.0).roll((9, 5), (2, 3))
    alone, both = measured(image), measured(paired)
    for name in ("asymmetry", "second_source", "residual"):
        assert both[name].median() > alone[name].quantile(0.95), name


def test_a_far_neighbour_changes_size_little() -> None:
    image = galaxies()
    near = image + galaxies(seed=9).roll((24, 18), (2, 3))
    change = measured(near)["log_radius"] - measured(image)["log_radius"]
    assert change.abs().median() < 0.05


def test_asymmetry_is_that_of_the_catalogued_features() -> None:
    image = (
        galaxies()
        + galaxies(seed=9, brightness=20.0).roll((7, 3), (2, 3)) * (torch.arange(24) % 2)[:, None, None, None]
    )
    known = shape_features(from_stamps(image.numpy(), None, None, bands=("g", "r")))
    theirs = known.values[:, known.names.index("asymmetry")]
    assert np.corrcoef(theirs, measured(image)["asymmetry"].numpy())[0, 1] > 0.8


def test_lines_sharp_pixels_and_plateaus() -> None:
    image = galaxies()
    plain = measured(image)
    trail = image.clone()
    axis = torch.arange(64.0)
    trail += 3 * torch.exp(-0.5 * ((axis[:, None] - 0.6 * axis - 8) / 1.5) ** 2)
    assert (measured(trail)["line"] > plain["line"].max()).all()
    hit = image.clone()
    hit[:, 0, 40, 44] += 60
    assert (measured(hit)["sharpness"] > 40).all()
    assert plain["sharpness"].max() < 10
    assert (measured(image.clamp(max=40))["plateau"] > 0.3).all()
    assert plain["plateau"].max() == 0


@pytest.mark.parametrize("value", [0.0, 7.0, 1e9])
def test_blank_stamps_give_numbers(value: float) -> None:
    image = torch.full((3, 1, 64, 64), value)
    assert Structure()(image, torch.ones_like(image)).isfinite().all()


def test_the_fast_ways_give_the_same_numbers() -> None:
    image = torch.randn(3, 17, 21)
    assert torch.equal(_highest(image), torch.nn.functional.max_pool2d(image[:, None], 3, 1, 1)[:, 0])
    values = torch.cat([torch.linspace(-1e6, 1e6, 4001), torch.linspace(-1, 1, 101), torch.tensor([0.0])])
    torch.testing.assert_close(fast_asinh(values), torch.asinh(values), rtol=1e-6, atol=2e-7)
    values.requires_grad_(True)
    fast_asinh(values).sum().backward()
    torch.testing.assert_close(values.grad, 1 / (1 + values.detach().square()).sqrt())


def test_gradients_reach_the_pixels() -> None:
    image = galaxies(4).requires_grad_()
    found = Structure()(image, torch.ones_like(image))
    found.sum().backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    with torch.inference_mode():
        again = Structure()(image.detach(), torch.ones_like(image))
    # sums in another order: threads, and where in memory the pixels lie
    torch.testing.assert_close(again, found.detach(), rtol=1e-4, atol=1e-4)


def test_no_stamps_give_no_rows() -> None:
    assert Structure()(torch.zeros(0, 2, 64, 64), torch.zeros(0, 2, 64, 64)).shape == (0, len(PARTS))


def test_what_is_kept_between_calls_serves_training_after_inference() -> None:
    image = galaxies(2, 58)  # a side that no other test has
    with torch.inference_mode():
        Structure()(image, torch.ones_like(image))
    image = image.clone().requires_grad_()
    Structure()(image, torch.ones_like(image)).sum().backward()
    assert image.grad is not None
