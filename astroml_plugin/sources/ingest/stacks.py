"""Axes along which planes of an array are no bands: of Stokes parameters, and of terms of a spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_STOKES = {
    1: "I",
    2: "Q",
    3: "U",
    4: "V",
    -1: "RR",
    -2: "LL",
    -3: "RL",
    -4: "LR",
    -5: "XX",
    -6: "YY",
    -7: "XY",
    -8: "YX",
}
"""Values of a STOKES axis. Source: FITS standard 4.0, table 29."""

_TERMS = ("SPECLNMF", "SPECLOGF")
"""CTYPE of Obit: plane 1 is the image at the reference frequency, then come spectral index, curvature or channels."""


_GROUPS = "GROUP_NUMBER"
"""CTYPE of files of HST that were GEIS images before: each plane is a chip of its own, on another place of the sky."""


@dataclass(frozen=True)
class Stack:
    """Which planes of an array are read, and how they lie in it."""

    axis: int | None = None
    """Axis of the array, as numpy counts, along which the planes lie; None for one plane."""
    first: int | None = None
    """The first plane, all planes of the array counted in the order of the file; None for a 2-D array."""
    step: int = 1
    """Planes from one that is read to the next."""
    note: str = ""
    """Sentence on the planes that are left out."""
    dark: str = ""
    """Why no plane is light."""
    refused: str = ""
    """Why the array cannot be read, with the remedy; "" where it can."""


def stack_of(header: Any, shape: tuple[int, ...]) -> Stack:
    """The stack of an array of two axes and more.

    Args:
        header: of the HDU.
        shape: of the array, as numpy counts.
    """
    if len(shape) == 2:
        return Stack()
    steps = {axis: math.prod(shape[axis + 1 : -2]) for axis in range(len(shape) - 2)}
    first, note, dark = 0, "", ""
    long = [axis for axis in steps if shape[axis] > 1]
    for axis in steps:
        taken, note_of_axis, dark_of_axis = _along(header, len(shape) - axis, shape[axis])
        note, dark = note or note_of_axis, dark or dark_of_axis
        if taken is not None:
            long.remove(axis)
            first += taken * steps[axis]
    if len(long) > 1 and not dark:
        told = " and ".join(
            f"{shape[axis]} planes of {header.get(f'CTYPE{len(shape) - axis}') or f'axis {len(shape) - axis}'}"
            for axis in long
        )
        refused = f"it holds {told}, and bands lie along one axis: write one of them into a file of its own"
        return Stack(refused=refused)
    if not long:
        return Stack(None, first, 1, note, dark)
    return Stack(long[0], first, steps[long[0]], note, dark)


def _along(header: Any, number: int, length: int) -> tuple[int | None, str, str]:
    """(the one plane of an axis that is light or None for all, sentence on the others, why none is) by its CTYPE.

    Args:
        header: of the HDU.
        number: of the axis, as FITS counts.
        length: of the axis.
    """
    kind = str(header.get(f"CTYPE{number}", "")).strip().upper()
    if kind.startswith("STOKES") and (names := _stokes(header, number, length)) is not None:
        if length == 1:
            return None, "", f"Stokes {names[0]}: polarisation, no light" if names[0] in ("Q", "U", "V") else ""
        if "I" not in names:
            return None, "", f"Stokes {', '.join(names)} without I: polarisation, no light"
        others = ", ".join(name for name in names if name != "I")
        return names.index("I"), f"Stokes I is taken, {others} left out: only I is light", ""
    if length == 1:
        return None, "", ""
    if kind in _TERMS:
        return 0, f"the first plane is taken: the other {length - 1} of {kind} are terms of the spectrum", ""
    if kind == _GROUPS:
        return None, "", "its planes are chips of a camera, each on another place of the sky: write one file for each"
    return None, "", ""


def _stokes(header: Any, axis: int, length: int) -> list[str] | None:
    """Names along a STOKES axis; None where its numbers cannot be read."""
    try:
        start, step, pixel = (float(header.get(f"{card}{axis}", 1)) for card in ("CRVAL", "CDELT", "CRPIX"))
        values = [round(start + (number + 1 - pixel) * (step or 1)) for number in range(length)]
    except (TypeError, ValueError, OverflowError):
        return None
    return [_STOKES.get(value, str(value)) for value in values]
