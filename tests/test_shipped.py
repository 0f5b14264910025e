"""The bundle that ships, on galaxies it never saw, and the command that makes it, on a small scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.simulation import make_design, preset
from astroml_plugin.simulation.postage import Block
from astroml_plugin.training import bundle as bundles
from astroml_plugin.training.bundle import ModelBundle
from bundles import ellipticity as making

torch.set_num_threads(1)


def block(name: str, count: int = 1024, **changes) -> Block:
    pytest.importorskip("galsim")
    return replace(preset(name), count=count, block=count, seed=987, **changes).make(0)


def measured(made: Block) -> tuple[dict[str, np.ndarray], np.ndarray]:
    model = ModelBundle.load("ellipticity")
    task, network = model.task(), model.network(fused=True)
    given = from_stamps(made.image, made.variance, made.psf, bands=("any",), pixel_scale=0.2)
    with torch.inference_mode():
        inputs, flags = task.prepare(given)
        return task.to_columns(network(*inputs), given, flags)


def test_it_ships_within_its_size() -> None:
    assert "ellipticity" in bundles.shipped()
    folder = Path(bundles.locate("ellipticity"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    assert (folder / "README.md").exists()
    task = ModelBundle.load("ellipticity").task()
    assert task.settings.any_band
    assert task.settings.response
    assert task.stamp_size == 48


@pytest.mark.parametrize("name", bundles.shipped())
def test_no_network_holds_numbers_that_some_processors_are_slow_with(name: str) -> None:
    network = ModelBundle.load(name).network()
    for item in (*network.parameters(), *network.buffers()):
        assert not ((item != 0) & (item.abs() < 1e-37)).any()


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


def test_one_galaxy_under_two_psfs_is_one_galaxy() -> None:
    pairs = block("field-varying", 512, snr=(60.0, 60.0), design=make_design("psf"))
    columns, _ = measured(pairs)
    for e in ("e1", "e2"):
        change = (columns[e][::2] - columns[e][1::2]) / columns[f"{e}_err"][::2]
        assert np.abs(change).mean() < 0.2  # under PSFs of ellipticity +-0.05 that move raw moments by several errors


@pytest.mark.parametrize(
    ("damage", "finite", "flag"),
    [
        ("stamp of NaN", False, ObjectFlag.NONFINITE),
        ("variance of 0", False, ObjectFlag.NONFINITE),
        ("negative variance", False, ObjectFlag.NONFINITE),
        ("half off the tile", True, ObjectFlag.OUT_OF_DOMAIN),
        ("masked core", True, ObjectFlag.OUT_OF_DOMAIN),
        ("no PSF", True, ObjectFlag.NO_PSF),
        ("not square, too narrow", True, ObjectFlag.EDGE),
        ("not square, too high", True, ObjectFlag(0)),
        ("PSF of 24 pixels, any sum", True, ObjectFlag(0)),
        ("other units", True, ObjectFlag(0)),
    ],
)
def test_what_is_wrong_with_a_stamp_is_flagged(damage: str, finite: bool, flag: ObjectFlag) -> None:
    made = block("field-varying", 64, snr=(50.0, 100.0))
    image, variance, psf = (np.array(plane) for plane in (made.image, made.variance, made.psf))
    usual, flags = measured(made)
    assert not flags.any()
    if damage == "stamp of NaN":
        image[:] = np.nan
    elif "variance" in damage:
        variance *= 0 if "0" in damage else -1
    elif damage == "half off the tile":
        variance[..., 24:] = 0
    elif damage == "masked core":
        variance[..., 23:26, 23:26] = 0
    elif damage == "no PSF":
        psf[:] = 0
    elif "narrow" in damage:
        image, variance = image[..., 6:42], variance[..., 6:42]
    elif "high" in damage:
        image, variance = (np.pad(x, ((0, 0), (0, 0), (6, 6), (0, 0)), mode="edge") for x in (image, variance))
    elif "PSF of 24" in damage:
        psf = 321.0 * psf[..., 1:, 1:]
    elif damage == "other units":
        image, variance = 1e5 * image + 1e7, 1e10 * variance
    columns, flags = measured(Block(image, variance, psf, made.table))
    assert np.isfinite(columns["e1"]).all() == finite
    assert np.isfinite(columns["e1"]).any() == finite
    assert (flags & int(flag) == int(flag)).mean() > 0.95
    if not flag:
        assert not flags.any()
        np.testing.assert_allclose(columns["e1"], usual["e1"], atol=0.01)


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
