"""Shear formulas and the verb, on ellipticities whose response, bias and leakage are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog, Column, schema, shear_sums
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.hashing import hashed_blocks
from astroml_plugin.evaluation import shear as formulas
from astroml_plugin.evaluation.bootstrap import resampled_sums
from workflows.cli import main
from workflows.shear import shear

SHAPES = ("e1", "e2", "e1_sky", "e2_sky")
RESPONSE = ("r11", "r12", "r21", "r22")
SELECTED = ("snr", *(f"size{end}" for end in ("", "_1p", "_1m", "_2p", "_2m")), "half", "half_1p")
COLUMNS = tuple(Column(name, "float32") for name in (*SHAPES, *RESPONSE, *SELECTED))


def catalog(folder: Path, values: dict[str, np.ndarray], units: int = 3) -> str:
    """A catalog of the values; what is not given is 0, responses 0.5 on the diagonal."""
    count = len(values["e1"])
    made = Catalog.create(str(folder), schema(COLUMNS), {"source": folder.name})
    run = made.start_run({"kind": "infer"})
    filled = {column.name: np.zeros(count) for column in COLUMNS} | {
        "r11": np.full(count, 0.5),
        "r22": np.full(count, 0.5),
    }
    filled |= values
    infos = []
    for number, part in enumerate(np.array_split(np.arange(count), units)):
        rows = {
            "object_id": part,
            **{"image": pa.array(["im"] * len(part)), "tile": pa.array([f"t{number}"] * len(part))},
            **{"x": np.zeros(len(part)), "y": np.zeros(len(part))},
            **{"ra": pa.nulls(len(part), pa.float64()), "dec": pa.nulls(len(part), pa.float64())},
            **{"primary": np.ones(len(part), bool), "flags": np.zeros(len(part), np.int32)},
            **{column.name: filled[column.name][part].astype(np.float32) for column in COLUMNS},
        }
        infos.append(made.write_part(f"im_{number}", "a" * 16, pa.table(rows)))
    made.commit_manifest(run, infos)
    made.finish_run(run)
    return str(folder)


def branches(sets: int, m: float, c: float, alpha: float, seed: int = 0) -> tuple[dict, pa.Table]:
    """Columns and labels of sets of 10 branches with the biases m, c and the leakage alpha; response 0.5."""
    rng = np.random.default_rng(seed)
    names = np.tile(shear_sums.BRANCHES, sets)
    number = np.repeat(np.arange(sets), 10)
    g, psf = np.zeros((10 * sets, 2)), np.zeros((10 * sets, 2))
    for component in (0, 1):
        for sign in (1, -1):
            g[np.char.startswith(names, f"{'+-'[sign < 0]}g{component + 1}"), component] = 0.02 * sign
    psf[names == "+psf"], psf[names == "-psf"] = (0.03, 0.02), (-0.03, -0.02)
    turned = np.where(np.char.endswith(names, "/90"), -1, 1)[:, None]
    shape = rng.normal(0, 0.2, (sets, 2))[number] * turned
    e = 0.5 * (shape + (1 + m) * g + c + alpha * psf) + rng.normal(0, 0.01, (10 * sets, 2))
    labels = {"object_id": np.arange(10 * sets), "set_id": number, "branch": names, "g1": g[:, 0], "g2": g[:, 1]}
    return {"e1": e[:, 0], "e2": e[:, 1]}, pa.table(labels | {"psf_e1": psf[:, 0], "psf_e2": psf[:, 1]})


def close(estimate: formulas.Estimate, wanted: float) -> bool:
    return abs(estimate.value - wanted) < 4 * estimate.error


def test_shear_is_the_inverse_of_the_whole_response() -> None:
    response = np.array([[0.5, 0.1], [-0.05, 0.7]])
    g = np.array([0.03, -0.02])
    np.testing.assert_allclose(formulas.shear(response @ g, response), g, atol=1e-15)
    assert not np.isfinite(formulas.shear(g, np.zeros((2, 2)))).any()


def test_bootstrap_error_is_that_of_a_mean() -> None:
    e = np.random.default_rng(0).normal(0, 0.3, (20000, 2))
    terms = shear_sums.weighted({"e1": e[:, 0], "e2": e[:, 1], "r11": np.ones(20000), "r22": np.ones(20000)})
    sums = shear_sums.block_sums(terms, hashed_blocks(np.arange(20000), shear_sums.BLOCKS))[:, 0]
    g = formulas.mean_shear(resampled_sums(sums, 400, 1))
    assert formulas.Estimate.of(g[:, 0]).error == pytest.approx(0.3 / np.sqrt(20000), rel=0.15)
    assert (resampled_sums(sums, 5, 1) == resampled_sums(sums, 5, 1)).all()


def test_selection_response_of_metacalibration_restores_the_shear() -> None:
    """A cut on a quantity that shear moves biases <e>; the response of the cut takes it out."""
    rng = np.random.default_rng(3)
    count, g, step = 400_000, 0.03, 0.01
    shape = rng.normal(0, 0.2, count)
    size = rng.normal(0, 1, count)

    def passes(e: np.ndarray) -> np.ndarray:
        return size + 2 * e**2 > 0.1

    e = shape + g
    kept = passes(e)
    plain = e[kept].mean()
    terms = shear_sums.weighted({"e1": e, "e2": np.zeros(count), "r11": np.ones(count), "r22": np.ones(count)})
    parts = [terms[passes(e + sign * step)].sum(0) for sign in (1, -1)]
    selection = formulas.selection_from_metacalibration(np.stack([parts, [terms.sum(0)] * 2]), step)
    corrected = formulas.mean_shear(terms[kept].sum(0), selection)[0]
    assert plain > g * 1.02
    assert corrected == pytest.approx(g, rel=0.02)
    assert selection[0, 0] > 0.02


def test_bias_and_leakage_of_branches(tmp_path: Path) -> None:
    values, labels = branches(2000, m=0.01, c=0.002, alpha=0.05)
    result = shear(catalog(tmp_path / "c", values), labels=labels, bootstrap=200)
    bias = result.total.bias
    assert bias is not None
    assert close(bias.m1, 0.01)
    assert close(bias.m2, 0.01)
    assert close(bias.c1, 0.002)
    assert close(bias.c2, 0.002)
    assert bias.m1.error < 0.02  # the shapes cancel in the pairs: 0.16 without
    assert result.total.leakage is not None
    assert close(result.total.leakage[0], 0.05)
    assert result.total.leakage[0].error < 0.02
    assert result.objects == 20_000
    assert result.selection_response == "none"


def test_the_true_shear_goes_by_two_names() -> None:
    assert shear_sums.label_columns(["shear_g1", "g2", "psf_e1", "e1"]) == {
        "g1": "shear_g1",
        "g2": "g2",
        "psf1": "psf_e1",
    }


def test_no_bias_and_no_leakage_where_there_is_none(tmp_path: Path) -> None:
    values, labels = branches(500, m=0.0, c=0.0, alpha=0.0, seed=4)
    total = shear(catalog(tmp_path / "c", values), labels=labels, bootstrap=200).total
    assert total.bias is not None
    assert close(total.bias.m1, 0.0)
    assert close(total.bias.c2, 0.0)
    assert total.leakage is not None
    assert close(total.leakage[1], 0.0)


def selected_branches(folder: Path, seed: int) -> tuple[str, pa.Table]:
    """Branches whose S/N follows |e|, so that a cut on it biases the mean."""
    values, labels = branches(3000, m=0.0, c=0.0, alpha=0.0, seed=seed)
    rng = np.random.default_rng(seed + 100)
    size = rng.normal(15, 1, 3000)[labels["set_id"].to_numpy()]
    values["snr"] = size + 60 * (values["e1"] ** 2 + values["e2"] ** 2)
    return catalog(folder, values), labels


def test_selection_response_from_a_calibration_with_other_seeds(tmp_path: Path) -> None:
    test, labels = selected_branches(tmp_path / "test", 1)
    other, theirs = selected_branches(tmp_path / "calibration", 2)
    plain = shear(test, labels=labels, where="snr > 15", bootstrap=100)
    better = shear(test, labels=labels, where="snr > 15", calibration=other, calibration_labels=theirs, bootstrap=100)
    assert plain.total.bias is not None
    assert better.total.bias is not None
    assert plain.total.bias.m1.value > 5 * plain.total.bias.m1.error
    assert close(better.total.bias.m1, 0.0)
    assert better.selection_response == "calibration"


def test_a_sample_does_not_calibrate_itself(tmp_path: Path) -> None:
    test, labels = selected_branches(tmp_path / "test", 1)
    with pytest.raises(InputError, match="the same stamps as the catalog: simulate its branches with another seed"):
        shear(test, labels=labels, calibration=test, calibration_labels=labels)


def test_selection_response_is_of_each_components_own_galaxies() -> None:
    names = ("e1", "e2", *RESPONSE, "g1", "g2")
    sums = np.zeros((2, 2, len(shear_sums.FIELDS)))
    own = ((0.8, 0.1, 0.2, 0.7), (0.6, 0.3, 0.4, 0.5))  # R11, R12, R21, R22 of the galaxies sheared along 1, along 2
    for component, response in enumerate(own):
        for sign in (0, 1):
            g = np.zeros(2)
            g[component] = 0.02 - 0.04 * sign
            e = (np.reshape(response, (2, 2)) + 0.05) @ g  # what is selected responds with 0.05 more
            values = {name: np.full(3, value) for name, value in zip(names, (*e, *response, *g))}
            sums[component, sign] = shear_sums.weighted(values).sum(0)
    np.testing.assert_allclose(formulas.selection_from_branches(sums), 0.05, atol=1e-12)


def test_a_catalog_without_response_takes_all_of_it_from_the_calibration(tmp_path: Path) -> None:
    nothing = {name: np.full(20_000, np.nan) for name in RESPONSE}
    values, labels = branches(2000, m=0.0, c=0.0, alpha=0.0, seed=7)
    others, theirs = branches(2000, m=0.0, c=0.0, alpha=0.0, seed=8)
    test = catalog(tmp_path / "test", {**values, **nothing})
    calibration = catalog(tmp_path / "calibration", {**others, **nothing})
    with pytest.raises(InputError, match="20000 have no finite"):
        shear(test)
    found = shear(test, labels=labels, calibration=calibration, calibration_labels=theirs, bootstrap=100).total
    assert found.bias is not None
    assert close(found.bias.m1, 0.0)
    assert found.selection_response is not None
    assert found.selection_response[0][0] == pytest.approx(0.5, abs=0.05)


def test_selection_response_from_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    e = rng.normal(0, 0.2, (2, 60000)) + np.array([[0.03], [0.0]])
    noise = rng.normal(0, 1, 60000)
    shifts = {"": (0, 0), "_1p": (0.01, 0), "_1m": (-0.01, 0), "_2p": (0, 0.01), "_2m": (0, -0.01)}
    size = {f"size{end}": noise + 2 * ((e[0] + s1) ** 2 + (e[1] + s2) ** 2) for end, (s1, s2) in shifts.items()}
    ones = dict.fromkeys(("r11", "r22"), np.ones(60000))
    made = catalog(tmp_path / "c", {"e1": e[0], "e2": e[1], **ones, **size})
    found = shear(made, where="size > 0.1")
    assert found.selection_response == "columns"
    assert found.total.selection_response is not None
    assert found.total.selection_response[0][0] > 0.03
    assert close(found.total.g1, 0.03)
    assert shear(made).selection_response == "none"
    with pytest.raises(InputError, match="half_2p"):
        shear(made, where="half > -1")


def test_bins_by_edges_numbers_and_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    snr = rng.uniform(10, 100, 3000)
    e = np.where(snr < 50, 0.01, 0.02) + rng.normal(0, 0.05, 3000)
    made = catalog(tmp_path / "c", {"e1": e, "e2": -e, "e1_sky": -e, "e2_sky": e, "snr": snr})
    found = shear(made, by="snr", edges=(10, 50, 100))
    assert [item.name for item in found.bins] == ["10-50", "50-100"]
    assert close(found.bins[0].g1, 0.02)
    assert close(found.bins[1].g2, -0.04)
    assert sum(item.count for item in found.bins) == found.total.count == 3000
    equal = shear(made, by="snr", bins=4)
    assert [item.count for item in equal.bins] == [750] * 4
    values = shear(made, by="tile", resample_by="tile")
    assert [item.name for item in values.bins] == ["t0", "t1", "t2"]
    sky = shear(made, frame="sky", to=str(tmp_path / "shear.csv"))
    assert sky.total.g1.value == pytest.approx(-found.total.g1.value, rel=1e-5)
    assert (tmp_path / "shear.csv").read_text().count("\n") == 2


def test_objects_without_numbers_are_counted(tmp_path: Path) -> None:
    e = np.full(100, 0.01)
    e[:7] = np.nan
    result = shear(catalog(tmp_path / "c", {"e1": e, "e2": e}))
    assert (result.objects, result.rejected) == (93, 7)
    with pytest.raises(InputError, match="no object"):
        shear(str(tmp_path / "c"), where="snr > 1e9")


def test_a_truth_of_the_same_name_is_called_true(tmp_path: Path) -> None:
    e = np.linspace(0, 0.1, 100)
    made = catalog(tmp_path / "c", {"e1": e, "e2": e})
    labels = pa.table({"object_id": np.arange(100), "e1": np.repeat([0.0, 1.0], 50)})
    assert shear(made, labels=labels, where="true_e1 > 0.5").objects == 50
    with pytest.raises(InputError, match="more than once"):
        shear(made, labels=pa.table({"object_id": np.zeros(3, np.int64)}))


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    e = np.random.default_rng(0).normal(0.01, 0.1, 600)
    made = catalog(tmp_path / "c", {"e1": e, "e2": e, "snr": np.linspace(10, 100, 600)})
    assert main(["shear", made, "--by", "snr", "--bins", "3", "--bootstrap", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert main(["shear", made, "--by", "-snr / 3e7", "--bins", "3", "--bootstrap", "50"]) == 0  # long names
    assert len({len(line) for line in capsys.readouterr().out.splitlines()}) == 1
    assert main(["shear", made, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 600
    assert main(["shear", made, "--where", "nonsense > 1"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_catalog_without_responses_is_refused(tmp_path: Path) -> None:
    from tests.catalogs import small_catalog

    made, _ = small_catalog(tmp_path / "c")
    with pytest.raises(InputError, match="r11"):
        shear(made.url)


@pytest.mark.parametrize(
    "wrong", [{"by": "snr", "bins": 0}, {"by": "snr", "bins": -2}, {"bootstrap": 0}, {"bootstrap": 1}]
)
def test_numbers_that_give_no_bins_or_errors_are_refused(tmp_path: Path, wrong: dict) -> None:
    made = catalog(tmp_path / "c", {"e1": np.linspace(-0.1, 0.1, 30), "snr": np.arange(30.0)})
    with pytest.raises(InputError, match="--bootstrap, --bins"):
        shear(made, **wrong)


def test_sky_frame_without_world_coordinates_is_told(tmp_path: Path) -> None:
    made = catalog(tmp_path / "c", {"e1": np.linspace(-0.1, 0.1, 30), "e1_sky": np.full(30, np.nan)})
    with pytest.raises(InputError, match="no world coordinates"):
        shear(made, frame="sky")
