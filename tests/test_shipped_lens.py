"""The bundle `lens`, on galaxies it never saw, and the command that makes it, on a small scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation import ranking_metrics
from astroml_plugin.simulation import LensSet
from astroml_plugin.training import bundle as bundles
from astroml_plugin.training import measure_labelled as evaluation
from astroml_plugin.training.bundle import ModelBundle
from bundles import lens as making

torch.set_num_threads(1)


def test_it_ships_within_its_size() -> None:
    assert "lens" in bundles.shipped()
    folder = Path(bundles.locate("lens"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    assert (folder / "README.md").exists()
    task = ModelBundle.load("lens").task()
    assert task.bands == ("g", "r", "i")
    assert (task.stamp_size, task.settings.classes, task.settings.positive) == (64, ("other", "lens"), "lens")
    assert task.settings.temperature != 1.0
    assert sum(task.settings.training_prior) == pytest.approx(1.0)


@pytest.mark.slow
def test_it_finds_fresh_lenses() -> None:
    pytest.importorskip("lenstronomy")
    made = LensSet(512, seed=985, block=512, variance=False).make(0)
    lens = np.array(made.table["class"].to_pylist()) == "lens"
    model = ModelBundle.load("lens")
    cutouts = from_stamps(made.image, None, None, bands=("g", "r", "i"), pixel_scale=0.2, zero_points=[31.4] * 3)
    found = evaluation.columns(model.task(), model.network(fused=True), cutouts)
    assert ranking_metrics.auroc(found["p_lens"], lens) > 0.95
    assert found["p_lens"].mean() == pytest.approx(lens.mean(), abs=0.05)
    turned = evaluation.columns(
        model.task(),
        model.network(fused=True),
        from_stamps(
            *(np.ascontiguousarray(made.image.swapaxes(2, 3)), None, None),
            bands=("g", "r", "i"),
            pixel_scale=0.2,
            zero_points=[31.4] * 3,
        ),
    )
    assert np.corrcoef(turned["p_lens"], found["p_lens"])[0, 1] > 0.95


@pytest.mark.slow
def test_the_simulation_is_not_easy(tmp_path) -> None:
    """Total flux, colour and asymmetry must not tell lenses."""
    source = making.training_set(3072, 71).made(str(tmp_path))
    assert 0.6 < making.easiness(source, 3072) < making.EASIEST


@pytest.mark.slow
def test_the_command_makes_a_bundle(tmp_path) -> None:
    pytest.importorskip("lenstronomy")
    recipe = making.lens_recipe()
    small = replace(
        recipe,
        training=replace(recipe.training, epochs=1, ema=0.0),
        network_arguments={"widths": [8, 8]},
        split=replace(recipe.split, fractions=(0.6, 0.2, 0.2)),
    )
    made = making.make(out=str(tmp_path / "lens"), scratch=str(tmp_path), scale=0.001, recipe=small)
    assert made.card.metrics["test"]["count"] > 15
    again = making.make(out=str(tmp_path / "lens"), scratch=str(tmp_path), scale=0.001, recipe=small)
    assert again.sha256 == made.sha256


def test_an_easy_set_is_refused(tmp_path, monkeypatch) -> None:
    pytest.importorskip("lenstronomy")
    monkeypatch.setattr(making, "EASIEST", 0.3)
    from astroml_plugin.core.errors import InputError

    with pytest.raises(InputError, match="harden"):
        making.make(out=str(tmp_path / "lens"), scratch=str(tmp_path), scale=0.001)
