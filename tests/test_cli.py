"""The outer door: the real command on small data; every wrong input is one sentence with its exit status."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from astroml_plugin.catalog import Catalog
from astroml_plugin.core import storage
from astroml_plugin.sources.survey import Survey
from tests import universe
from workflows.cli import main
from workflows.verbs.options import complain_of


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey, its objects, a bundle and stamps."""
    folder = tmp_path_factory.mktemp("sky")
    universe.make_survey(str(folder / "survey.zarr"))
    universe.make_objects(folder / "objects.parquet")
    universe.make_bundle(str(folder / "kind"))
    universe.make_stamps(str(folder / "stamps.zarr"))
    return folder


def infer(sky: Path, out: Path, **changes: str | None) -> list[str]:
    """Arguments of a good `infer`, some changed."""
    options = {"bundle": str(sky / "kind"), "objects": str(sky / "objects.parquet"), "out": str(out), **changes}
    source = options.pop("source", None) or str(sky / "survey.zarr")
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    return ["infer", source, *(word for pair in pairs for word in pair)]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str, status: int = 2) -> None:
    """The command says one sentence with `words`, and its exit status is `status`."""
    capsys.readouterr()
    assert main(arguments) == status
    said = capsys.readouterr().err.strip().splitlines()
    complaint = [line for line in said if line.startswith("astroml-plugin: ")]
    assert len(complaint) == 1, said
    assert "Traceback" not in "".join(said)
    for word in words:
        assert word in complaint[0], complaint[0]


def test_the_whole_line(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(sky, tmp_path / "catalog")) == 0
    assert "200 rows in 12 units" in capsys.readouterr().out
    assert main([*infer(sky, tmp_path / "catalog"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["units_skipped"] == 12
    assert main(["query", str(tmp_path / "catalog"), "SELECT count(*) AS n FROM catalog"]) == 0
    assert "200" in capsys.readouterr().out
    assert (
        main(["query", str(tmp_path / "catalog"), "--cone", "150", "2", "0.005", "--to", str(tmp_path / "c.fits")]) == 0
    )
    near = Table.read(tmp_path / "c.fits")
    assert 0 < len(near) < 200
    assert str(near["ra"].unit) == "deg"
    assert main(["compact", str(tmp_path / "catalog")]) == 0
    assert main(infer(sky, tmp_path / "catalog")) == 0


def test_dry_run_writes_nothing(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*infer(sky, tmp_path / "catalog"), "--dry-run"]) == 0
    assert "12 units" in capsys.readouterr().out
    assert not (tmp_path / "catalog").exists()


@pytest.mark.parametrize(
    "verb",
    ["demo", "ingest", "simulate", "train", "infer", "evaluate", "calibrate-response", "shear", "query", "compact"],
)
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"example:\n  astroml-plugin {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["s.zarr", "--bundle", "b", "--out", "c", "--memory", "inf"]])
def test_wrong_arguments_are_status_two(capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["infer", *more])
    assert stopped.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys; from workflows.cli import _parser; _parser().format_help(); "
        "print({'torch', 'dask', 'zarr', 'ray', 'astropy', 'numpy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).with_name("astroml-plugin")
    found = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("astroml-plugin ")


# ---- bad input: the source ---------------------------------------------------------------------------------------


def test_no_source_there(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", source=str(tmp_path / "absent.zarr")), "absent.zarr")


def test_a_store_of_a_newer_format(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = tmp_path / "newer.zarr"
    shutil.copytree(sky / "survey.zarr", newer)
    metadata = json.loads((newer / "zarr.json").read_text())
    metadata["attributes"]["astroml_plugin"]["format"] = 99
    (newer / "zarr.json").write_text(json.dumps(metadata))
    refused(capsys, infer(sky, tmp_path / "c", source=str(newer)), "99", "upgrade")


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_shard_is_a_failed_unit(
    sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    copy = tmp_path / "damaged.zarr"
    shutil.copytree(sky / "survey.zarr", copy)
    shard = copy / "image" / "c" / "5" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 8
    shard.unlink()
    if damage == "flip":
        shard.write_bytes(bytes(data))
    assert main(infer(sky, tmp_path / "catalog", source=str(copy))) == 3
    told = capsys.readouterr()
    assert "1 failed" in told.out
    assert "field_r1_c1" in told.err
    failures = Catalog.open(str(tmp_path / "catalog")).failures().to_pylist()
    assert [row["unit"] for row in failures] == ["field_r1_c1"]
    shard.write_bytes((sky / "survey.zarr" / "image" / "c" / "5" / "0" / "0" / "0").read_bytes())
    assert main(infer(sky, tmp_path / "catalog", source=str(copy))) == 0
    assert Catalog.open(str(tmp_path / "catalog")).failures().num_rows == 0


# ---- bad input: objects ------------------------------------------------------------------------------------------


def table(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_objects_without_positions(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = table(tmp_path / "o.parquet", object_id=[1, 2], colour=[0.1, 0.2])
    refused(capsys, infer(sky, tmp_path / "c", objects=objects), "ra", "columns")


def test_ids_as_text_beyond_int64(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = table(tmp_path / "o.parquet", object_id=["99999999999999999999"], ra=[150.0], dec=[2.0])
    refused(capsys, infer(sky, tmp_path / "c", objects=objects), "99999999999999999999")


def test_an_empty_table(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = table(
        tmp_path / "o.parquet",
        object_id=pa.array([], pa.int64()),
        ra=pa.array([], pa.float64()),
        dec=pa.array([], pa.float64()),
    )
    refused(capsys, infer(sky, tmp_path / "c", objects=objects), "no rows")


def test_no_objects_for_a_survey(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", objects=None), "--objects")


def test_a_table_that_is_not_there(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", objects=str(tmp_path / "absent.csv")), "absent.csv")


# ---- bad input: bundles ------------------------------------------------------------------------------------------


def test_no_bundle_there(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", bundle=str(tmp_path / "absent")), "no bundle at")


def test_missing_band(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = universe.make_bundle(str(tmp_path / "z"), bands=("z",))
    refused(capsys, infer(sky, tmp_path / "c", bundle=bundle), "band z is missing")


def test_wrong_stamp_size(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = universe.make_bundle(str(tmp_path / "strict"), size=40, resize="refuse")
    refused(
        capsys,
        infer(sky, tmp_path / "c", source=str(sky / "stamps.zarr"), objects=None, bundle=bundle),
        "32 x 32",
        "40",
    )


def test_altered_weights(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Path(universe.make_bundle(str(tmp_path / "altered")))
    data = bytearray((bundle / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (bundle / "weights.safetensors").write_bytes(bytes(data))
    refused(capsys, infer(sky, tmp_path / "c", bundle=str(bundle)), "altered", "SHA-256")


def test_a_pickle_in_the_bundle(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Path(universe.make_bundle(str(tmp_path / "pickled")))
    (bundle / "model.pkl").write_bytes(b"cos\nsystem\n")
    refused(capsys, infer(sky, tmp_path / "c", bundle=str(bundle)), "model.pkl", "refused")


# ---- bad input: output and cluster -------------------------------------------------------------------------------


def test_an_output_of_another_bundle(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(sky, tmp_path / "catalog")) == 0
    parts = sorted(path.name for path in (tmp_path / "catalog" / "parts").rglob("*.parquet"))
    other = universe.make_bundle(str(tmp_path / "kind"), seed=3)
    refused(capsys, infer(sky, tmp_path / "catalog", bundle=other), "choose another --out")
    assert parts == sorted(path.name for path in (tmp_path / "catalog" / "parts").rglob("*.parquet"))


def test_an_unwritable_output(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    refused(capsys, infer(sky, tmp_path / "file" / "catalog"), "--out")


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_what_is_there(sky: Path, tmp_path: Path) -> None:
    """A real limit on file sizes stands for the full disk: the kernel refuses the write (EFBIG) part of the way."""
    script = "import sys; from workflows.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = infer(sky, tmp_path / "catalog")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (11_500, 11_500))

    found = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, preexec_fn=limit)
    assert found.returncode == 2, found.stderr
    assert "cannot be written" in found.stderr
    assert "Traceback" not in found.stderr
    assert main(arguments) == 0
    assert Catalog.open(str(tmp_path / "catalog")).current()["rows"].to_numpy().sum() == 200


@pytest.mark.slow
def test_an_unreachable_scheduler(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", scheduler="tcp://127.0.0.1:9"), "no Dask scheduler answers")


def test_an_unknown_scheduler(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", scheduler="grid"), "grid")


def test_no_cuda_here(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    refused(capsys, infer(sky, tmp_path / "c", scheduler="cuda"), "CUDA", "astroml-plugin[cuda]")


def forget_stores() -> None:
    """Drop the clients that fsspec and zarr keep: they remember the address they were made with."""
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    storage._remote_store.cache_clear()


def test_an_unreachable_store_never_shows_credentials(
    sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_stores()
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "KEYKEY",
        "AWS_SECRET_ACCESS_KEY": "SECRETSECRET",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("astroml_plugin.core.storage.ATTEMPTS", 1)
    started = time.monotonic()
    assert main(infer(sky, tmp_path / "c", source="s3://bucket/survey.zarr")) == 2
    said = capsys.readouterr().err
    assert "SECRETSECRET" not in said
    assert "bucket/survey.zarr" in said
    assert time.monotonic() - started < 120
    forget_stores()


@pytest.mark.parametrize(
    "setting",
    [
        *({"batch": "0"}, {"threads": "0"}, {"workers": "-1"}, {"device": "abacus"}),
        *({"memory": "0"}, {"unit_timeout": "nan"}, {"unit_timeout": "-1"}),
    ],
)
def test_settings_that_cannot_work(
    sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: dict[str, str]
) -> None:
    refused(capsys, infer(sky, tmp_path / "c", **setting), *setting.values())


def test_a_band_for_bundles_that_take_none(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, infer(sky, tmp_path / "c", band="r"), "kind", "--band")


# ---- bad input: FITS ---------------------------------------------------------------------------------------------


def image(path: Path, shape: tuple[int, int] = (64, 64)) -> str:
    fits.PrimaryHDU(np.ones(shape, np.float32)).writeto(path)
    return str(path)


def test_a_truncated_fits_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(image(tmp_path / "a.fits"))
    (tmp_path / "cut.fits").write_bytes(whole.read_bytes()[:5000])
    refused(capsys, ["ingest", str(tmp_path / "cut.fits"), "--out", str(tmp_path / "s.zarr")], "cut.fits")


def test_fits_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    refused(capsys, ["ingest", str(tmp_path / "empty.fits"), "--out", str(tmp_path / "s.zarr")], "empty.fits", "image")


def test_bands_of_different_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [image(tmp_path / "g.fits"), image(tmp_path / "r.fits", (64, 32))]
    refused(capsys, ["ingest", *files, "--bands", "g,r", "--out", str(tmp_path / "s.zarr")], "64", "32")


def test_tile_names_with_path_separators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = image(tmp_path / "g.fits")
    refused(capsys, ["ingest", name, "--name", "../up", "--out", str(tmp_path / "s.zarr")], "../up")


def test_ingest_into_an_unwritable_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = image(tmp_path / "g.fits")
    (tmp_path / "file").write_text("")
    refused(capsys, ["ingest", name, "--out", str(tmp_path / "file" / "s.zarr")], "s.zarr")


def test_a_wrong_query_is_one_sentence(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(sky, tmp_path / "catalog")) == 0
    refused(capsys, ["query", str(tmp_path / "catalog"), "SELECT nothing FROM catalog"], "nothing")
    refused(capsys, ["query", str(tmp_path), "SELECT 1"], "no catalog at")


def test_the_query_may_come_after_its_options(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(sky, tmp_path / "catalog")) == 0
    capsys.readouterr()
    cone = ["--cone", "150", "-2", "1"]
    assert main(["query", str(tmp_path / "catalog"), *cone, "SELECT count(*) AS n FROM catalog", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
    near = ["--cone", "150", "-1e-5", "3"]
    assert main(["query", str(tmp_path / "catalog"), *near, "SELECT count(*) AS n FROM catalog", "--json"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["query", str(tmp_path / "catalog"), *cone, "SELECT 1", "SELECT 2"])
    assert stopped.value.code == 2


def test_output_to_a_closed_pipe_is_no_error(sky: Path, tmp_path: Path) -> None:
    script = "import sys; from workflows.cli import entry; entry()"
    assert main(infer(sky, tmp_path / "catalog")) == 0
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["query", str(tmp_path / "catalog"), "SELECT * FROM catalog"]
    found = subprocess.run([sys.executable, "-c", script, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert "Traceback" not in found.stderr


def test_units_that_fail_alike_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    complain_of([("r0_c0", "its stars are too few"), ("r0_c1", "its stars are too few"), ("r1_c0", "the disk is full")])
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "astroml-plugin: r0_c0 and 1 more failed: its stars are too few",
        "astroml-plugin: r1_c0 failed: the disk is full",
    ]


def test_a_survey_without_tiles_is_said(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Survey.create(str(tmp_path / "e.zarr"), bands=("g", "r"), tile_size=160, halo=32)
    objects, bundle = str(sky / "objects.parquet"), str(sky / "kind")
    assert main(["infer", empty.url, "--bundle", bundle, "--objects", objects, "--out", str(tmp_path / "c")]) == 0
    assert "e.zarr holds no tiles yet: bring some in with `ingest` first" in capsys.readouterr().err
