"""Label columns of labelled objects as arrays, refused where they cannot be learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Bool

GENERATED = "generator"
"""Label column whose text names what drew a stamp; null or empty where the stamp was observed or simulated."""


def label_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A label column.

    Raises:
        InputError: there is none of that name; says which there are.
    """
    if name not in table.column_names:
        raise InputError(f"label column {name!r} is missing: the data have {', '.join(table.column_names) or 'none'}")
    return table[name]


def label_texts(table: pa.Table, name: str) -> np.ndarray:
    """(n,) label values as text (object), None where missing or NaN; whole numbers without a decimal point."""
    column = label_column(table, name).combine_chunks()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.equal(column, pc.floor(column))).as_py():
            column = column.cast(pa.int64())
    return np.array([None if value is None else str(value) for value in column.to_pylist()], object)


def joined_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Label tables of several sources, one below the other; null where a source lacks a column.

    A column that is text in one and numbers in another is text in all.
    """
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        alike = list(tables)
    for name in dict.fromkeys(name for table in alike for name in table.column_names):
        if not _agree([table.schema.field(name) for table in alike if name in table.column_names]):
            alike = [_as_text(table, name) if name in table.column_names else table for table in alike]
    return pa.concat_tables(alike, promote_options="permissive")


def _agree(fields: Sequence[pa.Field]) -> bool:
    try:
        pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _as_text(table: pa.Table, name: str) -> pa.Table:
    words = pa.array(label_texts(table, name), pa.string())
    return table.set_column(table.column_names.index(name), name, words)


def generated(table: pa.Table) -> Bool:
    """(n,) whether stamps were drawn by a generator: such a stamp trains, and nothing is ever judged on it."""
    kind = table.schema.field(GENERATED).type if GENERATED in table.column_names else pa.null()
    if not any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)):
        return np.zeros(table.num_rows, bool)
    return np.array([bool(text) for text in label_texts(table, GENERATED)], bool)


def float_labels(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Label columns (n, len(names)) float32 to regress on.

    Raises:
        InputError: a column is missing or no number, has values that are NaN, infinite or null (with counts), or has
            one value only.
    """
    values = np.empty((table.num_rows, len(names)), np.float32)
    for position, name in enumerate(names):
        column = label_column(table, name).combine_chunks()
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise InputError(f"label column {name!r} must be numbers, not {column.type}")
        values[:, position] = column.to_numpy(zero_copy_only=False)
        bad = int((~np.isfinite(values[:, position])).sum())
        if bad:
            raise InputError(
                f"label column {name!r} is NaN, infinite or null for {bad} of {len(values)} objects: remove them"
            )
        if len(values) > 1 and np.ptp(values[:, position]) == 0:
            raise InputError(
                f"label column {name!r} is {values[0, position]:g} for all {len(values)} objects: nothing to learn"
            )
    return values


def numbers(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """(n, column) float32 of one label column per class: numbers, true and false, NaN where null.

    Raises:
        InputError: a column that is missing or holds no numbers.
    """
    result = np.empty((table.num_rows, len(columns)), np.float32)
    for place, name in enumerate(columns):
        column = label_column(table, name).combine_chunks()
        kind = column.type
        if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise InputError(f"label column {name!r} must be numbers or true and false, not {kind}")
        result[:, place] = column.cast(pa.float32()).to_numpy(zero_copy_only=False)
    return result
