"""The bounded window: every unit has an outcome, whatever happens to its worker."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dask
import pytest
from distributed import Client, LocalCluster, get_worker
from distributed.core import Status

from astroml_plugin.compute.cluster import (
    WorkerDiedError,
    clients,
    connect,
    dashboard_urls,
    groups,
    run_window,
    starting,
    watching,
    window,
)
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.inference.options import ExecutionOptions

POISON = 7


def double(value: int) -> int:
    if value == 5:
        raise ValueError("five")
    return 2 * value


def kill_on_poison(value: int) -> int:
    time.sleep(0.02)
    if value == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def nap(value: int) -> int:
    time.sleep(0.06)
    return value


def test_all_items_come_back_once_and_errors_are_outcomes() -> None:
    with connect("local", threads=2) as client:
        outcomes = {outcome.item: outcome for outcome in run_window(client, double, range(40))}
    assert sorted(outcomes) == list(range(40))
    assert {item: outcome.value for item, outcome in outcomes.items() if item != 5} == {
        item: 2 * item for item in range(40) if item != 5
    }
    assert isinstance(outcomes[5].error, ValueError)


def test_items_are_taken_only_as_fast_as_they_are_worked_on() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for value in range(60):
            taken.append(value)
            yield value

    with connect("local", threads=1) as client:
        for done, _ in enumerate(run_window(client, nap, items(), io_lanes=1)):
            assert len(taken) <= done + 5


def place(value: int) -> str:
    """Where a unit runs."""
    return str(get_worker().address)


def test_what_is_tried_alone_goes_to_a_worker_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect("local", workers=2, threads=1) as client:
        held = window._Window(client, place, 2, None)
        gone, living = client.nthreads()
        client.retire_workers([gone])
        held.refresh = lambda: held.threads.update({gone: 1, living: 1})  # as the scheduler says a moment too long
        monkeypatch.setattr(window, "_PATIENCE", 0.5)
        outcome = window._alone(held, 0)
    assert (outcome.value, outcome.attempts) == (living, 2)


def kill_once(marker: str, value: int) -> int:
    """The first unit of all kills its worker."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return value
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_an_only_worker_that_dies_is_followed_by_another_however_long_that_takes(tmp_path: Path) -> None:
    late = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"})
    with late, connect("processes", workers=1, threads=1) as client:
        work = partial(kill_once, str(tmp_path / "marker"))
        assert {outcome.value for outcome in run_window(client, work, range(8))} == set(range(8))


def test_a_process_that_dies_at_its_start_is_followed_by_another_and_the_end_waits_for_none() -> None:
    with connect("processes", workers=1, threads=1) as client:
        nanny = client.cluster.workers[0]
        first = nanny.process.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: nanny.process.status == Status.starting and nanny.process.pid not in (None, first))
        os.kill(nanny.process.pid, signal.SIGKILL)
        wait_until(lambda: nanny.process.status == Status.running)
        assert client.submit(abs, -1).result(60) == 1


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Elsewhere:
    """A client whose only worker has gone, and another one came."""

    def __init__(self, held: str) -> None:
        self.held = held

    def nthreads(self) -> dict[str, int]:
        return {"tls://new": 1}

    def processing(self) -> dict[str, tuple[str, ...]]:
        return {"tls://new": (self.held,)}


class Sent:
    """A future that nobody has answered."""

    def __init__(self, key: str) -> None:
        self.key = key

    def done(self) -> bool:
        return False


def test_a_task_that_no_worker_has_is_called_back_at_the_second_look() -> None:
    lost, moved, fine = Sent("lost"), Sent("moved"), Sent("fine")
    addresses = {lost: "tls://old", moved: "tls://old", fine: "tls://new"}
    flights = {future: watching.Flight((0,), address, 0.0) for future, address in addresses.items()}
    watch = watching.Watch(cast(Client, Elsewhere("moved")), None, flights)
    assert [watch._nowhere(), watch._nowhere()] == [[], [lost]]
    assert watch.unheld == {lost}


def forget(cluster: LocalCluster, address: str) -> None:
    """What waiting for workers does when one has left and the cluster has yet to hear of it."""
    cluster.scheduler_info["workers"].pop(address)


def test_a_cluster_that_hears_too_late_of_a_lost_worker_can_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    with connect("local", workers=2, threads=1) as client:
        gone, living = client.nthreads()
        forget(client.cluster, gone)
        client.retire_workers([gone])
        assert client.submit(place, 0).result() == living
        cluster = client.cluster
    assert cluster.status.name == "closed"
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_closing_never_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(clients, "_survive_lost_workers", lambda cluster: None)
    with connect("local", workers=2, threads=1) as client:
        gone = next(iter(client.nthreads()))
        forget(client.cluster, gone)
        client.retire_workers([gone])
        cluster = client.cluster
    assert cluster.status.name == "closed"
    assert "closing LocalCluster: KeyError" in caplog.text


def test_a_cluster_of_others_is_not_made_to_forget_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    with connect("local", workers=2, threads=1) as client:
        monkeypatch.setattr(client.cluster, "wait_for_workers", lambda *_: asked.append(1))
        assert len(list(run_window(client, abs, range(3)))) == 3
        assert window._answering(window._Window(client, place, 2, None)) in client.nthreads()
    assert asked == []


def test_without_a_worker_the_run_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "_START", 0.3)
    with connect("local", workers=1, threads=1) as client:
        client.retire_workers(list(client.nthreads()))
        with pytest.raises(AstromlError, match="start workers"):
            list(run_window(client, abs, range(3)))


@pytest.mark.slow
def test_a_poisoned_unit_takes_no_innocent_with_it() -> None:
    with connect("processes", workers=2) as client:
        outcomes = {outcome.item: outcome for outcome in run_window(client, kill_on_poison, range(30))}
    assert sorted(outcomes) == list(range(30))
    assert isinstance(outcomes[POISON].error, WorkerDiedError)
    assert [item for item, outcome in outcomes.items() if outcome.error is not None] == [POISON]


@pytest.mark.parametrize("deadlocks", [True, False])
def test_where_dasks_profiler_can_stop_the_interpreter_it_is_off(
    monkeypatch: pytest.MonkeyPatch, *, deadlocks: bool
) -> None:
    monkeypatch.setattr(groups, "PROFILER_DEADLOCKS", deadlocks)
    with connect("local", threads=1) as client:
        for _ in run_window(client, abs, range(3)):
            pass
        profilers = [worker.periodic_callbacks["profile"] for worker in client.cluster.workers.values()]
        assert [profiler.is_running() for profiler in profilers] == [not deadlocks]


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(InputError, match="neither one of local"), connect("nowhere"):
        pass


def test_cuda_starts_one_process_per_gpu_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def started(**settings: object) -> LocalCluster:
        asked.update(settings)
        return LocalCluster(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0")

    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=started))
    with connect("cuda", threads=2) as client:
        assert client.submit(double, 4).result() == 8
    assert (asked["n_workers"], asked["threads_per_worker"], asked["host"]) == (None, 2, "127.0.0.1")


def dask_cuda(monkeypatch: pytest.MonkeyPatch, gpus: int, error: Exception | None = None) -> dict[str, Any]:
    """A pretended dask-cuda on a machine of so many GPUs; what it was asked to start."""
    asked: dict[str, Any] = {}

    def started(**settings: Any) -> LocalCluster:
        asked.update(settings)
        if error is not None:
            raise error
        return LocalCluster(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0")

    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=started))
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", SimpleNamespace(get_n_gpus=lambda: gpus))
    return asked


def test_cores_are_shared_among_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "cores", lambda: 16)
    asked = dask_cuda(monkeypatch, 4)
    with connect("cuda"):
        assert (asked["threads_per_worker"], asked["memory_limit"]) == (4, 0)


def test_more_workers_than_gpus_are_refused_before_any_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dask_cuda(monkeypatch, 1)
    with (
        pytest.raises(InputError, match=r"^2 workers cannot each have one of 1 GPU: give --workers 1, or"),
        connect("cuda", workers=2),
    ):
        pass
    assert asked == {}


def test_without_a_gpu_cuda_is_one_sentence_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    dask_cuda(monkeypatch, 1, RuntimeError("NVML Shared Library Not Found"))
    with (
        pytest.raises(InputError, match=r"\(RuntimeError: NVML Shared Library Not Found\): `nvidia-smi` must"),
        connect("cuda"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(InputError, match=r"no CUDA cluster.*astroml-plugin\[cuda\]"), connect("cuda"):
        pass


def test_many_processes_never_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def started(**settings: Any) -> LocalCluster:
        asked.append(settings["env"])
        raise InputError("enough")

    monkeypatch.setattr(starting, "LocalCluster", started)
    for workers in (1, 3):
        with pytest.raises(InputError, match="enough"), connect("processes", workers=workers):
            pass
    assert asked == [{}, {"CUDA_VISIBLE_DEVICES": ""}]
    with pytest.raises(InputError, match="would put many processes on one GPU: use --scheduler cuda"):
        ExecutionOptions(scheduler="processes", device="cuda")
    assert ExecutionOptions(scheduler="processes", device="cuda", workers=1).device == "cuda"


@pytest.mark.slow
def test_an_unreachable_scheduler_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no Dask scheduler answers"), connect("tcp://127.0.0.1:9"):
        pass


@pytest.mark.parametrize("kind", ["local", pytest.param("processes", marks=pytest.mark.slow)])
def test_nothing_listens_beyond_this_machine(kind: str) -> None:
    import psutil

    with connect(kind):
        here = psutil.Process()
        listening = [
            connection.laddr.ip
            for process in (here, *here.children(recursive=True))
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_threads_of_this_process_need_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def listening() -> set[int]:
        found = psutil.Process().net_connections(kind="inet")
        return {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}

    monkeypatch.setattr(starting, "find_spec", lambda package: None)
    before = listening()
    with connect("local", workers=2, threads=1) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert listening() <= before
        assert dashboard_urls(client) == {}


def test_prometheus_finds_dasks_metrics_where_it_is_told_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    monkeypatch.setattr(starting, "find_spec", lambda package: package)
    with connect("local", threads=1) as client:
        url = dashboard_urls(client)["Prometheus metrics"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"dask_scheduler_workers" in answer.read()


def test_only_pages_that_can_be_shown_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(dashboard_link="http://127.0.0.1:8787/status", cluster=None, scheduler=None)
    monkeypatch.setattr(clients, "find_spec", lambda package: None)
    assert dashboard_urls(client) == {}
    monkeypatch.setattr(clients, "find_spec", lambda package: package)
    assert dashboard_urls(client)["dashboard"] == "http://127.0.0.1:8787/status"
