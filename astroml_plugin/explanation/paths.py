"""Integrated gradients (Sundararajan et al. 2017, ICML): attributions that add up to what the network says.

The gradient is integrated along the straight line from a baseline to the stamp. How much the number really changes
between two places of the line is known, as the network was asked there. So the error of each piece of the integral is
known too: the worst pieces are halved until the sum is right, and objects whose line is simple need few looks.

Networks of rectifiers have kinks: between two looks the gradient jumps from one value to another. The two are weighted
so that the piece adds up, if weights from 0 to 1 can do it, which is exact for one jump. What is left is the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.explanation.attribution import Attribution, completeness_error
from astroml_plugin.explanation.target import BATCH, Seen, Target, gradients

_PIECES = 16
"""Pieces that a line is first divided into."""
_HALVED = 8
"""Pieces of a line that are halved in one round, at most."""
_ROUGH = 0.05
"""Part of the sizes of all pieces up to which equal weights of their two ends may be off: beyond, more looks tell."""
_SHORTEST = 1e-4
"""Part of a line below which a piece is not halved: the number jumps there."""
_HELD = 2**27
"""Bytes of gradients that are held at once."""


@dataclass(frozen=True)
class PathOptions:
    """How exact an integral must be."""

    tolerance: float = 1e-3
    """Error of the sum, as a part of the difference from the baseline."""
    most: int = 50
    """Looks at an object, at most."""
    batch: int = BATCH
    """Stamps that go through the network at once."""

    def __post_init__(self) -> None:
        least = _PIECES + 1
        if not 0 < self.tolerance < 1 or self.most < least or self.batch < 1:
            raise InputError(
                f"integrated gradients need a tolerance ({self.tolerance}) between 0 and 1, {least} forwards or more "
                f"({self.most}) and batches of 1 or more ({self.batch})"
            )


def integrated_gradients(target: Target, seen: Seen, baseline: Tensor, how: PathOptions | None = None) -> Attribution:
    """Attributions of n stamps along the lines from their baselines.

    Args:
        target: what is explained.
        seen: the stamps.
        baseline: (n, channel, h, w).
        how: exactness.

    Raises:
        InputError: the network passes no gradient.
    """
    how = how or PathOptions()
    each = (how.most + 1) * seen.image[:1].numel() * seen.image.element_size()
    count = max(1, min(len(seen), _HELD // each))
    starts = range(0, len(seen), count)
    return Attribution.joined([_some(target, seen, baseline, slice(start, start + count), how) for start in starts])


def _some(target: Target, seen: Seen, baseline: Tensor, part: slice, how: PathOptions) -> Attribution:
    lines = _Lines(target, seen.take(part), baseline[part], how)
    lines.begin()
    while lines.refine():
        pass
    return lines.attribution()


class _Lines:
    """Integrals along n lines, each a chain of pieces between the places where the network was asked."""

    def __init__(self, target: Target, seen: Seen, baseline: Tensor, how: PathOptions) -> None:
        self.target, self.seen, self.baseline, self.how = target, seen, baseline, how
        self.step = seen.image - baseline
        count = len(seen)
        self.where = np.full((count, how.most), np.inf)
        self.value, self.slope = np.zeros((count, how.most)), np.zeros((count, how.most))
        self.gradient = torch.zeros((count, how.most, *seen.image.shape[1:]), device=seen.image.device)
        self.used = np.zeros(count, np.int64)

    def begin(self) -> None:
        """Look at evenly spaced places."""
        places = np.arange(_PIECES + 1)
        rows = np.repeat(np.arange(len(self.seen)), len(places))
        self._look(rows, np.tile(places, len(self.seen)) / _PIECES)

    def refine(self) -> bool:
        """Halve the worst pieces of lines that are not right yet; False where nothing is left to be done."""
        pieces = self._pieces()
        off = np.abs(pieces.error.sum(1)) > self.how.tolerance * np.abs(self._difference())
        rough = np.abs(pieces.rough).sum(1) > _ROUGH * pieces.size.sum(1)
        room = self.how.most - self.used
        rows, where = [], []
        for row in np.flatnonzero((off | rough) & (room > 0)):
            size = np.abs(pieces.error[row]) + np.abs(pieces.rough[row])
            worst = np.argsort(-size, kind="stable")[: min(_HALVED, room[row])]
            worst = worst[(size[worst] > 0) & (pieces.length[row, worst] > _SHORTEST)]
            rows += [row] * len(worst)
            where += (pieces.first[row, worst] + pieces.length[row, worst] / 2).tolist()
        if rows:
            self._look(np.array(rows), np.array(where))
        return bool(rows)

    def _look(self, rows: I64, where: F64) -> None:
        """Number, gradient and slope along the line at places of some lines, whose rows are in order."""
        begins = np.searchsorted(rows, rows)
        slots = self.used[rows] + np.arange(len(rows)) - begins
        self.where[rows, slots] = where
        self.used += np.bincount(rows, minlength=len(self.seen))
        for start in range(0, len(rows), self.how.batch):
            part = slice(start, start + self.how.batch)
            row = torch.from_numpy(rows[part]).to(self.step.device)
            along = torch.from_numpy(where[part]).to(self.step)
            step = self.step[row]
            image = torch.addcmul(self.baseline[row], step, along[:, None, None, None])
            image = image.contiguous(memory_format=torch.channels_last)
            value, gradient = gradients(self.target, image, *self.seen.given(row))
            self.gradient[row, torch.from_numpy(slots[part]).to(row.device)] = gradient
            slope = (gradient * step).flatten(1).sum(1, dtype=torch.float64)
            self.value[rows[part], slots[part]] = value.double().cpu().numpy()
            self.slope[rows[part], slots[part]] = slope.cpu().numpy()

    def _difference(self) -> F64:
        """(n,) of the number between the ends."""
        difference: F64 = self.value[:, _PIECES] - self.value[:, 0]
        return difference

    def _pieces(self) -> _Pieces:
        """All pieces as they are now."""
        used = int(self.used.max(initial=1))
        order = np.argsort(self.where[:, :used], axis=1, kind="stable")
        where, value, slope = (
            np.take_along_axis(one[:, :used], order, 1) for one in (self.where, self.value, self.slope)
        )
        there = np.isfinite(where[:, 1:])
        where = np.where(np.isfinite(where), where, 1.0)
        length = np.where(there, where[:, 1:] - where[:, :-1], 0.0)
        change = np.where(there, value[:, 1:] - value[:, :-1], 0.0)
        before, after = slope[:, :-1], slope[:, 1:]
        jump = after - before
        part = np.divide(
            change / np.where(there, length, 1.0) - before, jump, out=np.full_like(jump, 0.5), where=jump != 0
        )
        part = np.clip(part, 0.0, 1.0)
        error = length * (before + part * jump) - change
        even = length * (before + after) / 2
        return _Pieces(order, where[:, :-1], length, part, error, even - change, np.abs(even))

    def attribution(self) -> Attribution:
        """The integral of the gradient, times the step from the baseline."""
        pieces = self._pieces()
        weight: F64 = np.zeros(pieces.order.shape)
        np.put_along_axis(weight, pieces.order[:, :-1], pieces.length * (1 - pieces.part), 1)
        later: F64 = np.zeros_like(weight)
        np.put_along_axis(later, pieces.order[:, 1:], pieces.length * pieces.part, 1)
        weights: F64 = weight + later
        factors = torch.from_numpy(weights).to(self.step)[:, None]
        held = self.gradient[:, : factors.shape[2]].flatten(2)
        maps = torch.bmm(factors, held).reshape(self.step.shape) * self.step
        value, reference = (torch.from_numpy(self.value[:, place]).to(self.step) for place in (_PIECES, 0))
        error = completeness_error(maps, torch.from_numpy(self._difference()).to(maps.device))
        looks = torch.from_numpy(self.used).to(maps.device)
        return Attribution(maps, value, reference, error, looks)


@dataclass(frozen=True)
class _Pieces:
    """Pieces of n lines, (n, pieces) each, in order along the line; those that a line has not are of length 0."""

    order: I64
    """(n, pieces + 1) slot of each place."""
    first: F64
    """Where a piece begins."""
    length: F64
    part: F64
    """Weight of the gradient at the end of a piece; the rest is that of its beginning."""
    error: F64
    """Integral less the change of the number."""
    rough: F64
    """Integral with equal weights less the change of the number."""
    size: F64
    """Absolute integral with equal weights."""


def over_draws(parts: list[Attribution]) -> Attribution:
    """The mean over several baselines of the same objects."""
    maps = torch.stack([part.maps for part in parts]).mean(0)
    reference = torch.stack([part.reference for part in parts]).mean(0)
    value = parts[0].value
    looks = torch.stack([part.forwards for part in parts]).sum(0)
    return Attribution(maps, value, reference, completeness_error(maps, value - reference), looks)
