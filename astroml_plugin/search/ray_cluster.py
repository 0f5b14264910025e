"""The Ray cluster of a search: joined at an address, or started on this machine's loopback and stopped again."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray
from ray._private import ray_constants

from astroml_plugin.compute.cluster import cores as usable_cores
from astroml_plugin.core import storage, version
from astroml_plugin.core.errors import InputError, LostError

_SILENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interruption is ours: it has to end Ray too
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may fail before its first epoch
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_worker_niceness": "0",  # trials are as nice as the search is; Ray would add 15
    "RAY_AIR_NEW_OUTPUT": "0",  # it prints on stdout, which is for data
}


_ATTEMPTS = 4
_LATE = "timed out during startup"
"""Words of Ray's error where a machine is too busy to start it within 30 s."""


@dataclass(frozen=True)
class Resources:
    """Resources of one trial, and of the cluster."""

    cpus: float = 1.0
    """Cores of one trial."""
    gpus: float = 0.0
    """GPUs of one trial, also fractions."""
    concurrent: int | None = None
    """Trials at once, at most; None: as many as fit."""
    address: str | None = None
    """Address of a running Ray cluster; None starts one here and stops it at the end."""
    limit: int | None = None
    """Cores of the cluster that is started here; None: all that this process may use."""

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise InputError(f"{self.gpus:g} GPUs per trial: Ray gives a part of one GPU, or whole ones")


@contextmanager
def connected(resources: Resources) -> Iterator[None]:
    """Ray, joined or started; one that is started here is stopped, whatever happens.

    Raises:
        InputError: no cluster at the address, its nodes have another version, or no node has room for one trial.
    """
    os.environ.update(_SILENT)
    ours = not ray.is_initialized()
    cores = resources.limit or usable_cores()
    if ours and resources.address is None:
        _refuse_large(resources, [{"CPU": float(cores), "GPU": float(_gpus())}], "this machine")
    alone = ours and resources.address is None
    place: AbstractContextManager[dict[str, Any]] = _alone() if alone else nullcontext({})
    with place as settings:
        yield from _connected(resources, cores, ours, settings)


def _connected(resources: Resources, cores: int, ours: bool, settings: Mapping[str, Any]) -> Iterator[None]:
    try:
        if ours:
            with _own_signals():
                _start(resources, cores, settings)
        _refuse_large(resources, [node["Resources"] for node in ray.nodes() if node["Alive"]], "the cluster")
        if resources.address is not None:
            _refuse_other_versions()
        yield
    except LostError:  # calls to what is left of Ray might never come back
        if ours:
            _end_processes()
        ours = False
        raise
    finally:
        if ours:
            ray.shutdown()


def _node() -> Any:
    """Ray's record of the processes that this one started."""
    return ray._private.worker._global_node


def _end_processes() -> None:
    if (node := _node()) is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


class Liveness:
    """Feels whether the connected Ray lives; Ray's own calls would wait for ever, or end this process."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.gcs = ray.get_runtime_context().gcs_address
        self.silent = 0

    def check(self) -> None:
        """Call it every second or so.

        Raises:
            LostError: it does not.
        """
        if self.resources.address is None:
            dead = [name for name, _ in _node().dead_processes() if name in _NEEDED]
            if dead:
                raise LostError(f"{dead[0]} of the Ray on this machine died (out of memory?): {_RESUME}")
            return
        self.silent = 0 if _listens(self.gcs) else self.silent + 1
        if self.silent >= _SILENCES:
            raise LostError(f"the Ray cluster at {storage.redact(self.resources.address)} no longer answers: {_RESUME}")


_NEEDED = (ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER)
_SILENCES = 5
_RESUME = "what is finished is kept, run the same command to go on"


def _listens(address: str, seconds: float = 5.0) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError:
        return False
    return True


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back what `ray.init` changes: SIGTERM would abort this process, and in a process group of its own it would
    not hear the Ctrl-C that a script around it gets."""
    before, group = signal.getsignal(signal.SIGTERM), os.getpgrp()
    yield
    with suppress(OSError):  # a group that has gone meanwhile
        os.setpgid(0, group)
    with suppress(ValueError):  # not in the main thread: signals are not ours
        signal.signal(signal.SIGTERM, before)


def room(resources: Resources) -> int:
    """Trials that fit on the connected cluster at once."""
    return max(1, sum(_fitting(resources, node["Resources"]) for node in ray.nodes() if node["Alive"]))


def _fitting(resources: Resources, node: Mapping[str, float]) -> int:
    fitting = [int(node.get("CPU", 0.0) / resources.cpus + 1e-9)]
    if 0 < resources.gpus < 1:  # none spreads over two of them
        fitting.append(int(node.get("GPU", 0.0)) * int(1 / resources.gpus + 1e-9))
    elif resources.gpus:
        fitting.append(int(node.get("GPU", 0.0) / resources.gpus))
    return min(fitting)


def _start(resources: Resources, cores: int, settings: Mapping[str, Any]) -> None:
    silent: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if resources.address is not None:
        _refuse_silence(resources.address)
        _take_token()
        try:
            ray.init(address=resources.address, **silent)
        except (ConnectionError, ValueError, RuntimeError) as error:
            place = storage.redact(resources.address)
            raise InputError(
                f"no Ray cluster answers at {place} ({' '.join(str(error).split())[:200]}): is it running, and does "
                "this machine have its token (~/.ray/auth_token) where it asks for one?"
            ) from None
        return
    local = {
        **silent,
        **settings,
        "num_cpus": cores,
        "include_dashboard": False,
        "object_store_memory": 10**8,
    }  # nothing large there
    with _loopback():
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                ray.init(address="local", **local)
                return
            except Exception as error:
                ray.shutdown()
                if _LATE not in str(error):
                    raise
                if attempt == _ATTEMPTS:
                    raise InputError(f"Ray did not start here within {attempt} x 30 s: is the machine busy?") from None


def _refuse_silence(address: str) -> None:
    """Where nothing listens Ray itself would try for two minutes."""
    if address.startswith("ray://"):
        raise InputError(
            f"{storage.redact(address)} is an address of Ray's client, which Tune is not made for: give the cluster's "
            "own (HOST:6379), or run this on one of its nodes with --ray-address auto"
        )
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdigit() and not _listens(f"{host}:{port}"):  # "auto" is Ray's to find out
        raise InputError(
            f"no Ray cluster answers at {storage.redact(address)}: is it running, and is this its address?"
        )


def _take_token() -> None:
    """Show the token of `ray get-auth-token` to a cluster, as `ray start` asks for it where it finds one.

    Left to itself, Ray would not where an address is given: it would be turned away without a reason.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:  # a version that knows no tokens
        return
    level = setup.logger.level
    setup.logger.setLevel(logging.ERROR)
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    setup.logger.setLevel(level)


_LONGEST = 25
"""Characters of the temporary place at most: the paths of Ray's sockets within it add 80, and Linux takes 107."""


@contextmanager
def _alone() -> Iterator[dict[str, Any]]:
    """A Ray that no other user of this machine can use, while it runs: options of `ray.init`.

    It asks for a token that only its own processes know, and its sockets and files lie in a folder of this user alone.
    By default Ray would write the token into the home folder, and the files where anyone can make the folder first.
    Ray opens its own folder to everybody, therefore it is one within ours.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in token}
    folder = tempfile.mkdtemp(prefix="astroml-", dir=None if len(tempfile.gettempdir()) < _LONGEST else "/tmp")  # noqa: S108
    os.environ.update(token)
    _refresh_token()
    try:
        yield {"_temp_dir": os.path.join(folder, "r")}
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _refresh_token()
        shutil.rmtree(folder, ignore_errors=True)


def _refresh_token() -> None:
    """Have Ray read its mode and token from the environment again; versions before 2.52 know none."""
    with suppress(ImportError):
        from ray._raylet import AuthenticationTokenLoader, Config

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own switch for firewalls: it listens on 127.0.0.1 only
    "RAY_health_check_timeout_ms": "60000",  # a busy machine is no dead one: there is no other node to go on with
    "RAY_health_check_failure_threshold": "10",
}


@contextmanager
def _loopback() -> Iterator[None]:
    """Settings of a Ray that is started here, while it is started."""
    before, constant = {name: os.environ.get(name) for name in _LOCAL}, ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.update(_LOCAL)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _refuse_large(resources: Resources, nodes: Sequence[Mapping[str, float]], where: str) -> None:
    """A trial that no node has room for would wait for ever."""
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    if any(_fitting(resources, node) for node in nodes):
        return
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
    raise InputError(
        f"a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and the largest node of {where} has "
        f"{most['CPU']:g} and {most['GPU']:g}: ask for less per trial, or join a larger cluster with --ray-address"
    )


def _refuse_other_versions() -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    running = ray.remote(num_cpus=0)(version.running)
    asked = [
        running.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    try:
        found = set(ray.get(asked))
    except Exception as error:  # noqa: BLE001 - whatever a node lacks
        raise InputError(
            f"the cluster's nodes cannot import astroml_plugin ({type(error).__name__}): "
            f"install {version.version()} there"
        ) from None
    if wrong := version.others(found):
        raise InputError(
            f"the cluster has astroml_plugin {wrong}, and this is {version.version()} (code {version.code_digest()}): "
            "use one version"
        )
