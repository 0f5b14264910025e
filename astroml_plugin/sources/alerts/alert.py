"""One alert: its ids, position and pictures, and the columns that its measurements become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.sources.alerts.kinds import BANDS, AlertKind
from astroml_plugin.sources.alerts.pictures import Picture, read_picture

PACKET, NUMBER, COUNT = "packet", "packet_alert", "packet_alerts"
"""Columns: file or message an alert came in, its number there from 0, and how many alerts are there."""

ZERO_POINT = "zero_point"
_OWN = frozenset({"object_id", "ra", "dec", PACKET, NUMBER, COUNT, ZERO_POINT, "jacobian", "crowded", "image", "tile"})
"""Names that the stamps give a meaning of their own."""
_ARROW = {
    **{"int": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64()},
    **{"boolean": pa.bool_(), "string": pa.string()},
}


@dataclass(frozen=True)
class Alert:
    """An alert whose pictures are read."""

    identifier: int
    """candid, diaSourceId: the `object_id` of its stamps."""
    object_name: str | int | None
    """Object that it belongs to."""
    ra: float
    """Degrees; NaN where it is not told."""
    dec: float
    pictures: tuple[Picture | None, ...]
    """One per band of `BANDS`."""
    fields: Mapping[str, Any] = field(repr=False)
    """Measurements by name."""

    @property
    def survey(self) -> str:
        """First letters of the object's name, by which surveys with one form of packets are told apart."""
        found = re.match(r"[A-Za-z]*", "" if self.object_name is None else str(self.object_name))
        return found[0] if found else ""

    def is_calibrated(self, kind: AlertKind) -> bool:
        """Whether its survey is the one whose zero points and pixels the kind knows."""
        return bool(kind.calibrated) and str(self.object_name).startswith(kind.calibrated)

    def zero_point(self, kind: AlertKind) -> float | None:
        """AB magnitude of one unit of the science and difference images; None where it is not known."""
        value = self.fields.get(kind.zero_point) if kind.zero_point and self.is_calibrated(kind) else None
        return float(value) if isinstance(value, int | float) else None


def read_alert(record: Mapping[str, Any], kind: AlertKind) -> Alert:
    """The alert in a packet's record.

    Raises:
        InputError: its number is missing or no whole number, or none of its pictures can be read.
    """
    fields = record.get(kind.record)
    if not isinstance(fields, Mapping):
        raise InputError(f"its {kind.record} is empty")
    identifier = record.get(kind.identifier, fields.get(kind.identifier))
    if not isinstance(identifier, int) or isinstance(identifier, bool):
        raise InputError(f"its {kind.identifier} is {str(identifier)[:40]!r}, no whole number")
    if not -(2**63) <= identifier < 2**63:
        raise InputError(f"its {kind.identifier} is {identifier}: ids are int64, at most {2**63 - 1}")
    names = [(record.get(name), fields.get(name)) for name in kind.object_names]
    named = [value for pair in names for value in pair if isinstance(value, str | int)]
    pictures = tuple(_picture(record, kind.cutouts[band], band) for band in BANDS)
    if not any(picture is not None for picture in pictures):
        raise InputError("it has no cutouts")
    place = (_degrees(fields.get("ra")), _degrees(fields.get("dec")))
    return Alert(identifier, named[0] if named else None, *place, pictures, fields)


def _picture(record: Mapping[str, Any], spellings: Iterable[str], band: str) -> Picture | None:
    value = next((record[name] for name in spellings if record.get(name) is not None), None)
    try:
        return read_picture(value)
    except InputError as error:
        raise InputError(f"{band}: {error}") from error


def _degrees(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def columns_of(fields: Iterable[tuple[str, Any]], kind: AlertKind) -> pa.Schema:
    """Columns that the measurements of a packet's schema become.

    Args:
        fields: name and Avro or Arrow type of the fields of `kind.record`; lists and bytes become no columns.
        kind: of the packets.
    """
    found = {name: value for name, given in fields if (value := _arrow_type(given)) is not None and name not in _OWN}
    name = kind.object_names[0]
    found = {name: found.pop(name, pa.string()), **found}
    if kind.zero_point in found:
        found[ZERO_POINT] = pa.float64()
    return pa.schema(found.items())


def _arrow_type(given: Any) -> pa.DataType | None:
    if isinstance(given, pa.DataType):
        known = pa.types.is_primitive(given) or pa.types.is_string(given) or pa.types.is_large_string(given)
        return given if known else None
    kinds = [one for one in (given if isinstance(given, list) else [given]) if one != "null"]
    if len(kinds) != 1:
        return None
    kind = kinds[0]["type"] if isinstance(kinds[0], dict) else kinds[0]
    return pa.string() if kind == "enum" else _ARROW.get(kind) if isinstance(kind, str) else None


@dataclass(frozen=True)
class Place:
    """Where an alert came from."""

    packet: str
    """File, or file and member of an archive, without credentials."""
    number: int
    """Number there, from 0."""
    count: int | None
    """Alerts that are there; None where the packet is damaged."""


def objects_table(alerts: Sequence[Alert], places: Sequence[Place], columns: pa.Schema, kind: AlertKind) -> pa.Table:
    """The objects of a block of stamps.

    Args:
        alerts: in the order of the stamps.
        places: of each.
        columns: see `columns_of`.
        kind: of them all.
    """
    values: dict[str, Any] = {
        "object_id": pa.array([alert.identifier for alert in alerts], pa.int64()),
        "ra": _nullable([alert.ra for alert in alerts]),
        "dec": _nullable([alert.dec for alert in alerts]),
    }
    told: list[Any]
    for number, item in enumerate(columns):
        if item.name == ZERO_POINT:
            told = [alert.zero_point(kind) for alert in alerts]
        elif number == 0:
            told = [alert.object_name for alert in alerts]
        else:
            told = [alert.fields.get(item.name) for alert in alerts]
        values[item.name] = _column(told, item.type)
    values |= {
        PACKET: pa.array([place.packet for place in places], pa.string()),
        NUMBER: pa.array([place.number for place in places], pa.int32()),
        COUNT: pa.array([place.count for place in places], pa.int32()),
    }
    if all(picture.jacobian is not None for alert in alerts for picture in alert.pictures if picture is not None):
        values["jacobian"] = _jacobians(alerts)
    return pa.table(values)


def _nullable(values: Sequence[float]) -> pa.Array:
    return pa.array(np.array(values, np.float64), from_pandas=True)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values of a type; those that another schema gives another type are null, never rounded."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([_exact(value, kind) for value in values], kind)


def _exact(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind) and isinstance(value, int | float):
        return str(value)
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    return value


def _jacobians(alerts: Sequence[Alert]) -> pa.Array:
    flat: list[F64] = []
    for alert in alerts:
        flat += [picture.jacobian for picture in alert.pictures if picture and picture.jacobian is not None][:1]
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([one.reshape(-1) for one in flat])), 4)
