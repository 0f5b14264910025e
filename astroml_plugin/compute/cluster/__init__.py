"""Dask clients for every kind of place, and the bounded window of units that all distributed work goes through."""

from astroml_plugin.compute.cluster.clients import (
    check_client,
    client_of,
    connect,
    connecting,
    dashboard_urls,
    may_restart_workers,
)
from astroml_plugin.compute.cluster.options import ClusterOptions, check_counts
from astroml_plugin.compute.cluster.outcomes import Outcome, UnitTimeoutError, WorkerDiedError
from astroml_plugin.compute.cluster.starting import check_place, cores
from astroml_plugin.compute.cluster.window import IO_LANES, UNIT_TIMEOUT, run_window

__all__ = [
    "IO_LANES",
    "UNIT_TIMEOUT",
    "ClusterOptions",
    "Outcome",
    "UnitTimeoutError",
    "WorkerDiedError",
    "check_client",
    "check_counts",
    "check_place",
    "client_of",
    "connect",
    "connecting",
    "cores",
    "dashboard_urls",
    "may_restart_workers",
    "run_window",
]
