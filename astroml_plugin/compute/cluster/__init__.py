"""Dask clients for every kind of place, and the bounded window of units that all distributed work goes through."""

from astroml_plugin.compute.cluster.clients import (
    check_client,
    check_counts,
    client_of,
    connect,
    dashboard_urls,
    may_restart_workers,
)
from astroml_plugin.compute.cluster.starting import cores
from astroml_plugin.compute.cluster.window import (
    IO_LANES,
    UNIT_TIMEOUT,
    Outcome,
    UnitTimeoutError,
    WorkerDiedError,
    run_window,
)

__all__ = [
    "IO_LANES",
    "UNIT_TIMEOUT",
    "Outcome",
    "UnitTimeoutError",
    "WorkerDiedError",
    "check_client",
    "check_counts",
    "client_of",
    "connect",
    "cores",
    "dashboard_urls",
    "may_restart_workers",
    "run_window",
]
