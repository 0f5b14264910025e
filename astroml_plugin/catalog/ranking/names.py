"""Columns that a person names: found, or refused with the nearest names."""

from __future__ import annotations

import difflib

import pyarrow as pa

from astroml_plugin.catalog import HEALPIX, type_name
from astroml_plugin.core.errors import InputError

_SHOWN = 12


def is_number(kind: pa.DataType) -> bool:
    """Whether a column can be ordered as numbers."""
    return bool(
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def numeric_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns of numbers that a task measured: no identifiers, positions or flags."""
    placed = {"object_id", "x", "y", "ra", "dec", "primary", "flags", HEALPIX}
    return [
        field.name
        for field in schema
        if is_number(field.type) and field.name not in placed and not field.name.endswith("_flags")
    ]


def unknown(schema: pa.Schema, name: str, remedy: str) -> InputError:
    """The error for a column that is not there: the nearest names, else the first ones."""
    near = difflib.get_close_matches(name, schema.names, 4, 0.5)
    if near:
        return InputError(f"the catalog has no column '{name}', nearest are {', '.join(near)}: choose by {remedy}")
    names = numeric_columns(schema)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    has = f"its columns of numbers are {', '.join(names[:_SHOWN])}{more}" if names else "it has no columns of numbers"
    return InputError(f"the catalog has no column '{name}', {has}: choose by {remedy}")


def check_numeric(schema: pa.Schema, name: str, remedy: str) -> None:
    """InputError unless `name` is a column of numbers."""
    if name not in schema.names:
        raise unknown(schema, name, remedy)
    kind = schema.field(name).type
    if not is_number(kind):
        raise InputError(f"column '{name}' is {type_name(kind)}, no number: choose another one by {remedy}")


def one_of(schema: pa.Schema, name: str, what: str, remedy: str) -> str:
    """The column `name`, or the only `<bundle>_<name>`.

    Raises:
        InputError: there is none, or several.
    """
    if name in schema.names:
        return name
    several = [column for column in schema.names if column.endswith("_" + name)]
    if len(several) == 1:
        return str(several[0])
    if several:
        raise InputError(f"the catalog has {what} of several bundles ({', '.join(several)}): choose by {remedy}")
    raise unknown(schema, name, remedy)
