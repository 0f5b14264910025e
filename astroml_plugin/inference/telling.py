"""Times of units, for those who watch a cluster: events of Dask's dashboard, and metrics for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from distributed import get_worker

TOPIC = "astroml_plugin"
"""Topic of the events: `client.get_events(TOPIC)`, and the page "Events" of the dashboard."""

_lock = threading.Lock()


def tell(unit: str, rows: int, seconds: Mapping[str, float]) -> None:
    """Tell the scheduler and the process's metrics of a finished unit; nobody listens outside a Dask worker.

    Args:
        unit: name of the tile or block.
        rows: objects measured.
        seconds: wall seconds by stage.
    """
    total = sum(seconds.values())
    rate = rows / total if total > 0 else 0.0
    count(rows, rate, seconds)
    try:
        worker = get_worker()
    except ValueError:  # not within a task of Dask's
        return
    stages = {name: round(value, 6) for name, value in seconds.items()}
    worker.log_event(TOPIC, {"unit": unit, "objects": rows, "objects_per_second": round(rate, 3), "seconds": stages})


def count(rows: int, rate: float, seconds: Mapping[str, float]) -> None:
    """Add a unit to the process's metrics, where `prometheus_client` is installed.

    Args:
        rows: objects measured.
        rate: objects per second.
        seconds: wall seconds by stage.
    """
    with _lock:
        found = metrics()
    if found is None:
        return
    found["objects"].inc(rows)
    found["units"].inc()
    found["rate"].set(rate)
    for stage, value in seconds.items():
        found["seconds"].labels(stage).inc(value)


@lru_cache(maxsize=1)
def metrics() -> dict[str, Any] | None:
    """The process's metrics by short name; None without `prometheus_client`."""
    if find_spec("prometheus_client") is None:
        return None
    from prometheus_client import Counter, Gauge

    return {
        "objects": Counter("astroml_objects", "Objects measured by this process"),
        "units": Counter("astroml_units", "Tiles and blocks of stamps measured by this process"),
        "rate": Gauge("astroml_objects_per_second", "Objects per second of work in the last unit"),
        "seconds": Counter("astroml_stage_seconds", "Wall seconds by stage, summed over units", ["stage"]),
    }
