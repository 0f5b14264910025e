"""Which kind each detection on a simulated sky is: true objects as a survey finds them, and detections of none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import KDTree

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.simulation.detections import EDGE_ON

EARLY, DISK = 2.8, 1.5
"""Sersic index from which a galaxy is early, and up to which it is a disk; between them it is neither."""

ROUND = 0.5
"""Largest |e| of an early galaxy."""

_CENTRE = 2.5  # pixels between a detection and the object that it is
_SHARE = 0.5  # least part of the measured flux that this object has
_FAINT = 0.1  # part of the measured flux below which an object does not count
_NEAR = 6.0  # pixels within which a detection may be a piece of any object
_RADII = 2.5  # half-light radii within which it may be a piece of a galaxy


def kinds_of(truth: pa.Table) -> NDArray[np.object_]:
    """(n,) kind of each true object of a sky, one of `DetectionSet.CLASSES`; None where it is between two kinds.

    Args:
        truth: `truth.parquet` of `simulate --kind survey`: class, sersic_n, e1, e2.
    """
    columns = _numbers(truth, "sersic_n", "e1", "e2")
    name = np.array(truth["class"].to_pylist(), object)
    index, size = columns["sersic_n"], np.hypot(columns["e1"], columns["e2"])
    kinds = np.full(len(name), None, object)
    kinds[name == "star"], kinds[name == "irregular"] = "star", "irregular"
    smooth = (name == "spheroid") | (name == "disk")
    kinds[smooth & (index >= EARLY) & (size <= ROUND)] = "early"
    disk = smooth & (index <= DISK)
    kinds[disk & (size < EDGE_ON)], kinds[disk & (size >= EDGE_ON)] = "late", "edge_on"
    return kinds


def labelled_detections(found: pa.Table, truth: pa.Table, pixel_scale: float, zero_point: float) -> pa.Table:
    """Detections of a simulated sky whose kind is sure, with the columns `kind`, `snr` and `true_id`.

    A detection is the brightest true object within 2.5 pixels, if that has at least half of the measured flux. It is an
    artefact where nothing of a tenth of its flux is near: within 6 pixels, or 2.5 half-light radii of a galaxy. Others,
    blends and pieces of galaxies, are left out.

    Args:
        found: rows of a catalog, x, y (pixels) and flux (nJy).
        truth: table of the sky's objects, x, y, flux (counts), snr and what `kinds_of` reads.
        pixel_scale: arcsec per pixel.
        zero_point: AB magnitude of one count.

    Returns:
        Rows of `found`. `snr` is the true one, of artefacts NaN; so `true_id` is null there.

    Raises:
        InputError: a column is missing.
    """
    ours, true = _numbers(found, "x", "y", "flux"), _numbers(truth, "x", "y", "flux", "snr", "half_light_radius")
    flux = true["flux"] * 10 ** (0.4 * (31.4 - zero_point))
    reach = np.maximum(_NEAR, _RADII * np.nan_to_num(true["half_light_radius"]) / pixel_scale)
    kinds, places = kinds_of(truth), np.stack([true["x"], true["y"]], 1)
    kind, mine = np.full(len(found), None, object), np.full(len(found), -1)
    if not len(truth):
        kind[:] = "artefact"
    else:
        near = KDTree(places).query_ball_point(np.stack([ours["x"], ours["y"]], 1), float(reach.max()))
        for number, candidates in enumerate(near):
            rows = np.array(candidates, np.int64)
            away = np.hypot(places[rows, 0] - ours["x"][number], places[rows, 1] - ours["y"][number])
            measured = max(float(ours["flux"][number]), 0.0)
            centred = rows[away <= _CENTRE]
            if len(centred) and flux[best := centred[flux[centred].argmax()]] >= _SHARE * measured:
                kind[number], mine[number] = kinds[best], best
            elif not _piece(away, reach[rows], flux[rows], measured).any():
                kind[number] = "artefact"
    sure = np.array([name is not None for name in kind], bool)
    known = mine >= 0
    snr = np.where(known, true["snr"][mine] if len(truth) else np.nan, np.nan)
    ids = pa.array(truth["object_id"].to_numpy()[mine] if len(truth) else mine, pa.int64(), mask=~known)
    named = found.append_column("kind", pa.array(kind, pa.string()))
    return named.append_column("snr", pa.array(snr)).append_column("true_id", ids).filter(pa.array(sure))


def _piece(away: F64, reach: F64, flux: F64, measured: float) -> Bool:
    """(n,) of objects, those that a detection of this flux may be a piece of."""
    piece: Bool = (away <= reach) & (flux >= _FAINT * measured)
    return piece


def _numbers(table: pa.Table, *names: str) -> dict[str, F64]:
    """Columns as float64, nulls as NaN."""
    if missing := [name for name in names if name not in table.column_names]:
        raise InputError(
            f"the table has no column {', '.join(missing)}: give that of a simulated sky, or of its catalog"
        )
    return {name: np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), float) for name in names}
