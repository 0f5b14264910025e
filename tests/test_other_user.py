"""Another user of this machine against every server that is started here: none reaches code, pixels or scores."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from astroml_plugin.compute.cluster import connect
from astroml_plugin.labelling.server import LabelServer
from astroml_plugin.labelling.session import Session, SessionSettings
from astroml_plugin.training import distributed
from tests import reliability
from tests.attacker import listening
from tests.ranked_catalogs import ranked_catalog, rows
from workflows.label import open_labels

NOBODY = 65534
SECRET = "only-the-owner-may-read-this"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.getuid() != 0, reason="another user's process can be started by root alone"),
]


def attacked(folder: Path, ports: dict[int, str], **more: Any) -> dict[str, Any]:
    """What another user reaches of servers at these ports."""
    place = folder / "targets.json"
    place.write_text(json.dumps({"ports": sorted(ports), "secrets": [SECRET], **more}))
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacker", str(place), str(NOBODY)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["uid"] == NOBODY
    return found


def kept(server: str, ports: dict[int, str], found: dict[str, Any]) -> None:
    """Write the counts, and let nothing have been reached."""
    where = ", ".join(sorted(set(ports.values()))) or "nothing"
    reliability.keep("other user", [[server, where, found["attempts"], len(found["reached"])]])
    assert found["reached"] == []
    assert set(ports.values()) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def secret_work(text: str) -> int:
    """A task whose argument nobody else may read."""
    return len(text)


def test_dask_scheduler_workers_and_their_pages(tmp_path: Path) -> None:
    with connect("processes", workers=1, threads=1) as client:
        held = client.submit(secret_work, SECRET)
        assert held.result() == len(SECRET)
        ports = listening(os.getpid())
        assert len(ports) >= 3
        found = attacked(tmp_path, ports)
    kept("Dask of --scheduler processes", ports, found)


def test_dask_in_this_process(tmp_path: Path) -> None:
    with connect("local", threads=1) as client:
        assert client.submit(secret_work, SECRET).result() == len(SECRET)
        ports = listening(os.getpid())
        found = attacked(tmp_path, ports)
    kept("Dask of --scheduler local", ports, found)


def test_the_page_of_label(tmp_path: Path) -> None:
    catalog = ranked_catalog(tmp_path / "c", rows(30))
    scores = open_labels(catalog.url, path=str(tmp_path / "s.jsonl"), who="ana")
    scores.add(int(rows(30)["object_id"][0].as_py()), 3, SECRET)
    before = scores.path.read_bytes()
    with LabelServer(Session(catalog.url, scores, SessionSettings(top=10))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        ports = {server.server_address[1]: server.server_address[0]}
        found = attacked(tmp_path, ports, secrets=[SECRET, server.token, "anomaly_score", "object_id"])
        server.shutdown()
        thread.join()
    kept("page of label", ports, found)
    assert scores.path.read_bytes() == before


RAY = """
import json, sys, time
from astroml_plugin.search.ray_cluster import Resources, connected
import ray
with connected(Resources(limit=1)):
    reference = ray.put(sys.argv[1])
    print(ray.get_runtime_context().gcs_address, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the test, and its descendants with it."""
    from tests.test_search_faults import end_tree

    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        end_tree(process.pid)
        process.communicate()


def test_ray_of_search(tmp_path: Path) -> None:
    with running([sys.executable, "-c", RAY, SECRET]) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        ports = listening(process.pid)
        assert len(ports) >= 3
        found = attacked(tmp_path, ports, ray=address, pages=["/", "/api/version", "/metrics", "/logs", "/nodes"])
    kept("Ray of search", ports, found)


def _exchange(ready: str, go: str) -> None:
    """One process of a group: waits between two exchanges until the attack is over."""
    with distributed.joined_group("cpu"):
        values = torch.ones(4)
        torch.distributed.all_reduce(values)
        Path(f"{ready}.{os.environ['RANK']}").write_text(os.environ.get("ASTROML_GROUP_STORE", ""))
        while not Path(go).exists():
            threading.Event().wait(0.2)
        torch.distributed.all_reduce(values)
        assert values.tolist() == [4.0] * 4


def test_processes_that_train_together(tmp_path: Path) -> None:
    ready, go = str(tmp_path / "ready"), str(tmp_path / "go")
    found: dict[str, Any] = {}

    def watch() -> None:
        if found or not all(Path(f"{ready}.{rank}").exists() for rank in range(2)):
            return
        ports = listening(os.getpid())
        store = Path(f"{ready}.0").read_text()
        found.update(attacked(tmp_path, ports, torch=True, files=[store], pages=["/"], secrets=[SECRET, "/127.0.0.1"]))
        found["ports"] = ports
        Path(go).write_text("go")

    distributed.spawn(2, _exchange, ready, go, watch=watch)
    kept("train --processes", found["ports"], found)
