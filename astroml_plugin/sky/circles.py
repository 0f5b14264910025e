"""Circles on the sky as people give them: numbers, coordinates and angles of astropy, sexagesimal text, units.

Nothing is imported for it, as command lines are read here too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from astroml_plugin.core.errors import InputError

Circle = tuple[float, float, float]
"""Right ascension, declination, radius in degrees, ICRS."""

EXAMPLE = "150.1 2.2 0.05, or 10h00m28.6s +02d12m21s 5arcsec"

_DEGREES = {
    **dict.fromkeys(("", "d", "deg", "degree", "degrees"), 1.0),
    **dict.fromkeys(("'", "arcmin", "amin"), 1 / 60),
    **dict.fromkeys(('"', "arcsec", "asec"), 1 / 3600),
    **{"mas": 1 / 3_600_000, "rad": 57.29577951308232},
}
"""Unit as it is written -> degrees in it."""

_SIGNS = str.maketrans({"−": "-", "–": "-", "°": "d", "′": "'", "’": "'", "″": '"', "”": '"', "º": "d"})
_BETWEEN = re.compile(r"[,;()\[\]]")
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")
_NUMBERS = re.compile(r"\s*[+\-−–]?\s*[.\d]")
_DECIMAL = re.compile(rf"({_PLAIN.pattern})(.*)")
_LETTERS = re.compile(r"""([+-]?)(\d+\.?\d*)([hd])(?:(\d+\.?\d*)[m'](?:(\d+\.?\d*)(?:s|"|'')?)?)?""")
_COLONS = re.compile(r"([+-]?)(\d+)():(\d+\.?\d*)(?::(\d+\.?\d*))?")
_BEGUN = re.compile(r"[+-]?\d+(?:[hd]|[hd]\d+[m'])")
"""The beginning of an angle whose minutes or seconds may follow."""
_GOES_ON = re.compile(r"""\d+\.?\d*[m's"]+|\d+[m']\d+\.?\d*(?:s|"|'')""")
_ANGLES = ("right ascension", "declination", "radius")


def circle_of(given: Any) -> Circle:
    """A circle as numbers.

    Args:
        given: (right ascension, declination, radius), each a number of degrees, an `Angle`, a `Quantity` or a text;
            (`SkyCoord`, radius); or one text with all three, as in `EXAMPLE`.

    Raises:
        InputError: it is no circle, or a name.
    """
    items = words_of(given) if isinstance(given, str) else _items(given)
    if len(items) == 2 and hasattr(items[0], "icrs"):
        return (*_position(items[0]), _degrees(items[1], 2))
    if len(items) == 2 and isinstance(items[0], str):
        items = (*words_of(items[0]), items[1])
    for item in items:
        if isinstance(item, str) and not _NUMBERS.match(item):
            raise InputError(
                f"{item!r} is no position: names of objects are not looked up, as there is no network: give right "
                f"ascension, declination and radius, such as {EXAMPLE}"
            )
    if len(items) != 3:
        raise InputError(f"cone {_shown(given)}: give right ascension, declination and radius, such as {EXAMPLE}")
    return _degrees(items[0], 0), _degrees(items[1], 1), _degrees(items[2], 2)


def _items(given: Any) -> Sequence[Any]:
    if hasattr(given, "icrs"):
        raise InputError("a cone needs a radius beside its centre: give (SkyCoord, radius)")
    try:
        return tuple(given)
    except TypeError:
        return ()


def _position(coordinate: Any) -> tuple[float, float]:
    """Degrees of one SkyCoord, or of a frame of astropy with data."""
    try:
        place = coordinate.icrs
        ra, dec = float(place.ra.deg), float(place.dec.deg)
    except Exception as error:
        raise InputError(
            f"the centre of a cone must be one position that can be brought to ICRS, not {_shown(coordinate)} "
            f"({type(error).__name__}): take one of them, such as coordinates[0]"
        ) from error
    return ra, dec


def _degrees(value: Any, which: int) -> float:
    if isinstance(value, str):
        return _angle(" ".join(value.translate(_SIGNS).split()).replace(" ", ""), which)
    try:
        return float(value.to_value("deg") if hasattr(value, "to_value") else value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the {_ANGLES[which]} of a cone is {_shown(value)}: give degrees, an angle of astropy, or a text such as "
            f"{EXAMPLE.split()[-1]}"
        ) from error


def words_of(text: str) -> list[str]:
    """Texts of the angles in a text: minutes, seconds and units that stand apart are put to what they belong to."""
    words = _BETWEEN.sub(" ", text.translate(_SIGNS)).split()
    joined: list[str] = []
    for word in words:
        if joined and (word.lower() in _DEGREES or (_BEGUN.fullmatch(joined[-1]) and _GOES_ON.fullmatch(word))):
            joined[-1] += word
        else:
            joined.append(word)
    if len(joined) == 7 and all(map(_PLAIN.fullmatch, joined[:6])):
        hours, degrees = "{}h{}m{}s".format(*joined[:3]), "{}d{}m{}s".format(*joined[3:6])
        return [hours, degrees, joined[6]]
    return words if len(words) == 3 != len(joined) else joined


def _angle(word: str, which: int) -> float:
    """Degrees of the text of an angle; sexagesimal right ascensions are in hours unless a d says degrees."""
    lower = word.lower()
    if (found := _LETTERS.fullmatch(lower) or _COLONS.fullmatch(lower)) and (found[4] or found[3] == "h"):
        sign, whole, letter, minutes, seconds = found.groups()
        hours = letter == "h" or (not letter and which == 0)
        parts = [float(part or 0) for part in (whole, minutes, seconds)]
        if (not hours or which == 0) and (letter or which < 2) and parts[1] < 60 and parts[2] < 60:
            value = (parts[0] + parts[1] / 60 + parts[2] / 3600) * (15 if hours else 1)
            return -value if sign == "-" else value
    elif (found := _DECIMAL.fullmatch(lower)) and found[2] in _DEGREES:
        return float(found[1]) * _DEGREES[found[2]]
    raise InputError(f"{word!r} is no {_ANGLES[which]}: write a cone as {EXAMPLE}")


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
