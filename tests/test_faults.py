"""Real accidents to real processes: afterwards the catalog is what an undisturbed run gives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from astroml_plugin.catalog import Catalog
from tests import universe
from tests.test_infer import assert_same, rows
from workflows.cli import main
from workflows.infer import InferResult, infer
from workflows.query import query

COMMAND = [sys.executable, "-c", "from workflows.cli import entry; entry()"]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of many tiles, its objects, a bundle and the catalog of an undisturbed run."""
    folder = tmp_path_factory.mktemp("faults")
    universe.make_survey(str(folder / "survey.zarr"), shape=(576, 576), tile_size=160, halo=32)
    universe.make_objects(folder / "objects.parquet", 1200, (576, 576))
    universe.make_bundle(str(folder / "kind"))
    infer(
        str(folder / "survey.zarr"),
        bundle=str(folder / "kind"),
        objects=str(folder / "objects.parquet"),
        out=str(folder / "undisturbed"),
    )
    return folder


def arguments(sky: Path, out: Path, *more: str, survey: Path | None = None) -> list[str]:
    """The command of the run."""
    return [*COMMAND, *words(sky, out, *more, survey=survey)]


def words(sky: Path, out: Path, *more: str, survey: Path | None = None) -> list[str]:
    """The command's verb and options."""
    return [
        *("infer", str(survey or sky / "survey.zarr"), "--bundle", str(sky / "kind")),
        *("--objects", str(sky / "objects.parquet"), "--out", str(out), *more),
    ]


def resumed(sky: Path, out: Path, **shape: object) -> InferResult:
    """The same run again, which must end with every row once and an empty failures table."""
    result = infer(
        str(sky / "survey.zarr"), bundle=str(sky / "kind"), objects=str(sky / "objects.parquet"), out=str(out), **shape
    )
    assert result.units_failed == 0
    assert Catalog.open(str(out)).failures().num_rows == 0
    assert_same(rows(sky / "undisturbed"), rows(out))
    return result


def failures(out: Path) -> dict[str, str]:
    """Failed units and why."""
    table = Catalog.open(str(out)).failures()
    return dict(zip(table["unit"].to_pylist(), table["reason"].to_pylist()))


def spawned(process: subprocess.Popen[str] | None = None) -> list[psutil.Process]:
    """The worker processes of a run, of this process where none is given."""
    found = []
    for child in psutil.Process(None if process is None else process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def assert_all_but(sky: Path, out: Path, *units: str) -> None:
    """The catalog has every row of an undisturbed run but those of some units."""
    where = " AND ".join(f"tile <> '{unit}'" for unit in units)
    wanted = query(str(sky / "undisturbed"), f"SELECT object_id FROM catalog WHERE {where} ORDER BY object_id")
    found = query(str(out), "SELECT object_id FROM catalog ORDER BY object_id")
    assert found.to_arrow().equals(wanted.to_arrow())


def start(command: list[str]) -> subprocess.Popen[str]:
    """The command in its own process group; it minds SIGINT also where the test runner itself was told not to."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    """Wait until `condition`; fails when the process ends first."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.005)


def parts(out: Path) -> int:
    """Finished parts of a catalog."""
    return sum(1 for path in out.glob("parts/*/*.parquet") if not path.name.startswith("."))


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        pytest.param("SIGINT", 130, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        ("SIGKILL", -9),
    ],
)
def test_a_stopped_driver_resumes(
    sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], name: str, status: int
) -> None:
    out = tmp_path / "catalog"
    process = start(arguments(sky, out))
    ended.append(process)
    wait_for(lambda: parts(out) >= 5, process)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert "Traceback" not in said
    if status > 0:
        assert "run the same command to go on" in said
    stopped_at = parts(out)
    assert 5 <= stopped_at < parts(sky / "undisturbed")
    assert resumed(sky, out, workers=2, threads=1).units_skipped >= 5  # on another shape of cluster


def test_a_killed_worker_costs_no_row(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "catalog"
    killed: list[int] = []

    def kill() -> None:
        while parts(out) < 5:
            time.sleep(0.005)
        workers = spawned()
        assert len(workers) == 2
        workers[0].kill()
        killed.append(workers[0].pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    capsys.readouterr()
    assert main(words(sky, out, "--scheduler", "processes", "--workers", "2")) == 0
    killer.join(60)
    assert len(killed) == 1
    assert "0 failed" in capsys.readouterr().out
    assert_same(rows(sky / "undisturbed"), rows(out))


@pytest.mark.slow
def test_two_drivers_on_one_output_make_one_catalog(
    sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    out = tmp_path / "catalog"
    both = [start(arguments(sky, out)) for _ in range(2)]
    ended += both
    for process in both:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    assert_same(rows(sky / "undisturbed"), rows(out))


@pytest.mark.slow
def test_a_scheduler_address_serves_too(sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    from distributed import Client

    address, _, _ = cluster(ended)
    found = subprocess.run(arguments(sky, tmp_path / "catalog", "--scheduler", address), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    with Client(address) as client:
        assert len(client.nthreads()) == 1  # the caller's worker is still there
    assert_same(rows(sky / "undisturbed"), rows(tmp_path / "catalog"))


@pytest.mark.slow
def test_a_walltime_on_processes_resumes_on_threads(
    sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    """Slurm ends a job by SIGTERM and gives it 30 seconds before SIGKILL."""
    out = tmp_path / "catalog"
    process = start(arguments(sky, out, "--scheduler", "processes", "--workers", "2"))
    ended.append(process)
    wait_for(lambda: parts(out) >= 5, process)
    workers = spawned(process)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143, said
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)
    assert resumed(sky, out, threads=1).units_skipped >= 5


def blocked_shard(survey: Path, number: int) -> tuple[Path, bytes]:
    """Put a pipe that nobody writes to in a shard's place: who opens it waits for ever, as on storage that hangs."""
    shard = sorted((survey / "image" / "c").glob("*/0/0/0"))[number]
    data = shard.read_bytes()
    shard.unlink()
    os.mkfifo(shard)
    return shard, data


@pytest.mark.slow
def test_a_unit_that_hangs_is_given_up_and_named(sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    survey, out = tmp_path / "survey.zarr", tmp_path / "catalog"
    shutil.copytree(sky / "survey.zarr", survey)
    blocked_shard(survey, 20)
    process = start(arguments(sky, out, "--unit-timeout", "15", survey=survey))
    ended.append(process)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert "longer than 15 s" in said
    (unit,) = failures(out)
    assert_all_but(sky, out, unit)
    assert resumed(sky, out).units_done == 1


@pytest.mark.slow
def test_a_worker_whose_unit_hangs_is_replaced(sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    survey, out = tmp_path / "survey.zarr", tmp_path / "catalog"
    shutil.copytree(sky / "survey.zarr", survey)
    blocked_shard(survey, 20)
    process = start(
        arguments(sky, out, "--scheduler", "processes", "--workers", "2", "--unit-timeout", "40", survey=survey)
    )
    ended.append(process)
    wait_for(lambda: parts(out) >= 1, process)
    before = {worker.pid for worker in spawned(process)}
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert not any(psutil.pid_exists(pid) for pid in before)
    (unit,) = failures(out)
    assert_all_but(sky, out, unit)
    assert resumed(sky, out).units_done == 1


@pytest.mark.slow
def test_a_worker_that_stands_still_costs_no_row(sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    out = tmp_path / "catalog"
    process = start(arguments(sky, out, "--scheduler", "processes", "--workers", "2", "--unit-timeout", "40"))
    ended.append(process)
    wait_for(lambda: parts(out) >= 5, process)
    spawned(process)[0].send_signal(signal.SIGSTOP)
    printed, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "0 failed" in printed
    assert_same(rows(sky / "undisturbed"), rows(out))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_stops_the_run_and_keeps_what_is_there(
    sky: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "catalog"
    capsys.readouterr()
    assert main(words(sky, out)) == 2
    said = capsys.readouterr().err
    assert "space" in said
    assert "Traceback" not in said
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    kept = parts(out)
    assert resumed(sky, out).units_skipped >= kept > 0  # units that were being written may have found room


POISON = """
import os, signal
from astroml_plugin.inference import reading

read = reading.read_unit

def poisoned(unit, *more):
    if unit.index == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(unit, *more)

def dask_setup(worker):
    from astroml_plugin.inference import unit
    unit.read_unit = poisoned
"""
"""Loaded by Dask into every worker process: tile 20 takes the process with it, as a driver or codec that crashes."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_unit_that_kills_its_worker_is_the_only_one_blamed(
    sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "catalog"
    (tmp_path / "poison.py").write_text(POISON)
    with monkeypatch.context() as patch:
        patch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(tmp_path / "poison.py"))
        process = start(arguments(sky, out, "--scheduler", "processes", "--workers", "2"))
    ended.append(process)
    _, said = process.communicate(timeout=500)
    assert process.returncode == 3, said
    ((unit, reason),) = failures(out).items()
    assert "died twice" in reason
    assert_all_but(sky, out, unit)
    assert resumed(sky, out).units_done == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cluster(ended: list[subprocess.Popen[str]]) -> tuple[str, subprocess.Popen[str], subprocess.Popen[str]]:
    """A scheduler and a worker as users start them: address, scheduler, worker."""
    port = free_port()
    dask, address = [sys.executable, "-m", "dask"], f"tcp://127.0.0.1:{port}"
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    scheduler = start([*dask, "scheduler", *here, "--port", str(port)])
    worker = start([*dask, "worker", address, *here, "--nthreads", "2", "--no-nanny", "--memory-limit", "0"])
    ended += [scheduler, worker]
    return address, scheduler, worker


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_run_and_another_goes_on(
    sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    out = tmp_path / "catalog"
    address, scheduler, _ = cluster(ended)
    process = start(arguments(sky, out, "--scheduler", address))
    ended.append(process)
    wait_for(lambda: parts(out) >= 5, process)
    scheduler.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "scheduler went away" in said
    assert "Traceback" not in said
    assert resumed(sky, out).units_skipped >= 5
