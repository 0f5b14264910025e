"""Groups without labels: planted ones are found by every method, noise has none, and what was fitted is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from astroml_plugin.catalog import Catalog, Column
from astroml_plugin.catalog.annotating import clusters, heads
from astroml_plugin.catalog.annotating.clusters import METHODS, ClusterOptions
from astroml_plugin.catalog.annotating.reading import Sample
from astroml_plugin.catalog.annotation_files import Annotation, all_annotations
from astroml_plugin.catalog.schema import vectors
from astroml_plugin.core.errors import InputError
from tests import test_report
from tests.ranked_catalogs import ranked_catalog, rows, with_column
from workflows.cli import main
from workflows.cluster import cluster, show
from workflows.query import query

COUNT = 900
MIDDLES = 9 * np.eye(4)[:3]
KIND = np.minimum(np.arange(COUNT) % 6, 3) % 3
"""Group of each row: two thirds, a sixth, a sixth; the first one is the largest."""


def planted(seed: int = 0, *, strays: bool = False) -> np.ndarray:
    """(COUNT, 4) three groups; with `strays` one object in fifty belongs to none."""
    rng = np.random.default_rng(seed)
    values = MIDDLES[KIND] + rng.normal(size=(COUNT, 4))
    if strays:
        values[::50] = rng.uniform(-60, 60, (len(values[::50]), 4))
    return values.astype(np.float32)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    """Planted groups in three parts; the first object has no vector, every seventh carries a flag."""
    return made(tmp_path / "catalog")


def made(folder: Path, *, strays: bool = False) -> Catalog:
    """A catalog of `planted` vectors."""
    values = planted(strays=strays)
    values[0] = np.nan
    return ranked_catalog(folder, with_column(rows(COUNT), "latent", vectors(values)))


def found(catalog: Catalog, name: str = "clusters") -> pa.Table:
    """Columns of an annotation in order of the ids."""
    return query(catalog.url, f"SELECT * FROM {name} ORDER BY object_id").to_arrow()


@pytest.mark.parametrize("method", METHODS)
def test_planted_groups_are_found(tmp_path: Path, method: str) -> None:
    catalog = made(tmp_path / "catalog", strays=method == "hdbscan")
    how = {"scaling": "whiten"} if method == "mixture" else {}
    result = cluster(catalog.url, method=method, clusters=3, least=40, bootstraps=4, **how)
    table = found(catalog)
    assert tuple(table.column_names[2:]) == result.columns
    number = np.array(table["cluster"].fill_null(-9))
    assert number[0] == -9
    usual = np.arange(COUNT) % 50 > 0
    assert adjusted_rand_score(KIND[usual], number[usual]) > 0.95
    if method == "hdbscan":
        assert (number[50::50] == -1).mean() > 0.9
        assert result.about["fitted_noise"] > 0
    sizes = result.about["fitted_sizes"]
    assert sizes == sorted(sizes, reverse=True)
    assert result.about["stability"]["rand"] > 0.8
    medoid = np.flatnonzero(np.array(table["medoid"]))
    assert {int(one) for one in table["object_id"].take(medoid).to_pylist()} == {
        one["object_id"] for one in result.about["medoids"]
    }
    assert sorted(number[medoid].tolist()) == list(range(len(sizes)))


def test_what_is_left_out_of_the_fit_is_counted_and_still_assigned(catalog: Catalog) -> None:
    result = cluster(catalog.url, clusters=3, sample=200, bootstraps=0)
    about = result.about
    flagged = len(range(0, COUNT, 7)) - 1  # the first one has no vector
    assert (about["objects"], about["fitted_on"], about["without_vector"]) == (COUNT, 200, 1)
    assert about["flagged_left_out"] == flagged
    assert found(catalog)["cluster"].null_count == 1
    assert "fitted on 200 of 900 objects (128 with a flag left out, 1 without a finite vector)" in show(result)
    every = cluster(catalog.url, name="every", clusters=3, flagged=True, bootstraps=0).about
    assert (every["fitted_on"], every["flagged_left_out"]) == (COUNT - 1, 0)


def test_a_catalog_of_flagged_rows_alone_says_so(tmp_path) -> None:
    table = with_column(rows(60), "flags", np.full(60, 2, np.int32))
    catalog = ranked_catalog(tmp_path / "c", table, parts=1)
    with pytest.raises(InputError, match=r"all 60 objects .* carry a flag: --flagged uses them"):
        cluster(catalog.url, clusters=2)
    assert not all_annotations(catalog.url)
    assert cluster(catalog.url, clusters=2, flagged=True, bootstraps=0).rows == 60


def test_units_of_features_do_not_matter(tmp_path) -> None:
    table = with_column(rows(COUNT), "size", (KIND * 5 + np.random.default_rng(1).normal(0, 0.3, COUNT)))
    numbers = []
    for place, factor in enumerate((1.0, 1e-6)):
        one = with_column(table, "size", table["size"].to_numpy() * factor)
        catalog = ranked_catalog(tmp_path / str(place), one)
        cluster(catalog.url, clusters=3, features=("size", "anomaly_score"), bootstraps=0)
        numbers.append(found(catalog)["cluster"].to_numpy())
        assert Annotation(catalog.url, "clusters").record()["identity"]["scaling"] == "standard"
    np.testing.assert_array_equal(*numbers)


def test_whitened_clusters_do_not_depend_on_linear_maps() -> None:
    values = planted(2).astype(float)
    mixed = values @ np.random.default_rng(0).normal(size=(4, 4))
    lengths = [
        np.linalg.norm(clusters.scaled(clusters.scaling_of(one, "whiten"), one), axis=1) for one in (values, mixed)
    ]
    np.testing.assert_allclose(*lengths, rtol=1e-6)


def test_groups_that_are_there_are_stable_and_others_are_not() -> None:
    rng = np.random.default_rng(3)
    shapeless = rng.normal(size=(COUNT, 4))
    told = [_fit(values, ClusterOptions(clusters=3)).about["stability"] for values in (planted(), shapeless)]
    assert told[0]["low"] > 0.9
    assert told[1]["high"] < 0.9
    assert min(told[0]["jaccard"]) > 0.75 > min(told[1]["jaccard"])


def _fit(values: np.ndarray, options: ClusterOptions) -> heads.Head:
    sample = Sample(np.arange(len(values)), np.full(len(values), "t", object), values.astype(float), len(values), 0, 0)
    return heads.fit_clusters(sample, options)


def test_probabilities_are_those_of_scikit_learn() -> None:
    values = planted().astype(float)
    head = _fit(values, ClusterOptions(method="mixture", clusters=3, bootstraps=0))
    model = GaussianMixture(3)
    model.means_, model.weights_ = head.arrays["means"], head.arrays["weights"]
    model.precisions_cholesky_ = head.arrays["factors"]
    made = head.apply(values, np.arange(COUNT), ["t"] * COUNT)
    wanted = model.predict_proba(values)
    np.testing.assert_array_equal(made["cluster"].to_numpy(), wanted.argmax(1))
    np.testing.assert_allclose(made["cluster_probability"].to_numpy(), wanted.max(1), atol=1e-5)


def test_fitted_objects_keep_the_number_that_hdbscan_gave_them() -> None:
    values = planted(strays=True).astype(float)
    head = _fit(values, ClusterOptions(method="hdbscan", least=40, bootstraps=0))
    again = clusters.assigned("hdbscan", head.arrays, clusters.scaled(head.arrays, values))
    np.testing.assert_array_equal(again.number, head.arrays["labels"])
    far = clusters.assigned("hdbscan", head.arrays, np.full((1, 4), 1e3))
    assert far.number.tolist() == [-1]


def test_a_run_that_is_repeated_is_there_already_and_another_one_is_refused(catalog: Catalog) -> None:
    cluster(catalog.url, clusters=3, bootstraps=0)
    assert cluster(catalog.url, clusters=3, bootstraps=0).files == 0
    with pytest.raises(InputError, match="another method: choose another --name") as caught:
        cluster(catalog.url, method="hdbscan", bootstraps=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"method": "dbscan"}, "--method dbscan is unknown: choose kmeans, mixture, hdbscan"),
        ({"scaling": "log"}, "--scaling log is unknown"),
        ({"clusters": 1}, "--clusters is 1: give 2 or more"),
        ({"seed": -1}, "--seed is -1: give 0 or more"),
        ({"clusters": COUNT + 1}, "choose fewer by --clusters"),
        ({"method": "hdbscan", "least": 500}, "choose fewer by --least"),
        ({"latent": "size"}, "no vector"),
        ({"features": ("size", "size")}, "named twice"),
        ({"features": ("kind",)}, "no number"),
        ({"features": ("size", "object_id")}, "column 'object_id' names objects"),
        ({"features": ("size",), "latent": "latent"}, "either --latent COLUMN or --features"),
        ({"name": "catalog"}, "cannot name"),
    ],
)
def test_what_cannot_be_clustered_is_refused(catalog: Catalog, wish: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        cluster(catalog.url, **wish)
    assert not all_annotations(catalog.url)


def test_a_catalog_without_vectors_is_told_of_features_and_its_ids_are_none(tmp_path) -> None:
    columns = [
        Column("parent", "int64", "", "meta.id.parent"),
        Column("snr", "float64"),
        Column("fold", "int64", "", "meta.identity"),
    ]
    numbers = {"parent": np.arange(40), "snr": np.arange(40.0), "fold": np.arange(40)}
    url = test_report.made(tmp_path, columns, numbers, 40).url
    with pytest.raises(InputError, match="no column of vectors: give columns of numbers by --features A,B"):
        cluster(url)
    with pytest.raises(InputError, match="column 'parent' names objects"):
        cluster(url, features=("snr", "parent"))
    told: list[str] = []
    cluster(url, features=("snr", "fold"), clusters=2, bootstraps=0, progress=lambda what, *_: told.append(what))
    assert told == ["cluster"]


def test_equal_numbers_have_no_clusters(tmp_path) -> None:
    catalog = ranked_catalog(tmp_path / "c", with_column(rows(60), "size", np.ones(60)), parts=1)
    with pytest.raises(InputError, match="all objects have the same numbers"):
        cluster(catalog.url, clusters=2, features=("size",))


def test_the_verb_says_what_it_did_and_what_is_next(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", catalog.url, "--clusters", "3", "--bootstraps", "3"]) == 0
    told = capsys.readouterr()
    assert "3 clusters by kmeans from latent (scaling none)" in told.out
    assert "stability over 3 bootstraps" in told.out
    assert told.out.count("medoid 1000") == 3
    assert f"next: astroml-plugin report {catalog.url}" in told.err
