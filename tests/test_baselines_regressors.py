import numpy as np
import pytest
from training_samples import gaussians

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.baselines import regressors
from astroml_plugin.evaluation.baselines.features import INPUTS
from astroml_plugin.evaluation.baselines.moment_features import moment_features
from astroml_plugin.evaluation.baselines.regressors import METHODS, Regressor


def sample(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two numbers, one of them a curve of what is seen, in units of their own."""
    rng = np.random.default_rng(seed)
    table, x = {}, rng.uniform(-1, 1, (count, 2))
    for kind in ("features", "moments", "pixels"):
        values = rng.normal(0, 1, (count, 8)).astype(np.float32)
        values[:, :2] = x + rng.normal(0, 0.05, (count, 2))
        table[kind] = 30 * values if kind == "pixels" else values
    table["features"][rng.random((count, 8)) < 0.01] = np.nan
    return table, np.stack([5.0 + 100 * x[:, 0], 1e-3 * np.square(x[:, 1])], axis=1)


@pytest.mark.parametrize("name", [name for name in METHODS if not name.endswith("_pca")])
def test_every_regressor_learns(name: str) -> None:
    train, validation, test = (sample(count, seed) for seed, count in enumerate((240, 100, 200)))
    made = Regressor(name, *train, *validation)
    found = made.values(test[0])
    assert found.shape == (200, 2)
    scatter = (found - test[1]).std(0) / test[1].std(0)
    assert scatter[0] < 0.6
    assert scatter[1] < (1.2 if "linear" in name else 0.8)
    assert made.trained == 240


def test_seeds_repeat_and_mistakes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation, test = (sample(count, seed) for seed, count in enumerate((80, 40, 40)))
    one, two, other = (Regressor("mlp", *train, *validation, seed=seed).values(test[0]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    with pytest.raises(InputError, match="no classical method 'cart' for numbers: there are linear, random_forest"):
        Regressor("cart", *train, *validation)
    with pytest.raises(InputError, match="svm needs two training objects or more, not 1"):
        Regressor("svm", {kind: table[:1] for kind, table in train[0].items()}, train[1][:1], *validation)
    monkeypatch.setitem(METHODS, "svm", regressors.Method(("features",), METHODS["svm"].make, largest=30))
    assert Regressor("svm", *train, *validation).trained == 30


def test_moments_turn_with_the_stamp_and_see_the_psf() -> None:
    rng = np.random.default_rng(0)
    e = rng.uniform(-0.3, 0.3, (40, 2))
    image = gaussians(e, rng, 0.005)
    psf = gaussians(np.tile([[0.2, 0.0]], (40, 1)), rng, 0.0)
    cutouts = from_stamps(image, None, psf, bands=("r",))
    found = dict(zip(moment_features(cutouts).names, moment_features(cutouts).values.T))
    assert INPUTS["moments"] is moment_features
    for name, truth in (("e1_4", e[:, 0]), ("e2_4", e[:, 1])):
        assert np.corrcoef(found[name], truth)[0, 1] > 0.97
    assert (found["psf_e1_2.5"] > 0.05).all()
    assert abs(found["psf_e2_2.5"]).max() < 0.01
    blank = from_stamps(np.zeros((2, 1, 24, 24), np.float32), None, None, bands=("r",))
    values = moment_features(blank).values
    assert values.shape == (2, 16)
    assert not np.isinf(values).any()
