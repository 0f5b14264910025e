"""Small catalogs for tests: seeded rows, written through the real Catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, PartInfo, schema

COLUMNS = (
    Column("e1", "float32", "", "src.ellipticity", "First component"),
    Column("label", "string", "", "src.class", "Class"),
    Column("flux", "float64", "nJy", "phot.flux", "Flux"),
)
DECLARED = schema(COLUMNS)
IDENTITY = {"source": "s", "bundle": "b"}


def unit_rows(unit: str, count: int = 20, *, seed: int = 0, ra: float = 10.0, wcs: bool = True) -> pa.Table:
    """Rows of one unit, in no order."""
    generator = np.random.default_rng([seed, *map(ord, unit)])
    nothing = pa.nulls(count, pa.float64())
    return pa.table(
        {
            "object_id": generator.integers(0, 2**62, count),
            "image": pa.array([unit.split("_")[0]] * count, pa.string()),
            "tile": pa.array([unit] * count, pa.string()),
            "x": generator.uniform(0, 100, count),
            "y": generator.uniform(0, 100, count),
            "ra": pa.array(ra + generator.uniform(0, 1, count)) if wcs else nothing,
            "dec": pa.array(generator.uniform(-0.5, 0.5, count)) if wcs else nothing,
            "primary": np.ones(count, bool),
            "flags": np.arange(count, dtype=np.int32) % 4,
            "e1": generator.normal(size=count).astype(np.float32),
            "label": pa.array(["spiral", "elliptical"] * count, pa.string())[:count],
            "flux": generator.uniform(1, 100, count),
        }
    )


def small_catalog(folder: Path | str, units: int = 6, rows: int = 20) -> tuple[Catalog, list[PartInfo]]:
    """A finished run of `units` units, one degree of right ascension each."""
    catalog = Catalog.create(str(folder), DECLARED, IDENTITY)
    run = catalog.start_run({"kind": "infer"})
    names = [f"im_{number}" for number in range(units)]
    infos = [catalog.write_part(name, "a" * 16, unit_rows(name, rows, ra=10.0 + k)) for k, name in enumerate(names)]
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run)
    return catalog, infos
