"""Columns of vectors (latent space): declared, written, merged, asked, and taken to other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.table import Table
from catalogs import COLUMNS, IDENTITY, unit_rows

from astroml_plugin.catalog import Catalog, Column, columns_of, compact, schema
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.schema import arrow_type, matrix, vectors
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.classification.task import ClassifyTask
from tests import universe
from workflows.infer import infer

LATENT = Column("latent", "float32[4]", "", "", "Latent vector")
DECLARED = schema([*COLUMNS, LATENT])


def latent_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def rows(unit: str, count: int, seed: int = 0) -> pa.Table:
    return unit_rows(unit, count, seed=seed).append_column("latent", vectors(latent_of(count, seed)))


def make(folder: Path | str, units: int = 3, count: int = 20) -> Catalog:
    catalog = Catalog.create(str(folder), DECLARED, IDENTITY)
    run = catalog.start_run({"kind": "infer"})
    catalog.commit_manifest(
        run, [catalog.write_part(f"im_{k}", "a" * 16, rows(f"im_{k}", count, seed=k)) for k in range(units)]
    )
    catalog.finish_run(run)
    return catalog


def by_id(table: pa.Table) -> dict[int, list[float]]:
    return dict(zip(table["object_id"].to_pylist(), table["latent"].to_pylist(), strict=True))


def expected(units: int = 3, count: int = 20) -> dict[int, list[float]]:
    return {key: value for k in range(units) for key, value in by_id(rows(f"im_{k}", count, seed=k)).items()}


def test_a_vector_type_has_a_name_that_comes_back(tmp_path: Path) -> None:
    assert arrow_type("float32[4]") == pa.list_(pa.float32(), 4)
    assert LATENT in columns_of(DECLARED)
    for wrong in ("string[3]", "bool[3]", "float32[0]", "float32[99999]", "float32[2][2]", "float32[]"):
        with pytest.raises(InputError, match=r"no vector column|no Arrow type"):
            arrow_type(wrong)
    make(tmp_path / "c", units=1)
    assert Catalog.open(str(tmp_path / "c")).schema.field("latent").type == pa.list_(pa.float32(), 4)


def test_vectors_stay_with_their_objects_through_parts_and_compact(tmp_path: Path) -> None:
    for url in (str(tmp_path / "c"), "memory://vectors-test/c"):
        catalog = make(url)
        found = query(catalog.url, "SELECT object_id, latent FROM catalog").to_arrow()
        assert found.schema.field("latent").type == pa.list_(pa.float32(), 4)
        assert by_id(found) == expected()
        compact(catalog)
        assert by_id(query(catalog.url).to_arrow()) == expected()


def test_sql_knows_their_length(tmp_path: Path) -> None:
    catalog = make(tmp_path / "c")
    target = latent_of(20, seed=1)[7]
    text = f"SELECT object_id, array_distance(latent, {target.tolist()}::FLOAT[4]) AS d FROM catalog ORDER BY d LIMIT 1"
    nearest = query(catalog.url, text).to_arrow().to_pylist()[0]
    assert nearest["object_id"] == rows("im_1", 20, seed=1)["object_id"][7].as_py()
    assert nearest["d"] < 1e-6


def test_missing_vectors_are_null_or_nan(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    values = latent_of(3)
    values[2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4, mask=pa.array([False, True, False]))
    catalog.write_part("im_0", "a" * 16, unit_rows("im_0", 3).append_column("latent", column))
    table = query(catalog.url, "SELECT latent FROM catalog ORDER BY flags").to_arrow()
    found = matrix(table["latent"])
    np.testing.assert_array_equal(found[0], values[0])
    assert np.isnan(found[1:]).all()
    assert table["latent"].null_count == 1
    np.testing.assert_array_equal(matrix(column.slice(0, 1)), values[:1])
    with pytest.raises(InputError, match="has nulls"):
        matrix(pa.array([[1, 2], None], pa.list_(pa.int32(), 2)))


def test_a_part_with_another_length_names_the_column(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    with pytest.raises(ValueError, match="'latent' is fixed_size_list"):
        catalog.encode_part(
            unit_rows("im_0", 3).append_column("latent", vectors(np.zeros((3, 5), np.float32))), "im_0", "a"
        )


@pytest.mark.parametrize("kind", ["parquet", "fits", "vot", "csv"])
@pytest.mark.parametrize("count", [20, 0])
def test_other_formats(tmp_path: Path, kind: str, count: int) -> None:
    catalog = make(tmp_path / "c", units=1)
    target = tmp_path / f"out.{kind}"
    query(catalog.url, f"SELECT object_id, latent FROM catalog LIMIT {count}", to=str(target))
    table = Table.read(target, format={"csv": "ascii.csv", "vot": "votable"}.get(kind, kind))
    assert len(table) == count
    if kind == "csv":
        assert table.colnames == ["object_id", *(f"latent_{k}" for k in range(4))]
        read = np.stack([table[f"latent_{k}"] for k in range(4)], axis=1)
    else:
        read = np.asarray(table["latent"])
        assert read.shape == (count, 4)
    if count:
        np.testing.assert_allclose(read, [expected()[key] for key in table["object_id"]], rtol=1e-6)


@pytest.mark.parametrize("reader", ["parquet", "parquet.votable"])
@pytest.mark.parametrize("count", [0, 5])
def test_astropy_reads_parts_with_vectors(tmp_path: Path, reader: str, count: int) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    info = catalog.write_part("im_0", "a" * 16, rows("im_0", count))
    table = Table.read(storage.local_path(catalog.url) / info.path, format=reader)
    assert np.asarray(table["latent"]).shape == (count, 4)
    assert table["latent"].description == "Latent vector"
    assert pq.read_schema(storage.local_path(catalog.url) / info.path).field("latent").type.list_size == 4


def test_csv_refuses_lists(tmp_path: Path) -> None:
    catalog = make(tmp_path / "c", units=1)
    with pytest.raises(InputError, match="CSV cannot hold"):
        query(catalog.url, "SELECT [1, 2] AS pair FROM catalog", to=str(tmp_path / "out.csv"))


def test_a_task_may_measure_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, measure = ClassifyTask.columns, ClassifyTask.decode

    def measured(self: ClassifyTask, outputs: torch.Tensor, cutouts: Any) -> dict[str, np.ndarray]:
        return {**measure(self, outputs, cutouts), "latent": np.asarray(outputs[:, [0, 1, 0, 1]])}

    monkeypatch.setattr(ClassifyTask, "columns", lambda self: (*columns(self), LATENT))
    monkeypatch.setattr(ClassifyTask, "decode", measured)
    stamps, bundle = universe.make_stamps(str(tmp_path / "s.zarr"), count=40), universe.make_bundle(str(tmp_path / "b"))
    result = infer(stamps, bundle=bundle, out=str(tmp_path / "c"))
    table = query(result.catalog, "SELECT latent FROM catalog").to_arrow()
    values = matrix(table["latent"])
    assert values.shape == (40, 4)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[:, :2], values[:, 2:])
