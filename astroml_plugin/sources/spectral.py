"""The third axis of a cube: wavelength, frequency, velocity or energy of each of its planes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from astroml_plugin.core.astropy_later import fits, fits_wcs, u
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.sky.headers import astropy_quiet

_KINDS = {"w": "wavelength", "f": "frequency", "v": "velocity", "e": "energy"}
"""First letter of a band's name -> what its number is."""

_PLURALS = {"frequency": "frequencies", "velocity": "velocities", "energy": "energies"}

_PHYSICAL = {"m": "wavelength", "Hz": "frequency", "m / s": "velocity", "J": "energy"}
"""Unit -> kind of axis."""

_UNITS = {
    "wavelength": (("Angstrom", 3e-6), ("um", 1e-3), ("mm", 1e-1), ("m", np.inf)),
    "frequency": (("Hz", 1e4), ("MHz", 1e10), ("GHz", 1e13), ("Hz", np.inf)),
    "velocity": (("km/s", np.inf),),
    "energy": (("eV", 1.6e-16), ("keV", 1.6e-12), ("GeV", np.inf)),
}
"""Units of a kind, each with the size in SI up to which it is used."""

_SPELLINGS = {"M/S": "m/s", "KM/S": "km/s", "HZ": "Hz", "MHZ": "MHz", "GHZ": "GHz", "KHZ": "kHz", "A": "Angstrom"}
_SPELLINGS |= {"ANGSTROM": "Angstrom", "ANGSTROMS": "Angstrom", "MICRON": "um", "MICRONS": "um", "NM": "nm", "UM": "um"}
_SPELLINGS |= {"NANOMETERS": "nm", "MICROMETERS": "um", "METERS": "m", "EV": "eV", "KEV": "keV"}

_SPECTRAL = re.compile(r"^(WAVE|AWAV|FREQ|AFRQ|VELO|VRAD|VOPT|FELO|ZOPT|BETA|ENER|WAVN|LAMBDA)")
_FRAMES = {"LSR": "LSRK", "HEL": "BARYCENT", "OBS": "TOPOCENT", "GEO": "GEOCENTR"}
"""Ends of CTYPE in the convention of AIPS -> SPECSYS."""

_SHARED = ("RESTFRQ", "RESTFREQ", "RESTWAV", "SPECSYS", "SSYSOBS", "VELREF", "MJD-OBS")
_SAME, _ALIKE = 0.05, 0.5
"""Steps by which the planes of two cubes may differ to be one, and to be one with a warning."""

_DIGITS = 7
"""Most decimals in the name of a band."""


@dataclass(frozen=True)
class SpectralAxis:
    """Wavelength (or frequency, velocity, energy) of each plane of a cube."""

    kind: str
    """"wavelength", "frequency", "velocity" or "energy"."""
    unit: str
    """Unit of `values` and `widths`, as astropy writes it."""
    values: tuple[float, ...]
    """Middle of each plane."""
    widths: tuple[float, ...]
    """Width of each plane: the distance between neighbours."""
    medium: str = ""
    """"air" or "vacuum" where the header says it."""
    frame: str = ""
    """SPECSYS: where the observer stands to whom these values belong, such as "BARYCENT"."""
    rest: float | None = None
    """Rest frequency in Hz or, for a wavelength, rest wavelength in m; None where it is not said."""

    def names(self) -> tuple[str, ...]:
        """Names of bands that say the value, such as `w4750_25` for 4750.25 Angstrom and `vm12_5` for -12.5 km/s.

        They are identifiers of SQL; () where they would not differ.
        """
        values, step = np.array(self.values), min(self.widths)
        letter = next(letter for letter, kind in _KINDS.items() if kind == self.kind)
        for digits in range(_DIGITS + 1):
            if np.abs(np.round(values, digits) - values).max() <= 0.02 * step or digits == _DIGITS:
                texts = [f"{value:.{digits}f}".replace(".", "_").replace("-", "m") for value in values]
                break
        names = tuple(letter + text for text in texts)
        return names if len({*names}) == len(names) else ()

    def chosen(self, planes: Sequence[int]) -> SpectralAxis:
        """The axis of some of the planes."""
        return replace(self, values=tuple(self.values[n] for n in planes), widths=tuple(self.widths[n] for n in planes))

    def within(self, text: str) -> list[int]:
        """Planes whose middle lies in a range, both ends included.

        Args:
            text: "LOW:HIGH" in `unit`; either may be left out.

        Raises:
            InputError: no such range, or no plane in it.
        """
        low, colon, high = text.partition(":")
        try:
            ends = float(low) if low else -np.inf, float(high) if high else np.inf
        except ValueError:
            colon = ""
        if not colon:
            raise InputError(f"channels {text!r} must read LOW:HIGH in {self.unit}, such as {self._range()}")
        found = [n for n, value in enumerate(self.values) if ends[0] <= value <= ends[1]]
        if not found:
            raise InputError(f"no plane lies in the channels {text}: the cube has {self}")
        return found

    def apart(self, other: SpectralAxis) -> str:
        """How far the planes of another cube are from these in words; "" where they are the same.

        Raises:
            InputError: so far that they are no bands of one survey.
        """
        if self.kind != other.kind or len(self.values) != len(other.values) or self.medium != other.medium:
            raise InputError(f"the planes are {other}, those of the survey {self}: use a new output")
        there = u.Quantity(other.values, other.unit).to_value(self.unit)
        steps = float(np.max(np.abs(there - np.array(self.values)) / np.array(self.widths)))
        if steps > _ALIKE:
            raise InputError(f"the planes are {other}, those of the survey {self}: resample them or use a new output")
        return f"its {self.kind} axis differs from that of the survey by {steps:.2f} planes" if steps > _SAME else ""

    def to_metadata(self) -> dict[str, Any]:
        """Fields for JSON."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, fields: Any) -> SpectralAxis | None:
        """The axis of a store's metadata; None where it has none.

        Raises:
            TypeError, ValueError: fields that make no axis.
        """
        if fields is None:
            return None
        fields = {**fields, **{name: tuple(map(float, fields[name])) for name in ("values", "widths")}}
        if fields["kind"] not in _KINDS.values() or len(fields["values"]) != len(fields["widths"]):
            raise ValueError("spectral cannot be right")
        return cls(**fields)

    def _range(self) -> str:
        return f"{min(self.values):.10g}:{max(self.values):.10g}"

    def __str__(self) -> str:
        low, _, high = self._range().partition(":")
        widths = f"{min(self.widths):.4g}" + ("" if np.ptp(self.widths) < 1e-3 * min(self.widths) else " and more")
        medium = f" in {self.medium}" if self.medium else ""
        frame = f", {self.frame}" if self.frame else ""
        count = f"{len(self.values)} {_PLURALS.get(self.kind, f'{self.kind}s')}"
        return f"{count} from {low} to {high} {self.unit}{medium}, step {widths}{frame}"


def is_spectral(ctype: str) -> bool:
    """Whether CTYPE is that of a spectral axis."""
    return bool(_SPECTRAL.match(ctype))


def spectral_axis(header: Any, hdus: Any, axis: int, planes: int) -> SpectralAxis | None:
    """The spectral axis of a cube; None where its third axis is none, or nobody can tell its values.

    Args:
        header: of the cube.
        hdus: the astropy HDUList that it comes from: a table of wavelengths (-TAB), a rest frequency of all HDUs.
        axis: FITS number of the axis along which the planes lie.
        planes: how many there are.
    """
    cards = fits.Header()
    cards["NAXIS"], cards["NAXIS1"] = 1, planes
    for name in ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT"):
        value = header.get(f"{name}{axis}")
        if value not in (None, ""):
            cards[f"{name}1"] = value.strip() if isinstance(value, str) else value
    step = header.get(f"CD{axis}_{axis}")
    if step is not None:
        cards["CDELT1"] = step
    elif f"PC{axis}_{axis}" in header:
        cards["PC1_1"] = header[f"PC{axis}_{axis}"]
    cards.update({f"PV1_{m}": header[key] for m in range(8) if (key := f"PV{axis}_{m}") in header})
    cards.update({name: value for name in _SHARED if (value := header.get(name) or hdus[0].header.get(name))})
    kind = str(cards.get("CTYPE1", "")).upper()
    unit = str(cards.get("CUNIT1", ""))
    cards["CUNIT1"] = _SPELLINGS.get(unit.upper(), unit)
    with astropy_quiet():
        try:
            if kind.startswith("ENER") and (bins := _energy_bins(hdus, planes)) is not None:
                axis_found: SpectralAxis | None = _in_best_unit(bins[0], u.keV, cards, bins[1])
            else:
                found = _tabulated(header, hdus, axis, planes) if kind.endswith("-TAB") else _values(cards, planes)
                axis_found = None if found is None else _in_best_unit(*found, cards)
        except Exception:  # noqa: BLE001 (headers of others: a third axis that cannot be read has no values)
            return None
    if axis_found is None:
        return None
    medium = {"AWAV": "air", "WAVE": "vacuum"}.get(kind[:4], "") if axis_found.kind == "wavelength" else ""
    frame = str(cards.get("SPECSYS", "")).strip() or _FRAMES.get(kind[5:8], "")
    return replace(axis_found, medium=medium, frame=frame)


def _tabulated(header: Any, hdus: Any, axis: int, planes: int) -> tuple[F64, u.UnitBase]:
    """(values of the planes' middles, their unit) from a table in the file."""
    wcs = fits_wcs.WCS(header, hdus)
    pixels = np.tile(wcs.wcs.crpix, (planes, 1))
    pixels[:, axis - 1] = np.arange(1, planes + 1)
    return np.asarray(wcs.all_pix2world(pixels, 1)[:, wcs.wcs.spec]), u.Unit(wcs.wcs.cunit[wcs.wcs.spec])


def _energy_bins(hdus: Any, planes: int) -> tuple[F64, F64] | None:
    """(middles, widths) in keV of the planes of a counts cube by its table EBOUNDS; None without one that fits.

    Cubes of Fermi have bins of equal ratio, which their WCS cannot tell.
    """
    table = next((hdu for hdu in hdus if hdu.name == "EBOUNDS" and {"E_MIN", "E_MAX"} <= {*hdu.columns.names}), None)
    if table is None or len(table.data) != planes:
        return None
    low, high = (
        u.Quantity(np.asarray(table.data[name], np.float64), table.columns[name].unit or "keV").to_value("keV")
        for name in ("E_MIN", "E_MAX")
    )
    return np.sqrt(low * high), np.asarray(high - low)


def _values(cards: fits.Header, planes: int) -> tuple[F64, u.UnitBase] | None:
    """(values of the planes' middles, their unit): as wcslib tells them, else along a straight line."""
    try:
        wcs = fits_wcs.WCS(cards)
        values = wcs.all_pix2world(np.arange(planes), 0)[0]
        unit = u.Unit(wcs.wcs.cunit[0])
    except Exception:  # noqa: BLE001 (an algorithm nobody knows; a unit that CTYPE does not allow)
        if re.match(r"^\w{4}-(?!LSR|HEL|OBS|GEO)", str(cards.get("CTYPE1", ""))):
            return None  # no straight line
        unit = u.Unit(cards["CUNIT1"])
        steps = np.arange(1, planes + 1) - float(cards.get("CRPIX1", 0))
        values = float(cards["CRVAL1"]) + steps * float(cards["CDELT1"])
    return (np.asarray(values), unit) if np.isfinite(values).all() and np.ptp(values) > 0 else None


def _in_best_unit(values: F64, unit: u.UnitBase, cards: fits.Header, widths: F64 | None = None) -> SpectralAxis | None:
    """The axis in the unit in which its numbers are of a usual size; `widths` (in `unit`) where they are not the steps.

    None for units of no spectral axis, and for planes of no width.
    """
    kind, base = next(((kind, u.Unit(base)) for base, kind in _PHYSICAL.items() if unit.is_equivalent(base)), ("", u.m))
    if not kind:
        return None
    typical = float(np.median(np.abs((values * unit).to_value(base))))
    best = next(name for name, limit in _UNITS[kind] if typical <= limit)
    # wcslib gives SI: 1e-7 of a step is its rounding
    values = (values * unit).to_value(u.Unit(best))
    widths = np.abs(np.gradient(values)) if widths is None else (widths * unit).to_value(u.Unit(best))
    digits = int(np.ceil(-np.log10(widths.min()))) + 6
    values, widths = np.round(values, digits), np.round(widths, digits)
    if not (widths > 0).all():
        return None
    rest = cards.get("RESTWAV") if kind == "wavelength" else cards.get("RESTFRQ", cards.get("RESTFREQ"))
    known = rest if isinstance(rest, int | float) and rest > 0 else None
    return SpectralAxis(kind, best, tuple(values.tolist()), tuple(widths.tolist()), rest=known)
