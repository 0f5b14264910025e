"""Where a search runs: what a trial may ask for, clusters that are joined, studies in an object store."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import ray
from training_samples import ellipticity_stamps

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.search import ray_cluster
from astroml_plugin.search.ray_cluster import Resources, connected, room
from astroml_plugin.training.bundle import ModelBundle
from tests.test_search import RECIPE
from tests.test_search_faults import answers, end_tree, lines, start, wait_for
from workflows.search import SearchExecution, search


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    """Ray's list of nodes."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": one} for one in nodes])


def test_as_many_trials_run_at_once_as_the_nodes_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 3.0}, {"memory": 1e9})
    assert room(Resources(1, 0)) == 19
    assert room(Resources(4, 0)) == 4
    assert room(Resources(0.1, 0)) == 190
    assert room(Resources(1, 0.5)) == 4
    assert room(Resources(1, 0.4)) == 4  # not 5: a trial never spreads over two GPUs
    assert room(Resources(8, 0.25)) == 2
    assert room(Resources(1, 2)) == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Resources(1, 0.5), "a trial asks for 1 CPUs and 0.5 GPUs, and the largest node of the cluster has 8 and 0"),
        (
            Resources(9, 0),
            "a trial asks for 9 CPUs and 0 GPUs, .* has 8 and 0: ask for less per trial, or join a larger",
        ),
    ],
)
def test_a_trial_that_no_node_has_room_for_is_refused(wanted: Resources, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ray_cluster._refuse_large(wanted, [{"CPU": 8.0}, {"CPU": 4.0}], "the cluster")


def test_a_gpu_that_this_machine_lacks_is_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_gpus", lambda: 0)
    monkeypatch.setattr(ray, "init", lambda **given: pytest.fail("Ray was started"))
    refused = pytest.raises(InputError, match=r"0\.25 GPUs, and the largest node of this machine has")
    with refused, connected(Resources(1, 0.25)):
        pytest.fail("it was not refused")


def test_more_than_one_gpu_is_a_whole_number_of_them() -> None:
    with pytest.raises(InputError, match=r"1\.5 GPUs per trial: Ray gives a part of one GPU, or whole ones"):
        Resources(1, 1.5)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe and data."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "r.toml").write_text(RECIPE)
    ellipticity_stamps(str(folder / "galaxies.zarr"), 200)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROML_CACHE", str(tmp_path / "cache"))


class Head(NamedTuple):
    """A cluster of one node."""

    address: str
    pid: int


@pytest.fixture
def head() -> Iterator[Head]:
    """A cluster of one node that says it has two cores and a GPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as place:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=2"]
        command += ["--num-gpus=1", "--block", "--disable-usage-stats", "--include-dashboard=false"]
        command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1", f"--temp-dir={place}"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": "0"}, **quiet)
        try:
            wait_for(lambda: answers(port), process, 120)
            yield Head(f"127.0.0.1:{port}", process.pid)
        finally:
            end_tree(process.pid)
            process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trials_share_the_gpu_of_a_cluster_that_goes_on_afterwards(
    given: Path, cache: None, head: Head, tmp_path: Path
) -> None:
    """Ray believes in a GPU that is not there; trials train on the CPU, and two of them have half of it each."""
    at_once: list[int] = []
    settings: dict[str, Any] = {"algorithm": "random", "concurrent": 3, "trials": 4, "cpus": 0.5}
    result = search(
        given / "r.toml",
        data=str(given / "galaxies.zarr"),
        out=tmp_path / "s",
        execution=SearchExecution(head.address, device="cpu"),
        gpus=0.5,
        progress=lambda standing: at_once.append(len(standing.running)),
        **settings,
    )
    assert result.statuses["finished"] == 4
    assert max(at_once) == 2
    with pytest.raises(InputError, match="2 GPUs, and the largest node of the cluster has 2 and 1"):
        search(
            given / "r.toml",
            data=str(given / "galaxies.zarr"),
            out=tmp_path / "t",
            execution=SearchExecution(head.address),
            gpus=2.0,
        )
    assert not ray.is_initialized()
    assert answers(int(head.address.rpartition(":")[2]))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_that_dies_ends_the_search_with_a_sentence(
    given: Path, cache: None, head: Head, tmp_path: Path
) -> None:
    process = start(given, tmp_path / "s", "--ray-address", head.address, "--trials", "9", "--epochs", "200")
    try:
        wait_for(lambda: lines(tmp_path / "s") >= 2, process)
        end_tree(head.pid)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert f"the Ray cluster at {head.address} no longer answers: what is finished is kept, run the same" in said
        assert "Traceback" not in said
    finally:
        end_tree(process.pid)


def test_an_address_of_the_client_is_refused(given: Path, cache: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an address of Ray's client, .* or run this on one of its nodes"):
        search(
            given / "r.toml",
            data=str(given / "galaxies.zarr"),
            out=tmp_path / "s",
            execution=SearchExecution("ray://head:10001"),
        )


def test_an_address_where_nothing_answers_is_said(given: Path, cache: None, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(InputError, match=f"no Ray cluster answers at {address}"):
        search(
            given / "r.toml", data=str(given / "galaxies.zarr"), out=tmp_path / "s", execution=SearchExecution(address)
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("algorithm", ["asha", "pbt"])
def test_a_study_in_an_object_store_goes_on_there(given: Path, cache: None, tmp_path: Path, algorithm: str) -> None:
    """Data and study on S3, cut and continued; no key is written anywhere."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    from tests.object_store import KEY, SECRET, S3Server, in_environment

    server = S3Server()
    try:
        with in_environment(server.port) as store:
            bucket = f"sky-{algorithm}"  # moto keeps what an earlier server of this process had
            store.mkdir(bucket)
            store.put(f"{given / 'galaxies.zarr'}/", f"{bucket}/galaxies.zarr/", recursive=True)
            settings: dict[str, Any] = {"algorithm": algorithm, "trials": 4, "data": f"s3://{bucket}/galaxies.zarr"}
            out = f"s3://{bucket}/studies/one"
            with connected(Resources(limit=1)):
                first = search(
                    given / "r.toml", out=out, total_epochs=5, execution=SearchExecution(leave_open=True), **settings
                )
                assert first.statuses["open"] > 0
                result = search(given / "r.toml", out=out, **settings)
            assert result.statuses["open"] == result.statuses["failed"] == 0
            trials = pq.read_table(storage.filesystem(out)[1] + "/trials.parquet", filesystem=store).to_pylist()
            assert len(trials) == 4
            assert ModelBundle.load(f"{out}/best").card.training["search"]["winner"] == result.best
            names = [name.removeprefix(f"{bucket}/studies/one/") for name in store.find(f"{bucket}/studies/one")]
            assert {"study.json", "best.toml", "progress.png", "best/card.json", "pareto.md"} <= set(names)
            assert [name for name in names if ".pkl" in name] == []
            texts = [store.cat(f"{bucket}/studies/one/{name}") for name in names]
            assert [name for name, text in zip(names, texts) if KEY.encode() in text or SECRET.encode() in text] == []
            again = search(given / "r.toml", out=out, **settings)
            assert again.skipped
            assert json.loads(store.cat(f"{bucket}/studies/one/study.json"))["test_measurements"] == 1
    finally:
        server.stop()


_KNOCK = """
import sys
from ray._raylet import GcsClient
try:
    print("in", len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))
except Exception as error:
    print("out", error)
"""


@pytest.mark.slow
def test_a_ray_of_our_own_lets_nobody_in_without_its_token() -> None:
    program = f"""
import os, stat, subprocess, sys
from pathlib import Path
from astroml_plugin.search.ray_cluster import Resources, connected, ray
before = dict(os.environ)
with connected(Resources(limit=1)):
    address = ray.get_runtime_context().gcs_address
    folder = Path(ray._private.worker._global_node.get_temp_dir_path()).parent
    print(oct(stat.S_IMODE(folder.stat().st_mode)), folder.stat().st_uid == os.getuid())
    without = {{name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}}
    wrong = {{**without, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "HOME": "/nowhere"}}
    for given in (dict(os.environ), without, wrong):
        done = subprocess.run([sys.executable, "-c", {_KNOCK!r}, address], env=given, capture_output=True, text=True)
        print(done.stdout[:3].strip())
print(folder.exists(), [name for name in os.environ if name.startswith("RAY_AUTH") and name not in before])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.split("\n")[:5] == ["0o700 True", "in", "out", "out", "False []"]
