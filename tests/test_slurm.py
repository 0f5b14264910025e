"""The job scripts and `--scheduler slurm` on a Slurm of two nodes: whatever happens, rows are those of a local run."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from astropy.io import fits
from astropy.io.fits import Header

from tests import universe
from tests.slurm_cluster import SlurmCluster, missing, wait
from tests.test_search import RECIPE
from tests.training_samples import ellipticity_stamps
from workflows.infer import infer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
SMALL = ("--cpus-per-task=2", "--mem=4G")
PLUGIN = str(Path(sys.executable).with_name("astroml-plugin"))
LOOKS_FAILED = re.compile("Traceback|Killed|CANCELLED|error", re.I)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    made = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    universe.make_survey(str(folder / "survey.zarr"), shape=(600, 600), tile_size=192)
    universe.make_objects(folder / "objects.parquet", count=300, shape=(600, 600))
    universe.make_bundle(str(folder / "kind"))
    infer(str(folder / "survey.zarr"), bundle=str(folder / "kind"), objects=str(folder / "objects.parquet"),
          out=str(folder / "local"))  # fmt: skip
    return folder


def arguments(sky: Path) -> list[str]:
    return [str(sky / "survey.zarr"), "--bundle", str(sky / "kind"), "--objects", str(sky / "objects.parquet"),
            "--out", "catalog"]  # fmt: skip


def rows(catalog: Path) -> list[tuple[object, ...]]:
    files = str(catalog / "parts" / "**" / "*.parquet")
    return duckdb.sql(f"SELECT * FROM read_parquet('{files}', hive_partitioning=false) ORDER BY object_id").fetchall()


def same(catalog: Path, sky: Path) -> bool:
    return rows(catalog) == rows(sky / "local")


def log(where: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(where.glob("*.log")))


def left_nothing(where: Path) -> bool:
    return not list(where.glob(".astroml-*"))


def pixels(store: Path) -> dict[str, bytes]:
    files = [path for path in store.rglob("*/c/**/*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def parts(catalog: Path) -> int:
    return len(list((catalog / "parts").rglob("*.parquet")))


def test_an_array_and_its_finishing_job(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "deploy" / "slurm" / "submit.sh"
    command = [str(script), "--array=10-16:3%2", "--time=2", *SMALL, "--", *arguments(sky)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=slurm.environment, check=True)
    array, finish = re.findall(r"\d+", told.stdout)
    slurm.ended(array)
    slurm.ended(finish)
    assert same(tmp_path / "catalog", sky)
    text = log(tmp_path)
    assert [f"shard {index}/3 of an array job" in text for index in range(3)] == [True] * 3
    assert "0 rows in 0 units" in (next(tmp_path.glob(f"astroml-finish-{finish}-*.log"))).read_text()
    assert not LOOKS_FAILED.search(text)


def test_a_part_of_an_array_is_refused_until_it_is_told_of_how_many(
    slurm: SlurmCluster, sky: Path, tmp_path: Path
) -> None:
    slurm.ended(slurm.submit(tmp_path, ["--array=1,3", *SMALL], "infer-array.sbatch", *arguments(sky)))
    assert log(tmp_path).count("set ASTROML_SHARDS to the number") == 2
    assert not (tmp_path / "catalog").exists()
    for array in ("0,2", "1,3"):
        job = slurm.submit(
            tmp_path, [f"--array={array}", *SMALL], "infer-array.sbatch", *arguments(sky), ASTROML_SHARDS="4"
        )
        slurm.ended(job)
    assert same(tmp_path / "catalog", sky)


def test_dask_on_two_nodes(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    job = slurm.submit(
        tmp_path, ["--nodes=2", "--time=3", *SMALL], "infer-dask.sbatch", *arguments(sky), SLOW_UNITS="5"
    )
    wait(lambda: list(tmp_path.glob(".astroml-*/scheduler.json")), 120, "no scheduler")
    folder = next(tmp_path.glob(".astroml-*"))
    assert (folder.stat().st_mode & 0o777, (folder / "key.pem").stat().st_mode & 0o777) == (0o700, 0o600)
    assert "tls://" in (folder / "scheduler.json").read_text()
    slurm.ended(job)
    assert same(tmp_path / "catalog", sky)
    assert left_nothing(tmp_path)
    assert slurm.completed()[job] == "COMPLETED"
    assert not LOOKS_FAILED.search(log(tmp_path))


def test_ingest_on_two_nodes(slurm: SlurmCluster, tmp_path: Path) -> None:
    for number in range(3):
        header = Header.fromstring(universe.header(300, 400, ra=150 + number * 0.05), sep="\n")
        fits.writeto(tmp_path / f"image{number}.fits", universe.field(300, 400, 1, seed=number)[0], header)
    images = [f"image{number}.fits" for number in range(3)]
    given = ["--bands", "r", "--tile-size", "192", "--halo", "32", "--zero-point", "25"]
    job = slurm.submit(
        tmp_path, ["--nodes=2", "--time=3", *SMALL], "ingest-dask.sbatch", *images, "--out", "there", *given
    )
    local = [PLUGIN, "ingest", *images, "--out", "here", *given]
    subprocess.run(local, cwd=tmp_path, env=slurm.environment, check=True, capture_output=True)
    slurm.ended(job)
    here, there = pixels(tmp_path / "here"), pixels(tmp_path / "there")
    assert len(here) > 12
    assert here == there
    assert not LOOKS_FAILED.search(log(tmp_path))


@pytest.mark.parametrize("script", ["infer-array.sbatch", "infer-dask.sbatch"])
def test_at_its_walltime_a_job_goes_back_to_the_queue_and_goes_on(
    slurm: SlurmCluster, sky: Path, tmp_path: Path, script: str
) -> None:
    size, slow = (["--nodes=2", "--time=2"], "24") if "dask" in script else (["--array=0-0", "--time=1"], "16")
    job = slurm.submit(tmp_path, [*size, *SMALL], script, *arguments(sky), SLOW_UNITS=slow)
    wait(lambda: log(tmp_path).count("back into the queue") == 1, 200, "it was not put back")
    done = parts(tmp_path / "catalog")
    assert 0 < done < parts(sky / "local")
    end = time.monotonic() + 600
    while "ended with status 0" not in log(tmp_path):
        assert time.monotonic() < end, "it does not come to its end"
        if "PENDING" in slurm.jobs().values():
            slurm.start_now(job)
        time.sleep(1)
    slurm.ended(job, 60)
    assert same(tmp_path / "catalog", sky)
    assert re.search(rf"\({done} done before|[1-9]\d* done before", log(tmp_path))
    assert left_nothing(tmp_path)


def test_after_a_kill_the_same_command_goes_on(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    command = (["--nodes=2", "--time=5", *SMALL], "infer-dask.sbatch", *arguments(sky))
    job = slurm.submit(tmp_path, *command, SLOW_UNITS="4")
    wait(lambda: parts(tmp_path / "catalog") > 3, 150, "no part was written")
    slurm.ask("scancel", "--full", "--signal=KILL", job)
    slurm.ended(job)
    done = parts(tmp_path / "catalog")
    assert done < parts(sky / "local")
    slurm.ended(slurm.submit(tmp_path, *command))
    assert same(tmp_path / "catalog", sky)
    assert "0 failed" in log(tmp_path)


def test_a_cancelled_job_ends_and_stays_ended(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    job = slurm.submit(
        tmp_path, ["--time=5", "--array=0-0", *SMALL], "infer-array.sbatch", *arguments(sky), SLOW_UNITS="4"
    )
    wait(lambda: parts(tmp_path / "catalog") > 1, 150, "no part was written")
    slurm.ask("scancel", job)
    slurm.ended(job, 60)
    assert "terminated; what is finished is kept" in log(tmp_path)
    assert "back into the queue" not in log(tmp_path)


def test_a_scheduler_that_dies_ends_the_job_in_one_sentence(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dask").write_text("#!/bin/sh\necho OSError: Address already in use >&2; exit 1\n")
    (tmp_path / "bin" / "dask").chmod(0o755)
    job = slurm.submit(tmp_path, ["--nodes=2", *SMALL], "infer-dask.sbatch", *arguments(sky),
                       PATH=f"{tmp_path / 'bin'}:{slurm.environment['PATH']}")  # fmt: skip
    slurm.ended(job, 90)
    assert slurm.completed()[job] == "FAILED"
    assert "the Dask scheduler ended before it could be reached" in log(tmp_path)
    assert left_nothing(tmp_path)


QUEUED = ("--scheduler", "slurm", "--job-cores", "2", "--job-memory", "4", "--job-walltime", "00:10:00")


def started(slurm: SlurmCluster, where: Path, sky: Path, *more: str, **changes: str) -> subprocess.Popen[bytes]:
    """`infer` on the login node; its lines are in infer.log."""
    with (where / "infer.log").open("wb") as file:
        return subprocess.Popen(
            [PLUGIN, "infer", *arguments(sky), *QUEUED, *more], cwd=where, env=slurm.environment | changes, stderr=file
        )


def test_jobs_in_a_queue_are_waited_for(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    slurm.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        run = started(slurm, tmp_path, sky)
        wait(lambda: "waiting for workers: job " in log(tmp_path), 120, "nothing is said")
        time.sleep(70)  # the run gave up after 60 s before
        assert run.poll() is None
        assert re.search(r"job \d+ PENDING \(PartitionDown\)", log(tmp_path))
    finally:
        slurm.ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert run.wait(300) == 0
    assert same(tmp_path / "catalog", sky)
    wait(lambda: not slurm.jobs(), 60, "jobs are left")


def test_a_job_that_is_cancelled_is_replaced(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    run = started(slurm, tmp_path, sky, "--workers", "2", SLOW_UNITS="6")
    wait(lambda: parts(tmp_path / "catalog") > 2 and len(slurm.jobs()) == 2, 200, "two jobs do not work")
    first = set(slurm.jobs())
    slurm.ask("scancel", min(first))
    wait(lambda: len(set(slurm.jobs()) - first) == 1, 120, "no other job was submitted")
    assert run.wait(400) == 0
    assert same(tmp_path / "catalog", sky)
    wait(lambda: not slurm.jobs(), 60, "jobs are left")


def test_without_a_worker_in_time_the_run_ends_and_leaves_no_job(
    slurm: SlurmCluster, sky: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue")
    slurm.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        run = started(slurm, tmp_path, sky, "--worker-timeout", "5")
        assert run.wait(120) == 1
    finally:
        slurm.ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert "no worker joined within 5 s" in log(tmp_path)
    wait(lambda: not slurm.jobs(), 60, "jobs are left")


def test_a_late_worker_of_another_version_leaves(slurm: SlurmCluster, sky: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    package = Path(__file__).parents[1] / "astroml_plugin"
    shutil.copytree(package, other / "astroml_plugin", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "astroml_plugin" / "__init__.py").open("a") as file:
        file.write("# another version\n")
    job = slurm.submit(
        tmp_path, ["--nodes=1", "--time=4", *SMALL], "infer-dask.sbatch", *arguments(sky), SLOW_UNITS="6"
    )
    wait(lambda: parts(tmp_path / "catalog") > 1, 150, "no part was written")
    folder = next(tmp_path.glob(".astroml-*"))
    security = [f"--tls-{key}={folder / name}" for key, name in
                (("ca-file", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))]  # fmt: skip
    late = subprocess.run(
        ["dask", "worker", "--scheduler-file", str(folder / "scheduler.json"), *security, "--no-nanny",
         "--preload", "astroml_plugin.preload"],
        capture_output=True, text=True, timeout=120, cwd=other, check=False,
        env=slurm.environment | {"PYTHONPATH": str(other)},
    )  # fmt: skip
    assert re.search("leaves: the workers of this cluster run astroml_plugin", late.stderr)
    slurm.ended(job)
    assert same(tmp_path / "catalog", sky)


def ray_greets(address: str, folder: Path) -> tuple[bool, bool, bool]:
    """Whether Ray answers one who speaks plainly, one without a certificate of the job, and one with it."""
    host, _, port = address.rpartition(":")
    authority, (own, *_) = str(folder / "authority.pem"), folder.glob("node-*")
    stranger, friend = (ssl.create_default_context(cafile=authority) for _ in range(2))
    friend.load_cert_chain(own / "cert.pem", own / "key.pem")
    found = []
    for context in (None, stranger, friend):
        plain = socket.create_connection((host, int(port)), 30)
        try:
            if context is not None:
                context.set_alpn_protocols(["h2"])
            with plain if context is None else context.wrap_socket(plain, server_hostname=host) as line:
                line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                found.append(bool(line.recv(9)))
        except OSError:
            found.append(False)
    return found[0], found[1], found[2]


def test_a_search_over_two_nodes(slurm: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace("concurrent = 1", "concurrent = 2"))
    ellipticity_stamps(str(tmp_path / "galaxies.zarr"), 200)
    given = ("r.toml", "--data", "galaxies.zarr", "--out", "study", "--algorithm", "random")
    job = slurm.submit(tmp_path, ["--nodes=2", "--time=14", "--cpus-per-task=1", "--mem=4G"], "search.sbatch", *given)
    head = Path(f"/tmp/ray-{job}/ray_current_cluster")
    wait(lambda: head.exists() and head.read_text().strip(), 400, "no Ray")
    (folder,) = tmp_path.glob(".astroml-*")
    assert ray_greets(head.read_text().strip(), folder) == (False, False, True)
    slurm.ended(job, 800)
    assert slurm.completed()[job] == "COMPLETED", log(tmp_path)
    trials = duckdb.sql(f"SELECT status, node FROM '{tmp_path}/study/trials.parquet'").fetchall()
    assert [status for status, _ in trials] == ["finished"] * 3
    assert left_nothing(tmp_path)


def test_training_over_two_nodes(slurm: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.partition("[search]")[0])
    ellipticity_stamps(str(tmp_path / "galaxies.zarr"), 200)
    given = ("r.toml", "--data", "galaxies.zarr", "--out", "bundle")
    job = slurm.submit(tmp_path, ["--nodes=2", "--time=10", "--cpus-per-task=1", "--mem=4G"], "train.sbatch", *given)
    slurm.ended(job, 600)
    assert slurm.completed()[job] == "COMPLETED", log(tmp_path)
    assert (tmp_path / "bundle" / "card.json").exists()
