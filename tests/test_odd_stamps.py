"""Stamps that are made to be unlike a training set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.training.odd_stamps import KINDS, odd_stamps

BANDS = ("g", "r", "i")


def drawn(bands: int, *, pictures: bool = False, psf: bool = True) -> Cutouts:
    random = np.random.default_rng(bands)
    y, x = np.mgrid[:32, :32] - 16
    light = np.exp(-(x**2 + y**2) / 20) * (1 + np.arange(bands))[:, None, None]
    image = (random.normal(size=(12, bands, 32, 32)) + 30 * light).astype(np.float32)
    if pictures:
        return from_stamps((60 + 3 * image).clip(0, 255).astype(np.uint8), None, None, bands=BANDS[:bands])
    small = np.exp(-(x[8:25, 8:25] ** 2 + y[8:25, 8:25] ** 2) / 6).astype(np.float32)
    images = np.broadcast_to(small, (12, bands, 17, 17)).copy() if psf else None
    variance = (0.5 + np.arange(bands))[:, None, None] * np.ones_like(image)
    return from_stamps(image, variance.astype(np.float32), images, bands=BANDS[:bands])


@pytest.mark.parametrize(("bands", "pictures", "psf"), [(1, False, True), (3, False, False), (3, True, False)])
def test_every_kind_is_made_and_differs(bands: int, pictures: bool, psf: bool) -> None:
    own = drawn(bands, pictures=pictures, psf=psf)
    made = list(odd_stamps(own, 0.5, torch.Generator().manual_seed(1)))
    lacking = (2 if bands == 1 else 0) + (0 if psf else 1)  # no other order of bands, no one band for all; no other PSF
    assert len(made) == len(KINDS) - lacking
    for places, odd in made:
        assert len(odd) == len(places) == 6
        assert odd.image.dtype == own.image.dtype
        assert odd.image.shape[1:] == own.image.shape[1:]
        assert torch.isfinite(odd.image.float()).all()
        assert not torch.equal(odd.image, own.image[places])
        if odd.variance is not None:
            assert (odd.variance > 0).all()


def test_the_same_seed_makes_the_same() -> None:
    first, again = (list(odd_stamps(drawn(3), 1.0, torch.Generator().manual_seed(3))) for _ in range(2))
    for (one, odd), (other, same) in zip(first, again):
        assert torch.equal(one, other)
        assert torch.equal(odd.image, same.image)
