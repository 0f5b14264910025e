"""Input masks, weights and saturation, turned into the survey's named mask bits and variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.sources.ingest.mask_bits import bits_in_header, meaning_of, shipped_table
from astroml_plugin.sources.ingest.planes import Plane

CP_CODES: dict[int, MaskBit] = {
    **{1: MaskBit.BAD, 2: MaskBit.NO_DATA, 3: MaskBit.SATURATED, 4: MaskBit.SATURATED},
    **{5: MaskBit.COSMIC_RAY, 6: MaskBit.BAD, 7: MaskBit.OTHER, 8: MaskBit.STREAK},
}
"""NOIRLab Community Pipeline `ood` values since V3.5 (one code a pixel): 1 bad, 2 no value, 3 saturated, 4 bleed,
5 cosmic ray, 6 low weight, 7 difference detection, 8 long streak."""

CP_BITS: dict[int, MaskBit] = {
    **{1: MaskBit.BAD, 2: MaskBit.SATURATED, 4: MaskBit.INTERPOLATED, 16: MaskBit.COSMIC_RAY},
    **{64: MaskBit.SATURATED, 128: MaskBit.OTHER},
}
"""Community Pipeline `ood` bits before V3.5: 1 bad, 2 saturated, 4 interpolated, 16 cosmic ray, 64 bleed trail,
128 transient."""

_CODES_SINCE = (3, 5)
_IGNORE = "IGNORE"
"""Name of bits that tell nothing that matters."""


@dataclass(frozen=True)
class MaskMap:
    """How values of an input mask become `MaskBit`s."""

    kind: str
    """"bits" (each set bit means something), "codes" (the value is one code), "nonzero" (anything but 0 is BAD) or
    "zero" (0 is BAD)."""
    meaning: tuple[tuple[int, int], ...] = ()
    """(input bit value or code, MaskBit value; 0 where it tells nothing that matters)."""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Input mask of any integer or float kind -> uint32 `MaskBit`s of the same shape."""
        values = np.nan_to_num(values, nan=1).astype(np.int64)
        mask = np.zeros(values.shape, np.uint32)
        if self.kind in ("nonzero", "zero"):
            mask[(values != 0) == (self.kind == "nonzero")] = MaskBit.BAD
            return mask
        known = np.zeros(values.shape, bool) if self.kind == "codes" else 0
        for value, bit in self.meaning:
            hit = values == value if self.kind == "codes" else (values & value) != 0
            mask[hit] |= np.uint32(bit)
            known = known | (hit if self.kind == "codes" else value)
        unknown = (values != 0) & ~known if self.kind == "codes" else (values & ~np.int64(known)) != 0
        mask[unknown] |= np.uint32(MaskBit.OTHER)
        return mask


def mask_map(choice: str, plane: Plane) -> tuple[MaskMap, str]:
    """The map for a mask, and a sentence where it is a guess ("" else).

    Args:
        choice: "auto" (bit names in the header, else the tables of `mask_bits`, else nonzero), "codes", "bits",
            "nonzero", "zero", or an own map such as "codes:1=BAD,3=SATURATED" or "bits:1=BAD,8=COSMIC_RAY,4=IGNORE";
            "auto:BRIGHT_OBJECT=IGNORE,64=BAD" changes single bits, by the header's name or by value.
        plane: the mask.

    Raises:
        InputError: the choice cannot be read.
    """
    if choice == "auto":
        return _automatic(plane)
    if choice.startswith("auto:"):
        return _changed(_automatic(plane)[0], choice.removeprefix("auto:"), plane), ""
    kind, _, pairs = choice.partition(":")
    if kind not in ("codes", "bits", "nonzero", "zero"):
        raise InputError(
            f"mask_map {choice!r} must be auto, codes, bits, nonzero, zero or e.g. codes:1=BAD,3=SATURATED"
        )
    if not pairs:
        meaning = {"codes": CP_CODES, "bits": CP_BITS}.get(kind, {})
        return MaskMap(kind, _pairs(meaning)), ""
    try:
        given = [pair.split("=") for pair in pairs.split(",")]
        return MaskMap(kind, tuple((int(value, 0), _bit(name)) for value, name in given)), ""
    except (ValueError, KeyError) as error:
        names = ", ".join([*(bit.name or "" for bit in MaskBit), _IGNORE])
        raise InputError(f"mask_map {choice!r} must read KIND:VALUE=NAME,... with names out of {names}") from error


def _changed(found: MaskMap, text: str, plane: Plane) -> MaskMap:
    """The automatic map with single bits changed, by the name in the header or by value."""
    named = {name.upper(): 1 << bit for bit, name in bits_in_header(plane.keywords).items()}
    if found.kind not in ("bits", "codes"):
        raise InputError(f"mask_map 'auto:{text}': {plane.label} names no bits, give them all as bits:VALUE=NAME,...")
    meaning = dict(found.meaning)
    for pair in text.split(","):
        key, _, bit = (part.strip() for part in pair.partition("="))
        try:
            value = named[key.upper()] if key.upper() in named else int(key, 0)
            meaning[value] = _bit(bit)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"mask_map 'auto:{text}' must read auto:BIT=NAME,... with bits out of {', '.join(named)} or values, "
                f"and names out of {', '.join([*MaskBit.__members__, _IGNORE])}"
            ) from error
    return MaskMap(found.kind, tuple(meaning.items()))


def _bit(name: str) -> int:
    plain = name.strip().upper()
    return 0 if plain == _IGNORE else int(MaskBit[plain])


def _pairs(meaning: Mapping[int, MaskBit]) -> tuple[tuple[int, int], ...]:
    return tuple((value, int(bit)) for value, bit in meaning.items())


def _automatic(plane: Plane) -> tuple[MaskMap, str]:
    header, name = plane.keywords, plane.name.upper()
    if plane.cards.get("HDUCLAS3", "").upper() == "MASKONE" or name.startswith("GOOD"):
        return MaskMap("zero"), ""
    named = bits_in_header(header)
    if named:
        return MaskMap("bits", tuple((1 << bit, meaning_of(text)) for bit, text in named.items())), ""
    version = str(header.get("PLVER", "")).strip().lstrip("Vv").split(".")
    if len(version) >= 2 and all(part.isdigit() for part in version[:2]):
        if (int(version[0]), int(version[1])) >= _CODES_SINCE or "DECAM" not in str(header.get("INSTRUME", "")).upper():
            return MaskMap("codes", _pairs(CP_CODES)), ""
        return MaskMap("bits", _pairs(CP_BITS)), ""
    if (table := shipped_table(header, name)) is not None:
        return MaskMap("bits", table), ""
    guess = ""
    if header.get("BITPIX") != "8" or plane.sample is None or plane.sample.high > 1:
        guess = (
            f"what the values of {plane.label} mean is not known, so every pixel that is not 0 is BAD "
            "(say it with --mask-map)"
        )
    return MaskMap("nonzero"), guess


def variance_of_weight(weight: np.ndarray) -> np.ndarray:
    """Inverse-variance weight -> variance float64: NaN for a weight of 0, negative or not finite."""
    good = np.isfinite(weight) & (weight > 0)
    variance = np.full(weight.shape, np.nan)
    with np.errstate(over="ignore"):
        np.divide(1.0, weight, out=variance, where=good, casting="unsafe")
    return variance
