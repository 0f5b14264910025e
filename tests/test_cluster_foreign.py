"""Clusters and clients of others: what they meet, and who may use a cluster that was started here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from astroml_plugin.compute.cluster import check_client, connect, run_window
from astroml_plugin.core import version
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import resident
from astroml_plugin.inference.resident import ResidentModels
from tests.sent_to_workers import PickyFunction, have_the_package, lose_the_package, spawn_here, unsendable
from tests.test_bundle import make
from workflows.infer import infer
from workflows.ingest import ingest

HERE = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    """Two worker processes that were started here."""
    with connect("processes", workers=2, threads=1) as client:
        yield client


@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_nobody_without_the_credentials_can_use_processes_that_were_started_here(
    processes: Client, scheme: str
) -> None:
    assert processes.submit(abs, -3).result() == 3
    address = processes.scheduler.address.replace("tls://", f"{scheme}://")
    attack = f"from distributed import Client; Client({address!r}, timeout='4s').run_on_scheduler(print, 'inside')"
    done = subprocess.run([sys.executable, "-c", attack], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "inside" not in done.stdout
    assert any(words in done.stderr for words in ("TLS expects a `ssl_context`", "Timed out", "CommClosedError")), (
        done.stderr
    )


def test_a_scheduler_behind_tls_without_certificates_is_one_sentence(processes: Client) -> None:
    with (
        pytest.raises(InputError, match=r"cannot be joined by TLS .*DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
        connect(processes.scheduler.address),
    ):
        pass


def test_an_asynchronous_client_is_one_sentence() -> None:
    async def run() -> None:
        async with Client(processes=False, asynchronous=True, **HERE) as client:
            with pytest.raises(InputError, match="this Dask client is asynchronous"):
                check_client(client)
            with pytest.raises(InputError, match="this Dask client is asynchronous"):
                list(run_window(client, abs, range(3)))

    asyncio.run(run())


def test_an_adaptive_cluster_of_nothing_grows_for_the_run() -> None:
    with LocalCluster(processes=False, n_workers=0, threads_per_worker=1, **HERE) as cluster:
        cluster.adapt(minimum=0, maximum=2, interval="100ms")
        with Client(cluster) as client:
            values = {outcome.value for outcome in run_window(client, abs, range(-5, 0))}
    assert values == {1, 2, 3, 4, 5}


def test_a_worker_that_cannot_load_the_function_costs_no_unit(processes: Client) -> None:
    lacking = next(iter(processes.nthreads()))
    processes.run(lose_the_package, workers=[lacking])
    outcomes = list(run_window(processes, PickyFunction(), range(20)))
    processes.run(have_the_package)
    assert {outcome.item: outcome.value for outcome in outcomes} == {item: 2 * item for item in range(20)}


def test_an_answer_that_cannot_travel_is_an_outcome(processes: Client) -> None:
    outcomes = {outcome.item: outcome for outcome in run_window(processes, unsendable, range(6))}
    assert [outcome.value for item, outcome in sorted(outcomes.items()) if item != 3] == [0, 1, 2, 4, 5]
    assert isinstance(outcomes[3].error, TypeError)


def test_a_late_worker_of_other_code_leaves() -> None:
    with connect("local", workers=2, threads=1) as client:
        client.register_plugin(ResidentModels("other", 1, ("9.9", "0123456789ab")))
        for _ in range(100):
            if not client.nthreads():
                break
            threading.Event().wait(0.1)
        assert client.nthreads() == {}


def test_models_stay_until_the_last_run_of_a_worker_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_models", {("a", "cpu"): object()})
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1), address="inproc://x")
    first, second = (ResidentModels(run, 1, version.running()) for run in ("first", "second"))
    first.setup(worker)
    second.setup(worker)
    first.teardown(worker)
    assert resident._models
    second.teardown(worker)
    assert not resident._models


def test_two_runs_at_once_on_one_client(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    images = drawn.normal(0, 1, (60, 1, 48, 48)).astype(np.float32)
    psf = np.ones((60, 1, 25, 25), np.float32)
    np.savez(tmp_path / "s.npz", images=images, psf=psf, bands=np.array(["r"]), pixel_scale=0.2)
    ingest(str(tmp_path / "s.npz"), out=str(tmp_path / "s.zarr"))
    make(tmp_path / "small")
    rows: dict[str, Any] = {}

    def run(out: str) -> None:
        try:
            done = infer(
                str(tmp_path / "s.zarr"), bundle=str(tmp_path / "small"), out=str(tmp_path / out), client=client
            )
            rows[out] = (done.rows, done.units_failed)
        except Exception as error:
            rows[out] = error

    with connect("local", threads=2) as client:
        threads = [threading.Thread(target=run, args=(out,)) for out in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert rows == {"one": (60, 0), "two": (60, 0)}


SCRIPT = """
from astroml_plugin.compute.cluster import connect

def work():
    with connect("processes", workers=1, threads=1) as client:
        print("answer", client.submit(abs, -7).result())

{guard}work()
"""


@pytest.mark.parametrize(("guard", "works"), [("", False), ("if __name__ == '__main__': ", True)])
def test_a_script_without_a_main_guard_is_told_at_once(tmp_path: Path, *, guard: str, works: bool) -> None:
    script = tmp_path / "pipeline.py"
    script.write_text(SCRIPT.format(guard=guard))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert ("answer 7" in done.stdout) == works, done.stderr
    sentence = "starts processes that import pipeline.py anew, and it would run itself again in each: put its calls"
    assert (sentence in done.stderr) != works


def test_processes_within_a_worker_are_one_sentence(processes: Client) -> None:
    assert "this is a daemonic process" in processes.submit(spawn_here).result()
    assert spawn_here() == ""


def test_clusters_that_start_at_the_same_moment() -> None:
    started: list[int] = []

    def run() -> None:
        with connect("local", threads=1) as client:
            started.append(client.submit(abs, -1).result())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == [1, 1, 1]
    assert dask.config.get("scheduler", None) is None  # as it was: others' graphs run as before
    assert dask.config.get("distributed.scheduler.allowed-failures") > 0


def test_a_closed_client_is_one_sentence() -> None:
    with connect("local", threads=1) as client:
        check_client(client)
    with pytest.raises(InputError, match="this Dask client is closed"):
        check_client(client)
