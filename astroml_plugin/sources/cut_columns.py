"""Columns of the objects of stamps that were cut from a survey: where each lay, and what its surroundings were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

JACOBIAN, CROWDED = "jacobian", "crowded"

PLACES = ("image", "tile", "x", "y", "flags", JACOBIAN, CROWDED)
"""Columns beside object_id, ra and dec: parent image, tile, position in the parent image, bits of `ObjectFlag`, local
WCS, and whether another object of the table lies beside it."""


@dataclass(frozen=True)
class CutColumns:
    """Local WCS and surroundings of stamps that were cut from a survey; None where their table does not say it."""

    jacobian: np.ndarray | None
    """(n, 2, 2) float64, see `Cutouts.jacobian`."""
    crowded: np.ndarray | None
    """(n,) bool, see `cutouts.crowded`."""

    @classmethod
    def of(cls, objects: pa.Table) -> CutColumns:
        """From the objects of a block."""
        jacobian = crowded = None
        names = set(objects.column_names)
        if JACOBIAN in names and _is_four(objects.schema.field(JACOBIAN).type):
            values = objects[JACOBIAN].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if len(values) == 4 * len(objects):
                jacobian = np.array(values, np.float64).reshape(-1, 2, 2)
        if CROWDED in names and pa.types.is_boolean(objects.schema.field(CROWDED).type):
            crowded = np.array(objects[CROWDED].fill_null(False).to_numpy(), bool)
        return cls(jacobian, crowded)

    def columns(self) -> dict[str, pa.Array]:
        """Arrow columns of an object table."""
        found: dict[str, pa.Array] = {}
        if self.jacobian is not None:
            flat = pa.array(np.ascontiguousarray(self.jacobian, np.float64).reshape(-1))
            found[JACOBIAN] = pa.FixedSizeListArray.from_arrays(flat, 4)
        if self.crowded is not None:
            found[CROWDED] = pa.array(self.crowded)
        return found


def _is_four(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and kind.list_size == 4)
