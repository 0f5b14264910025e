"""The images: built from deploy/, small enough, without rights, and their rows are those of a run outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from image_environment import OUT, ROOT, SOURCE, USER, Builder, Image, base, inside, needed, pip_settings

from astroml_plugin.catalog import Catalog
from workflows.infer import infer
from workflows.query import query
from workflows.simulate import simulate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
DEPLOY = ROOT / "deploy"
COMMAND = ["infer", f"{SOURCE}/survey.zarr", "--bundle=ellipticity", f"--objects={SOURCE}/truth.parquet"]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    simulate(out=str(folder), kind="survey", count=4, seed=7, tile_size=512, halo=64)
    subprocess.run(["chmod", "--recursive", "a+rX", folder], check=True)  # for the user of the images
    return folder


@pytest.fixture(scope="module")
def rows(sky: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = tmp_path_factory.mktemp("outside") / "catalog"
    infer(str(sky / "survey.zarr"), bundle="ellipticity", objects=str(sky / "truth.parquet"), out=str(out), threads=2)
    return measured(out)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    needed("buildah", "debootstrap")
    builder = Builder(tmp_path_factory.mktemp("buildah"))
    yield builder.image(DEPLOY / "Dockerfile", {})
    builder.close()


def measured(catalog: Path) -> pa.Table:
    return (
        query(str(catalog), "SELECT * FROM catalog ORDER BY object_id, tile").to_arrow().replace_schema_metadata(None)
    )


def written(folder: Path) -> Path:
    """A folder for output that the user of the images may write to."""
    folder.mkdir()
    os.chown(folder, *map(int, USER.split(":")))
    return folder


def test_rows_of_the_image_are_those_of_a_run_outside(rows: pa.Table, image: Image, sky: Path, tmp_path: Path) -> None:
    assert image.configuration["User"] == USER
    out = written(tmp_path / "out")
    environment = [*image.configuration["Env"], "HOME=/tmp"]
    command = [*image.configuration["Entrypoint"], *COMMAND, f"--out={OUT}/catalog", "--threads=2"]
    inside(image.root, sky, out, command, environment)
    assert rows.num_rows > 100
    assert measured(out / "catalog").equals(rows)
    (run,) = Catalog.open(str(out / "catalog")).runs()
    assert run["prepared_by"] == {"native": 1}


def test_the_image_is_small_and_has_no_compiler_and_no_settings_of_pip(image: Image) -> None:
    size = int(subprocess.run(["du", "-sb", image.root], capture_output=True, text=True, check=True).stdout.split()[0])
    assert size < 2.5e9
    assert not list(image.root.glob("usr/bin/*gcc*"))
    assert not (image.root / "src").exists()
    assert not [word for word in image.configuration["Env"] if word.startswith("PIP_")]


RAY = """
set -e
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef
ray start --head --num-cpus=1 --dashboard-host=127.0.0.1 --port=0 --dashboard-port=8399 --temp-dir=/tmp/ray
trap "ray stop --force" EXIT
wget --version | head -1
ray job submit --address http://127.0.0.1:8399 -- astroml-plugin infer --help
ray job submit --address http://127.0.0.1:8399 -- python -c "
import ray
ray.init('auto')
print('answer', ray.get(ray.remote(lambda: 6 * 7).remote()))"
"""
"""A cluster of one node with a token, started from a login shell and given jobs, as KubeRay does."""


def test_a_cluster_of_ray_takes_jobs_in_the_image(image: Image, sky: Path, tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    (out / "ray.sh").write_text(RAY)
    environment = ["HOME=/tmp", *(word for word in image.configuration["Env"] if not word.startswith("PATH="))]
    said = inside(image.root, sky, out, ["/bin/bash", "-lc", f"dask --version && . {OUT}/ray.sh"], environment)
    assert "answer 42" in said, said[-3000:]


def test_the_steps_of_the_apptainer_definition_make_the_same(sky: Path, rows: pa.Table, tmp_path: Path) -> None:
    needed("debootstrap")
    text = (DEPLOY / "apptainer.def").read_text()
    parts = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", text, re.DOTALL | re.MULTILINE))
    given = dict(line.strip().split("=") for line in parts["arguments"].split())
    post = re.sub(r"\{\{ (\w+) \}\}", lambda match: given[match[1]], parts["post"])
    root = tmp_path / "root"
    try:
        subprocess.run(["cp", "-a", base(), root], check=True)
        for line in parts["files"].splitlines():
            if line.strip():
                here, there = line.split()
                (root / there[1:]).parent.mkdir(exist_ok=True)
                subprocess.run(["cp", "-r", ROOT / here, root / there[1:]], check=True)
        shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
        pip = pip_settings()
        for folder in pip.get("PIP_FIND_LINKS", "").split():
            shutil.copytree(folder, root / folder[1:])
        words = ["chroot", root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        words += [f"{name}={value}" for name, value in pip.items()]
        done = subprocess.run([*words, "sh", "-c", post], capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert not (root / "src").exists()
        out = written(tmp_path / "out")
        command = f"{parts['environment']}\nset -- {' '.join(COMMAND)} --out={OUT}/catalog --threads=2\n"
        inside(
            root,
            sky,
            out,
            ["sh", "-ec", f"{command}({parts['test']})\n{parts['runscript']}"],
            ["HOME=/tmp", "PATH=/usr/bin:/bin"],
        )
        assert measured(out / "catalog").equals(rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)
