"""Facts about a client's cluster: whether it was started here, and how long to wait for a worker."""

from __future__ import annotations

import math
import time
import weakref
from dataclasses import dataclass
from typing import Any

from distributed import Client

from astroml_plugin.compute.cluster.jobs import JobKeeper
from astroml_plugin.core.errors import AstromlError

NOBODY = "all Dask workers are gone or hang: start workers and run the same command again"


@dataclass(frozen=True)
class Place:
    """Facts about a client's cluster."""

    own: bool = False
    """Whether its workers are processes of a cluster that was started here."""
    keeper: JobKeeper | None = None
    """Keeper of the jobs, where its workers are jobs of a batch system."""
    worker_timeout: float | None = None
    """Seconds to wait while there is no worker; None: as the caller says, in a batch system as long as it takes."""

    @property
    def patient(self) -> bool:
        """Whether a cluster without workers is waited for, as it was asked for or gets others."""
        return self.keeper is not None or self.worker_timeout is not None


_ANOTHERS = Place()
_places: weakref.WeakKeyDictionary[Client, Place] = weakref.WeakKeyDictionary()


def remember(client: Client, place: Place) -> None:
    """Keep what is known of a client's cluster."""
    _places[client] = place


def place_of(client: Client) -> Place:
    """Facts about a client's cluster; of one that `connect` did not make nothing is known."""
    return _places.get(client, _ANOTHERS)


def wait_for_worker(client: Client, seconds: float) -> dict[str, int]:
    """Wait until there is a worker, by asking the scheduler; a small task calls workers of an adaptive cluster.

    Not by `Client.wait_for_workers`: it makes the client's cluster forget workers before it hears that they left, and
    such a cluster, the caller's own, raises a KeyError when it is closed (dask/distributed#9064).

    Args:
        client: of the cluster.
        seconds: how long, where neither `worker_timeout` nor a batch system says otherwise.

    Returns:
        Address of each worker -> number of its threads.

    Raises:
        AstromlError: there is none after so many seconds, or none can come any more.
    """
    place = place_of(client)
    limit = place.worker_timeout or (seconds if place.keeper is None else math.inf)
    end = time.monotonic() + limit
    threads: dict[str, int] = dict(client.nthreads())
    # held: a cluster that may shrink to nothing starts workers for tasks only
    call: Any = None if threads else client.submit(int, pure=False)
    while not threads:
        try:
            if place.keeper is not None:
                place.keeper.check()
            if time.monotonic() > end:
                late = (
                    f"no worker joined within {limit:g} s: look at the queue or at the workers' logs, or give more time"
                )
                raise AstromlError(f"{late} (--worker-timeout)" if place.patient else NOBODY)
        except AstromlError:
            call.cancel()
            raise
        time.sleep(0.1)
        threads = dict(client.nthreads())
    return threads
