"""World coordinates in others' headers: which cards are used, what is lost or assumed, and why some are no use."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.astropy_later import astropy, coordinates, exceptions, fits, fits_wcs, wcs_utils
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.foreign import in_words
from astroml_plugin.core.quiet import FILTERS
from astroml_plugin.sky import lookup

_NUMBER = r"CRPIX\d+|CRVAL\d+|CDELT\d+|CROTA\d+|CD\d+_\d+|PC\d+_\d+|PC\d{6}"
_DSS = r"CNPIX[12]|PLT(RA[HMS]|DEC(SN|[DMS])|SCALE)|[XY]PIXELSZ|PPO\d|AMD[XY]\d+"
_WCS_CARD = re.compile(
    rf"^(WCSAXES|WCSNAME|NAXIS[12]?|CTYPE\d+|CUNIT\d+|{_NUMBER}"
    rf"|PV\d+_\d+|PS\d+_\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH|MJD-OBS|DATE-OBS|WAT\d_\d{{3}}"
    rf"|[AB]P?_(ORDER|DMAX|\d+_\d+)|RESTFRQ|RESTWAV|SPECSYS|{_DSS})$"
)
_NUMBER_CARD = re.compile(rf"^({_NUMBER})$")
_AXIS_CARD = re.compile(r"^(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA|PV|PS)0*(\d+)(_\d+)?$")
_MATRIX_CARD = re.compile(r"^(?:CD|PC)(?:(\d+)_(\d+)|(\d{3})(\d{3}))$")
_SKY_AXIS = re.compile(r"^(RA|DEC|[A-Z]LON|[A-Z]LAT|..LN|..LT|AZ|ALT|HA)(-|$)")
_TABLES = re.compile(r"^(CPDIS\d|D2IMDIS\d|AXISCORR)$")
_OTHER_DISTORTION = re.compile(r"^C[PQ]DIS\d$")
_WHERE = re.compile(r"ERROR \d+ in \w+\(\) at line \d+ of file \S+:\s*")

_UNUSABLE = "the header's world coordinate system cannot be used ({}): use pixel positions"

_FRAMES = {"J2000": ("FK5", 2000.0), "J2000.0": ("FK5", 2000.0), "B1950": ("FK4", 1950.0), "B1950.0": ("FK4", 1950.0)}
"""Names that people give for a frame: RADESYS and EQUINOX that they mean."""

_LARGE_PIXEL = 0.1
"""Degrees: pixels of images of the sky are smaller, other axes count in steps of 1 as a rule."""

_YEARS = (1800.0, 2100.0)
"""An equinox outside them is no year of a catalogue: nobody knows what is meant."""


@dataclass(frozen=True)
class Coordinates:
    """Place of an array on the sky, as its header says it."""

    cards: str | None
    """World-coordinate cards of the two axes of the image, one a line; None without any that can be used."""
    problem: str = ""
    """Why those that are there cannot be used."""
    notes: tuple[str, ...] = ()
    """Sentences on what is lost or assumed."""
    dropped: tuple[str, ...] = ()
    """CTYPE of the axes from the third on, which are no axes of the image; "" where it has none."""


@contextlib.contextmanager
def astropy_quiet() -> Iterator[None]:
    """Astropy's remarks on odd headers, silenced; one thread at a time, as Python's warning filters are global."""
    with FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.AstropyWarning)
        level = astropy.log.level
        astropy.log.setLevel("WARNING")  # its INFO lines (SIP without -SIP) go to stdout, where data go
        try:
            yield
        finally:
            astropy.log.setLevel(level)


def read_cards(text: str) -> fits.Header:
    """Header of FITS cards, one a line."""
    with astropy_quiet():
        return fits.Header([fits.Card.fromstring(line.ljust(80)) for line in text.split("\n") if line.strip()])


def text_of(header: fits.Header) -> str:
    """Cards of a header, one a line, as they stand there."""
    with astropy_quiet():
        return "\n".join(card.image[:80].rstrip() for card in header.cards)


def parse(text: str) -> tuple[fits_wcs.WCS, Any]:
    """(astropy WCS of the image's two axes, its celestial frame or None for ICRS).

    Raises:
        InputError: there is none, or none that can be brought to ICRS.
    """
    with astropy_quiet():
        try:
            plain, tables = lookup.split_text(text)
            cards = read_cards(plain)
            for name in ("CRPIX1", "CRPIX2"):
                float(cards.get(name, 0.0))
            full = fits_wcs.WCS(cards)
            wcs = full if full.naxis == 2 else full.sub([1, 2])
            if not wcs.has_celestial or wcs.naxis != 2:
                raise InputError("the header has no celestial WCS on its first two axes: use pixel positions")
            lookup.attach(wcs, tables)
            wcs.all_pix2world([[0.0, 0.0]], 0)
            frame = _frame(wcs)
        except InputError:
            raise
        except Exception as error:
            raise InputError(_UNUSABLE.format(_reason(error))) from error
    return wcs, None if isinstance(frame, coordinates.ICRS) else frame


def _frame(wcs: fits_wcs.WCS) -> Any:
    try:
        return wcs_utils.wcs_to_celestial_frame(wcs)
    except (ValueError, TypeError):  # TypeError: of planets
        told = f"axes {', '.join(wcs.wcs.ctype)} with RADESYS {str(wcs.wcs.radesys)!r}"
        raise InputError(_UNUSABLE.format(f"{told} are no frame that can be brought to ICRS")) from None


def _reason(error: Exception) -> str:
    return _WHERE.sub("", in_words(error)).strip()


def coordinates_of(header: Any, hdus: Any = None) -> Coordinates:
    """World coordinates of an array.

    Args:
        header: of the array.
        hdus: the astropy HDUList that it comes from: its lookup tables are read from there.
    """
    axes = _ctypes(header)
    letter = "" if any(map(_SKY_AXIS.match, axes)) else _alternate(header)
    with astropy_quiet():
        chosen = [card for card in header.cards if _WCS_CARD.match(card.keyword)]
        cards = read_cards("\n".join(card.image[:80].rstrip() for card in chosen))
        notes = []
        if letter:
            cards, axes = _renamed(header, letter)
            notes.append(f"its alternate WCS {letter} is taken, as it has no other")
        there = sum(map(bool, map(_SKY_AXIS.match, axes))) == 1 or all(map(_SKY_AXIS.match, axes[:2]))
        problem = _repair(cards, notes) if there else _elsewhere(axes, cards)
        dropped = tuple(axes[2:])
    if problem:
        return Coordinates(None, problem, (), dropped)
    text = text_of(cards)
    try:
        parse(text)
    except InputError as error:
        return Coordinates(None, _inner(str(error)) if there else "", (), dropped)
    tables, lost = _tables(header, hdus)
    if lost:
        notes.append(lost)
    return Coordinates(lookup.joined(text, tables), "", tuple(notes), dropped)


def _inner(sentence: str) -> str:
    before, after = _UNUSABLE.split("{}")
    return sentence.removeprefix(before).removesuffix(after)


def _ctypes(header: Any) -> list[str]:
    count = max([2, *(int(match[2]) for key in header if (match := re.match(r"^(CTYPE)(\d)$", key)))])
    return [str(header.get(f"CTYPE{axis}", "")).strip().upper() for axis in range(1, count + 1)]


def _alternate(header: Any) -> str:
    """Letter of an alternate WCS (CTYPE1A) that is celestial; "" where there is none."""
    keys = [key for key in header if re.match(r"^CTYPE[12][A-Z]$", key) and _SKY_AXIS.match(str(header[key]).upper())]
    return min((key[-1] for key in keys), default="")


def _renamed(header: Any, letter: str) -> tuple[fits.Header, list[str]]:
    """Cards and axes of an alternate WCS under the names of the first."""
    cards = fits.Header()
    for card in header.cards:
        name = card.keyword.removesuffix(letter)
        shared = name == card.keyword and name in ("NAXIS", "NAXIS1", "NAXIS2", "MJD-OBS", "DATE-OBS")
        if shared or (name != card.keyword and _WCS_CARD.match(name)):
            cards[name] = card.value
    return cards, _ctypes(cards)


def _elsewhere(axes: list[str], cards: fits.Header) -> str:
    """Sentence on sky axes that are not those of the image, or are not named."""
    sky = [str(number) for number, axis in enumerate(axes, start=1) if _SKY_AXIS.match(axis)]
    if not sky and not any(axes[:2]) and _looks_like_sky(cards):
        return "it has no CTYPE1 and CTYPE2, though CRVAL and the scale are those of a place on the sky"
    return f"its sky is on axes {' and '.join(sky)}, not on the first two" if sky else ""


def _looks_like_sky(cards: fits.Header) -> bool:
    """Whether cards without CTYPE have a reference in degrees and a scale that no count of pixels has."""
    longitude, latitude = (_number(cards.get(f"CRVAL{axis}")) for axis in (1, 2))
    scales = [_number(cards.get(key)) or 0.0 for key in ("CD1_1", "CD1_2", "CDELT1", "CD2_1", "CD2_2", "CDELT2")]
    if longitude is None or latitude is None or not -360 <= longitude <= 360 or not -90 <= latitude <= 90:
        return False
    return bool(longitude or latitude) and all(
        0 < max(map(abs, part)) < _LARGE_PIXEL for part in (scales[:3], scales[3:])
    )


def _repair(cards: fits.Header, notes: list[str]) -> str:
    """Bring cards into a form that has one meaning, saying what is assumed; a sentence where there is none."""
    for card in [card for card in cards.cards if isinstance(card.value, str) and _NUMBER_CARD.match(card.keyword)]:
        number = _number(card.value)
        if number is None:
            return f"{card.keyword} is {card.value!r}, no number"
        cards[card.keyword] = number
    if mixed := _drop_axes(cards):
        return mixed
    if problem := _check_reference(cards, notes) or _check_scale(cards, notes):
        return problem
    _check_frame(cards, notes)
    return ""


def _drop_axes(cards: fits.Header) -> str:
    """Keep the cards of the image's two axes; a sentence where the sky depends on another axis."""
    references = {axis: cards.get(f"CRPIX{axis}", 0.0) for axis in range(3, 10)}
    for keyword in list(cards):
        axes: tuple[int, ...] = ()
        if match := _AXIS_CARD.match(keyword):
            axes = (int(match[2]),)
        elif match := _MATRIX_CARD.match(keyword):
            axes = (int(match[1] or match[3]), int(match[2] or match[4]))
            if axes[0] < 3 <= axes[1] and cards[keyword] and references.get(axes[1]) != 1:
                return f"its sky depends on axis {axes[1]} ({keyword} is {cards[keyword]})"
        if axes and max(axes) > 2:
            del cards[keyword]
    if "WCSAXES" in cards:
        cards["WCSAXES"] = 2
    if "NAXIS" in cards:
        cards["NAXIS"] = 2
    for keyword in ("NAXIS1", "NAXIS2"):  # a second card of that name, as an extension may have, is no size
        side = cards.get(keyword)
        cards.remove(keyword, ignore_missing=True, remove_all=True)
        if isinstance(side, int) and side > 0:
            cards[keyword] = side
    return ""


def _check_reference(cards: fits.Header, notes: list[str]) -> str:
    """A sentence where half of the reference is missing: the standard has 0 for it, which nobody means then."""
    missing = [key for key in ("CRVAL1", "CRVAL2") if _number(cards.get(key)) is None]
    if not missing or ("AMDX1" in cards and "PLTRAH" in cards):
        return ""
    if len(missing) == 1:
        return f"it has no {missing[0]}"
    notes.append("its WCS has no CRVAL1 and CRVAL2: 0 is taken for both, as the FITS standard has it")
    return ""


def _check_scale(cards: fits.Header, notes: list[str]) -> str:
    rows = {1: 0.0, 2: 0.0}
    matrix = [key for key in cards if re.match(r"^CD[12]_[12]$", key)]
    for key in matrix:
        rows[int(key[2])] += abs(float(cards[key]))
    if matrix and not all(rows.values()):
        return f"its CD matrix has no row for axis {1 if not rows[1] else 2}"
    plate = "AMDX1" in cards and "XPIXELSZ" in cards
    if not matrix and not plate and ("CDELT1" not in cards or "CDELT2" not in cards):
        notes.append("its WCS says no pixel scale (no CDELT, no CD): 1 degree per pixel is taken")
    return ""


def _check_frame(cards: fits.Header, notes: list[str]) -> None:
    """Names of frames as the standard has them, and equinoxes that are years."""
    name = "RADESYS" if "RADESYS" in cards else "RADECSYS"
    frame = str(cards.get(name, "")).strip().upper()
    if frame in _FRAMES:
        cards[name], cards["EQUINOX"] = _FRAMES[frame]
    elif frame:
        cards[name] = frame
    for key in ("EQUINOX", "EPOCH"):
        year = _number(str(cards.get(key, "")).strip().upper().removeprefix("J").removeprefix("B"))
        if year is not None and not _YEARS[0] <= year <= _YEARS[1]:
            notes.append(f"its {key} {cards[key]} is no year and is passed over")
            del cards[key]
    odd = "EQUINOX" not in cards and _number(cards.get("EPOCH")) not in (None, 1875.0, 1900.0, 1950.0, 2000.0)
    if odd and frame != "ICRS" and "PLTRAH" not in cards:
        notes.append(f"its WCS has no EQUINOX: EPOCH {cards['EPOCH']} is taken for it")


def _tables(header: Any, hdus: Any) -> tuple[list[lookup.LookupTable], str]:
    """Lookup tables of an array's WCS, and what is lost of its distortion."""
    named = [key for key in header if _TABLES.match(key) and _is_lookup(header, key)]
    other = [key for key in header if _OTHER_DISTORTION.match(key) and not _is_lookup(header, key)]
    if other:
        told = f"its distortion {other[0]} {header[other[0]]!r} is left out"
        return [], f"{told}: positions may be off by {_largest(header, 'CPERR', 'CQERR')}"
    if not named:
        return [], ""
    known = _largest(header, "CPERR", "D2IMERR")
    if hdus is None:
        return [], f"lookup tables of its WCS ({', '.join(named)}) are left out: positions may be off by {known}"
    try:
        with astropy_quiet():
            tables = lookup.tables_of(fits_wcs.WCS(header, hdus))
    except Exception as error:  # noqa: BLE001 (whatever is missing or damaged there)
        told = f"lookup tables of its WCS ({', '.join(named)}) cannot be read ({_reason(error)})"
        return [], f"{told}: positions may be off by {known}"
    if sum(table.values.size for table in tables) > lookup.MOST_VALUES:
        largest = max(float(np.nanmax(np.abs(table.values))) for table in tables)
        return [], f"lookup tables of its WCS are too large and left out: positions are off by up to {largest:.2g} px"
    return tables, ""


def _is_lookup(header: Any, key: str) -> bool:
    return key == "AXISCORR" or str(header[key]).strip().upper() == "LOOKUP"


def _largest(header: Any, *prefixes: str) -> str:
    """The largest correction that the header states, in words."""
    errors = [_number(header.get(f"{prefix}{axis}")) for prefix in prefixes for axis in (1, 2)]
    known = [error for error in errors if error is not None]
    return f"up to {max(known):.2g} px" if known else "an unknown number of pixels"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
