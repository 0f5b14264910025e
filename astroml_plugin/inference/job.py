"""Values that travel through the Dask graph: small and plain, never pixels, models or open stores."""

from __future__ import annotations

from dataclasses import dataclass, field

from astroml_plugin.catalog import PartInfo
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions
from astroml_plugin.inference.resident import BundleRef
from astroml_plugin.sources.tile_table import TileInfo


class OutputError(InputError):
    """The catalog cannot be written: the run stops, what is written stays."""


@dataclass(frozen=True)
class Job:
    """Plain values that all units of a run share, small enough to travel with each."""

    source: str
    """URL of the Survey or Stamps."""
    catalog: str
    """URL of the catalog."""
    bundles: tuple[BundleRef, ...]
    """The models, in column order."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)
    """Options that change rows, checked; each `BundleRef` has its own part of them."""
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)
    """Options that change none."""
    run: str = ""
    """The run's id: stores opened for another run are not reused."""
    objects: str | None = None
    """Survey: folder of the objects bucketed by unit; None where they are detected. Stamps: table of repeated ids, None
    when there are none."""
    bands: tuple[str, ...] = ()
    """Bands of a Survey that are read: those that some bundle looks at."""
    stamp_size: int = 0
    """Side of what is read about an object for the largest stamp that a bundle takes, pixels of the source."""
    detecting: str = ""
    """Name of the bundle that finds the objects; empty where they are given."""
    field_bands: tuple[str, ...] = ()
    """Bands that it looks at."""


@dataclass(frozen=True)
class Unit:
    """One tile or block of stamps with all it takes to work on it anywhere."""

    job: Job
    """Values shared with the run's other units."""
    name: str
    """Name of the tile or block."""
    index: int
    """Index in the source."""
    digest: str
    """Hex digest of all that decides its rows."""
    rows: int | None
    """Objects it will write; None where they are yet to be found."""
    nbytes: int
    """Decoded bytes it will read."""
    tile: TileInfo | None = None
    """The tile's geometry and WCS; None for a block of stamps."""


@dataclass(frozen=True)
class UnitResult:
    """Report of a finished unit to the driver."""

    part: PartInfo
    """Manifest row of its part."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage: `meter.STAGES`, and wait."""
    bytes: dict[str, int] = field(default_factory=dict)
    """Bytes by stage: read as arrays, copy to another device, encode as rows, write as Parquet."""
    centres: dict[str, int] = field(default_factory=dict)
    """Objects by where their light lay: see `meter.Meter`."""
    forms: dict[str, int] = field(default_factory=dict)
    """Objects by what ran their forward: see `meter.Meter`."""
    unlike: dict[str, int] = field(default_factory=dict)
    """Rows by bundle, and those that are unlike its training: see `unlike.counted`."""
    refused: tuple[str, ...] = ()
    """Sentences about runtimes that were asked for and not used."""
    device: str = ""
    """Name of the device that its networks ran on."""
