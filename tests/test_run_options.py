"""Options of a run: a third-party task's own, by bundle, through every door; names that nobody knows are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.registry import TASKS, load
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.run_options import assign_options
from tests import summer, universe
from workflows.cli import main
from workflows.evaluate import evaluate
from workflows.infer import dry_run, infer, plan, run_unit
from workflows.query import query


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stamps, a bundle of an installed third-party task, one of classes, one of shapes."""
    folder = tmp_path_factory.mktemp("options")
    with summer.installed(folder / "site"):
        universe.make_stamps(str(folder / "stamps.zarr"), count=40, size=32)
        summer.make_bundle(str(folder / "sums"))
        universe.make_bundle(str(folder / "kind"), training_prior=[0.3, 0.7])
        universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="optional", psf_size=15, any_band=True)
        yield folder


def totals(catalog: Path, column: str = "total") -> np.ndarray:
    return query(str(catalog), f"SELECT {column} FROM catalog ORDER BY object_id").to_arrow()[column].to_numpy()


def test_a_plugin_s_options_reach_its_task_and_network(given: Path, tmp_path: Path) -> None:
    source, bundle = str(given / "stamps.zarr"), str(given / "sums")
    infer(source, bundle=bundle, out=str(tmp_path / "plain"))
    infer(source, bundle=bundle, out=str(tmp_path / "gained"), options={"gain": 4, "doubled": True})
    np.testing.assert_array_equal(totals(tmp_path / "gained"), 8 * totals(tmp_path / "plain"))
    identity = Catalog.open(str(tmp_path / "gained")).identity["settings"]
    assert identity == {"band": None, "precision": "float32", "gain": 4.0, "doubled": True}
    with pytest.raises(InputError, match="another"):
        infer(source, bundle=bundle, out=str(tmp_path / "gained"), options={"gain": 3.0, "doubled": True})
    again = infer(source, bundle=bundle, out=str(tmp_path / "gained"), options={"gain": 4.0, "doubled": True})
    assert (again.units_done, again.units_skipped) == (0, 2)
    for unit in plan(source, bundle=bundle, out=str(tmp_path / "planned"), options={"gain": 4.0, "doubled": True}):
        run_unit(unit)
    infer(source, bundle=bundle, out=str(tmp_path / "planned"), options={"gain": 4.0, "doubled": True})
    np.testing.assert_array_equal(totals(tmp_path / "planned"), totals(tmp_path / "gained"))


def test_an_option_of_one_bundle_of_several(given: Path, tmp_path: Path) -> None:
    source, bundles = str(given / "stamps.zarr"), [str(given / name) for name in ("sums", "kind", "shape")]
    infer(source, bundle=bundles, out=str(tmp_path / "plain"))
    options = {"sums.gain": 4.0, "kind": {"symmetries": 2}, "shape.band": "r"}
    infer(source, bundle=bundles, out=str(tmp_path / "c"), options=options)
    np.testing.assert_array_equal(totals(tmp_path / "c", "sums_total"), 4 * totals(tmp_path / "plain", "sums_total"))
    assert (totals(tmp_path / "c", "kind_p_star") != totals(tmp_path / "plain", "kind_p_star")).any()
    np.testing.assert_array_equal(totals(tmp_path / "c", "shape_e1"), totals(tmp_path / "plain", "shape_e1"))
    settings = Catalog.open(str(tmp_path / "c")).identity["settings"]
    assert settings == {"band": None, "precision": "float32", "sums.gain": 4.0, "kind.symmetries": 2, "shape.band": "r"}


@pytest.mark.parametrize(
    ("bundles", "options", "words"),
    [
        (["sums"], {"gian": 2.0}, "unknown key 'gian'.*did you mean 'gain'"),
        (["sums", "kind"], {"kind.symetries": 2}, "bundle kind: did you mean 'symmetries'"),
        (["sums", "kind"], {"kinds.symmetries": 2}, "the bundles of the run: did you mean 'kind'"),
        (["sums", "kind"], {"kind.gain": 2.0}, "unknown key 'gain' in the run options of bundle kind"),
        (["kind", "shape"], {"gain": 2.0}, "no bundle here takes the run option gain"),
        (["sums"], {"prior": {"a": 0.1}}, "no bundle here gives classes: leave --prior away"),
        (["sums"], {"gain": "much"}, "gain in the run options of bundle sums must be a number, not 'much'"),
        (["sums"], {"gain": -1.0}, "a gain of -1.0 makes nothing brighter"),
        (["sums"], {"band": "r"}, "bundle sums reads r, no band can be chosen: leave --band away"),
        (["sums", "shape"], {"sums.band": "r"}, "no band can be chosen for it"),
    ],
)
def test_what_no_bundle_takes_is_refused_before_anything_starts(
    given: Path, tmp_path: Path, bundles: list[str], options: dict, words: str
) -> None:
    urls = [str(given / name) for name in bundles]
    with pytest.raises(InputError, match=words):
        dry_run(str(given / "stamps.zarr"), bundle=urls, options=options)
    with pytest.raises(InputError, match=words):
        infer(str(given / "stamps.zarr"), bundle=urls, out=str(tmp_path / "c"), options=options)
    assert not (tmp_path / "c").exists()


def test_evaluate_follows_and_records_only_the_task_s_own_options(given: Path, tmp_path: Path) -> None:
    labelled = labelled_stamps(str(tmp_path / "labelled.zarr"))
    found = evaluate(labelled, bundle=str(given / "sums"), out=tmp_path / "r", options={"doubled": True})
    plain = evaluate(labelled, bundle=str(given / "sums"), out=tmp_path / "plain")
    assert found.metrics["loss"] != plain.metrics["loss"]
    record = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert record["doubled"] is True
    assert not {"prior", "symmetries", "bundle_symmetries"} & set(record)
    with pytest.raises(InputError, match="did you mean 'doubled'"):
        evaluate(labelled, bundle=str(given / "sums"), out=tmp_path / "no", options={"double": True})


def test_a_toml_file_sets_them(given: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'source = "{given / "stamps.zarr"}"\nbundle = ["{given / "sums"}"]\nout = "{tmp_path / "c"}"\n'
        "[measure.options]\ngain = 4\n[measure.options.sums]\ndoubled = true\n"
    )
    assert main(["infer", "--config", str(config)]) == 0
    settings = Catalog.open(str(tmp_path / "c")).identity["settings"]
    assert settings == {"band": None, "precision": "float32", "gain": 4.0, "sums.doubled": True}
    assert main(["infer", "--config", str(config), "--out", str(tmp_path / "d"), "--option", "gain=2"]) == 0
    assert Catalog.open(str(tmp_path / "d")).identity["settings"]["gain"] == 2.0


def labelled_stamps(url: str, count: int = 40) -> str:
    rng = np.random.default_rng(2)
    stamps = Stamps.create(url, bands=("r",), size=(32, 32), block=32, pixel_scale=0.2)
    first = stamps.reserve(2)
    for number, rows in enumerate((32, count - 32)):
        checksum = stamps.write_block(
            first + number, rng.normal(0, 1, (rows, 1, 32, 32)).astype(np.float32), None, None
        )
        ids = np.arange(rows) + 100 * number
        stamps.commit_objects(first + number, pa.table({"object_id": ids, "total": rng.normal(0, 30, rows)}), checksum)
    return url


def test_the_command_takes_any_option(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["infer", str(given / "stamps.zarr"), "--bundle", str(given / "sums"), "--out", str(tmp_path / "c")]
    assert main([*common, "--option", "gain=4", "--option", "sums.doubled=true"]) == 0
    settings = Catalog.open(str(tmp_path / "c")).identity["settings"]
    assert settings == {"band": None, "precision": "float32", "gain": 4.0, "sums.doubled": True}
    assert main([*common, "--option", "gian=4", "--dry-run"]) == 2
    assert "did you mean 'gain'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, "--option", "gain"])
    assert "NAME=VALUE" in capsys.readouterr().err


@pytest.mark.slow
def test_worker_processes_that_have_the_plugin(given: Path, tmp_path: Path) -> None:
    """The task's options travel as plain values and are read where its class is installed."""
    command = [sys.executable, "-m", "workflows.cli", "infer", str(given / "stamps.zarr"), "--bundle"]
    command += [str(given / "sums"), "--out", str(tmp_path / "c"), "--option", "gain=2.5", "--scheduler", "processes"]
    path = f"{given / 'site'}{os.pathsep}{Path(__file__).parents[1]}"
    ran = subprocess.run(
        [*command, "--workers", "1"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    infer(str(given / "stamps.zarr"), bundle=str(given / "sums"), out=str(tmp_path / "plain"))
    np.testing.assert_allclose(totals(tmp_path / "c"), 2.5 * totals(tmp_path / "plain"), rtol=1e-6)


def test_which_bundle_takes_which_option() -> None:
    def classes(*names: str) -> Any:
        return load(TASKS, "classify").from_settings({"classes": list(names), "training_prior": [0.5, 0.5]})

    tasks: Mapping[str, Any] = {"a": classes("star", "galaxy"), "b": classes("lens", "other"), "c.d": summer.SumTask()}
    found = assign_options(
        tasks, {"prior": {"lens": 0.1}, "symmetries": 4, "c.d.gain": 2, "b.symmetries": 8, "band": None}
    )
    assert found.by_bundle == {
        "a": {"symmetries": 4},
        "b": {"prior": {"lens": 0.1}, "symmetries": 8},
        "c.d": {"gain": 2.0},
    }
    assert found.given == {"prior": {"lens": 0.1}, "symmetries": 4, "b.symmetries": 8, "c.d.gain": 2.0}
