"""Segmentation: perfect maps give the truth back, whatever the tile; blends share light; flags; symmetries."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.pixels import pixel_bits, psf_fwhm
from astroml_plugin.simulation.profiles import Psf, psf_image
from astroml_plugin.tasks.detection import PARENT, Field
from astroml_plugin.tasks.segmentation import peaks
from astroml_plugin.tasks.segmentation.layer_maps import STAR
from astroml_plugin.tasks.segmentation.peaks import segment
from astroml_plugin.tasks.segmentation.settings import SegmentSettings
from astroml_plugin.tasks.segmentation.signal import pixel_noise
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.truth import LAYERS, Scene, layers_of_labels, truth_layers
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform

TASK = SegmentTask(SegmentSettings(bands=("r",), stamp_size=96))
SIDE = 160
X = np.array([40.3, 47.6, 100.0, 130.2, 20.0])
Y = np.array([50.1, 53.0, 100.4, 30.8, 140.0])
FLUX = np.array([4000.0, 2500.0, 9000.0, 1500.0, 20.0])
SIGMA = np.array([2.5, 2.5, 4.0, 1.6, 2.0])


def gaussians(x=X, y=Y, flux=FLUX, sigma=SIGMA, shape=(SIDE, SIDE)):
    """(n, h, w) noiseless light of each object."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    square = (columns - x[:, None, None]) ** 2 + (rows - y[:, None, None]) ** 2
    width = sigma[:, None, None]
    return (flux[:, None, None] * np.exp(-0.5 * square / width**2) / (2 * np.pi * width**2)).astype(np.float32)


def scene(light, x=X, y=Y, noise=1.0):
    """What a simulation knows of it."""
    total = light.sum(0)
    share = light.max(0) / np.maximum(total, 1e-9)
    return Scene(light.argmax(0).astype(np.int32), total > noise, share, x, y, np.zeros(len(x), np.float32))


def perfect(layers):
    """Network outputs (layer, h, w) that say the truth."""
    maps = np.nan_to_num(np.asarray(layers, np.float32))
    for name in ("foreground", "centre", "near", "star", "share"):
        part = np.clip(maps[LAYERS.index(name)], 1e-4, 1 - 1e-4)
        maps[LAYERS.index(name)] = np.log(part / (1 - part))
    return maps


def field_of(light, **changes):
    """A tile without noise in units of 1 nJy."""
    image = light.sum(0)[None].astype(np.float32)
    plain = Field(image, np.ones_like(image), None, None, ("r",), (0, 0), (31.4,), 0.2)
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def light():
    return gaussians()


@pytest.fixture(scope="module")
def found(light):
    return TASK.detect(perfect(truth_layers(scene(light))), field_of(light))


def order_of(found):
    """Number of the truth object of every detection."""
    return np.hypot(found.x[:, None] - X, found.y[:, None] - Y).argmin(1)


def test_perfect_maps_give_every_object_its_place(found) -> None:
    truth = order_of(found)
    assert sorted(truth) == list(range(len(X)))
    np.testing.assert_allclose(found.x, X[truth], atol=0.15)
    np.testing.assert_allclose(found.y, Y[truth], atol=0.15)
    assert list(found.columns) == [column.name for column in TASK.columns()]
    assert np.all(np.diff(found.peak_y * SIDE + found.peak_x) > 0)
    assert np.array_equal(found.labels[found.peak_y, found.peak_x], np.arange(1, len(X) + 1))


def test_outlines_are_those_of_the_brightest_contributor(light, found) -> None:
    truth = scene(light)
    expected = np.where(truth.foreground, truth.owner + 1, 0)
    mine = np.where(found.labels > 0, order_of(found)[found.labels - 1] + 1, 0)
    assert (mine != expected).sum() <= 2  # an object below one sigma has the pixel of its peak
    assert np.array_equal(found.columns["area"], np.bincount(found.labels.ravel(), minlength=len(X) + 1)[1:])


def test_light_of_blends_is_shared_not_lost(light, found) -> None:
    truth = order_of(found)
    flux = found.columns["flux_iso_r"]
    both = np.flatnonzero(np.isin(truth, [0, 1]))
    inside = light[:2].sum(0)[np.isin(found.labels, both + 1)].sum()
    assert flux[both].sum() == pytest.approx(inside, rel=1e-4)
    np.testing.assert_allclose(flux[both], FLUX[truth[both]], rtol=0.03)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for number in both:
        aperture = np.clip(5.5 - np.hypot(columns - X[truth[number]], rows - Y[truth[number]]), 0, 1)
        alone = (light[truth[number]] * aperture).sum()
        assert found.columns["flux_aper_r"][number] == pytest.approx(alone, rel=0.05)
    np.testing.assert_allclose(found.columns["flux_total_r"][truth < 4], FLUX[truth[truth < 4]], rtol=0.25)
    single = int(np.flatnonzero(truth == 2)[0])
    assert found.columns["flux_iso_r_err"][single] == pytest.approx(np.sqrt(found.columns["area"][single]), rel=1e-3)


def test_blends_have_the_brightest_as_parent(found) -> None:
    truth = order_of(found)
    blended = (found.flags & ObjectFlag.BLENDED) != 0
    assert set(truth[blended]) == {0, 1}
    assert set(truth[found.columns[PARENT][blended]]) == {0}
    assert np.array_equal(found.columns[PARENT][~blended], np.flatnonzero(~blended))


def test_moments_are_those_of_the_light(found) -> None:
    single = int(np.flatnonzero(order_of(found) == 2)[0])
    for name in ("ixx", "iyy"):
        assert found.columns[name][single] == pytest.approx(SIGMA[2] ** 2, rel=0.15)  # the outline cuts its wings
    assert abs(found.columns["ixy"][single]) < 0.1
    assert np.isnan(found.columns["ixx"][np.flatnonzero(order_of(found) == 4)[0]])


def test_a_part_of_the_field_gives_the_same_objects(light, found) -> None:
    maps = perfect(truth_layers(scene(light)))
    part = (slice(None), slice(20, 150), slice(15, 155))
    cut = TASK.detect(maps[part], replace(field_of(light[part]), origin=(15, 20)))
    kept = (found.peak_x >= 15) & (found.peak_x < 155) & (found.peak_y >= 20) & (found.peak_y < 150)
    inside = np.minimum.reduce([cut.x, cut.y, 139 - cut.x, 129 - cut.y]) > 15  # what the light under a Gaussian reaches
    assert inside.any()
    np.testing.assert_allclose(cut.x[inside] + 15, found.x[kept][inside])
    np.testing.assert_allclose(cut.x + 15, found.x[kept], atol=1e-3)
    for name in ("area", "flux_iso_r", "flux_aper_r", "p_star"):
        np.testing.assert_array_equal(cut.columns[name], found.columns[name][kept])


def test_pixels_as_near_to_two_peaks_have_one_neighbour_whatever_else_is_in_the_tile() -> None:
    rows, columns = np.array([10, 30, 30, 50]), np.array([130, 120, 140, 130])
    rng, seen = np.random.default_rng(2), set()
    for extra in range(40):
        lit = np.zeros((64, 400), bool)
        lit[5:60, 110:151] = True
        x, y = np.setdiff1d(np.arange(2, 400, 6), np.arange(104, 158))[:extra], rng.integers(2, 56, extra)
        for right, down in zip(x, y):
            lit[down : down + 5, right] = True  # a patch of two peaks
        peak = np.concatenate([rows, y, y + 4]), np.concatenate([columns, x, x])
        order = np.lexsort(peak[::-1])
        peak = peak[0][order], peak[1][order]
        toward = [np.zeros(lit.shape, np.float32) for _ in "xy"]
        toward[1][30, 130] = 20  # a pixel of the last peak, as far from the second as from the third
        pixels = segment(lit, *toward, peak).pixels
        here = np.flatnonzero((pixels.row == 30) & (pixels.column == 130))[0]
        assert peak[0][pixels.owner[here]] == 50
        seen.add((int(peak[0][pixels.other[here]]), int(peak[1][pixels.other[here]])))
    assert seen == {(30, 120)}


def test_nothing_is_found_in_nothing() -> None:
    maps = np.full((len(LAYERS), 64, 64), np.nan, np.float32)
    image = np.zeros((1, 64, 64), np.float32)
    found = TASK.detect(maps, Field(image, image, np.full(image.shape, 2, np.uint8), None, ("r",)))
    assert len(found) == 0
    assert not found.labels.any()
    assert all(len(values) == 0 for values in found.columns.values())


def test_flags_tell_of_bad_pixels_missing_variance_and_an_odd_psf(light) -> None:
    layers = perfect(truth_layers(scene(light)))
    image = light.sum(0)[None].copy()
    image[0, 102, 101] = np.nan
    mask = np.zeros(image.shape, np.uint32)
    mask[0, 31, 130] = int(MaskBit.SATURATED)
    bits = pixel_bits(image, None, mask)
    psf = np.zeros((1, 1, 1, 25, 25), np.float32)
    psf[..., 12, 12] = 1
    image = np.where(bits != 0, 0, image)
    found = TASK.detect(layers, field_of(light, image=image, variance=None, bits=bits, psf=psf))
    by_truth = found.flags[np.argsort(order_of(found))]
    everyone = int(ObjectFlag.NO_VARIANCE | ObjectFlag.OUT_OF_DOMAIN)
    assert np.all(by_truth & everyone == everyone)
    assert [bool(flag & ObjectFlag.NONFINITE) for flag in by_truth] == [False, False, True, False, False]
    assert [bool(flag & ObjectFlag.SATURATED) for flag in by_truth] == [False, False, False, True, False]


def test_psf_cells_divide_the_tile_not_the_part_of_it_that_the_image_has(light) -> None:
    rows, columns = np.mgrid[:25, :25] - 12
    psf = np.zeros((1, 1, 2, 25, 25), np.float32)
    for cell, sigma in enumerate((0.6, 1.6)):  # the left half is too sharp
        psf[0, 0, cell] = np.exp(-0.5 * (rows**2 + columns**2) / sigma**2)
    layers = perfect(truth_layers(scene(light)))
    for box, edge in ((None, 80), ((-100, 0, SIDE, SIDE), 30), ((0, 0, SIDE + 60, SIDE), 110)):
        found = TASK.detect(layers, field_of(light, psf=psf, psf_box=box))
        odd = (found.flags & ObjectFlag.OUT_OF_DOMAIN) != 0
        assert np.array_equal(odd, found.x < edge)


@pytest.mark.parametrize(("size", "flagged"), [(15, True), (31, False)])
def test_stars_are_flagged_where_the_psf_image_lacks_their_wings(light, *, size: int, flagged: bool) -> None:
    """Their totals are 12 % too bright on 15 pixels: FWHM 4.5 pixels, Moffat with beta 2.5."""

    def profile(rows, columns):
        return (1 + (rows**2 + columns**2) * (2**0.4 - 1) / 2.25**2) ** -2.5

    psf = profile(*(np.mgrid[:size, :size] - size // 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    stars = [profile(rows - y, columns - x) for x, y in zip(X, Y, strict=True)]
    light = np.where(X[:, None, None] < 80, np.array(stars, np.float32) * FLUX[:, None, None] / 40, light)
    layers = perfect(truth_layers(scene(light)))
    layers[STAR, :, :80] = 10
    found = TASK.detect(layers, field_of(light, psf=psf[None, None, None].astype(np.float32)))
    star = found.columns["p_star"] > 0.5
    assert star.any()
    assert not star.all()
    assert np.array_equal((found.flags & ObjectFlag.OUT_OF_DOMAIN) != 0, star & flagged)


@pytest.mark.parametrize(("profile", "fwhm"), [("moffat", 0.5), ("moffat", 1.0), ("kolmogorov", 0.7)])
def test_the_width_of_a_psf_is_that_of_its_core(profile, fwhm) -> None:
    pytest.importorskip("galsim")
    found = psf_fwhm(psf_image(Psf(profile, fwhm, 0.05, 0.0), 25, 0.2))
    assert found == pytest.approx(np.hypot(fwhm / 0.2, 0.9), rel=0.06)
    assert np.isnan(psf_fwhm(np.zeros((25, 25))))


def test_unknown_zero_points_give_fluxes_in_the_unit_of_the_image(light) -> None:
    maps = perfect(truth_layers(scene(light)))
    unknown, known = (TASK.detect(maps, field_of(light, zero_points=zero)).columns for zero in ((), (31.4,)))
    for name in ("flux_iso_r", "flux_aper_r", "flux_total_r"):
        for end in ("", "_err"):
            np.testing.assert_array_equal(unknown[f"{name}_own{end}"], known[f"{name}{end}"])
            assert np.isfinite(known[f"{name}{end}"]).any()
            assert np.isnan(unknown[f"{name}{end}"]).all()
            assert np.isnan(known[f"{name}_own{end}"]).all()


def test_columns_are_per_band() -> None:
    names = [column.name for column in TASK.for_bands(("g", "i")).columns()]
    assert {"flux_iso_g", "flux_aper_i_err"} < set(names)
    assert TASK.choose_bands(("g", "i")) == ("g", "i")
    assert TASK.choose_bands(("g", "i"), "i") == ("i",)
    with pytest.raises(InputError, match="band z is missing"):
        TASK.choose_bands(("g", "i"), "z")


def test_noise_of_a_single_column_is_that_of_its_row() -> None:
    row = torch.from_numpy(np.random.default_rng(3).normal(0, 5, (1, 2, 1, 400)).astype(np.float32))
    column = row.transpose(2, 3)
    everywhere = torch.ones_like(row, dtype=torch.bool)
    noise = pixel_noise(column, everywhere.transpose(2, 3))
    torch.testing.assert_close(noise, pixel_noise(row, everywhere))
    assert ((noise > 4) & (noise < 6)).all()
    assert pixel_noise(row[..., :1], everywhere[..., :1]).tolist() == [[[[1.0]], [[1.0]]]]


def test_input_is_signal_over_noise_of_all_bands_together() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (1, 2, 64, 64)).astype(np.float32) * np.array([2.0, 5.0], np.float32)[:, None, None]
    variance = np.broadcast_to(np.array([4.0, 25.0], np.float32)[:, None, None], image.shape).copy()
    image[0, :, 10, 10] = np.nan
    cutouts = from_stamps(image, variance, None, bands=("g", "i"))
    task = TASK.for_bands(("g", "i"))
    (given,), flags = task.prepare(cutouts)
    signal = 4 * torch.sinh(given[0, 0] / 4)
    weight = np.array([0.25, 0.04])
    expected = (image[0] * weight[:, None, None]).sum(0) / np.sqrt(weight.sum())
    np.testing.assert_allclose(signal.numpy(), np.nan_to_num(expected), rtol=1e-4, atol=1e-5)
    assert given[0, 1, 10, 10] == 0
    assert given[0, 1].sum() == 64 * 64 - 1
    assert not flags.any()


def test_missing_variance_is_estimated_or_stated() -> None:
    image = np.random.default_rng(2).normal(0, 3, (2, 1, 128, 128)).astype(np.float32)
    image[1] = 0
    (given,), flags = TASK.prepare(from_stamps(image, None, None, bands=("r",)))
    assert given[0, 0].std() == pytest.approx(4 * np.std(np.arcsinh(image[0] / 3 / 4)), rel=0.02)
    assert not given[1, 0].any()
    assert torch.all(flags == int(ObjectFlag.NO_VARIANCE))
    (stated,), _ = TASK.with_settings(assumed_noise=6.0).prepare(from_stamps(image, None, None, bands=("r",)))
    assert stated[0, 0].std() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_targets_turn_with_the_pixels(symmetry, light) -> None:
    layers = torch.from_numpy(truth_layers(scene(light))).float()[None]
    moved = TASK.transform_targets(layers, symmetry)
    swap, flip_x, flip_y = symmetry
    x, y = (Y, X) if swap else (X, Y)
    x = SIDE - x if flip_x else x  # about pixel size // 2: index j goes to size - j
    y = SIDE - y if flip_y else y
    other = transform(torch.from_numpy(light), symmetry).numpy()
    again = torch.from_numpy(truth_layers(scene(other, x, y))).float()[None]
    inner = (..., slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(moved[inner].numpy(), again[inner].numpy(), atol=0.02, equal_nan=True)


def test_layers_from_a_label_map_find_its_objects_again(light) -> None:
    truth = scene(light)
    labels = np.where(truth.foreground, truth.owner * 7 + 3, 0)
    layers = layers_of_labels(labels, light.sum(0))
    assert np.isnan(layers[LAYERS.index("share")]).all()
    found = TASK.detect(perfect(layers), field_of(light))
    assert len(found) == 4  # one is below the noise: no label tells of it
    np.testing.assert_allclose(np.sort(found.x), np.sort(X[:4]), atol=0.5)
    with pytest.raises(InputError, match="whole numbers"):
        layers_of_labels(labels.astype(float))
    with pytest.raises(InputError, match="must agree"):
        layers_of_labels(labels, light.sum(0)[1:])


def test_the_loss_of_the_truth_is_low_and_ignores_what_is_not_known(light) -> None:
    layers = truth_layers(scene(light))[:, :96, :96]
    outputs, targets = torch.from_numpy(perfect(layers))[None], torch.from_numpy(layers)[None]
    good = TASK.metrics(outputs, targets)
    assert good["foreground_iou"] == 1
    assert good["loss"] < 0.5 * TASK.metrics(outputs.roll(5, 2), targets)["loss"]
    unknown = torch.full_like(targets, torch.nan)
    assert float(TASK.loss(outputs, unknown)) == 0


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="multiples of stride"):
        SegmentSettings(window=100)
    with pytest.raises(InputError, match="sees 57 pixels"):
        SegmentTask(SegmentSettings(bands=("r",), overlap=32)).build_network("unet", {})
    with pytest.raises(InputError, match="measures no stamps"):
        TASK.decode(torch.zeros(1, 7), None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_hundred_thousand_objects_fit_in_memory() -> None:
    import tracemalloc

    side, step = 1280, 4
    centre = np.full((side, side), -9.0, np.float32)
    centre[2::step, 2::step] = 3
    maps = np.zeros((len(LAYERS), side, side), np.float32)
    maps[LAYERS.index("foreground")] = 4  # one patch of light for all of them
    maps[LAYERS.index("centre")], maps[LAYERS.index("near")] = centre, 4
    rows, columns = np.mgrid[:side, :side]
    maps[LAYERS.index("offset_x")], maps[LAYERS.index("offset_y")] = 2 - columns % step, 2 - rows % step
    image = np.ones((1, side, side), np.float32)
    tracemalloc.start()
    found = TASK.detect(maps, Field(image, image, None, None, ("r",), (0, 0), (31.4,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == (side // step) ** 2 == 102_400
    assert np.all(found.columns["area"] == step**2)
    assert peak < 700e6


def test_owners_do_not_depend_on_how_many_pixels_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    peak = np.arange(4, 60, 6).repeat(10), np.tile(np.arange(4, 60, 6), 10)
    given = np.ones((64, 64), bool), rng.normal(0, 3, (64, 64)), rng.normal(0, 3, (64, 64)), peak
    whole = segment(*given)
    monkeypatch.setattr(peaks, "_AT_ONCE", 77)
    parts = segment(*given)
    np.testing.assert_array_equal(parts.labels, whole.labels)
    np.testing.assert_array_equal(parts.pixels.other, whole.pixels.other)
    assert len(np.unique(whole.labels)) == 100
