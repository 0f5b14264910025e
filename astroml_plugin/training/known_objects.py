"""Objects that a bundle was trained on, recognised in whatever store they come again: digests beside the card.

An object is known again by the pixels of its centre, or by its place on the sky. Formats, chunks, order, ids, a flip
and the size of the stamps do not matter; nor do, in float images with noise, the unit, the sky level and the precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.hashing import mixed
from astroml_plugin.core.typing import F32, F64, I64, U64, Array, Bool
from astroml_plugin.sky.duplicates import place_cells
from astroml_plugin.sky.likeness import alike

FILE = "training_objects.safetensors"
"""Name of the record in the folder of a bundle."""

KEPT = 100_000
"""Objects that a record names at most. Of more it names those with the smallest digests, and says their part."""

_LIKENESS = "likeness"
_MARKS = ("pixels", "ids", "places")
_OWN_IDS = 2**31
"""Ids below are running numbers, which other data have too: they tell nothing."""
_OFFSETS = [(step_dec, step_ra) for step_dec in (-1, 0, 1) for step_ra in (-1, 0, 1)]


@dataclass(frozen=True)
class KnownObjects:
    """Marks of training objects, each sorted."""

    pixels: U64
    """(n,) digests of the centres' pixels, see `sky.duplicates.centre_digests`."""
    ids: U64
    """(m,) mixed ids of those objects whose ids are no running numbers."""
    places: U64
    """(k,) mixed cells of half an arcsec of those objects that have a position."""
    limit: int
    """The record holds every training object whose pixel digest is at most this."""
    likeness: F32
    """(n', k) samples of `sky.likeness` of those objects that have them; none in older records."""

    @classmethod
    def of(cls, digests: U64, ids: I64, positions: F64, likeness: F32 | None = None) -> KnownObjects:
        """The record of training objects.

        Args:
            digests: (n,) of pixels.
            ids: (n,).
            positions: (n, 2) ra and dec in degrees or NaN.
            likeness: (n, k) of `sky.likeness`; None: only the very pixels are known again.
        """
        told = np.flatnonzero(digests != 0)
        limit = 2**64 - 1
        if len(told) > KEPT:
            limit = int(np.partition(digests[told], KEPT - 1)[KEPT - 1])
            told = told[digests[told] <= np.uint64(limit)]
        own = ids[told][ids[told] >= _OWN_IDS]
        placed = positions[told][np.isfinite(positions[told]).all(1)]
        samples = np.zeros((0, 0), np.float32) if likeness is None else likeness[told]
        samples = np.unique(samples[np.isfinite(samples).all(1)], axis=0)
        return cls(np.unique(digests[told]), np.unique(mixed(own)), np.unique(place_cells(placed)), limit, samples)

    def joined(self, other: KnownObjects) -> KnownObjects:
        """The record of the objects of both."""
        pixels, ids, places = (np.union1d(getattr(self, mark), getattr(other, mark)) for mark in _MARKS)
        samples = [one.likeness for one in (self, other) if len(one.likeness)]
        likeness = np.unique(np.concatenate(samples), axis=0) if samples else self.likeness
        return KnownObjects(pixels, ids, places, min(self.limit, other.limit), likeness)

    def to_bytes(self) -> bytes:
        """The record as a safetensors file."""
        arrays: dict[str, Array] = {name: np.ascontiguousarray(getattr(self, name), np.uint64) for name in _MARKS}
        if len(self.likeness):
            arrays[_LIKENESS] = np.ascontiguousarray(self.likeness, np.float32)
        return safetensors.numpy.save({**arrays, "limit": np.array([self.limit], np.uint64)})

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> KnownObjects:
        """Read a record back; `name` is that of the bundle, for messages.

        Raises:
            InputError: the file is no such record.
        """
        try:
            arrays: dict[str, Array] = safetensors.numpy.load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{FILE} of bundle {name} is no safetensors ({error}): get the bundle again") from None
        wanted = {*_MARKS, "limit"}
        samples = arrays.pop(_LIKENESS, np.zeros((0, 0), np.float32))
        if samples.dtype != np.float32 or samples.ndim != 2:
            raise InputError(f"{_LIKENESS} in {FILE} of bundle {name} is no table of float32: get the bundle again")
        if set(arrays) != wanted or any(array.dtype != np.uint64 or array.ndim != 1 for array in arrays.values()):
            raise InputError(f"{FILE} of bundle {name} does not hold {', '.join(sorted(wanted))}: get the bundle again")
        if len(arrays["limit"]) != 1:
            raise InputError(f"{FILE} of bundle {name} has {len(arrays['limit'])} limits: get the bundle again")
        pixels, ids, places = (np.sort(arrays[mark]) for mark in _MARKS)
        return cls(pixels, ids, places, int(arrays["limit"][0]), samples)

    @property
    def fraction(self) -> float:
        """Part of the training objects that the record names: 1 up to `KEPT` objects."""
        return (self.limit + 1) / 2**64

    def covers(self, digests: U64) -> Bool:
        """(n,) whether the record would name an object of that pixel digest, had it been trained on."""
        return np.asarray((digests != 0) & (digests <= np.uint64(self.limit)))

    def holds(self, digests: U64, positions: F64, likeness: F32 | None = None) -> Bool:
        """(n,) whether objects are training objects, by pixels, likeness or place; arguments as for `of`."""
        found = np.isin(digests, self.pixels)
        if likeness is not None:
            found |= alike(likeness, self.likeness)
        placed = np.flatnonzero(np.isfinite(positions).all(1))
        if len(placed) and len(self.places):
            near = [np.isin(place_cells(positions[placed], *offset), self.places) for offset in _OFFSETS]
            found[placed] |= np.any(near, axis=0)
        return found

    def shares_ids(self, ids: I64) -> Bool:
        """(n,) whether ids that are no running numbers are those of training objects."""
        return np.asarray((ids >= _OWN_IDS) & np.isin(mixed(ids), self.ids))
