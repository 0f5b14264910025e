"""LabelledStamps: several stamp sources as one numbered set of objects with labels, read block by block."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.cutting.viewing import open_stamps
from astroml_plugin.pixels import band_index
from astroml_plugin.sky.duplicates import digests_of, ordered_centres, pixel_hashes
from astroml_plugin.sky.likeness import likeness
from astroml_plugin.sources.labels import GENERATED, joined_tables
from astroml_plugin.sources.stamps import Pixels, Stamps
from astroml_plugin.training.domains import with_domain
from astroml_plugin.training.known_objects import FILE, KnownObjects
from astroml_plugin.training.splits import SplitSettings, divide, without_learned


@dataclass(frozen=True)
class Block:
    """One block of one source."""

    source: int
    """Number of the source."""
    index: int
    """Number of the block in its source."""
    start: int
    """First row number of its objects, over all sources."""
    stop: int
    """Row number behind its last object."""

    def members(self, rows: np.ndarray) -> np.ndarray:
        """Sorted row numbers of the block among sorted row numbers (n,)."""
        return rows[np.searchsorted(rows, self.start) : np.searchsorted(rows, self.stop)]


TRAINING = "training"
"""Name of sources whose recipe may choose what differs."""


class LabelledStamps:
    """Several stamp sources as one numbered set of objects with labels.

    Args:
        urls: of the sources.
        called: what the sources are, for messages.

    Raises:
        InputError: a survey, no object, or sources that differ in bands, size, pixels, PSF or variance.
    """

    def __init__(self, urls: Place | Sequence[Place], called: str = TRAINING) -> None:
        urls = texts(urls)
        if not urls:
            raise InputError("there are no training data: give one source of stamps or more")
        self.sources = tuple(_stamps(url) for url in urls)
        _refuse_differences(self.sources, called)
        tables = with_domain([source.labels() for source in self.sources], [source.url for source in self.sources])
        self.labels: pa.Table = joined_tables(tables)
        if self.labels.num_rows == 0:
            raise InputError(f"{', '.join(storage.redact(url) for url in urls)} has no object: ingest stamps first")
        self.blocks = tuple(self._number_blocks())
        self._centres: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}

    def _number_blocks(self) -> Iterator[Block]:
        first = 0
        for number, source in enumerate(self.sources):
            for unit in source.units():
                yield Block(number, unit.index, first + unit.start, first + unit.stop)
            first += source.count

    @property
    def first(self) -> Stamps:
        """The first source: bands, size, dtype and PSF are alike in all."""
        return self.sources[0]

    @property
    def digest(self) -> str:
        """Identity of pixels, their units and labels: of checksums and zero points, wherever the stores lie."""
        checksums = [[unit.checksum for unit in source.units()] for source in self.sources]
        units = [list(source.zero_points) for source in self.sources]
        known = any(zero is not None for zeros in units for zero in zeros)
        return storage.digest(checksums, units) if known else storage.digest(checksums)

    def sources_record(self) -> list[dict[str, Any]]:
        """Names, ids and objects of the sources for a card; last names only, since paths mean nothing elsewhere."""
        return [{"name": _name(one.url), "id": one.id, "objects": one.count} for one in self.sources]

    def read(self, block: Block, rows: np.ndarray, bands: Sequence[str]) -> Cutouts:
        """The stamps of a block that are among `rows` (sorted), in order, on the CPU."""
        source = self.sources[block.source]
        image, variance, psf = source.read_block(block.index)
        mask = source.read_mask(block.index)
        chosen = np.ix_(block.members(rows) - block.start, np.array(band_index(source.bands, bands)))
        return from_stamps(
            image[chosen],
            None if variance is None else variance[chosen],
            None if psf is None else psf[chosen],
            bands=bands,
            pixel_scale=source.pixel_scale,
            zero_points=[source.zero_points[place] for place in band_index(source.bands, bands)],
        ).masked(None if mask is None else mask[chosen])

    def read_truth(self, block: Block, rows: np.ndarray, layers: Sequence[str]) -> Tensor:
        """(n, layer, y, x) float16 truth of the pixels of the same stamps.

        Raises:
            InputError: the source has none, or lacks a layer.
        """
        source = self.sources[block.source]
        truth = source.read_truth(block.index)
        missing = [name for name in layers if name not in source.layers]
        if missing:
            raise InputError(f"the truth of {storage.redact(source.url)} lacks {missing}: it has {list(source.layers)}")
        chosen = np.ix_(block.members(rows) - block.start, np.array([source.layers.index(name) for name in layers]))
        return torch.from_numpy(truth[chosen])

    def sample(self, rows: np.ndarray, count: int, seed: int) -> Cutouts:
        """At most `count` stamps drawn from `rows`, all bands, for what is measured before training."""
        chosen = np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))
        parts, first = [], 0
        for number, source in enumerate(self.sources):
            inside = chosen[(chosen >= first) & (chosen < first + source.count)] - first
            if len(inside):
                pixels, mask = self.pixels(number, inside), self.masks(number, inside)
                unit = source.zero_points
                stamps = from_stamps(*pixels, bands=source.bands, pixel_scale=source.pixel_scale, zero_points=unit)
                parts.append(stamps.masked(mask))
            first += source.count
        return Cutouts.concatenate(parts)

    def pixels(self, source: int, rows: np.ndarray) -> Pixels:
        """image, variance, psf (n, band, y, x) of some stamps of one source, by their numbers in it."""
        return self.sources[source].read_rows(rows)

    def masks(self, source: int, rows: np.ndarray) -> np.ndarray | None:
        """Masks (n, band, y, x) uint32 of the same stamps; None where the source has none."""
        return self.sources[source].read_masks(rows)

    def split(self, settings: SplitSettings, usable: np.ndarray) -> dict[str, np.ndarray]:
        """Split name -> sorted row numbers of the usable objects, (n,) bool; see `splits.divide`.

        What the generators of drawn stamps learned from is of no validation or test split either.

        Raises:
            InputError: it is, and `leaks` is "refuse".
        """
        rows = divide(self, settings, usable)
        if self.behind_drawn is None:
            return rows
        bands = self.first.bands
        known = self.behind_drawn.holds(self.centre_digests(bands), self.positions, self.likeness(bands))
        return without_learned(rows, known, settings, "the generator of the drawn stamps")

    @cached_property
    def behind_drawn(self) -> KnownObjects | None:
        """The record of objects that generators of drawn stamps learned from; None where no source has one."""
        files = [storage.join(source.url, FILE) for source in self.sources if GENERATED in source.columns]
        records = [KnownObjects.from_bytes(storage.read_bytes(file), file) for file in files if storage.exists(file)]
        return functools.reduce(KnownObjects.joined, records) if records else None

    def split_identity(self, rows: dict[str, np.ndarray]) -> dict[str, str]:
        """Split name -> hex SHA-256 of its object ids, sorted: what a card keeps to tell one division from another."""
        ids = self.labels["object_id"].to_numpy().astype("<i8")
        return {name: hashlib.sha256(np.sort(ids[chosen]).tobytes()).hexdigest() for name, chosen in rows.items()}

    @property
    def source_numbers(self) -> np.ndarray:
        """(n,) number of every object's source."""
        return np.repeat(np.arange(len(self.sources)), [source.count for source in self.sources])

    @property
    def positions(self) -> np.ndarray:
        """(n, 2) float64 ra and dec in degrees, NaN where unknown."""
        columns = [self.labels[name].cast(pa.float64()).to_numpy() for name in ("ra", "dec")]
        return np.stack(columns, axis=1)

    @cached_property
    def pixel_hashes(self) -> np.ndarray:
        """(n,) uint64 of every stamp's stored pixels, 0 where they are constant; whole blocks are read once."""
        with ThreadPoolExecutor(2, "hash") as pool:
            found = list(pool.map(self._hashed, self.blocks))
        return np.concatenate(found)

    def _hashed(self, block: Block) -> np.ndarray:
        return pixel_hashes(self.sources[block.source].read_images(block.index))

    def centre_digests(self, bands: Sequence[str]) -> np.ndarray:
        """(n,) uint64 of the pixels about every stamp's centre in some bands, 0 where they are constant.

        Whole blocks are read once; they tell an object from others in whatever store (`sky.duplicates`).
        """
        return self._centre_marks(bands)[0]

    def likeness(self, bands: Sequence[str]) -> np.ndarray:
        """(n, k) float32 of every stamp's centre in some bands, whatever its unit and sky level (`sky.likeness`)."""
        return self._centre_marks(bands)[1]

    def _centre_marks(self, bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        def marks(block: Block) -> tuple[np.ndarray, np.ndarray]:
            source = self.sources[block.source]
            values = ordered_centres(source.read_images(block.index)[:, band_index(source.bands, bands)])
            return digests_of(values), likeness(values)

        key = tuple(bands)
        if key not in self._centres:
            with ThreadPoolExecutor(2, "hash") as pool:
                digests, samples = zip(*pool.map(marks, self.blocks), strict=True)
            self._centres[key] = np.concatenate(digests), np.concatenate(samples)
        return self._centres[key]


def _name(url: str) -> str:
    """Last name of a path; of stamps that `simulate` made, which are all called alike, with the folder's before it."""
    *_, folder, name = ["", *storage.redact(url).rstrip("/").split("/")]
    return f"{folder}/{name}" if folder and name == "stamps.zarr" else name


def _stamps(url: str) -> Stamps:
    source = open_stamps(url)
    if not isinstance(source, Stamps):
        raise InputError(
            f"{storage.redact(url)} is a survey: give the labels of its objects (`train --labels TABLE`), a view "
            f"(`cutouts --out NAME.view`), or stamps"
        )
    return source


def _refuse_differences(sources: Sequence[Stamps], called: str) -> None:
    first = sources[0]
    for name, remedy in _ALIKE.items():
        values = [getattr(source, name) for source in sources]
        alike = [value == values[0] for value in values]
        if name == "pixel_scale" and None not in values:
            alike = [abs(value / first.pixel_scale - 1) < _SAME_SCALE for value in values]
        if not all(alike):
            told, remedy = ", ".join(str(value) for value in values), remedy.format(common=_common(sources))
            remedy = remedy if called == TRAINING else "give sources that agree"
            raise InputError(f"the {called} sources differ in {name} ({told}): {remedy}")


def _common(sources: Sequence[Stamps]) -> str:
    """The bands that all sources have, as a recipe says them."""
    shared = [band for band in sources[0].bands if all(band in source.bands for source in sources)]
    return ", ".join(f'"{band}"' for band in shared)


_SAME_SCALE = 5e-3
"""Relative difference of pixel scales that do not matter."""

_ALIKE = {
    "bands": "train on sources that agree; of surveys, the recipe chooses: bands = [{common}] in [settings]",
    "size": "train on sources that agree; of surveys, `--size` or stamp_size in [settings] chooses",
    "dtype": "train on sources that agree; pictures of 8 bits and measured pixels do not go together",
    "has_psf": "train on sources that agree, or ingest with PSFs (`--psf-from-stars` measures them)",
    "has_variance": "train on sources that agree, or ingest with variances",
    "pixel_scale": "train on each scale apart (`infer` resamples for a bundle of another scale), or ingest resampled "
    "images",
    "layers": "train on sources that agree",
}
"""Attributes that the sources of a training have in common -> what to do where they do not."""
