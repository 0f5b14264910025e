"""Stamps gathered from a tile are the pixels that the contract says, with the right flags."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astroml_plugin import cutouts as cut
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.pixels import Tile

HALO, SIDE = 8, 48


@pytest.fixture
def tile() -> Tile:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, SIDE, SIDE)).astype(np.float32)
    return Tile(
        image,
        np.ones_like(image),
        np.zeros(image.shape, np.uint32),
        rng.normal(size=(2, 2, 2, 5, 5)).astype(np.float32),
    )


def gather(
    tile: Tile, x: list[float], y: list[float], size: int = 8, origin: tuple[int, int] = (100, 200)
) -> cut.Cutouts:
    placed = cut.to_device(tile, ("g", "r"))
    return cut.around(
        placed, np.array(x, float), np.array(y, float), size, origin=origin, jacobian=np.full((len(x), 2, 2), np.nan)
    )


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("x", "y"), [(120.0, 220.0), (120.49, 220.49), (120.5, 219.5), (119.51, 219.999)])
def test_a_stamp_begins_at_the_rounded_position_less_half(tile: Tile, size: int, x: float, y: float) -> None:
    stamps = gather(tile, [x], [y], size)
    left, top = int(np.floor(x + 0.5)) - size // 2 - 100, int(np.floor(y + 0.5)) - size // 2 - 200
    assert np.array_equal(stamps.image[0].numpy(), tile.image[:, top : top + size, left : left + size])
    assert bool(stamps.valid.all())
    assert stamps.flags.tolist() == [0]


def test_each_object_gets_the_psf_of_its_cell(tile: Tile) -> None:
    stamps = gather(tile, [110.0, 140.0], [210.0, 240.0])
    assert tile.psf is not None
    assert np.array_equal(stamps.psf.numpy()[0], tile.psf[:, 0, 0])
    assert np.array_equal(stamps.psf.numpy()[1], tile.psf[:, 1, 1])


def test_unusable_pixels_are_zero_not_valid_and_flagged(tile: Tile) -> None:
    assert tile.variance is not None
    assert tile.mask is not None
    tile.image[0, 10, 10] = np.nan
    tile.variance[0, 10, 30] = 0
    tile.mask[0, 30, 10] = MaskBit.SATURATED
    tile.mask[0, 30, 30] = MaskBit.NO_DATA
    tile.mask[1, 20, 20] = MaskBit.DETECTED  # informational: the pixel is fine
    stamps = gather(tile, [110.0, 130.0, 110.0, 130.0, 120.0], [210.0, 210.0, 230.0, 230.0, 220.0])
    assert stamps.flags.tolist() == [
        ObjectFlag.NONFINITE,
        ObjectFlag.MASKED,
        ObjectFlag.SATURATED,
        ObjectFlag.EDGE,
        0,
    ]
    assert int((~stamps.valid).sum()) == 4
    assert bool((stamps.image[~stamps.valid] == 0).all())
    assert bool(torch.isfinite(stamps.image).all())


def test_a_stamp_that_would_leave_the_tile_is_refused(tile: Tile) -> None:
    with pytest.raises(InputError, match="halo is too small"):
        gather(tile, [101.0], [220.0])


def test_bands_are_matched_by_name(tile: Tile) -> None:
    stamps = gather(tile, [120.0], [220.0])
    swapped = stamps.select(("r", "g"))
    assert torch.equal(swapped.image[:, 0], stamps.image[:, 1])
    with pytest.raises(InputError, match="band z is missing: the source has g, r"):
        stamps.select(("z",))


@pytest.mark.parametrize(("stored", "wanted"), [(8, 5), (9, 4), (8, 4), (5, 8), (4, 9), (5, 9)])
def test_crop_keeps_the_centre_pixel(stored: int, wanted: int) -> None:
    image = np.zeros((1, 1, stored, stored), np.float32)
    image[0, 0, stored // 2, stored // 2] = 7
    stamps = cut.crop(cut.from_stamps(image, None, None, bands=("r",)), wanted)
    assert stamps.image.shape == (1, 1, wanted, wanted)
    assert float(stamps.image[0, 0, wanted // 2, wanted // 2]) == 7
    assert int(stamps.flags[0]) == (ObjectFlag.EDGE if wanted > stored else 0)
    assert int(stamps.valid.sum()) == min(stored, wanted) ** 2


def test_eight_bit_stamps_stay_eight_bit() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    stamps = cut.from_stamps(image, None, None, bands=("R",))
    assert stamps.image.dtype == torch.uint8
    assert bool(stamps.valid.all())


def test_batches_keep_the_last_one() -> None:
    stamps = cut.from_stamps(np.ones((7, 1, 4, 4), np.float32), None, None, bands=("r",))
    assert [len(batch) for batch in cut.batches(stamps, 3)] == [3, 3, 1]
