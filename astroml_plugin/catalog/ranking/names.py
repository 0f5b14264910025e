"""Columns that a person names: found, or refused with the nearest names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import pyarrow as pa

from astroml_plugin.catalog import HEALPIX, type_name
from astroml_plugin.catalog.schema import is_vector
from astroml_plugin.core.errors import InputError

_SHOWN = 12
_IDENTIFIER = re.compile(r"meta\.id(?![^.;])")


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
    placed = {"x", "y", "ra", "dec", "primary", "flags", HEALPIX}
    return [
        field.name
        for field in schema
        if is_number(field.type) and not (field.name in placed or field.name.endswith("_flags") or is_identifier(field))
    ]


def is_identifier(field: pa.Field) -> bool:
    """Whether a column names objects (its UCD is `meta.id` or below): its order and its distances mean nothing."""
    ucd = (field.metadata or {}).get(b"ucd", b"").decode("utf-8", "replace")
    return field.name == "object_id" or bool(_IDENTIFIER.match(ucd))


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


def check_measured(schema: pa.Schema, names: Sequence[str], remedy: str) -> None:
    """InputError unless all are columns of numbers that have distances: no identifiers."""
    for name in names:
        check_numeric(schema, name, remedy)
        if is_identifier(schema.field(name)):
            raise InputError(f"column '{name}' names objects, its numbers measure nothing: leave it out of --features")


def vector_column(schema: pa.Schema, name: str | None, usual: str, remedy: str, otherwise: str) -> str:
    """The vector column `name`, or the only one that is called `usual` or `<bundle>_<usual>`.

    Args:
        schema: of the catalog.
        name: as a person gave it.
        usual: name that is looked for where nothing is said.
        remedy: how to choose a vector column.
        otherwise: what to do where the catalog has none, in the imperative.

    Raises:
        InputError: there is none, several, or one that holds no vectors.
    """
    there = [field.name for field in schema if is_vector(field.type)]
    if name is None and not there:
        raise InputError(f"the catalog has no column of vectors: {otherwise}")
    found = name or (one_of(schema, usual, "vectors of objects", remedy) if _named(there, usual) else "")
    if not found:
        raise InputError(f"the catalog has no column '{usual}', its vectors are {', '.join(there)}: choose by {remedy}")
    if found not in schema.names:
        raise unknown(schema, found, remedy)
    kind = schema.field(found).type
    if not is_vector(kind):
        then = f"choose another one by {remedy}" if there else otherwise
        raise InputError(f"column '{found}' is {type_name(kind)}, no vector: {then}")
    return found


def _named(names: Sequence[str], usual: str) -> bool:
    return any(name == usual or name.endswith("_" + usual) for name in names)


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
