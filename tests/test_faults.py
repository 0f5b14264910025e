"""Real accidents to real processes: afterwards the catalog is what an undisturbed run gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests import universe
from tests.test_infer import assert_same, rows
from workflows.infer import infer

COMMAND = [sys.executable, "-c", "from workflows.cli import entry; entry()"]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of many tiles, its objects, a bundle and the catalog of an undisturbed run."""
    folder = tmp_path_factory.mktemp("faults")
    universe.make_survey(str(folder / "survey.zarr"), shape=(900, 900), tile_size=160, halo=32)
    universe.make_objects(folder / "objects.parquet", 3000, (900, 900))
    universe.make_bundle(str(folder / "kind"))
    infer(
        str(folder / "survey.zarr"),
        bundle=str(folder / "kind"),
        objects=str(folder / "objects.parquet"),
        out=str(folder / "undisturbed"),
    )
    return folder


def arguments(sky: Path, out: Path, *more: str) -> list[str]:
    """The command of the run."""
    return [
        *COMMAND,
        *("infer", str(sky / "survey.zarr"), "--bundle", str(sky / "kind")),
        *("--objects", str(sky / "objects.parquet"), "--out", str(out), *more),
    ]


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


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
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


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
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
    assert 5 <= stopped_at < 100
    again = infer(
        str(sky / "survey.zarr"), bundle=str(sky / "kind"), objects=str(sky / "objects.parquet"), out=str(out)
    )
    assert again.units_skipped >= 5
    assert_same(rows(sky / "undisturbed"), rows(out))


def test_a_killed_worker_costs_no_row(sky: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]) -> None:
    out = tmp_path / "catalog"
    process = start(arguments(sky, out, "--scheduler", "processes", "--workers", "2"))
    ended.append(process)
    wait_for(lambda: parts(out) >= 5, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    workers[0].kill()
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "0 failed" in printed
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
def test_a_scheduler_address_serves_too(sky: Path, tmp_path: Path) -> None:
    from astroml_plugin.cluster import connect

    with connect("processes", workers=2) as client:
        address = client.scheduler.address
        found = subprocess.run(
            arguments(sky, tmp_path / "catalog", "--scheduler", address), capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        assert len(client.nthreads()) == 2  # the caller's workers are still there
    assert_same(rows(sky / "undisturbed"), rows(tmp_path / "catalog"))
