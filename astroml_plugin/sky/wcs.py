"""World coordinates and tile geometry: pure functions of headers and integers.

Pixel positions are 0-based, the first pixel's centre is 0, x runs along NAXIS1. Sky positions are degrees, ICRS.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.astropy_later import coordinates, fits, fits_wcs, healpix, u
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.sky import lookup
from astroml_plugin.sky.headers import astropy_quiet, coordinates_of, parse, read_cards, text_of

__all__ = [
    "ARCSEC",
    "HEALPIX_ORDER",
    "Box",
    "TileGeometry",
    "Wcs",
    "astropy_quiet",
    "cut_tiles",
    "healpix29",
    "separation",
    "tile_step",
    "unit_vectors",
]

ARCSEC = 3600.0 * 180.0 / np.pi
"""Arcseconds in a radian."""

HEALPIX_ORDER = 29

_MARGIN = 5000
"""Pixels outside an image within which a distortion polynomial is still asked."""

_ROUND_TRIP = 0.01
"""Pixels by which sky -> pixel -> sky may miss before a position counts as not invertible."""

_REFINEMENTS, _NEAR = 4, 2.0
"""Steps of a refinement, and the pixels that each may go: farther off, the inverse has not converged at all."""

_CYLINDERS = ("CAR", "CEA", "MER", "CYP", "HPX")
"""Projections that go on beyond 180 degrees from the centre with the sky of the other side."""


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


class Wcs:
    """A celestial WCS kept as its original FITS cards (TAN, TPV, SIP, CAR, DSS, …); safe in threads.

    Lookup tables of its distortion stand in comments behind the cards.
    """

    def __init__(self, header: str) -> None:
        self.header = header
        self._lock = threading.Lock()
        self._wcs, self._frame = parse(header)
        self._turn = self._full_turn()
        self._limit = self._search_limit()

    @classmethod
    def from_header(cls, header: str | fits.Header) -> Wcs:
        """From a FITS header or its text; InputError when it holds no celestial WCS."""
        if isinstance(header, str):
            return cls(header)
        found = coordinates_of(header)
        if found.cards is None:
            why = f" that can be used ({found.problem})" if found.problem else ""
            raise InputError(
                f"the header has no celestial world coordinate system{why}: use pixel positions for this image"
            )
        return cls(found.cards)

    def __reduce__(self) -> tuple[type[Wcs], tuple[str]]:
        return Wcs, (self.header,)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) of the array as the header gives it, else None."""
        pixel_shape = self._wcs.pixel_shape
        return None if not pixel_shape else (int(pixel_shape[1]), int(pixel_shape[0]))

    @property
    def pixel_scale(self) -> float:
        """Arcseconds per pixel at the image centre (at CRPIX where the header gives no size), or where no sky is there,
        of the linear part."""
        matrix = self.jacobian(*self._centre())[0]
        if not np.isfinite(matrix).all():
            return self._plain_scale() * 3600
        return float(np.sqrt(abs(np.linalg.det(matrix))))

    def shifted(self, x0: int, y0: int, shape: tuple[int, int] | None = None) -> Wcs:
        """The WCS of an array whose first pixel is (x0, y0) of this one: only CRPIX moves, `shape` sets the size."""
        text, tables = lookup.split_text(self.header)
        header = read_cards(text)
        header["CRPIX1"] = float(header.get("CRPIX1", 0.0)) - x0
        header["CRPIX2"] = float(header.get("CRPIX2", 0.0)) - y0
        if "AMDX1" in header:  # a DSS plate: wcslib takes the plate's pixels, not CRPIX
            header["CNPIX1"], header["CNPIX2"] = header.get("CNPIX1", 0) + x0, header.get("CNPIX2", 0) + y0
        if shape is not None:
            header["NAXIS1"], header["NAXIS2"] = shape[1], shape[0]
        return Wcs(lookup.joined(text_of(header), [table.shifted(x0, y0) for table in tables]))

    def fits_parts(self) -> tuple[fits.Header, list[fits.ImageHDU]]:
        """Header of a FITS file with this WCS, and the HDUs of lookup tables that it refers to."""
        return lookup.fits_parts(lookup.split_text(self.header)[0], self._wcs)

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[F64, F64]:
        """ICRS (ra, dec) in degrees of pixel positions; NaN where the projection has no sky."""
        x, y = _flat(x, y)
        if self._turn is not None:  # wcslib has no sky beyond half a turn from the reference
            x, y = self._turned(x, y, float(self._wcs.wcs.crpix[0] - 1), float(self._wcs.wcs.crpix[1] - 1))
        with self._lock, np.errstate(all="ignore"):
            world = self._wcs.all_pix2world(np.column_stack([x, y]), 0)
        longitude, latitude = world[:, self._wcs.wcs.lng], world[:, self._wcs.wcs.lat]
        return self._to_icrs(longitude, latitude)

    def to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[F64, F64]:
        """Pixel positions of ICRS degrees; NaN where the inverse does not exist (far side, no convergence).

        Where a map goes round the whole sky, a position may have several pixels: the one nearest the map's centre.
        """
        ra, dec = _flat(ra, dec)
        x, y = np.full(ra.shape, np.nan), np.full(ra.shape, np.nan)
        usable = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        if self._limit is not None:
            ra0, dec0, radius = self._limit
            usable[usable] = separation(ra[usable], dec[usable], ra0, dec0) <= radius
        if not usable.any():
            return x, y
        x[usable], y[usable] = self._invert(*self._from_icrs(ra[usable], dec[usable]))
        if self._turn is not None:
            x, y = self._turned(x, y, *self._centre())
        missed = self._missed(x[usable], y[usable], ra[usable], dec[usable])
        rough = np.flatnonzero(usable)[(missed > _ROUND_TRIP) & (missed <= _NEAR)]
        wrong = np.flatnonzero(usable)[~(missed <= _NEAR)]
        x[wrong] = y[wrong] = np.nan
        if len(rough):
            x[rough], y[rough] = self._refined(x[rough], y[rough], ra[rough], dec[rough])
        return x, y

    def _missed(self, x: F64, y: F64, ra: F64, dec: F64) -> F64:
        """Pixels by which positions are beside their sky positions."""
        return separation(ra, dec, *self.to_sky(x, y)) / self._plain_scale()

    def _refined(self, x: F64, y: F64, ra: F64, dec: F64) -> tuple[F64, F64]:
        """Pixels brought to their sky positions by Newton's method (the inverse of CSC is rough); NaN: in vain."""
        for _ in range(_REFINEMENTS):
            here = self.to_sky(x, y)
            west, north = _axes(*here)
            away = unit_vectors(ra, dec) - unit_vectors(*here)
            offset = np.stack([(away * west).sum(1), (away * north).sum(1)], axis=1) * ARCSEC
            matrix = self.jacobian(x, y)
            usable = np.isfinite(matrix).all((1, 2))
            matrix[~usable] = np.eye(2)
            usable &= np.abs(np.linalg.det(matrix)) > 0
            matrix[~usable] = np.eye(2)
            step = np.linalg.solve(matrix, offset[:, :, None])[:, :, 0]
            step[~(usable & (np.hypot(*step.T) <= _NEAR))] = np.nan
            x, y = x + step[:, 0], y + step[:, 1]
        lost = ~(self._missed(x, y, ra, dec) <= _ROUND_TRIP)
        return np.where(lost, np.nan, x), np.where(lost, np.nan, y)

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
            except fits_wcs.NoConvergence as error:
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
        sky = coordinates.SkyCoord(longitude * u.deg, latitude * u.deg, frame=self._frame).icrs
        return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)

    def _from_icrs(self, ra: F64, dec: F64) -> tuple[F64, F64]:
        if self._frame is None:
            return ra, dec
        sky = (
            coordinates.SkyCoord(ra * u.deg, dec * u.deg, frame=coordinates.ICRS()).transform_to(self._frame).spherical
        )
        return np.asarray(sky.lon.deg), np.asarray(sky.lat.deg)

    def _centre(self) -> tuple[float, float]:
        shape = self.shape
        if shape is None:
            return float(self._wcs.wcs.crpix[0] - 1), float(self._wcs.wcs.crpix[1] - 1)
        return (shape[1] - 1) / 2, (shape[0] - 1) / 2

    def _plain_scale(self) -> float:
        """Degrees per pixel of the linear part."""
        return float(np.sqrt(abs(np.linalg.det(self._wcs.pixel_scale_matrix))))

    def _full_turn(self) -> tuple[F64, F64] | None:
        """(row, step) of a map that goes round the sky; else None.

        Args of the result: `row` times a pixel offset is a number of turns, `step` the pixels of one turn.
        """
        wcs = self._wcs
        longitude, latitude = wcs.wcs.lng, wcs.wcs.lat
        if wcs.wcs.ctype[longitude][5:8] not in _CYLINDERS or wcs.has_distortion:
            return None
        own = {(axis, number): value for axis, number, value in wcs.wcs.get_pv()}
        stretch = own.get((latitude + 1, 2), 1.0) if wcs.wcs.ctype[longitude].endswith("CYP") else 1.0
        if own.get((longitude + 1, 0)) or not stretch:  # PVi_0: the reference is not where the native system begins
            return None
        matrix = np.asarray(wcs.pixel_scale_matrix)
        turn = np.zeros(2)
        turn[longitude] = 360.0 * stretch
        return matrix[longitude] / turn[longitude], np.linalg.solve(matrix, turn)

    def _turned(self, x: F64, y: F64, near_x: float, near_y: float) -> tuple[F64, F64]:
        """Positions moved by whole turns to those nearest (near_x, near_y)."""
        assert self._turn is not None
        row, step = self._turn
        turns = np.rint(row[0] * (x - near_x) + row[1] * (y - near_y))
        return x - turns * step[0], y - turns * step[1]

    def _search_limit(self) -> tuple[float, float, float] | None:
        """(ra, dec, radius) in degrees beyond which a distortion is not asked; None for plain projections."""
        distorted = self._wcs.has_distortion or any(word in self.header for word in ("TPV", "\nPV1_", "\nAMDX1"))
        shape = self.shape
        if not distorted or shape is None:
            return None
        x, y = self._centre()
        ra, dec = self.to_sky([x, 0, x * 2, 0, x * 2], [y, 0, 0, y * 2, y * 2])
        radius = float(np.max(separation(ra, dec, ra[0], dec[0])))
        if not np.isfinite(radius):
            return None
        return float(ra[0]), float(dec[0]), 1.5 * radius + _MARGIN * self._plain_scale()


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


def edge_distance(height: ArrayLike, width: ArrayLike, x: F64, y: F64) -> F64:
    """Pixels from each position to the nearest edge of its image."""
    return np.asarray(np.minimum.reduce([x + 0.5, np.asarray(width) - 0.5 - x, y + 0.5, np.asarray(height) - 0.5 - y]))


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> F64:
    """Angle between positions in degrees, exact at small and large angles."""
    values: F64 = np.degrees(
        coordinates.angular_separation(*(np.radians(np.asarray(v, float)) for v in (ra1, dec1, ra2, dec2)))
    )
    return values


def healpix29(ra: ArrayLike, dec: ArrayLike) -> I64:
    """Nested HEALPix index of order 29; -1 where the position is not finite."""
    ra, dec = _flat(ra, dec)
    index = np.full(ra.shape, -1, np.int64)
    finite = np.isfinite(ra) & np.isfinite(dec)
    if finite.any():
        longitude, latitude = ra[finite] * u.deg, dec[finite] * u.deg
        index[finite] = healpix.lonlat_to_healpix(longitude, latitude, 1 << HEALPIX_ORDER, order="nested")
    return index
