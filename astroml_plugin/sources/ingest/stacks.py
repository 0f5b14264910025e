"""Axes along which planes of an array are no bands: of Stokes parameters, and of terms of a spectrum."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Stack:
    """How the planes of an array are to be read."""

    taken: int | None = None
    """The one plane that is light; None: all of them."""
    note: str = ""
    """Sentence on the planes that are left out."""
    dark: str = ""
    """Why no plane is light."""


def stack_of(header: Any, shape: tuple[int, ...]) -> Stack:
    """The stack of an array of more than two axes with at most one of them, beyond the image's, longer than 1.

    Args:
        header: of the HDU.
        shape: of the array, as numpy counts.
    """
    for place, length in enumerate(shape[:-2]):
        axis = len(shape) - place
        kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
        if kind.startswith("STOKES"):
            names = _stokes(header, axis, length)
            if names is None:
                continue
            if length == 1 and names[0] in ("Q", "U", "V"):
                return Stack(dark=f"Stokes {names[0]}: polarisation, no light")
            if length > 1 and "I" not in names:
                return Stack(dark=f"Stokes {', '.join(names)} without I: polarisation, no light")
            if length > 1:
                others = ", ".join(name for name in names if name != "I")
                return Stack(names.index("I"), f"Stokes I is taken, {others} left out: only I is light")
        if kind in _TERMS and length > 1:
            return Stack(0, f"the first plane is taken: the other {length - 1} of {kind} are terms of the spectrum")
    return Stack()


def _stokes(header: Any, axis: int, length: int) -> list[str] | None:
    """Names along a STOKES axis; None where its numbers cannot be read."""
    try:
        start, step, pixel = (float(header.get(f"{card}{axis}", 1)) for card in ("CRVAL", "CDELT", "CRPIX"))
        values = [round(start + (number + 1 - pixel) * (step or 1)) for number in range(length)]
    except (TypeError, ValueError, OverflowError):
        return None
    return [_STOKES.get(value, str(value)) for value in values]
