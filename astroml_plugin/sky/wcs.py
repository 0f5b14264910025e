"""World coordinates and tile geometry: pure functions of headers and integers.

Pixel positions are 0-based, the first pixel's centre is 0, x runs along NAXIS1. Sky positions are degrees, ICRS.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import log
from astropy import units as u
from astropy.coordinates import ICRS, SkyCoord, angular_separation
from astropy.io.fits import Card, Header
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import wcs_to_celestial_frame
from astropy_healpix import lonlat_to_healpix
from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.foreign import in_words
from astroml_plugin.core.typing import F64, I64, Bool

ARCSEC = 3600.0 * 180.0 / np.pi
"""Arcseconds in a radian."""

HEALPIX_ORDER = 29

_quiet_lock = threading.RLock()

_MARGIN = 5000
"""Pixels outside an image within which a distortion polynomial is still asked."""

_ROUND_TRIP = 0.01
"""Pixels by which sky -> pixel -> sky may miss before a position counts as not invertible."""

_WCS_CARD = re.compile(
    r"^(WCSAXES|WCSNAME|NAXIS[12]?|CTYPE\d+|CRPIX\d+|CRVAL\d+|CDELT\d+|CUNIT\d+|CROTA\d+|CD\d+_\d+|PC\d+_\d+|PC\d{6}"
    r"|PV\d+_\d+|PS\d+_\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH|MJD-OBS|DATE-OBS|WAT\d_\d{3}"
    r"|[AB]P?_(ORDER|DMAX|\d+_\d+)|RESTFRQ|RESTWAV|SPECSYS)$"
)


@contextlib.contextmanager
def astropy_quiet() -> Iterator[None]:
    """Astropy's remarks on odd headers, silenced; one thread at a time, as Python's warning filters are global."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        level = log.level
        log.setLevel("WARNING")  # its INFO lines (SIP without -SIP) go to stdout, where data go
        try:
            yield
        finally:
            log.setLevel(level)


@dataclass(frozen=True)
class Box:
    """Half-open integer pixels [x0, x1) x [y0, y1) of a parent image; may reach beyond it."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Pixels along x."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Pixels along y."""
        return self.y1 - self.y0

    def contains(self, x: ArrayLike, y: ArrayLike) -> Bool:
        """Whether the pixel under each position, floor(x + 0.5), lies in the box; False for NaN."""
        column, row = np.floor(np.asarray(x, float) + 0.5), np.floor(np.asarray(y, float) + 0.5)
        return (column >= self.x0) & (column < self.x1) & (row >= self.y0) & (row < self.y1)

    def clipped(self, height: int, width: int) -> Box:
        """The part inside an image of `height` x `width` pixels."""
        return Box(max(self.x0, 0), max(self.y0, 0), min(self.x1, width), min(self.y1, height))


@dataclass(frozen=True)
class TileGeometry:
    """One tile's place in its parent image."""

    row: int
    """Row on the tile grid."""
    column: int
    """Column on the tile grid."""
    outer: Box
    """All pixels of the tile's array, halo and padding included."""
    inner: Box
    """The pixels this tile owns."""


def tile_step(tile_size: int, halo: int) -> int:
    """Distance between neighbouring tiles in pixels; InputError when the halo leaves none."""
    if halo < 0 or tile_size - 2 * halo < 1:
        raise InputError(
            f"a tile of {tile_size} pixels has no inner part with a halo of {halo}: use a tile size > 2 x halo"
        )
    return tile_size - 2 * halo


def cut_tiles(height: int, width: int, tile_size: int, halo: int) -> list[TileGeometry]:
    """Tiles of an image: inner boxes partition its `height` x `width` pixels, outer boxes are `tile_size` squared."""
    step = tile_step(tile_size, halo)
    tiles = []
    for row in range(-(-height // step)):
        for column in range(-(-width // step)):
            x0, y0 = column * step, row * step
            inner = Box(x0, y0, min(x0 + step, width), min(y0 + step, height))
            outer = Box(x0 - halo, y0 - halo, x0 - halo + tile_size, y0 - halo + tile_size)
            tiles.append(TileGeometry(row, column, outer, inner))
    return tiles


def wcs_cards(header: Header) -> str | None:
    """The world-coordinate cards of `header` as text, one a line, unchanged; None without a celestial WCS."""
    with astropy_quiet():
        cards = [card for card in header.cards if _WCS_CARD.match(card.keyword)]
        text = "\n".join(card.image[:80].rstrip() for card in cards)
    try:
        Wcs(text)
    except InputError:
        return None
    return text


class Wcs:
    """A celestial WCS kept as its original FITS cards (TAN, TPV, SIP, CAR, ...); safe in threads."""

    def __init__(self, header: str) -> None:
        self.header = header
        self._lock = threading.Lock()
        self._wcs, self._frame = _parse(header)
        self._limit = self._search_limit()

    @classmethod
    def from_header(cls, header: str | Header) -> Wcs:
        """From a FITS header or its text; InputError when it holds no celestial WCS."""
        if isinstance(header, str):
            return cls(header)
        text = wcs_cards(header)
        if text is None:
            raise InputError("the header has no celestial world coordinate system: use pixel positions for this image")
        return cls(text)

    def __reduce__(self) -> tuple[type[Wcs], tuple[str]]:
        return Wcs, (self.header,)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) of the array as the header gives it, else None."""
        pixel_shape = self._wcs.pixel_shape
        return None if not pixel_shape else (int(pixel_shape[1]), int(pixel_shape[0]))

    @property
    def pixel_scale(self) -> float:
        """Arcseconds per pixel at the image centre (at CRPIX where the header gives no size)."""
        x, y = self._centre()
        return float(np.sqrt(abs(np.linalg.det(self.jacobian(x, y)[0]))))

    def shifted(self, x0: int, y0: int, shape: tuple[int, int] | None = None) -> Wcs:
        """The WCS of an array whose first pixel is (x0, y0) of this one: only CRPIX moves, `shape` sets the size."""
        header = _read_cards(self.header)
        header["CRPIX1"] = float(header.get("CRPIX1", 0.0)) - x0
        header["CRPIX2"] = float(header.get("CRPIX2", 0.0)) - y0
        if shape is not None:
            header["NAXIS1"], header["NAXIS2"] = shape[1], shape[0]
        return Wcs("\n".join(card.image[:80].rstrip() for card in header.cards))

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[F64, F64]:
        """ICRS (ra, dec) in degrees of pixel positions; NaN where the projection has no sky."""
        x, y = _flat(x, y)
        with self._lock, np.errstate(all="ignore"):
            world = self._wcs.all_pix2world(np.column_stack([x, y]), 0)
        longitude, latitude = world[:, self._wcs.wcs.lng], world[:, self._wcs.wcs.lat]
        return self._to_icrs(longitude, latitude)

    def to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[F64, F64]:
        """Pixel positions of ICRS degrees; NaN where the inverse does not exist (far side, no convergence)."""
        ra, dec = _flat(ra, dec)
        x, y = np.full(ra.shape, np.nan), np.full(ra.shape, np.nan)
        usable = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        if self._limit is not None:
            ra0, dec0, radius = self._limit
            usable[usable] = separation(ra[usable], dec[usable], ra0, dec0) <= radius
        if not usable.any():
            return x, y
        x[usable], y[usable] = self._invert(*self._from_icrs(ra[usable], dec[usable]))
        back = self.to_sky(x[usable], y[usable])
        missed = separation(ra[usable], dec[usable], *back)
        wrong = np.flatnonzero(usable)[~(missed <= _ROUND_TRIP * self._plain_scale())]
        x[wrong] = y[wrong] = np.nan
        return x, y

    def jacobian(self, x: ArrayLike, y: ArrayLike) -> F64:
        """(n, 2, 2) derivatives in arcsec per pixel: rows +x West and +y North (ICRS), columns pixel x and y."""
        x, y = _flat(x, y)
        west, north = _axes(*self.to_sky(x, y))
        columns = []
        for dx, dy in ((0.5, 0.0), (0.0, 0.5)):
            step = unit_vectors(*self.to_sky(x + dx, y + dy)) - unit_vectors(*self.to_sky(x - dx, y - dy))
            columns.append(np.stack([(step * west).sum(1), (step * north).sum(1)], axis=1) * ARCSEC)
        return np.stack(columns, axis=2)

    def _invert(self, longitude: F64, latitude: F64) -> tuple[F64, F64]:
        world = np.empty((len(longitude), 2))
        world[:, self._wcs.wcs.lng], world[:, self._wcs.wcs.lat] = longitude, latitude
        with self._lock, np.errstate(all="ignore"):
            try:
                pixels = self._wcs.all_world2pix(world, 0, tolerance=1e-6, maxiter=50, quiet=False)
            except NoConvergence as error:
                pixels = error.best_solution
            except (ValueError, RuntimeError, np.linalg.LinAlgError):
                pixels = self._invert_one_by_one(world)
        return pixels[:, 0], pixels[:, 1]

    def _invert_one_by_one(self, world: F64) -> F64:
        """wcslib refuses a whole batch for one impossible position: find the possible ones."""
        pixels = np.full_like(world, np.nan)
        for row in range(len(world)):
            try:
                pixels[row] = self._wcs.all_world2pix(world[row : row + 1], 0, tolerance=1e-6, maxiter=50, quiet=True)[
                    0
                ]
            except (ValueError, RuntimeError, np.linalg.LinAlgError):
                continue
        return pixels

    def _to_icrs(self, longitude: F64, latitude: F64) -> tuple[F64, F64]:
        if self._frame is None:
            return np.mod(longitude, 360.0), latitude
        sky = SkyCoord(longitude * u.deg, latitude * u.deg, frame=self._frame).icrs
        return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)

    def _from_icrs(self, ra: F64, dec: F64) -> tuple[F64, F64]:
        if self._frame is None:
            return ra, dec
        sky = SkyCoord(ra * u.deg, dec * u.deg, frame=ICRS()).transform_to(self._frame).spherical
        return np.asarray(sky.lon.deg), np.asarray(sky.lat.deg)

    def _centre(self) -> tuple[float, float]:
        shape = self.shape
        if shape is None:
            return float(self._wcs.wcs.crpix[0] - 1), float(self._wcs.wcs.crpix[1] - 1)
        return (shape[1] - 1) / 2, (shape[0] - 1) / 2

    def _plain_scale(self) -> float:
        """Degrees per pixel of the linear part."""
        return float(np.sqrt(abs(np.linalg.det(self._wcs.pixel_scale_matrix))))

    def _search_limit(self) -> tuple[float, float, float] | None:
        """(ra, dec, radius) in degrees beyond which a distortion is not asked; None for plain projections."""
        distorted = self._wcs.sip is not None or "TPV" in self.header or "\nPV1_" in self.header
        shape = self.shape
        if not distorted or shape is None:
            return None
        x, y = self._centre()
        ra, dec = self.to_sky([x, 0, x * 2, 0, x * 2], [y, 0, 0, y * 2, y * 2])
        radius = float(np.max(separation(ra, dec, ra[0], dec[0])))
        if not np.isfinite(radius):
            return None
        return float(ra[0]), float(dec[0]), 1.5 * radius + _MARGIN * self._plain_scale()


def _read_cards(text: str) -> Header:
    with astropy_quiet():
        return Header([Card.fromstring(line.ljust(80)) for line in text.split("\n") if line.strip()])


def _parse(text: str) -> tuple[WCS, Any]:
    """The astropy WCS of the first two axes and its celestial frame (None for ICRS)."""
    with astropy_quiet():
        try:
            cards = _read_cards(text)
            for name in ("CRPIX1", "CRPIX2"):
                float(cards.get(name, 0.0))
            full = WCS(cards)
            wcs = full if full.naxis == 2 else full.sub([1, 2])
            if not wcs.has_celestial or wcs.naxis != 2:
                raise InputError("the header has no celestial WCS on its first two axes: use pixel positions")
            wcs.all_pix2world([[0.0, 0.0]], 0)
            frame = wcs_to_celestial_frame(wcs)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the header's world coordinate system cannot be used ({in_words(error)}): use pixel positions"
            ) from error
    return wcs, None if isinstance(frame, ICRS) else frame


def _flat(first: ArrayLike, second: ArrayLike) -> tuple[F64, F64]:
    a, b = np.broadcast_arrays(np.asarray(first, float), np.asarray(second, float))
    return np.atleast_1d(a).ravel(), np.atleast_1d(b).ravel()


def unit_vectors(ra: F64, dec: F64) -> F64:
    """(n, 3) directions to positions in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)


def _axes(ra: F64, dec: F64) -> tuple[F64, F64]:
    """(n, 3) unit vectors to the West and to the North."""
    a, d = np.radians(ra), np.radians(dec)
    west = np.stack([np.sin(a), -np.cos(a), np.zeros_like(a)], axis=1)
    north = np.stack([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)], axis=1)
    return west, north


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> F64:
    """Angle between positions in degrees, exact at small and large angles."""
    values: F64 = np.degrees(angular_separation(*(np.radians(np.asarray(v, float)) for v in (ra1, dec1, ra2, dec2))))
    return values


def healpix29(ra: ArrayLike, dec: ArrayLike) -> I64:
    """Nested HEALPix index of order 29; -1 where the position is not finite."""
    ra, dec = _flat(ra, dec)
    index = np.full(ra.shape, -1, np.int64)
    finite = np.isfinite(ra) & np.isfinite(dec)
    if finite.any():
        longitude, latitude = ra[finite] * u.deg, dec[finite] * u.deg
        index[finite] = lonlat_to_healpix(longitude, latitude, 1 << HEALPIX_ORDER, order="nested")
    return index
