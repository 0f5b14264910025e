import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation.baselines import classical
from astroml_plugin.evaluation.baselines.classical import METHODS, Classifier


def sample(
    count: int, seed: int, shares: tuple[float, ...] = (0.6, 0.3, 0.1)
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three overlapping classes, seen by every kind of input; a few blanks and a constant column."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(shares), count, p=shares)
    table = {}
    for number, kind in enumerate(("features", "pixels", "gabor", "edges", "simple")):
        values = rng.normal(0, 1, (count, 60)).astype(np.float32)
        values[:, 0] += 2.5 * truth
        values[:, 1] -= 2.0 * (truth == 1)
        values[:, 2] = 4.0
        values[rng.random(values.shape) < 0.01 * (number == 0)] = np.nan
        table[kind] = values
    table["features"][:, 5] = np.nan
    return table, truth


def fitted(name: str, count: int = 400, **settings) -> tuple[Classifier, np.ndarray, np.ndarray]:
    train, validation, test = (sample(number, seed) for seed, number in enumerate((count, 200, 400)))
    made = Classifier(name, *train, *validation, classes=3, **settings)
    return made, made.probabilities(test[0]), test[1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("adaboost_both", "adaboost_pca", "mlp_both") else name
        for name in METHODS
        if "forest" not in name and "boosting" not in name
    ],
)
def test_every_method_learns_and_gives_probabilities(name: str) -> None:
    made, found, truth = fitted(name)
    assert found.shape == (400, 3)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found >= 0).all()
    assert (found.argmax(1) == truth).mean() > 0.75
    assert abs(found.mean(0) - np.bincount(truth) / 400).max() < 0.08
    assert made.trained == 400


@pytest.mark.parametrize("name", ["random_forest", "gradient_boosting"])
def test_ensembles_learn_too(name: str) -> None:
    _, found, truth = fitted(name, 200)
    assert (found.argmax(1) == truth).mean() > 0.8


@pytest.mark.parametrize("name", ["svm", "mlp", "cart"])
def test_seeds_repeat_and_weights_are_undone(name: str) -> None:
    _, first, truth = fitted(name, seed=3)
    _, again, _ = fitted(name, seed=3)
    np.testing.assert_array_equal(first, again)
    _, weighted, _ = fitted(name, seed=3, weights=(0.5, 1.1, 3.3))
    assert not np.array_equal(weighted, first)
    assert abs(weighted.mean(0) - np.bincount(truth) / 400).max() < 0.1


def test_probabilities_of_the_svm_are_calibrated() -> None:
    _, found, truth = fitted("svm", 800)
    confidence, right = found.max(1), found.argmax(1) == truth
    assert abs(confidence.mean() - right.mean()) < 0.05
    sure = confidence > 0.95
    assert sure.sum() > 50
    assert right[sure].mean() > 0.93


def test_a_class_that_training_has_not_seen_gets_no_probability() -> None:
    train, validation, test = (sample(200, seed, (0.5, 0.5)) for seed in range(3))
    for name in ("svm", "cart", "mlp"):
        found = Classifier(name, *train, *validation, classes=3).probabilities(test[0])
        assert found.shape == (200, 3)
        assert found[:, 2].max() < 0.01
    with pytest.raises(InputError, match="two classes or more"):
        Classifier("cart", train[0], np.zeros(200, int), *validation, classes=3)


def test_large_samples_are_cut_for_methods_that_grow_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "svm", classical.Method(("features",), METHODS["svm"].make, largest=150))
    assert fitted("svm")[0].trained == 150


def test_unknown_methods_are_one_sentence() -> None:
    with pytest.raises(InputError, match="no classical method 'forest': there are cart, bagging, random_forest"):
        Classifier("forest", {}, np.zeros(2, int), {}, np.zeros(2, int), classes=2)
