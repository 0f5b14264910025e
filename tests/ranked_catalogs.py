"""Small catalogs with an anomaly score and a latent space, without any model: enough to rank and label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, Column, schema
from astroml_plugin.catalog.schema import vectors
from astroml_plugin.sources.stamps import Stamps

COLUMNS = (
    Column("anomaly_score", "float32", "", "stat.probability", "Higher is more anomalous"),
    Column("size", "float32", "pix", "phys.angSize", "Half-light radius"),
    Column("kind", "string", "", "src.class", "Class"),
    Column("latent", "float32[4]", "", "", "Latent vector"),
)
DECLARED = schema(COLUMNS)


def rows(
    count: int, *, seed: int = 0, tile: str = "im_0", image: str = "im", first: int = 0, wcs: bool = True
) -> pa.Table:
    """Rows with scores on few values, so that many are equal; the latent space says the score apart from noise."""
    rng = np.random.default_rng([seed, first])
    score = rng.integers(0, 12, count).astype(np.float32)
    latent = rng.normal(size=(count, 4)).astype(np.float32) + 0.3 * score[:, None]
    place = rng.uniform(0, 1, (2, count))
    nothing = pa.nulls(count, pa.float64())
    return pa.table(
        {
            "object_id": np.arange(first, first + count) + 10**17,
            "image": [image] * count,
            "tile": [tile] * count,
            "x": rng.uniform(20, 80, count) if wcs else nothing,
            "y": rng.uniform(20, 80, count) if wcs else nothing,
            "ra": 10 + place[0] if wcs else nothing,
            "dec": place[1] if wcs else nothing,
            "primary": np.ones(count, bool),
            "flags": (np.arange(count) % 7 == 0).astype(np.int32) * 2,
            "anomaly_score": score,
            "size": rng.uniform(1, 9, count).astype(np.float32),
            "kind": pa.array(["galaxy"] * count),
            "latent": vectors(latent),
        }
    )


def ranked_catalog(
    folder: Path | str,
    table: pa.Table,
    parts: int = 3,
    *,
    source: str | None = None,
    source_id: str = "s",
    more: Sequence[Column] = (),
) -> Catalog:
    """A finished catalog with these rows in `parts` parts; each part is a unit of its own, as its rows' `tile` says."""
    catalog = Catalog.create(str(folder), schema([*COLUMNS, *more]), {"source": source_id, "bundles": {"b": "1"}})
    run = catalog.start_run({"kind": "infer", **({"source": source} if source else {})})
    infos = []
    for number, index in enumerate(np.array_split(np.arange(table.num_rows), parts)):
        part = table.take(pa.array(index))
        if parts > 1:
            names = pa.array([f"im_{number}"] * len(part), pa.string())
            part = part.set_column(part.column_names.index("tile"), "tile", names)
        unit = part["tile"][0].as_py() if len(part) else f"im_{number}"
        infos.append(catalog.write_part(unit, "a" * 16, part))
    catalog.commit_manifest(run, infos)
    catalog.finish_run(run)
    return catalog


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    """`table` with other values in one column."""
    number = table.column_names.index(name)
    return table.set_column(number, name, pa.array(values, table.schema.field(name).type))


def stamps_and_catalog(folder: Path, count: int = 24, *, colour: bool = False) -> tuple[str, Catalog]:
    """Stamps with a blob that is brighter for higher scores, and a catalog that was made from them."""
    rng = np.random.default_rng(3)
    bands = ("g", "r", "i") if colour else ("r",)
    url = str(folder / "stamps.zarr")
    stamps = Stamps.create(url, bands=bands, size=(32, 32), block=max(64, count), pixel_scale=0.2)
    table = rows(count, tile="block_000000", image="stamps", wcs=False)
    y, x = np.mgrid[:32, :32] - 16
    blob = np.exp(-(x**2 + 2 * (y - x / 3) ** 2) / 30)
    flux = 10 + 8 * np.asarray(table["anomaly_score"])[:, None, None, None]
    tints = np.linspace(0.6, 1.4, len(bands))[None, :, None, None]
    image = (rng.normal(0, 1, (count, len(bands), 32, 32)) + flux * tints * blob).astype(np.float32)
    checksum = stamps.write_block(stamps.reserve(1), image)
    stamps.commit_objects(0, pa.table({"object_id": table["object_id"]}), checksum)
    opened = Stamps.open(url)
    return url, ranked_catalog(folder / "cat", table, 1, source=url, source_id=opened.id)
