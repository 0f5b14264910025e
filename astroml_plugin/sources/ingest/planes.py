"""Planes of FITS files: each is one image HDU with its role and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from astroml_plugin.sources.ingest.photometry import Calibration
from astroml_plugin.sources.ingest.pixels import Pixels
from astroml_plugin.sources.ingest.samples import Sample
from astroml_plugin.sources.spectral import SpectralAxis


@dataclass(frozen=True)
class Plane:
    """One image HDU of a file: a 2-D array, or a cube of planes on one pixel grid."""

    url: str
    """The file."""
    hdu: int
    """Number of the HDU."""
    name: str
    """EXTNAME as written, "" where there is none."""
    version: int
    """EXTVER."""
    shape: tuple[int, int]
    """(height, width)."""
    planes: int | None
    """Planes of a cube; None for a 2-D array."""
    header: str | None
    """World-coordinate cards; None without a WCS that can be used."""
    wcs_problem: str = ""
    """Why a WCS that is there cannot be used."""
    wcs_notes: tuple[str, ...] = ()
    """Sentences on what is lost or assumed of a WCS that is used."""
    wcs_dropped: tuple[str, ...] = ()
    """CTYPE of the axes from the third on, which are no axes of the image."""
    axes: tuple[str, ...] = ()
    """CTYPE1 and CTYPE2 where given, in capitals."""
    spectral: SpectralAxis | None = None
    """Wavelengths of a cube's planes, or what else its third axis is; None where it is not known."""
    spectral_number: int | None = None
    """FITS number of the axis that `spectral` is."""
    unit: str = ""
    """BUNIT, of the HDU or of the primary header; "" where absent."""
    own_unit: bool = False
    """Whether BUNIT stands in the HDU's own header."""
    calibration: Calibration = field(default_factory=Calibration)
    """AB magnitude of one unit of flux, and how it is known."""
    saturation: float | None = None
    """Level from which pixels are saturated."""
    exposure_time: float | None = None
    """Seconds (EXPTIME)."""
    cards: dict[str, str] = field(default_factory=dict)
    """Header cards that tell the role: HDUCLAS1 to 3, SCIDATA, ERRDATA, QUALDATA, UTYPE, IMAGETYP, OBSTYPE, FILTER."""
    keywords: dict[str, str] = field(default_factory=dict)
    """Header cards that tell what the bits of a mask mean."""
    first: int | None = None
    """Number of the first plane in an array of more axes than two, all its planes counted in the order of the file."""
    step: int = 1
    """Planes of the array from one plane that is taken to the next."""
    notes: tuple[str, ...] = ()
    """Sentences on planes of the array that are left out."""
    whole: bool = False
    """Whether the file can only be read as a whole."""
    sample: Sample | None = None
    """Level, noise and kind of the pixels; None where they cannot be decoded."""
    role: str = ""
    """One of `words.ROLES`, or "unclear"; "" before it is known."""
    why: str = ""
    """Reason for the role."""
    key: str = ""
    """Rest of the name beside the role, in capitals: planes of one image share it."""
    lost: bool = False
    """Whether the plane is left out though it may be meant to be used: the ingest says so."""

    @property
    def extname(self) -> str:
        """EXTNAME, else the HDU's number."""
        return self.name or str(self.hdu)

    @property
    def label(self) -> str:
        """EXTNAME with EXTVER from 2 on, or the HDU's number, to speak of the plane."""
        return f"{self.name},{self.version}" if self.name and self.version > 1 else self.name or f"HDU {self.hdu}"

    @property
    def size(self) -> str:
        """Planes and pixels in words."""
        planes = "" if self.planes is None else f"{self.planes} planes of "
        return f"{planes}{self.shape[1]} x {self.shape[0]} pixels"

    def plane(self, number: int) -> Pixels:
        """Plane `number` of a cube, or the 2-D array itself."""
        first = self.first if self.planes is None else (self.first or 0) + number * self.step
        return Pixels(self.url, self.hdu, first, self.whole)
