"""Chip gaps: what a band lacks near the object makes its values null, or flags them; whole images stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.cutouts.stamps import from_stamps
from astroml_plugin.tasks.gaps import gap_bits, lost_bands

SIZE = 64
OUT = int(ObjectFlag.OUT_OF_DOMAIN)


def noise(level: float = 10.0) -> np.ndarray:
    return np.random.default_rng(0).normal(level, 1, (2, 3, SIZE, SIZE)).astype(np.float32)


def given(image: np.ndarray) -> Cutouts:
    return from_stamps(image, None, None, bands=("g", "r", "i"))


def found(image: np.ndarray) -> tuple[list[list[bool]], list[int]]:
    """Lost bands and flags."""
    stamps = given(image)
    return lost_bands(stamps).tolist(), gap_bits(stamps).tolist()


@pytest.mark.parametrize("value", [0.0, -99.0, np.nan])
@pytest.mark.parametrize(
    ("first", "last", "lost", "bits"),
    [
        (0, 40, True, OUT),
        (0, 32, True, OUT),
        (29, 35, True, OUT),
        (0, 22, False, OUT),
        (0, 16, False, 0),
        (50, 64, False, 0),
    ],
)
def test_a_gap_in_one_band(value: float, first: int, last: int, lost: bool, bits: int) -> None:
    for turned in (False, True):
        image = noise()
        image[0, 1, :, first:last] = value
        image = image.swapaxes(2, 3) if turned else image
        assert found(np.ascontiguousarray(image)) == ([[False, lost, False], [False] * 3], [bits, 0])


def test_a_gap_in_a_spare_band_is_borne() -> None:
    image = noise()
    image[0, 1, :, :40] = 0
    assert gap_bits(given(image), torch.tensor([True, False, True])).tolist() == [0, 0]
    assert gap_bits(given(image), torch.tensor([True, True, True])).tolist() == [OUT, 0]


def test_an_edge_of_the_image_in_all_bands_keeps_its_values() -> None:
    image = noise()
    image[0, :, :, :30] = np.nan
    assert found(image) == ([[False] * 3] * 2, [0, 0])  # EDGE or NONFINITE tells of it
    image[0, :, :, :30] = 0
    assert found(image) == ([[False] * 3] * 2, [OUT, 0])  # nothing else does


def test_images_without_noise_counts_and_pictures_have_no_gaps() -> None:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    blob = np.exp(-0.5 * (x**2 + y**2) / 4)
    flat = np.broadcast_to(np.float32(1000) + blob, (2, 3, SIZE, SIZE)).astype(np.float32)
    assert (flat[0, 0] == 1000).mean() > 0.5
    counts = np.random.default_rng(1).poisson(0.1 + 5 * blob, (2, 3, SIZE, SIZE)).astype(np.float32)
    coarse = np.random.default_rng(2).normal(0, 0.5, (2, 3, SIZE, SIZE)).round().astype(np.float32)
    padded = np.zeros_like(flat)
    padded[..., 16:48, 16:48] = noise()[..., 16:48, 16:48]
    picture = noise().clip(0, 255).astype(np.uint8)
    picture[:, 0, :, :40] = 0
    for image in (flat, counts, coarse, padded, picture):
        assert found(image) == ([[False] * 3] * 2, [0, 0])
