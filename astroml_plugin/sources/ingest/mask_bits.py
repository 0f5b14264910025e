"""Names of mask bits: read from headers, or known by telescope, and the `MaskBit` that each becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit

_IGNORED = 0
_BITS = 64

_WORDS: tuple[tuple[str, int], ...] = (
    (r"NO_?DATA|NOCOV|NON_SCIENCE|BLANK|OUTSIDE|FILLED", MaskBit.NO_DATA),
    (r"UNMASKED_?NAN|^NAN", MaskBit.UNMASKED_NAN),
    (r"DETECTED_NEGATIVE", MaskBit.DETECTED_NEGATIVE),
    (r"^DETECTED|^OBJECT|^DETECTION", MaskBit.DETECTED),
    (r"^SAT|SATUR|^A2D|FULL_?WELL", MaskBit.SATURATED),
    (r"^CR$|CRAY|COSMIC", MaskBit.COSMIC_RAY),
    (r"CROSS_?TALK|SSXTALK", MaskBit.CROSSTALK),
    (r"SENSOR_EDGE", MaskBit.SENSOR_EDGE),
    (r"EDGE", MaskBit.EDGE),
    (r"^INTRP|INTERP", MaskBit.INTERPOLATED),
    (r"STREAK|TRAIL|SATELLITE|AIRCRAFT", MaskBit.STREAK),
    (r"SUSPECT|POOR", MaskBit.SUSPECT),
    (r"^CLIPPED", MaskBit.CLIPPED),
    (r"INEXACT_PSF", MaskBit.INEXACT_PSF),
    (r"^REJECTED", MaskBit.REJECTED),
    (r"NOT_DEBLENDED", MaskBit.NOT_DEBLENDED),
    (r"^BAD|DO_?NOT_?USE|DEAD|^HOT|^FLAT$|^DARK$|^CTE|BPM|NOISY|DEFECT|BAD$|DETECTOR|LOW RESP|HIGH RESP", MaskBit.BAD),
)

_JWST: dict[int, int] = {
    **{0: MaskBit.BAD, 1: MaskBit.SATURATED, 9: MaskBit.NO_DATA},
    **dict.fromkeys([*range(2, 9), *range(10, 32)], _IGNORED),
}
"""JWST: only DO_NOT_USE (bit 0) forbids a pixel; SATURATED (1) and NON_SCIENCE (9) have names here, the others tell how
it was calibrated. Source: the data quality flags of the JWST calibration pipeline."""

_ACS: dict[int, int] = {
    **dict.fromkeys((0, 2, 4, 7, 9), MaskBit.BAD),
    **dict.fromkeys((8, 11), MaskBit.SATURATED),
    **dict.fromkeys((12, 13), MaskBit.COSMIC_RAY),
    **{1: MaskBit.NO_DATA, 3: _IGNORED, 5: _IGNORED, 6: _IGNORED, 10: _IGNORED, 14: MaskBit.OTHER},
}
"""ACS, and the UVIS channel of WFC3: bits 0 decoding error, 1 filled, 2 bad detector, 4 hot, 7 bad in the bias, 8 and
11 saturated, 9 bad flat or blob, 12 and 13 cosmic ray; 3, 5, 6 and 10 (unstable, warm, trapped charge) tell no more
than a larger error. Source: ACS Data Handbook, table 3.4; WFC3 Data Handbook, table 3.3."""

_WFC3_IR: dict[int, int] = {
    **dict.fromkeys((0, 2, 3, 4, 7, 9), MaskBit.BAD),
    **{1: MaskBit.NO_DATA, 8: MaskBit.SATURATED, 12: MaskBit.COSMIC_RAY, 13: MaskBit.COSMIC_RAY, 14: MaskBit.SUSPECT},
    **dict.fromkeys((5, 6, 10, 11), _IGNORED),
}
"""Infrared channel of WFC3: 3 deviant zero read, 10 spike, 11 signal in the zero read (corrected), 14 more cosmic rays
than can be told; others as ACS. Source: flags of calwf3 (hstcal)."""

_STIS: dict[int, int] = {
    **dict.fromkeys((0, 2, 3, 4, 5, 9), MaskBit.BAD),
    **{1: MaskBit.NO_DATA, 7: MaskBit.NO_DATA, 8: MaskBit.SATURATED, 13: MaskBit.COSMIC_RAY},
    **dict.fromkeys((10, 11, 12, 14), _IGNORED),
}
"""STIS: 3 behind an occulting bar, 4 hot, 5 large blemish, 7 overscan, 8 saturated, 9 bad in a reference file, 13
rejected when images were combined; 10 small blemish, 11 and 12 (of extracted spectra) and 14 (charge transfer not
corrected) tell no more than a larger error. Source: flags of calstis (hstcal)."""

_NICMOS: dict[int, int] = {
    **dict.fromkeys((0, 4, 5, 8), MaskBit.BAD),
    **dict.fromkeys((1, 2, 3, 14), MaskBit.SUSPECT),
    **{6: MaskBit.SATURATED, 7: MaskBit.NO_DATA, 9: MaskBit.COSMIC_RAY, 12: MaskBit.COSMIC_RAY},
    **dict.fromkeys((10, 11), _IGNORED),
}
"""NICMOS: 1 to 3 poor linearity, dark, flat; 4 grot, 5 defect, 6 saturated, 7 telemetry lost, 8 bad by calibration, 9
cosmic ray, 12 the same of AstroDrizzle, 14 more than can be told; 10 (an object) and 11 (signal in the zero read,
corrected) say nothing bad. Source: task dqpar and calnica of STSDAS."""

_PAN_STARRS: dict[int, int] = {
    **dict.fromkeys((0, 1, 2, 4, 6, 13), MaskBit.BAD),
    **{3: MaskBit.NO_DATA, 5: MaskBit.SATURATED, 7: MaskBit.SUSPECT, 8: MaskBit.COSMIC_RAY, 11: MaskBit.STREAK},
    **{9: MaskBit.OTHER, 10: MaskBit.OTHER, 12: _IGNORED, 14: MaskBit.SUSPECT},
}
"""Pan-STARRS 1, bits 1 to 14: flat, dark, blank, CTE, saturated, low, suspect, cosmic ray, spike, ghost, streak,
star core, bad and poor after convolution. Source: PS1 pixel flags in image table data, MAST."""

_ZTF: dict[int, int] = {
    **{0: MaskBit.STREAK, 1: MaskBit.DETECTED, 4: MaskBit.BAD, 6: MaskBit.CROSSTALK, 8: MaskBit.SATURATED},
    **dict.fromkeys((2, 3, 7, 9, 10), MaskBit.BAD),
    **{5: MaskBit.OTHER, 11: _IGNORED, 12: MaskBit.OTHER},
}
"""ZTF: track, object, low and high response, noisy, ghost, crosstalk, dead, saturated, NaN, halo.
Source: ZTF Science Data System."""

_LEGACY: dict[int, int] = {
    **dict.fromkeys((0, 1, 8, 9, 10, 11, 12, 13), _IGNORED),
    **dict.fromkeys((2, 3, 4, 14), MaskBit.SATURATED),
    **dict.fromkeys((5, 6, 7, 15), MaskBit.BAD),
}
"""Legacy Surveys `maskbits`: saturated and ALLMASK in g, r, z, i count; the others mark neighbourhoods.
Source: DR9, DR10 bitmasks."""

_WISE_MASK: dict[int, int] = {
    **dict.fromkeys((0, 1, 5, 7), _IGNORED),
    **{2: MaskBit.OTHER, 3: MaskBit.OTHER, 4: MaskBit.OTHER, 6: MaskBit.SATURATED},
}
"""Legacy Surveys WISEM1, WISEM2: ghost, two latents, saturation count; the others mark neighbourhoods of bright stars.
Source: DR9, DR10 bitmasks."""

_WFPC: dict[int, int] = {
    **dict.fromkeys((0, 1, 2, 5, 9), MaskBit.BAD),
    **{3: MaskBit.SATURATED, 4: MaskBit.NO_DATA, 7: MaskBit.COSMIC_RAY, 11: MaskBit.NO_DATA},
    **dict.fromkeys((6, 8, 10), _IGNORED),
}
"""WF/PC-1 and WFPC2: bits 0 decoding error, 1 bad calibration, 2 permanent defect, 3 saturated, 4 missing, 5 other, 7
cosmic ray, 9 hot, 11 chip masked out; 6 (overlap of chips), 8 (above a charge trap) and 10 (hot, repaired) tell no more
than a larger error. Source: package wfpc of STSDAS; WFPC2 Data Handbook, table 3.4."""

_TABLES = (
    ("JWST", _JWST),
    ("ROMAN", _JWST),
    ("PS1", _PAN_STARRS),
    ("ZTF", _ZTF),
    ("LEGACYSURVEY", _LEGACY),
)
_INSTRUMENTS = {
    **{"ACS": _ACS, "WFC3": _ACS, "STIS": _STIS, "NICMOS": _NICMOS},
    **dict.fromkeys(("WFPC", "WFPC2", "WF/PC", "WF/PC-1"), _WFPC),
}
"""Instruments of HST whose bits are known: those of others (FOC, COS) are another thing."""


def bits_in_header(header: Mapping[str, str]) -> dict[int, str]:
    """Bit -> name, from MP_ (LSST), MSKN (DMTN-252), MSKNAM (Pan-STARRS) and BITnn (ZTF, PTF) cards.

    Args:
        header: card -> "value / comment".
    """
    found: dict[int, str] = {}
    for key, text in header.items():
        value, _, comment = (part.strip() for part in text.partition(" / "))
        if key.startswith("MP_") and value.isdecimal():
            found[int(value)] = key[3:]
        elif re.fullmatch(r"MSKN\d{4}", key):
            number = _integer(header.get(f"MSKM{key[4:]}", ""))
            found[int(key[4:]) if number is None else number.bit_length() - 1] = value
        elif re.fullmatch(r"MSKNAM\d+", key):
            number = _integer(header.get(f"MSKVAL{key[6:]}", ""))
            if number:
                found[number.bit_length() - 1] = value
        elif re.fullmatch(r"BIT\d+", key):
            found[int(key[3:])] = comment if _integer(value) is not None else value
    if beyond := [bit for bit in found if bit >= _BITS]:
        raise InputError(
            f"the header names bit {str(min(beyond))[:20]} of the mask ({found[min(beyond)][:40]}), and masks have "
            f"{_BITS} at most: correct it, or say what the mask means with --mask-map"
        )
    return {bit: name for bit, name in found.items() if name}


def _integer(text: str) -> int | None:
    value = text.partition(" / ")[0].strip()
    return int(value) if value.isdecimal() else None


def meaning_of(name: str) -> int:
    """`MaskBit` of a bit that is called `name`; OTHER for names that are not known."""
    plain = name.strip().upper().replace(" ", "_")
    if plain in MaskBit.__members__:
        return int(MaskBit[plain])
    return next((int(bit) for words, bit in _WORDS if re.search(words, plain)), int(MaskBit.OTHER))


def shipped_table(header: Mapping[str, str], name: str = "") -> tuple[tuple[int, int], ...] | None:
    """(bit value, `MaskBit`) of a telescope whose masks name no bits; None for others.

    Args:
        header: of the mask.
        name: EXTNAME in capitals.
    """
    telescope, instrument, survey, detector = (
        header.get(card, "").strip().upper() for card in ("TELESCOP", "INSTRUME", "SURVEY", "DETECTOR")
    )
    told = " ".join((telescope, instrument, survey))
    if name.startswith("WISEM"):
        table: dict[int, int] | None = _WISE_MASK
    elif "HST" in telescope:
        table = _WFC3_IR if (instrument, detector) == ("WFC3", "IR") else _INSTRUMENTS.get(instrument)
    else:
        table = next((bits for word, bits in _TABLES if word in told), None)
    return None if table is None else tuple((1 << bit, int(meaning)) for bit, meaning in table.items())
