from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.sources.labels import float_labels
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.tasks.normalisation import Normalisation, normalise_psf
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform
from astroml_plugin.training.batches import Batch
from astroml_plugin.training.forward import network_inputs

torch.set_num_threads(1)


def stamps(count: int = 6, size: int = 48, bands: tuple[str, ...] = ("r",), *, psf: int | None = 25, **more) -> Cutouts:
    rng = np.random.default_rng(1)
    image = rng.normal(100, 5, (count, len(bands), size, size)).astype(np.float32)
    image[:, :, size // 2, size // 2] += 500
    kernel = None
    if psf is not None:
        y, x = np.mgrid[:psf, :psf] - psf // 2
        light = rng.uniform(0.5, 1, (count, len(bands), 1, 1)) * np.exp(-(x**2 + y**2) / (2 * 2.0**2))
        kernel = light.astype(np.float32)
    return from_stamps(image, more.get("variance"), kernel, bands=bands, pixel_scale=0.2)


def task(**settings) -> EllipticityTask:
    return EllipticityTask.from_settings({"bands": ["r"], **settings})


def test_settings_survive_json_and_name_the_nearest_key() -> None:
    one = task(psf="none", normalisation={"softening": 2})
    assert EllipticityTask.from_settings(one.to_settings()).settings == one.settings
    with pytest.raises(InputError, match="did you mean 'stamp_size'"):
        task(stampsize=3)
    with pytest.raises(InputError, match=r"stamp_size in .* must be a whole number"):
        task(stamp_size="big")
    with pytest.raises(InputError, match="psf must be one of required, optional, none"):
        task(psf="maybe")
    with pytest.raises(InputError, match="normalisation unit must be one of"):
        task(normalisation={"unit": "parsec"})


def test_noise_units_and_background() -> None:
    inputs, flags = task().prepare(stamps(64))
    border = inputs[0][:, :, :4]
    assert inputs[0].dtype == torch.float32
    assert abs(float(border.mean())) < 0.05
    assert abs(float(border.std()) - 1) < 0.05
    assert (flags == int(ObjectFlag.NO_VARIANCE)).all()


def test_given_variance_sets_the_noise() -> None:
    given = stamps(4, variance=np.full((4, 1, 48, 48), 100.0, np.float32))
    linear = task(normalisation={"stretch": "linear"})
    (image, _), flags = linear.prepare(given)
    assert abs(float(image[:, :, :4].std()) - 0.5) < 0.05
    assert (flags == 0).all()


def test_invalid_pixels_are_zero_and_do_not_move_the_background() -> None:
    raw = np.random.default_rng(0).normal(10, 1, (3, 1, 48, 48)).astype(np.float32)
    raw[0, :, :4] = np.nan  # a quarter of the border
    raw[1, :, :, :46] = np.nan  # nearly all
    raw[2] = np.nan
    given = from_stamps(raw, None, None, bands=("r",))
    (image,), flags = task(psf="none").prepare(given)
    assert (image[~given.valid] == 0).all()
    assert image.isfinite().all()
    assert abs(float(image[0, 0, 44:].mean())) < 0.3
    assert abs(float(image[1, 0, :, 46:].median())) < 0.3
    assert flags[2] & int(ObjectFlag.NONFINITE)
    assert not flags[:2].bitwise_and(int(ObjectFlag.NONFINITE)).any()


def test_too_few_border_pixels_fall_back_to_the_whole_stamp() -> None:
    raw = np.random.default_rng(0).normal(10, 1, (2, 1, 48, 48)).astype(np.float32)
    for edge in (np.s_[:, :, :4], np.s_[:, :, -4:], np.s_[..., :4], np.s_[..., -4:]):
        raw[:1][edge] = np.nan
    (image,), _ = task(psf="none").prepare(from_stamps(raw, None, None, bands=("r",)))
    assert abs(float(image[0, 0, 4:-4, 4:-4].mean())) < 0.2
    assert abs(float(image[0, 0, 4:-4, 4:-4].std()) - 1) < 0.2


def test_constant_stamp_and_missing_band_are_out_of_domain() -> None:
    raw = np.random.default_rng(0).normal(10, 1, (3, 2, 48, 48)).astype(np.float32)
    raw[0] = 7
    raw[1, 1] = np.nan
    two = EllipticityTask.from_settings({"bands": ["g", "r"], "psf": "none"})
    inputs, flags = two.prepare(from_stamps(raw, None, None, bands=("g", "r")))
    assert [bool(flag & int(ObjectFlag.OUT_OF_DOMAIN)) for flag in flags] == [True, True, False]
    assert inputs[0].isfinite().all()
    whole, flags = two.prepare(from_stamps(raw[[0, 2]], None, None, bands=("g", "r")))
    assert [bool(flag & int(ObjectFlag.OUT_OF_DOMAIN)) for flag in flags] == [True, False]
    torch.testing.assert_close(whole[0], inputs[0][[0, 2]], rtol=0, atol=0)


def test_bands_are_matched_by_name_and_never_by_position() -> None:
    given = stamps(2, bands=("i", "r", "g"))
    (image, psf), _ = EllipticityTask.from_settings({"bands": ["g", "i"]}).prepare(given)
    (single, one), _ = task(bands=["g"]).prepare(given)
    torch.testing.assert_close(image[:, :1], single)
    torch.testing.assert_close(psf[:, :1], one)
    with pytest.raises(InputError, match="band z is missing: the source has i, r, g"):
        task(bands=["z"]).prepare(given)


def test_any_band_model_takes_the_one_there_is_or_the_one_named() -> None:
    general = task(any_band=True)
    assert general.prepare(stamps(2, bands=("z",)))[0][0].shape == (2, 1, 48, 48)
    assert general.choose_bands(("g", "z"), "z") == ("z",)
    with pytest.raises(InputError, match="choose one of them"):
        general.choose_bands(("g", "z"))
    with pytest.raises(InputError, match="no band can be chosen"):
        task().choose_bands(("g", "z"), "z")


def test_size_is_fitted_and_padding_flagged() -> None:
    large = stamps(2, 64)
    (image, _), flags = task().prepare(large)
    inner = replace(large, image=large.image[..., 8:56, 8:56], valid=large.valid[..., 8:56, 8:56])
    torch.testing.assert_close(image, task().prepare(inner)[0][0])
    assert not (flags & int(ObjectFlag.EDGE)).any()
    (image, _), flags = task().prepare(stamps(2, 40))
    assert image.shape == (2, 1, 48, 48)
    assert (flags & int(ObjectFlag.EDGE)).all()
    with pytest.raises(InputError, match="40 x 40 px, and the model takes only 48 x 48"):
        task(resize="refuse").prepare(stamps(2, 40))


def test_source_is_refused_before_any_work() -> None:
    one = task(pixel_scale=0.2)
    assert one.check_source(bands=("g", "r"), pixel_scale=0.2, has_psf=True) == ("r",)
    assert one.check_source(bands=("r",), pixel_scale=0.4, has_psf=True) == ("r",)  # is resampled
    with pytest.raises(InputError, match=r"needs the PSF of each object .* ingest it with a PSF"):
        one.check_source(bands=("r",), has_psf=False)
    with pytest.raises(InputError, match="uint8 pixels and the model was trained on float32"):
        one.check_source(bands=("r",), dtype="uint8", has_psf=True)
    task(any_dtype=True).check_source(bands=("r",), dtype="uint8", has_psf=True)


@pytest.mark.parametrize("size", [15, 16, 24, 25, 26, 31, 64])
def test_psf_of_any_size_and_sum_is_centred_with_unit_sum(size: int) -> None:
    psf = torch.zeros(2, 1, size, size)
    psf[:, :, size // 2, size // 2] = torch.tensor([[3.0], [0.01]])
    out, missing = normalise_psf(psf, 25)
    assert out.shape == (2, 1, 25, 25)
    assert not missing.any()
    torch.testing.assert_close(out[:, 0, 12, 12], torch.ones(2))


def test_missing_psf_is_flagged_or_refused() -> None:
    broken = stamps(3)
    broken.psf[0] = torch.nan  # type: ignore[index]
    broken.psf[1] = 0  # type: ignore[index]
    (_, psf), flags = task().prepare(broken)
    assert psf.isfinite().all()
    assert [bool(flag & int(ObjectFlag.NO_PSF)) for flag in flags] == [True, True, False]
    (_, psf), flags = task(psf="optional").prepare(stamps(2, psf=None))
    assert psf.shape == (2, 1, 25, 25)
    assert (flags & int(ObjectFlag.NO_PSF)).all()
    assert len(task(psf="none").prepare(stamps(2))[0]) == 1
    with pytest.raises(InputError, match="needs the PSF"):
        task().prepare(stamps(2, psf=None))


def test_prediction_does_not_depend_on_the_batch() -> None:
    given = stamps(33)
    raw = given.image.clone()
    given.valid[7, :, :4] = False
    given.valid[9] = False
    given = replace(given, image=raw.masked_fill(~given.valid, 0))
    one = task()
    torch.manual_seed(0)
    network = one.build_network("strided_cnn", {"pooling": "grid"}).eval()

    def run(part: Cutouts) -> np.ndarray:
        inputs, flags = one.prepare(part)
        with torch.inference_mode():
            columns, _ = one.to_columns(network(*inputs), part, flags)
        return np.stack(list(columns.values()), axis=1)

    whole = run(given)
    for chunk in (1, 5, 32):
        parts = [run(given.take(slice(start, start + chunk))) for start in range(0, 33, chunk)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=2e-6)


def test_unusable_objects_become_nan_and_others_keep_finite_values() -> None:
    raw = np.random.default_rng(0).normal(10, 1, (3, 1, 48, 48)).astype(np.float32)
    raw[0] = np.nan
    raw[1, 0, 3, 3] = np.nan
    given = from_stamps(raw, None, None, bands=("r",))
    one = task(psf="none")
    _, flags = one.prepare(given)
    outputs = torch.zeros(3, 12)
    outputs[2, 0] = torch.inf
    columns, bits = one.to_columns(outputs, given, flags | given.flags)
    assert np.isnan(columns["e1"]).tolist() == [True, False, True]
    assert all(bits[[0, 2]] & int(ObjectFlag.NONFINITE))
    assert list(columns) == [column.name for column in one.columns()]


def test_symmetries_are_the_eight_of_the_square() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3)
    assert len({tuple(transform(image, one).flatten().tolist()) for one in SYMMETRIES}) == 8


def test_augmentation_moves_image_psf_and_targets_together_and_repeatably() -> None:
    rows = torch.arange(64)
    image = torch.zeros(64, 1, 9, 9)
    image[:, :, 4, 7] = 1  # on the +x axis
    psf = image.clone()
    target = torch.tensor([[0.3, 0.1]]).repeat(64, 1)
    one = task()
    (moved, kernel), learned = one.augment((image, psf), target, torch.Generator().manual_seed(3))
    again = one.augment((image, psf), target, torch.Generator().manual_seed(3))
    torch.testing.assert_close(moved, again[0][0], rtol=0, atol=0)
    torch.testing.assert_close(moved, kernel, rtol=0, atol=0)
    assert (image[rows, 0, 4, 7] == 1).all()  # the input is left alone
    on_x = (moved[:, 0, 4, 7] + moved[:, 0, 4, 1]) > 0
    assert 0 < int(on_x.sum()) < 64
    assert (learned[on_x, 0] > 0).all()
    assert (learned[~on_x, 0] < 0).all()


def test_optional_psf_is_dropped_for_some() -> None:
    image, psf = torch.ones(200, 1, 9, 9), torch.ones(200, 1, 5, 5)
    (_, kept), _ = task(psf="optional").augment((image, psf), torch.zeros(200, 2), torch.Generator().manual_seed(0))
    assert 5 < int((kept.sum((1, 2, 3)) == 0).sum()) < 40
    more = task(psf="optional", psf_dropped=0.5)
    (_, kept), _ = more.augment((image, psf), torch.zeros(200, 2), torch.Generator().manual_seed(0))
    assert 70 < int((kept.sum((1, 2, 3)) == 0).sum()) < 130
    with pytest.raises(InputError, match="psf_dropped"):
        task(psf="optional", psf_dropped=1.5)


def test_scales_are_measured_on_the_training_stamps() -> None:
    raw = np.random.default_rng(0).normal(0, [[[[2.0]], [[8.0]]]], (50, 2, 32, 32)).astype(np.float32)
    raw[:, 1] = np.clip(raw[:, 1], 0, 0.01)  # a border of one value
    plain = ClassifyTask.from_settings({"bands": ["g", "r"], "stamp_size": 32, "classes": ["a", "b"]})
    learned = plain.fit_to_training(
        pa.table({"label": ["a", "b"] * 25}), from_stamps(raw, None, None, bands=("g", "r"))
    )
    scales = learned.settings.normalisation.scales
    assert scales[0] == pytest.approx(6.0, rel=0.1)
    assert scales[1] > 0
    with pytest.raises(InputError, match="0 scales for 2 bands"):
        plain.prepare(from_stamps(raw, None, None, bands=("g", "r")))


def test_float_labels_refuse_what_cannot_be_learned() -> None:
    with pytest.raises(InputError, match="'e1' is NaN, infinite or null for 2 of 3"):
        float_labels(pa.table({"e1": [0.1, None, float("nan")]}), ["e1"])
    with pytest.raises(InputError, match=r"is 0.5 for all 3 objects"):
        float_labels(pa.table({"e1": [0.5, 0.5, 0.5]}), ["e1"])
    with pytest.raises(InputError, match="'e2' is missing: the data have e1"):
        float_labels(pa.table({"e1": [0.5, 0.5, 0.5]}), ["e2"])
    with pytest.raises(InputError, match="must be numbers"):
        float_labels(pa.table({"e1": ["a"]}), ["e1"])


def test_normalisation_refuses_nonsense() -> None:
    with pytest.raises(InputError, match=r"softening \(0\) must be above 0"):
        Normalisation(softening=0)


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("by", [(-0.5, -0.5), (0.5, -0.5), (0.1, 0.3), (-1.0, 0.0)])
def test_psf_beside_its_pixel_is_moved_onto_it(size: int, by: tuple[float, float]) -> None:
    def drawn(side: int, x: float, y: float) -> torch.Tensor:
        axis = torch.arange(side, dtype=torch.float32) - side // 2
        along_x, along_y = (axis - x)[None, :], (axis - y)[:, None]
        return torch.exp(-0.5 * (along_x**2 / 1.4**2 + along_y**2 / 1.7**2 + 0.1 * along_x * along_y))[None, None]

    exact, _ = normalise_psf(drawn(25, 0, 0), 25)
    moved, missing = normalise_psf(7 * drawn(size, *by), 25)
    assert not missing.any()
    torch.testing.assert_close(moved, exact, atol=2e-5, rtol=0)
    torch.testing.assert_close(exact, drawn(25, 0, 0) / drawn(25, 0, 0).sum(), atol=0, rtol=1e-6)


def test_psf_far_from_its_pixel_is_left_there() -> None:
    psf = torch.zeros(1, 1, 25, 25)
    psf[..., 12, 17] = 1
    torch.testing.assert_close(normalise_psf(psf, 25)[0], psf)


@pytest.mark.parametrize("value", [np.nan, 0.0, -99.0])
def test_an_object_that_lacks_a_band_has_no_values(value: float) -> None:
    """g without a pixel, or with one value in all: not "other" with a probability of 3e-5."""
    raw = np.random.default_rng(0).normal(10, 1, (3, 2, 32, 32)).astype(np.float32)
    raw[0, 0] = value
    raw[1, 1, :31] = value  # a few pixels are left
    raw[1, 1, 31] = 1 + np.arange(32)
    given = from_stamps(raw, None, None, bands=("g", "r"))
    settings = {"bands": ["g", "r"], "stamp_size": 32, "classes": ["lens", "other"], "normalisation": {"unit": "noise"}}
    found = {}
    for spare in ((), ("g",), ("r",)):
        one = ClassifyTask.from_settings({**settings, "spare_bands": list(spare)})
        inputs, flags = one.prepare(given)
        columns, bits = one.to_columns(torch.zeros(3, 2), given, flags)
        assert inputs[0].isfinite().all()
        assert not inputs[0][0, 0].any()
        assert not bits[0] & int(ObjectFlag.EDGE | ObjectFlag.NONFINITE)
        assert np.isnan(columns["p_lens"]).tolist() == [label is None for label in columns["label"]]
        found[spare] = columns["label"].tolist(), (bits & int(ObjectFlag.OUT_OF_DOMAIN) > 0).tolist()
    assert found[()] == ([None, None, "lens"], [True, True, False])
    assert found["r",] == ([None, "lens", "lens"], [True, False, False])
    assert found["g",] == (["lens", None, "lens"], [False, True, False])
    with pytest.raises(InputError, match="spare_bands u must be some of the bands g, r"):
        ClassifyTask.from_settings({**settings, "spare_bands": ["u"]})


def test_stamps_that_lack_a_band_are_neither_trained_nor_judged_on() -> None:
    raw = np.random.default_rng(0).normal(10, 1, (4, 2, 32, 32)).astype(np.float32)
    raw[0, 1] = 0
    raw[2] = np.nan
    given = Batch(from_stamps(raw, None, None, bands=("g", "r")), torch.arange(4), np.arange(10, 14))
    settings = {"bands": ["g", "r"], "stamp_size": 32, "classes": ["a", "b"], "normalisation": {"unit": "noise"}}
    one = ClassifyTask.from_settings(settings)
    (image,), targets, rows = network_inputs(one, given, "cpu")
    assert (len(image), targets.tolist(), rows.tolist()) == (2, [1, 3], [11, 13])
    (image,), targets, rows = network_inputs(one.with_settings(spare_bands=("r",)), given, "cpu")
    assert (len(image), targets.tolist(), rows.tolist()) == (3, [0, 1, 3], [10, 11, 13])
