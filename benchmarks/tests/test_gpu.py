"""The command for GPU machines: it runs with torch and NumPy alone, and on a CPU says that it is no figure of a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(__file__).parents[1] / "gpu.py"
BARE = """
import runpy, sys
for name in ("dask", "distributed", "zarr", "pyarrow", "astropy", "fsspec", "ray", "pandas", "safetensors", "duckdb"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(tmp_path: Path, *arguments: str, bare: bool) -> tuple[str, dict[str, Any]]:
    """What the command prints, and its JSON."""
    start = ["-c", BARE, str(COMMAND)] if bare else [str(COMMAND)]
    out = tmp_path / "gpu.json"
    command = [sys.executable, *start, "--quick", "--device", "cpu", "--out", str(out), *arguments]
    environment = {**os.environ, "ASTROML_BENCH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.mark.slow
def test_all_networks_run_where_only_torch_and_numpy_are(tmp_path: Path) -> None:
    networks = ("strided_cnn", "resnet18", "equivariant_cnn", "multipole_mlp")
    told, report = run(tmp_path, "--sizes", "24", "--networks", *networks, bare=True)
    assert "no GPU figure" in told
    assert [found["network"] for found in report["networks"]] == list(networks)
    for found in report["networks"]:
        assert found["precision"] == "float32"
        assert found["eager_per_s"]["median"] > 0
        assert found["stamps_ratio"]["median"] > 0
        for objects in (6, 64):
            assert 0 < found[f"tiles_{objects}_busy"]["median"] <= 1
        assert found["left_out"] == {"compiled": "compiled forward: there is no CUDA device"}
    assert report["fields"]["window"] == 128
    assert report["fields"]["copied_mpix_per_s"]["median"] > 0
    assert "unet, windows of 128 pixels" in told
    assert "cannot be imported here" in report["infer"]["left_out"]
    assert "cannot be imported here" in report["detection"]["left_out"]
    assert "no CUDA device" in report["bus"]["left_out"]


@pytest.mark.slow
def test_the_whole_command_is_measured_where_the_package_is_there(tmp_path: Path) -> None:
    told, report = run(tmp_path, "--sizes", "16", "--networks", "multipole_mlp", bare=False)
    assert report["infer"]["objects_per_tile"] == 64
    assert report["infer"]["auto_per_s"]["median"] > 0
    assert "start-up included" in told
    assert report["detection"]["mpix_per_s"]["median"] > 0
    assert report["detection"]["objects"] > 20
    assert report["left_out"] == {}


@pytest.mark.slow
def test_what_does_not_fit_into_the_time_is_left_out_and_named(tmp_path: Path) -> None:
    told, report = run(tmp_path, "--sizes", "16", "--networks", "multipole_mlp", "--minutes", "1e-9", bare=True)
    assert report["left_out"] == dict.fromkeys(
        ("bus", "multipole_mlp 16", "fields", "detection", "infer"), "no time left"
    )
    assert report["networks"] == []
    assert "multipole_mlp 16: left out: no time left" in told
    assert report["machine"]["device"] == "cpu"
