"""Attributions in a few numbers per object: where in the stamp, in which band, how concentrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.catalog import Column
from astroml_plugin.catalog.schema import arrow_type, vectors
from astroml_plugin.core.typing import F32, F64, I64, Bool
from astroml_plugin.explanation.attribution import Attribution
from astroml_plugin.explanation.outlines import outlines
from astroml_plugin.explanation.target import Seen

CORE = 3.0
"""Radius of the core, pixels."""
CELLS = 3
"""Parts of a stamp along each side, for `cell_fraction`."""
TOP = 10
"""Pixels that are named."""


@dataclass(frozen=True)
class Layout:
    """Sizes of the vectors that a summary has: the same for all objects of an explanation."""

    bands: tuple[str, ...]
    """Names of the channels."""
    side: int
    """Pixels of a stamp's side."""

    @property
    def rings(self) -> int:
        """Rings one pixel wide about the object."""
        return self.side // 2

    def columns(self, number: str, unit: str = "") -> list[Column]:
        """Columns of a summary.

        Args:
            number: what is explained.
            unit: of the number.
        """
        share = "Part of |attribution| "
        bands = ", ".join(self.bands)
        return [
            Column("rank", "int64", "", "meta.number", "Place in the list of explained objects, from 1"),
            Column("map_row", "int64", "", "meta.number", "Row of the array of attribution maps"),
            Column("value", "float32", unit, "stat.value", f"{number} as explained"),
            Column("baseline_value", "float32", unit, "stat.value", f"{number} of the baseline"),
            Column(
                "completeness_error", "float32", "", "stat.error", "|sum of attributions - difference| / difference"
            ),
            Column("complete", "bool", "", "meta.code.qual", "Whether that error is within the tolerance"),
            Column("forwards", "int32", "", "meta.number", "Looks of the network at the object"),
            Column("positive_fraction", "float32", "", "arith.ratio", f"{share}that raises the number"),
            Column("outline_fraction", "float32", "", "arith.ratio", f"{share}within the object's outline"),
            Column("outline_area", "int32", "pix", "phys.angArea", "Pixels within the outline"),
            Column("outline_stored", "bool", "", "meta.code", "Outline of the catalog's label map, else of the light"),
            Column(
                "core_fraction", "float32", "", "arith.ratio", f"{share}within {CORE:g} pixels of the object's place"
            ),
            Column("top_fraction", "float32", "", "arith.ratio", f"{share}in the {TOP} pixels that have most"),
            Column("top_pixels", f"int32[{TOP}]", "", "meta.number", f"These pixels, y * {self.side} + x, most first"),
            Column("band_fraction", f"float32[{len(self.bands)}]", "", "arith.ratio", f"{share}in bands {bands}"),
            Column(
                "cell_fraction", f"float32[{CELLS**2}]", "", "arith.ratio", f"{share}in ninths of the stamp, by rows"
            ),
            Column("radial_profile", f"float32[{self.rings}]", "", "arith.ratio", f"{share}in rings 1 pixel wide"),
        ]

    def schema(self, number: str) -> pa.Schema:
        """Arrow schema of a summary, behind object_id and tile."""
        key = [pa.field("object_id", pa.int64()), pa.field("tile", pa.large_string())]
        return pa.schema([*key, *(pa.field(one.name, arrow_type(one.type)) for one in self.columns(number))])


def summarised(found: Attribution, seen: Seen, tolerance: float, outlined: Bool | None = None) -> dict[str, pa.Array]:
    """Columns of n objects, without rank and map_row.

    Args:
        found: of the objects.
        seen: their stamps.
        tolerance: error of the sum up to which an attribution is complete.
        outlined: (n, h, w) pixels of the objects, none for those whose outline is not known; None: of none.
    """
    maps: F32 = found.maps.float().cpu().numpy()
    size = np.abs(maps)
    total: F64 = size.sum((1, 2, 3), dtype=np.float64)
    inside, stored = _inside(seen, outlined)
    flat: F64 = size.sum(1, dtype=np.float64)
    radius = _radius(seen.at.cpu().numpy(), flat.shape[1:])
    order = np.argsort(-flat.reshape(len(flat), -1), axis=1, kind="stable")[:, :TOP]
    best = np.take_along_axis(flat.reshape(len(flat), -1), order, 1).sum(1)
    error: F32 = found.error.cpu().numpy()
    unchecked = np.isnan(error)

    def share(part: F64) -> pa.Array:
        values = part / np.where(total > 0, total, np.nan)[(..., *(None,) * (part.ndim - 1))]
        narrow = values.astype(np.float32)
        return pa.array(narrow, from_pandas=True) if narrow.ndim == 1 else vectors(narrow)

    return {
        "value": pa.array(found.value.cpu().numpy().astype(np.float32), from_pandas=True),
        "baseline_value": pa.array(found.reference.cpu().numpy().astype(np.float32), from_pandas=True),
        "completeness_error": pa.array(error, from_pandas=True),
        "complete": pa.array(error <= tolerance, mask=unchecked),
        "forwards": pa.array(found.forwards.cpu().numpy().astype(np.int32)),
        "positive_fraction": share(np.clip(maps, 0, None).sum((1, 2, 3), dtype=np.float64)),
        "outline_fraction": share((flat * inside).sum((1, 2))),
        "outline_area": pa.array(inside.sum((1, 2)).astype(np.int32)),
        "outline_stored": pa.array(stored),
        "core_fraction": share((flat * (radius <= CORE)).sum((1, 2))),
        "top_fraction": share(best),
        "top_pixels": vectors(order.astype(np.int32)),
        "band_fraction": share(size.sum((2, 3), dtype=np.float64)),
        "cell_fraction": share(_cells(flat)),
        "radial_profile": share(_rings(flat, radius)),
    }


def _inside(seen: Seen, outlined: Bool | None) -> tuple[Bool, Bool]:
    """(n, h, w) pixels of each object, and (n,) whether `outlined` has them: else they are found by the light."""
    shape = (len(seen), *seen.image.shape[2:])
    inside = np.zeros(shape, bool) if outlined is None else outlined.copy()
    stored = np.asarray(inside.any((1, 2)))
    if not stored.all():
        rest = seen.take(torch.from_numpy(np.flatnonzero(~stored)).to(seen.image.device))
        inside[~stored] = outlines(rest.image, rest.usable, rest.at)
    return inside, stored


def _radius(at: I64, shape: tuple[int, ...]) -> F64:
    """(n, h, w) pixels from each object's place."""
    rows, columns = np.indices(shape)
    radius: F64 = np.hypot(rows - at[:, 1, None, None], columns - at[:, 0, None, None])
    return radius


def _cells(flat: F64) -> F64:
    """(n, CELLS²) sums over parts of the stamp, row by row from the first pixel."""
    edges = [np.linspace(0, length, CELLS + 1).round().astype(int)[:-1] for length in flat.shape[1:]]
    rows = np.add.reduceat(flat, edges[0], axis=1)
    cells: F64 = np.add.reduceat(rows, edges[1], axis=2).reshape(len(flat), -1)
    return cells


def _rings(flat: F64, radius: F64) -> F64:
    """(n, side // 2) sums over rings; what lies beyond the last ring is left out."""
    rings = min(flat.shape[1:]) // 2
    number = radius.round().astype(np.int64)
    inside: Bool = number < rings
    place = np.arange(len(flat))[:, None, None] * rings + number
    sums = np.bincount(place[inside], flat[inside], minlength=len(flat) * rings)
    return np.asarray(sums, np.float64).reshape(len(flat), rings)
