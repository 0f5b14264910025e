"""Statistics of stamps by compiled code are what torch gives, to float32 rounding; turned stamps have the same ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astroml_plugin.networks.stamp_statistics import STAMP_VIEWS, StampStatistics
from astroml_plugin.pixels import native_statistics
from tests.test_native import both, compiled
from tests.test_native_structure import stamps

__all__ = ["compiled"]  # the fixture that every test here runs under


@pytest.mark.parametrize(
    ("bands", "height", "width"), [(3, 64, 64), (1, 48, 48), (2, 33, 41), (5, 31, 31), (1, 40, 64)]
)
def test_statistics_are_the_same(bands: int, height: int, width: int) -> None:
    image = stamps(height, max(height, width), 12, bands)
    view = torch.cat([image, image], 3)[..., :height, :width]  # rows that do not lie one after the other
    layer = StampStatistics(bands, height, width)
    with torch.inference_mode():
        wanted, found = both(lambda: layer.sums(view))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        wanted, found = both(lambda: torch.cat(layer(view), dim=1))
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=5e-3)  # logarithms of small differences of large numbers
    assert sum(layer.sums.lengths) == layer.sums.tables().length(bands)
    assert (wanted[:-1].std(0) > 0).float().mean() > 0.9


def test_what_a_quarter_turn_leaves_alone_stays() -> None:
    """But for steps along one axis, which are told apart."""
    image = stamps(5, 63, 8, 2)
    layer = StampStatistics(2, 63, 63)
    with torch.inference_mode():
        plain, turned = (dict(zip(STAMP_VIEWS, layer(item))) for item in (image, image.rot90(1, (2, 3)).contiguous()))
    torch.testing.assert_close(plain["light"], turned["light"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain["form"][:, :16], turned["form"][:, :16], rtol=1e-3, atol=1e-3)


def test_a_line_a_star_and_swapped_bands_are_told_apart() -> None:
    random = np.random.default_rng(0)
    plain = torch.from_numpy(random.normal(size=(40, 2, 64, 64)).astype(np.float32))
    y, x = np.mgrid[:64, :64] - 32
    core = torch.from_numpy(np.exp(-(x**2 + y**2) / 18).astype(np.float32))
    plain[:, 0] += 30 * core
    plain[:, 1] += 60 * core
    line = plain + 8 * torch.from_numpy(np.abs(x * 0.6 + y * 0.8 - 12) < 1.5).float()
    layer = StampStatistics(2, 64, 64)
    with torch.inference_mode():
        own, odd, swapped = (dict(zip(STAMP_VIEWS, layer(item.contiguous()))) for item in (plain, line, plain.flip(1)))

    def distance(view: str, other: dict[str, torch.Tensor]) -> float:
        spread = own[view].std(0).clamp_min(1e-3)
        return float(((other[view] - own[view]).mean(0) / spread).abs().max())

    assert distance("form", odd) > 20
    assert distance("light", swapped) > 20
    assert distance("form", swapped) < 1e-3


def test_stamps_of_another_size_are_refused() -> None:
    tables = StampStatistics(1, 32, 32).sums.tables()
    with pytest.raises(ValueError, match="tables for"):
        native_statistics.sums(np.zeros((1, 1, 40, 40), np.float32), tables)
    with pytest.raises(ValueError, match="corners of 12"):
        native_statistics.Tables({"light": np.ones((9, 9, 1), np.float32)}, np.ones((3, 1), np.float32), 12, 4)
