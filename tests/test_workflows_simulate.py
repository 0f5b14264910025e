"""`simulate`: whole runs that resume, do not mix and do not depend on the workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("galsim", reason="needs the extra sim")

from astroml_plugin.compute import cluster
from astroml_plugin.core.errors import InputError
from astroml_plugin.simulation import Sky
from astroml_plugin.simulation import run as runs
from astroml_plugin.simulation.skies import SKY_POPULATION
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from workflows.cli import main
from workflows.simulate import simulate


@pytest.fixture(scope="module")
def client():
    with cluster.connect("local", threads=2) as connected:
        yield connected


def test_stamps_resume_where_a_run_stopped(tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"kind": "stamps", "count": 20, "block": 8, "seed": 2, "client": client}
    real = runs.write_block
    monkeypatch.setattr(runs.StampsPlan, "function", staticmethod(_fails_on_block_1))
    first = simulate(out=str(tmp_path / "a"), **settings)
    assert (first.units_done, first.units_failed, first.rows) == (2, 1, 12)
    assert "no room" in first.failures["block 1"]
    monkeypatch.setattr(runs.StampsPlan, "function", staticmethod(real))
    seen: list[tuple[int, int]] = []
    second = simulate(out=str(tmp_path / "a"), **settings, progress=lambda _, done, total: seen.append((done, total)))
    assert (second.units_done, second.units_skipped, second.units_failed) == (1, 2, 0)
    assert seen == [(3, 3)]
    whole = simulate(out=str(tmp_path / "b"), **settings)
    a, b = Stamps.open(second.source), Stamps.open(whole.source)
    assert a.count == b.count == 20
    for unit in b.units():
        for mine, theirs in zip(a.read_block(unit.index), b.read_block(unit.index), strict=True):
            assert np.array_equal(mine, theirs)
        assert str(a.read_objects(unit.index).to_pylist()) == str(b.read_objects(unit.index).to_pylist())
    assert {"e1", "e2", "flux", "mag", "snr", "class", "psf_fwhm"} <= set(a.columns)


def _fails_on_block_1(unit: runs.BlockUnit) -> int:
    if unit.index == 1:
        raise OSError("no room")
    return runs.write_block(unit)


def test_a_survey_has_its_tiles_and_truth(tmp_path: Path, client) -> None:
    settings = {"kind": "survey", "shape": (200, 300), "tile_size": 160, "halo": 20, "client": client}
    result = simulate(out=str(tmp_path), **settings)
    survey = Survey.open(result.source)
    assert result.units_done == len(survey) == 6
    assert survey.bands == ("g", "r", "i")
    assert result.truth is not None
    truth = pq.read_table(result.truth)
    assert len(truth) == result.rows
    sky = Sky(200, 300, 1, 30.0, SKY_POPULATION)
    for info in survey.iter_tiles():
        tile, expected = survey.read_tile(info, verify=True), sky.render(info.outer, 25)[0]
        assert np.array_equal(tile.image, expected.image, equal_nan=True)
        x, y = info.wcs().to_pixel(truth["ra"], truth["dec"])  # type: ignore[union-attr]
        assert np.allclose(x + info.outer.x0, truth["x"], atol=1e-6)
        assert np.allclose(y + info.outer.y0, truth["y"], atol=1e-6)
    again = simulate(out=str(tmp_path), **settings)
    assert (again.units_done, again.units_skipped, again.truth) == (0, 6, result.truth)
    assert not list((tmp_path / "truth").glob("*.parquet"))


def test_the_truth_is_made_again_after_a_failed_tile(tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"kind": "survey", "shape": (100, 200), "tile_size": 120, "halo": 10, "client": client, "density": 90.0}
    real = runs.write_tile
    monkeypatch.setattr(runs.SurveyPlan, "function", staticmethod(_fails_on_tile_0))
    first = simulate(out=str(tmp_path), **settings)
    assert (first.units_failed, first.truth) == (1, None)
    monkeypatch.setattr(runs.SurveyPlan, "function", staticmethod(real))
    second = simulate(out=str(tmp_path), **settings)
    assert second.truth is not None
    assert len(pq.read_table(second.truth)) == first.rows + second.rows


def _fails_on_tile_0(unit: runs.TileUnit) -> object:
    if unit.index == 0:
        raise OSError("no room")
    return runs.write_tile(unit)


def test_an_output_of_other_settings_is_refused(tmp_path: Path, client) -> None:
    simulate(out=str(tmp_path), count=4, block=4, client=client)
    with pytest.raises(InputError, match="another simulation"):
        simulate(out=str(tmp_path), count=4, block=4, seed=9, client=client)


def test_wrong_settings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stamps or survey"):
        simulate(out=str(tmp_path), kind="cube")
    with pytest.raises(InputError, match="at least 1"):
        simulate(out=str(tmp_path), kind="survey", count=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        simulate(out=str(tmp_path / "file" / "deeper"), count=4)


def test_presets_pairs_and_single_settings(tmp_path: Path, client) -> None:
    made = simulate(
        out=str(tmp_path / "sets"),
        preset="field-varying",
        pairs="shear",
        shear=0.03,
        count=5,
        block=2,
        client=client,
        changes={"camera": {"sky_sigma": 5.0}, "population": {"sersic_n": [1.0, 1.0]}, "stamps": {"offset": 0.0}},
    )
    store = Stamps.open(made.source)
    assert (made.rows, store.count, store.block) == (20, 20, 8)
    labels = store.labels().to_pydict()
    assert np.abs(np.add(labels["g1"], labels["g2"])) == pytest.approx(np.full(20, 0.03))
    assert set(labels["sersic_n"]) == {1.0}
    assert set(labels["offset_x"]) == {0.0}
    assert store.read_block(0)[1].max() == 25.0
    assert labels["set_id"] == sorted(labels["set_id"])
    with pytest.raises(InputError, match="did you mean 'camera'"):
        simulate(out=str(tmp_path / "wrong"), changes={"camra": {}}, client=client)
    with pytest.raises(InputError, match="sky_sigma"):
        simulate(out=str(tmp_path / "wrong"), changes={"camera": {"sky_sgma": 1.0}}, client=client)


def test_a_survey_of_a_preset_has_all_kinds(tmp_path: Path, client) -> None:
    settings = {"kind": "survey", "shape": (300, 300), "tile_size": 340, "halo": 20, "client": client}
    result = simulate(out=str(tmp_path), preset="rich", density=60.0, bands=("g", "r"), **settings)
    assert result.truth is not None
    truth = pq.read_table(result.truth)
    assert {"irregular", "star", "disk", "spheroid"} <= set(truth["class"].to_pylist())
    assert {"g1", "psf_e1", "mag_g", "snr"} <= set(truth.column_names)
    with pytest.raises(InputError, match="pairs are made of stamps"):
        simulate(out=str(tmp_path / "no"), pairs="psf", **settings)


def test_the_command_takes_presets_and_a_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "own.toml"
    settings.write_text(
        '[population]\nkinds = [{kind = "irregular", fraction = 1.0}]\n[camera]\npsf_fwhm = [0.9, 0.9]\n'
    )
    common = ["simulate", "--preset", "field-fixed", "--count", "4", "--threads", "1"]
    given = ["--pairs", "psf", "--psf-leakage", "0.1", "--snr", "50,60", "--settings", str(settings)]
    assert main([*common, *given, "--out", str(tmp_path / "a"), "--json"]) == 0
    labels = Stamps.open(str(tmp_path / "a" / "stamps.zarr")).labels().to_pydict()
    assert labels["branch"] == ["+psf", "-psf"] * 4
    assert set(labels["class"]) == {"irregular"}
    assert set(labels["psf_fwhm"]) == {0.9}
    assert 49 < min(labels["snr"]) < max(labels["snr"]) < 62
    assert main([*common[:2], "no-such", "--out", str(tmp_path / "b")]) == 2
    assert "field-varying" in capsys.readouterr().err
    for wrong in (["--snr", "5"], ["--settings", str(tmp_path / "absent.toml")]):
        with pytest.raises(SystemExit) as stopped:
            main([*common, *wrong, "--out", str(tmp_path / "c")])
        assert stopped.value.code == 2
