"""The bundle that ships, on galaxies it never saw, and the command that makes it, on a small scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin import bundle as bundles
from astroml_plugin.bundle import ModelBundle
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.flags import ObjectFlag
from astroml_plugin.simulation import make_block, make_design, preset
from astroml_plugin.simulation.postage import Block
from workflows.shipped import ellipticity as making

torch.set_num_threads(1)


def block(name: str, count: int = 1024, **changes) -> Block:
    pytest.importorskip("galsim")
    return make_block(replace(preset(name), count=count, block=count, seed=987, **changes), 0)


def measured(made: Block) -> tuple[dict[str, np.ndarray], np.ndarray]:
    model = ModelBundle.load("ellipticity")
    task, network = model.task(), model.network(fused=True)
    given = from_stamps(made.image, made.variance, made.psf, bands=("any",), pixel_scale=0.2)
    with torch.inference_mode():
        inputs, flags = task.prepare(given)
        return task.predict(network(*inputs), given, flags)


def test_it_ships_within_its_size() -> None:
    assert "ellipticity" in bundles.shipped()
    folder = Path(bundles.locate("ellipticity"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    assert (folder / "README.md").exists()
    task = ModelBundle.load("ellipticity").task()
    assert task.settings.any_band
    assert task.settings.response
    assert task.stamp_size == 48


@pytest.mark.parametrize("name", ["field-fixed", "field-varying"])
def test_it_measures_fresh_galaxies(name: str) -> None:
    made = block(name)
    columns, flags = measured(made)
    truth = {e: made.table[e].to_numpy() for e in ("e1", "e2", "snr")}
    for low, high, limit in ((10, 20, 0.135), (20, 50, 0.083), (50, 100, 0.044), (100, 200, 0.026)):
        chosen = (truth["snr"] >= low) & (truth["snr"] < high)
        offset = np.stack([columns[e][chosen] - truth[e][chosen] for e in ("e1", "e2")])
        assert np.sqrt(np.mean(offset**2)) < limit
    pull = np.concatenate([(columns[e] - truth[e]) / columns[f"{e}_err"] for e in ("e1", "e2")])
    assert np.mean(np.abs(pull) < 1) == pytest.approx(0.683, abs=0.04)
    assert all(np.isfinite(values).all() for name, values in columns.items() if "sky" not in name and "pos" not in name)
    assert np.mean(flags & int(ObjectFlag.OUT_OF_DOMAIN) > 0) < 0.1


def test_shear_from_ellipticities_and_responses() -> None:
    made = block("field-fixed", 256, design=make_design("shear"))
    columns, _ = measured(made)
    for component in (0, 1):
        g = made.table[f"g{component + 1}"].to_numpy()
        chosen = g != 0
        slope = np.mean(columns[f"e{component + 1}"][chosen] * np.sign(g[chosen])) / 0.02
        assert slope / columns[f"r{component + 1}{component + 1}"][chosen].mean() == pytest.approx(1.0, abs=0.05)


def test_stars_and_noise_are_flagged() -> None:
    stars = block("field-fixed", 256, population=replace(preset("field-fixed").population, star_fraction=1.0))
    _, flags = measured(stars)
    assert np.mean(flags & int(ObjectFlag.OUT_OF_DOMAIN) > 0) > 0.5
    faint = block("field-fixed", 256, snr=(1.0, 1.0))
    columns, flags = measured(faint)
    assert np.mean(flags & int(ObjectFlag.OUT_OF_DOMAIN) > 0) > 0.95
    assert np.isfinite(columns["e1"]).all()


@pytest.mark.slow
def test_the_command_makes_a_bundle(tmp_path: Path) -> None:
    pytest.importorskip("galsim")
    recipe = making.ellipticity_recipe()
    small = replace(recipe, training=replace(recipe.training, epochs=2, batch_size=64))
    made = making.make(out=str(tmp_path / "ellipticity"), scratch=str(tmp_path / "data"), scale=0.005, recipe=small)
    assert made.name == "ellipticity"
    assert made.task().settings.response
    assert made.card.metrics["response"]["pairs"][0] > 64
    assert made.card.metrics["response"]["leakage"]["pairs"] > 64
    again = making.make(out=str(tmp_path / "ellipticity"), scratch=str(tmp_path / "data"), scale=0.005, recipe=small)
    assert again.sha256 == made.sha256
    weights = making.make(
        out=str(tmp_path / "other"), scratch=str(tmp_path / "data"), scale=0.005, weights=str(tmp_path / "ellipticity")
    )
    assert weights.card.training["sources"] == made.card.training["sources"]
