"""A Dask worker made ready when it starts: one version in the cluster, its share of the host, models loaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import torch

from astroml_plugin.compute.cluster import cores
from astroml_plugin.compute.device import choose_device, device_problem
from astroml_plugin.core import version
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.tracing import calling
from astroml_plugin.inference.planning import load_bundles
from astroml_plugin.inference.resident import hold_models, let_models_go, on_forward_thread, resident, take_share

_log = logging.getLogger(__name__)

_CODE = "astroml_plugin_code"
"""Key of the scheduler's metadata: what the cluster's workers run, as of `version.running`."""

_HOLDER = "astroml-preload"


async def ready_worker(
    worker: Any, bundles: Sequence[str], device: str | None = None, workers_per_host: int | None = None
) -> None:
    """Make a worker ready: it leaves the cluster, with the reason in its log, where that cannot be.

    Args:
        worker: Dask's, which is starting.
        bundles: to be loaded now, by path, URL or shipped name; they stay until the worker closes.
        device: torch device; None: CUDA where there is one.
        workers_per_host: workers that share the host's cores and memory; None: as its number of threads tells, which is
            what `dask worker --nworkers` gives it.
    """
    try:
        if wrong := await _other_code(worker):
            raise InputError(
                f"the workers of this cluster run astroml_plugin {wrong}, this one has {version.version()}: install "
                "one version everywhere"
            )
        threads = worker.state.nthreads
        take_share(threads, workers_per_host or max(1, round(cores() / max(1, threads))))
        hold_models(_HOLDER)
        if device is not None and (problem := device_problem(device)):
            raise InputError(f"device {device} cannot be used here ({problem}): name another one")
        await asyncio.get_running_loop().run_in_executor(None, load_models, bundles, device or choose_device())
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        _log.error("worker %s leaves: %s", worker.address, reason)
        worker.loop.add_callback(worker.close, nanny=True, reason=reason)
        raise


def load_models(bundles: Sequence[str], device: str) -> None:
    """Load bundles into this process and run each once on a few drawn stamps: the first unit finds them warm.

    Raises:
        InputError: one is no bundle.
    """
    for ref, bundle in load_bundles(bundles) if bundles else ():
        model = resident(ref, device, bundle)

        def run(model: Any = model) -> None:
            with calling(), torch.inference_mode():
                model.network(*(item.to(model.device) for item in model.task.example_inputs()))

        on_forward_thread(device, run)


def forget_worker(worker: Any) -> None:
    """Let the models go that were loaded for a worker, unless a run uses them."""
    let_models_go(_HOLDER)


async def _other_code(worker: Any) -> str:
    """In words, the code that the cluster's workers run, where it is other code than this worker's; else empty."""
    mine = version.running()
    there = await worker.scheduler.identity()
    known = await worker.scheduler.get_metadata(keys=[_CODE], default=None)
    if known is None or not there["workers"]:
        await worker.scheduler.set_metadata(keys=[_CODE], value=list(mine))
        return ""
    return version.others([tuple(known)])
