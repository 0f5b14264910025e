"""Simulated postage stamps with truth, block by block; every block can be made again alone and identically."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F16, F32, F64, I64
from astroml_plugin.simulation import drawing
from astroml_plugin.simulation.blocks import Blocks
from astroml_plugin.simulation.camera import NOISE_MARGIN, Camera, correlated, draw_psf
from astroml_plugin.simulation.defects import masked_stamp
from astroml_plugin.simulation.designs import Branch, Design, Single
from astroml_plugin.simulation.objects import Objects, truth_columns
from astroml_plugin.simulation.population import Population, draw_population
from astroml_plugin.simulation.profiles import GRIDS, Matrix, Psf, ellipse, grid_size, psf_image, rotation

_BLOCK = 11
"""Kind of the seeds of this module, beside those of skies."""

_ROUNDS = 6
"""Steps of the search for the flux of a given S/N; 6 leave less than 1e-3."""


@dataclass(frozen=True)
class StampSet(Blocks):
    """A set of simulated stamps; small and picklable, it makes pixels when asked.

    An object's centre lies at pixel `size // 2` (0-based) + `offset`, as a cutout of a Survey has it.
    """

    count: int
    """Stamps; sets of them where `design` makes sets."""
    seed: int = 1
    block: int = 1024
    """Stamps (sets) per block: the unit of seeds and of work."""
    size: int = 48
    """Side in pixels."""
    psf_size: int = 25
    """Side of the PSF images in pixels."""
    population: Population = field(default_factory=Population)
    camera: Camera = field(default_factory=lambda: Camera(bands=("r",)))
    snr: tuple[float, float] | None = (10.0, 200.0)
    """Matched-filter S/N in the reference band, log-uniform, sets the flux; None: the population's magnitudes do."""
    offset: float = 0.5
    """Centres are uniform within this many pixels in x and y."""
    neighbours: float = 0.0
    """Other objects per arcmin^2 in and around the stamps."""
    around: Population | None = None
    """Population of the neighbours; None: that of the stamps' own objects."""
    masked: float = 0.0
    """Fraction of the pixels under bad columns and cosmic rays; they have garbage for values and variance 0."""
    design: Design = field(default_factory=Single)
    """Stamps made of every galaxy: one, or a set of stamps for measuring biases."""
    variance: ClassVar[bool] = True
    """Whether variance images are stored."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.block < 1 or self.seed < 0:
            raise InputError("stamps need a count and a block of at least 1 and a seed of 0 or more")
        if not 8 <= self.size <= GRIDS[-1] - 16 or not 3 <= self.psf_size <= 200:
            raise InputError(f"a stamp of {self.size} with a PSF of {self.psf_size} pixels: sizes are 8-240 and 3-200")
        if self.snr is not None and not 0 < self.snr[0] <= self.snr[1]:
            raise InputError(f"S/N range {self.snr} must be positive and rising")
        if self.neighbours < 0 or not 0 <= self.masked < 0.5 or not 0 <= self.offset <= 0.5:
            raise InputError("neighbours are 0 or more, masked is 0 to 0.5 of the pixels, offset 0 to 0.5 pixels")
        if self.design.size > 1 and any(self.population.shear):
            raise InputError("sets bring their own shear: leave the population's at 0")

    @property
    def rows(self) -> int:
        """Stamps in a whole block."""
        return self.block * self.design.size

    @property
    def noisy(self) -> bool:
        """Whether noise is added to the images; variance tells it either way."""
        return True

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the truth of pixels; none here."""
        return ()

    @property
    def true_psf(self) -> Psf | None:
        """The PSF under which the truth of pixels shows each galaxy alone, where there are layers."""
        return None

    def make(self, index: int) -> Block:
        """Block `index`, from its own seed; the stamps of a set follow each other."""
        draws = _draw(self, index)
        count, camera = self.block_length(index), self.camera
        views = _views(draws, self)
        shape = (count, len(views), len(camera.bands), self.size, self.size)
        image, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
        psf = np.empty((*shape[:3], self.psf_size, self.psf_size), np.float32)
        snr = np.empty((count, len(views)))
        truth = np.empty((*shape[:2], len(self.layers), *shape[3:]), np.float16) if self.true_psf else None
        for i in range(count):
            scene = _Scene(self, draws, i)
            for b, view in enumerate(views):
                image[i, b], variance[i, b], snr[i, b] = scene.observe(view)
                psf[i, b] = psf_image(view.psfs[i], self.psf_size, camera.pixel_scale)
                if truth is not None and self.true_psf is not None:
                    truth[i, b] = scene.alone(view, self.true_psf)
        table = _labels(self, views, snr, slice(0, count), index)
        flat = [plane.reshape(-1, *plane.shape[2:]) for plane in (image, variance, psf)]
        layers = None if truth is None else truth.reshape(-1, *truth.shape[2:])
        return Block(flat[0], flat[1], flat[2], table, layers)


class Block(NamedTuple):
    """Pixels and truth of one block."""

    image: F32
    """(n, band, y, x)"""
    variance: F32 | None
    """(n, band, y, x); None where the set stores none."""
    psf: F32
    """(n, band, psf_y, psf_x), pixel response included, sum about 1."""
    table: pa.Table
    """object_id, ra, dec (null) and the labels; sets add `set_id` and `branch`."""
    truth: F16 | None = None
    """(n, layer, y, x) of fields; None for stamps of single objects."""


# --- what chance decides --------------------------------------------------------------------------------------------


class _Draws(NamedTuple):
    """Everything random of one block; a short last block draws like a whole one."""

    objects: Objects
    psfs: list[Psf]
    shift: F64
    """(n, 2) pixels from the centre of the middle pixel."""
    target: F64 | None
    """(n,) S/N."""
    seeds: I64
    """(n,) of what else each stamp needs."""
    noise: F32
    """(n, band, side, side) unit normal deviates around the middle pixel; an odd side can be turned."""
    branches: list[Branch]


def _draw(stamps: StampSet, index: int) -> _Draws:
    rng = stamps.generator(_BLOCK, index)
    block, first = stamps.block, index * stamps.block
    objects = draw_population(rng, block, stamps.population, stamps.camera, first)
    psfs = [draw_psf(rng, stamps.camera) for _ in range(block)]
    shift = rng.uniform(-stamps.offset, stamps.offset, (block, 2))
    target = None
    if stamps.snr is not None:
        target = np.exp(rng.uniform(math.log(stamps.snr[0]), math.log(stamps.snr[1]), block))
    seeds = rng.integers(0, 2**63, block)
    branches = stamps.design.branches(np.arange(first, first + block), psfs, rng)
    correlation = stamps.camera.noise_correlation
    side = _side(stamps) + (2 * NOISE_MARGIN if correlation else 0)
    noise = rng.standard_normal((block, len(stamps.camera.bands), side, side), dtype=np.float32)
    noise = correlated(noise, correlation) if correlation else noise
    noise = noise if stamps.noisy else np.zeros_like(noise)
    return _Draws(objects, psfs, shift, target, seeds, noise, branches)


def _side(stamps: StampSet) -> int:
    """Side of what is drawn: odd where it is turned around its middle pixel."""
    return stamps.size | 1 if stamps.design.turned else stamps.size


# --- what is seen ---------------------------------------------------------------------------------------------------


class _View(NamedTuple):
    """The objects of a block as one branch shows them."""

    names: list[str]
    objects: Objects
    psfs: list[Psf]
    shift: F64
    turned: bool
    matrices: list[Matrix] | None
    """(n,) what each object's surroundings went through; None where nothing changes."""


def _views(draws: _Draws, stamps: StampSet) -> list[_View]:
    if not draws.branches:
        return [_View([""] * len(draws.psfs), draws.objects, draws.psfs, draws.shift, False, None)]
    return [_view(draws, branch) for branch in draws.branches]


def _view(draws: _Draws, branch: Branch) -> _View:
    objects, shift, turn = draws.objects, draws.shift, rotation(0.0)
    if branch.turned:
        turn = rotation(np.pi / 2)
        objects, shift = objects.turned(), np.stack([-shift[:, 1], shift[:, 0]], axis=1)
    objects = objects.sheared(branch.g1, branch.g2)
    shears = zip(branch.g1.tolist(), branch.g2.tolist(), strict=True)
    matrices = [ellipse(*shear).after(turn) for shear in shears]
    return _View(branch.names, objects, branch.psfs, shift, branch.turned, matrices)


class _Scene:
    """One galaxy, its neighbours and its noise, to be seen in several views."""

    def __init__(self, stamps: StampSet, draws: _Draws, i: int) -> None:
        self.stamps, self.camera, self.draws, self.i = stamps, stamps.camera, draws, i
        self.psf = stamps.design.reference(draws.psfs[i])
        self.grid = grid_size(max(stamps.size // 2 + 4, self._wanted()))
        own = np.random.Generator(np.random.PCG64(int(draws.seeds[i])))
        self.neighbours = _Neighbours(stamps, own) if stamps.neighbours > 0 else None
        self.defects = masked_stamp(own, _side(stamps), stamps.masked, self.camera) if stamps.masked > 0 else None
        model = self._main(draws.objects, self.psf, draws.shift[i])
        self.factor = 1.0
        if draws.target is not None:
            target = float(draws.target[i])
            self.factor = _flux_factor(self._cut(model)[self.camera.reference], target, self.camera)
            draws.objects.mag[i] -= 2.5 * math.log10(self.factor)  # shared by all views
        model *= np.float32(self.factor)
        self.first: F32 | None = model
        everything = model if self.neighbours is None else model + self._others(self.psf, draws.shift[i], None)
        self.variance = self.camera.variance(everything)
        self.noise = np.sqrt(self.variance) * draws.noise[i]
        self.everything = everything

    def _wanted(self) -> float:
        """Pixels from the centre that must be drawn; a star's or bright galaxy's wings reach far, and are cut."""
        objects, i = self.draws.objects, self.i
        wanted = drawing.spread(objects, i, self.camera)
        if self.draws.target is None:
            reach = drawing.reach(objects, i, self.psf, self.camera)
            wanted = max(wanted, min(reach, 1.3 * self.stamps.size))
        return wanted

    def observe(self, view: _View) -> tuple[F32, F32, float]:
        """Image, variance (band, y, x) and the galaxy's S/N in the reference band."""
        main, everything = self._models(view)
        planes = [everything + turn(self.noise, view.turned), turn(self.variance, view.turned)]
        if self.defects is not None:
            garbage, bad = (turn(plane, view.turned) for plane in self.defects)
            planes = [np.where(bad, garbage, planes[0]), np.where(bad, np.float32(0), planes[1])]
        image, variance = (self._cut(plane) for plane in planes)
        return image, variance, drawing.signal_to_noise(self._cut(main)[self.camera.reference], self.camera)

    def alone(self, view: _View, psf: Psf) -> F32:
        """The galaxy alone under another PSF, noiseless, (band, y, x)."""
        return self._cut(self._main(view.objects, psf, view.shift[self.i]))

    def _models(self, view: _View) -> tuple[F32, F32]:
        """Noiseless (band, side, side) of the galaxy alone and of everything."""
        if view.matrices is None:
            assert self.first is not None
            return self.first, self.everything
        psf, shift = view.psfs[self.i], view.shift[self.i]
        main = self._main(view.objects, psf, shift)
        if self.neighbours is None:
            return main, main
        return main, main + self._others(psf, shift, view)

    def _main(self, objects: Objects, psf: Psf, shift: F64) -> F32:
        stamp = drawing.draw(objects, self.i, psf, self.camera, float(shift[0]), float(shift[1]), self.grid)
        first, side = self.grid // 2 - self.stamps.size // 2, _side(self.stamps)
        return stamp[:, first : first + side, first : first + side]

    def _others(self, psf: Psf, shift: F64, view: _View | None) -> F32:
        assert self.neighbours is not None
        side = _side(self.stamps)
        canvas = np.zeros((len(self.camera.bands), side, side), np.float32)
        self.neighbours.draw(canvas, psf, shift, self.draws.shift[self.i], view, self.i)
        return canvas

    def _cut(self, plane: F32) -> F32:
        return plane[:, : self.stamps.size, : self.stamps.size]


def turn(plane: NDArray, turned: bool) -> NDArray:  # type: ignore[type-arg]
    """`plane` (..., n, n) turned by 90 degrees from +x towards +y around its middle if `turned`."""
    return np.rot90(plane, -1, axes=(-2, -1)) if turned else plane


def _flux_factor(model: F32, target: float, camera: Camera) -> float:
    """Factor on `model` that gives it the S/N `target`, its own Poisson noise included."""
    if camera.gain == 0:
        return target / drawing.signal_to_noise(model, camera)
    factor = 1.0
    for _ in range(_ROUNDS):
        factor *= (target / drawing.signal_to_noise(model * np.float32(factor), camera)) ** 1.2
    return factor


class _Neighbours:
    """Other objects in and around a stamp."""

    def __init__(self, stamps: StampSet, rng: np.random.Generator) -> None:
        self.camera, self.middle = stamps.camera, stamps.size // 2
        side = 2 * stamps.size
        area = (side * stamps.camera.pixel_scale / 60) ** 2
        count = int(rng.poisson(stamps.neighbours * area))
        self.objects = draw_population(rng, count, stamps.around or stamps.population, stamps.camera)
        self.place = np.array([rng.uniform(-side / 2, side / 2, 2) for _ in range(count)]).reshape(count, 2)

    def draw(
        self,
        canvas: F32,
        psf: Psf,
        centre: F64,
        before: F64,
        view: _View | None,
        i: int,
    ) -> None:
        """Add all to `canvas` (band, y, x), moved with galaxy `i` of `view` from `before` to `centre`."""
        objects, place = self.objects, self.place
        if view is not None and view.matrices is not None and len(place):
            objects = objects.turned() if view.turned else objects
            objects = objects.sheared(*(np.full(len(place), g[i]) for g in (view.objects.g1, view.objects.g2)))
            place = np.stack(view.matrices[i].apply(*(place - before).T), axis=1) + centre
        for j in range(len(objects)):
            x, y = (place[j] + self.middle).tolist()
            column, row = math.floor(x + 0.5), math.floor(y + 0.5)
            size = drawing.natural_size(objects, j, psf, self.camera)
            if not -size // 2 <= min(column, row) <= max(column, row) < canvas.shape[-1] + size // 2:
                continue
            stamp = drawing.draw(objects, j, psf, self.camera, x - column, y - row, size)
            drawing.add(canvas, stamp, column - size // 2, row - size // 2)


# --- truth ----------------------------------------------------------------------------------------------------------


def _labels(stamps: StampSet, views: list[_View], snr: F64, kept: slice, index: int) -> pa.Table:
    """One row per stamp: set by set, branch by branch."""
    tables = [_view_labels(view, snr[:, b], kept, stamps.camera) for b, view in enumerate(views)]
    count, size = kept.stop, len(views)
    order = np.arange(count * size).reshape(size, count).T.ravel()
    table = pa.concat_tables(tables).take(order)
    first = index * stamps.rows
    columns = {
        "object_id": pa.array(np.arange(first, first + count * size, dtype=np.int64)),
        "ra": pa.nulls(count * size, pa.float64()),
        "dec": pa.nulls(count * size, pa.float64()),
        **{name: table[name] for name in table.column_names if name != "branch"},
    }
    if stamps.design.size > 1:
        sets = np.arange(index * stamps.block, index * stamps.block + count, dtype=np.int64)
        columns |= {"set_id": pa.array(np.repeat(sets, size)), "branch": table["branch"]}
    return pa.table(columns)


def _view_labels(view: _View, snr: F64, kept: slice, camera: Camera) -> pa.Table:
    psfs = view.psfs[kept]
    columns = {
        **truth_columns(view.objects.take(kept), camera),
        "snr": pa.array(snr),
        "offset_x": pa.array(view.shift[kept, 0]),
        "offset_y": pa.array(view.shift[kept, 1]),
        "branch": pa.array(view.names[kept], pa.string()),
    }
    for name in ("fwhm", "e1", "e2"):
        columns[f"psf_{name}"] = pa.array([getattr(psf, name) for psf in psfs], pa.float64())
    return pa.table(columns)
