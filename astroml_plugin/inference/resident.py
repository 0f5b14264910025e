"""Models that stay in a worker: loaded once, lazily, keyed by what they are, shared by all threads of the process."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from distributed import WorkerPlugin

from astroml_plugin.compute.cluster import cores
from astroml_plugin.compute.cluster.hosts import Claim, own_claim
from astroml_plugin.compute.device import place_network
from astroml_plugin.compute.precision import FLOAT32
from astroml_plugin.core import version
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.budget import share_host
from astroml_plugin.networks.taps import Taps
from astroml_plugin.training.bundle import ModelBundle

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class BundleRef:
    """Reference to a bundle, small enough to travel with every unit."""

    name: str
    """Prefix of its columns when there are several."""
    url: str
    """URL of the bundle."""
    sha256: str
    """SHA-256 that its weights must have."""
    options: str = "{}"
    """Run options that were given for it, as JSON."""
    form: str = FLOAT32
    """How its rows are calculated: `precision.FLOAT32`, or the name of a `precision.HalfForm`."""

    @property
    def run_options(self) -> dict[str, Any]:
        """NAME -> plain value."""
        values: dict[str, Any] = json.loads(self.options)
        return values

    @property
    def band(self) -> str | None:
        """The band that was chosen for it."""
        return self.run_options.get("band")


@dataclass(frozen=True)
class ResidentModel:
    """A bundle ready to run."""

    bundle: ModelBundle
    """Card and weights."""
    task: Any
    """The science: see `tasks.base.Task`."""
    network: torch.nn.Module
    """In eval mode, on the device."""
    device: torch.device
    """Device of the network."""
    taps: Taps | None = None
    """On the network's layers, where the bundle knows what is typical."""


_lock = threading.Lock()
_models: dict[tuple[str, str], ResidentModel] = {}
_cache: dict[Any, Any] = {}
_forward: dict[str, ThreadPoolExecutor] = {}


def resident(ref: BundleRef, device: str, loaded: ModelBundle | None = None) -> ResidentModel:
    """The model of `ref`, made at its first use in this process.

    Args:
        ref: the bundle.
        device: torch device.
        loaded: the bundle where it is in memory already; None: it is read from its URL.

    Raises:
        InputError: the bundle is not what the run was planned with.
    """
    key = (ref.sha256, device)
    with _lock:
        if key not in _models:
            _models[key] = _load(ref, torch.device(device), loaded)
        return _models[key]


def _load(ref: BundleRef, device: torch.device, loaded: ModelBundle | None) -> ResidentModel:
    bundle = ModelBundle.load(ref.url) if loaded is None else loaded
    if bundle.sha256 != ref.sha256:
        raise InputError(f"bundle {ref.name} changed since the run was planned: run again with another output")
    network = place_network(bundle.network(fused=True), device)
    typical = bundle.typicality()
    taps = None if typical is None else typical.taps(network, bundle.name)
    return ResidentModel(bundle, bundle.task(), network, device, taps)


def process_cache(key: Any, make: Callable[[], T]) -> T:
    """Value cached per process under `key`: `make` runs once; dropped with the models."""
    with _lock:
        if key not in _cache:
            _cache[key] = make()
        value: T = _cache[key]
        return value


@dataclass(frozen=True)
class Share:
    """Part of the host that this process may use."""

    lanes: int
    """Forwards side by side on a CPU."""
    threads: int
    """Torch threads of each."""


def share_of(nthreads: int, workers_here: int) -> Share:
    """A worker's share of the cores: a lane per compute thread, what is left as torch threads of each lane.

    On a CPU lanes beat threads within a lane (2 x 1 gave 2.4 times 1 x 2).
    """
    mine = max(1, cores() // max(1, workers_here))
    lanes = max(1, min(nthreads, mine))
    return Share(lanes, max(1, mine // lanes))


_share = share_of(cores(), 1)


def lanes_here() -> int:
    """Forwards side by side in this process on a CPU."""
    return _share.lanes


def on_forward_thread(device: str, work: Callable[[], T], *, single: bool = False) -> T:
    """Run `work` on one of the process's dedicated forward threads and wait for it.

    On CUDA there is one thread, and also where the network is compiled (`single`).
    """
    return _in_pool(_SINGLE if single or device != "cpu" else _LANES, work)


def on_search_thread(device: str, work: Callable[[], T]) -> T:
    """Run CPU work of a unit whose network is on `device`, and wait for it.

    On a CPU on a forward thread. Beside a GPU all cores of the process are free for it, one each, however many compute
    threads Dask gives the process.
    """
    return on_forward_thread("cpu", work) if device == "cpu" else _in_pool(_BESIDE, work)


def _in_pool(kind: str, work: Callable[[], T]) -> T:
    while True:
        try:
            future = _forward_pool(kind).submit(work)
        except RuntimeError:  # another run on the same workers has just ended and closed the pool
            continue
        return future.result()


_SINGLE, _LANES, _BESIDE = "single", "lanes", "beside"


def _forward_pool(kind: str) -> ThreadPoolExecutor:
    with _lock:
        if kind not in _forward:
            cores_here = _share.lanes * _share.threads
            shapes = {_SINGLE: (1, cores_here), _LANES: (_share.lanes, _share.threads), _BESIDE: (cores_here, 1)}
            lanes, threads = shapes[kind]
            _forward[kind] = ThreadPoolExecutor(lanes, "forward", initializer=partial(torch.set_num_threads, threads))
        return _forward[kind]


def _forked() -> None:
    """Give a forked process locks and threads of its own: those of its parent are not there."""
    global _lock
    _lock = threading.Lock()
    _forward.clear()


os.register_at_fork(after_in_child=_forked)


def release() -> None:
    """Drop all models and forward threads of this process."""
    with _lock:
        _models.clear()
        _cache.clear()
        pools = list(_forward.values())
        _forward.clear()
    for pool in pools:
        pool.shutdown(wait=False)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_M_ARENA_MAX = -8  # of glibc's malloc.h

TRIM_EVERY = 8
"""Units after which free pages go back to the system."""

_units_seen = itertools.count(1)


def trim_malloc() -> None:
    """Every few units, return what the C library keeps of freed arrays: the heap of several threads only grows else."""
    if next(_units_seen) % TRIM_EVERY == 0:
        _libc("malloc_trim", 0)


def limit_malloc_arenas(nthreads: int) -> None:
    """Few heaps for all threads: glibc gives each thread one of its own, and every one keeps what it once needed.

    Two on two cores held 9 % less at the peak than glibc's sixteen and grew a fifth as much, at no cost in time.
    """
    _libc("mallopt", _M_ARENA_MAX, max(2, nthreads // 2))


def _libc(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps its own house
        getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)


_runs: set[str] = set()
"""Names of those that use this process's models: runs, and the preload of a worker."""


def hold_models(name: str) -> None:
    """Keep this process's models until `let_models_go` with the same name."""
    with _lock:
        _runs.add(name)


def let_models_go(name: str) -> None:
    """Drop this process's models, unless somebody else holds them."""
    with _lock:
        _runs.discard(name)
        last = not _runs
    if last:
        release()


def take_share(threads: int, workers_here: int, same_cores: int | None = None) -> None:
    """Take this worker's part of its host's cores and memory, before its first unit.

    Args:
        threads: compute threads of the worker.
        workers_here: workers of its host, which share its memory.
        same_cores: those of them that share its cores; default all.
    """
    global _share
    limit_malloc_arenas(threads)
    share_host(workers_here)
    _share = share_of(threads, same_cores or workers_here)


class ResidentModels(WorkerPlugin):
    """Prepares a Dask worker for the units of a run and cleans up after the last run; workers that join late too.

    Args:
        run: a name that no other run on the cluster has.
        workers_per_host: workers that share a host's cores and memory.
        code: what `version.running` gave in the driver; a worker of other code leaves the cluster.
        competing: what `hosts.competing` gave; a worker that it does not know shares cores with all of its host.
    """

    idempotent = True

    def __init__(
        self,
        run: str,
        workers_per_host: int,
        code: tuple[str, str],
        competing: Mapping[Claim, int] | None = None,
    ) -> None:
        self.name = f"astroml-resident-models-{run}"
        self.workers_per_host = workers_per_host
        self.code = code
        self.competing = dict(competing or {})

    def setup(self, worker: Any) -> None:
        """Share the host's cores among its workers."""
        if wrong := version.others([self.code]):
            reason = (
                f"the run is of astroml_plugin {wrong}, this worker has {version.version()}: install the same there"
            )
            _log.error("worker %s leaves: %s", worker.address, reason)
            worker.loop.add_callback(worker.close, nanny=True, reason=reason)
            return
        hold_models(self.name)
        take_share(worker.state.nthreads, self.workers_per_host, self.competing.get(own_claim()))

    def teardown(self, worker: Any) -> None:
        """Drop the models, unless another run uses them."""
        let_models_go(self.name)
