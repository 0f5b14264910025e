"""Decoded stamps on a node's own disk, made once for all trials that run there and mapped into each of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from astroml_plugin.core.private import open_lock, own_folder, private_folder
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.pixels import band_index
from astroml_plugin.sources.stamps import Pixels, Stamps
from astroml_plugin.training.labelled import LabelledStamps

_ARRAYS = ("image", "variance", "psf", "mask")
_HASHES = "hashes.npy"
_SPARE = 1.2
"""Free bytes asked for, relative to those that will be written."""


class CachedStamps(LabelledStamps):
    """`LabelledStamps` whose pixels come from memory-mapped files of this node.

    The first process that asks makes them, under a lock that its death releases; the others wait. They are named by
    the digest of the pixels, so that several studies share them. Where the disk has no room the sources are read as
    they are.

    Args:
        urls: the sources.
        folder: where the files of all data are kept; `cache_folder()` unless given.
    """

    def __init__(self, urls: Sequence[str], folder: Path | None = None) -> None:
        super().__init__(urls)
        self.folder = (folder or cache_folder()) / self.digest[:32]
        with _locked(self.folder):
            if not self.folder.exists():
                self._make()
        self.mapped = self.folder.exists()
        if self.mapped:
            self._maps = [_maps(self.folder, number, source) for number, source in enumerate(self.sources)]
            self.__dict__["pixel_hashes"] = np.load(self.folder / _HASHES)

    def _make(self) -> None:
        """Decode every block once; nothing is left of an attempt that ends early."""
        if shutil.disk_usage(self.folder.parent).free < _SPARE * sum(map(_bytes, self.sources)):
            return
        for remains in self.folder.parent.glob(f"{self.folder.name}.*.tmp"):
            shutil.rmtree(remains, ignore_errors=True)
        part = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex[:8]}.tmp")
        part.mkdir(mode=0o700)
        try:
            for number, source in enumerate(self.sources):
                _write(part, number, source)
            np.save(part / _HASHES, self.pixel_hashes)
            part.rename(self.folder)
        except OSError:  # another filled the disk meanwhile: the sources can still be read
            shutil.rmtree(part, ignore_errors=True)

    def read(self, block, rows: np.ndarray, bands: Sequence[str]) -> Cutouts:  # type: ignore[no-untyped-def]
        """The stamps of a block that are among `rows` (sorted), in order, on the CPU."""
        if not self.mapped:
            return super().read(block, rows, bands)
        inside = rows[np.searchsorted(rows, block.start) : np.searchsorted(rows, block.stop)]
        return self._cut(block.source, inside - self._first(block.source), bands)

    def pixels(self, source: int, rows: np.ndarray) -> Pixels:
        """image, variance, psf (n, band, y, x) of some stamps of one source, by their numbers in it."""
        if not self.mapped:
            return super().pixels(source, rows)
        image, variance, psf = (None if one is None else one[rows] for one in self._maps[source][:3])
        return image, variance, psf  # type: ignore[return-value]

    def masks(self, source: int, rows: np.ndarray) -> np.ndarray | None:
        """Masks (n, band, y, x) uint32 of the same stamps; None where the source has none."""
        mask = self._maps[source][3] if self.mapped else super().masks(source, rows)
        return mask[rows] if self.mapped and mask is not None else mask

    def _first(self, source: int) -> int:
        return sum(one.count for one in self.sources[:source])

    def _cut(self, number: int, rows: np.ndarray, bands: Sequence[str]) -> Cutouts:
        source, maps = self.sources[number], self._maps[number]
        index = band_index(source.bands, bands)
        chosen, zero_points = np.ix_(rows, np.array(index)), [source.zero_points[place] for place in index]
        image, variance, psf, mask = (None if one is None else one[chosen] for one in maps)
        about = {"bands": bands, "pixel_scale": source.pixel_scale, "zero_points": zero_points}
        return from_stamps(image, variance, psf, **about).masked(mask)  # type: ignore[arg-type]


def cache_folder() -> Path:
    """The folder of all files: below ASTROML_CACHE, or below a folder of this user in the system's temporary place.

    Raises:
        InputError: another user could change what is in it.
    """
    return private_folder("stamps")


def forget(digest: str, folder: Path | None = None) -> None:
    """Delete the files of some data from this node; processes that have them mapped go on."""
    place = (folder or cache_folder()) / digest[:32]
    shutil.rmtree(place, ignore_errors=True)
    place.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    own_folder(folder.parent)
    handle = open_lock(folder.with_suffix(".lock"))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _bytes(source: Stamps) -> int:
    return sum(
        source.count * int(np.prod(source.each(name)[0])) * source.each(name)[1].itemsize for name in source.array_names
    )


def _name(number: int, array: str) -> str:
    return f"{number}-{array}.npy"


def _write(folder: Path, number: int, source: Stamps) -> None:
    """All arrays of a source, block after block."""
    files = {
        name: open_memmap(
            folder / _name(number, name), "w+", source.each(name)[1], (source.count, *source.each(name)[0])
        )
        for name in source.array_names
    }
    for unit in source.units():
        arrays = (*source.read_block(unit.index), source.read_mask(unit.index))
        for name, values in zip(_ARRAYS, arrays, strict=True):
            if values is not None:
                files[name][unit.start : unit.stop] = values
    for file in files.values():
        file.flush()


def _maps(folder: Path, number: int, source: Stamps) -> tuple[np.ndarray | None, ...]:
    """Image, variance, psf and mask, read-only."""
    return tuple(
        np.load(folder / _name(number, name), mmap_mode="r") if name in source.array_names else None for name in _ARRAYS
    )
