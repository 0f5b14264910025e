"""Figures of merit, errors of the input, and `evaluate` on a bundle with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.catalog import shear_sums
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.evaluation import input_errors, shape_report
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.value_metrics import value_figures
from tests.test_baselines import ellipse, gaussian
from tests.training_samples import gaussians, write_stamps
from tests.universe import make_bundle
from workflows.cli import main
from workflows.evaluate import evaluate

torch.set_num_threads(1)


def stamps(psf: np.ndarray, variance: float = 4.0) -> Cutouts:
    image = np.zeros((3, 1, 24, 24), np.float32)
    return from_stamps(image, np.full_like(image, variance), np.stack([psf[None]] * 3), bands=("r",), pixel_scale=0.2)


@pytest.mark.parametrize("size", [31, 32])
def test_a_psf_error_is_the_map_it_says(size: int) -> None:
    given = stamps(gaussian(ellipse(0.02, 0.01, 1.8), size))
    grown = input_errors.psf_error(given, growth=0.01).psf
    sheared = input_errors.psf_error(given, e1=0.005, e2=-0.003).psf
    assert grown is not None
    assert sheared is not None
    np.testing.assert_allclose(grown[0, 0], gaussian(ellipse(0.02, 0.01, 1.8 * 1.01), size), atol=2e-5)
    peak = float(grown.max())
    np.testing.assert_allclose(sheared[0, 0], gaussian(ellipse(0.025, 0.007, 1.8), size), atol=2e-3 * peak)


def test_background_and_noise_errors_are_in_units_of_the_noise() -> None:
    given = stamps(gaussian(ellipse(0, 0, 1.8), 15))
    assert float(input_errors.background_error(given, sigmas=0.1).image.mean()) == pytest.approx(0.2)
    many = from_stamps(
        np.zeros((200, 1, 48, 48), np.float32), np.full((200, 1, 48, 48), 4.0, np.float32), None, bands=("r",)
    )
    for correlated, wanted in ((False, 0.0), (True, 0.2)):
        noisy = input_errors.more_noise(many, correlated=correlated)
        pixels = noisy.image[:, 0].numpy()
        assert pixels.std() == pytest.approx(2.0, rel=0.01)
        assert (pixels[..., 1:] * pixels[..., :-1]).mean() / 4 == pytest.approx(wanted, abs=0.01)
        assert noisy.variance is not None
        assert float(noisy.variance[0, 0, 0, 0]) == 8.0
        assert torch.equal(noisy.image, input_errors.more_noise(many, correlated=correlated).image)


def sample(count: int = 4000, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, pa.Table]:
    """Columns that are the truth, shrunk by 0.8, with Gaussian errors of 0.05; their labels."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-0.4, 0.4, (count, 2))
    found = 0.8 * truth + 0.01 + rng.normal(0, 0.05, truth.shape)
    half = 0.05 * np.ones(count)
    columns = {"e1": found[:, 0], "e2": found[:, 1], "e1_err": half, "e2_err": half}
    columns |= {"e1_err95": 1.96 * half, "e2_err95": 1.96 * half, "r12": 0 * half, "r21": 0 * half}
    columns |= {"r11": 0.8 + 0 * half, "r22": 0.8 + 0 * half}
    labels = {
        "object_id": np.arange(count),
        **{"e1": truth[:, 0], "e2": truth[:, 1], "snr": rng.uniform(10, 200, count)},
        **{"half_light_radius": rng.uniform(0.3, 1, count), "psf_e1": rng.uniform(-0.05, 0.05, count)},
        "psf_e2": rng.uniform(-0.05, 0.05, count),
    }
    return columns, truth, pa.table(labels)


def test_merit_recovers_what_was_put_in() -> None:
    columns, truth, table = sample()
    shrunk = dict(columns, e1=columns["e1"] * 1.1, e2=columns["e2"])
    failing = dict(columns, e1=np.where(np.arange(len(truth)) % 10 == 0, np.nan, columns["e1"]))
    measured = Measurements(columns, {"PSF": shrunk}, {"hsm": failing})
    found, drawn = shape_report.assess(measured, truth, table)
    np.testing.assert_allclose(found["all"]["slope"], -0.2, atol=0.01)
    np.testing.assert_allclose(found["all"]["offset"], 0.01, atol=0.004)
    low, high = np.array(found["all"]["slope_interval"]).T
    assert (low < found["all"]["slope"]).all()
    assert (found["all"]["slope"] < high).all()
    assert set(found["snr_bins"]) == {"10-20", "20-50", "50-100", "100-200"}
    assert found["perturbed"]["PSF"]["gain"][0][0] == pytest.approx(0.1, abs=0.01)
    assert found["perturbed"]["PSF"]["gain"][1] == [0.0, 0.0]
    assert found["baselines"]["hsm"]["successes"]["all"]["failures"] == 400
    assert found["baselines"]["hsm"]["failures_as_0"]["all"]["rmse"][0] > found["all"]["rmse"][0]
    assert abs(found["shear"]["alpha"][0][0]) < 4 * found["shear"]["alpha"][0][1]
    assert found["response"]["value"][0][1] == pytest.approx(0.8)
    wanted = {"measured", "accuracy_snr", "accuracy_size", "errors", "response", "robustness"}
    assert set(drawn) == {f"ellipticity_{name}" for name in wanted}


def test_coverage_and_pull_of_exact_errors() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(-0.3, 0.3, (20000, 2))
    half = np.full_like(truth, 0.1)
    found = value_figures(truth + rng.normal(0, 0.1, truth.shape), truth, (half, 1.96 * half), repeats=20)
    np.testing.assert_allclose(found["coverage_683"], 0.683, atol=0.01)
    np.testing.assert_allclose(found["coverage_95"], 0.95, atol=0.005)
    np.testing.assert_allclose(found["pull_half_width"], 1.0, atol=0.02)


def test_branches_give_m_c_and_alpha() -> None:
    names = np.tile(shear_sums.BRANCHES, 200)
    rng = np.random.default_rng(0)
    g = np.stack([np.char.startswith(names, f"+g{k}") - 1.0 * np.char.startswith(names, f"-g{k}") for k in (1, 2)], 1)
    psf = np.where(names == "+psf", 0.05, np.where(names == "-psf", -0.05, 0.0))
    shape = (
        np.repeat(rng.normal(0, 0.2, (200, 2)), 10, axis=0) * np.where(np.char.endswith(names, "90"), -1, 1)[:, None]
    )
    e = 0.5 * (shape + 1.02 * 0.02 * g + 0.1 * psf[:, None])
    half, none = np.full(len(e), 0.5), np.zeros(len(e))
    columns = {"e1": e[:, 0], "e2": e[:, 1], "r11": half, "r12": none, "r21": none, "r22": half}
    labels = {"set_id": np.repeat(np.arange(200), 10), "branch": names, "g1": 0.02 * g[:, 0], "g2": 0.02 * g[:, 1]}
    found = shape_report.shear_report(columns, pa.table(labels | {"psf_e1": psf, "psf_e2": psf}))
    np.testing.assert_allclose(np.array(found["m"])[:, 0], 0.02, atol=1e-10)
    np.testing.assert_allclose(np.array(found["alpha"])[:, 0], 0.1, atol=1e-10)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Labelled stamps with PSF, and a bundle of random weights."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    e = rng.uniform(-0.4, 0.4, (200, 2))
    labels = {"e1": e[:, 0], "e2": e[:, 1], "snr": rng.uniform(10, 200, 200)}
    psf = np.stack([gaussian(ellipse(0, 0, 1.2), 9)[None]] * 200)
    url = write_stamps(str(folder / "stamps.zarr"), gaussians(e, rng), labels, psf=psf)
    bundle = make_bundle(str(folder / "shapes"), task="ellipticity", size=24, psf="required", psf_size=9, any_band=True)
    return url, bundle


def test_evaluate_reports_the_catalog_columns(stored: tuple[str, str], tmp_path: Path) -> None:
    result = evaluate(stored[0], bundle=stored[1], out=tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["catalog"]
    assert found["all"]["count"] == result.objects == 200
    assert set(found["perturbed"]) == set(input_errors.USUAL)
    assert "baselines" not in found  # no variance: their noise is not known
    for name in result.figures:
        assert (tmp_path / name).stat().st_size > 5000


def test_evaluate_verb_chooses_baselines_and_robustness(
    stored: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", stored[0], "--bundle", stored[1], "--out", str(tmp_path), "--no-robustness"]
    assert main([*common, "--json"]) == 0
    assert "perturbed" not in json.loads(capsys.readouterr().out)["metrics"]["catalog"]
    assert main([*common, "--baselines", "moments"]) == 2
    assert "variance" in capsys.readouterr().err
    assert main([*common, "--baselines", "nonsense"]) == 2
    assert "hsm" in capsys.readouterr().err
