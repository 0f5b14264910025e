import math
import resource
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import dirichlet_multinomial

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation import class_report
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.vote_report import against_votes
from astroml_plugin.tasks.classification import labels as class_labels
from astroml_plugin.tasks.classification.settings import ClassifySettings
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.tasks.symmetries import transform
from astroml_plugin.tasks.test_time_augmentation import ORDER, averaged

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
        columns, _ = one.to_columns(network(*inputs), given, flags)  # type: ignore[arg-type]
    assert list(columns) == ["p_b", "p_a", "label"] == [column.name for column in one.columns()]
    np.testing.assert_allclose(columns["p_a"] + columns["p_b"], 1, rtol=1e-6)
    assert set(columns["label"]) <= {"a", "b"}


def test_unusable_stamp_has_no_class() -> None:
    raw = np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype(np.float32)
    raw[0] = np.nan
    one = task(classes=["a", "b"], dtype="float32", normalisation={"scales": [1.0]})
    given = from_stamps(raw, None, None, bands=("R",))
    _, flags = one.prepare(given)
    columns, bits = one.to_columns(torch.zeros(2, 2), given, flags)
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
    learned = one.fit_to_training(table, stamps())  # type: ignore[arg-type]
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
        task().fit_to_training(pa.table({"label": ["a", "a"]}), stamps())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="p_Star and p_star differ in large and small letters only"):
        task().fit_to_training(pa.table({"label": ["Star", "star"]}), stamps())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"validation split lacks a class \(a 2, b 0\)"):
        task(classes=["a", "b"]).check_splits({"validation": torch.tensor([0, 0])})


def test_balanced_weights_count_each_class_alike() -> None:
    table = pa.table({"label": ["a"] * 9 + ["b"]})
    learned = task(class_weights="balanced").fit_to_training(table, stamps())  # type: ignore[arg-type]
    np.testing.assert_allclose(learned.settings.weights, [10 / 18, 5])


def test_temperature_calibrates_and_metrics_count() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(2, (4000,), generator=generator)
    true = torch.where(torch.rand(4000, generator=generator) < 0.8, targets, 1 - targets)
    outputs = 6.0 * torch.nn.functional.one_hot(targets, 2).float()  # says 99.8 %, right 80 %
    one = task(classes=["a", "b"])
    fitted = one.calibrate(outputs, true)
    assert fitted.settings.temperature == pytest.approx(6 / np.log(4), rel=0.1)
    before, after = one.metrics(outputs, true), fitted.metrics(outputs, true)
    assert after["accuracy"] == before["accuracy"] == pytest.approx(0.8, abs=0.02)
    assert after["ece"] < 0.02 < before["ece"]
    assert np.sum(after["confusion"]) == 4000


def test_class_weights_are_undone_in_the_probabilities() -> None:
    """A network that fits the weighted loss exactly gives the fractions of the training split back."""
    table = pa.table({"label": ["a"] * 9 + ["b"]})
    learned = task(class_weights="balanced").fit_to_training(table, stamps())  # type: ignore[arg-type]
    assert learned.settings.training_prior == (0.9, 0.1)
    outputs = torch.zeros(10, 2, requires_grad=True)  # what carries no information under the weighted loss
    learned.loss(outputs, learned.targets(table)).backward()
    torch.testing.assert_close(outputs.grad.sum(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(learned.probabilities(outputs.detach())[0], torch.tensor([0.9, 0.1]))
    fitted = learned.calibrate(3 * torch.randn(10, 2), learned.targets(table))
    assert fitted.settings.temperature > 1


def test_prior_shifts_probabilities() -> None:
    one = task(classes=["a", "b"], training_prior=[0.5, 0.5])
    outputs = torch.tensor([[0.0, 2.0]])
    shifted = one.with_prior({"b": 0.001}).probabilities(outputs)[0, 1]
    assert float(shifted) == pytest.approx(1 / (1 + 999 * np.exp(-2)), rel=1e-5)
    each = task(classes=["a", "b"], training_prior=[0.5, 0.2], multi_label=True).with_prior({"a": 0.1})
    np.testing.assert_allclose(each.probabilities(torch.zeros(1, 2))[0], [0.1, 0.5], rtol=1e-5)
    with pytest.raises(InputError, match="train it again"):
        task(classes=["a", "b"]).with_prior({"a": 0.1})
    with pytest.raises(InputError, match="the classes are a, b"):
        one.with_prior({"lens": 0.1})


# ---- soft, missing and several labels ----------------------------------------------------------------------------


def test_votes_are_a_multinomial_likelihood() -> None:
    """The best logits give the fractions of all votes, so that an object counts by its votes."""
    one = task(classes=["a", "b", "c"], label_columns=["fa", "fb", "fc"], votes="n")
    table = pa.table({"fa": [0.5, 0.1], "fb": [0.5, 0.1], "fc": [0.0, 0.8], "n": [10, 30]})
    targets = one.targets(table)
    np.testing.assert_allclose(targets, [[5, 5, 0], [3, 3, 24]], rtol=1e-6)
    best = torch.log(torch.tensor([8.0, 8.0, 24.0])).repeat(2, 1).requires_grad_()
    one.loss(best, targets).backward()
    torch.testing.assert_close(best.grad.sum(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert one.class_shares(targets) == pytest.approx([0.2, 0.2, 0.6])
    assert one.metrics(best.detach(), targets)["accuracy"] == 0.5
    counted = task(classes=["a", "b", "c"], label_columns=["fa", "fb", "fc"])
    np.testing.assert_allclose(counted.targets(table)[1], [0.1, 0.1, 0.8], rtol=1e-6)


def test_one_vote_each_is_cross_entropy() -> None:
    soft = task(classes=["a", "b"], label_columns=["a", "b"], weights=[1.0, 3.0])
    outputs, hard = torch.randn(20, 2), torch.arange(20) % 2
    votes = torch.nn.functional.one_hot(hard, 2).float()
    plain = task(classes=["a", "b"], weights=[1.0, 3.0])
    torch.testing.assert_close(soft.loss(outputs, votes), plain.loss(outputs, hard))


@pytest.mark.parametrize(
    ("columns", "votes", "words"),
    [
        ({"a": [0.9], "b": [0.9], "n": [5]}, "n", "sum to more than 1"),
        ({"a": [-0.1], "b": [0.9], "n": [5]}, "n", "negative votes"),
        ({"a": ["x"], "b": [0.9], "n": [5]}, "n", "must be numbers"),
        ({"a": [0.5], "b": [0.5], "n": [-5]}, "n", "negative numbers of votes"),
        ({"a": [0.0], "b": [0.0], "n": [5]}, "n", "1 of 1 objects have no label in column 'a, b, n'"),
        ({"a": [1.0]}, "", "label column 'b' is missing"),
    ],
)
def test_votes_that_are_none_are_refused(columns: dict, votes: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        task(classes=["a", "b"], label_columns=["a", "b"], votes=votes).targets(pa.table(columns))


def test_focal_loss_by_hand_and_without_gamma() -> None:
    outputs, targets = torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([1])
    assert float(task(classes=["a", "b"], focal=2.0).loss(outputs, targets)) == pytest.approx(
        -(0.25**2) * np.log(0.75), rel=1e-5
    )
    many, wanted = torch.randn(50, 2), torch.arange(50) % 2
    tiny = task(classes=["a", "b"], focal=1e-9).loss(many, wanted)
    torch.testing.assert_close(tiny, task(classes=["a", "b"]).loss(many, wanted))


@pytest.mark.parametrize("values", [["a", None, "b", ""], [1.0, float("nan"), 2.0, None]])
def test_missing_labels_are_refused_or_left_out(values: list) -> None:
    table = pa.table({"label": values})
    names = sorted({str(int(v)) if isinstance(v, float) else v for v in (values[0], values[2])})
    with pytest.raises(InputError, match=r'2 of 4 objects have no label .* missing = "leave_out"'):
        task(classes=names).targets(table)
    one = task(missing="leave_out")
    assert one.usable(table).tolist() == [True, False, True, False]
    left = table.filter(pa.array(one.usable(table)))
    assert one.fit_to_training(left, stamps()).targets(left).tolist() == [0, 1]  # type: ignore[arg-type]


def test_several_labels_from_one_text() -> None:
    table = pa.table({"label": ["bar;ring", "ring | merger", "", None]})
    one = task(multi_label=True, missing="leave_out")
    assert one.usable(table).tolist() == [True, True, True, False]
    known = table.slice(0, 3)
    learned = one.fit_to_training(known, stamps())  # type: ignore[arg-type]
    assert learned.settings.classes == ("bar", "merger", "ring")
    assert learned.targets(known).tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    np.testing.assert_allclose(learned.settings.training_prior, [1 / 3, 1 / 3, 2 / 3])
    with pytest.raises(InputError, match="'disc' 1 times; the classes are bar"):
        learned.targets(pa.table({"label": ["disc;bar"]}))
    with pytest.raises(InputError, match="1 of 4 objects have no label"):
        learned.targets(table)


def test_unknown_entries_are_left_out_of_the_loss() -> None:
    one = task(classes=["a", "b"], label_columns=["a", "b"], multi_label=True)
    targets = one.targets(pa.table({"a": [True, False], "b": pa.array([None, 1], pa.int8())}))
    assert torch.isnan(targets).tolist() == [[False, True], [False, False]]
    outputs = torch.tensor([[1.0, 50.0], [-2.0, 3.0]], requires_grad=True)
    loss = one.loss(outputs, targets)
    known = torch.tensor([1.0, 2.0, 3.0])  # all three are right by as much
    torch.testing.assert_close(loss, torch.nn.functional.softplus(-known).mean())
    loss.backward()
    assert float(outputs.grad[0, 1]) == 0
    with pytest.raises(InputError, match="labels beyond 0 to 1, such as 3"):
        one.targets(pa.table({"a": [3], "b": [1]}))


def test_probable_classes_are_listed() -> None:
    one = task(classes=["a", "b", "c"], multi_label=True, normalisation={"scales": [1.0]})
    given = stamps(3)
    _, flags = one.prepare(given)  # type: ignore[arg-type]
    columns, _ = one.to_columns(torch.tensor([[3.0, -3, 3], [-3, -3, -3], [0, -1, -1]]), given, flags)  # type: ignore[arg-type]
    assert columns["label"].tolist() == ["a;c", "", "a"]
    assert float(columns["p_a"][2]) == 0.5


def test_multi_label_weights_smoothing_and_temperature() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(5000, 2, generator=generator) - 1
    targets = (torch.rand(5000, 2, generator=generator) < torch.sigmoid(truth)).float()
    table = pa.table({"a": targets[:, 0].numpy(), "b": targets[:, 1].numpy()})
    one = task(label_columns=["a", "b"], multi_label=True, class_weights="balanced")
    learned = one.fit_to_training(table, stamps())  # type: ignore[arg-type]
    weighted = truth + torch.log(torch.tensor(learned.settings.weights))
    fitted = learned.calibrate(2 * weighted, targets)
    assert fitted.settings.temperature == pytest.approx(2, rel=0.1)
    torch.testing.assert_close(fitted.probabilities(2 * weighted), torch.sigmoid(truth), atol=0.05, rtol=0)
    assert fitted.metrics(2 * weighted, targets)["ece"] < 0.02
    smoothed = task(classes=["a"], label_columns=["a"], multi_label=True, label_smoothing=0.2)
    outputs = torch.tensor([[np.log(9.0)]], requires_grad=True)  # 0.9 = 1 - 0.2 / 2
    smoothed.loss(outputs, torch.ones(1, 1)).backward()
    assert float(outputs.grad) == pytest.approx(0, abs=1e-6)


def test_splits_need_objects_with_and_without_each_class() -> None:
    one = task(classes=["a", "b"], multi_label=True)
    with pytest.raises(InputError, match=r"test split lacks a class \(a 1/1, b 2/0 \(with/without\)\)"):
        one.check_splits({"test": torch.tensor([[1.0, 1], [0, 1]])})
    soft = task(classes=["a", "b"], label_columns=["a", "b"])
    with pytest.raises(InputError, match=r"\(a 2, b 0\)"):
        soft.check_splits({"test": torch.tensor([[1.0, 0], [2, 0]])})


def test_labels_that_are_ids_are_not_told_one_by_one() -> None:
    names = [str(number) for number in range(500)]
    with pytest.raises(InputError, match="499 of 500 classes in all") as caught:
        task(classes=names).check_splits({"test": torch.tensor([3, 3])})
    assert len(str(caught.value)) < 300


def test_focal_loss_of_several_labels_by_hand() -> None:
    outputs, targets = torch.tensor([[np.log(3.0), np.log(3.0)]]), torch.tensor([[1.0, 0.0]])
    expected = -(0.25 * np.log(0.75) + 0.75 * np.log(0.25)) / 2  # (1 - p) log p of what is true
    one = task(classes=["a", "b"], multi_label=True, focal=1.0)
    assert float(one.loss(outputs, targets)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"missing": "maybe"}, "missing must be one of refuse, leave_out"),
        ({"class_weights": "heavy"}, "class_weights must be one of"),
        ({"symmetries": 3}, "1, 2, 4 or 8, not 3"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"classes": ["a", "a"]}, "repeated: a"),
        ({"classes": ["a", "b"], "label_columns": ["a"]}, "1 label_columns for 2 classes"),
        ({"votes": "n"}, "belongs to label_columns"),
        ({"classes": ["a", "b"], "positive": "lens"}, "'lens' is none of a, b"),
        ({"clases": ["a"]}, "did you mean 'classes'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        task(**settings)


# ---- input that does not fit -------------------------------------------------------------------------------------


def test_bands_are_matched_by_name_whatever_their_order() -> None:
    one = ClassifyTask.from_settings(
        {"bands": ["R", "G", "B"], "stamp_size": 64, "dtype": "uint8", "classes": ["a", "b"]}
    ).with_settings(normalisation=replace(task().settings.normalisation, scales=(1.0, 10.0, 100.0)))
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64)).astype(np.uint8)
    straight = from_stamps(pixels, None, None, bands=("R", "G", "B"))
    turned = from_stamps(pixels[:, ::-1].copy(), None, None, bands=("B", "G", "R"))
    torch.testing.assert_close(one.prepare(straight)[0][0], one.prepare(turned)[0][0])
    with pytest.raises(InputError, match="band R, G, B is missing: the source has g, r, i"):
        one.prepare(from_stamps(pixels, None, None, bands=("g", "r", "i")))


def test_units_differ_unless_the_bundle_allows() -> None:
    one = task(classes=["a", "b"], normalisation={"scales": [1.0]})
    with pytest.raises(InputError, match=r"float32 pixels and the model was trained on uint8.*any_dtype"):
        one.check_source(bands=("R",), size=(64, 64), dtype="float32")
    one.with_settings(any_dtype=True).check_source(bands=("R",), size=(64, 64), dtype="float32")
    floats = task(classes=["a", "b"], dtype="float32", normalisation={"scales": [1.0]})
    with pytest.raises(InputError, match="uint8 pixels and the model was trained on float32"):
        floats.prepare(stamps())  # type: ignore[arg-type]


def test_constant_images_are_flagged_and_have_no_class() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1, 64, 64)).astype(np.uint8)
    pixels[1] = 7
    one = task(classes=["a", "b"], normalisation={"scales": [10.0]})
    given = from_stamps(pixels, None, None, bands=("R",))
    inputs, flags = one.prepare(given)
    columns, bits = one.to_columns(inputs[0].mean((1, 2, 3))[:, None] * torch.ones(2), given, flags)
    assert (bits & int(ObjectFlag.OUT_OF_DOMAIN)).astype(bool).tolist() == [False, True, False]
    assert np.isfinite(columns["p_a"]).tolist() == [True, False, True]


# ---- symmetry averages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4, 8])
def test_average_is_the_same_for_turned_stamps(count: int) -> None:
    torch.manual_seed(0)
    one = task(classes=["a", "b"], normalisation={"scales": [10.0]}, symmetries=count)
    network = one.build_network("strided_cnn", {"widths": [4, 8]}).eval()
    steady = averaged(one, network)
    image = torch.randn(4, 1, 63, 63)
    with torch.inference_mode():
        straight = steady(image)
        assert (network(transform(image, ORDER[count - 1])) - network(image)).abs().max() > 1e-5
        for symmetry in ORDER[:count]:
            torch.testing.assert_close(steady(transform(image, symmetry)), straight, atol=1e-6, rtol=1e-5)
    assert averaged(one.with_settings(symmetries=1), network) is network


def test_cost_and_gain_of_averages() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 2000)
    sharp = np.clip(0.5 + 0.4 * (true - 0.5) + rng.normal(0, 0.1, 2000), 0.01, 0.99)
    dull = np.clip(0.5 + 0.4 * (true - 0.5) + rng.normal(0, 0.4, 2000), 0.01, 0.99)
    found = class_report.compared(
        {1: np.stack([1 - dull, dull], 1), 8: np.stack([1 - sharp, sharp], 1)}, true, {1: 1.0, 8: 8.0}, repeats=50
    )
    assert [row["cost"] for row in found] == [1, 8]
    assert found[0]["accuracy_gain"] == {"value": 0, "low": 0, "high": 0}
    gain = found[1]["accuracy_gain"]
    assert 0.1 < gain["low"] < gain["value"] < gain["high"]
    assert found[1]["objects_per_second"] == 250


# ---- what evaluate says ------------------------------------------------------------------------------------------


def measured(count: int = 3000, seed: int = 0) -> tuple[Measurements, torch.Tensor, pa.Table]:
    """Exact probabilities of a rare class at a training fraction of a half; one object failed."""
    rng = np.random.default_rng(seed)
    true = (rng.random(count) < 0.5).astype(np.int64)
    x = rng.normal(size=count) + 2 * true
    p = 1 / (1 + np.exp(-(2 * x - 2)))
    p[0] = np.nan
    kind = np.where(true == 1, "lens", np.where(np.arange(count) % 2, "spiral", "ring"))
    table = pa.table({"theta_e": np.where(true == 1, x, np.nan), "kind": kind})
    return Measurements({"p_none": 1 - p, "p_lens": p}), torch.from_numpy(true), table


def test_assessment_of_a_search() -> None:
    given, targets, table = measured()
    settings = {"positive": "lens", "search_bins": ["theta_e"], "negative_kind": "kind"}
    found, drawn = task(classes=["none", "lens"], **settings).assess(given, targets, table)
    assert (found["count"], found["failures"]) == (2999, 1)
    assert found["scores"]["ece"]["value"] < 0.04
    assert found["scores"]["accuracy"]["low"] < 0.8413 < found["scores"]["accuracy"]["high"]  # Phi(1)
    search = found["search"]
    assert search["auroc"]["low"] < 0.9214 < search["auroc"]["high"]  # Phi(2 / sqrt 2)
    assert [row["auroc"]["value"] for row in search["bins"]["theta_e"]] == sorted(
        row["auroc"]["value"] for row in search["bins"]["theta_e"]
    )
    assert set(search["kinds"]) == {"ring", "spiral"}
    rare = search["purity_at_completeness"][2]
    assert rare["purity"]["0.0001"] < rare["purity"]["0.001"] < 0.2
    assert {row["prior"] for row in search["thresholds"]} >= {1e-3, 1e-4}
    fractions = found["class_fractions"]
    assert abs(fractions["value"][1] - fractions["true"][1]) < 4 * fractions["error"][1]
    assert search["ece"]["value"] < 0.04
    assert search["ece"]["low"] < search["ece"]["high"]
    assert search["rank_weighted_score"]["low"] < search["rank_weighted_score"]["value"]
    lens = found["per_class"]["lens"]
    for name in ("precision", "recall", "f1", "auroc", "average_precision"):
        assert lens[name]["low"] < lens[name]["value"] < lens[name]["high"]
    for row in search["thresholds"]:
        assert row["purity_low"] <= row["purity"] <= row["purity_high"]
        assert row["false_positive_rate_low"] <= row["false_positive_rate"] <= row["false_positive_rate_high"]
    assert rare["purity_low"]["0.001"] < rare["purity"]["0.001"] < rare["purity_high"]["0.001"]
    assert rare["completeness_low"] < rare["completeness"] < rare["completeness_high"]
    assert set(drawn) == {"reliability", "reliability_search", "confusion", "curves", "purity"}


def test_assessment_under_another_prior_counts_objects_accordingly() -> None:
    given, targets, table = measured(6000)
    shifted = given.own["p_lens"] * 0.05 / (given.own["p_lens"] * 0.05 + (1 - given.own["p_lens"]) * 0.95)
    own = Measurements({"p_none": 1 - shifted, "p_lens": shifted})
    one = task(classes=["none", "lens"], training_prior=[0.5, 0.5])
    found, _ = one.with_prior({"lens": 0.05}).assess(own, targets, table)
    assert found["scores"]["ece"]["value"] < 0.03
    plain, _ = one.assess(own, targets, table)
    assert plain["scores"]["ece"]["value"] > 0.1


def test_balance_changes_labels_and_what_is_said_of_them_but_no_probability() -> None:
    outputs = torch.log(torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.95, 0.05]]))
    truth = torch.tensor([1, 1, 0])
    plain = task(classes=["a", "b"], training_prior=[0.9, 0.1], normalisation={"scales": [10.0]})
    even = plain.with_settings(balance=1.0)
    given = stamps(3)
    one, other = (each.to_columns(outputs, given, torch.zeros(3, dtype=torch.int32))[0] for each in (plain, even))
    np.testing.assert_array_equal(one["p_b"], other["p_b"])
    assert (one["label"].tolist(), other["label"].tolist()) == (["a", "a", "a"], ["b", "b", "a"])
    assert even.metrics(outputs, truth)["confusion"] == [[1, 0], [0, 2]]
    found, _ = even.assess(Measurements(other), truth, pa.table({"x": np.zeros(3)}))
    assert (found["scores"]["accuracy"]["value"], found["confusion"]) == (1.0, [[1, 0], [0, 2]])
    assert (
        found["scores"]["ece"] == plain.assess(Measurements(one), truth, pa.table({"x": [0.0] * 3}))[0]["scores"]["ece"]
    )
    survey = even.with_prior({"b": 0.5}).to_columns(outputs, given, torch.zeros(3, dtype=torch.int32))[0]
    assert survey["label"].tolist() == ["b", "b", "a"]  # balanced about the survey's fractions: the same
    with pytest.raises(InputError, match="from 0, the most probable class, to 1"):
        plain.with_settings(balance=1.5)
    with pytest.raises(InputError, match="multi_label"):
        task(classes=["a", "b"], multi_label=True, balance=0.5)


def test_assessment_of_several_labels() -> None:
    rng = np.random.default_rng(1)
    p = rng.random((2000, 2))
    targets = torch.from_numpy((rng.random((2000, 2)) < p).astype(np.float32))
    targets[:100, 1] = torch.nan
    one = task(classes=["a", "b"], multi_label=True)
    own = Measurements({"p_a": p[:, 0], "p_b": p[:, 1]})
    found, drawn = one.assess(own, targets, pa.table({"x": np.zeros(2000)}))
    assert found["examples"]["b"]["with"] + found["examples"]["b"]["without"] == 1900
    assert found["scores"]["ece"]["value"] < 0.05
    assert found["scores"]["mean_auroc"]["value"] == pytest.approx(5 / 6, abs=0.02)
    assert set(drawn) == {"reliability", "curves"}


def test_assessment_of_one_class_only_and_of_nothing() -> None:
    given, _, table = measured(500)
    found, drawn = task(classes=["none", "lens"], positive="lens").assess(
        given, torch.zeros(500, dtype=torch.int64), table
    )
    assert found["per_class"] == {}
    assert "search" not in found
    assert set(drawn) == {"reliability", "confusion"}
    nothing = Measurements({name: np.full(500, np.nan) for name in ("p_none", "p_lens")})
    with pytest.raises(InputError, match="none of the 500 objects could be measured"):
        task(classes=["none", "lens"]).assess(nothing, torch.zeros(500, dtype=torch.int64), table)


def test_refusals_of_many_classes_stay_short() -> None:
    known = [str(number) for number in range(5000)]
    with pytest.raises(InputError, match=r"'x' 1 times; the classes are 0, 1, .* and 4988 more: extend") as told:
        class_labels.refuse_unknown_labels(["x", "3"], known, "classes")
    assert len(str(told.value)) < 200


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "numbers", "votes", "several"])
def test_a_million_labels_in_bounded_memory(form: str) -> None:
    """Beside what the table itself takes; a Python object per label would be several times as much."""
    count, rng = 1_000_000, np.random.default_rng(0)
    kind = rng.integers(0, 3, count)
    table, settings = {
        "text": ({"label": np.array(["elliptical", "spiral", "edge_on"])[kind]}, {}),
        "numbers": ({"label": kind}, {"names": {"0": "a", "1": "b", "2": "b"}}),
        "votes": ({"a": kind / 4, "b": 1 - kind / 4, "n": kind + 5}, {"label_columns": ["a", "b"], "votes": "n"}),
        "several": ({"label": np.array(["bar;ring", "bar", ""])[kind]}, {"multi_label": True}),
    }[form]
    labels = pa.table(table)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    learned = task(**settings).fit_to_training(labels, stamps())  # type: ignore[arg-type]
    assert learned.usable(labels).all()
    assert len(learned.targets(labels)) == count
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300


def voting(**settings: object) -> ClassifyTask:
    return ClassifyTask(ClassifySettings(label_columns=("a", "b"), classes=("a", "b"), **settings))  # type: ignore[arg-type]


def test_dirichlet_multinomial_is_the_likelihood_of_numbers_of_votes() -> None:
    rng = np.random.default_rng(0)
    logits, votes = torch.from_numpy(rng.normal(0.5, 1, (6, 2))), torch.from_numpy(rng.integers(1, 9, (6, 2)) * 1.0)
    expected = 0.0
    for one, counts in zip(logits.exp().numpy(), votes.numpy().astype(int), strict=True):
        ways = math.lgamma(counts.sum() + 1) - sum(math.lgamma(count + 1) for count in counts)
        expected -= dirichlet_multinomial.logpmf(counts, one, counts.sum()) - ways
    found = voting(likelihood="dirichlet").loss(logits, votes)
    assert float(found) == pytest.approx(expected / float(votes.sum()), rel=1e-6)


def test_dirichlet_refuses_fractions_and_what_shapes_other_losses() -> None:
    table = pa.table({"a": [0.25, 0.5], "b": [0.75, 0.5]})
    with pytest.raises(InputError, match="needs numbers of votes, and these are fractions"):
        voting(likelihood="dirichlet").fit_to_training(table, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="without label_smoothing, focal or class_weights"):
        voting(likelihood="dirichlet", focal=2.0)
    with pytest.raises(InputError, match="is of numbers of votes"):
        ClassifySettings(likelihood="dirichlet")


def test_votes_are_judged_by_fractions_and_where_people_agree() -> None:
    rng = np.random.default_rng(1)
    true = rng.uniform(0, 1, 4000)
    votes = rng.binomial(20, true)
    p = np.stack([true, 1 - true], 1)
    p[7] = np.nan
    counts = np.stack([votes, 20 - votes], 1).astype(float)
    found, drawn = against_votes(p, counts, ("a", "b"), np.where(true > 0.5, 0, 1))
    told = found["fractions"]["a"]
    assert told["rms"] == pytest.approx(told["vote_noise"], rel=0.05)  # nothing but the chance of twenty people
    assert abs(told["bias"]) < 0.01
    assert all(abs(row["said"] - row["voted"]) < 4 * row["error"] for row in told["bins"])
    sure = found["confident"]
    share = np.maximum(votes, 20 - votes) / 20
    assert sure["count"] == (share[np.isfinite(p).all(1)] >= 0.8).sum()
    assert sure["accuracy"]["value"] > 0.98
    assert set(drawn) == {"votes"}
    assert against_votes(p, counts / 20, ("a", "b"), np.zeros(4000, int))[0]["fractions"]["a"]["vote_noise"] is None


def test_objects_with_no_votes_are_refused_or_left_out() -> None:
    table = pa.table({"a": [3, 0, 2], "b": [1, 0, 5]})
    assert voting(missing="leave_out").usable(table).tolist() == [True, False, True]
    with pytest.raises(InputError, match="1 of 3 objects have no label"):
        voting().targets(table)
