"""Probability densities of a number: mixtures, their cells, PIT and CRPS, and a recipe that measures redshifts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from training_samples import gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation import density_metrics
from astroml_plugin.simulation.redshifts import RedshiftSet
from astroml_plugin.simulation.seds import distances, fluxes
from astroml_plugin.tasks.density import DensityTask, mixture
from astroml_plugin.training.bundle import ModelBundle
from workflows.evaluate import evaluate
from workflows.simulate import simulate
from workflows.train import train

torch.set_num_threads(1)

RECIPE = """
task = "density"
[settings]
target = "flux"
scale = "SCALE"
components = 3
cells = 40
[settings.normalisation]
unit = "scale"
stretch = "linear"
background = "none"
[network_arguments]
widths = [8, 16]
hidden = 24
pooling = "grid"
[training]
epochs = 10
batch_size = 32
learning_rate = 0.01
[split]
fractions = [0.7, 0.15, 0.15]
[typicality]
fit = false
"""


def task(**settings: object) -> DensityTask:
    given = {"target": "z", "limits": (0.0, 2.0), "centre": 0.3, "spread": 0.2, "bands": ["r"], **settings}
    return DensityTask.from_settings(given)  # type: ignore[return-value]


def outputs(*gaussians_: tuple[float, float, float]) -> torch.Tensor:
    """One row of outputs whose Gaussians have these weights, means and widths."""
    weights, means, widths = (torch.tensor(values, dtype=torch.float64) for values in zip(*gaussians_, strict=True))
    part = (widths.log() - mixture._NARROWEST) / (mixture._WIDEST - mixture._NARROWEST)
    return torch.cat([weights.log(), means, torch.logit(part)])[None]


def test_cells_quantiles_and_surprise_are_those_of_the_mixture() -> None:
    given = outputs((0.7, -0.5, 0.3), (0.3, 1.0, 0.1))
    edges = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    cells = mixture.cell_probabilities(given, edges, 1.0)
    assert float(cells.sum()) == pytest.approx(1, abs=1e-12)

    def below(x: float) -> float:
        return float(0.7 * stats.norm.cdf(x, -0.5, 0.3) + 0.3 * stats.norm.cdf(x, 1.0, 0.1))

    for level in (0.05, 0.5, 0.683, 0.95):
        found = float(mixture.quantile(cells, edges, level)[0])
        assert below(found) == pytest.approx(level, abs=3e-4)
    for place in (-0.5, 0.3, 1.0):
        density = 0.7 * stats.norm.pdf(place, -0.5, 0.3) + 0.3 * stats.norm.pdf(place, 1.0, 0.1)
        expected = -math.log(density * (1 - 1e-4) + 1e-4 * stats.norm.pdf(place, 0, 4))
        assert float(mixture.surprise(given, torch.tensor([place]), 1.0)[0]) == pytest.approx(expected, rel=1e-6)
    wide = mixture.surprise(given, torch.tensor([-0.5]), 2.0)
    assert float(wide) > float(mixture.surprise(given, torch.tensor([-0.5]), 1.0))
    assert torch.isfinite(mixture.surprise(given, torch.tensor([1e6]), 1.0)).all()


def test_columns_agree_with_the_density() -> None:
    one = task(cells=400)
    assert [column.name for column in one.columns()] == ["z", "z_mode", "z_err", "z_err95", "z_low", "z_high", "z_pdf"]
    found = one.decode(outputs((1.0, 0.5, 0.25)), None)  # type: ignore[arg-type]
    middle = math.expm1(0.3 + 0.2 * 0.5)
    assert found["z"][0] == pytest.approx(middle, abs=2e-3)
    assert found["z_mode"][0] == pytest.approx(middle, abs=5e-3)
    assert found["z_err"][0] == pytest.approx(0.2 * 0.25 * (1 + middle), rel=0.03)
    assert found["z_err95"][0] == pytest.approx(1.96 * 0.2 * 0.25 * (1 + middle), rel=0.03)
    assert found["z_low"][0] < found["z"][0] < found["z_high"][0]
    assert found["z_pdf"].shape == (1, 400)
    assert found["z_pdf"].sum() == pytest.approx(1, abs=1e-5)
    for name, values in one.graph_columns(outputs((1.0, 0.5, 0.25)), None).items():  # type: ignore[arg-type]
        np.testing.assert_allclose(values.numpy(), found[name], rtol=1e-5)


def test_pit_is_even_and_crps_right_where_truth_follows_the_density() -> None:
    rng = np.random.default_rng(0)
    edges = np.linspace(-4, 4, 81)
    centre, width = rng.normal(0, 0.5, 3000), rng.uniform(0.3, 0.6, 3000)
    cells = np.diff(stats.norm.cdf(edges, centre[:, None], width[:, None]), axis=1)
    cells /= cells.sum(1, keepdims=True)
    truth = rng.normal(centre, width)
    told = density_metrics.figures_of(centre, truth, cells, edges, "linear", 1.0, repeats=50)
    assert told["coverage_683"]["low"] < 0.683 < told["coverage_683"]["high"]
    assert told["coverage_95"]["low"] < 0.95 < told["coverage_95"]["high"]
    assert told["pit_ks"]["value"] < 1.63 / math.sqrt(3000)
    assert told["sigma_nmad"]["value"] == pytest.approx(1.4826 * stats.median_abs_deviation(centre - truth))
    narrow = np.diff(stats.norm.cdf(edges, centre[:, None], width[:, None] / 2), axis=1)
    narrow /= narrow.sum(1, keepdims=True)
    worse = density_metrics.figures_of(centre, truth, narrow, edges, "linear", 1.0, repeats=10)
    assert worse["coverage_683"]["value"] < 0.45
    assert worse["crps"]["value"] > told["crps"]["value"]

    def score(row: int) -> float:
        x = np.linspace(-4, 4, 200_001)
        below = np.interp(x, edges, np.concatenate([[0], np.cumsum(cells[row])]))
        return float(np.trapezoid(np.square(below - (x > truth[row])), x))

    found = density_metrics.crps(cells, edges, truth)
    for row in (0, 7, 50):
        assert found[row] == pytest.approx(score(row), rel=1e-3)


def test_labels_that_have_no_place_are_refused() -> None:
    with pytest.raises(InputError, match="0 or less for 1 of 2 objects, and has no place in the scale 'log'"):
        task(scale="log", limits=(0.1, 2.0)).targets(pa.table({"z": [0.0, 1.0]}))
    with pytest.raises(InputError, match="-1 or less for 1 of 2"):
        task().targets(pa.table({"z": [-9.0, 1.0]}))
    with pytest.raises(InputError, match="NaN, infinite or null for 1 of 2"):
        task().targets(pa.table({"z": [None, 1.0]}))
    with pytest.raises(InputError, match="must rise"):
        task(limits=(1.0, 0.5))
    with pytest.raises(InputError, match="have no place in the scale 'log'"):
        task(scale="log", limits=(0.0, 1.0))


@pytest.mark.parametrize("scale", ["log1p", "linear"])
def test_a_recipe_measures_a_number_with_a_density_that_holds(tmp_path: Path, scale: str) -> None:
    rng = np.random.default_rng(2)
    flux = rng.uniform(0.5, 3, 400)
    image = gaussians(np.zeros((400, 2)), rng) * flux[:, None, None, None].astype(np.float32)
    url = write_stamps(str(tmp_path / "s.zarr"), image[..., :16, :16].copy(), {"flux": flux.tolist()})
    (tmp_path / "r.toml").write_text(RECIPE.replace("SCALE", scale))
    result = train(tmp_path / "r.toml", data=url, out=tmp_path / "b")
    test = result.metrics["test"]
    assert test["rmse"] < 0.6 * density_metrics.relative(np.full(400, flux.mean()), flux, scale).std()
    assert 0.4 < test["coverage_683"] < 0.95
    settings = ModelBundle.load(tmp_path / "b").card.settings
    assert settings["stamp_size"] == 16  # that of the stamps, whatever other tasks take
    low, high = settings["limits"]
    assert low < 0.55 < 2.9 < high
    found = evaluate(url, bundle=tmp_path / "b", out=tmp_path / "e")
    told = found.metrics["catalog"]["densities"]["flux"]
    assert told["sigma_nmad"]["value"] == pytest.approx(test["sigma_nmad"], rel=0.02)
    assert sum(told["pit"]) == told["count"]
    assert {"density.png", "residuals.png"} <= set(found.figures)


def test_colours_redden_as_the_break_moves_through_the_bands() -> None:
    bands = ("g", "r", "i", "z", "y")
    z = np.array([0.05, 0.35, 0.8])
    old = -2.5 * np.log10(fluxes(bands, z, np.zeros(3), np.zeros(3), 1.5))
    assert (np.diff(old[:, 0] - old[:, 1])[:1] > 0.4).all()  # 4000 A leaves g
    assert old[2, 1] - old[2, 2] > old[0, 1] - old[0, 2] + 0.5  # and r at z 0.8
    young = -2.5 * np.log10(fluxes(bands, z, np.ones(3), np.zeros(3), 1.5))
    assert (young[:, 0] - young[:, 1] < old[:, 0] - old[:, 1] - 0.3).all()
    dusty = -2.5 * np.log10(fluxes(bands, z, np.ones(3), np.full(3, 0.4), 1.5))
    assert ((dusty - young)[:, 0] > (dusty - young)[:, 3]).all()
    with pytest.raises(InputError, match="not through Ks"):
        fluxes(("Ks",), z, np.zeros(3), np.zeros(3), 1.5)


def test_distances_are_those_of_astropy() -> None:
    from astropy.cosmology import FlatLambdaCDM

    redshift, found = distances(1.5)
    expected = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0).comoving_distance(redshift[1::200]).value
    np.testing.assert_allclose(found[1::200], expected, rtol=1e-4)


def test_simulated_redshifts_are_alike_in_any_blocks_and_keep_flux_and_noise(tmp_path: Path) -> None:
    whole = RedshiftSet(96, seed=4, block=96).make(0)
    flux = 10 ** (-0.4 * (np.stack([whole.table[f"mag_{band}"] for band in "grizy"], 1) - 31.4))
    ratio = whole.image.sum((2, 3)) / flux
    assert np.median(ratio[:, 1:4]) == pytest.approx(1, abs=0.02)
    assert whole.table["mag_i"].to_numpy().max() < 22.5
    assert whole.table["redshift"].to_numpy().min() > 0
    noise = np.sqrt(whole.variance[0, :, 0, 0])  # type: ignore[index]
    edge = stats.median_abs_deviation(whole.image[:, :, 0, :], axis=(0, 2), scale="normal")
    assert (edge < 1.15 * noise).all()
    again = simulate(out=tmp_path, kind="stamps", preset="redshifts", count=40, seed=4, bands=("r", "i", "z"))
    assert again.rows == 40
    with pytest.raises(InputError, match="have their own galaxies and camera"):
        simulate(out=tmp_path / "x", kind="stamps", preset="redshifts", count=4, density=3.0)
    with pytest.raises(InputError, match=r"a highest of 0\.05 to 2"):
        RedshiftSet(10, highest=5.0)
