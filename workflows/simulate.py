"""Simulate a survey or a set of stamps with truth, in parallel and resumable."""

from __future__ import annotations

import contextlib
from typing import Any

from distributed import Client

from astroml_plugin.compute import cluster
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import with_changes
from astroml_plugin.simulation import run as runs
from astroml_plugin.simulation.options import StampSimulation, SurveySimulation
from astroml_plugin.simulation.profiles import load_galsim
from astroml_plugin.simulation.run import Progress, SimulateResult
from astroml_plugin.sources.writer import only_writer
from workflows.notebook import shows_progress

__all__ = ["SimulateResult", "StampSimulation", "SurveySimulation", "simulate"]


@shows_progress()
def simulate(
    *,
    out: Place,
    kind: str | None = None,
    options: StampSimulation | SurveySimulation | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> SimulateResult:
    """Make simulated data below the folder `out`; run again, it makes what is missing.

    Args:
        out: folder or fsspec URL. `stamps.zarr`, or `survey.zarr` and `truth.parquet`, are put there.
        kind: "stamps" (default) or "survey", where no options tell it.
        options: what is simulated.
        client: Dask client (default: threads of this process).
        progress: told after every unit.
        changes: single fields of the options by name, for example `count=100` or `preset="lenses"`.

    Raises:
        InputError: GalSim is not installed, an unknown option, settings that do not fit, or `out` holds another
            simulation.
    """
    load_galsim()
    chosen = _options(kind, options, changes)
    with only_writer(text_of(out)), contextlib.ExitStack() as stack:
        client = client or stack.enter_context(cluster.connect("local"))
        return runs.run(chosen, text_of(out), client, progress)


def _options(
    kind: str | None, options: StampSimulation | SurveySimulation | None, changes: dict[str, Any]
) -> StampSimulation | SurveySimulation:
    """The options of the kind; InputError where both are given and differ, or an option is of the other kind."""
    if options is not None:
        return with_changes(type(options), options, changes, "the options of simulate")
    if kind in (None, "stamps"):
        return with_changes(StampSimulation, None, changes, "the options of simulated stamps")
    if kind != "survey":
        raise InputError(f"no kind {kind!r} of simulation: use stamps or survey")
    if changes.get("pairs") is not None:
        raise InputError("pairs are made of stamps, not of a survey")
    return with_changes(SurveySimulation, None, changes, "the options of a simulated survey")
