"""Faults of pixels, told by their value, their variance and their mask."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.flags import INFORMATIONAL, MaskBit, ObjectFlag

BAD = 0xFFFFFFFF & ~int(INFORMATIONAL | MaskBit.NO_DATA | MaskBit.SATURATED | MaskBit.UNMASKED_NAN)
"""Bits of a mask that make a pixel MASKED."""


def pixel_bits(image: np.ndarray, variance: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
    """Bits of the faults of each pixel.

    Args:
        image: any shape, number.
        variance: same shape, or None.
        mask: same shape, uint32 of `MaskBit`, or None.

    Returns:
        Same shape, uint8 of `ObjectFlag` (EDGE, MASKED, NONFINITE, SATURATED); 0 where the pixel can be used.
    """
    bits = np.zeros(image.shape, np.uint8)
    if image.dtype.kind == "f":
        _mark(bits, ~np.isfinite(image), ObjectFlag.NONFINITE)
    if variance is not None:
        _mark(bits, ~((variance > 0) & (variance < np.inf)), ObjectFlag.MASKED)
    if mask is not None and mask.any():
        _mark(bits, (mask & np.uint32(BAD)) != 0, ObjectFlag.MASKED)
        _mark(bits, (mask & np.uint32(MaskBit.SATURATED)) != 0, ObjectFlag.SATURATED)
        bits[(mask & np.uint32(MaskBit.NO_DATA)) != 0] = int(ObjectFlag.EDGE)
    return bits


def _mark(bits: np.ndarray, where: np.ndarray, flag: ObjectFlag) -> None:
    """Set a flag in place; nothing to do is the usual case and costs one look."""
    if where.any():
        bits |= where.view(np.uint8) * np.uint8(flag)


def is_usable(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask (uint32 of `MaskBit`) without a bit that makes them unusable: bool of its shape."""
    return np.asarray((mask & ~np.uint32(INFORMATIONAL)) == 0)
