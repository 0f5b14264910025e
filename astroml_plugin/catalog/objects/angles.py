"""Columns of text and numbers as floats, and as degrees: units, and sexagesimal text."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.schema import is_text, without_dictionary
from astroml_plugin.core.astropy_later import u
from astroml_plugin.core.errors import InputError

_DEGREES = ("", "deg", "degree", "degrees", "d:m:s", "dms", "d m s", "dd:mm:ss", "+dd:mm:ss")
_HOURS = ("h", "hr", "hour", "hours", "hourangle", "h:m:s", "hms", "h m s", "hh:mm:ss")

_SEXAGESIMAL = (
    r"^(?P<sign>[+\-−]?)\s*(?P<whole>\d{1,3})(?P<mark>\s*[:hHdD°]\s*|\s+)(?P<minutes>\d{1,2}(?:\.\d*)?)"
    r"(?:(?:\s*[:mM'′]\s*|\s+)(?P<seconds>\d{1,2}(?:\.\d*)?)\s*[sS\"″]?|\s*[mM'′])?$"
)


def floats(column: pa.ChunkedArray, name: str, place: str) -> np.ndarray:
    """(n,) float64; NaN where null.

    Raises:
        InputError: a value that is no number; the sentence shows it.
    """
    column = without_dictionary(column)
    if is_text(column.type):
        words = _trimmed(column)
        numbers = _parsed(words)
        if numbers is None:
            bad = _first_that_is(pc.invert(_numeric(words)))
            told = f"{_shown(words[bad])}, which is no number" if bad is not None else "text that is no number"
            raise InputError(f"column {name} of {place} holds {told}")
        return _filled(numbers)
    try:
        return _filled(pc.cast(column, pa.float64(), safe=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {name} of {place} holds no numbers ({column.type})") from error


def degrees(column: pa.ChunkedArray, unit: str | None, axis: str, name: str, place: str) -> np.ndarray:
    """(n,) float64 degrees of numbers in a unit, or of sexagesimal text; NaN where null.

    Args:
        column: the values.
        unit: unit of the column; degrees where there is none.
        axis: ra, dec, l or b. Text like 10:30:00 in `ra` needs a unit: it may be hours or degrees.
        name, place: of the column and its table, for errors.

    Raises:
        InputError: the unit is none of angles; there are no numbers and no sexagesimal text, or nothing says whether
            the text is in hours.
    """
    scale = factor(unit)
    if scale is None:
        raise InputError(
            f"column {name} of {place} has the unit '{unit}', which is no unit of angles: say which it is with "
            f"--columns '{axis}={name}[deg]'"
        )
    column = without_dictionary(column)
    if is_text(column.type):
        words = _trimmed(column)
        numbers = _parsed(words)
        if numbers is None:
            return _sexagesimal(words, unit, axis, name, place)
        return _filled(numbers) * scale
    return floats(column, name, place) * scale


def factor(unit: str | None) -> float | None:
    """Degrees in a unit, 1 where none is given; None for what is no unit of angles."""
    told = (unit or "").strip().strip("\"'").lower()
    if told in _DEGREES or "deg" in told:
        return 1.0
    if told in _HOURS:
        return 15.0
    if re.fullmatch(r"rads?|radians?", told):
        return math.degrees(1.0)
    for word in ((unit or "").strip(), told):
        parsed = u.Unit(word, parse_strict="silent")
        if parsed.is_equivalent(u.deg):
            return float(parsed.to(u.deg))
    return None


def _sexagesimal(words: pa.ChunkedArray, unit: str | None, axis: str, name: str, place: str) -> np.ndarray:
    parts = pc.extract_regex(words, _SEXAGESIMAL)
    bad = _first_that_is(pc.and_(pc.is_null(parts), pc.is_valid(words)))
    if bad is not None:
        raise InputError(
            f"column {name} of {place} holds {_shown(words[bad])}, which is neither a number nor like 10h30m15.2s or "
            "-10:30:15.2"
        )
    field = {one: pc.struct_field(parts, one) for one in ("sign", "whole", "mark", "minutes", "seconds")}
    marks = pc.utf8_lower(pc.utf8_trim_whitespace(field["mark"]))
    hours = np.asarray(pc.fill_null(pc.equal(marks, "h"), False).to_numpy(), bool)
    says = hours | np.asarray(pc.fill_null(pc.is_in(marks, pa.array(["d", "°"])), True).to_numpy(), bool)
    if axis == "ra" and not says.all():
        if not unit:
            raise InputError(
                f"column {name} of {place} holds {_shown(words[int(np.argmin(says))])}, and nothing says whether "
                f"these are hours or degrees: say it with --columns 'ra={name}[hourangle]' or 'ra={name}[deg]'"
            )
        hours |= ~says & (factor(unit) == 15.0)
    numbers = {one: _number(field[one]) for one in ("whole", "minutes", "seconds")}
    over = (numbers["minutes"] >= 60) | (numbers["seconds"] > 60) | (hours & (numbers["whole"] > 24))
    if over.any():
        raise InputError(
            f"column {name} of {place} holds {_shown(words[int(np.argmax(over))])}, which is no angle: minutes and "
            "seconds are below 60, hours below 24"
        )
    size = numbers["whole"] + numbers["minutes"] / 60 + numbers["seconds"] / 3600
    negative = np.asarray(pc.fill_null(pc.is_in(field["sign"], pa.array(["-", "−"])), False).to_numpy(), bool)
    valid = np.asarray(pc.is_valid(words).to_numpy(), bool)
    return np.where(valid, np.where(negative, -size, size) * np.where(hours, 15.0, 1.0), np.nan)


def _number(column: pa.ChunkedArray) -> np.ndarray:
    filled = pc.if_else(pc.equal(pc.fill_null(column, ""), ""), "0", column)
    return np.asarray(pc.cast(filled, pa.float64()).to_numpy(), np.float64)


def _shown(word: pa.Scalar) -> str:
    """A value in quotes, on one line and not longer than one can read."""
    text = " ".join(str(word.as_py()).split())
    return f"'{text[:40]}{'…' if len(text) > 40 else ''}'"


def _parsed(words: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Text as numbers; None where some of it is none."""
    try:
        return pc.cast(words, pa.float64())
    except pa.ArrowInvalid:
        return None


def _filled(numbers: pa.ChunkedArray) -> np.ndarray:
    return np.array(pc.fill_null(numbers, float("nan")).to_numpy(), np.float64)


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without blanks around it and a plus before it; null where nothing is left."""
    words = pc.utf8_trim_whitespace(pc.cast(column, pa.large_string()))
    words = pc.replace_substring_regex(words, r"^\+([0-9.]\S*)$", r"\1")
    return pc.if_else(pc.is_in(words, pa.array(["", "--", "..."], pa.large_string())), None, words)


def _numeric(words: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(words, r"^(?i:-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?nan|[+-]?inf(inity)?)$")


def _first_that_is(flags: pa.ChunkedArray) -> int | None:
    """Index of the first true value; nulls are false."""
    found = int(pc.index(flags, pa.scalar(True)).as_py())
    return found if found >= 0 else None
