"""Windows lie where the parent image says, and their centres make one seamless map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astroml_plugin import cutouts as cut
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.pixels import Tile


def plane(height: int, width: int, x0: int = 0, y0: int = 0) -> np.ndarray:
    """(1, height, width) float32 that tells each pixel's place in the parent image."""
    y, x = np.mgrid[y0 : y0 + height, x0 : x0 + width]
    return (1 + x + 1000 * y)[None].astype(np.float32)


@pytest.mark.parametrize("bounds", [(0, 0, 100, 80), (-37, 13, 90, 61), (5, -20, 6, 90), (64, 64, 192, 128)])
@pytest.mark.parametrize(("size", "overlap", "stride"), [(32, 5, 4), (48, 8, 8), (16, 0, 1)])
def test_centres_cover_a_box_once(bounds: tuple[int, int, int, int], size: int, overlap: int, stride: int) -> None:
    made = cut.grid(bounds, size=size, overlap=overlap, stride=stride)
    maps = made.empty_maps(1, "cpu").fill_(-1)
    seen = torch.zeros(made.shape, dtype=torch.int32)
    for number in range(len(made)):
        answer = torch.from_numpy(plane(*made.window, int(made.left[number]), int(made.top[number])))
        before = maps.clone()
        made.put(maps, answer[None], number)
        seen += (maps != before)[0].int()
    x0, y0, x1, y1 = bounds
    np.testing.assert_array_equal(maps.numpy(), plane(y1 - y0, x1 - x0, x0, y0))
    assert bool((seen == 1).all())
    assert not np.any((made.left % stride) | (made.top % stride))
    assert made.margin >= overlap
    assert max(made.window) <= size
    assert not np.any(np.array(made.window) % stride)


def test_windows_waste_little() -> None:
    assert cut.grid((-128, -128, 3968, 3968), size=1024, overlap=64, stride=64).window == (960, 960)
    narrow = cut.grid((3712, -128, 3800, 700), size=1024, overlap=64, stride=64)
    assert (narrow.window, len(narrow)) == ((960, 256), 1)


def test_windows_hold_the_tiles_pixels_and_nothing_beyond_it() -> None:
    image = plane(40, 50, 10, 20)
    mask = np.zeros(image.shape, np.uint32)
    mask[0, 3, 4] = 4  # saturated
    tile = cut.to_device(Tile(image, np.ones_like(image), mask), ("r",))
    made = cut.grid((10, 20, 60, 60), size=32, overlap=4, stride=4)
    batches = list(made.cutouts(tile, (10, 20), 5))
    assert [len(batch) for batch in batches] == [5, 1]
    number = 0
    for batch in batches:
        for window, valid, flags in zip(batch.image[:, 0], batch.valid[:, 0], batch.flags):
            there = plane(*made.window, int(made.left[number]), int(made.top[number]))[0]
            y, x = np.divmod(there - 1, 1000)
            inside = (x >= 10) & (x < 60) & (y >= 20) & (y < 60)
            usable = inside & ~((x == 14) & (y == 23))
            np.testing.assert_array_equal(window.numpy(), np.where(usable, there, 0))
            np.testing.assert_array_equal(valid.numpy(), usable)
            assert bool(flags & ObjectFlag.EDGE) == bool((~inside).any())
            number += 1
    assert number == len(made)


def test_windows_of_a_clean_tile_are_marked_beyond_it_too() -> None:
    tile = cut.to_device(Tile(np.ones((2, 20, 20), np.float32)), ("g", "r"))
    batch = next(cut.grid((0, 0, 20, 20), size=16, overlap=4).cutouts(tile, (0, 0), 100))
    assert batch.image.shape == batch.valid.shape == (9, 2, 15, 15)
    np.testing.assert_array_equal(batch.image.numpy() > 0, batch.valid.numpy())
    assert batch.flags.tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_a_window_without_a_centre_is_refused() -> None:
    with pytest.raises(InputError, match="larger than twice the overlap"):
        cut.grid((0, 0, 9, 9), size=64, overlap=30, stride=4)
    with pytest.raises(InputError, match="multiple of the stride"):
        cut.grid((0, 0, 9, 9), size=63, overlap=3, stride=4)


def test_padded_stamps_may_leave_the_tile() -> None:
    tile = cut.to_device(Tile(plane(30, 30)), ("r",))
    given = {"origin": (0, 0), "jacobian": np.full((2, 2, 2), np.nan)}
    x = y = np.array([2.0, 15.0])
    with pytest.raises(InputError, match="halo is too small"):
        cut.around(tile, x, y, 16, **given)
    padded, plain = (
        cut.around(tile, x, y, 16, padded=True, **given),
        cut.around(tile, x[1:], y[1:], 16, **{**given, "jacobian": np.full((1, 2, 2), np.nan)}),
    )
    assert padded.flags.tolist() == [int(ObjectFlag.EDGE), 0]
    np.testing.assert_array_equal(padded.image[1], plain.image[0])
    np.testing.assert_array_equal(padded.image[0, 0, 6:, 6:], plane(10, 10)[0])
    assert not padded.valid[0, 0, :6].any()
