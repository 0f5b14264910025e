"""Batches of labelled stamps, shuffled block by block.

Block shuffle: the blocks are permuted per epoch from (seed, epoch), a pool of them is decoded while the last one is
trained on, and batches are drawn at random within the pool. What fits in memory is decoded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.typing import F64
from astroml_plugin.cutouts import Cutouts, recentred
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.scale import to_scale
from astroml_plugin.training.labelled import Block, LabelledStamps
from astroml_plugin.training.sampling import Draws


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
class StemBatch:
    """Features that a network's fixed first layer gives, and what to learn from them."""

    inputs: tuple[Tensor, ...]
    """One (n, features)."""
    targets: Tensor
    """(n, ...) from the task."""
    rows: np.ndarray
    """(n,) int64 numbers of the objects."""


class Batches(Protocol):
    """Data of one split, as `fit` reads them; `StampBatches` and `StemCache` are such."""

    def __len__(self) -> int:
        """Objects."""

    def epoch(self, number: int) -> Iterator[Batch | StemBatch]:
        """Shuffled batches of one epoch."""

    def ordered(self) -> Iterator[Batch | StemBatch]:
        """All batches in row order, alike every time."""


@dataclass(frozen=True)
class _Pool:
    """Decoded stamps of some blocks."""

    stamps: Cutouts
    rows: np.ndarray
    """(n,) sorted."""
    truth: Tensor | None
    """(n, layer, y, x) float16 where pixels are learned."""


class StampBatches:
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
        expected: (n,) draws per epoch to expect of each of `rows` (`sampling`); None: each is drawn once.
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
        expected: F64 | None = None,
    ) -> None:
        order = np.argsort(rows, kind="stable")
        self.expected = None if expected is None else expected[order]
        self.rows, self.targets = rows[order], targets[torch.from_numpy(order)]
        self.data, self.bands = data, tuple(bands)
        self.batch_size, self.seed, self.memory, self.layers = batch_size, seed, memory, tuple(layers)
        self._blocks = [block for block in data.blocks if len(block.members(self.rows))]
        self._whole: _Pool | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Every object once, or as often as `expected`, in an order that depends on (seed, number) only."""
        random = np.random.default_rng([self.seed, number])
        order = [self._blocks[index] for index in random.permutation(len(self._blocks))]
        draws = None if self.expected is None else Draws(self.expected, random)
        for pool in self._pools(order):
            if draws is None:
                yield from self._batches(pool, random.permutation(len(pool.rows)))
            else:
                yield from self._batches(pool, draws.of(np.searchsorted(self.rows, pool.rows)))

    def ordered(self) -> Iterator[Batch]:
        """Every object once, in row order."""
        for pool in self._pools(self._blocks):
            yield from self._batches(pool, np.arange(len(pool.rows)))

    def _batches(self, pool: _Pool, order: np.ndarray) -> Iterator[Batch]:
        places = torch.from_numpy(np.searchsorted(self.rows, pool.rows))
        for part in np.array_split(order, -(-len(order) // self.batch_size)) if len(order) else ():
            index = torch.from_numpy(part)
            targets = self.targets[places[index]] if pool.truth is None else pool.truth[index]
            yield Batch(pool.stamps.take(index), targets, pool.rows[part])

    def _pools(self, order: Sequence[Block]) -> Iterator[_Pool]:
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

    def _grouped(self, order: Sequence[Block]) -> list[list[Block]]:
        """Consecutive blocks whose stamps fill half of the memory."""
        groups: list[list[Block]] = [[]]
        filled = 0.0
        for block in order:
            size = self._stamp_bytes() * len(block.members(self.rows))
            if groups[-1] and filled + size > self.memory / 2:
                groups.append([])
                filled = 0.0
            groups[-1].append(block)
            filled += size
        return groups

    def _load(self, blocks: Sequence[Block]) -> _Pool:
        stamps = Cutouts.concatenate([self.data.read(block, self.rows, self.bands) for block in blocks])
        truth = [self.data.read_truth(block, self.rows, self.layers) for block in blocks] if self.layers else []
        rows = np.concatenate([block.members(self.rows) for block in blocks])
        return _Pool(stamps, rows, torch.cat(truth) if truth else None)

    def _stamp_bytes(self) -> int:
        """Bytes of one decoded stamp: pixels, validity, variance."""
        source = self.data.first
        per_pixel = source.dtype.itemsize + 1 + 4 * source.has_variance
        return int(source.size[0] * source.size[1] * (len(self.bands) * per_pixel + 2 * len(self.layers)))


def at_scale(batches: Iterator[Batch], task: Task) -> Iterator[Batch]:
    """Batches whose stamps have the pixels that a bundle's task knows, as in `infer`; not where pixels are learned."""
    for batch in batches:
        yield batch if task.layers else replace(batch, cutouts=to_scale(task.settings, batch.cutouts))


@dataclass(frozen=True)
class CentredBatches:
    """Batches whose stamps are scaled and centred as `infer` does it; training takes stamps as they are."""

    batches: StampBatches
    """Batches of stamps as they are stored."""
    task: Task
    """The bundle's task."""

    def __len__(self) -> int:
        """Objects."""
        return len(self.batches)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Shuffled batches of one epoch."""
        return self._centred(self.batches.epoch(number))

    def ordered(self) -> Iterator[Batch]:
        """All batches in row order."""
        return self._centred(self.batches.ordered())

    def _centred(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in at_scale(batches, self.task):
            yield replace(batch, cutouts=recentred(batch.cutouts, self.task.settings.centring)[0])
