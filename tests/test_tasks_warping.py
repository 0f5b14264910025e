"""Random warps of training stamps: angles and shifts mean what they say, and what cannot be turned is refused."""

import math

import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.augmentation import Warp, turned

torch.set_num_threads(1)


def blob(size: int, x: float, y: float, sigma: float = 2.0) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))[None, None].float()


def centroid(image: torch.Tensor) -> tuple[float, float]:
    plane = image[0, 0]
    axis = torch.arange(plane.shape[0]).float()
    return float((plane.sum(0) * axis).sum() / plane.sum()), float((plane.sum(1) * axis).sum() / plane.sum())


@pytest.mark.parametrize("size", [32, 33])
def test_a_turn_is_about_the_centre_pixel(size: int) -> None:
    middle = size // 2
    found = turned(blob(size, middle + 6, middle), torch.tensor([math.pi / 6]), torch.zeros(1, 2))
    x, y = centroid(found)
    assert math.hypot(x - middle, y - middle) == pytest.approx(6, abs=0.02)
    assert abs(math.atan2(y - middle, x - middle)) == pytest.approx(math.pi / 6, abs=0.01)
    still = turned(blob(size, middle, middle), torch.tensor([1.234]), torch.zeros(1, 2))
    assert centroid(still) == pytest.approx((middle, middle), abs=1e-3)


def test_a_shift_is_in_pixels() -> None:
    moved = turned(blob(32, 16, 16), torch.zeros(1), torch.tensor([[1.5, -2.0]]))
    assert centroid(moved) == pytest.approx((17.5, 14.0), abs=1e-3)


def test_image_and_psf_turn_together_and_repeatably() -> None:
    image = torch.cat([blob(32, 20, 16)] * 50)
    inputs = (image, image.clone())
    one = Warp(turn=True).apply(inputs, torch.Generator().manual_seed(1))
    two = Warp(turn=True).apply(inputs, torch.Generator().manual_seed(1))
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one[0], one[1])
    assert (one[0] - image).abs().amax((1, 2, 3)).min() < (one[0] - image).abs().max()


def test_the_psf_is_not_shifted_and_gain_multiplies_the_image() -> None:
    image = torch.cat([blob(32, 16, 16)] * 200)
    moved, psf = Warp(shift=2.0, gain=0.2).apply((image, image.clone()), torch.Generator().manual_seed(2))
    torch.testing.assert_close(psf, image)
    factor = moved.sum((1, 2, 3)) / image.sum((1, 2, 3))
    assert float(factor.log().std()) == pytest.approx(0.2, rel=0.2)
    assert max(abs(value - 16) for value in centroid(moved[:1])) <= 2.0


def test_colour_changes_bands_apart() -> None:
    image = torch.cat([blob(16, 8, 8)] * 200).expand(-1, 2, -1, -1)
    (moved,) = Warp(colour=0.1).apply((image,), torch.Generator().manual_seed(3))
    factors = (moved.sum((2, 3)) / image.sum((2, 3))).log()
    assert float(factors.std()) == pytest.approx(0.1, rel=0.2)
    assert float((factors[:, 0] - factors[:, 1]).std()) == pytest.approx(0.1 * 2**0.5, rel=0.2)


def test_settings_that_cannot_be_are_refused() -> None:
    assert not Warp()
    with pytest.raises(InputError, match="0 or more"):
        Warp(shift=-1)
