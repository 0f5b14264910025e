"""Where the light lies in a stamp, and stamps that are moved so that it lies where it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import (
    Centring,
    Cutouts,
    around,
    crowded,
    from_stamps,
    light_centre,
    measured_tolerance,
    offset_counts,
    recentred,
    to_device,
)
from astroml_plugin.pixels import Tile

SIDE = 40
TRAINED = Centring(tolerance=0.5)


def blobs(places: np.ndarray, peak: float = 50.0, bands: int = 1, seed: int = 1, level: float = 0.0) -> np.ndarray:
    """(n, bands, SIDE, SIDE) galaxies of sigma 2.2 px at pixel SIDE // 2 + places (n, 2), noise 1."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    square = (x - places[:, 0, None, None]) ** 2 + (y - places[:, 1, None, None]) ** 2
    noise = np.random.default_rng(seed).normal(0, 1, (len(places), bands, SIDE, SIDE))
    return (peak * np.exp(-square / (2 * 2.2**2))[:, None] + noise + level).astype(np.float32)


def stamps(image: np.ndarray, *, variance: bool = True) -> Cutouts:
    bands = tuple("griz"[: image.shape[1]])
    return from_stamps(image, np.ones_like(image) if variance else None, None, bands=bands)


def scattered(count: int = 300, reach: float = 2.5, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 2))


@pytest.mark.parametrize("variance", [True, False])
@pytest.mark.parametrize("level", [0.0, 1e4])
def test_centres_are_found_within_their_errors(variance: bool, level: float) -> None:
    places = scattered()
    found = light_centre(stamps(blobs(places, level=level), variance=variance))
    pull = (found.offset.numpy() - places) / found.error.numpy()[:, None]
    assert np.abs(found.offset.numpy() - places).max() < 0.2
    assert 0.8 < pull.std() < 1.3
    assert bool(found.single.all())


def test_bands_are_weighted_by_their_noise() -> None:
    image = blobs(scattered(), bands=2)
    noisy = np.random.default_rng(5).normal(0, 30, image[:, 1].shape)
    image[:, 1] += noisy
    variance = np.stack([np.ones_like(image[:, 0]), np.full_like(image[:, 0], 901.0)], axis=1)
    both = light_centre(from_stamps(image, variance, None, bands=("g", "r")))
    alone = light_centre(from_stamps(image[:, :1], variance[:, :1], None, bands=("g",)))
    assert float((both.offset - alone.offset).abs().max()) < 0.05


def test_what_cannot_be_centred_stays_where_it_is() -> None:
    image = blobs(np.full((4, 2), 2.0))
    image[0] = np.random.default_rng(3).normal(0, 1, image[0].shape)  # nothing there
    image[1, :, SIDE // 2 + 1, SIDE // 2] = np.nan  # the core is damaged
    image[2, :, SIDE // 2 + 9, SIDE // 2] = np.nan  # far from it
    given = stamps(image)
    found = light_centre(given)
    assert found.error.isinf().tolist() == [True, True, False, False]
    placed, _ = recentred(given, TRAINED)
    assert torch.equal(placed.image[:2], given.image[:2])
    assert placed.off_centre is not None
    assert not bool(placed.off_centre.any())
    assert not torch.equal(placed.image[2], given.image[2])


def test_light_lies_within_half_a_pixel_of_the_centre_afterwards() -> None:
    places = scattered(reach=3.2)
    placed, found = recentred(stamps(blobs(places, peak=200)), TRAINED)
    assert float(light_centre(placed).offset.abs().max()) < 0.55
    assert placed.off_centre is not None
    assert not bool(placed.off_centre.any())
    assert found is not None
    assert float((found.offset - torch.from_numpy(places)).abs().max()) < 0.1


def test_a_stamp_is_moved_as_it_was_drawn_but_for_its_rim() -> None:
    centred = blobs(np.zeros((1, 2)))
    given = stamps(np.roll(centred, (2, -1), (2, 3)))
    placed, _ = recentred(given, TRAINED)
    assert np.array_equal(placed.image.numpy()[..., 2:-2, 2:-2], centred[..., 2:-2, 2:-2])
    assert bool(placed.valid.all())
    assert int(placed.flags.sum()) == 0
    assert float(placed.image[..., -1, :].std()) < 1.5  # the rim mirrors what is beside it: noise as elsewhere


def test_stamps_of_a_tile_are_cut_anew() -> None:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:120, :160]
    image = (200 * np.exp(-((x - 81.2) ** 2 + (y - 60.9) ** 2) / 9) + rng.normal(0, 1, x.shape)).astype(np.float32)
    tile = to_device(Tile(image[None], np.ones_like(image)[None]), ("r",))

    def cut(x: float, y: float) -> Cutouts:
        jacobian = np.full((1, 2, 2), np.nan)
        return around(tile, np.array([x]), np.array([y]), SIDE, origin=(0, 0), jacobian=jacobian)

    one_based = cut(82.2, 61.9)
    placed, _ = recentred(one_based, TRAINED, lambda index, by: cut(82.2 + float(by[0, 0]), 61.9 + float(by[0, 1])))
    assert torch.equal(placed.image, cut(81.2, 60.9).image)


def test_only_what_lies_beyond_the_tolerance_is_moved() -> None:
    places = np.array([[0.4, 0.0], [0.8, 0.0], [1.4, 0.0]])
    given = stamps(blobs(places, peak=500))
    placed, _ = recentred(given, replace(TRAINED, tolerance=1.0))
    assert [torch.equal(a, b) for a, b in zip(placed.image, given.image)] == [True, True, False]


def test_what_is_not_moved_is_marked() -> None:
    places = np.array([[0.4, 0.0], [0.7, 0.0], [1.0, 1.0], [6.0, 0.0]])
    given = stamps(blobs(places, peak=500))
    kept, _ = recentred(given, replace(TRAINED, recentre=False))
    assert torch.equal(kept.image, given.image)
    assert kept.off_centre is not None
    assert kept.off_centre.tolist() == [False, False, True, True]
    moved, _ = recentred(given, TRAINED)
    assert moved.off_centre is not None
    assert moved.off_centre.tolist() == [False, False, False, True]
    faint, _ = recentred(stamps(blobs(places[2:3], peak=1.0)), replace(TRAINED, recentre=False))
    assert faint.off_centre is not None
    assert not bool(faint.off_centre.any())


def test_light_with_a_neighbour_stays_where_it_is() -> None:
    pair = blobs(np.zeros((3, 2)), peak=100) + blobs(np.array([[6.0, 0.0], [7.0, 0.0], [5.5, 2.5]]), peak=160)
    given = stamps(pair)
    placed, _ = recentred(given, TRAINED)
    assert torch.equal(placed.image, given.image)
    assert placed.off_centre is not None
    assert bool(placed.off_centre.all())


def test_what_another_object_of_the_table_is_near_stays() -> None:
    x = np.array([50.0, 54.0, 50.0, 50.0, 90.0, 90.3, 120.0, 126.0, np.nan])
    y = np.array([50.0, 50.0, 80.0, 80.0, 20.0, 20.0, 20.0, 20.0, 1.0])
    assert crowded(x, y).tolist() == [True, True] + 7 * [False]  # 0.3 pixels are one object
    assert crowded(np.full(1000, 5.0), np.full(1000, 7.0)).sum() == 0
    assert crowded(np.zeros(0), np.zeros(0)).shape == (0,)
    given = stamps(blobs(np.array([[2.0, 0.0], [2.0, 0.0]]), peak=200))
    placed, _ = recentred(given, TRAINED, crowded=torch.tensor([True, False]))
    assert [torch.equal(a, b) for a, b in zip(placed.image, given.image)] == [True, False]
    assert placed.off_centre is not None
    assert placed.off_centre.tolist() == [True, False]


@pytest.mark.parametrize(("apart", "peak"), [(4.0, 900.0), (3.0, 900.0), (4.5, 300.0)])
@pytest.mark.parametrize("width", [1.4, 2.0])
def test_a_galaxy_beside_a_brighter_star_is_not_moved_onto_it(apart: float, peak: float, width: float) -> None:
    rng = np.random.default_rng(3)
    places, angle = rng.uniform(-0.4, 0.4, (40, 2)), rng.uniform(0, 2 * np.pi, 40)
    star = places + apart * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    square = (x - star[:, 0, None, None]) ** 2 + (y - star[:, 1, None, None]) ** 2
    given = stamps(blobs(places, peak=150) + (peak * np.exp(-square / (2 * 1.5**2)))[:, None].astype(np.float32))
    placed, _ = recentred(given, replace(TRAINED, width=width))
    assert torch.equal(placed.image, given.image)
    assert placed.off_centre is not None
    if peak > 600:
        assert bool(placed.off_centre.all())


@pytest.mark.parametrize("place", [(1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (-1.0, 0.0)])
@pytest.mark.parametrize("peak", [15.0, 60.0, 300.0])
def test_a_single_galaxy_is_moved_whatever_its_shape(place: tuple[float, float], peak: float) -> None:
    rng = np.random.default_rng(8)
    places = np.array(place) + rng.uniform(-0.2, 0.2, (100, 2))
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    angle, ratio = rng.uniform(0, np.pi, (2, 100, 1, 1))
    ratio = 0.75 + 0.25 * ratio / np.pi
    dx, dy = x - places[:, 0, None, None], y - places[:, 1, None, None]
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    image = peak * np.exp(-(u**2 * ratio + v**2 / ratio) / (2 * 2.2**2)) + rng.normal(0, 1, (100, SIDE, SIDE))
    given = stamps(image[:, None].astype(np.float32))
    placed, found = recentred(given, TRAINED)
    assert found is not None
    assert placed.off_centre is not None
    stayed = (placed.image == given.image).flatten(1).all(1)
    assert int((stayed & (found.offset.abs().amax(1) > 0.5)).sum()) <= 5
    assert int(placed.off_centre.sum()) <= 5


def test_a_factor_per_band_moves_and_flags_nothing_else() -> None:
    image = blobs(scattered(60, reach=3.4), bands=3) * np.array([1.0, 0.3, 2.0], np.float32)[:, None, None]
    image += np.random.default_rng(6).normal(0, 1, image.shape).astype(np.float32)
    variance = np.broadcast_to(np.array([2.0, 1.1, 5.0], np.float32)[:, None, None], image.shape).copy()
    for noise in (variance, None):
        right, found = recentred(from_stamps(image, noise, None, bands=("g", "r", "i")), TRAINED)
        assert found is not None
        for factors in ([10.0, 1.0, 0.1], [0.0174, 0.00275, 0.000275], [1e6, 1e-4, 1.0]):
            scale = np.array(factors, np.float32)[:, None, None]
            other = from_stamps(image * scale, None if noise is None else noise * scale**2, None, bands=("g", "r", "i"))
            placed, there = recentred(other, TRAINED)
            assert there is not None
            assert float((there.offset - found.offset).abs().max()) < 1e-5
            assert torch.allclose(placed.image, right.image * torch.from_numpy(scale), rtol=1e-5)
            assert placed.off_centre is not None
            assert right.off_centre is not None
            assert torch.equal(placed.off_centre, right.off_centre)


def test_nothing_is_done_without_a_tolerance_or_to_pictures() -> None:
    image = blobs(np.full((2, 2), 1.0))
    assert recentred(stamps(image), Centring())[1] is None
    picture = from_stamps(image.clip(0, 255).astype(np.uint8), None, None, bands=("r",))
    assert recentred(picture, TRAINED)[1] is None
    assert measured_tolerance(picture, 2.0) == 0


def test_the_tolerance_is_what_the_training_stamps_keep_to() -> None:
    assert measured_tolerance(stamps(blobs(scattered(reach=0.5))), 2.0) == 0.5
    assert measured_tolerance(stamps(blobs(scattered(reach=1.5))), 2.0) == pytest.approx(1.35, abs=0.1)
    assert measured_tolerance(stamps(blobs(scattered(reach=0.5), peak=0.0)), 2.0) == 0  # no light
    assert measured_tolerance(stamps(blobs(scattered(20, reach=0.5))), 2.0) == 0  # too few
    assert measured_tolerance(stamps(blobs(scattered(reach=0.5) + 8.0)), 2.0) == 0  # elsewhere


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="tolerance of 9"):
        Centring(tolerance=9)
    with pytest.raises(InputError, match="width of 0"):
        Centring(width=0)


def test_offsets_are_counted_in_tenths_of_a_pixel() -> None:
    found = light_centre(stamps(blobs(np.array([[1.0, -0.5]] * 50), peak=400)))
    counts = offset_counts(found)
    assert sum(count for place, count in counts.items() if place.startswith("x")) == 50
    assert max(counts, key=lambda place: counts[place]) in ("x+10", "y-5")


def test_both_ways_of_moving_agree() -> None:
    from astroml_plugin.cutouts import centring

    given = np.random.default_rng(1).normal(size=(49, 2, 12, 12))
    shift = np.mgrid[-3:4, -3:4].reshape(2, -1).T
    into = given.copy()
    centring._move(into, given, list(range(49)), shift.tolist())
    assert np.array_equal(into, centring._moved(torch.from_numpy(given), torch.from_numpy(shift)).numpy())
