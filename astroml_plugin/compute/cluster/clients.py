"""Dask clients for every kind of place: threads, processes, GPUs, Slurm, a scheduler that is there already."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from typing import Any

from distributed import Client, Nanny, SpecCluster
from distributed.core import CommClosedError, Status
from distributed.deploy.cluster import Cluster

from astroml_plugin.compute.cluster.options import ClusterOptions
from astroml_plugin.compute.cluster.places import Place, place_of, remember, wait_for_worker
from astroml_plugin.compute.cluster.starting import LOOPBACK, STARTERS, has_pages, start
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import with_changes
from astroml_plugin.core.storage import redact

_log = logging.getLogger(__name__)

_OVER = ("closed", "closing", "newly-created")
"""States of a client that cannot work, or not any more."""

_CLOSING = 120.0
"""Seconds that a cluster which was started here has to stop; the work is done then, and nobody waits longer."""

_FIRST = 60.0
"""Seconds that a first worker has to join, where nothing says otherwise."""


def may_restart_workers(client: Client) -> bool:
    """Whether the client's workers are processes of a cluster that was started here."""
    return place_of(client).own


def dashboard_urls(client: Client) -> dict[str, str]:
    """URLs to look at a running cluster, by name: Dask's own pages, those that what is installed here can show."""
    link = str(client.dashboard_link).rpartition("/")[0]
    if str(getattr(client.scheduler, "address", "")).startswith("inproc") and not has_pages():
        return {}
    if isinstance(client.cluster, SpecCluster):  # which names the host's own address, where nothing listens
        link = f"http://{LOOPBACK}:{link.rpartition(':')[2]}"
    pages = {"bokeh": ("dashboard", "status"), "prometheus_client": ("Prometheus metrics", "metrics")}
    return {name: f"{link}/{page}" for package, (name, page) in pages.items() if find_spec(package) is not None}


def check_client(client: Any) -> None:
    """Raise InputError for what is no Dask client, or one that is closed or answers with coroutines."""
    if not isinstance(client, Client):
        kind = type(client).__name__
        raise InputError(
            f"client is of type {kind}: give a Dask Client, an address such as tcp://host:8786, or nothing"
        )
    if client.status in _OVER:
        raise InputError("this Dask client is closed, or its scheduler is gone: give one that is connected, or nothing")
    if client.asynchronous:
        raise InputError("this Dask client is asynchronous: give one that is not, Client(address), or an address")


@contextlib.contextmanager
def connect(scheduler: str = "local", **options: Any) -> Iterator[Client]:
    """A Dask client for `scheduler`; what was started here is stopped at the end, what was there stays.

    In a batch system this waits until the first of its jobs runs, and says so.

    Args:
        scheduler: "local" (threads of this process), "processes", "cuda" (one process per GPU), a batch system such as
            "slurm", or an address.
        options: further fields of `ClusterOptions`, for example `workers` and `threads`.

    Raises:
        InputError: the scheduler cannot be reached, what it needs is not installed, this process may start no others,
            a batch system refuses jobs, or an option is wrong.
        AstromlError: no worker joins.
    """
    chosen = with_changes(ClusterOptions, None, {"scheduler": scheduler, **options}, "the options of a cluster")
    cluster = None
    with contextlib.ExitStack() as stack:
        if scheduler in STARTERS:
            cluster = start(chosen)
            _survive_lost_workers(cluster)
            stack.callback(_close, cluster)
            # no default: that is a setting of the whole process, which runs in several threads would mix up
            client = Client(cluster, set_as_default=False)
        else:
            client = _join(scheduler)
        stack.callback(_close, client)
        keeper = getattr(cluster, "keeper", None)
        if keeper is not None:
            stack.callback(keeper.stop)
        place = Place(cluster is not None and scheduler != "local", keeper, chosen.worker_timeout)
        remember(client, place)
        if place.patient:
            wait_for_worker(client, _FIRST)
        yield client


def connecting(options: ClusterOptions) -> dict[str, Any]:
    """Keywords of `connect` that say what the options say, which may be of a class that says more."""
    return {item.name: getattr(options, item.name) for item in fields(ClusterOptions)}


@contextlib.contextmanager
def client_of(client: Any, scheduler: str = "local", **options: Any) -> Iterator[Client]:
    """A client that is given, or one for the scheduler that is named instead; it is stopped at the end.

    Args:
        client: Dask client, what `connect` takes, or None.
        scheduler: where `client` is None.
        options: as for `connect`.

    Raises:
        InputError: it is no client, is closed, or cannot be connected.
    """
    if client is None or isinstance(client, str):
        with connect(client or scheduler, **options) as opened:
            yield opened
    else:
        check_client(client)
        yield client


def _survive_lost_workers(cluster: SpecCluster) -> None:
    """Let a cluster hear that a worker has left also where it no longer has that worker in its list.

    `SpecCluster` takes the list anew whenever somebody waits for workers. When the message that a worker has left comes
    after that, it raises a KeyError in the task that listens, and again when the cluster is closed
    (dask/distributed#9064, open as of distributed 2026.7).

    It also stops the nanny of a worker that is not there 15 s after it, or one of its name, has left. On a busy machine
    a new process takes longer, and one that has died twice may be on its way: then nobody would start another. A nanny
    starts a new process whenever its process dies, so nannies stay.
    """
    update = partial(Cluster._update_worker_status, cluster) if _has_nannies(cluster) else cluster._update_worker_status

    def tolerant(operation: str, message: Any) -> None:
        if operation == "remove":
            names = {worker.address: name for name, worker in cluster.workers.items() if hasattr(worker, "address")}
            cluster.scheduler_info["workers"].setdefault(message, {"name": names.get(message)})
        update(operation, message)

    cluster._update_worker_status = tolerant


def _has_nannies(cluster: SpecCluster) -> bool:
    return any(isinstance(worker, Nanny) for worker in cluster.workers.values())


def _close(started: Client | SpecCluster) -> None:
    """Stop a client or cluster. Whatever goes wrong then is logged: it takes nothing from what was done."""
    try:
        started.close(timeout=_CLOSING)
    except Exception as error:  # noqa: BLE001 - the work is done, and its result must reach the caller
        _log.warning("closing %s: %s: %s", type(started).__name__, type(error).__name__, error)
        if isinstance(started, SpecCluster):
            started.status = Status.closed  # scheduler and workers are stopped: nothing is left to warn of


def _join(address: str) -> Client:
    if "://" not in address and ":" not in address:
        known = ", ".join(STARTERS)
        raise InputError(f"scheduler {address!r} is neither one of {known} nor an address such as tcp://host:8786")
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (ssl.SSLError, TypeError) as error:
        raise InputError(
            f"the Dask scheduler at {redact(address)} cannot be joined by TLS ({error}): name your certificates by "
            f"DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__TLS__CLIENT__CERT and …__TLS__CLIENT__KEY, or pass a Client"
        ) from error
    except (OSError, TimeoutError, ValueError, CommClosedError) as error:
        raise InputError(
            f"no Dask scheduler answers at {redact(address)}: start one with `dask scheduler`, or check the address"
        ) from error
