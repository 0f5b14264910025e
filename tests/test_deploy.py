"""What deploy/ hands to a cluster: scripts that parse, and commands that the real parser accepts."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from workflows.cli import _parser

DEPLOY = Path(__file__).parent.parent / "deploy"
FILLED = {
    "source_url": "survey.zarr",
    "bundle": "shapes",
    "objects": "objects.parquet",
    "catalog": "catalog",
    "address": "tcp://host:8786",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_CPUS_PER_TASK": "4",
}


def command_of(script: str) -> list[str]:
    """Arguments of the script's `astroml-plugin` command, its variables filled in."""
    found = re.search(r"astroml-plugin ((?:[^\n&\\]|\\\n)+)", script)
    assert found is not None
    line = re.sub(r"\$\{?(\w+)\}?", lambda match: FILLED[match[1]], found[1].replace("\\\n", " "))
    return shlex.split(line)


@pytest.mark.parametrize("name", ["infer-array.sbatch", "infer-dask.sbatch"])
def test_slurm_scripts_parse_and_their_command_is_ours(name: str) -> None:
    path = DEPLOY / "slurm" / name
    subprocess.run(["bash", "-n", path], check=True)
    options = _parser().parse_args(command_of(path.read_text().split("set -euo pipefail")[1]))
    assert (options.verb, options.source, options.out) == ("infer", "survey.zarr", "catalog")
    if name == "infer-array.sbatch":
        assert options.shard == (3, 8)
    else:
        assert options.scheduler == "tcp://host:8786"


def test_the_image_copies_what_the_package_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for name in (
        "pyproject.toml",
        "setup.py",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "astroml_plugin",
        "workflows",
    ):
        assert name in text
        assert (DEPLOY.parent / name).exists()
