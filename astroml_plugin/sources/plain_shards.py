"""Shards on a local disk whose chunks are not compressed: their bytes go straight into the array that is wanted.

They are read and not mapped into memory: a file that somebody cuts short under a map ends the process. Checksums are
looked at as in all other shards.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

_NOTHING = 2**64 - 1  # place and length of a chunk that was never written
_SUM = 4  # bytes of a checksum


@dataclass(frozen=True)
class PlainShards:
    """How the shards of an array lie on disk, where each chunk is its numbers and a checksum."""

    shard: tuple[int, ...]
    """Lengths of a shard along all axes."""
    chunk: tuple[int, ...]
    """Lengths of a chunk."""
    dtype: np.dtype[Any]
    fill: Any

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> PlainShards | None:
        """How they lie, or None where they are compressed or otherwise than `arrays.create_array` has it."""
        codecs: Sequence[Any] = getattr(getattr(array, "metadata", None), "codecs", ())
        if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or array.shards is None:
            return None
        sharding = codecs[0]
        plain = [_is_plain(steps) for steps in (sharding.codecs, sharding.index_codecs)]
        if not all(plain) or sharding.index_location.value != "end" or array.dtype.kind not in "fiu":
            return None
        return cls(tuple(array.shards), tuple(sharding.chunk_shape), array.dtype.newbyteorder("<"), array.fill_value)

    @property
    def _grid(self) -> tuple[int, ...]:
        return tuple(-(-side // step) for side, step in zip(self.shard, self.chunk, strict=True))

    def read(self, file: str, box: Sequence[slice]) -> np.ndarray:
        """The numbers of a box of a shard.

        Args:
            file: of the shard.
            box: a slice with start and stop along each axis, in the shard's own places.

        Raises:
            FileNotFoundError: there is no such shard.
            ValueError: bytes are missing or do not verify.
        """
        out = np.empty([part.stop - part.start for part in box], self.dtype)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            places = self._index(descriptor)
            steps = [
                range(part.start // step, -(-part.stop // step)) for part, step in zip(box, self.chunk, strict=True)
            ]
            for at in product(*steps):
                self._chunk(descriptor, at, places[at], box, out)
        finally:
            os.close(descriptor)
        return out

    def _index(self, descriptor: int) -> np.ndarray:
        """Place and length of each chunk: (*grid, 2) uint64."""
        held = np.empty(16 * int(np.prod(self._grid)), np.uint8)
        start = os.fstat(descriptor).st_size - len(held) - _SUM
        if start < 0:
            raise ValueError("the shard ends before its index")
        _read(descriptor, held, start)
        return held.view("<u8").reshape(*self._grid, 2)

    def _chunk(self, descriptor: int, at: Sequence[int], place: np.ndarray, box: Sequence[slice], out: Any) -> None:
        """Put what the box has of one chunk where it belongs."""
        lows = [max(number * step, part.start) for number, step, part in zip(at, self.chunk, box)]
        highs = [min((number + 1) * step, part.stop) for number, step, part in zip(at, self.chunk, box)]
        target = out[tuple(slice(low - part.start, high - part.start) for low, high, part in zip(lows, highs, box))]
        start, length = (int(value) for value in place)
        if start == length == _NOTHING:
            target[...] = self.fill
            return
        wanted = int(np.prod(self.chunk)) * self.dtype.itemsize
        if length != wanted + _SUM:
            raise ValueError(f"a chunk has {length} bytes instead of {wanted + _SUM}")
        if target.shape == self.chunk and target.flags.c_contiguous:
            _read(descriptor, target.reshape(-1).view(np.uint8), start)
            return
        held = np.empty(self.chunk, self.dtype)
        _read(descriptor, held.reshape(-1).view(np.uint8), start)
        inside = (
            slice(low - number * step, high - number * step)
            for low, high, number, step in zip(lows, highs, at, self.chunk)
        )
        target[...] = held[tuple(inside)]


def _is_plain(steps: Sequence[Any]) -> bool:
    """Whether numbers become bytes with a checksum, the lowest first, and nothing else is done to them."""
    if len(steps) != 2 or not isinstance(steps[0], BytesCodec) or not isinstance(steps[1], Crc32cCodec):
        return False
    return steps[0].endian is None or steps[0].endian.value == "little"


def _read(descriptor: int, held: np.ndarray, start: int) -> None:
    """Fill bytes (n,) from a place in a file, and compare them with the checksum that follows there."""
    stored = bytearray(_SUM)
    left = [held.data, memoryview(stored)]
    while left:
        done = os.preadv(descriptor, left, start)
        if not done:
            raise ValueError("the shard ends before its bytes do")
        start += done
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if left:
            left[0] = left[0][done:]
    if google_crc32c.value(held) != struct.unpack("<I", stored)[0]:
        raise ValueError("its checksum is another")
