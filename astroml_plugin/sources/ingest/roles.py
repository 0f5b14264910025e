"""Role of each plane of a file: by hand, by its keywords, name, units, or the file's name; never by position alone.

Pixels only check what a name tells: a variance has no negative values, a mask only whole ones.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from astropy import units as u

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.opening import stem_of
from astroml_plugin.sources.ingest.planes import Plane
from astroml_plugin.sources.ingest.samples import Sample
from astroml_plugin.sources.ingest.units import unit_of
from astroml_plugin.sources.ingest.words import (
    EXPOSURE,
    IMAGE,
    LABELS,
    MASK,
    OTHER,
    PSF,
    ROLES,
    STD,
    UNCLEAR,
    VARIANCE,
    WEIGHT,
    Reading,
    one_image_twice,
    one_series,
    read_file_name,
    read_name,
)

_HDUCLAS3 = {
    **dict.fromkeys(("MSE", "VARIANCE"), VARIANCE),
    **dict.fromkeys(("RMSE", "RMS", "STDDEV"), STD),
    **dict.fromkeys(("INVMSE", "INVERSE_VARIANCE"), WEIGHT),
}
"""Kinds of errors of ESO's and MaNGA's headers; "INVRMSE" is none that is read here."""

_UTYPES = {"stddevuncertainty": STD, "varianceuncertainty": VARIANCE, "inversevariance": WEIGHT}
"""Kinds of uncertainty of astropy's NDData."""

_SPECTRAL = re.compile(r"^(WAVE|AWAV|LAMBDA|FREQ|VELO|VRAD|VOPT|FELO|ZOPT|BETA|ENER|WAVN|TIME|ANGLE|STOKES)")
_CALIBRATION = re.compile(
    r"^(BIAS|ZERO|DARK|TWILIGHT|ARC([ _-]?LAMP)?|LAMP|COMP|COMPARISON|FRINGE|PINHOLE|OVERSCAN|SUPERSKY"
    r"|((DOME|SKY|SUPER|TWI|TWILIGHT|INST|LED|LAMP)[ _-]?)?FLAT([ _-]?(FIELD|LAMP|LAMPS|FRAME))?S?)(?![A-Z])"
)
_MASTER = re.compile(r"(^|_)(BIAS|DARK|FLAT|ARC|LED|LAMPFLAT|AUTOFLAT)(_|$)")
"""In ESO PRO CATG and JWST's EXP_TYPE."""

_CONTENTS = (
    (r"\bEXP(OSURE)?[ _]?MAP$", EXPOSURE),
    (r"\b(BACKGROUND|BKG|SENSITIVITY|UPPER LIMIT)[ _]?(MAP|IMAGE)$", OTHER),
    (r"\b(DETECTION|DET|EXCLUSION)[ _]?MASK$", MASK),
)
"""Ends of CONTENT, the card by which X-ray missions (XMM, Chandra) tell their maps."""

_SERIES = ("RATEINTS", "CALINTS", "CRFINTS")
"""Ends of names of JWST's files with one plane per integration."""

_FEW = 0.05
"""Share of negative pixels that a map of errors or weights may have: marks, and slips of an interpolation."""

_LARGE_PSF = 512
"""Pixels across from which a plane with sky coordinates is an image, whatever a file's name says of a PSF."""


def given_roles(text: str) -> dict[str, str]:
    """Roles by hand, as "SCI=image,ERR=std,*.FLG=mask": EXTNAME, pattern or HDU number -> role.

    Raises:
        InputError: no such role, or no pairs.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    found = {name.strip(): role.strip().lower() for name, _, role in pairs}
    wrong = [role for role in found.values() if role not in ROLES]
    if not found or wrong or not all(found):
        raise InputError(f"roles {text!r} must read NAME=ROLE,... with roles out of {', '.join(ROLES)}")
    return found


def with_roles(planes: Sequence[Plane], stem: str, given: Mapping[str, str]) -> list[Plane]:
    """Planes of one file with their roles, why, and keys.

    Args:
        planes: planes of one file, in order.
        stem: the file's name without folder and suffixes.
        given: roles by hand, see `given_roles`; others are found by rule.

    Raises:
        InputError: names in `given` match no plane.
    """
    hit = {name for name in given if any(_matches(name, plane) for plane in planes)}
    if given and not hit:
        names = ", ".join(plane.extname for plane in planes)
        raise InputError(f"{stem}: roles are given for {', '.join(given)}, its planes are {names}")
    named = read_file_name(stem)
    found = [_by_hand(plane, given) or _checked(_by_rule(plane, named)) for plane in planes]
    if any(plane.role and not _by_file_name(plane) for plane in found):  # a file of several kinds: its name tells none
        found = [_by_hand(plane, given) or _checked(_by_rule(plane, None)) for plane in planes]
    return _settled(_versions(_by_reference(found)))


def _by_file_name(plane: Plane) -> bool:
    return plane.why.startswith("file name")


def _matches(name: str, plane: Plane) -> bool:
    names = (plane.extname, f"{plane.extname},{plane.version}", str(plane.hdu), *(["PRIMARY"] if not plane.hdu else []))
    return any(fnmatch.fnmatchcase(one.upper(), name.upper()) for one in names)


def _by_hand(plane: Plane, given: Mapping[str, str]) -> Plane | None:
    role = next((role for name, role in given.items() if _matches(name, plane)), None)
    if role is None:
        return None
    reading = read_name(plane.name)
    return replace(plane, role=role, why="by hand (roles)", key=plane.name.upper() if reading is None else reading.key)


def _by_rule(plane: Plane, named: Reading | None) -> Plane:
    """Plane with the first role that a keyword, its name, its axes, its unit or the file's name tells; "" for none."""
    reading = read_name(plane.name)
    key = plane.name.upper() if reading is None else reading.key
    plane = replace(plane, key=key)
    if (header := _by_header(plane)) is not None:
        return replace(plane, role=header[0], why=header[1])
    said = _by_keywords(plane)
    axis = next((value for value in plane.axes if _SPECTRAL.match(value)), None)
    named_otherwise = reading is not None and reading.role == OTHER and said is not None and said[0] == IMAGE
    if (said is None and reading is not None and (reading.role != IMAGE or axis is None)) or named_otherwise:
        assert reading is not None
        said = (reading.role, f"EXTNAME {plane.name}")
    if said is not None and said[0] != IMAGE:
        return replace(plane, role=said[0], why=said[1])
    if "dispersed" in plane.cards:
        return replace(plane, role=OTHER, why=f"{plane.cards['dispersed']} is a card of dispersed light: spectra")
    if axis is not None:
        return replace(plane, role=OTHER, why=f"an axis of it is {axis}: no image of the sky")
    if min(plane.shape) < 2:
        return replace(plane, role=OTHER, why="one row or column: a spectrum or a table")
    if (by_unit := _by_unit(plane)) is not None:
        return replace(plane, role=by_unit[0], why=by_unit[1])
    if named is not None and _fits(named.role, plane):
        return replace(plane, role=named.role, why=f"file name ({named.word})")
    if said is None and plane.sample is not None and plane.sample.symmetric:
        return replace(plane, role=OTHER, why="looks the same turned by 180 degrees: a kernel or a correlation")
    return plane if said is None else replace(plane, role=said[0], why=said[1])


def _by_keywords(plane: Plane) -> tuple[str, str] | None:
    kind, detail = plane.cards.get("HDUCLAS2", "").upper(), plane.cards.get("HDUCLAS3", "").upper()
    if kind == "DATA":
        return IMAGE, "HDUCLAS2 DATA"
    if kind == "QUALITY":
        return MASK, f"HDUCLAS2 QUALITY {detail}".strip()
    if kind == "ERROR" and detail:
        known = _HDUCLAS3.get(detail)
        return (known, f"HDUCLAS3 {detail}") if known else (OTHER, f"HDUCLAS3 {detail}: errors of a kind not read here")
    utype = plane.cards.get("UTYPE", "")
    if utype:
        known = _UTYPES.get(utype.lower().rpartition(".")[2])
        if known or "uncertainty" in utype.lower():
            return (known, f"UTYPE {utype}") if known else (OTHER, f"UTYPE {utype}: which kind of errors is not said")
    return None


def _by_header(plane: Plane) -> tuple[str, str] | None:
    """OTHER for what the header tells to be no image of the sky, whatever its planes are called."""
    for card in ("IMAGETYP", "OBSTYPE", "FRAMETYP", "DATA-TYP", "KOAIMTYP", "ESO DPR TYPE"):
        if _CALIBRATION.match(plane.cards.get(card, "").upper()):
            return OTHER, f"{card} {plane.cards[card]}: a calibration frame"
    for card in ("ESO PRO CATG", "EXP_TYPE"):
        if _MASTER.search(plane.cards.get(card, "").upper()):
            return OTHER, f"{card} {plane.cards[card]}: a calibration frame"
    if plane.cards.get("ESO DPR CATG", "").upper() == "CALIB":
        kind = plane.cards.get("ESO DPR TYPE", "").upper()
        if not kind.startswith(("STD", "OBJECT", "SKY")) and "ESO PRO CATG" not in plane.cards:
            return OTHER, "ESO DPR CATG CALIB: a calibration frame"
    content = plane.cards.get("CONTENT", "").upper()
    if (role := next((role for words, role in _CONTENTS if re.search(words, content)), None)) is not None:
        return role, f"CONTENT {plane.cards['CONTENT']}"
    last = stem_of(plane.url).upper().rpartition("_")[2]
    if plane.planes and (last in _SERIES or plane.cards.get("DATAMODL", "").upper() == "CUBEMODEL"):
        return OTHER, "its planes are integrations of one exposure, no bands: use the file of their mean (rate, cal)"
    return (OTHER, plane.cards["stack"]) if "stack" in plane.cards else None


def _by_unit(plane: Plane) -> tuple[str, str] | None:
    """Role by units that are not those of light."""
    if re.match(r"^(mag|ABmag|STmag|dex|dB|log(10)?|ln)\b", plane.unit, re.IGNORECASE):
        return OTHER, f"BUNIT {plane.unit}: magnitudes and logarithms do not add up; store them as flux"
    unit = unit_of(plane.unit)
    if unit is None:
        return None
    kind = unit.physical_type
    if kind == "time":
        return EXPOSURE, f"BUNIT {plane.unit}"
    if kind in ("speed", "angle", "length") or unit == u.percent:
        return OTHER, f"BUNIT {plane.unit}: no light"
    if kind == "temperature" and "radio" not in plane.cards:
        return OTHER, f"BUNIT {plane.unit}: a temperature, and no beam or frequency tells that it is a brightness"
    return None


def _fits(role: str, plane: Plane) -> bool:
    """Whether the pixels are such as the role can have."""
    sample = plane.sample
    if sample is None or not np.isfinite(sample.median):
        return True
    if role == PSF and plane.header is not None and max(plane.shape) >= _LARGE_PSF:
        return False
    return _contradiction(role, sample) is None


def _contradiction(role: str, sample: Sample) -> str | None:
    if role in (VARIANCE, STD, WEIGHT, EXPOSURE) and sample.negative > _FEW:
        return f"{sample.negative:.0%} of its pixels are below 0"
    if role in (MASK, LABELS) and not sample.whole:
        return "its pixels are no whole numbers"
    return None


def _checked(plane: Plane) -> Plane:
    """A plane whose pixels cannot be what its name tells is set aside, which the ingest says."""
    wrong = None if plane.sample is None else _contradiction(plane.role, plane.sample)
    if wrong is None:
        return plane
    why = f"{plane.why} tells {plane.role}, but {wrong}"
    return replace(plane, role=OTHER, why=why, lost=True)


def _by_reference(planes: list[Plane]) -> list[Plane]:
    """Planes that others name as their quality or errors, and planes whose unit is that of another one squared."""
    quality, errors = (
        {plane.cards.get(card, "").upper() for plane in planes} - {""} for card in ("QUALDATA", "ERRDATA")
    )
    dark = {plane.name.upper(): plane for plane in planes if plane.role == OTHER and plane.name}
    found = []
    for plane in planes:
        if not plane.role and plane.name.upper() in quality:
            plane = replace(plane, role=MASK, why=f"QUALDATA names {plane.name}")
        if plane.role in ("", STD):
            plane = _by_square(plane, planes)
        if (
            plane.role in (VARIANCE, STD, WEIGHT, MASK)
            and (owner := dark.get(plane.cards.get("SCIDATA", "").upper())) is not None
        ):
            plane = replace(plane, role=OTHER, why=f"it belongs to {owner.name}, which is no image ({owner.why})")
        if not plane.role and plane.name.upper() in errors:
            why = f"ERRDATA names {plane.name}, and nothing says which kind of errors it holds"
            plane = replace(plane, role=OTHER, why=why, lost=True)
        found.append(plane)
    return found


def _versions(planes: list[Plane]) -> list[Plane]:
    """Images by name that may be one image twice, as SCI and SCI_BKSUB: unclear, or left out beside one by hand."""
    hand = [plane for plane in planes if plane.role == IMAGE and plane.why.startswith("by hand")]
    named = [plane for plane in planes if plane.role == IMAGE and plane.why.startswith("EXTNAME")]
    found = []
    for plane in planes:
        alike = [other for other in named + hand if plane in named and _on_one_place_twice(plane, other)]
        if chosen := [other for other in alike if other in hand]:
            why = f"{plane.why}, but {chosen[0].extname} is the image by hand (roles)"
            plane = replace(plane, role=OTHER, why=why, lost=True)
        elif alike:
            told = ", ".join(other.extname for other in alike)
            plane = replace(plane, role=UNCLEAR, why=f"EXTNAME {plane.name} may be the image of {told} once more")
        found.append(plane)
    return found


def _on_one_place_twice(one: Plane, other: Plane) -> bool:
    if one is other or (one.planes, one.version) != (other.planes, other.version) or one.name == other.name:
        return False
    if one.header is None or one.header != other.header or one.shape != other.shape:
        return False
    return one_image_twice(one.key, other.key)


def _by_square(plane: Plane, planes: Sequence[Plane]) -> Plane:
    """A plane whose unit is the square (or inverse square) of an image's unit is its variance (or weight)."""
    if not plane.own_unit or plane.why.startswith(("HDUCLAS", "UTYPE", "by hand")):
        return plane
    unit = unit_of(plane.unit)
    lights = [unit_of(other.unit) for other in planes if other is not plane and other.role in ("", IMAGE)]
    for light in lights:
        if unit is None or light is None or light == u.dimensionless_unscaled:
            continue
        for power, role in ((2, VARIANCE), (-2, WEIGHT)):
            if unit.is_equivalent(light**power) and not unit.is_equivalent(light):
                return replace(plane, role=role, why=f"BUNIT {plane.unit} is that of the image to the power {power}")
    return plane


def _settled(planes: list[Plane]) -> list[Plane]:
    """Planes about which nothing was said: images, left out beside a named image, or unclear."""
    unsaid = [plane for plane in planes if not plane.role]
    named = [plane for plane in planes if plane.role == IMAGE]
    if named:
        why = f"no rule knows its name, and {named[0].extname} is the image"
        return [plane if plane.role else replace(plane, role=OTHER, why=why, lost=True) for plane in planes]
    unclear = _twins(unsaid)
    return [plane if plane.role else _unsaid(plane, unclear, len(unsaid)) for plane in planes]


def _unsaid(plane: Plane, unclear: Mapping[int, Sequence[int]], count: int) -> Plane:
    if plane.hdu in unclear:
        others = ", ".join(str(number) for number in unclear[plane.hdu])
        why = f"shape and WCS are those of HDU {others}, and nothing tells them apart"
        return replace(plane, role=UNCLEAR, why=why)
    why = "nothing says that it is anything else" if count == 1 else "its shape, WCS or name tells it from the others"
    return replace(plane, role=IMAGE, why=why)


def _twins(planes: Sequence[Plane]) -> dict[int, list[int]]:
    """HDU -> other HDUs that may be of the same pixels, for planes that neither names nor WCS tell apart."""
    if one_series([plane.name for plane in planes]) or one_series([plane.key for plane in planes]):
        return {}
    if len({plane.shape for plane in planes}) > 1 and not any(plane.header for plane in planes):
        return {}  # a collection of stamps
    found: dict[int, list[int]] = {}
    for plane in planes:
        alike = [other for other in planes if other is not plane and _same_grid(plane, other)]
        if alike:
            found[plane.hdu] = [other.hdu for other in alike]
    return found


def _same_grid(one: Plane, other: Plane) -> bool:
    """Whether two planes may be of the same pixels: one shape, and one WCS, or none for either of them."""
    if one.shape != other.shape:
        return False
    return one.header is None or other.header is None or one.header == other.header
