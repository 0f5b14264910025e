"""Ingest of FITS files into a Survey: plan fields, reserve tiles, write them on a cluster, commit their rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from astroml_plugin.compute.cluster import client_of, run_window
from astroml_plugin.core import storage
from astroml_plugin.core.description import and_more
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.sky.wcs import TileGeometry, cut_tiles
from astroml_plugin.sources.ingest.exposures import exposures
from astroml_plugin.sources.ingest.fields import NO_FILE, Field, Inputs, by_name, drop_companions, fields_of
from astroml_plugin.sources.ingest.looking import no_psf
from astroml_plugin.sources.ingest.measuring import Measured, band_tasks, measure_band, with_measured
from astroml_plugin.sources.ingest.opening import stem_of
from astroml_plugin.sources.ingest.options import FitsOptions, IngestOptions
from astroml_plugin.sources.ingest.plans import ImagePlan, bands_of_file, names_of_cube, plan_field
from astroml_plugin.sources.ingest.result import IngestResult, Progress
from astroml_plugin.sources.ingest.skies import Skies
from astroml_plugin.sources.ingest.star_cells import cells_shape
from astroml_plugin.sources.ingest.tiles import TileTask, cached_psf, write_tiles
from astroml_plugin.sources.star_psf import report
from astroml_plugin.sources.star_psf.quality import Quality
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_arrays import HALO
from astroml_plugin.sources.tile_table import TileInfo, tile_name

T = TypeVar("T")

TILE_SIZE = 4096
"""Outer side of a tile where nothing smaller holds every image."""

COMMIT_TILES = 64
COMMIT_SECONDS = 5.0
"""A killed ingest loses at most this much work."""

_PLAN_BATCH = 256
_LOOK_AT_MOST = 4096
"""More fields than this are not all opened only to find a tile size."""

_TILES_OF_WHOLE_FILE = 16
"""Tiles of one gzip or bzip2 file written by one task, so that it is decompressed once for them."""


def ingest_fits(
    urls: Sequence[str], out: str, options: IngestOptions, client: Any = None, progress: Progress | None = None
) -> IngestResult:
    """Add FITS files to the survey at `out`, made when it is not there; what is in it already is not read again.

    Raises:
        InputError: bad files, or settings other than the survey's.
    """
    start = time.monotonic()
    urls = drop_companions([url if url == NO_FILE else storage.named(url) for url in urls], options)
    inputs = by_name(urls, options)
    urls = inputs.images
    survey = Survey.open(out) if storage.exists(storage.join(storage.absolute(out), "zarr.json")) else None
    bands = options.bands
    if survey is not None:
        _refuse_other(survey, options)
        bands = survey.bands
        stored = _finished(survey, inputs, bands, options)
        if stored is not None:
            return IngestResult(survey.url, survey.kind, 0, stored, 0, 0, time.monotonic() - start)
    bands, group = bands_and_group(urls, bands, options)
    options.zero_points(bands, by_pixels=True)  # refused before anything is read
    fields = fields_of(urls, group, bands, options, inputs.beside)
    if options.name is not None and len(fields) > 1:
        raise InputError(f"name {options.name!r} for {len(fields)} fields: leave it out, or ingest them one by one")
    with client_of(client) as opened:
        run = _Run(opened, options, bands, progress)
        run.say_names(inputs)
        run.go(fields, survey, out)
    return run.result(time.monotonic() - start)


def _refuse_other(survey: Survey, options: IngestOptions) -> None:
    """InputError where the settings asked for are not those of an existing survey."""
    survey.refuse_other_codec(options.codec)
    for name in ("bands", "tile_size", "halo"):
        value, stored = getattr(options, name), getattr(survey, name)
        if value is not None and value != stored:
            raise InputError(
                f"{storage.redact(survey.url)} has {name} {stored}, not {value}: use its value or another output"
            )


def _finished(survey: Survey, inputs: Inputs, bands: Sequence[str], options: FitsOptions) -> int | None:
    """Number of tiles of the inputs when all are stored (nothing is opened to know it), else None."""
    complete = _complete(survey)
    for group in {1, len(bands)}:
        if len(inputs.images) % group == 0:
            fields = fields_of(inputs.images, group, bands, options, inputs.beside)
            if all(field.source_id in complete for field in fields):
                return sum(complete[field.source_id] for field in fields)
    return None


def _complete(survey: Survey) -> dict[str, int]:
    """source_id -> number of tiles, for every source whose tiles are all stored."""
    table = survey.index_table().select(["source_id", "source_tiles"]).to_pydict()
    stored = Counter(table["source_id"])
    needed = dict(zip(table["source_id"], table["source_tiles"], strict=True))
    return {source: count for source, count in stored.items() if count >= needed[source]}


def bands_and_group(
    urls: Sequence[str], bands: tuple[str, ...] | None, options: FitsOptions
) -> tuple[tuple[str, ...], int]:
    """Band names and the number of files that make one field, by a look at the first file."""
    first = next((url for url in urls if url != NO_FILE), None)
    if first is None:
        raise InputError("no FITS file is given: name at least one")
    found = exposures(first, options)
    planes, names = [exposure.image.planes or 1 for exposure in found], bands_of_file(found)
    if bands is None:
        names = names or names_of_cube(found[0], options.channels)
        return names or tuple(f"c{number:03d}" for number in range(planes[0])), 1
    named = names_of_cube(found[0], None)
    alone = len(bands) in planes or options.channels is not None or {*bands} <= {*named}
    alone = alone or {band.upper() for band in bands} <= {name.upper() for name in names or ()}
    return bands, 1 if alone else len(bands)


@dataclass
class _Run:
    """One ingest in progress; lives in the driver."""

    client: Any
    options: IngestOptions
    bands: tuple[str, ...]
    progress: Progress | None
    survey: Survey = None  # type: ignore[assignment]
    images: dict[str, str] = field(default_factory=dict)
    """Parent image -> source_id."""
    stored: set[str] = field(default_factory=set)
    """Names of committed tiles."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    pending: list[TileInfo] = field(default_factory=list)
    committed_at: float = 0.0
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Sentence on a plane left out or a guess -> images of which it is said."""
    skies: Skies = field(default_factory=Skies)
    star_psfs: list[Quality] = field(default_factory=list)
    done: int = 0
    skipped: int = 0
    known: int = 0
    bytes: int = 0

    def go(self, fields: Sequence[Field], survey: Survey | None, out: str) -> None:
        """Plan, make the survey where there is none, write."""
        tile_size = self.options.tile_size
        if survey is not None:
            complete = _complete(survey)
            self.skipped = sum(complete.get(field.source_id, 0) for field in fields)
            fields = [field for field in fields if field.source_id not in complete]
        plans: Iterable[list[ImagePlan]] = self._plan(fields)
        if survey is None and tile_size is None and len(fields) <= _LOOK_AT_MOST:
            plans = list(plans)
            tile_size = auto_tile_size([plan for of_field in plans for plan in of_field], self._halo)
        batches = _batched(plans, _PLAN_BATCH)
        first = next(batches)
        if survey is None:
            survey = self._create(out, [plan for of_field in first for plan in of_field], tile_size or TILE_SIZE)
        self._resume(survey)
        for batch in chain([first], batches):
            self._write(batch)

    def say_names(self, inputs: Inputs) -> None:
        """Say which files were taken as planes of others by their names."""
        for image, files in inputs.beside.items():
            told = ", ".join(f"{stem_of(file)} as its {role}" for role, file in files.items())
            self.notes.setdefault("planes in files of their own are taken by their names", []).append(
                f"{stem_of(image)} ({told})"
            )
        for file in inputs.left_out:
            self.notes.setdefault("left out, as its name tells no image", []).append(stem_of(file))

    @property
    def _halo(self) -> int:
        return HALO if self.options.halo is None else self.options.halo

    def _create(self, out: str, plans: Sequence[ImagePlan], tile_size: int) -> Survey:
        psfs = {band.psf for plan in plans for band in plan.bands if band.psf}
        for psf in sorted((psf for psf in psfs if psf.hdu is None), key=lambda psf: psf.url):
            if lost := no_psf(cached_psf(psf)):
                self.notes.setdefault(lost, []).append(stem_of(psf.url))
        shape = psf_shape_of(plans, tile_size, self.options.psf_from_stars)
        return Survey.create(
            out,
            bands=self.bands,
            tile_size=tile_size,
            halo=self._halo,
            psf_shape=shape,
            variance=any(band.has_variance for plan in plans for band in plan.bands),
            spectral=next((plan.spectral for plan in plans if plan.spectral is not None), None),
            codec=self.options.codec_of_new,
        )

    def _resume(self, survey: Survey) -> None:
        self.survey = survey
        table = survey.index_table()
        self.images = dict(zip(table["image"].to_pylist(), table["source_id"].to_pylist(), strict=True))
        self.stored = set(table["name"].to_pylist())

    def _plan(self, fields: Sequence[Field]) -> Iterator[list[ImagePlan]]:
        """Plans field by field in the order given; a bad field ends the run before its pixels are touched."""
        function = partial(plan_field, bands=self.bands, options=self.options)
        for batch in _batched(fields, _PLAN_BATCH):
            found: dict[str, list[ImagePlan]] = {}
            for outcome in run_window(self.client, function, batch):
                if outcome.error is not None:
                    raise outcome.error
                found[outcome.item.source_id] = outcome.value
            yield from (found[item.source_id] for item in batch)

    def _measured(self, plans: Sequence[ImagePlan]) -> list[ImagePlan]:
        """Plans of images of which tiles are to be written, with the skies and PSFs of their bands."""
        found: dict[tuple[int, int], Measured] = {}
        for outcome in run_window(self.client, measure_band, band_tasks(plans, self.options)):
            if outcome.error is None:
                found[outcome.item.place] = outcome.value
            elif not isinstance(outcome.error, AstromlError):  # that is said of each tile, the others are written
                raise outcome.error
        measured = with_measured(plans, found)
        for plan in measured:
            self._keep_quality(plan)
            for doubt in dict.fromkeys(doubt for band in plan.bands for doubt in band.sky.doubts):
                self.notes.setdefault(doubt, []).append(plan.name)
        return measured

    def _keep_quality(self, plan: ImagePlan) -> None:
        """Write down, and say, how good the PSFs from stars of an image are."""
        bands = zip(self.survey.bands, plan.bands, strict=True)
        found = {name: band.stars.quality for name, band in bands if band.stars is not None}
        if not found or any(band.refused for band in plan.bands):
            return
        report.write(self.survey.url, plan.name, found)
        self.star_psfs += found.values()
        for name, quality in found.items():
            if quality.doubt:
                label = plan.name if len(plan.bands) == 1 else f"{plan.name} {name}"
                self.notes.setdefault(f"the PSF from stars is poor: {quality.doubt}", []).append(label)

    def _write(self, batch: Sequence[list[ImagePlan]]) -> None:
        """Write the tiles of some fields that are not stored yet."""
        todo = [(plan, tiles, total) for plans in batch for plan, tiles, total in self._missing(plans)]
        count = sum(len(tiles) for _, tiles, _ in todo)
        if not count:
            return
        measured = self._measured([plan for plan, _, _ in todo])
        todo = [(plan, tiles, total) for plan, (_, tiles, total) in zip(measured, todo, strict=True)]
        self.known += count
        tasks = _tasks(self.survey.url, todo, self.survey.reserve(count))
        self.committed_at = time.monotonic()
        try:
            for outcome in run_window(self.client, write_tiles, tasks):
                self._take(outcome)
        finally:
            self._commit()

    def _missing(self, plans: Sequence[ImagePlan]) -> Iterator[tuple[ImagePlan, list[TileGeometry], int]]:
        cut = {plan.name: cut_tiles(*plan.shape, self.survey.tile_size, self.survey.halo) for plan in plans}
        total = sum(len(tiles) for tiles in cut.values())
        if len(cut) < len(plans):
            names = [plan.name for plan in plans]
            raise InputError(
                f"images {sorted({n for n in names if names.count(n) > 1})} occur twice in one file: use `hdu`"
            )
        for plan in plans:
            self._claim(plan)
            for note in plan.notes:
                self.notes.setdefault(note, []).append(plan.name)
            tiles = [t for t in cut[plan.name] if tile_name(plan.name, t.row, t.column) not in self.stored]
            self.skipped += len(cut[plan.name]) - len(tiles)
            if tiles:
                yield plan, tiles, total

    def _claim(self, plan: ImagePlan) -> None:
        """One image, one source: InputError where the name is taken by other files."""
        owner = self.images.setdefault(plan.name, plan.field.source_id)
        if owner != plan.field.source_id:
            raise InputError(
                f"image {plan.name!r} is already in {storage.redact(self.survey.url)}, from another or a changed file "
                f"or with other options: rename {storage.redact(plan.field.urls[0])} (`name`), or use a new output"
            )
        if plan.spectral is not None and self.survey.spectral is not None:
            try:
                note = self.survey.spectral.apart(plan.spectral)
            except InputError as error:
                raise InputError(f"{storage.redact(plan.field.urls[0])}: {error}") from error
            if note:
                self.notes.setdefault(note, []).append(plan.name)
        for kind, given in (
            ("variance", any(band.has_variance for band in plan.bands)),
            ("psf", self.options.psf_from_stars or any(band.psf for band in plan.bands)),
        ):
            if given and kind not in self.survey.array_names:
                raise InputError(
                    f"{storage.redact(self.survey.url)} was made without {kind}, {plan.name} has it: use a new output"
                )

    def _take(self, outcome: Any) -> None:
        names = outcome.item.names
        if outcome.error is None:
            self.pending += outcome.value
            self.skies.add(outcome.value)
            self.done += len(names)
            self.bytes += sum(info.bytes for info in outcome.value)
        elif isinstance(outcome.error, OSError):
            raise InputError(f"{storage.redact(self.survey.url)} cannot be written: {outcome.error}") from outcome.error
        elif isinstance(outcome.error, AstromlError):
            self.failed += [(name, storage.redact(str(outcome.error))) for name in names]
        else:
            raise outcome.error
        if self.progress is not None:
            self.progress("ingest", self.done + len(self.failed), self.known)
        if len(self.pending) >= COMMIT_TILES or time.monotonic() - self.committed_at > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        self.survey.commit(self.pending)
        self.pending = []
        self.committed_at = time.monotonic()

    def result(self, seconds: float) -> IngestResult:
        """Summary of the run."""
        counts = (self.done, self.skipped, self.done, self.bytes)
        warnings = (*(f"{and_more(images)}: {note}" for note, images in self.notes.items()), *self.skies.warnings())
        failed = tuple(self.failed)
        notes = (*self.skies.notes(), *([report.note(self.star_psfs)] if self.star_psfs else []))
        return IngestResult(self.survey.url, self.survey.kind, *counts, seconds, failed, warnings=warnings, notes=notes)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items (itertools.batched needs Python 3.12)."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _tasks(url: str, todo: Sequence[tuple[ImagePlan, list[TileGeometry], int]], first: int) -> Iterator[TileTask]:
    """One task per tile; several for an image that can only be read as a whole."""
    index = first
    for plan, tiles, total in todo:
        remaining = iter(tiles)
        while chosen := list(islice(remaining, _TILES_OF_WHOLE_FILE if plan.whole else 1)):
            yield TileTask(url, plan, tuple(zip(range(index, index + len(chosen)), chosen, strict=True)), total)
            index += len(chosen)


def auto_tile_size(plans: Sequence[ImagePlan], halo: int, most: int = TILE_SIZE) -> int:
    """Side that holds the largest image with its halo, in steps of 64; `most` when that is smaller."""
    side = max(max(plan.shape) for plan in plans) + 2 * halo
    return min(most, -(-side // 64) * 64)


def psf_shape_of(plans: Sequence[ImagePlan], tile_size: int, from_stars: bool) -> tuple[int, int, int, int] | None:
    """(cells, cells, y, x) of PSF images that hold those of all bands; None where there are none."""
    sizes = [cached_psf(band.psf).shape[-2:] for plan in plans for band in plan.bands if band.psf]
    largest = (max((size[0] for size in sizes), default=0), max((size[1] for size in sizes), default=0))
    if from_stars:
        return cells_shape(tile_size, largest)
    return (1, 1, *largest) if sizes else None
