"""Columns of a SkyCoord in tables that astropy wrote: ECSV and Parquet keep it as two columns and say its frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.core.astropy_later import coordinates, time, u

WRITTEN_IN = "#frame"
"""Key of a frame beyond ICRS and Galactic among the hints: "fk5 equinox=2451545.0", times as TT days."""

_AXES = {"icrs": ("ra", "dec"), "galactic": ("l", "b")}
_OTHER_AXES = (("ra", "dec"), ("lon", "lat"), ("l", "b"), ("sgl", "sgb"))
_TIMES = ("equinox", "obstime")
_NOT_HERE = ("location", "pressure", "obsgeoloc", "obsgeovel")
"""Attributes of frames that depend on a place: positions of such are no positions of objects here."""


def hints_of(header: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Our names -> columns of the only SkyCoord of a table, and its frame under `WRITTEN_IN`; none for others.

    Args:
        header: the header in YAML, as astropy reads it.
        names: columns of the table; one that has positions under plain names is left to them.
    """
    plain = {name.lower() for name in names}
    if {"ra", "dec"} <= plain or {"l", "b"} <= plain:
        return {}
    columns = dict(header.get("meta") or {}).get("__serialized_columns__") or {}
    found = [
        _hints(name, described, names)
        for name, described in columns.items()
        if str(described.get("__class__", "")).endswith(".SkyCoord")
    ]
    return found[0] if len(found) == 1 else {}


def _hints(name: str, described: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    frame = str(described.get("frame", ""))
    if frame in _AXES:
        pairs = {axis: f"{name}.{axis}" for axis in _AXES[frame] if f"{name}.{axis}" in names}
        return pairs if len(pairs) > 1 else {}
    known = coordinates.frame_transform_graph.lookup_name(frame)
    axes = next((pair for pair in _OTHER_AXES if all(f"{name}.{axis}" in names for axis in pair)), None)
    if known is None or axes is None or any(attribute in known.frame_attributes for attribute in _NOT_HERE):
        return {}
    times = {key: described[key] for key in _TIMES if isinstance(described.get(key), time.Time)}
    written_in = " ".join([frame, *(f"{key}={float(one.tt.jd)!r}" for key, one in times.items())])
    return {"ra": f"{name}.{axes[0]}", "dec": f"{name}.{axes[1]}", WRITTEN_IN: written_in}


def to_icrs(first: np.ndarray, second: np.ndarray, frame: str) -> tuple[np.ndarray, np.ndarray]:
    """ICRS degrees (n,), (n,) of degrees in another frame; NaN where these are no position.

    Args:
        first, second: longitude and latitude (n,).
        frame: as under `WRITTEN_IN`, or a frame's name.
    """
    name, *attributes = frame.split()
    pairs = [pair.partition("=") for pair in attributes]
    times = {key: time.Time(float(value), format="jd", scale="tt") for key, _, value in pairs}
    ra, dec = np.full(len(first), np.nan), np.full(len(first), np.nan)
    usable = np.isfinite(first) & (np.abs(second) <= 90)
    if usable.any():
        sky = coordinates.SkyCoord(first[usable] * u.deg, second[usable] * u.deg, frame=name, **times).icrs
        ra[usable], dec[usable] = sky.ra.deg, sky.dec.deg
    return ra, dec
