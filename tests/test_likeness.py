"""Stamps are known again in another unit, precision or sky level, and never taken for others."""

from __future__ import annotations

import numpy as np
import pytest

from astroml_plugin.core.typing import F32
from astroml_plugin.sky.duplicates import ordered_centres
from astroml_plugin.sky.likeness import alike, likeness
from astroml_plugin.training.known_objects import KnownObjects


def samples(image: np.ndarray) -> F32:
    return likeness(ordered_centres(image))


def stamps(light: float, noise: float, count: int = 3000) -> np.ndarray:
    """Exponential galaxies (n, 1, 32, 32) of many sizes and shapes."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:32, :32] - 16.0
    size, ratio, angle = (
        rng.uniform(*span, (count, 1, 1, 1)).astype(np.float32) for span in ((2, 4), (0.3, 1), (0, np.pi))
    )
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) / ratio
    pixels = light * np.exp(-np.hypot(along, across) / size) + noise * rng.normal(0, 1, (count, 1, 32, 32))
    return pixels.astype(np.float32)


@pytest.mark.parametrize(("light", "noise"), [(0.0, 1.0), (100.0, 1.0), (10000.0, 1.0)])
def test_a_unit_a_sky_level_and_half_precision_do_not_hide_a_stamp(light: float, noise: float) -> None:
    image = stamps(light, noise)
    known = samples(image)
    assert np.isfinite(known).all()
    counts = image * np.float32(10 ** (-0.4 * 4.4))
    for form in (counts, image * 2, image + 1, image.astype(np.float16), counts.astype(np.float16), image[..., ::-1]):
        assert alike(samples(form), known).all()
    first, rest = samples(image[:1500] * 2), known[1500:]
    assert alike(first, rest).sum() <= 2  # of 2,250,000 pairs


def test_what_cannot_be_told_is_like_nothing() -> None:
    counts = np.random.default_rng(0).poisson(5, (50, 2, 32, 32)).astype(np.float32)
    flat = np.zeros((2, 1, 32, 32), np.float32)
    small = np.random.default_rng(0).normal(0, 1, (2, 1, 3, 3)).astype(np.float32)
    for image in (counts, flat, small, flat * np.nan):
        told = samples(image)
        assert np.isnan(told).all()
        assert not alike(told, told).any()


def test_records_keep_likeness_and_older_ones_have_none() -> None:
    image = stamps(100.0, 1.0, 20)
    digests, nowhere = np.arange(1, 21, dtype=np.uint64), np.full((20, 2), np.nan)
    other = np.arange(101, 121, dtype=np.uint64)
    for told in (samples(image), None):
        known = KnownObjects.of(digests, np.arange(20), nowhere, told)
        again = KnownObjects.from_bytes(known.to_bytes(), "b")
        assert again.holds(other, nowhere, samples(image * 2 + 1)).all() == (told is not None)
        assert again.holds(digests, nowhere).all()
