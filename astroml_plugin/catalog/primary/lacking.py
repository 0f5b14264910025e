"""Pixels that an image lacks of an object that was given: of several images, the one that lacks least counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX, is_vector
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import I64, Array, Bool

NO_PIXELS = int(ObjectFlag.EDGE | ObjectFlag.NONFINITE)
"""Flags of an object that was given, where pixels of its stamp are outside the image or hold no number."""


def measured_fields(schema: pa.Schema) -> list[pa.Field]:
    """Columns whose values are measured: without any of them nothing is. Vectors only where there is nothing else."""
    common = {column.name for column in COMMON_COLUMNS} | {HEALPIX}
    own = [item for item in schema if item.name not in common and not item.name.endswith("flags")]
    return [item for item in own if not is_vector(item.type)] or own


def lacking(blank: Array, flags: Array) -> I64:
    """(n,) how much an image lacks of each object: 0 nothing, 1 pixels of its stamp, 2 all that was measured.

    Args:
        blank: (n,) whether nothing was measured.
        flags: (n,) flags of the row.
    """
    found: I64 = np.where(blank, 2, (np.asarray(flags) & NO_PIXELS) != 0).astype(np.int64)
    return found


def is_blank(table: pa.Table) -> Bool:
    """(n,) whether nothing was measured of a row of a catalog."""
    fields = measured_fields(table.schema)
    found = np.full(len(table), bool(fields))
    for item in fields:
        found &= np.asarray(pc.is_null(table[item.name], nan_is_null=pa.types.is_floating(item.type)))
    return found
