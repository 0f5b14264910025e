"""Scores against scikit-learn, hand-made cases and known distributions."""

import numpy as np
import pytest
from sklearn import metrics

from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation import class_metrics, ranking_metrics


def _sample(n=600, classes=3, seed=1):
    rng = np.random.default_rng(seed)
    targets = rng.choice(classes, n, p=[0.6, 0.3, 0.1])
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets]
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True), targets


def test_confusion_counts_rows_true_columns_predicted():
    assert class_metrics.confusion([0, 0, 1, 2], [0, 1, 1, 0], 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_classification_agrees_with_scikit_learn():
    p, targets = _sample()
    found = {name: entry["value"] for name, entry in class_metrics.classification(p, targets, repeats=0).items()}
    chosen = p.argmax(1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(targets, chosen))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(targets, chosen))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(targets, chosen, average="macro"))
    assert found["nll"] == pytest.approx(metrics.log_loss(targets, p))
    assert found["brier"] == pytest.approx(((p - np.eye(3)[targets]) ** 2).sum(1).mean())


def test_calibration_error_by_hand():
    """Two objects at 0.8, one right; two at 0.6, both right: |0.5 - 0.8| / 2 + |1 - 0.6| / 2."""
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    assert class_metrics.classification(p, [0, 1, 0, 0], repeats=0)["ece"]["value"] == pytest.approx(0.35)


def test_interval_covers_and_has_binomial_width():
    p, targets = _sample(2000)
    found = class_metrics.classification(p, targets, repeats=400)["accuracy"]
    expected = 2 * 1.96 * np.sqrt(found["value"] * (1 - found["value"]) / 2000)
    assert found["low"] < found["value"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(expected, rel=0.2)
    assert class_metrics.classification(p, targets, repeats=400)["accuracy"] == found


def test_absent_class_is_left_out_of_the_means():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    found = class_metrics.classification(p, [0, 1], repeats=0)
    assert found["balanced_accuracy"]["value"] == found["macro_f1"]["value"] == 1


@pytest.mark.parametrize(
    ("p", "targets", "words"),
    [
        (np.zeros((0, 2)), [], "need probabilities"),
        ([[0.5, 0.5]], [0, 1], "need probabilities"),
        ([[np.nan, 0.5]], [0], "1 of 1 objects"),
        ([[0.5, 0.5]], [2], "there are 2 classes"),
    ],
)
def test_refuses_what_it_cannot_score(p, targets, words):
    with pytest.raises(InputError, match=words):
        class_metrics.classification(p, targets)


def test_auroc_agrees_with_scikit_learn_with_ties():
    rng = np.random.default_rng(2)
    positive = rng.random(500) < 0.2
    score = np.round(rng.normal(size=500) + positive, 1)
    assert ranking_metrics.auroc(score, positive) == pytest.approx(metrics.roc_auc_score(positive, score))


def test_rates_before_false_positives():
    """Ten negatives at 0 ... 9, positives between and above them, one tied with the highest."""
    negatives = np.arange(10.0)
    positives = np.array([9.5, 9.0, 8.5, -0.5])
    score = np.concatenate([positives, negatives])
    truth = np.arange(14) < 4
    assert ranking_metrics.Ranked(score, truth).tpr_before(0) == 0.25  # the tie does not pass
    assert ranking_metrics.Ranked(score, truth).tpr_before(1) == 0.25
    assert ranking_metrics.Ranked(score, truth).tpr_before(2) == 0.75  # before the second
    assert ranking_metrics.Ranked(score, truth).tpr_before(10) == 0.75
    assert ranking_metrics.Ranked(score, truth).tpr_before(11) == 1.0
    assert ranking_metrics.Ranked(score, truth).tpr_at_fpr(0.1) == 0.75
    assert ranking_metrics.Ranked(score, truth).tpr_at_fpr(0.0999) == 0.25


def test_ties_pass_together_or_not_at_all():
    truth = [True, True, False, False]
    assert ranking_metrics.Ranked([1, 1, 1, 0], truth).tpr_before(0) == 0
    assert ranking_metrics.Ranked([1, 1, 1, 1], truth).tpr_at_fpr(0.5) == 0
    assert ranking_metrics.auroc([1, 1, 1, 1], truth) == 0.5


def test_ranking_intervals_and_counts():
    rng = np.random.default_rng(3)
    truth = np.arange(11_000) < 1000
    score = rng.normal(size=11_000) + 2 * truth
    found = ranking_metrics.ranking(score, truth, repeats=100)
    assert (found["positives"], found["negatives"]) == (1000, 10_000)
    assert found["auroc"]["low"] < 0.9214 < found["auroc"]["high"]  # Phi(2 / sqrt 2)
    assert 0.006 < found["auroc"]["high"] - found["auroc"]["low"] < 0.03
    assert found["tpr0"]["value"] <= found["tpr10"]["value"] <= found["tpr_fpr_1e-3"]["value"]
    assert found["tpr0"]["value"] <= found["tpr_fpr_1e-4"]["value"]


@pytest.mark.parametrize(
    ("score", "truth", "words"),
    [
        ([1.0, np.nan], [True, False], "1 of"),
        ([1.0, 2.0], [True, True], "2 and 0"),
        ([1.0], [True, False], "per object"),
    ],
)
def test_ranking_refuses(score, truth, words):
    with pytest.raises(InputError, match=words):
        ranking_metrics.ranking(score, truth)


def test_draws_give_mean_and_scatter():
    positives = np.linspace(0.05, 0.95, 10)
    found = ranking_metrics.tpr_draws([[0.5, 0.1], [0.9, 0.2]], positives)
    assert found["tpr0"]["draws"] == [0.5, 0.1]
    assert found["tpr0"]["mean"] == pytest.approx(0.3)
    assert found["tpr0"]["scatter"] == pytest.approx(np.std([0.5, 0.1], ddof=1))
    assert (found["negatives"], found["positives"]) == (2, 10)
    with pytest.raises(InputError, match="one size"):
        ranking_metrics.tpr_draws([[0.5], [0.9, 0.2]], positives)


def test_rank_weighted_score_by_hand():
    assert ranking_metrics.rank_weighted_score([3, 2, 1], [True, True, False]) == 1
    assert ranking_metrics.rank_weighted_score([3, 2, 1], [False, True, True]) == pytest.approx(1 / 3)
    assert ranking_metrics.rank_weighted_score([3, 3, 1], [True, False, False]) == 0  # the tie goes to the negative


def test_a_fraction_of_all_or_none_has_an_interval():
    """Six of six: 95 % from 0.61 on (Wilson); every bootstrap sample has six of six."""
    truth = np.array([0, 1, 0, 1, 0, 1])
    found = class_metrics.classification(np.eye(2)[truth] * 0.98 + 0.01, truth)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert found[name]["low"] == pytest.approx(6 / (6 + 1.96**2), abs=1e-3)
    none = class_metrics.classification(np.eye(2)[1 - truth], truth)["accuracy"]
    assert (none["value"], none["low"]) == (0, 0)
    assert none["high"] == pytest.approx(1 - 6 / (6 + 1.96**2), abs=1e-3)
    rates = ranking_metrics.ranking(truth + 0.0, truth == 1)
    assert rates["tpr_fpr_1e-3"]["low"] == pytest.approx(3 / (3 + 1.96**2), abs=1e-3)
