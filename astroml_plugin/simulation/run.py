"""Runs of a simulation: units to do, workers that do them, and a record that lets a rerun go on."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from distributed import Client

from astroml_plugin.compute import cluster
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.core.version import version
from astroml_plugin.simulation.options import StampSimulation, SurveySimulation
from astroml_plugin.simulation.skies import Sky
from astroml_plugin.simulation.stamped import Stamped
from astroml_plugin.simulation.units import BlockUnit, TileUnit, create_stamps, create_survey, write_block, write_tile
from astroml_plugin.sky.wcs import cut_tiles
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name

Progress = Callable[[str, int, int], None]
"""Called with ("simulated", units done, units in all)."""

RECORD = "simulation.json"
"""File beside the source that tells which simulation it is of."""

_COMMIT_EVERY = 16


@dataclass(frozen=True, repr=False)
class SimulateResult(Result):
    """Summary of one run."""

    source: str
    """The Survey or Stamps."""
    kind: str
    truth: str | None
    """Truth catalog of a survey (Parquet); stamps carry their labels."""
    units_done: int
    units_skipped: int
    """Units that were there already."""
    units_failed: int
    rows: int
    """Objects in the units done now."""
    seconds: float
    failures: dict[str, str] = field(default_factory=dict)
    """Unit -> why it failed."""


def run(
    options: StampSimulation | SurveySimulation, out: str, client: Client, progress: Progress | None = None
) -> SimulateResult:
    """Make what is missing of a simulation below the folder `out`.

    Raises:
        InputError: options that do not fit, or `out` holds another simulation.
    """
    started = time.monotonic()
    plan = _plan_of(options, out)
    plan.open()
    todo, skipped = plan.todo()
    rows, done, failures = 0, 0, {}
    try:
        for outcome in cluster.run_window(client, plan.function, todo, io_lanes=0):
            if outcome.error is None:
                done, rows = done + 1, rows + plan.take(outcome.value)
            else:
                failures[plan.name(outcome.item)] = str(outcome.error)
            if progress is not None:
                progress("simulated", skipped + done, skipped + len(todo))
    finally:
        plan.flush()
    truth = None if failures else plan.finish()
    seconds = time.monotonic() - started
    return SimulateResult(plan.source, plan.kind, truth, done, skipped, len(failures), rows, seconds, failures)


def _plan_of(options: StampSimulation | SurveySimulation, out: str) -> _Plan:
    if isinstance(options, SurveySimulation):
        return SurveyPlan(out, options)
    return StampsPlan(out, options.stamps())


def _record(settings: Stamped | Sky) -> dict[str, Any]:
    """Settings by which a simulation is known. A noise of bands and artefacts that were not asked for are none of them:
    simulations that were begun before there were such settings go on."""
    record = to_mapping(settings)
    for table, name in ((record.get("camera", {}), "noise_of_bands"), (record, "artefacts")):
        if not table.get(name, True):
            del table[name]
    return record


class _Plan(ABC):
    """Plan of one kind of source: a record of the settings, units to do, a function that does one."""

    kind: ClassVar[str]
    function: Callable[[Any], Any]

    def __init__(self, out: str, identity: dict[str, Any]) -> None:
        self.out = out = storage.absolute(out)
        self.identity = {"kind": self.kind, **identity}
        self.source = storage.join(out, f"{self.kind}.zarr")
        self.digest = storage.digest(self.identity)

    def open(self) -> None:
        """Make the store, or see that it is of the same simulation."""
        url = storage.join(self.out, RECORD)
        if storage.exists(url):
            if storage.read_record(url, digest=str)["digest"] != self.digest:
                raise InputError(f"{storage.redact(self.out)} holds another simulation: choose another output")
        else:
            if storage.exists(storage.join(self.source, "zarr.json")):
                raise InputError(f"{storage.redact(self.source)} was not made by simulate: choose another output")
            try:
                record = {"digest": self.digest, "version": version(), "settings": self.identity}
                storage.write_json(url, record)
            except OSError as error:
                raise InputError(f"{storage.redact(self.out)} cannot be written: {error}") from error
        if not storage.exists(storage.join(self.source, "zarr.json")):
            self.create()

    @abstractmethod
    def create(self) -> None:
        """Make an empty store."""

    @abstractmethod
    def todo(self) -> tuple[list[Any], int]:
        """Units to do, and how many are done."""

    @abstractmethod
    def name(self, unit: Any) -> str:
        """The unit's name for people."""

    def take(self, value: Any) -> int:
        """Note a finished unit; gives its objects."""
        return int(value)

    def flush(self) -> None:  # noqa: B027 - stamps commit themselves
        """Commit what was taken."""

    def finish(self) -> str | None:
        """After the last unit; gives the truth catalog."""
        return None


class StampsPlan(_Plan):
    """Plan of a set of stamps: one unit per block."""

    kind = "stamps"
    function = staticmethod(write_block)

    def __init__(self, out: str, stamps: Stamped) -> None:
        super().__init__(out, {"stamps": _record(stamps)})
        self.stamps = stamps

    def create(self) -> None:
        """Make the empty store."""
        create_stamps(self.source, self.stamps)

    def todo(self) -> tuple[list[Any], int]:
        """Units to do, and how many are done."""
        store = Stamps.open(self.source)
        room = store.array("image").shape[0] // self.stamps.block
        if room < self.stamps.blocks:
            store.reserve(self.stamps.blocks - room)
        done = {block.index for block in store.units()}
        units = [BlockUnit(self.source, self.stamps, i) for i in range(self.stamps.blocks) if i not in done]
        return units, len(done)

    def name(self, unit: BlockUnit) -> str:
        """Name of a block or tile for people."""
        return f"block {unit.index}"


class SurveyPlan(_Plan):
    """Plan of a survey: one unit per tile; the truth of the tiles is merged in the end."""

    kind = "survey"
    function = staticmethod(write_tile)

    def __init__(self, out: str, options: SurveySimulation) -> None:
        sky = self.sky = options.sky()
        tiling = {"tile_size": options.tile_size, "halo": options.halo, "psf_size": options.psf_size}
        super().__init__(out, {"sky": _record(sky), **tiling})
        self.options = options
        self.tiles = cut_tiles(sky.height, sky.width, options.tile_size, options.halo)
        self.truth = storage.join(self.out, "truth.parquet")
        self._taken: list[TileInfo] = []

    def create(self) -> None:
        """Make the empty store."""
        tile_size, halo, psf_size = self.options.tile_size, self.options.halo, self.options.psf_size
        create_survey(self.source, self.sky, tile_size=tile_size, halo=halo, psf_size=psf_size)

    def _part(self, index: int) -> str:
        return storage.join(self.out, "truth", f"{index:07d}.parquet")

    def todo(self) -> tuple[list[Any], int]:
        """Units to do, and how many are done."""
        survey = Survey.open(self.source)
        room = survey.array("image").shape[0]
        if room < len(self.tiles):
            survey.reserve(len(self.tiles) - room)
        done = set(survey.index_table()["name"].to_pylist())
        return list(self._units(done)), len(done)

    def _units(self, done: set[str]) -> Iterator[TileUnit]:
        for index, geometry in enumerate(self.tiles):
            if tile_name(self.sky.name, geometry.row, geometry.column) not in done:
                rest = (self.options.psf_size, self.digest, len(self.tiles))
                yield TileUnit(self.source, self._part(index), self.sky, geometry, index, *rest)

    def name(self, unit: TileUnit) -> str:
        """Name of a block or tile for people."""
        return tile_name(self.sky.name, unit.geometry.row, unit.geometry.column)

    def take(self, value: tuple[TileInfo, int]) -> int:
        """Note a written tile; gives its objects."""
        info, rows = value
        self._taken.append(info)
        if len(self._taken) >= _COMMIT_EVERY:
            self.flush()
        return rows

    def flush(self) -> None:
        """Commit the tiles that were noted."""
        Survey.open(self.source).commit(self._taken)
        self._taken = []

    def finish(self) -> str:
        """Merge the tiles' truth tables; they go once the whole catalog is there."""
        parts = [self._part(index) for index in range(len(self.tiles))]
        if not storage.exists(self.truth):
            try:
                tables = [storage.read_table(part) for part in parts]
            except FileNotFoundError as error:
                raise AstromlError(f"a truth table is gone ({error}): simulate into another folder") from error
            storage.write_table(self.truth, pa.concat_tables(tables).sort_by("object_id"))
        for part in parts:
            storage.remove(part)
        return self.truth
