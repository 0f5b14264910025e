"""The approximate index: it agrees with the exact answer to the recall that it states."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog.ranking import index as indexing
from astroml_plugin.catalog.ranking import like
from astroml_plugin.catalog.ranking.index import LatentIndex
from astroml_plugin.catalog.schema import vectors
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.session import Session, SessionSettings
from tests.ranked_catalogs import ranked_catalog, rows, with_column
from workflows.label import open_labels

pytest.importorskip("faiss")


def crowd(count: int) -> pa.Table:
    """Rows in 60 clumps of the latent space, ten of them without a vector."""
    rng = np.random.default_rng(3)
    centres = rng.normal(0, 4, (60, 4))
    latent = (centres[rng.integers(0, 60, count)] + rng.normal(0, 1, (count, 4))).astype(np.float32)
    latent[:10] = np.nan
    table = rows(count)
    return table.set_column(table.column_names.index("latent"), "latent", vectors(latent))


def test_what_is_found_agrees_with_the_stated_recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_EXACT", 100)
    monkeypatch.setattr(indexing, "_ROWS", 1500)
    catalog = ranked_catalog(tmp_path / "c", crowd(6000), 8)
    told: list[tuple[int, int]] = []
    index = LatentIndex.build(catalog.url, progress=lambda done, total: told.append((done, total)))
    assert len(index) == 5990
    assert told[-1] == (5990, 5990)
    assert len(told) > 2
    assert index.lists > 10
    assert 0 < index.probes < index.lists
    assert 0.95 <= index.recall <= 1
    shares = []
    for row in range(100, 2100, 400):
        exact = like(catalog.url, 10**17 + row, 100, fold_radius=0)
        found = index.like(10**17 + row, 100, fold_radius=0)
        wanted, got = (part.table["object_id"].to_pylist() for part in (exact, found))
        shares.append(len(set(wanted) & set(got)) / 100)
        common = sorted(set(wanted) & set(got))
        distances = [
            dict(zip(part.table["object_id"].to_pylist(), part.table["rank_score"].to_pylist()))
            for part in (exact, found)
        ]
        np.testing.assert_allclose(*[[part[key] for key in common] for part in distances], rtol=1e-4, atol=1e-4)
        assert found.table.column_names == exact.table.column_names
    assert np.mean(shares) > index.recall - 0.06


def test_small_catalogs_are_compared_whole(tmp_path: Path) -> None:
    table = with_column(rows(200), "primary", [True] * 150 + [False] * 50)
    catalog = ranked_catalog(tmp_path / "c", table, 3)
    index = LatentIndex.build(catalog.url, where="flags = 0")
    assert (index.recall, index.lists) == (1.0, 0)
    for radius in (0.0, 600.0):
        found = index.like(10**17 + 5, 20, fold_radius=radius)
        wanted = like(catalog.url, 10**17 + 5, 20, where="flags = 0", fold_radius=radius)
        names = [name for name in found.table.column_names if name != "rank_score"]
        assert found.table.select(names).equals(wanted.table.select(names))
    everything = index.like(10**17 + 5, 1000, fold_radius=0)
    assert len(everything) == len(index) - 1


def test_the_page_may_answer_from_an_index(tmp_path: Path) -> None:
    catalog = ranked_catalog(tmp_path / "c", rows(60), 1)
    session = Session(catalog.url, open_labels(catalog.url), SessionSettings(top=5, index=True))
    first = session.rank("like", 10**17)
    assert "(index, recall 1.00)" in first["by"]
    built = session._index
    assert session.rank("like", 10**17 + 1)["by"].startswith(f"likeness to {10**17 + 1}")
    assert session._index is built


def test_what_cannot_be_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = ranked_catalog(tmp_path / "c", rows(20), 1)
    with pytest.raises(InputError, match="nothing to index"):
        LatentIndex.build(catalog.url, where="size < 0")
    with pytest.raises(InputError, match="above 0"):
        LatentIndex.build(catalog.url, recall=0.0)
    with pytest.raises(InputError, match="no object 3"):
        LatentIndex.build(catalog.url).like(3)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"astroml-plugin\[index\]"):
        LatentIndex.build(catalog.url)
