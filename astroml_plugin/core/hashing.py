"""Well-mixed numbers from integer keys, alike on every machine and in every version."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.typing import F64, I64, U64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: products of integers with it spread evenly over their high bits (Knuth 1998)."""


def id_fractions(object_id: ArrayLike, seed: int) -> F64:
    """(n,) in [0, 1) from int64 ids and a seed, evenly spread (splitmix64: Steele et al. 2014, OOPSLA)."""
    return (mixed(object_id, seed) >> np.uint64(11)).astype(np.float64) / 2.0**53


def mixed(key: ArrayLike, seed: int = 0) -> U64:
    """(n,) well-mixed uint64 from int64 keys, one to one (splitmix64)."""
    with np.errstate(over="ignore"):
        bits = np.asarray(key, np.int64).astype(np.uint64) + GOLDEN * np.uint64(2 * seed + 1)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = _folded(bits, shift) * np.uint64(factor)
    return _folded(bits, 31)


def hashed_blocks(key: ArrayLike, blocks: int) -> I64:
    """(n,) numbers below `blocks` from integer keys: equal keys share a block."""
    with np.errstate(over="ignore"):
        bits = _folded(np.asarray(key, np.int64).astype(np.uint64) * GOLDEN, 32) * np.uint64(0xD6E8FEB86659FD93)
    return (_folded(bits, 32) % np.uint64(blocks)).astype(np.int64)


def _folded(bits: U64, shift: int) -> U64:
    """The high bits mixed into the low ones."""
    return np.asarray(bits ^ (bits >> np.uint64(shift)))
