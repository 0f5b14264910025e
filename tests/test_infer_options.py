"""The two option objects of a run: identity, names that are refused, TOML; a dry run checks what a run checks."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from astroml_plugin.catalog import Catalog
from astroml_plugin.compute.device import usable_device
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, run_choices
from tests import universe
from workflows.cli import VERBS, main
from workflows.infer import ObjectTable, dry_run, infer, plan


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    universe.make_survey(str(folder / "survey.zarr"))
    universe.make_objects(folder / "objects.parquet", count=20)
    universe.make_bundle(str(folder / "kind"))
    universe.make_stamps(str(folder / "stamps.zarr"), count=4)
    return folder


def test_the_identity_is_what_is_set_and_values_of_old_catalogs_stay() -> None:
    assert MeasureOptions().identity() == {"band": None, "precision": "float32"}
    options = MeasureOptions(band="r", precision="auto", assumed_psf_fwhm=0.7, options={"prior": {"lens": 0.001}})
    assert options.identity() == {
        "band": "r",
        "precision": "auto",
        "assumed_psf_fwhm": 0.7,
        "prior": {"lens": 0.001},
    }


def test_no_function_of_a_run_has_many_parameters() -> None:
    for function in (infer, plan, dry_run):
        named = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
        assert len(named) <= 8


def test_keywords_change_single_fields() -> None:
    measure, execution = run_choices(MeasureOptions(band="g"), None, {"precision": "auto", "batch": 3})
    assert (measure.band, measure.precision, execution.batch) == ("g", "auto", 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"assumed_psf_fhwm": 0.7}, "unknown key 'assumed_psf_fhwm'.*did you mean 'assumed_psf_fwhm'"),
        ({"nonsense": 3}, "unknown key 'nonsense' in the options of infer"),
        ({"precision": "float8"}, "precision must be one of float32, auto"),
        ({"compiling": "sometimes"}, "compiling must be one of"),
        ({"device": "abacus"}, "'abacus' is no torch device"),
        ({"batch": 0}, "give 1 or more stamps per forward"),
        ({"memory": 0}, "hold no unit"),
        ({"workers": 0}, "0 workers"),
        ({"unit_timeout": -1.0}, "to wait for ever"),
        ({"assumed_psf_fwhm": -1.0}, "cannot be assumed"),
        ({"shard": (5, 4)}, "shard 5 of 4"),
        ({"objects": "absent.csv"}, "the objects table .*absent.csv does not exist"),
        ({"objects": ObjectTable(table=pd.DataFrame({"a": [1]}))}, "has no object id column"),
        ({"resample": "lanczos"}, "resample must be one of auto, off"),
        ({"pixel_scale_tolerance": 0.5}, "unknown key 'pixel_scale_tolerance'"),
        ({"memory": 1000}, r"1000 bytes of memory hold no unit: give 1 MB \(--memory is in GB\)"),
        ({"label_maps": False}, "--no-labels would do nothing, as no bundle here finds objects"),
        ({"zero_point": 25.0}, r"knows zero point 31.4 of band r, --zero-point 25 would do nothing.*ingest again"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(sky: Path, tmp_path: Path, changes: dict, words: str) -> None:
    source, bundle = str(sky / "survey.zarr"), str(sky / "kind")
    with pytest.raises(InputError, match=words):
        dry_run(source, bundle=bundle, **changes)
    for function in (infer, plan):
        with pytest.raises(InputError, match=words):
            function(
                source,
                bundle=bundle,
                out=str(tmp_path / "c"),
                **{"objects": str(sky / "objects.parquet"), **changes},
            )
    assert not (tmp_path / "c").exists()


def test_the_file_of_defaults_holds_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    written, every = _printed_config("infer", capsys)
    kinds = {"measure": MeasureOptions, "execution": ExecutionOptions, "objects": ObjectTable}
    assert set(written) == set(kinds)
    assert set(every) == {"source", "bundle", "out", *kinds}
    for table, kind in kinds.items():
        assert from_mapping(kind, written[table], "it") == kind()
        assert set(every[table]) == set(inspect.signature(kind).parameters)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_prints_a_file_for_its_config(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, every = _printed_config(verb, capsys)
    fields = {(one.holder, one.name) for one in VERBS[verb].parameters()}
    assert fields == {("", name) for name, value in every.items() if not isinstance(value, dict) or not value} | {
        (table, name) for table, values in every.items() if isinstance(values, dict) for name in values
    }


def _printed_config(verb: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the file of --print-config sets, and what it would set without the # of its options."""
    with pytest.raises(SystemExit) as ended:
        main([verb, "--print-config"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    return tomllib.loads(text), tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))


def test_a_run_by_file_and_its_resolved_copy(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'source = "{sky / "survey.zarr"}"\nbundle = "{sky / "kind"}"\nobjects = "{sky / "objects.parquet"}"\n'
        "[execution]\nbatch = 7\nthreads = 1\n"
    )
    assert main(["infer", "--config", str(config), "--out", str(tmp_path / "c"), "--batch", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 20
    (record,) = Catalog.open(str(tmp_path / "c")).runs()
    assert record["settings"]["batch"] == 9
    assert record["settings"]["threads"] == 1
    assert record["settings"]["options"] == {}
    config.write_text("[measure]\nprecison = 'auto'\n")
    arguments = ["infer", str(sky / "survey.zarr"), "--bundle", str(sky / "kind"), "--config", str(config)]
    assert main([*arguments, "--out", str(tmp_path / "d")]) == 2
    assert "did you mean 'precision'" in capsys.readouterr().err
    config.write_text("")
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--out is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (ObjectTable(columns="object_id=a", pixel_origin=0), "--columns, --pixel-origin would do nothing, as stamps"),
        (ObjectTable(frame="pixel"), "--frame would do nothing, as stamps carry their own objects"),
        (ObjectTable(format="csv"), "--objects-format would do nothing"),
        (ObjectTable(extend=True), "--extend would do nothing"),
    ],
)
def test_how_to_read_a_table_is_refused_where_there_is_none(sky: Path, table: ObjectTable, words: str) -> None:
    bundle = str(sky / "kind")
    with pytest.raises(InputError, match=words):
        dry_run(str(sky / "stamps.zarr"), bundle=bundle, objects=table)
    with pytest.raises(InputError, match="as there is no table"):
        dry_run(str(sky / "survey.zarr"), bundle=bundle, objects=table)


def test_stated_zero_points_that_a_source_knows_must_be_its_own() -> None:
    assert MeasureOptions(zero_point=(27.0,)).zero_points(["g", "r"], [25.0, None]) == (25.0, 27.0)
    assert MeasureOptions(zero_point=(25.0, 27.0)).zero_points(["g", "r"], [25.0, None]) == (25.0, 27.0)
    with pytest.raises(InputError, match="zero point 25 of band g"):
        MeasureOptions(zero_point=(26.0, 27.0)).zero_points(["g", "r"], [25.0, None])


@pytest.mark.parametrize("device", ["cuda:77", "meta"])
def test_a_device_that_no_worker_has_ends_the_run_at_once(sky: Path, tmp_path: Path, device: str) -> None:
    table, bundle = str(sky / "objects.parquet"), str(sky / "kind")
    with pytest.raises(InputError, match=rf"device {device} cannot be used by 1 of the workers"):
        infer(str(sky / "survey.zarr"), bundle=bundle, objects=table, out=str(tmp_path / "c"), device=device)
    with pytest.raises(InputError, match=rf"device {device} cannot be used here"):
        usable_device(device)
    assert usable_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("given", "words"),
    [("nowhere", "scheduler .nowhere. is neither one of"), (3, "client is of type int: give a Dask")],
)
def test_what_is_no_client_is_one_sentence(sky: Path, tmp_path: Path, given: object, words: str) -> None:
    table, bundle = str(sky / "objects.parquet"), str(sky / "kind")
    with pytest.raises(InputError, match=words):
        infer(str(sky / "survey.zarr"), bundle=bundle, objects=table, out=str(tmp_path / "c"), client=given)
