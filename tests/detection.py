"""What tests of detection share: one sky in three tilings, found by the matched filter of `spotter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests import spotter, universe
from workflows.infer import InferResult, infer
from workflows.query import query

TILINGS = ((192, 32), (164, 41), (512, 32))
"""Tile size and halo of each."""


def make(folder: Path, client: object) -> Path:
    """Three surveys, three bundles, and the catalog of each survey."""
    spotter.make_bundle(str(folder / "spots"))
    universe.make_bundle(str(folder / "kind"))
    universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
    for number, (tile_size, halo) in enumerate(TILINGS):
        universe.make_survey(str(folder / f"survey{number}.zarr"), tile_size=tile_size, halo=halo)
        run(folder, folder / f"catalog{number}", client, source=folder / f"survey{number}.zarr")
    return folder


def run(sky: Path, out: Path, client: object, **changes: Any) -> InferResult:
    """`infer` with the matched filter, unless `changes` say otherwise."""
    settings = {"bundle": str(sky / "spots"), **changes}
    return infer(str(settings.pop("source", sky / "survey0.zarr")), out=str(out), client=client, **settings)


def rows(out: Path) -> pa.Table:
    """The catalog without what may differ between tilings, in a fixed order."""
    table = query(str(out), "SELECT * EXCLUDE (tile, label_id) FROM catalog").to_arrow()
    return table.sort_by([("object_id", "ascending"), ("image", "ascending")])


def rows_of(out: Path) -> pa.Table:
    """All of a catalog by id."""
    return query(str(out)).to_arrow().sort_by("object_id")


def assert_same(one: pa.Table, two: pa.Table) -> None:
    """Equal row for row, numbers with a fraction to rounding: tiles count pixels from different corners."""
    assert one.schema.names == two.schema.names
    assert one["object_id"].to_pylist() == two["object_id"].to_pylist()
    for name in one.schema.names:
        left, right = one[name].combine_chunks(), two[name].combine_chunks()
        if pa.types.is_floating(left.type):
            near = 1e-4 if name in ("x", "y") else 1e-8 if name in ("ra", "dec") else 1e-3
            np.testing.assert_allclose(left.to_numpy(False), right.to_numpy(False), rtol=0, atol=near, err_msg=name)
        else:
            assert left.equals(right), name
