from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from training_samples import NO_TYPICALITY, gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.tasks.intervals import ErrorScale
from astroml_plugin.tasks.regression.task import RegressTask
from astroml_plugin.training.bundle import ModelBundle
from workflows.evaluate import evaluate
from workflows.train import train

torch.set_num_threads(1)

RECIPE = """
task = "regress"
[settings]
targets = ["e1", "brightness"]
logarithmic = ["brightness"]
units = { brightness = "ct" }
stamp_size = 24
[settings.normalisation]
unit = "scale"
stretch = "asinh"
[network_arguments]
widths = [8, 16]
hidden = 24
pooling = "grid"
[training]
epochs = 12
batch_size = 32
learning_rate = 0.01
ema = 0.9
augment = false
[split]
fractions = [0.7, 0.15, 0.15]
"""


def task(**settings) -> RegressTask:
    return RegressTask.from_settings({"targets": ["size", "flux"], "logarithmic": ["flux"], "bands": ["r"], **settings})


def labels(count: int = 100) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"size": rng.normal(4, 2, count), "flux": rng.lognormal(3, 1, count)})


def stamps(count: int) -> object:
    image = np.random.default_rng(1).normal(size=(count, 1, 48, 48)).astype(np.float32)
    return from_stamps(image, None, None, bands=("r",))


def test_targets_are_standardised_and_come_back() -> None:
    table, given = labels(), stamps(100)
    one = task().fit_to_training(table, given)
    targets = one.targets(table)
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(targets.std(0, correction=0), 1, atol=1e-5)
    outputs = torch.zeros(100, one.outputs)
    outputs[:, :2] = targets
    columns, _ = one.to_columns(outputs, given, torch.zeros(100, dtype=torch.int32))
    assert list(columns) == [column.name for column in one.columns()]
    np.testing.assert_allclose(columns["size"], table["size"], rtol=1e-4)
    np.testing.assert_allclose(columns["flux"], table["flux"], rtol=1e-4)
    assert (columns["flux_err95"] >= columns["flux_err"]).all()
    np.testing.assert_allclose(
        columns["flux_err"] / columns["flux"], columns["flux_err"][0] / columns["flux"][0], rtol=1e-4
    )


def test_members_are_averaged_and_their_scatter_widens_the_errors() -> None:
    one = task(members=3)
    agreeing = torch.zeros(2, one.outputs)
    torn = agreeing.clone()
    torn[:, 0], torn[:, 8] = 0.9, -0.9
    same, wide = one.intervals(agreeing), one.intervals(torn)
    np.testing.assert_allclose(wide.mean[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(wide.narrow[:, 0] ** 2, same.narrow[:, 0] ** 2 + 0.81, rtol=1e-5)
    assert (wide.wide[:, 0] > same.wide[:, 0] + 1).all()
    np.testing.assert_allclose(wide.narrow[:, 1], same.narrow[:, 1])


def test_error_scale_holds_the_contents_for_good_and_poor_objects() -> None:
    generator = torch.Generator().manual_seed(0)
    one = task()
    outputs, offset = torch.zeros(8000, one.outputs), torch.randn(8000, 2, generator=generator)
    good = torch.arange(8000) % 2 == 0
    outputs[good, 2:4] = -2.0
    outputs[:, 2:4] += 0.02 * torch.rand(8000, 2, generator=generator)
    width = torch.where(good[:, None], 0.7 * np.exp(-2.0), 1.6)  # the network is wrong by different factors
    targets = offset * width
    merit = one.calibrate(outputs, targets).metrics
    for chosen in (good, ~good):
        found = merit(outputs[chosen], targets[chosen])
        np.testing.assert_allclose(found["coverage_683"], 0.683, atol=0.025)
        np.testing.assert_allclose(found["coverage_95"], 0.95, atol=0.012)
        np.testing.assert_allclose(found["pull_half_width"], 1.0, atol=0.05)


@pytest.mark.parametrize("loss", ["likelihood", "squared", "absolute", "huber"])
def test_every_point_loss_is_least_at_the_truth(loss: str) -> None:
    one = task(point_loss=loss)
    targets = torch.zeros(1000, 2) + 0.2 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))

    def value(shift: float) -> float:
        outputs = torch.zeros(1000, one.outputs)
        outputs[:, :2] = shift
        return float(one.loss(outputs, targets))

    assert value(0.0) < min(value(0.1), value(-0.1))


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(InputError, match="a regression needs targets"):
        RegressTask.from_settings({"bands": ["r"]})
    with pytest.raises(InputError, match="unknown key 'flx' in logarithmic: did you mean 'flux'"):
        task(logarithmic=["flx"])
    with pytest.raises(InputError, match="'flux' is 0 or less for 1 of 2 objects and has no logarithm"):
        task().targets(pa.table({"size": [1.0, 2.0], "flux": [0.0, 1.0]}))
    with pytest.raises(InputError, match="as many factors"):
        ErrorScale((0.0,), (1.0, 2.0), (1.0,))


def test_trained_by_recipe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    e = rng.uniform(-0.4, 0.4, (500, 2))
    brightness = rng.lognormal(1, 0.5, 500)
    image = gaussians(e, rng) * brightness[:, None, None, None].astype(np.float32)
    source = write_stamps(str(tmp_path / "s.zarr"), image, {"e1": e[:, 0], "brightness": brightness})
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE + NO_TYPICALITY)
    result = train(recipe, data=source, out=tmp_path / "values")
    assert result.metrics["test"]["rmse"][0] < 0.12
    assert result.metrics["test"]["rmse"][1] < 0.2
    columns = [column.name for column in ModelBundle.load(tmp_path / "values").task().columns()]
    assert columns == ["e1", "e1_err", "e1_err95", "brightness", "brightness_err", "brightness_err95"]
    assert evaluate(source, bundle=tmp_path / "values", out=tmp_path / "e").figures
    constant = write_stamps(str(tmp_path / "c.zarr"), image, {"e1": e[:, 0], "brightness": np.ones(500)})
    with pytest.raises(InputError, match="'brightness' is 1 for all"):
        train(recipe, data=constant, out=tmp_path / "b")
