"""Progress and result of a run, and the observer that hears of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from astroml_plugin.core.results import Result


@dataclass(frozen=True)
class RunProgress:
    """State of a run after some units."""

    units: int
    """Units of this run, done ones included; grows while the plan is being made."""
    done: int = 0
    """Units finished by this run."""
    skipped: int = 0
    """Units that were done before."""
    failed: int = 0
    """Units whose reason is in the failures table."""
    damaged: int = 0
    """Files of units done before that could not be read: their units were done again."""
    rows: int = 0
    """Rows written by this run."""
    seconds: float = 0.0
    """Wall seconds since the first unit was submitted."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage, summed over the units."""
    bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes by stage, summed over the units."""
    bottleneck: str | None = None
    """The stage that the last units spent most time in."""
    centres: Mapping[str, int] = field(default_factory=dict)
    """Objects by where their light lay, summed over the units: see `meter.Meter`."""
    forms: Mapping[str, int] = field(default_factory=dict)
    """Objects by what ran their forward, summed over the units: see `meter.Meter`."""
    unlike: Mapping[str, int] = field(default_factory=dict)
    """Rows by bundle, and those that are unlike its training, summed over the units: see `unlike.counted`."""
    refused: tuple[str, ...] = ()
    """Sentences about runtimes that were asked for and not used."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """Rows by the name of the device that networks ran on."""
    ways: Mapping[str, int] = field(default_factory=dict)
    """Workers by what prepares stamps there on a CPU: `native.NATIVE` or `native.TORCH`."""


Progress = Callable[[RunProgress], None]


@runtime_checkable
class RunObserver(Protocol):
    """Hears of a run."""

    def connected(self, pages: Mapping[str, str]) -> None:
        """The Dask client is there, and no unit has begun; `pages` has URLs of Dask's own pages by name."""

    def objects(self, stage: str, done: int, total: int | None) -> None:
        """So many rows of the objects table (None: of an unknown total) are through a stage on their way to units."""

    def units(self, progress: RunProgress) -> None:
        """One more unit has ended."""


class _UnitsOnly:
    """An observer that hears of units alone."""

    def __init__(self, function: Progress | None) -> None:
        self.function = function

    def connected(self, pages: Mapping[str, str]) -> None:
        """Do nothing."""

    def objects(self, stage: str, done: int, total: int | None) -> None:
        """Do nothing."""

    def units(self, progress: RunProgress) -> None:
        """Call the function."""
        if self.function is not None:
            self.function(progress)


def observer_of(progress: Progress | RunObserver | None) -> RunObserver:
    """An observer of a run; a function becomes one that hears of units."""
    return progress if isinstance(progress, RunObserver) else _UnitsOnly(progress)


@dataclass(frozen=True, repr=False)
class InferPlan(Result):
    """Estimate of a run: units, bytes, memory."""

    units: int
    """Tiles or blocks of the source."""
    bytes: int
    """Decoded bytes that would be read, at most."""
    memory: int
    """Estimated peak bytes per worker: units in flight times the bytes of the largest."""
    rows: int | None
    """Stamps to measure; None for a Survey, whose objects are not counted, or not yet found, before the run."""
    detecting: str = ""
    """The bundle that will find the objects; empty where they are given."""
    notes: tuple[str, ...] = ()
    """Sentences of what is done with pixels of another scale than the bundles', or without a PSF."""


@dataclass(frozen=True, repr=False)
class InferResult(Result):
    """Outcome of a run."""

    catalog: str
    """URL of the catalog."""
    units_done: int
    """Units finished by this run."""
    units_skipped: int
    """Units that were done before."""
    units_failed: int
    """Units in the failures table."""
    rows: int
    """Rows written by this run."""
    unplaced: int
    """Objects outside every tile, or without a usable position."""
    seconds: float
    """Wall seconds, start-up included."""
    damaged: int = 0
    """Files of units done before that could not be read: now in the folder `damaged`, the units are done again."""
    warning: str = ""
    """One sentence where the positions of the objects are off in the median, or objects were looked for in tiles whose
    sky is not at 0; else empty."""
    changed_tables: tuple[str, ...] = ()
    """Sentences about objects tables that have changed, so that their rows were replaced."""
    notes: tuple[str, ...] = ()
    """Sentences of what was done with pixels of another scale than the bundles' or without a PSF, and of bundles whose
    training most rows are unlike."""
