import numpy as np
import pytest
import torch

from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.evaluation.baselines import feature_table, features
from astroml_plugin.evaluation.baselines import shape_features as shape_module
from astroml_plugin.evaluation.baselines.challenge_features import edge_features, gabor_features
from astroml_plugin.evaluation.baselines.features import pixel_features
from astroml_plugin.evaluation.baselines.shape_features import shape_features

SIZE = 64
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2


def cutouts(*images: np.ndarray, bands: tuple[str, ...] = ("r",)) -> Cutouts:
    stamps = np.stack([image if image.ndim == 3 else image[None] for image in images])
    return from_stamps(stamps.astype(np.float32), None, None, bands=bands)


def measured(*images: np.ndarray, bands: tuple[str, ...] = ("r",)) -> dict[str, np.ndarray]:
    found = shape_features(cutouts(*images, bands=bands))
    return dict(zip(found.names, found.values.T))


def gaussian(sigma: float, x: float = 0.0, y: float = 0.0, flux: float = 1e4, axis_ratio: float = 1.0) -> np.ndarray:
    power = ((X - x) ** 2 / axis_ratio**-1 + (Y - y) ** 2 / axis_ratio) / sigma**2
    return flux / (2 * np.pi * sigma**2) * np.exp(-power / 2)


def exponential(scale: float) -> np.ndarray:
    return np.exp(-np.hypot(X, Y) / scale)


def test_radii_and_concentration_of_a_gaussian() -> None:
    found = measured(gaussian(5.0))
    for name, part in (("r20", 0.2), ("r50", 0.5), ("r80", 0.8)):
        assert found[name][0] == pytest.approx(5 * np.sqrt(-2 * np.log(1 - part)), rel=0.03)
    assert found["concentration"][0] == pytest.approx(5 * np.log10(np.sqrt(np.log(0.2) / np.log(0.8))), rel=0.03)
    assert found["flux_r"][0] == pytest.approx(4, abs=0.02)
    assert found["petrosian"][0] == pytest.approx(2.307 * 5, rel=0.03)  # eta = 0.2 of a Gaussian
    growth = np.log(2.5) / np.log(1.177 / 0.668) / (np.log(1.6) / np.log(1.794 / 1.177))
    assert found["growth_ratio"][0] == pytest.approx(growth, rel=0.05)
    assert measured(exponential(3.0))["growth_ratio"][0] > found["growth_ratio"][0]


def test_gini_is_that_of_the_definition() -> None:
    image = np.random.default_rng(0).exponential(1.0, (1, SIZE, SIZE))
    used = np.hypot(X, Y)[None] < 20
    found = shape_module._gini_m20(image.astype(np.float32), used)
    values = np.sort(image[used])
    count = len(values)
    wanted = ((2 * np.arange(1, count + 1) - count - 1) * values).sum() / (values.mean() * count * (count - 1))
    assert found["gini"][0] == pytest.approx(wanted, rel=1e-4)
    cx, cy = (image[used] * X[None][used]).sum() / values.sum(), (image[used] * Y[None][used]).sum() / values.sum()
    square = ((X - cx) ** 2 + (Y - cy) ** 2)[None][used]
    order = np.argsort(-image[used])
    bright = order[np.cumsum(image[used][order]) < 0.2 * values.sum()]
    wanted = np.log10((image[used] * square)[bright].sum() / (image[used] * square).sum())
    assert found["m20"][0] == pytest.approx(wanted, abs=0.01)
    flat, steep = measured((np.hypot(X, Y) < 12) * 1.0)["gini"][0], measured(exponential(4.0))["gini"][0]
    assert abs(flat) < 0.2 < 0.45 < steep


def test_ellipticity_size_and_thickness_of_an_elongated_gaussian() -> None:
    round_one, long_one = measured(gaussian(4.0), gaussian(4.0, axis_ratio=0.5))["ellipticity"]
    assert round_one < 0.01
    assert long_one == pytest.approx((1 - 0.5) / (1 + 0.5), abs=0.03)
    found = measured(gaussian(4.0), gaussian(4.0, axis_ratio=0.3))
    assert found["edge_on"][1] == pytest.approx(0.7, abs=0.06)
    assert found["thickness"][1] < 0.7 * found["thickness"][0]


def test_asymmetry_counts_what_is_on_one_side_only_and_no_noise() -> None:
    rng = np.random.default_rng(1)
    disk = gaussian(6.0)
    spot = gaussian(1.2, x=8.0, flux=1000.0)
    noisy = disk + rng.normal(0, 0.6, disk.shape)
    even, one_sided, noise, moved = measured(disk, disk + spot, noisy, np.roll(disk, (0, 1), (0, 1)))["asymmetry"]
    assert even == pytest.approx(0, abs=0.01)
    assert one_sided == pytest.approx(2 * 1000 / 11000, rel=0.2)
    assert noise == pytest.approx(0, abs=0.04)
    assert moved == pytest.approx(0, abs=0.01)
    quarter = measured(disk, gaussian(6.0, axis_ratio=0.5))["asymmetry_quarter"]
    assert quarter[0] < 0.02 < 0.4 < quarter[1]


def test_smoothness_counts_clumps() -> None:
    rng = np.random.default_rng(2)
    disk = gaussian(7.0, flux=5e4)
    places = rng.uniform(-8, 8, (12, 2))
    clumpy = disk + sum(gaussian(0.8, x, y, 600.0) for x, y in places)
    smooth, clumps, noise = measured(disk, clumpy, disk + rng.normal(0, 2, disk.shape))["smoothness"]
    assert abs(smooth) < 0.015
    assert clumps > 0.03
    assert abs(noise) < 0.02


def test_second_source_and_neighbours_stay_out_of_the_object() -> None:
    alone, pair = gaussian(3.0), gaussian(3.0) + gaussian(3.0, x=20.0, y=9.0, flux=4e3)
    found = measured(alone, pair)
    assert found["second_source"].tolist() == pytest.approx([0, 0.4], abs=0.02)
    assert found["second_distance"][1] == pytest.approx(np.hypot(20, 9), abs=1)
    for name in ("petrosian", "ellipticity", "gini", "size"):
        assert found[name][1] == pytest.approx(found[name][0], rel=0.03, abs=0.01)


def test_arms_turn_and_bars_do_not() -> None:
    angle, radius = np.arctan2(Y, X), np.maximum(np.hypot(X, Y), 1)
    disk = exponential(6.0)
    bar = disk * (1 + 0.8 * np.cos(2 * angle))
    spiral = disk * (1 + 0.8 * np.cos(2 * angle - 3 * np.log(radius)))
    other = disk * (1 + 0.8 * np.cos(2 * angle + 3 * np.log(radius)))
    found = measured(disk, bar, spiral, other)
    assert found["mode2_2"][0] < 0.02
    assert (found["mode2_2"][1:] > 0.3).all()
    assert found["twist2"][1] < 0.02 < 0.2 < found["twist2"][2]
    assert found["winding"][2] == pytest.approx(found["winding"][3], rel=0.05)
    assert found["handed"][2] > 0.95


def test_colours_and_their_gradient() -> None:
    red, blue = gaussian(3.0, flux=2e4), gaussian(4.0, flux=1e4)
    found = measured(np.stack([red, blue]), np.stack([red, red / 2]), bands=("g", "i"))
    assert found["colour_g_i"].tolist() == pytest.approx([-2.5 * np.log10(2)] * 2, abs=0.06)
    assert found["colour_gradient_g_i"][0] < -0.2
    assert found["colour_gradient_g_i"][1] == pytest.approx(0, abs=0.02)
    assert found["r50_g"][0] < found["r50_i"][0]


@pytest.mark.parametrize("measure", [shape_features, gabor_features])
def test_turned_stamps_have_the_same_features(measure) -> None:
    rng = np.random.default_rng(5)
    images = [
        gaussian(4.0, axis_ratio=0.6) + gaussian(1.5, 7, 3, 800.0) + rng.normal(0, 0.3, X.shape) for _ in range(4)
    ]
    turned = [np.rot90(image) for image in images]
    first, second = measure(cutouts(*images)), measure(cutouts(*turned))
    scale = np.maximum(np.abs(first.values), 0.1)
    directions = np.array(["direction" not in name for name in first.names])
    np.testing.assert_allclose((second.values / scale)[:, directions], (first.values / scale)[:, directions], atol=0.02)


@pytest.mark.parametrize("measure", features.INPUTS.values())
@pytest.mark.parametrize(("bands", "size"), [(1, (24, 24)), (3, (40, 32)), (5, (17, 17))])
def test_every_kind_of_stamp_gives_finite_numbers_or_nan_and_the_same_columns(measure, bands, size) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    light = 150 * np.exp(-0.5 * ((x - size[1] / 2) ** 2 + (y - size[0] / 2) ** 2) / 2.2**2)
    image = (20 + light + rng.normal(0, 3, (6, bands, *size))).astype(np.uint8)
    image[0], image[1] = 0, 77
    names = tuple("abcde"[:bands])
    found = measure(from_stamps(image, None, None, bands=names))
    assert found.values.shape == (6, len(found.names))
    assert found.values.dtype == np.float32
    assert not np.isinf(found.values).any()
    assert np.isfinite(found.values[2:]).mean() > 0.9
    floats = image.astype(np.float32)
    floats[3, :, 2, 2], floats[4] = np.nan, np.nan
    again = measure(from_stamps(floats, None, None, bands=names))
    assert again.names == found.names
    assert not np.isinf(again.values).any()
    np.testing.assert_allclose(again.values[2], found.values[2], rtol=1e-5)
    assert measure(from_stamps(image[:0], None, None, bands=names)).values.shape[0] == 0


def test_simple_features_are_columns_of_the_shape_features() -> None:
    stamps = cutouts(
        np.stack([gaussian(3.0), gaussian(4.0)]), np.stack([gaussian(2.0), gaussian(5.0)]), bands=("g", "i")
    )
    whole, simple = shape_features(stamps), features.simple_features(stamps)
    assert set(simple.names) == {"flux_g", "flux_i", "colour_gradient_g_i", "asymmetry", "asymmetry_quarter"}
    for name, values in zip(simple.names, simple.values.T):
        np.testing.assert_array_equal(values, whole.values[:, whole.names.index(name)])


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    stamps = cutouts(*(gaussian(rng.uniform(2, 8)) + rng.normal(0, 1, X.shape) for _ in range(7)))
    whole = [measure(stamps).values for measure in features.INPUTS.values()]
    monkeypatch.setattr(feature_table, "_CHUNK", 3)
    for measure, values in zip(features.INPUTS.values(), whole):
        np.testing.assert_allclose(measure(stamps).values, values, rtol=1e-4, atol=1e-5)


def test_edges_tell_directions_and_pixels_are_binned() -> None:
    lines = np.sin(X / 2)
    found = edge_features(cutouts(lines, lines.T)).values
    assert np.abs(found[0] - found[1]).max() > 0.3
    assert pixel_features(cutouts(lines)).values.shape == (1, 32 * 32)
    assert pixel_features(cutouts(lines[:24, :24])).values.shape == (1, 24 * 24)


def test_the_callers_threads_and_tensors_are_left_alone() -> None:
    stamps = cutouts(gaussian(3.0))
    before = stamps.image.clone()
    for measure in features.INPUTS.values():
        measure(stamps)
    assert torch.equal(stamps.image, before)
