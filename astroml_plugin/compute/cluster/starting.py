"""Clusters that are started here: closed to other users of the machine, and refused where they could never start."""

from __future__ import annotations

import ast
import importlib
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import dask
from distributed import LocalCluster, SpecCluster

from astroml_plugin.compute.cluster.nannies import OneByOneNanny
from astroml_plugin.compute.cluster.options import ClusterOptions
from astroml_plugin.compute.cluster.queues import QUEUES, check_queue, start_queue
from astroml_plugin.compute.job_limits import group_cores, job_cores
from astroml_plugin.core import foreign
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.private import private_folder
from astroml_plugin.core.quiet import FILTERS

LOOPBACK = "127.0.0.1"
_LOOPBACK_ONLY = {"dashboard_address": f"{LOOPBACK}:0", "worker_dashboard_address": f"{LOOPBACK}:0"}
"""Dask starts web servers also where none is asked for, and would open them to every interface."""

_OWN_CLUSTERS = {
    # One death is enough to hand a unit back: the driver retries it alone.
    "distributed.scheduler.allowed-failures": 0,
    # Dask remembers the last events of scheduler and workers, and with them every unit: with its 1,000 memory grows on.
    "distributed.admin.low-level-log-length": 50,
}

_starting = threading.Lock()
"""Two clusters that start at the same moment can meet an import of distributed that is half done."""


def cores() -> int:
    """Cores this process may use: those that it is bound to, and not more than its Slurm job or container has."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, job_cores() or bound, group_cores() or bound)


def start(options: ClusterOptions) -> SpecCluster:
    """Start a cluster.

    Other users of the machine cannot use it: processes talk by TLS with credentials that are made for this cluster and
    exist nowhere else (for batch systems in files that only their owner can read).

    Args:
        options: `scheduler` is one of `STARTERS`.

    Raises:
        InputError: what it needs is not installed, this process may start no others, or a batch system refuses.
    """
    with _starting, dask.config.set(_OWN_CLUSTERS), FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Creating scratch directories")  # of a busy machine: nothing is wrong
        return STARTERS[options.scheduler](options)


def check_place(options: ClusterOptions) -> None:
    """Check what a cluster will need, for callers that work before they connect.

    Raises:
        InputError: a batch system cannot be asked for jobs here.
    """
    if options.scheduler in QUEUES:
        check_queue(options)


_NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
"""Nobody sees the pages of a server that is stopped at once: what draws them is not imported."""


def _threaded(options: ClusterOptions) -> LocalCluster:
    with dask.config.set({} if has_pages() else _NO_PAGES):
        cluster = LocalCluster(
            processes=False,
            n_workers=options.workers or 1,
            threads_per_worker=options.threads or max(1, cores() // (options.workers or 1)),
            memory_limit=0,
            local_directory=str(private_folder("dask")),
            **_LOOPBACK_ONLY,
        )
    if not has_pages():
        cluster.sync(_stop_pages, cluster)
    return cluster


def has_pages() -> bool:
    """Whether Dask's own pages were asked for: by installing the extra `dashboard`, which bokeh tells."""
    return find_spec("bokeh") is not None


async def _stop_pages(cluster: LocalCluster) -> None:
    """Stop the web servers of scheduler and workers, so that threads of this process need no port."""
    for server in (cluster.scheduler, *cluster.workers.values()):
        server.http_server.stop()


def _processes(options: ClusterOptions) -> LocalCluster:
    check_can_spawn("processes")
    count = options.workers or cores()
    return LocalCluster(
        env={} if count == 1 else {"CUDA_VISIBLE_DEVICES": ""},  # all would take the same GPU
        host=LOOPBACK,
        n_workers=count,
        threads_per_worker=options.threads or max(1, cores() // count),
        memory_limit=0,
        local_directory=str(private_folder("dask")),
        security=True,
        worker_class=OneByOneNanny,
        **_LOOPBACK_ONLY,
    )


def _cuda(options: ClusterOptions) -> Any:
    check_can_spawn("cuda")
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise InputError(
            f"no CUDA cluster can be started here ({foreign.in_words(error)}): install the extra with "
            f"pip install 'astroml-plugin[cuda]' on a Linux machine with an NVIDIA driver"
        ) from error
    gpus = _gpus()
    if gpus is not None and options.workers is not None and options.workers > gpus:
        raise InputError(
            f"{options.workers} workers cannot each have one of {gpus} GPU{'' if gpus == 1 else 's'}: give --workers "
            f"{gpus}, or leave it away"
        )
    try:
        return LocalCUDACluster(
            n_workers=options.workers,
            threads_per_worker=options.threads or max(1, cores() // (options.workers or gpus or 1)),
            memory_limit=0,
            host=LOOPBACK,
            local_directory=str(private_folder("dask")),
            security=True,
            **_LOOPBACK_ONLY,
        )
    except Exception as error:  # every way in which CUDA can be absent
        raise InputError(
            f"no CUDA cluster can be started here ({foreign.in_words(error)}): `nvidia-smi` must list a GPU, and "
            f"CUDA_VISIBLE_DEVICES must not hide it"
        ) from error


def _gpus() -> int | None:
    """GPUs that dask-cuda sees; None where it does not say."""
    try:
        count: int = importlib.import_module("dask_cuda.utils").get_n_gpus()
    except Exception:  # noqa: BLE001 - the start says why
        return None
    return count


STARTERS: dict[str, Callable[[ClusterOptions], Any]] = {
    "local": _threaded,
    "processes": _processes,
    "cuda": _cuda,
    **dict.fromkeys(QUEUES, start_queue),
}
"""By the name of the scheduler: starts a cluster."""


def check_can_spawn(scheduler: str) -> None:
    """Refuse to start processes where they would never come up; Dask would wait for them for ever.

    Raises:
        InputError: this process is a daemon, as a Dask worker is; it is itself being started by a script without a
            main guard; or the script that calls has none.
    """
    if multiprocessing.current_process().daemon:
        raise InputError(
            f"scheduler {scheduler} starts processes, and this is a daemonic process (such as a Dask worker), which "
            f"may start none: use scheduler local here, or pass the worker's own client"
        )
    script = _unguarded_script()
    if getattr(multiprocessing.current_process(), "_inheriting", False) or script is not None:
        raise InputError(
            f"scheduler {scheduler} starts processes that import {script or 'the script'} anew, and it would run "
            f"itself again in each: put its calls under `if __name__ == '__main__':`"
        )


def _unguarded_script() -> str | None:
    """Name of the script whose module level this thread's call comes from, where no main guard is around that line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            path = frame.f_globals.get("__file__")
            return Path(path).name if path and not _is_guarded(Path(path), frame.f_lineno) else None
        frame = frame.f_back
    return None


def _is_guarded(script: Path, line: int) -> bool:
    """Whether a line of a script stands within an `if` that asks for `__name__`; True where that cannot be read."""
    try:
        tree = ast.parse(script.read_text())
    except (OSError, SyntaxError, ValueError):
        return True
    around = [node for node in tree.body if node.lineno <= line <= (node.end_lineno or node.lineno)]
    return any(
        isinstance(node, ast.If) and any(getattr(name, "id", "") == "__name__" for name in ast.walk(node.test))
        for node in around
    )
