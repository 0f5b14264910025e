"""Real accidents to real searches: afterwards the study is what an undisturbed one is."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from training_samples import ellipticity_stamps

from astroml_plugin.search.ray_cluster import Resources, connected
from astroml_plugin.training.bundle import ModelBundle
from tests.test_search import RECIPE, table
from workflows.search import search

torch.set_num_threads(1)

_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
_MEASURED = ("seconds", "cpu_seconds", "node")
COMMAND = [sys.executable, "-c", "from workflows.cli import entry; entry()"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Recipes and data; the cache of decoded stamps is the module's own."""
    place = tmp_path_factory.mktemp("searches")
    (place / "r.toml").write_text(RECIPE)
    longer = RECIPE.replace("epochs = 3", "epochs = 12")
    assert longer != RECIPE
    (place / "long.toml").write_text(longer)
    stepped = longer.replace("3e-2] }", "3e-2], steps = 2 }").replace("0.0, 0.9]", "0.0, 0.9], steps = 2")
    (place / "grid.toml").write_text(stepped)
    ellipticity_stamps(str(place / "galaxies.zarr"), 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASTROML_CACHE", str(place / "cache"))
        yield place


def start(folder: Path, out: Path, *more: str, recipe: str = "r.toml") -> subprocess.Popen[str]:
    """The command, in a process group of its own; it minds SIGINT also where the test runner was told not to."""
    command = [*COMMAND, "search", str(folder / recipe), "--data", str(folder / "galaxies.zarr"), "--out", str(out)]
    return subprocess.Popen(
        [*command, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive the test, with their descendants."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        end_tree(process.pid)
        process.communicate()


def end_tree(pid: int) -> None:
    """SIGKILL for a process and all its descendants."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in tree:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=30)


def happens(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait until `condition`; False where the process comes to a good end before."""
    while not condition():
        if process.poll() == 0:
            return False
        wait_for(lambda: condition() or process.poll() == 0, process)
    return True


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 400) -> None:
    """Wait until `condition`; fails when the process ends first."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def lines(out: Path) -> int:
    """Epochs in the logs of all trials."""
    return sum(len(path.read_bytes().splitlines()) for path in out.glob("trials/*/log.jsonl"))


def killed_five_times(
    folder: Path, out: Path, ended: list[subprocess.Popen[str]], *more: str, recipe: str = "r.toml"
) -> dict[str, bytes]:
    """SIGKILL to the driver at random moments of its work, then let it end; gives the outcomes that were written.

    A quick machine may have done all before the fifth kill; two are the least.
    """
    moments, seen = random.Random(7), {}
    for number in range(5):
        process = start(folder, out, *more, recipe=recipe)
        ended.append(process)
        begin, wanted = lines(out), moments.randint(1, 2)
        if not happens(lambda begin=begin, wanted=wanted: lines(out) >= begin + wanted, process):  # type: ignore[misc]
            assert number >= 2
            break
        time.sleep(moments.random() * 0.3)
        family = [one for one in psutil.Process(process.pid).children(recursive=True) if "Agent" not in one.name()]
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(family, timeout=30)  # agents of Ray itself take a minute to notice
        assert [one.name() for one in alive if one.is_running()] == []
        seen |= {str(path): path.read_bytes() for path in out.glob("trials/*/outcome.json")}
    process = start(folder, out, *more, recipe=recipe)
    ended.append(process)
    said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return seen


def configurations(out: Path) -> list[dict]:
    """The configurations of a study."""
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    return [{key: value for key, value in row.items() if key.startswith("param_")} for row in rows]


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_a_driver_killed_five_times_ends_like_an_undisturbed_one(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], algorithm: str
) -> None:
    recipe, undisturbed = "grid.toml" if algorithm == "grid" else "long.toml", tmp_path / "undisturbed"
    search(folder / recipe, data=str(folder / "galaxies.zarr"), out=undisturbed, algorithm=algorithm, trials=6)
    more = ["--algorithm", algorithm, "--concurrent", "1", "--trials", "6"]
    seen = killed_five_times(folder, tmp_path / "s", ended, *more, recipe=recipe)
    assert configurations(tmp_path / "s") == configurations(undisturbed)
    one, other = table(tmp_path / "s"), table(undisturbed)
    assert one["validation_loss"] == other["validation_loss"]
    assert one["status"] == other["status"] == ["finished"] * 6
    shas = {ModelBundle.load(path / "best").card.weights_sha256 for path in (tmp_path / "s", undisturbed)}
    assert len(shas) == 1
    assert all(Path(path).read_bytes() == before for path, before in seen.items())


@pytest.mark.parametrize("algorithm", ["asha", "tpe"])
def test_searches_that_depend_on_order_survive_five_kills(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], algorithm: str
) -> None:
    """Every configuration once, no trial repeated whose outcome was written, the best within three undisturbed runs."""
    if algorithm == "tpe":
        pytest.importorskip("optuna")
    settings = {"algorithm": algorithm, "trials": 14, "concurrent": 2}
    with connected(Resources(limit=2)):
        best = [
            search(folder / "r.toml", data=str(folder / "galaxies.zarr"), out=tmp_path / str(number), **settings).value
            for number in range(3)
        ]
    more = ["--algorithm", algorithm, "--trials", "14", "--concurrent", "2"]
    seen = killed_five_times(folder, tmp_path / "s", ended, *more)
    trials = table(tmp_path / "s")
    assert trials["number"] == list(range(14))
    assert "open" not in trials["status"]
    assert len({str(one) for one in configurations(tmp_path / "s")}) == 14
    assert seen
    assert all(Path(path).read_bytes() == before for path, before in seen.items())
    spread = max(best) - min(best)
    assert min(best) - spread - 0.05 <= min(trials["validation_loss"]) <= max(best) + spread + 0.05


def test_a_population_killed_five_times_ends_like_an_undisturbed_one(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    """Two members at a time: exchanges wait for all, so that even the order of arrival changes nothing."""
    undisturbed = tmp_path / "undisturbed"
    settings: dict[str, Any] = {"algorithm": "pbt", "trials": 5, "concurrent": 1}
    search(folder / "r.toml", data=str(folder / "galaxies.zarr"), out=undisturbed, **settings)
    more = ["--algorithm", "pbt", "--trials", "5", "--concurrent", "2"]
    seen = killed_five_times(folder, tmp_path / "s", ended, *more)
    one, other = (
        {k: v for k, v in table(path).items() if k not in _MEASURED} for path in (tmp_path / "s", undisturbed)
    )
    assert one == other
    kept = [sorted((path / "exchanges").glob("*.json")) for path in (tmp_path / "s", undisturbed)]
    assert [path.read_text() for path in kept[0]] == [path.read_text() for path in kept[1]]
    assert len(kept[0]) == 2
    shas = {ModelBundle.load(path / "best").card.weights_sha256 for path in (tmp_path / "s", undisturbed)}
    assert len(shas) == 1
    assert all(Path(path).read_bytes() == before for path, before in seen.items())


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_search_ends_ray_and_says_how_to_go_on(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], name: str, status: int
) -> None:
    process = start(folder, tmp_path / "s", "--trials", "30")
    ended.append(process)
    wait_for(lambda: lines(tmp_path / "s") >= 2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=120)
    assert process.returncode == status, said
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    assert not psutil.wait_procs(family, timeout=60)[1]


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_dies_ends_the_search_with_a_sentence_and_it_goes_on(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], name: str
) -> None:
    """Without it the search would wait for ever, or be aborted by Ray."""
    more = ["--trials", "3", "--algorithm", "random", "--epochs", "40"]
    process = start(folder, tmp_path / "s", *more)
    ended.append(process)
    wait_for(lambda: lines(tmp_path / "s") >= 2, process)
    family = [one for one in psutil.Process(process.pid).children(recursive=True) if "Agent" not in one.name()]
    next(one for one in family if one.name() == name).kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert f"{name} of the Ray on this machine died (out of memory?): what is finished is kept, run the same" in said
    assert "Traceback" not in said
    assert not psutil.wait_procs(family, timeout=60)[1]
    process = start(folder, tmp_path / "s", *more)
    ended.append(process)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert table(tmp_path / "s")["status"] == ["finished"] * 3


def test_a_full_disk_ends_the_search_and_blames_no_trial(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        process = start(folder, place / "s", "--trials", "40", "--algorithm", "random")
        ended.append(process)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 2, said
        assert "no space is left on the disk" in said
        subprocess.run(["mount", "-o", "remount,size=40M", str(place)], check=True)
        process = start(folder, place / "s", "--trials", "12", "--algorithm", "random")
        ended.append(process)
        printed, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert "failed" not in printed
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_two_nodes_share_the_trials_and_one_may_die(
    folder: Path, tmp_path: Path, ended: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two `ray start` processes of one core each, with a token; then the second is killed in the middle of a search."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # the search is not told that it has to show it
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    nodes: dict[str, Any] = {"env": {**os.environ, "RAY_AUTH_MODE": "token"}}
    log = tmp_path / "second.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    shared = ["--num-cpus=1", "--block", "--disable-usage-stats", "--object-store-memory=100000000"]
    shared += ["--node-ip-address=127.0.0.1", f"--temp-dir=/tmp/ray-test-{os.getpid()}"]
    head = subprocess.Popen(
        [ray, "start", "--head", f"--port={port}", "--include-dashboard=false", *shared], **nodes, **_QUIET
    )
    ended.append(head)
    address = f"127.0.0.1:{port}"
    wait_for(lambda: answers(port), head)
    with log.open("w") as handle:
        second = subprocess.Popen([ray, "start", f"--address={address}", *shared[:-1]], **nodes, stdout=handle)
    ended.append(second)
    wait_for(lambda: "Ray runtime started" in log.read_text(), second)
    joined = ["--ray-address", address, "--concurrent", "2"]
    process = start(folder, tmp_path / "s", "--trials", "6", "--algorithm", "random", *joined)
    ended.append(process)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    where = table(tmp_path / "s")["node"]
    assert len(set(where)) == 2, where
    process = start(folder, tmp_path / "t", "--trials", "8", "--algorithm", "random", *joined)
    ended.append(process)
    wait_for(lambda: lines(tmp_path / "t") >= 3, process)
    end_tree(second.pid)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert table(tmp_path / "t")["status"] == ["finished"] * 8
    process = start(folder, tmp_path / "u", "--cpus", "2", "--ray-address", address)
    ended.append(process)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "a trial asks for 2 CPUs and 0 GPUs, and the largest node of the cluster has 1 and 0" in said
    assert head.poll() is None  # a joined cluster is left running


def answers(port: int) -> bool:
    """Whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
