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


def foreign_catalog(folder: Path | str) -> Catalog:
    """Two units of rows that nobody expects: ids beyond 2^53, poles, right ascension 0 and 360, no positions, vectors
    with nulls, texts in other letters, values at the ends of their types."""
    columns = (
        Column("latent", "float32[3]", "", "stat.param", "Latent vector"),
        Column("counts", "int16[2]", "", "phot.count", "Whole numbers"),
        Column("label", "string", "", "src.class", "Klasse «größer»"),
        Column("flux", "float64", "nJy", "phot.flux", "Flux"),
        Column("small", "uint8", "", "meta.number", "Bytes"),
    )
    catalog = Catalog.create(str(folder), schema(columns), IDENTITY)
    run = catalog.start_run({"kind": "infer"})
    infos = []
    for number, name in enumerate(("Köln_0", "im_1")):
        nan = float("nan")
        rows = {
            "object_id": pa.array([2**63 - 1 - number, 2**53 + 1 + number, number, -5 - number, 10 + number]),
            "image": pa.array([name.split("_")[0]] * 5),
            "tile": pa.array([name] * 5),
            "x": pa.array([1.0, 2.0, nan, 4.0, 5.0]),
            "y": pa.array([1.0, 2.0, 3.0, 4.0, 5.0]),
            "ra": pa.array([0.0, 360.0, 359.9999999, 12.0, None if number else nan]),
            "dec": pa.array([90.0, -90.0, 1e-9, -45.0, None if number else nan]),
            "primary": pa.array([True, True, True, True, False]),
            "flags": pa.array([0, 1, 2, 512, 1023], pa.int32()),
            "latent": pa.array([[1, 2, 3], None, [nan, 1, 2], [0, 0, 0], [1, 1, 1]], pa.list_(pa.float32(), 3)),
            "counts": pa.array([[1, 2], [3, 4], None, [5, 6], [7, 8]], pa.list_(pa.int16(), 2)),
            "label": pa.array(["größer", None, "a%b", "", "🦆 "]),
            "flux": pa.array([1.5, None, nan, float("inf"), -1.0]),
            "small": pa.array([0, 255, None, 1, 2], pa.uint8()),
        }
        infos.append(catalog.write_part(name, "a" * 16, pa.table(rows)))
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run)
    return catalog


def small_catalog(folder: Path | str, units: int = 6, rows: int = 20) -> tuple[Catalog, list[PartInfo]]:
    """A finished run of `units` units, one degree of right ascension each."""
    catalog = Catalog.create(str(folder), DECLARED, IDENTITY)
    run = catalog.start_run({"kind": "infer"})
    names = [f"im_{number}" for number in range(units)]
    infos = [catalog.write_part(name, "a" * 16, unit_rows(name, rows, ra=10.0 + k)) for k, name in enumerate(names)]
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run)
    return catalog, infos
