"""Module for `dask worker --preload astroml_plugin.preload`: workers are ready before their first unit, late ones too.

Dask calls `dask_setup` when a worker starts, with the options that stand behind the name of the module.
"""

from __future__ import annotations

from typing import Any

import click

from astroml_plugin.inference.preloading import forget_worker, ready_worker

__all__ = ["dask_setup", "dask_teardown"]


@click.command()
@click.option("--bundle", "bundles", multiple=True, help="load it before the first unit: path, URL or shipped name")
@click.option("--device", default=None, help="torch device; default CUDA where there is one")
@click.option("--workers-per-host", type=click.IntRange(1), default=None, help="workers that share this host")
async def dask_setup(worker: Any, bundles: tuple[str, ...], device: str | None, workers_per_host: int | None) -> None:
    """Make a worker ready for units; it leaves the cluster where it cannot be."""
    await ready_worker(worker, bundles, device, workers_per_host)


async def dask_teardown(worker: Any) -> None:
    """Drop the models of a worker that closes."""
    forget_worker(worker)
