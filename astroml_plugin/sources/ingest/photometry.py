"""Photometric calibration of an image: the AB magnitude of one unit of flux, from its header, with the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from astropy import units as u

from astroml_plugin.pixels import plausible, plausible_for, refuse_implausible
from astroml_plugin.sky.wcs import ARCSEC, Wcs
from astroml_plugin.sources.ingest.samples import Sample
from astroml_plugin.sources.ingest.units import unit_of
from astroml_plugin.sources.ingest.words import tokens_of

_JANSKY = 8.9
_KEYS = ("MAGZERO", "MAGZPT", "PHOTZP", "ZPT", "ZP", "MAGZP", "ZEROPNT", "IMAGEZPT", "ZPTMAG", "ABMAGZP")
_SYSTEM_KEYS = ("MAGSYS", "ZPSYS", "PHOTSYS", "ZP_SYS", "PHOTSYST", "VEGAMAG")
_LEAST_SHARE = 1e-5
"""Part of a beam in a pixel: with less, it is 300 pixels wide, and nobody samples so."""

_TIMES = ("EXPTIME", "TEXPTIME", "EXP_TIME", "TEXP")
"""Cards of the exposure time in seconds."""

_DIFFER = 0.05
"""Magnitudes by which a keyword and BUNIT may differ before that is said."""

_AREAS = 0.05
"""Share by which the header's area of a pixel and the WCS's may differ: distortion does less."""

_ZERO_JANSKY: dict[str, dict[str, float]] = {
    "WISE": {"W1": 309.540, "W2": 171.787, "W3": 31.674, "W4": 8.363},
    "2MASS": {"J": 1594.0, "H": 1024.0, "K": 666.7, "KS": 666.7},
}
"""Flux density of Vega magnitude 0 in Jy. Sources: WISE Explanatory Supplement IV.4.h, table 1 (Jarrett et al. 2011);
Cohen, Wheaton & Megeath 2003."""

_TO_AB: dict[str, dict[str, float]] = {
    "UKIRT": {"Z": 0.528, "Y": 0.634, "J": 0.938, "H": 1.379, "K": 1.900},
    "VISTA": {"Z": 0.502, "Y": 0.600, "J": 0.916, "H": 1.366, "K": 1.827, "KS": 1.827},
    "": {
        **{"U": 0.79, "B": -0.09, "V": 0.02, "R": 0.21, "I": 0.45, "J": 0.91, "H": 1.39, "K": 1.85, "KS": 1.85},
    },
}
"""AB minus Vega magnitude; "" for Bessell and 2MASS filters of any telescope. Sources: Hewett et al. 2006;
González-Fernández et al. 2018; Blanton & Roweis 2007."""

_GALEX = {"FUV": 18.82, "NUV": 20.08}
"""AB magnitude of one count per second. Source: Morrissey et al. 2007."""

_INFRARED = frozenset(("J", "H", "K", "KS", "W1", "W2", "W3", "W4"))
_SPELLINGS = {
    **dict.fromkeys(("NANOMAGGY", "NANOMAGGIES", "NMGY"), "3.6307805 uJy"),
    **dict.fromkeys(("MAGGY", "MAGGIES", "MGY"), "3630.7805 Jy"),
    **{"NJY": "nJy", "UJY": "uJy", "MICROJY": "uJy", "JY": "Jy", "JANSKY": "Jy", "JY/BEAM": "Jy/beam"},
    **{"MJY/SR": "MJy/sr", "JY/SR": "Jy/sr", "JY/PIXEL": "Jy", "JY/PIX": "Jy", "MJY/BEAM": "mJy/beam"},
}
"""Units that headers write in capitals, or that astropy does not know, as astropy reads them."""


@dataclass(frozen=True)
class Calibration:
    """Magnitude of one unit of flux, which is a sum of pixels."""

    zero_point: float | None = None
    """AB magnitude of one unit; None where it is not known."""
    system: str = ""
    """System in which the header gives it: "AB" or "Vega"; "" where none is known."""
    why: str = ""
    """Reason for it."""
    doubt: str = ""
    """A sentence where it is a guess or contradicted, else ""."""
    zero: str = ""
    """Card that says 0, which is a zero point only where the pixels are that faint (`by_pixels`)."""


@dataclass(frozen=True)
class _Source:
    """Headers of one image."""

    header: Any
    primary: Any
    unit: str
    words: frozenset[str]
    """Words of the file's name, the telescope and the instrument."""
    coordinates: str | None
    """World-coordinate cards."""

    def get(self, key: str) -> Any:
        value = self.header.get(key)
        return value if value not in (None, "") else self.primary.get(key)

    def number(self, key: str) -> float | None:
        """A positive number."""
        try:
            value = float(self.get(key))
        except (TypeError, ValueError):
            return None
        return value if math.isfinite(value) and value > 0 else None

    def says_zero(self, key: str) -> bool:
        """Whether a card is the number 0."""
        value = self.get(key)
        return isinstance(value, int | float) and not isinstance(value, bool) and value == 0

    @property
    def odd(self) -> list[str]:
        """Cards that are meant for a zero point, with values that are none."""
        cards = [(key, self.get(key)) for key in (*_KEYS, "FLUXMAG0")]
        return [f"{key} {value!s:.20}" for key, value in cards if value not in (None, "")]

    def comment(self, key: str) -> str:
        holder = self.header if self.header.get(key) not in (None, "") else self.primary
        return str(holder.comments[key]) if key in holder else ""

    @property
    def per_second(self) -> bool:
        return bool(re.search(r"/\s*S(EC(OND)?)?\b|S(EC)?\s*(\*\*|\^)?\s*\(?-1|CPS\b", self.unit.upper()))

    @property
    def exposure(self) -> float:
        """Magnitudes that the exposure time adds where pixels are not per second."""
        time = None if self.per_second else next(filter(None, map(self.number, _TIMES)), None)
        return 0.0 if time is None else 2.5 * math.log10(time)

    @property
    def untimed(self) -> str:
        """A sentence where a zero point of one second meets pixels of a time that nobody says; "" else."""
        if self.per_second or any(map(self.number, _TIMES)):
            return ""
        return "is for one second, and neither BUNIT nor EXPTIME says that pixels are: they are taken so"

    @property
    def telescope(self) -> str:
        """Family of surveys with Vega magnitudes; "" for others."""
        words = self.words
        if {"WISE", "UNWISE", "NEOWISE", "ALLWISE"} & words or "UNW_VER" in self.header:
            return "WISE"
        if "2MASS" in words or "2MASS" in str(self.get("TELESCOP")).upper():
            return "2MASS"
        return next((name for name in ("UKIRT", "VISTA") if name in words), "")

    @property
    def band(self) -> str:
        """Name of the filter in capitals."""
        band = self.get("BAND")
        if self.telescope == "WISE":
            named = [word for word in self.words if re.fullmatch(r"W[1-4]", word)]
            return f"W{band}" if str(band) in "1234" and band is not None else next(iter(named), "")
        text = next(
            (str(value) for key in ("FILTER", "FILTNAM1", "FILTER1", "FILTERS") if (value := self.get(key))), ""
        )
        return (text or str(band or "")).strip().upper().partition(" ")[0]


def calibrate(header: Any, primary: Any, unit: str, stem: str, coordinates: str | None) -> Calibration:
    """Calibration of an image: from keywords, else from its unit, else from the telescope.

    Args:
        header: of the image's HDU.
        primary: of the file; its keywords count where the HDU has none.
        unit: BUNIT.
        stem: the file's name without folder and suffixes.
        coordinates: world-coordinate cards; None without a WCS.
    """
    told = " ".join(str(primary.get(key, header.get(key, ""))) for key in ("TELESCOP", "INSTRUME", "SURVEY", "ORIGIN"))
    words = frozenset([*tokens_of(stem), *tokens_of(told)])
    source = _Source(header, primary, unit, words, coordinates)
    stated = list(_by_keywords(source))
    found = [one for one in stated if one.zero_point is None or plausible(one.zero_point)]
    by_unit = _by_unit(source)
    if not found:
        known = by_unit if by_unit.zero_point is not None else _by_telescope(source) or by_unit
        if known.zero_point is None and (odd := source.odd or [one.why for one in stated]):
            zero = next((key for key in _KEYS if source.says_zero(key)), "")
            return Calibration(why=f"{odd[0]} is no AB magnitude of one unit", zero=zero)
        return known
    first = found[0]
    for other in found[1:]:
        if first.zero_point is not None and other.zero_point is not None and not first.doubt:
            first = replace(first, doubt=_apart(first, other.why, first.zero_point - other.zero_point))
    if first.zero_point is not None and by_unit.zero_point is not None and "beam" not in by_unit.why:
        doubt = _apart(first, by_unit.why, first.zero_point - by_unit.zero_point)
        return replace(first, doubt=first.doubt or doubt)
    return first


def _apart(first: Calibration, other: str, apart: float) -> str:
    """A sentence where two zero points differ."""
    told = f"{first.why} and {other} differ by {abs(apart):.2f} mag, the first is taken (see --zero-point)"
    return told if abs(apart) > _DIFFER else ""


def by_pixels(known: Calibration, sample: Sample | None) -> Calibration:
    """Calibration of an image whose header says a zero point of 0, by its pixels: 0 may also mean "unknown".

    Args:
        known: by the header.
        sample: of the image's pixels.
    """
    if known.zero_point is not None or not known.zero or sample is None:
        return known
    noise = _noise_of(sample)
    if not plausible_for(0.0, noise):
        return known
    doubt = f"{known.zero} 0 is taken for the zero point, as the pixels have noise of {noise:.3g} (see --zero-point)"
    return Calibration(0.0, "AB", f"{known.zero} 0", doubt)


def refuse_by_pixels(zero_point: float, sample: Sample | None, what: str) -> None:
    """Refuse a stated zero point that neither others use nor the noise of the image allows.

    Args:
        zero_point: AB magnitude of one unit of the pixels.
        sample: of the image's pixels.
        what: where it is from, for the message.

    Raises:
        InputError: nobody can mean it.
    """
    if sample is None or not plausible_for(zero_point, _noise_of(sample)):
        refuse_implausible([zero_point], what)


def _noise_of(sample: Sample) -> float:
    return sample.fine if sample.fine > 0 else sample.noise


def _by_keywords(source: _Source) -> Iterator[Calibration]:
    for key in _KEYS:
        if (value := source.number(key)) is not None and plausible(value):
            yield _of_keyword(source, key, value)
    if (flux := source.number("FLUXMAG0")) is not None:
        yield Calibration(2.5 * math.log10(flux), "AB", "FLUXMAG0")
    if (value := source.number("FPA.ZP")) is not None:
        yield Calibration(value + source.exposure, "AB", "FPA.ZP and EXPTIME (Pan-STARRS)")
    flam, wavelength = source.number("PHOTFLAM"), source.number("PHOTPLAM")
    if flam is not None and wavelength is not None:
        yield from _of_hst(
            source, -2.5 * math.log10(flam) - 5 * math.log10(wavelength) - 2.408, "PHOTFLAM and PHOTPLAM"
        )
    if (flux := source.number("PHOTFNU")) is not None:
        yield from _of_hst(source, _JANSKY - 2.5 * math.log10(flux), "PHOTFNU")


def _of_hst(source: _Source, zero_point: float, why: str) -> Iterator[Calibration]:
    """Zero point of one count per second, where pixels are counts, or counts per second."""
    if source.unit and not source.per_second and not re.match(r"(ELECTRON|COUNT|DN|ADU|E-|E/)", source.unit.upper()):
        return
    if source.unit and source.per_second:
        yield Calibration(zero_point, "AB", f"{why}, per second")
    elif source.unit and source.number("EXPTIME") is not None:
        yield Calibration(zero_point + source.exposure, "AB", f"{why}, and EXPTIME")
    else:
        yield Calibration(doubt=f"{why} are for counts per second, and BUNIT does not say whether pixels are so")


def _of_keyword(source: _Source, key: str, value: float) -> Calibration:
    comment = source.comment(key)
    why = f"{key} {value:g}"
    casu = key == "MAGZPT" and source.telescope in ("UKIRT", "VISTA")
    timed = casu or re.search(r"per sec|/ ?s(ec)?\b|s-1|1 ?(DN|ADU|e-?|count)/s", comment, re.IGNORECASE)
    untimed = f"{why} {source.untimed}" if timed and source.untimed else ""
    if timed and not source.per_second:
        value += source.exposure
        why += "" if untimed else " for one second, and EXPTIME"
    value -= _extinction(source) if casu else 0.0
    told = " ".join([comment, *(str(source.get(card) or "") for card in _SYSTEM_KEYS)])
    vega = re.search(r"\bvega", told, re.IGNORECASE) is not None
    ab = re.search(r"\bAB(mag)?\b", told) is not None
    band = source.band
    if not vega and (ab or not source.telescope):
        doubt = untimed
        if not ab and band in _INFRARED:
            doubt = f"{why} is taken as AB, as nothing says that it is Vega; filter {band} (see --zero-point)"
        return Calibration(value, "AB", why, doubt)
    offset = _offset(source.telescope, band)
    if offset is None:
        doubt = f"{why} is a Vega magnitude, and its offset to AB is not known for filter {band or 'unknown'}"
        return Calibration(None, "Vega", why, doubt)
    why = f"{why} Vega ({source.telescope} {band}".replace("( ", "(") + f": AB {offset:+.3f})"
    return Calibration(value + offset, "Vega", why, untimed)


def _extinction(source: _Source) -> float:
    """Magnitudes of the atmosphere beyond airmass 1, as in headers of CASU."""
    loss, start, end = (source.number(key) for key in ("EXTINCT", "AMSTART", "AMEND"))
    return 0.0 if loss is None or start is None or end is None else loss * ((start + end) / 2 - 1)


def _offset(telescope: str, band: str) -> float | None:
    """AB minus Vega magnitude."""
    flux = _ZERO_JANSKY.get(telescope, {}).get(band)
    if flux is not None:
        return _JANSKY - 2.5 * math.log10(flux)
    return _TO_AB.get(telescope, _TO_AB[""]).get(band)


def _by_unit(source: _Source) -> Calibration:
    """Calibration by a unit that is a flux, per pixel, per solid angle or per beam."""
    if not source.unit:
        return Calibration(why="no BUNIT and no zero point")
    unknown = Calibration(why=f"BUNIT {source.unit} is no flux, and there is no zero point")
    unit = _flux_unit(source.unit)
    if unit is None:
        return unknown
    per_beam = 1 / u.beam in _bases(unit)
    unit = unit * u.beam if per_beam else unit
    per_pixel = 1 / u.pix in _bases(unit)
    unit = unit * u.pix if per_pixel else unit
    wavelength = source.number("PHOTPLAM")
    light = [] if wavelength is None else u.spectral_density(wavelength * u.AA)
    for target, area in ((u.Jy, False), (u.Jy / u.sr, True)):
        try:
            value = float(unit.to(target, equivalencies=light))
        except u.UnitConversionError:
            continue
        why, share, doubt = f"BUNIT {source.unit}", 1.0, ""
        if area or per_beam:
            solid, doubt = _pixel_area(source)
            beam = _beam(source) if per_beam else 1.0
            if solid is None or beam is None:
                lacking = "the size of a pixel" if solid is None else "the beam (BMAJ, BMIN)"
                return Calibration(why=f"{why}, but {lacking} is not known")
            share = solid / beam
            if per_beam and share < _LEAST_SHARE:
                return Calibration(
                    why=f"{why}, but BMAJ and BMIN make a beam of {1 / share:.2g} pixels: are they degrees?"
                )
            why += f", pixel of {solid:.4g} sr" if area else f", {share:.4g} beam in a pixel"
        if not 0 < value * share < math.inf:
            return unknown
        return Calibration(_JANSKY - 2.5 * math.log10(value * share), "AB", why, doubt)
    return unknown


def _flux_unit(text: str) -> u.UnitBase | None:
    """Unit as astropy reads it, else as it is meant by those who write capitals."""
    spelling = _SPELLINGS.get(text.strip().upper().replace(" ", ""), "")
    return unit_of(spelling) if "GY" in text.upper() or "MAGG" in text.upper() else unit_of(text) or unit_of(spelling)


def _bases(unit: u.UnitBase) -> list[u.UnitBase]:
    return [base**power for base, power in zip(unit.bases, unit.powers, strict=True)]


def _pixel_area(source: _Source) -> tuple[float | None, str]:
    """Steradians of a pixel, and a sentence where the header contradicts its WCS, which is then believed.

    Images with distortion state the average, and the WCS gives the pixel in the middle: they differ by little.
    """
    told, card = source.number("PIXAR_SR"), "PIXAR_SR"
    if told is None and (area := source.number("PIXAR_A2")) is not None:
        told, card = area / ARCSEC**2, "PIXAR_A2"
    by_wcs = None
    if source.coordinates is not None and re.search(r"^(CD\d_\d|CDELT1|XPIXELSZ)\b", source.coordinates, re.MULTILINE):
        scale = Wcs(source.coordinates).pixel_scale
        by_wcs = (scale / ARCSEC) ** 2 if math.isfinite(scale) and scale > 0 else None
    if told is None or by_wcs is None or abs(told / by_wcs - 1) <= _AREAS:
        return told or by_wcs, ""
    return by_wcs, (
        f"{card} is {told / by_wcs:.3g} times the area of a pixel by the WCS ({by_wcs:.4g} sr), which is taken for the "
        "zero point (see --zero-point)"
    )


def _beam(source: _Source) -> float | None:
    """Steradians of the beam, from BMAJ and BMIN in degrees (or as they say), or from the history that AIPS writes."""
    axes = [source.number("BMAJ"), source.number("BMIN")]
    if "arcsec" in source.comment("BMAJ").lower():
        axes = [None if axis is None else axis / 3600 for axis in axes]
    if None in axes and "HISTORY" in source.header:
        lines = "\n".join(str(line) for line in source.header["HISTORY"])
        match = re.findall(r"BMAJ=\s*([-+.\dEe]+)\s+BMIN=\s*([-+.\dEe]+)", lines)
        axes = [float(value) for value in match[-1]] if match else axes
    if not axes[0] or not axes[1]:
        return None
    return math.pi * math.radians(axes[0]) * math.radians(axes[1]) / (4 * math.log(2))


def _by_telescope(source: _Source) -> Calibration | None:
    """Calibration of a telescope whose headers have none."""
    if "FRAME" in source.words and "NMGY" in source.header and not source.unit:
        return Calibration(22.5, "AB", "SDSS frame: nanomaggies")
    if "GALEX" in source.words:
        band = {"1": "NUV", "2": "FUV", "NUV": "NUV", "FUV": "FUV"}.get(str(source.get("BAND") or source.band).strip())
        band = band or ("NUV" if "ND" in source.words else "FUV" if "FD" in source.words else None)
        counts = "CNT" in source.words
        if band is not None and not counts:
            return Calibration(_GALEX[band], "AB", f"GALEX {band}, counts per second")
    return None
