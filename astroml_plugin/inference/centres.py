"""Where the light of a run's objects lay, and the one sentence that a run says where positions are off."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

_OFF = 0.3
"""Pixels: a median offset in x or y from which a run says something."""
_FEWEST = 30
"""Objects below which it says nothing."""


def median_offsets(centres: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Bundle -> objects whose centre is known to 0.2 pixels, and the median x and y of their light's offset.

    Args:
        centres: of `meter.Meter`, summed over units.
    """
    tenths: dict[str, dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    for key, count in centres.items():
        bundle, _, place = key.rpartition(" ")
        tenths[bundle][place[0]][int(place[1:])] += count
    return {
        bundle: {"objects": axes["x"].total(), **{axis: _median(axes[axis]) / 10 for axis in "xy"}}
        for bundle, axes in tenths.items()
    }


def _median(counts: Counter[int]) -> int:
    """The median of numbers that occur so often."""
    half, passed = counts.total() / 2, 0
    for number in sorted(counts):
        passed += counts[number]
        if passed >= half:
            return number
    return 0


def warning(offsets: Mapping[str, Mapping[str, Any]], *, stamps: bool) -> str:
    """A sentence where the light lies off the centres in the median; empty where it does not.

    Args:
        offsets: of `median_offsets`.
        stamps: whether stored stamps were measured, not the objects of a table.
    """
    for bundle, found in offsets.items():
        x, y = found["x"], found["y"]
        if found["objects"] >= _FEWEST and max(abs(x), abs(y)) >= _OFF:
            remedy = (
                "give stamps whose object lies on pixel side // 2"
                if stamps
                else "is the table 1-based (--pixel-origin 1), or of another astrometry?"
            )
            return (
                f"the light lies off the given places by ({x:+.1f}, {y:+.1f}) px in the median of {found['objects']} "
                f"objects ({bundle}): {remedy}"
            )
    return ""
