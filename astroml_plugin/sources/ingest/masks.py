"""Input masks, weights and saturation, turned into the survey's named mask bits and variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit

LSST_PLANES: dict[str, MaskBit] = {
    **{"SAT": MaskBit.SATURATED, "INTRP": MaskBit.INTERPOLATED, "CR": MaskBit.COSMIC_RAY},
    **{"UNMASKEDNAN": MaskBit.UNMASKED_NAN},
}
"""LSST plane names that differ from ours; the others are looked up by name, what is left becomes OTHER."""

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


@dataclass(frozen=True)
class MaskMap:
    """How values of an input mask become `MaskBit`s."""

    kind: str
    """"bits" (each set bit means something), "codes" (the value is one code) or "nonzero" (anything but 0 is BAD)."""
    meaning: tuple[tuple[int, int], ...] = ()
    """(input bit value or code, MaskBit value)."""

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Input mask of any integer or float kind -> uint32 `MaskBit`s of the same shape."""
        values = np.nan_to_num(values, nan=1).astype(np.int64)
        mask = np.zeros(values.shape, np.uint32)
        if self.kind == "nonzero":
            mask[values != 0] = MaskBit.BAD
            return mask
        known = np.zeros(values.shape, bool) if self.kind == "codes" else 0
        for value, bit in self.meaning:
            hit = values == value if self.kind == "codes" else (values & value) != 0
            mask[hit] |= np.uint32(bit)
            known = known | (hit if self.kind == "codes" else value)
        unknown = (values != 0) & ~known if self.kind == "codes" else (values & ~np.int64(known)) != 0
        mask[unknown] |= np.uint32(MaskBit.OTHER)
        return mask


def mask_map(choice: str, header: Mapping[str, object]) -> MaskMap:
    """The map for a mask with `header`.

    Args:
        choice: "auto" (LSST MP_ keywords, else the Community Pipeline's by PLVER, else nonzero), "codes", "bits",
            "nonzero", or an own map such as "codes:1=BAD,3=SATURATED" or "bits:1=BAD,8=COSMIC_RAY".
        header: the mask's header, with the primary header's keywords where it has none.

    Raises:
        InputError: the choice cannot be read.
    """
    if choice == "auto":
        return _from_header(header)
    kind, _, pairs = choice.partition(":")
    if kind not in ("codes", "bits", "nonzero"):
        raise InputError(f"mask_map {choice!r} must be auto, codes, bits, nonzero or e.g. codes:1=BAD,3=SATURATED")
    if not pairs:
        return MaskMap(kind, _pairs(CP_CODES if kind == "codes" else CP_BITS) if kind != "nonzero" else ())
    try:
        given = [pair.split("=") for pair in pairs.split(",")]
        return MaskMap(kind, tuple((int(value, 0), int(MaskBit[name.strip().upper()])) for value, name in given))
    except (ValueError, KeyError) as error:
        names = ", ".join(bit.name or "" for bit in MaskBit)
        raise InputError(f"mask_map {choice!r} must read KIND:VALUE=NAME,... with names out of {names}") from error


def _pairs(meaning: Mapping[int, MaskBit]) -> tuple[tuple[int, int], ...]:
    return tuple((value, int(bit)) for value, bit in meaning.items())


def _from_header(header: Mapping[str, object]) -> MaskMap:
    planes = {key[3:]: header[key] for key in header if key.startswith("MP_")}
    if planes:
        return MaskMap("bits", tuple((1 << int(str(bit)), int(_lsst_bit(name))) for name, bit in planes.items()))
    version = str(header.get("PLVER", "")).strip().lstrip("Vv").split(".")
    if len(version) >= 2 and all(part.isdigit() for part in version[:2]):
        if (int(version[0]), int(version[1])) >= _CODES_SINCE or "DECAM" not in str(header.get("INSTRUME", "")).upper():
            return MaskMap("codes", _pairs(CP_CODES))
        return MaskMap("bits", _pairs(CP_BITS))
    return MaskMap("nonzero")


def _lsst_bit(name: str) -> MaskBit:
    plane = name.strip().upper()
    return LSST_PLANES.get(plane) or (MaskBit[plane] if plane in MaskBit.__members__ else MaskBit.OTHER)


def variance_of_weight(weight: np.ndarray) -> np.ndarray:
    """Inverse-variance weight -> variance float64: NaN for a weight of 0, negative or not finite."""
    good = np.isfinite(weight) & (weight > 0)
    variance = np.full(weight.shape, np.nan)
    with np.errstate(over="ignore"):
        np.divide(1.0, weight, out=variance, where=good, casting="unsafe")
    return variance
