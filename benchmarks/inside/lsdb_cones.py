"""Cones asked of a HATS collection through LSDB, in one thread and in as many as there are cores."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.inside.serving import Pass, serve


def imports() -> None:
    """lsdb."""
    import lsdb  # noqa: F401


def prepare(told: dict[str, Any]) -> Pass:
    """A pass over all cones, one after the other; the collection is opened before.

    Args:
        told: `collection`, `cones` (list of right ascension, declination and radius in degrees), `columns`, `threads`
            (1: Dask's synchronous scheduler), `answers` (.npy file that gets the ids, sorted within each cone).
    """
    import dask
    import lsdb

    if told["threads"] == 1:
        dask.config.set(scheduler="synchronous")
    else:
        dask.config.set(scheduler="threads", num_workers=told["threads"])
    sky = lsdb.open_catalog(told["collection"], columns=told["columns"])

    def once() -> dict[str, Any]:
        started = time.perf_counter()
        frames = [sky.cone_search(ra, dec, 3600 * radius).compute() for ra, dec, radius in told["cones"]]
        seconds = time.perf_counter() - started
        np.save(told["answers"], np.concatenate([np.sort(frame["object_id"].to_numpy()) for frame in frames]))
        return {"seconds": seconds}

    return once


if __name__ == "__main__":
    serve(imports, prepare)
