"""Columns of a SkyCoord in tables that astropy wrote: ECSV and Parquet keep it as two columns and say its frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_AXES = {"icrs": ("ra", "dec"), "galactic": ("l", "b")}


def hints_of(header: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Our names -> columns of the only SkyCoord of a table whose frame is ICRS or Galactic; none for others.

    Args:
        header: the header in YAML, as astropy reads it.
        names: columns of the table; one that has positions under plain names is left to them.
    """
    plain = {name.lower() for name in names}
    if {"ra", "dec"} <= plain or {"l", "b"} <= plain:
        return {}
    columns = dict(header.get("meta") or {}).get("__serialized_columns__") or {}
    found = []
    for name, described in columns.items():
        if str(described.get("__class__", "")).endswith(".SkyCoord"):
            axes = _AXES.get(str(described.get("frame", "")), ())
            pairs = {axis: f"{name}.{axis}" for axis in axes if f"{name}.{axis}" in names}
            found.append(pairs if len(pairs) > 1 else {})
    return found[0] if len(found) == 1 else {}
