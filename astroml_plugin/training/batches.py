"""From labelled sources to training batches: splits that cannot leak, and a shuffle that reads whole blocks.

Block shuffle: the blocks are permuted per epoch from (seed, epoch), a pool of them is decoded while the last one is
trained on, and batches are drawn at random within the pool. What fits in memory is decoded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.hashing import id_fractions
from astroml_plugin.core.settings import refuse_choices, to_mapping
from astroml_plugin.cutouts import Cutouts, band_index, from_stamps
from astroml_plugin.sky.duplicates import behind, pixel_hashes, place_groups
from astroml_plugin.sky.wcs import HEALPIX_ORDER, healpix29
from astroml_plugin.sources.stamps import Pixels, Stamps, open_source

SPLITS = ("train", "validation", "test")
_NOWHERE = len(SPLITS)
"""The side of an object that is in no split."""
_FOLD_SEED, _LIMIT_SEED = 1_000_003, 2_000_003
_REMEDY = "a leak: remove the repeats, or let leaks = 'drop' in [split] keep each on its first side"
_LEAKS = {
    "id": "{count} objects are in more than one split of column {column!r}, " + _REMEDY,
    "place": "{count} places on the sky have objects in more than one split (the same object under several ids), "
    + _REMEDY
    + ", or split by = 'sky'",
    "pixels": "{count} stamps have the very pixels of a stamp in another split, " + _REMEDY,
}


@dataclass(frozen=True)
class SplitSettings:
    """How objects are divided. The same object id is always on one side, in whatever source it is."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Of train, validation and test."""
    seed: int = 0
    """Another seed gives another division."""
    column: str = "split"
    """A label column with train, validation or test; it goes first where the data have one."""
    by: str = "object"
    """"object" hashes ids; "sky" hashes regions of the sky, so that neighbours, and whatever varies slowly over a
    survey, are on one side."""
    region_order: int = 6
    """HEALPix order of the regions: 6 is 0.9 degrees, each step up halves it."""
    folds: int = 0
    """Cross-validation: the test side is one of so many equal parts; the fraction of validation, relative to that of
    train, holds within the rest. 0: the fractions alone."""
    fold: int = 0
    """Which part is the test side, from 0."""
    limit: int = 0
    """Objects of the train side at most, and of validation in proportion: nested subsets. 0: all."""
    limit_seed: int = 0
    """Another seed draws other subsets."""
    leaks: str = "refuse"
    """What to do where one object (by id, place on the sky or pixels) is on two sides: "refuse"; "drop" keeps it on
    the first of train, validation, test only."""
    check_pixels: bool = True
    """Whether stamps are compared by their pixels, at the cost of reading every block once."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"by": ("object", "sky"), "leaks": ("refuse", "drop")}, "split")
        if self.folds and not (self.folds > 1 and 0 <= self.fold < self.folds):
            raise InputError(f"split folds ({self.folds}) must be 0 or 2 and more, and fold ({self.fold}) one of them")
        if self.limit < 0 or self.limit_seed < 0:
            raise InputError(f"split limit ({self.limit}) and limit_seed ({self.limit_seed}) must be 0 or more")
        if not 0 <= self.region_order <= 29:
            raise InputError(f"split region_order ({self.region_order}) is a HEALPix order of 0 to 29")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise InputError(f"split fractions must be 0 or more and sum to 1, not {list(self.fractions)}")


_FIRST_FIELDS = ("fractions", "seed", "column", "by", "region_order")


def split_record(settings: SplitSettings) -> dict[str, Any]:
    """Plain settings for cards and identities: those added later appear where they are not the default, so that what
    was made before they existed keeps its identity."""
    defaults = {item.name: item.default for item in fields(SplitSettings)}
    plain = to_mapping(settings)
    return {name: value for name, value in plain.items() if name in _FIRST_FIELDS or value != defaults[name]}


@dataclass(frozen=True)
class Batch:
    """Stamps and what to learn from them."""

    cutouts: Cutouts
    """n stamps, raw pixels."""
    targets: Tensor
    """(n, ...) from the task."""
    rows: np.ndarray
    """(n,) int64 numbers of the objects in `LabelledStamps.labels`."""


@dataclass(frozen=True)
class _Block:
    """One block of one source."""

    source: int
    index: int
    start: int
    stop: int


class LabelledStamps:
    """Several stamp sources as one numbered set of objects with labels.

    Raises:
        InputError: a survey, no object, or sources that differ in bands, size, pixels, PSF or variance.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise InputError("there are no training data: give one source of stamps or more")
        self.sources = tuple(_stamps(url) for url in urls)
        _refuse_differences(self.sources)
        tables = [source.labels() for source in self.sources]
        self.labels: pa.Table = pa.concat_tables(tables, promote_options="permissive")
        if self.labels.num_rows == 0:
            raise InputError(f"{', '.join(storage.redact(url) for url in urls)} has no object: ingest stamps first")
        self.blocks = tuple(self._number_blocks())

    def _number_blocks(self) -> Iterator[_Block]:
        first = 0
        for number, source in enumerate(self.sources):
            for unit in source.units():
                yield _Block(number, unit.index, first + unit.start, first + unit.stop)
            first += source.count

    @property
    def first(self) -> Stamps:
        """The first source: bands, size, dtype and PSF are alike in all."""
        return self.sources[0]

    @property
    def digest(self) -> str:
        """Identity of pixels and labels: of the blocks' checksums, wherever the stores lie."""
        return storage.digest([[unit.checksum for unit in source.units()] for source in self.sources])

    def read(self, block: _Block, rows: np.ndarray, bands: Sequence[str]) -> Cutouts:
        """The stamps of a block that are among `rows` (sorted), in order, on the CPU."""
        source = self.sources[block.source]
        image, variance, psf = source.read_block(block.index)
        chosen = np.ix_(_within(rows, block) - block.start, np.array(band_index(source.bands, bands)))
        return from_stamps(
            image[chosen],
            None if variance is None else variance[chosen],
            None if psf is None else psf[chosen],
            bands=bands,
            pixel_scale=source.pixel_scale,
        )

    def read_truth(self, block: _Block, rows: np.ndarray, layers: Sequence[str]) -> Tensor:
        """(n, layer, y, x) float16 truth of the pixels of the same stamps.

        Raises:
            InputError: the source has none, or lacks a layer.
        """
        source = self.sources[block.source]
        truth = source.read_truth(block.index)
        missing = [name for name in layers if name not in source.layers]
        if missing:
            raise InputError(f"the truth of {storage.redact(source.url)} lacks {missing}: it has {list(source.layers)}")
        chosen = np.ix_(_within(rows, block) - block.start, np.array([source.layers.index(name) for name in layers]))
        return torch.from_numpy(truth[chosen])

    def sample(self, rows: np.ndarray, count: int, seed: int) -> Cutouts:
        """At most `count` stamps drawn from `rows`, all bands, for what is measured before training."""
        chosen = np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))
        parts, first = [], 0
        for number, source in enumerate(self.sources):
            inside = chosen[(chosen >= first) & (chosen < first + source.count)] - first
            if len(inside):
                pixels = self.pixels(number, inside)
                parts.append(from_stamps(*pixels, bands=source.bands, pixel_scale=source.pixel_scale))
            first += source.count
        return joined(parts)

    def pixels(self, source: int, rows: np.ndarray) -> Pixels:
        """image, variance, psf (n, band, y, x) of some stamps of one source, by their numbers in it."""
        return self.sources[source].read_rows(rows)

    def split(self, settings: SplitSettings, usable: np.ndarray) -> dict[str, np.ndarray]:
        """Split name -> sorted row numbers of the usable objects (n,) bool.

        Raises:
            InputError: the split column has other words, regions are asked of objects without positions, or (unless
                leaks are dropped) one object is on two sides: by its id within a source, by its place on the sky, or
                by its pixels.
        """
        side = np.where(usable, self._sides(settings), _NOWHERE)
        side = self._without_leaks(side, settings)
        rows = {name: np.flatnonzero(side == number) for number, name in enumerate(SPLITS)}
        return self._limited(rows, settings)

    def split_identity(self, rows: dict[str, np.ndarray]) -> dict[str, str]:
        """Split name -> hex SHA-256 of its object ids, sorted: what a card keeps to tell one division from another."""
        ids = self._ids().astype("<i8")
        return {name: hashlib.sha256(np.sort(ids[chosen]).tobytes()).hexdigest() for name, chosen in rows.items()}

    def _sides(self, settings: SplitSettings) -> np.ndarray:
        """(n,) number of the split of every object."""
        if settings.column in self.labels.column_names:
            if settings.folds:
                raise InputError(
                    f"label column {settings.column!r} divides the data already: for folds, name another split column "
                    f'(column = "" for none)'
                )
            return self._side_from_column(settings.column)
        keys = self._ids() if settings.by == "object" else self._regions(settings.region_order)
        place = id_fractions(keys, settings.seed)
        if not settings.folds:
            return np.searchsorted(np.cumsum(settings.fractions)[:2], place, side="right")
        train, validation, _ = settings.fractions
        again = id_fractions(keys, _FOLD_SEED * (settings.seed + 1) + settings.fold)
        inner = (again < validation / max(train + validation, 1e-12)).astype(np.int64)
        return np.where((place * settings.folds).astype(np.int64) == settings.fold, SPLITS.index("test"), inner)

    def _limited(self, rows: dict[str, np.ndarray], settings: SplitSettings) -> dict[str, np.ndarray]:
        """The nested subset of train and validation that the settings ask for."""
        count = len(rows["train"])
        if not settings.limit:
            return rows
        if settings.limit > count:
            raise InputError(f"split limit ({settings.limit}) is more than the {count} objects of the train split")
        wanted = {"train": settings.limit, "validation": -(-settings.limit * len(rows["validation"]) // count)}
        ids = self._ids()
        for name, number in wanted.items():
            order = np.argsort(id_fractions(ids[rows[name]], _LIMIT_SEED + settings.limit_seed), kind="stable")
            rows = {**rows, name: np.sort(rows[name][order[:number]])}
        return rows

    def _ids(self) -> np.ndarray:
        return self.labels["object_id"].to_numpy()

    @property
    def positions(self) -> np.ndarray:
        """(n, 2) float64 ra and dec in degrees, NaN where unknown."""
        columns = [self.labels[name].cast(pa.float64()).to_numpy() for name in ("ra", "dec")]
        return np.stack(columns, axis=1)

    def _regions(self, order: int) -> np.ndarray:
        """(n,) int64 HEALPix cells."""
        position = self.positions
        unknown = int((~np.isfinite(position)).any(1).sum())
        if unknown:
            raise InputError(
                f"{unknown} of {len(position)} objects have no ra and dec: split them by = 'object', not by sky region"
            )
        return healpix29(position[:, 0], position[:, 1]) >> 2 * (HEALPIX_ORDER - order)

    def _without_leaks(self, side: np.ndarray, settings: SplitSettings) -> np.ndarray:
        """`side`, with repeats of an object on a later side sent nowhere, or refused."""
        for what, rows, groups in self._repeats(side, settings):
            late = np.zeros(len(rows), bool)
            most = 0
            for group in groups:
                found, count = behind(group, side[rows])
                late, most = late | found, max(most, count)
            if most and settings.leaks == "refuse":
                raise InputError(_LEAKS[what].format(count=most, column=settings.column))
            side[rows[late]] = _NOWHERE
        return side

    def _repeats(
        self, side: np.ndarray, settings: SplitSettings
    ) -> Iterator[tuple[str, np.ndarray, tuple[np.ndarray, ...]]]:
        """What tells objects apart, the rows that are in a split and have it, and its group numbers for them."""
        rows = np.flatnonzero(side != _NOWHERE)
        if settings.column in self.labels.column_names:
            source = np.repeat(np.arange(len(self.sources)), [source.count for source in self.sources])
            keys = np.stack([source[rows], self._ids()[rows]])
            yield "id", rows, (np.unique(keys, axis=1, return_inverse=True)[1].ravel(),)
        position = self.positions
        rows = np.flatnonzero((side != _NOWHERE) & np.isfinite(position).all(1))
        if len(rows):
            yield "place", rows, place_groups(position[rows])
        if settings.check_pixels:
            hashes = self.pixel_hashes
            rows = np.flatnonzero((side != _NOWHERE) & (hashes != 0))
            yield "pixels", rows, (hashes[rows],)

    @cached_property
    def pixel_hashes(self) -> np.ndarray:
        """(n,) uint64 of every stamp's stored pixels, 0 where they are constant; whole blocks are read once."""
        with ThreadPoolExecutor(2, "hash") as pool:
            found = list(pool.map(self._hashed, self.blocks))
        return np.concatenate(found)

    def _hashed(self, block: _Block) -> np.ndarray:
        return pixel_hashes(self.sources[block.source].read_images(block.index))

    def _side_from_column(self, column: str) -> np.ndarray:
        words = np.array([{"val": "validation"}.get(word, word) for word in self.labels[column].to_pylist()], object)
        unknown = ~np.isin(words, np.array(SPLITS, object))
        if unknown.any():
            raise InputError(
                f"label column {column!r} has {int(unknown.sum())} values other than {', '.join(SPLITS)}, "
                f"such as {words[unknown][0]!r}: correct them or name another split column"
            )
        return np.array([SPLITS.index(word) for word in words])


def _stamps(url: str) -> Stamps:
    source = open_source(url)
    if not isinstance(source, Stamps):
        raise InputError(
            f"{storage.redact(url)} is a survey, and training reads stamps: "
            f"ingest or simulate labelled stamps of the same bands and pixel scale"
        )
    return source


def _refuse_differences(sources: Sequence[Stamps]) -> None:
    for name in ("bands", "size", "dtype", "has_psf", "has_variance", "pixel_scale", "layers"):
        values = [getattr(source, name) for source in sources]
        if any(value != values[0] for value in values):
            told = ", ".join(str(value) for value in values)
            raise InputError(f"the training sources differ in {name} ({told}): train on sources that agree")


def _within(rows: np.ndarray, block: _Block) -> np.ndarray:
    """Those of the sorted `rows` that lie in the block."""
    return rows[np.searchsorted(rows, block.start) : np.searchsorted(rows, block.stop)]


def joined(parts: Sequence[Cutouts]) -> Cutouts:
    """Several Cutouts of the same bands as one."""
    if len(parts) == 1:
        return parts[0]
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("image", "variance", "valid", "psf", "jacobian", "flags")
        if getattr(parts[0], name) is not None
    }
    return replace(parts[0], **tensors)


@dataclass(frozen=True)
class _Pool:
    """Decoded stamps of some blocks."""

    stamps: Cutouts
    rows: np.ndarray
    """(n,) sorted."""
    truth: Tensor | None
    """(n, layer, y, x) float16 where pixels are learned."""


class BlockStream:
    """Batches of some objects of a `LabelledStamps`, shuffled per epoch or in order.

    Args:
        data: the objects.
        rows: (n,) which of them.
        targets: (n, ...) what to learn, one for each of `rows`.
        bands: bands to read.
        batch_size: stamps per batch; batches of a pool differ by one at most, so that none is tiny.
        seed: with the epoch's number it sets the order.
        memory: bytes of decoded stamps to hold; two pools fit in it, or everything, once.
        layers: of the stamps' truth of pixels: they are then the targets, (n, layer, y, x).
    """

    def __init__(
        self,
        data: LabelledStamps,
        rows: np.ndarray,
        targets: Tensor,
        *,
        bands: Sequence[str],
        batch_size: int = 128,
        seed: int = 0,
        memory: float = 2e9,
        layers: Sequence[str] = (),
    ) -> None:
        order = np.argsort(rows, kind="stable")
        self.rows, self.targets = rows[order], targets[torch.from_numpy(order)]
        self.data, self.bands = data, tuple(bands)
        self.batch_size, self.seed, self.memory, self.layers = batch_size, seed, memory, tuple(layers)
        self._blocks = [block for block in data.blocks if len(_within(self.rows, block))]
        self._whole: _Pool | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Every object once, in an order that depends on (seed, number) only."""
        random = np.random.default_rng([self.seed, number])
        order = [self._blocks[index] for index in random.permutation(len(self._blocks))]
        for pool in self._pools(order):
            yield from self._batches(pool, random.permutation(len(pool.rows)))

    def ordered(self) -> Iterator[Batch]:
        """Every object once, in row order."""
        for pool in self._pools(self._blocks):
            yield from self._batches(pool, np.arange(len(pool.rows)))

    def _batches(self, pool: _Pool, order: np.ndarray) -> Iterator[Batch]:
        places = torch.from_numpy(np.searchsorted(self.rows, pool.rows))
        for part in np.array_split(order, max(1, -(-len(order) // self.batch_size))):
            index = torch.from_numpy(part)
            targets = self.targets[places[index]] if pool.truth is None else pool.truth[index]
            yield Batch(pool.stamps.take(index), targets, pool.rows[part])

    def _pools(self, order: Sequence[_Block]) -> Iterator[_Pool]:
        """Pools of stamps with their rows; the next one is decoded while the last is in use."""
        if self._stamp_bytes() * len(self.rows) <= self.memory:
            if self._whole is None:
                self._whole = self._load(self._blocks)
            yield self._whole
            return
        groups = self._grouped(order)
        with ThreadPoolExecutor(1, "decode") as decoder:
            ahead = decoder.submit(self._load, groups[0])
            for following in [*groups[1:], None]:
                pool = ahead.result()
                if following is not None:
                    ahead = decoder.submit(self._load, following)
                yield pool

    def _grouped(self, order: Sequence[_Block]) -> list[list[_Block]]:
        """Consecutive blocks whose stamps fill half of the memory."""
        groups: list[list[_Block]] = [[]]
        filled = 0.0
        for block in order:
            size = self._stamp_bytes() * len(_within(self.rows, block))
            if groups[-1] and filled + size > self.memory / 2:
                groups.append([])
                filled = 0.0
            groups[-1].append(block)
            filled += size
        return groups

    def _load(self, blocks: Sequence[_Block]) -> _Pool:
        stamps = joined([self.data.read(block, self.rows, self.bands) for block in blocks])
        truth = [self.data.read_truth(block, self.rows, self.layers) for block in blocks] if self.layers else []
        rows = np.concatenate([_within(self.rows, block) for block in blocks])
        return _Pool(stamps, rows, torch.cat(truth) if truth else None)

    def _stamp_bytes(self) -> int:
        """Bytes of one decoded stamp: pixels, validity, variance."""
        source = self.data.first
        per_pixel = source.dtype.itemsize + 1 + 4 * source.has_variance
        return source.size[0] * source.size[1] * (len(self.bands) * per_pixel + 2 * len(self.layers))
