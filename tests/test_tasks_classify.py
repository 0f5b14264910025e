import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.errors import InputError
from astroml_plugin.flags import ObjectFlag
from astroml_plugin.tasks.classify import ClassifyTask, expected_calibration_error

torch.set_num_threads(1)


def stamps(count: int = 4, dtype: type = np.uint8) -> object:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 1, 64, 64)).astype(dtype)
    return from_stamps(pixels, None, None, bands=("R",))


def task(**settings) -> ClassifyTask:
    return ClassifyTask.from_settings({"bands": ["R"], "stamp_size": 64, "dtype": "uint8", **settings})


def test_columns_are_exactly_the_classes_and_the_label() -> None:
    one = task(classes=["b", "a"], normalisation={"scales": [10.0]})
    given = stamps()
    inputs, flags = one.prepare(given)  # type: ignore[arg-type]
    assert (flags == 0).all()
    network = one.build_network("strided_cnn", {}).eval()
    with torch.inference_mode():
        columns, _ = one.predict(network(*inputs), given, flags)  # type: ignore[arg-type]
    assert list(columns) == ["p_b", "p_a", "label"] == [column.name for column in one.columns()]
    np.testing.assert_allclose(columns["p_a"] + columns["p_b"], 1, rtol=1e-6)
    assert set(columns["label"]) <= {"a", "b"}


def test_unusable_stamp_has_no_class() -> None:
    raw = np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype(np.float32)
    raw[0] = np.nan
    one = task(classes=["a", "b"], dtype="float32", normalisation={"scales": [1.0]})
    given = from_stamps(raw, None, None, bands=("R",))
    _, flags = one.prepare(given)
    columns, bits = one.predict(torch.zeros(2, 2), given, flags)
    assert columns["label"].tolist() == [None, "a"]
    assert np.isnan(columns["p_a"]).tolist() == [True, False]
    assert bits[0] & int(ObjectFlag.NONFINITE)


def test_other_sizes_and_pixels_are_refused_unless_allowed() -> None:
    one = task(classes=["a", "b"], stamp_size=48, normalisation={"scales": [1.0]})
    with pytest.raises(InputError, match="64 x 64 px, and the model takes only 48 x 48"):
        one.prepare(stamps())  # type: ignore[arg-type]
    one.with_settings(resize="fit").prepare(stamps())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="float32 pixels and the model was trained on uint8"):
        task(classes=["a", "b"], normalisation={"scales": [1.0]}).prepare(stamps(dtype=np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [["1", "0", "2", "0"], [1, 0, 2, 0], [1.0, 0.0, 2.0, 0.0]])
def test_labels_may_be_text_or_numbers_and_share_a_class(values: list) -> None:
    one = task(names={"0": "elliptical", "1": "spiral", "2": "spiral"})
    table = pa.table({"label": values})
    learned = one.adapted(table, stamps())  # type: ignore[arg-type]
    assert learned.settings.classes == ("elliptical", "spiral")
    assert learned.targets(table).tolist() == [1, 0, 1, 0]


def test_unknown_and_missing_labels_are_counted() -> None:
    one = task(classes=["a", "b"])
    with pytest.raises(InputError, match="'c' 2 times; the classes are a, b"):
        one.targets(pa.table({"label": ["a", "c", "c"]}))
    with pytest.raises(InputError, match="1 of 2 objects have no label"):
        one.targets(pa.table({"label": ["a", None]}))
    with pytest.raises(InputError, match="1 of 2 objects have no label"):
        one.targets(pa.table({"label": [1.0, float("nan")]}))
    with pytest.raises(InputError, match="'4' 1 times"):
        task(names={"0": "a"}).targets(pa.table({"label": [0, 4]}))


def test_ignored_labels_are_left_out() -> None:
    one = task(classes=["a", "b"], leave_out={"label": ["x"], "absent": [1]})
    assert one.usable(pa.table({"label": ["a", "x", "b"]})).tolist() == [True, False, True]
    assert task(leave_out={"y": [4, 5]}).usable(pa.table({"y": [4.0, 1.0, 5.0, None]})).tolist() == [0, 1, 0, 1]


def test_one_class_only_and_empty_classes_are_refused() -> None:
    with pytest.raises(InputError, match="the 2 objects have only a"):
        task().adapted(pa.table({"label": ["a", "a"]}), stamps())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"validation split lacks a class \(a 2, b 0\)"):
        task(classes=["a", "b"]).check_splits({"validation": torch.tensor([0, 0])})


def test_balanced_weights_count_each_class_alike() -> None:
    table = pa.table({"label": ["a"] * 9 + ["b"]})
    learned = task(class_weights="balanced").adapted(table, stamps())  # type: ignore[arg-type]
    np.testing.assert_allclose(learned.settings.weights, [10 / 18, 5])


def test_temperature_calibrates_and_metrics_count() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(2, (4000,), generator=generator)
    true = torch.where(torch.rand(4000, generator=generator) < 0.8, targets, 1 - targets)
    outputs = 6.0 * torch.nn.functional.one_hot(targets, 2).float()  # says 99.8 %, right 80 %
    one = task(classes=["a", "b"])
    fitted = one.calibrated(outputs, true)
    assert fitted.settings.temperature == pytest.approx(6 / np.log(4), rel=0.1)
    before, after = one.metrics(outputs, true), fitted.metrics(outputs, true)
    assert after["accuracy"] == before["accuracy"] == pytest.approx(0.8, abs=0.02)
    assert after["ece"] < 0.02 < before["ece"]
    assert np.sum(after["confusion"]) == 4000
    assert set(fitted.figures(outputs, true)) == {"confusion", "reliability"}


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    error = expected_calibration_error(probabilities, torch.tensor([0, 1, 0, 1]))
    assert error == pytest.approx((abs(0.5 - 0.9) * 2 + abs(1 - 0.6) * 2) / 4)
