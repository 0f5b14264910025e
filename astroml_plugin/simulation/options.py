"""Options of a simulation: what a person says of a set of stamps or of a survey, made into a StampSet or a Sky."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, refuse_unknown, to_mapping
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.fields import FieldSet
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.presets import make_design, preset
from astroml_plugin.simulation.redshifts import RedshiftSet
from astroml_plugin.simulation.skies import Sky
from astroml_plugin.simulation.stamped import Stamped
from astroml_plugin.sky.wcs import tile_step


@dataclass(frozen=True)
class _Simulation:
    """Options that stamps and surveys share."""

    preset: str | None = None
    """Named simulation, for example field-varying (see docs/simulation.md): its population and camera."""
    hst: str | None = None
    """Catalog of real galaxies (RealGalaxyCatalog), for the presets that need one."""
    seed: int = 1
    """Seed of everything; a unit is the same whoever makes it."""
    bands: tuple[str, ...] | None = None
    """Names of the bands (default r for stamps; g, r, i for a survey)."""
    population: Population | None = None
    """Objects, instead of the preset's."""
    camera: Camera | None = None
    """Camera, instead of the preset's; `bands` overrides its bands."""
    density: float | None = None
    """Objects per arcmin^2 of a survey (default 30), or neighbours per arcmin^2 of stamps (the preset's, else 0)."""
    psf_size: int = 25
    """Side of the PSF images in pixels."""
    changes: dict[str, Any] | None = None
    """Tables `population`, `camera` and `stamps` (a survey: `sky`) of single settings to change last."""


@dataclass(frozen=True)
class StampSimulation(_Simulation):
    """Options of simulated stamps."""

    count: int | None = None
    """Stamps, or sets of stamps with `pairs` (default 10,000)."""
    size: int | None = None
    """Side of a stamp in pixels (default: the preset's, else 48)."""
    snr: tuple[float, float] | None = (10.0, 200.0)
    """S/N range, log-uniform; None takes magnitudes from the population. Not for lenses."""
    block: int | None = None
    """Galaxies per unit (default 1024; 256 sets; 512 lenses)."""
    pairs: str | None = None
    """"shear" makes sets of four of every galaxy with +-`shear` at 0 and 90 degrees, "psf" pairs under PSFs of
    ellipticity +-`psf_leakage`; stamps then have the columns `set_id` and `branch`."""
    shear: float = 0.02
    """|g| of the sets of `pairs = "shear"`."""
    psf_leakage: float = 0.05
    """|e_PSF| of the pairs of `pairs = "psf"`."""

    def stamps(self) -> Stamped:
        """The set of stamps.

        Raises:
            InputError: no such preset, or options that do not fit it.
        """
        made: Stamped = preset(self.preset, self.hst) if self.preset else StampSet(1)
        common = _given(seed=self.seed, size=self.size, block=self.block, psf_size=self.psf_size)
        common["count"] = 10_000 if self.count is None else self.count
        if isinstance(made, StampSet):
            chosen = _given(population=self.population, camera=self.camera, neighbours=self.density)
            design = make_design(self.pairs, shear=self.shear, psf_ellipticity=self.psf_leakage)
            block = 1024 if self.pairs is None else 256
            made = replace(made, **chosen, **{"block": block, **common}, snr=self.snr, design=design)
        elif self.pairs:
            raise InputError("pairs are made of single galaxies: take another preset")
        elif isinstance(made, FieldSet):
            span = None if self.density is None else (self.density, self.density)
            made = replace(made, **_given(population=self.population, camera=self.camera, density=span), **common)
        elif self.population or self.camera or (isinstance(made, RedshiftSet) and self.density):
            raise InputError(f"{self.preset} have their own galaxies and camera: change single settings")
        else:
            made = replace(made, **_given(galaxies=self.density), **common)
        return _changed(made, self.bands, self.changes, "stamps")


@dataclass(frozen=True)
class SurveySimulation(_Simulation):
    """Options of a simulated survey."""

    count: int | None = None
    """Tiles, laid out in a near-square grid (default 4)."""
    tile_size: int = 1024
    """Outer side of a tile in pixels, as in `ingest`."""
    halo: int = 128
    """Pixels that a tile shares with its neighbours on every side."""
    shape: tuple[int, int] | None = None
    """(height, width) of the image in pixels, instead of `count`."""

    def sky(self) -> Sky:
        """The sky.

        Raises:
            InputError: no such preset, or one that makes no survey.
        """
        height, width = self.shape or _grid_shape(4 if self.count is None else self.count, self.tile_size, self.halo)
        chosen = _given(population=self.population, camera=self.camera, density=self.density)
        sky = replace(_preset_sky(self.preset, self.hst, height, width), **chosen, seed=self.seed)
        return _changed(sky, self.bands, self.changes, "sky")


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def _preset_sky(name: str | None, hst: str | None, height: int, width: int) -> Sky:
    """A sky of a preset's population and camera."""
    if name is None:
        return Sky(height, width)
    stamps = preset(name, hst)
    if isinstance(stamps, FieldSet):
        density = sum(stamps.density) / 2
        return Sky(height, width, density=density, population=stamps.population, camera=stamps.camera)
    if not isinstance(stamps, StampSet):
        raise InputError(f"the preset {name!r} makes stamps, not a survey: use --kind stamps")
    return Sky(height, width, population=stamps.population, camera=stamps.camera)


_S = TypeVar("_S", bound=Stamped | Sky)


def _changed(settings: _S, bands: tuple[str, ...] | None, changes: Mapping[str, Any] | None, table: str) -> _S:
    """`settings` with other bands, and the tables of `changes` laid over population, camera and itself (`table`)."""
    changes = dict(changes or {})
    refuse_unknown(changes, ("population", "camera", table), "the settings of the simulation")
    if bands:
        changes["camera"] = {**changes.get("camera", {}), "bands": list(bands)}
    values: dict[str, Any] = {**to_mapping(settings), **changes.get(table, {})}
    for name in set(changes) - {table}:
        if name not in values:
            raise InputError(f"this simulation has no table {name!r}: leave it out")
        values[name] = {**values[name], **changes[name]}
    return from_mapping(type(settings), values, f"[{table}]")


def _grid_shape(count: int, tile_size: int, halo: int) -> tuple[int, int]:
    """(height, width) of an image of `count` whole tiles, as near to a square as its factors allow."""
    if count < 1:
        raise InputError(f"a survey of {count} tiles is empty: give a count of at least 1")
    rows = max(n for n in range(1, int(count**0.5) + 1) if count % n == 0)
    step = tile_step(tile_size, halo)
    return rows * step, count // rows * step
