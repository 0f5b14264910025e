"""Restored galaxies: the filter, the network behind it, and what is said with the pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.networks.tikhonet import blurred, moffat, restored
from astroml_plugin.simulation import LightSet, preset
from astroml_plugin.simulation.profiles import Psf, psf_image
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.restoration.task import WARNING, RestoreTask, shape_bias
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from workflows.evaluate import evaluate
from workflows.infer import infer
from workflows.query import query
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import train

torch.set_num_threads(1)


def block(count: int = 48, seed: int = 3, snr: tuple[float, float] = (100.0, 200.0)):
    """Galaxies with the truth of their pixels."""
    one = preset("restoration")
    assert isinstance(one, LightSet)
    return replace(one, count=count, block=count, seed=seed, snr=snr).make(0)


def tiny() -> Recipe:
    recipe = read_recipe("restore")
    arguments = {"widths": [8, 16], "depth": [1, 1], "head": 8}
    training = replace(recipe.training, epochs=6, batch_size=24, ema=0.9, learning_rate=0.003)
    split = replace(recipe.split, fractions=(0.8, 0.1, 0.1))
    return replace(recipe, network_arguments=arguments, training=training, split=split)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Stamps and the bundle trained on them."""
    folder = tmp_path_factory.mktemp("restore")
    source = simulate(out=str(folder / "sim"), preset="restoration", count=240, seed=4, block=120).source
    return source, train(tiny(), data=source, out=str(folder / "bundle")).bundle


def test_the_sharp_psf_is_that_of_the_simulation() -> None:
    ours = moffat(2.0, 25).numpy()
    theirs = psf_image(Psf("moffat", 0.4, 0.0, 0.0), 25, 0.2)
    assert np.abs(ours / ours.sum() - theirs / theirs.sum()).max() < 2e-3


def test_blurring_the_truth_gives_the_observed_galaxy() -> None:
    found = block()
    truth, psf = torch.from_numpy(found.truth.astype(np.float32)), torch.from_numpy(found.psf)
    seen = blurred(truth, psf / psf.sum((2, 3), keepdim=True), moffat(2.0, 48))
    chi2 = ((seen.numpy() - found.image) ** 2 / found.variance).mean()
    assert chi2 == pytest.approx(1.0, abs=0.1)


def test_the_filter_is_sharper_than_the_image() -> None:
    found = block()
    psf = torch.from_numpy(found.psf)
    image, truth = torch.from_numpy(found.image / 2.5), torch.from_numpy(found.truth.astype(np.float32) / 2.5)
    filtered = restored(image, psf / psf.sum((2, 3), keepdim=True), moffat(2.0, 48))
    assert (filtered - truth).square().mean() < 0.5 * (image - truth).square().mean()


def test_training_restores_and_turned_stamps_are_the_same_task(made: tuple[str, str]) -> None:
    model = ModelBundle.load(made[1])
    task = model.task()
    assert isinstance(task, RestoreTask)
    assert task.layers == ("sharp_r",)
    found = block(32, seed=77, snr=(30.0, 200.0))
    given = from_stamps(found.image, found.variance, found.psf, bands=("r",), pixel_scale=0.2)
    with torch.inference_mode():
        inputs, flags = task.prepare(given)
        outputs = model.network()(*inputs)
        values, _ = task.to_columns(outputs, given, flags)
    truth = torch.from_numpy(found.truth)
    assert task.psnr(outputs, truth).mean() > task.psnr(torch.from_numpy(found.image).flatten(1), truth).mean()
    assert values["restored"].shape == (32, 48 * 48)
    assert np.median(values["restored_chi2"]) == pytest.approx(1.0, abs=0.25)
    turned = task.transform_targets(truth, SYMMETRIES[3])
    assert torch.equal(turned, transform(truth, SYMMETRIES[3]))


def test_a_catalog_of_pixels_says_that_they_are_not_for_measuring(made: tuple[str, str], tmp_path: Path) -> None:
    result = infer(made[0], bundle=made[1], out=str(tmp_path / "catalog"))
    assert (result.rows, result.units_failed) == (240, 0)
    schema = Catalog.open(result.catalog).schema
    assert WARNING in str(schema.field("restored").metadata)
    table = query(result.catalog, "SELECT restored, restored_chi2 FROM catalog LIMIT 3").to_arrow()
    assert len(table["restored"][0]) == 48 * 48
    assert "not for measuring" in ModelBundle.load(made[1]).card.description
    report = evaluate(made[0], bundle=made[1], out=str(tmp_path / "report"))
    assert {"psnr", "ellipticity_m", "flux_bias", "size_bias"} <= set(report.metrics)


def test_shape_bias_of_a_dimmed_and_rounded_image() -> None:
    truth = torch.from_numpy(block(64).truth.astype(np.float32))
    exact = shape_bias(truth, truth)
    assert exact["ellipticity_m"] == pytest.approx(0, abs=1e-5)
    assert exact["flux_bias"] == 0
    rounder = 0.9 * 0.5 * (truth + truth.transpose(2, 3))
    found = shape_bias(rounder, truth)
    assert found["ellipticity_m"] < -0.2
    assert found["flux_bias"] == pytest.approx(-0.1, abs=1e-3)


def test_what_cannot_be_restored_is_refused(made: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        RestoreTask.from_settings({"bands": ["r"], "pixel_scale": 0.2, "stamp_size": 42}).build_network(
            "unet", {"widths": [8, 16], "depth": [1, 1]}
        )
    with pytest.raises(InputError, match="pixel scale"):
        RestoreTask.from_settings({"bands": ["r"], "stamp_size": 48}).build_network("unet", {})
    with pytest.raises(InputError, match="needs the PSF"):
        RestoreTask.from_settings({"psf": "none"})
    recipe = replace(tiny(), settings={**tiny().settings, "stamp_size": 40})
    with pytest.raises(InputError, match="leave stamp_size at 0"):
        train(recipe, data=made[0], out=str(tmp_path / "a"))
    plain = simulate(out=str(tmp_path / "plain"), count=120, seed=4).source
    with pytest.raises(InputError, match=r"no truth|has none"):
        train(tiny(), data=plain, out=str(tmp_path / "b"))


def test_light_without_noise_and_its_truth() -> None:
    base = preset("light")
    assert isinstance(base, LightSet)
    quiet = replace(base, count=8, block=8, seed=2)
    loud = replace(quiet, noise=True, sharp_fwhm=0.4)
    first, second = quiet.make(0), loud.make(0)
    difference = (second.image - first.image) / np.sqrt(second.variance)
    assert difference.std() == pytest.approx(1.0, abs=0.03)
    assert first.truth is None
    assert second.truth.shape == (8, 1, 48, 48)
    assert (second.truth.max((1, 2, 3)) > first.image.max((1, 2, 3))).all()
    with pytest.raises(InputError, match="two pixels"):
        replace(base, sharp_fwhm=0.1)


def test_stamps_keep_the_truth(made: tuple[str, str]) -> None:
    assert Stamps.open(made[0]).layers == ("sharp_r",)
