"""Named bits. Frozen once released: bits are added, never moved; both maps travel with the data they describe."""

from __future__ import annotations

import math
from enum import IntFlag
from functools import lru_cache
from typing import Any

from astroml_plugin.core.errors import InputError


class ObjectFlag(IntFlag):
    """Bits of the catalog's `flags` columns (int32)."""

    EDGE = 1  # part of the stamp lies outside the image
    MASKED = 2  # a pixel of the stamp is masked
    NONFINITE = 4  # a pixel of the stamp is NaN or infinite, or the whole stamp is unusable
    SATURATED = 8  # a pixel of the stamp is saturated
    NO_VARIANCE = 16  # no variance was given: noise estimated from the stamp's border
    NO_PSF = 32  # no PSF was given
    DUPLICATE_ID = 64  # the object's id occurs more than once in the input
    TRUNCATED = 128  # the object is larger than the stamp or halo
    OUT_OF_DOMAIN = 256  # input outside what the model was trained for
    BLENDED = 512  # the object shares its patch of light with another


class MaskBit(IntFlag):
    """Bits of a Survey's `mask` array (uint32): every input mask is remapped to these names."""

    NO_DATA = 1
    BAD = 2
    SATURATED = 4
    COSMIC_RAY = 8
    EDGE = 16
    INTERPOLATED = 32
    CROSSTALK = 64
    STREAK = 128
    DETECTED = 256  # informational
    DETECTED_NEGATIVE = 512  # informational
    SUSPECT = 1024
    UNMASKED_NAN = 2048
    CLIPPED = 4096  # informational
    SENSOR_EDGE = 8192  # informational
    INEXACT_PSF = 16384  # informational
    REJECTED = 32768  # informational
    NOT_DEBLENDED = 65536  # informational
    OTHER = 1 << 31  # a set bit of the input that has no name here


INFORMATIONAL = (
    MaskBit.DETECTED
    | MaskBit.DETECTED_NEGATIVE
    | MaskBit.CLIPPED
    | MaskBit.SENSOR_EDGE
    | MaskBit.INEXACT_PSF
    | MaskBit.REJECTED
    | MaskBit.NOT_DEBLENDED
)
"""Bits that tell something about a pixel without making it unusable."""

MASK_BITS: dict[str, int] = {bit.name: bit.value for bit in MaskBit if bit.name}
OBJECT_FLAGS: dict[str, int] = {bit.name: bit.value for bit in ObjectFlag if bit.name}
FLAG_MEANINGS: dict[str, str] = {
    "EDGE": "part of the stamp, or the outline, reaches the border of the image",
    "MASKED": "a pixel is masked",
    "NONFINITE": "a pixel is NaN or infinite, or the whole stamp is unusable",
    "SATURATED": "a pixel is saturated",
    "NO_VARIANCE": "no variance was given, the noise was estimated",
    "NO_PSF": "no PSF was given",
    "DUPLICATE_ID": "the id occurs more than once in the input",
    "TRUNCATED": "larger than the stamp or halo",
    "OUT_OF_DOMAIN": "unlike what the model was trained for",
    "BLENDED": "shares its patch of light with another object",
}
"""One line on each object flag, for files that leave the catalog."""


def flag_names(flags: Any) -> Any:
    """Names of the bits that are set in `flags`: a tuple for one number, a list of tuples for several.

    Args:
        flags: a whole number, or a column or array of them, of NumPy, astropy, pandas or Arrow. What has no value has
            no names; bits that this version does not know are their numbers.

    Raises:
        InputError: something in it is no whole number from 0 on.
    """
    for give in ("to_pylist", "as_py", "tolist", "item"):
        if hasattr(flags, give) and not isinstance(flags, int):
            flags = getattr(flags, give)()
            break
    if isinstance(flags, list | tuple):
        return [flag_names(one) for one in flags]
    if flags is None or type(flags).__name__ == "NAType" or (isinstance(flags, float) and math.isnan(flags)):
        return ()
    if isinstance(flags, bool) or not isinstance(flags, int | float) or flags < 0 or flags != int(flags):
        raise InputError(f"flags are whole numbers from 0 on, not {flags!r}")
    return _names(int(flags))


@lru_cache(maxsize=4096)
def _names(value: int) -> tuple[str, ...]:
    known = [name for name, bit in OBJECT_FLAGS.items() if value & bit]
    rest = value & ~sum(OBJECT_FLAGS.values())
    return (*known, *(str(1 << place) for place in range(rest.bit_length()) if rest >> place & 1))
