"""Simulate a survey or a set of stamps with truth, in parallel and resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa
from distributed import Client

from astroml_plugin import __version__, simulation
from astroml_plugin.compute import cluster
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.settings import from_mapping, refuse_unknown, to_mapping
from astroml_plugin.simulation.anomalies import AnomalySet
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.fields import FieldSet
from astroml_plugin.simulation.lenses import LensSet
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.profiles import load_galsim
from astroml_plugin.simulation.skies import Sky
from astroml_plugin.simulation.units import BlockUnit, TileUnit, create_stamps, create_survey, write_block, write_tile
from astroml_plugin.sky.wcs import cut_tiles, tile_step
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name

Progress = Callable[[str, int, int], None]
"""Called with (what is done, units done, units in all)."""

RECORD = "simulation.json"

_COMMIT_EVERY = 16


@dataclass(frozen=True)
class SimulateResult:
    """What `simulate` made."""

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


def simulate(
    *,
    out: str,
    kind: str = "stamps",
    count: int | None = None,
    seed: int = 1,
    size: int | None = None,
    bands: tuple[str, ...] | None = None,
    tile_size: int = 1024,
    halo: int = 128,
    shape: tuple[int, int] | None = None,
    density: float | None = None,
    population: Population | None = None,
    camera: Camera | None = None,
    snr: tuple[float, float] | None = (10.0, 200.0),
    block: int | None = None,
    psf_size: int = 25,
    preset: str | None = None,
    hst: str | None = None,
    pairs: str | None = None,
    shear: float = 0.02,
    psf_leakage: float = 0.05,
    changes: Mapping[str, Any] | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
) -> SimulateResult:
    """Make simulated data below the folder `out`; run again, it makes what is missing.

    Args:
        out: folder or fsspec URL. `stamps.zarr`, or `survey.zarr` and `truth.parquet`, are put there.
        kind: "stamps" or "survey".
        count: stamps or sets of stamps (default 10,000), or tiles of a survey (default 4), laid out in a near-square
            grid.
        seed: of everything; any unit is the same whoever makes it.
        size: side of a stamp in pixels (default: the preset's, else 48).
        bands: band names (default r for stamps; g, r, i for a survey).
        tile_size, halo: tiles of a survey, as in `ingest`.
        shape: (height, width) of a survey's image, instead of `count`.
        density: objects per arcmin^2 of a survey (default 30); for stamps, neighbours per arcmin^2 (default: the
            preset's, else 0).
        population, camera: what there is and what sees it, instead of the preset's; `bands` overrides the camera's.
        snr: S/N range of stamps, log-uniform; None takes magnitudes from the population. Not for lenses.
        block: galaxies per unit (default 1024; 256 sets; 512 lenses).
        psf_size: side of the PSF images in pixels.
        preset: a name of `simulation.PRESETS`: its population and camera.
        hst: catalog of real galaxies (RealGalaxyCatalog), for the presets that need one.
        pairs: "shear" makes sets of four of every galaxy with +-`shear` at 0 and 90 degrees, "psf" pairs under PSFs
            of ellipticity +-`psf_leakage`; stamps then have the columns `set_id` and `branch`.
        shear, psf_leakage: see `pairs`.
        changes: tables `population`, `camera` and `stamps` (a survey: `sky`) of single settings to change last.
        client: Dask client (default: threads of this process).
        progress: told after every unit.

    Raises:
        InputError: GalSim is not installed, settings do not fit, or `out` holds another simulation.
    """
    started = time.monotonic()
    load_galsim()
    with ExitStack() as stack:
        plan: _Plan
        if kind == "stamps":
            common = {
                **_given(seed=seed, size=size, block=block, psf_size=psf_size),
                "count": 10_000 if count is None else count,
            }
            stamps = simulation.preset(preset, hst) if preset else StampSet(1)
            if isinstance(stamps, StampSet):
                stamps = replace(
                    stamps,
                    **_given(population=population, camera=camera, neighbours=density),
                    **{"block": 1024 if pairs is None else 256, **common},
                    snr=snr,
                    design=simulation.make_design(pairs, shear=shear, psf_ellipticity=psf_leakage),
                )
            elif pairs:
                raise InputError("pairs are made of single galaxies: take another preset")
            elif isinstance(stamps, FieldSet):
                span = None if density is None else (density, density)
                stamps = replace(stamps, **_given(population=population, camera=camera, density=span), **common)
            elif population or camera:
                raise InputError(f"{preset} have their own galaxies and camera: change single settings")
            else:
                stamps = replace(stamps, **_given(galaxies=density), **common)
            stamps = _changed(stamps, bands, changes, "stamps")
            plan = _StampsPlan(storage.absolute(out), stamps)
        elif kind == "survey":
            height, width = shape or _grid_shape(4 if count is None else count, tile_size, halo)
            sky = replace(
                _preset_sky(preset, hst, height, width),
                **_given(population=population, camera=camera, density=density),
                seed=seed,
            )
            if pairs is not None:
                raise InputError("pairs are made of stamps, not of a survey")
            sky = _changed(sky, bands, changes, "sky")
            plan = _SurveyPlan(storage.absolute(out), sky, tile_size, halo, psf_size)
        else:
            raise InputError(f"no kind {kind!r} of simulation: use stamps or survey")
        plan.open()
        client = client or stack.enter_context(cluster.connect("local"))
        return _run(plan, client, progress, started)


def _given(**settings: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def _preset_sky(preset: str | None, hst: str | None, height: int, width: int) -> Sky:
    """A sky of a preset's population and camera."""
    if preset is None:
        return Sky(height, width)
    stamps = simulation.preset(preset, hst)
    if isinstance(stamps, FieldSet):
        density = sum(stamps.density) / 2
        return Sky(height, width, density=density, population=stamps.population, camera=stamps.camera)
    if not isinstance(stamps, StampSet):
        raise InputError(f"the preset {preset!r} makes stamps, not a survey: use --kind stamps")
    return Sky(height, width, population=stamps.population, camera=stamps.camera)


_S = TypeVar("_S", bound=StampSet | LensSet | FieldSet | AnomalySet | Sky)


def _changed(settings: _S, bands: tuple[str, ...] | None, changes: Mapping[str, Any] | None, own: str) -> _S:
    """`settings` with other bands and the tables of `changes` laid over population, camera and itself (`own`)."""
    changes = dict(changes or {})
    refuse_unknown(changes, ("population", "camera", own), "the settings of the simulation")
    if bands:
        changes["camera"] = {**changes.get("camera", {}), "bands": list(bands)}
    values: dict[str, Any] = {**to_mapping(settings), **changes.get(own, {})}
    for name in set(changes) - {own}:
        if name not in values:
            raise InputError(f"this simulation has no table {name!r}: leave it out")
        values[name] = {**values[name], **changes[name]}
    return from_mapping(type(settings), values, f"[{own}]")


def _run(plan: _Plan, client: Client, progress: Progress | None, started: float) -> SimulateResult:
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


def _grid_shape(count: int, tile_size: int, halo: int) -> tuple[int, int]:
    """(height, width) of an image of `count` whole tiles, as near to a square as its factors allow."""
    if count < 1:
        raise InputError(f"a survey of {count} tiles is empty: give a count of at least 1")
    rows = max(n for n in range(1, int(count**0.5) + 1) if count % n == 0)
    step = tile_step(tile_size, halo)
    return rows * step, count // rows * step


class _Plan:
    """What the two kinds have in common: a record of the settings, units to do, a function that does one."""

    kind: str
    source: str
    function: Callable[[Any], Any]

    def __init__(self, out: str, identity: dict[str, Any]) -> None:
        self.out = out
        self.identity = {"kind": self.kind, **identity}
        self.source = storage.join(out, f"{self.kind}.zarr")
        self.digest = storage.digest(self.identity)

    def open(self) -> None:
        """Make the store, or see that it is of the same simulation."""
        url = storage.join(self.out, RECORD)
        if storage.exists(url):
            if storage.read_json(url).get("digest") != self.digest:
                raise InputError(f"{storage.redact(self.out)} holds another simulation: choose another output")
        else:
            if storage.exists(storage.join(self.source, "zarr.json")):
                raise InputError(f"{storage.redact(self.source)} was not made by simulate: choose another output")
            try:
                record = {"digest": self.digest, "version": __version__, "settings": self.identity}
                storage.write_json(url, record)
            except OSError as error:
                raise InputError(f"{storage.redact(self.out)} cannot be written: {error}") from error
        if not storage.exists(storage.join(self.source, "zarr.json")):
            self.create()

    def create(self) -> None:
        raise NotImplementedError

    def todo(self) -> tuple[list[Any], int]:
        """Units to do, and how many are done."""
        raise NotImplementedError

    def name(self, unit: Any) -> str:
        raise NotImplementedError

    def take(self, value: Any) -> int:
        """Note a finished unit; gives its objects."""
        return int(value)

    def flush(self) -> None:
        """Commit what was taken."""

    def finish(self) -> str | None:
        """After the last unit; gives the truth catalog."""
        return None


class _StampsPlan(_Plan):
    kind = "stamps"
    function = staticmethod(write_block)

    def __init__(self, out: str, stamps: StampSet | LensSet | FieldSet | AnomalySet) -> None:
        super().__init__(out, {"stamps": to_mapping(stamps)})
        self.stamps = stamps

    def create(self) -> None:
        create_stamps(self.source, self.stamps)

    def todo(self) -> tuple[list[Any], int]:
        store = Stamps.open(self.source)
        room = store.array("image").shape[0] // self.stamps.block
        if room < self.stamps.blocks:
            store.reserve(self.stamps.blocks - room)
        done = {block.index for block in store.units()}
        units = [BlockUnit(self.source, self.stamps, i) for i in range(self.stamps.blocks) if i not in done]
        return units, len(done)

    def name(self, unit: BlockUnit) -> str:
        return f"block {unit.index}"


class _SurveyPlan(_Plan):
    kind = "survey"
    function = staticmethod(write_tile)

    def __init__(self, out: str, sky: Sky, tile_size: int, halo: int, psf_size: int) -> None:
        tiling = {"tile_size": tile_size, "halo": halo, "psf_size": psf_size}
        super().__init__(out, {"sky": to_mapping(sky), **tiling})
        self.sky, self.tile_size, self.halo, self.psf_size = sky, tile_size, halo, psf_size
        self.tiles = cut_tiles(sky.height, sky.width, tile_size, halo)
        self.truth = storage.join(out, "truth.parquet")
        self._taken: list[TileInfo] = []

    def create(self) -> None:
        create_survey(self.source, self.sky, tile_size=self.tile_size, halo=self.halo, psf_size=self.psf_size)

    def _part(self, index: int) -> str:
        return storage.join(self.out, "truth", f"{index:07d}.parquet")

    def todo(self) -> tuple[list[Any], int]:
        survey = Survey.open(self.source)
        room = survey.array("image").shape[0]
        if room < len(self.tiles):
            survey.reserve(len(self.tiles) - room)
        done = set(survey.index_table()["name"].to_pylist())
        return list(self._units(done)), len(done)

    def _units(self, done: set[str]) -> Iterator[TileUnit]:
        for index, geometry in enumerate(self.tiles):
            if tile_name(self.sky.name, geometry.row, geometry.column) not in done:
                rest = (self.psf_size, self.digest, len(self.tiles))
                yield TileUnit(self.source, self._part(index), self.sky, geometry, index, *rest)

    def name(self, unit: TileUnit) -> str:
        return tile_name(self.sky.name, unit.geometry.row, unit.geometry.column)

    def take(self, value: tuple[TileInfo, int]) -> int:
        info, rows = value
        self._taken.append(info)
        if len(self._taken) >= _COMMIT_EVERY:
            self.flush()
        return rows

    def flush(self) -> None:
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
