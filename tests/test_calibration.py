"""Temperature, prior shift, thresholds and corrected fractions against samples whose answers are known."""

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation import calibration, thresholds


def binary(count: int, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two unit Gaussians 2.5 apart: the exact probability at class fraction 0.5, and the truth."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < fraction
    x = rng.normal(size=count) + 2.5 * positive
    return 1 / (1 + np.exp(-(2.5 * x - 2.5**2 / 2))), positive


def test_temperature_is_recovered_for_both_kinds_of_classes():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20_000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chosen = (rng.random(20_000)[:, None] > p.cumsum(1)).sum(1)
    assert calibration.fit_temperature(3 * logits, np.eye(3)[chosen]) == pytest.approx(3, rel=0.03)
    assert calibration.fit_temperature(logits / 2, 40 * p) == pytest.approx(0.5, rel=0.001)  # votes
    each = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    each[:5000, 1] = np.nan
    assert calibration.fit_temperature(2 * logits, each, independent=True) == pytest.approx(2, rel=0.03)


def test_labels_of_more_balance_favour_rare_classes_and_raise_the_mean_recall():
    p, positive = binary(100_000, 0.5)
    shifted = np.stack([1 - p, p], 1) * [0.9, 0.1]
    both = shifted / shifted.sum(1, keepdims=True)
    weight = np.where(positive, 0.1, 0.9)
    called = [calibration.labels(both, [0.9, 0.1], balance) == 1 for balance in (0, 0.3, 1)]
    accuracy = [float(weight[label == positive].sum() / weight.sum()) for label in called]
    recall = [label[positive].mean() / 2 + (~label)[~positive].mean() / 2 for label in called]
    assert accuracy[0] > accuracy[1] > accuracy[2]
    assert recall[0] < recall[1] < recall[2]
    assert recall[1] - recall[0] > 3 * (accuracy[0] - accuracy[1])  # a little of the one buys much of the other
    assert (called[2] == (p > 0.5)).all()


def test_classes_that_are_not_given_share_what_is_left():
    found = calibration.full_prior({"a": 0.5}, ["a", "b", "c"], [0.2, 0.6, 0.2])
    np.testing.assert_allclose(found, [0.5, 0.375, 0.125])
    np.testing.assert_allclose(calibration.full_prior({"lens": 0.001}, ["lens", "none"], [0.5, 0.5]), [0.001, 0.999])
    alone = calibration.full_prior({"a": 0.9}, ["a", "b"], [0.2, 0.6], independent=True)
    np.testing.assert_allclose(alone, [0.9, 0.6])


@pytest.mark.parametrize(
    ("prior", "trained", "words"),
    [
        ({"d": 0.1}, [0.5, 0.5], "the classes are a, b"),
        ({"a": 1.5}, [0.5, 0.5], "between 0 and 1"),
        ({"a": 0.3, "b": 0.3}, [0.5, 0.5], "sum to 0.6"),
        ({"a": 0.3}, [], "train it again"),
    ],
)
def test_priors_that_make_no_sense_are_refused(prior, trained, words):
    with pytest.raises(InputError, match=words):
        calibration.full_prior(prior, ["a", "b"], trained)


def test_reliability_by_hand():
    found = calibration.reliability([0.1, 0.15, 0.9, 0.9], [False, True, True, True], bins=2)
    assert found["count"] == [2, 2]
    assert found["found"] == [0.5, 1.0]
    assert found["said"] == pytest.approx([0.125, 0.9])
    assert found["found_high"][1] == 1
    assert 0.3 < found["found_low"][1] < 0.4  # Wilson: 2 of 2
    weighted = calibration.reliability([0.1, 0.15], [False, True], bins=1, weight=[3, 1])
    assert weighted["found"] == [0.25]


@pytest.mark.parametrize("prior", [None, 0.05])
def test_chosen_purity_holds_on_other_objects(prior):
    p, positive = binary(200_000, 0.3, seed=1)
    choice = thresholds.choose_threshold(p, positive, purity=0.9, prior=prior)
    other, truth = binary(400_000, 0.3 if prior is None else prior, seed=2)
    passed = other >= choice.threshold
    assert truth[passed].mean() == pytest.approx(0.9, abs=0.015)
    assert passed[truth].mean() == pytest.approx(choice.completeness, abs=0.01)
    assert choice.purity_low < choice.purity
    assert choice.prior == pytest.approx(0.3 if prior is None else prior, abs=0.005)


def test_top_objects():
    choice = thresholds.choose_threshold([0.9, 0.8, 0.8, 0.1], [True, True, False, False], top=3)
    assert (choice.threshold, choice.completeness, choice.purity) == (0.8, 1.0, pytest.approx(2 / 3))
    assert thresholds.top_threshold([0.9, 0.8, 0.8, 0.1], 2) == 0.9  # the tie does not fit
    with pytest.raises(InputError, match="2 objects share the highest"):
        thresholds.top_threshold([0.9, 0.9], 1)


def test_a_sample_without_false_positive_vouches_for_one_only():
    curve = thresholds.ThresholdCurve.of(np.r_[np.ones(100), np.zeros(1000)], np.arange(1100) < 100)
    choice = curve.at(0.5, prior=1e-3)
    assert choice.false_positive_rate == 1e-3
    assert choice.purity == pytest.approx(1e-3 / (1e-3 + 0.999e-3))
    with pytest.raises(InputError, match=r"highest is 0\.5 .* more than 1000 negatives"):
        curve.for_purity(0.9, prior=1e-3)


def test_thinned_curve_chooses_nearly_the_same():
    p, positive = binary(50_000, 0.3)
    whole = thresholds.ThresholdCurve.of(p, positive)
    thin = thresholds.ThresholdCurve.from_json(whole.to_json())
    assert len(thin.threshold) <= 500 < len(whole.threshold)
    assert thin.for_purity(0.95).completeness == pytest.approx(whole.for_purity(0.95).completeness, abs=0.01)
    with pytest.raises(InputError, match="no curve"):
        thresholds.ThresholdCurve.from_json({"threshold": [1]})


def test_choosing_refuses_what_is_not_one_question():
    for given in ({}, {"purity": 0.5, "top": 3}):
        with pytest.raises(InputError, match="give one of"):
            thresholds.choose_threshold([0.1, 0.2], [True, False], **given)
    with pytest.raises(InputError, match="has 2 and 0"):
        thresholds.choose_threshold([0.1, 0.2], [True, True], purity=0.5)


CONFUSION = np.array([[900, 80, 20], [60, 300, 40], [10, 30, 160]])


def test_corrected_fractions_are_the_true_ones_and_errors_cover():
    rng = np.random.default_rng(3)
    rows = CONFUSION / CONFUSION.sum(1, keepdims=True)
    truth = np.array([0.2, 0.7, 0.1])
    pulls, inside = [], 0
    for draw in range(100):
        sampled = np.stack([rng.multinomial(n, row) for n, row in zip(CONFUSION.sum(1), rows)])
        counts = rng.multinomial(3000, truth @ rows)
        found = calibration.class_fractions(counts, sampled, repeats=200, seed=draw)
        pulls.append((np.array(found["value"]) - truth) / found["error"])
        inside += (np.array(found["low"]) <= truth).astype(int) @ (np.array(found["high"]) >= truth)
    assert abs(np.mean(pulls)) < 0.2
    assert 0.8 < np.std(pulls) < 1.2
    assert 0.9 < inside / 300 < 0.99
    assert abs(np.array(found["raw"])[0] - 0.2) > 0.02  # what is corrected


def test_fractions_never_turn_negative():
    found = calibration.class_fractions([1000, 10, 0], CONFUSION)
    assert min(found["value"]) >= 0
    assert min(found["low"]) >= 0
    assert sum(found["value"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("counts", "matrix", "words"),
    [
        ([0, 0], [[1, 0], [0, 1]], "need counts"),
        ([5, 5], [[1, 0], [0, 0]], "no example of 1 of 2"),
        ([5, 5], [[1, 1], [5, 5]], "do not tell the classes apart"),
    ],
)
def test_fractions_that_cannot_be_corrected_are_refused(counts, matrix, words):
    with pytest.raises(InputError, match=words):
        calibration.class_fractions(counts, matrix)
