"""Which kind each detection on a simulated sky is: true objects as a survey finds them, and detections of none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial import KDTree

from astroml_plugin.catalog.objects.in_memory import arrow_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.detections import EDGE_ON

EARLY, DISK = 2.8, 1.5
"""Sersic index from which a galaxy is early, and up to which it is a disk; between them it is neither."""

ROUND = 0.5
"""Largest |e| of an early galaxy."""

RIM = 40
"""Pixels from the edge of an image within which no detection is labelled: the truth does not tell what lies beyond."""

_CENTRE = 2.5  # pixels between a detection and the object that it is
_SHARE = 0.5  # least part of the measured flux that this object has
_FAINT = 0.1  # part of the measured flux below which an object does not count
_NEAR = 6.0  # pixels within which a detection may be a piece of any object
_RADII = 2.5  # half-light radii within which it may be a piece of a galaxy
_GIVEN = ("kind", "snr", "true_id")


def kinds_of(truth: Any) -> NDArray[np.object_]:
    """(n,) kind of each true object of a sky, one of `DetectionSet.CLASSES`; None where it is between two kinds.

    Args:
        truth: `truth.parquet` of `simulate --kind survey` (Arrow, pandas, astropy): class, sersic_n, e1, e2.

    Raises:
        InputError: a column is missing or has no numbers.
    """
    table = arrow_of(truth)
    columns = _numbers(table, "sersic_n", "e1", "e2")
    name = np.array(_column(table, "class").to_pylist(), object)
    index, size = columns["sersic_n"], np.hypot(columns["e1"], columns["e2"])
    kinds = np.full(len(name), None, object)
    kinds[name == "star"], kinds[name == "irregular"] = "star", "irregular"
    smooth = (name == "spheroid") | (name == "disk")
    kinds[smooth & (index >= EARLY) & (size <= ROUND)] = "early"
    disk = smooth & (index <= DISK)
    kinds[disk & (size < EDGE_ON)], kinds[disk & (size >= EDGE_ON)] = "late", "edge_on"
    return kinds


def labelled_detections(
    found: Any, truth: Any, *, shape: tuple[int, int], band: str = "r", pixel_scale: float = Camera.pixel_scale
) -> pa.Table:
    """Detections of a simulated sky whose kind is sure, with the columns `kind`, `snr` and `true_id`.

    A detection is the brightest true object within 2.5 pixels, if that has at least half of the measured flux. It is an
    artefact where nothing of a tenth of its flux is near: within 6 pixels, or 2.5 half-light radii of a galaxy. Left
    out are blends and pieces of galaxies, detections without a flux, those of a negative flux beside an object, and
    those within `RIM` pixels of the edge.

    Args:
        found: rows of a catalog (Arrow, pandas, astropy): x, y (pixels), flux (nJy), and image if there are several.
        truth: table of the sky's objects, `truth.parquet` of `simulate`.
        shape: (height, width) of each image in pixels.
        band: whose flux is given.
        pixel_scale: arcsec per pixel.

    Returns:
        Rows of `found`, in Arrow. `snr` is the true one in the truth's reference band, NaN of artefacts; there
        `true_id` is null.

    Raises:
        InputError: a column is missing or has no numbers, is in another unit or there already; an image or a band has
            no truth.
    """
    rows, sky = arrow_of(found), arrow_of(truth)
    if not 0 < pixel_scale < math.inf:
        raise InputError(f"a pixel scale of {pixel_scale} arcsec is none: give that of the simulation")
    if taken := [name for name in _GIVEN if name in rows.column_names]:
        raise InputError(f"the detections have the columns {', '.join(taken)} already: leave them away")
    unit = (_field(rows, "flux").metadata or {}).get(b"unit", b"nJy").decode()
    if unit != "nJy":
        raise InputError(f"the flux of the detections is in {unit}: give it in nJy")
    objects = _Objects.of(sky, band, pixel_scale)
    x, y, flux = _numbers(rows, "x", "y", "flux").values()
    inside = (x >= RIM) & (x < shape[1] - RIM) & (y >= RIM) & (y < shape[0] - RIM) & np.isfinite(flux)
    kind, mine = np.full(len(rows), None, object), np.full(len(rows), -1)
    for here, there in _images(rows, sky):
        chosen = np.flatnonzero(here & inside)
        kind[chosen], mine[chosen] = objects.told(there, np.stack([x, y], 1)[chosen], flux[chosen])
    known = mine >= 0
    snr, ids = np.full(len(rows), np.nan), np.zeros(len(rows), np.int64)
    snr[known], ids[known] = objects.snr[mine[known]], objects.ids[mine[known]]
    columns = (pa.array(kind, pa.string()), pa.array(snr), pa.array(ids, mask=~known))
    for name, values in zip(_GIVEN, columns, strict=True):
        rows = rows.append_column(name, values)
    return rows.filter(pc.is_valid(rows["kind"]))


@dataclass(frozen=True)
class _Objects:
    """True objects of skies, (n,) each."""

    place: F64
    """(n, 2) x and y in pixels."""
    flux: F64
    """In nJy."""
    reach: F64
    """Pixels within which a detection may be a piece of it."""
    kind: NDArray[np.object_]
    snr: F64
    ids: I64

    @classmethod
    def of(cls, truth: pa.Table, band: str, pixel_scale: float) -> _Objects:
        """Objects of a table; fluxes are those of a band."""
        several = [name for name in truth.column_names if name.startswith("mag_")]
        if several and f"mag_{band}" not in several:
            raise InputError(f"the truth has no mag_{band}: name a band of the simulation")
        magnitude = f"mag_{band}" if several else "mag"
        numbers = _numbers(truth, "x", "y", magnitude)
        if not all(np.isfinite(values).all() for values in numbers.values()):
            raise InputError(f"x, y or {magnitude} of a true object is no number: give the truth of `simulate`")
        radius = _numbers(truth, "half_light_radius")["half_light_radius"]
        return cls(
            np.stack([numbers["x"], numbers["y"]], 1),
            10 ** (0.4 * (31.4 - numbers[magnitude])),
            np.maximum(_NEAR, _RADII * np.nan_to_num(radius) / pixel_scale),
            kinds_of(truth),
            _numbers(truth, "snr")["snr"],
            _whole(truth, "object_id"),
        )

    def told(self, chosen: Bool, place: F64, flux: F64) -> tuple[NDArray[np.object_], I64]:
        """(n,) kinds of detections, None where they are not sure, and the numbers of their objects, -1 for none.

        Args:
            chosen: of the objects, those of the image.
            place: (n, 2) of the detections.
            flux: (n,) of the detections, nJy.
        """
        kind, mine = np.full(len(place), None, object), np.full(len(place), -1)
        rows = np.flatnonzero(chosen)
        if not len(rows):
            kind[:] = "artefact"
            return kind, mine
        near = KDTree(self.place[rows]).query_ball_point(place, float(self.reach[rows].max()))
        for number, candidates in enumerate(near):
            those = rows[np.array(candidates, np.int64)]
            away = np.hypot(*(self.place[those] - place[number]).T)
            centred = those[away <= _CENTRE]
            best = int(centred[self.flux[centred].argmax()]) if len(centred) else -1
            if best >= 0 and flux[number] > 0 and self.flux[best] >= _SHARE * flux[number]:
                kind[number], mine[number] = self.kind[best], best
            elif not ((away <= self.reach[those]) & (self.flux[those] >= _FAINT * flux[number])).any():
                kind[number] = "artefact"
        return kind, mine


def _images(found: pa.Table, truth: pa.Table) -> Iterator[tuple[Bool, Bool]]:
    """Which detections and which true objects are of an image, for each."""
    if "image" not in truth.column_names:
        yield np.ones(len(found), bool), np.ones(len(truth), bool)
        return
    theirs = np.array(truth["image"].to_pylist(), object)
    names = sorted(set(theirs))
    if "image" not in found.column_names:
        if len(names) > 1:
            raise InputError("the truth is of several images: give the detections their column image")
        yield np.ones(len(found), bool), np.ones(len(truth), bool)
        return
    ours = np.array(found["image"].to_pylist(), object)
    if names and (lost := sorted({str(name) for name in set(ours) - set(names)})):
        raise InputError(f"the truth has no objects of the image {lost[0]}: give the truth of these images")
    for name in names or sorted(set(ours)):
        yield ours == name, theirs == name


def _field(table: pa.Table, name: str) -> pa.Field:
    if table.column_names.count(name) != 1:
        raise InputError(f"no column {name}: give the table of a simulated sky and its catalog")
    return table.schema.field(name)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table.column(_field(table, name).name)


def _numbers(table: pa.Table, *names: str) -> dict[str, F64]:
    """Columns as float64, nulls as NaN."""
    found = {}
    for name in names:
        column = _column(table, name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            raise InputError(f"the column {name} has no numbers: give the table of a simulated sky and its catalog")
        found[name] = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), float)
    return found


def _whole(table: pa.Table, name: str) -> I64:
    column = _column(table, name)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise InputError(f"the column {name} has no whole number in each row: give the truth of `simulate`")
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
