"""Short lists from catalogs: exact, reproducible, near-duplicates folded, neighbours in latent space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import HEALPIX, Catalog, Column, compact, schema
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking import Space, like, score_sql, top
from astroml_plugin.catalog.ranking.fold import fold
from astroml_plugin.catalog.schema import matrix
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import separation
from tests.ranked_catalogs import DECLARED, ranked_catalog, rows, with_column

TABLE = rows(300)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return ranked_catalog(tmp_path_factory.mktemp("ranking") / "cat", TABLE)


def expected(table: pa.Table, column: str = "anomaly_score") -> list[int]:
    """Ids by falling score, equal ones by id."""
    order = np.lexsort([np.asarray(table["object_id"]), -np.asarray(table[column])])
    return np.asarray(table["object_id"])[order].tolist()


def test_the_top_is_exact_and_ties_go_by_id(catalog: Catalog) -> None:
    found = top(catalog.url, 40)
    assert found.table["object_id"].to_pylist() == expected(TABLE)[:40]
    assert found.table["rank"].to_pylist() == list(range(1, 41))
    assert (found.by, found.objects, found.ranked, found.folded, len(found)) == ("anomaly_score", 300, 300, 0, 40)
    assert found.table["rank_score"].to_pylist() == found.table["anomaly_score"].to_pylist()
    assert found.table.schema.field("size").metadata[b"unit"] == b"pix"
    assert not {"latent", HEALPIX} & set(found.table.column_names)


def test_the_list_does_not_depend_on_parts_or_compaction(catalog: Catalog, tmp_path: Path) -> None:
    wanted = top(catalog.url, 60, fold_radius=900).table.drop_columns(["tile"])
    shuffled = TABLE.take(pa.array(np.random.default_rng(1).permutation(300)))
    other = ranked_catalog(tmp_path / "other", shuffled, 7)
    assert top(other.url, 60, fold_radius=900).table.drop_columns(["tile"]).equals(wanted)
    compact(other)
    assert top(other.url, 60, fold_radius=900).table.drop_columns(["tile"]).equals(wanted)
    remote = ranked_catalog("memory://ranking-test/c", TABLE, 2)
    assert top(remote.url, 60, fold_radius=900).table.drop_columns(["tile"]).equals(wanted)


def test_expressions_and_conditions(catalog: Catalog) -> None:
    found = top(catalog.url, 10, score="-size", where="flags = 0 -- the clean ones")
    clean = TABLE.filter(pa.array(np.asarray(TABLE["flags"]) == 0))
    order = np.argsort(np.asarray(clean["size"]), kind="stable")[:10]
    assert found.table["object_id"].to_pylist() == np.asarray(clean["object_id"])[order].tolist()
    assert found.objects == clean.num_rows


def test_rows_without_a_finite_score_and_other_rows_of_an_object_are_not_ranked(tmp_path: Path) -> None:
    values = np.asarray(TABLE["anomaly_score"], np.float64).copy()
    values[:5] = [np.nan, np.inf, -np.inf, np.nan, 99]
    table = with_column(TABLE, "anomaly_score", [None, *values[1:]])
    table = with_column(table, "primary", [*[True] * 10, *[False] * 20, *[True] * 270])
    found = top(ranked_catalog(tmp_path / "c", table).url, 300)
    assert (found.objects, found.ranked, len(found)) == (280, 276, 276)
    assert found.table["object_id"][0].as_py() == TABLE["object_id"][4].as_py()


def test_near_duplicates_are_folded_into_the_best(tmp_path: Path) -> None:
    ra, dec = np.asarray(TABLE["ra"]).copy(), np.asarray(TABLE["dec"]).copy()
    best = expected(TABLE)[0] - 10**17
    second = expected(TABLE)[1] - 10**17
    ra[second], dec[second] = ra[best], dec[best] + 0.5 / 3600
    table = with_column(with_column(TABLE, "ra", ra), "dec", dec)
    found = top(ranked_catalog(tmp_path / "c", table).url, 5, fold_radius=1.0)
    wanted = expected(TABLE)
    assert found.table["object_id"].to_pylist() == [wanted[0], *wanted[2:6]]
    assert found.table["folded"].to_pylist() == [1, 0, 0, 0, 0]
    assert found.folded == 1
    assert top(tmp_path.as_posix() + "/c", 5, fold_radius=0).table["object_id"].to_pylist() == wanted[:5]


def test_equal_ids_and_near_vectors_fold(tmp_path: Path) -> None:
    ids = np.asarray(TABLE["object_id"]).copy()
    order = np.lexsort([ids, -np.asarray(TABLE["anomaly_score"])])
    ids[order[1]] = ids[order[0]]
    catalog = ranked_catalog(tmp_path / "c", with_column(TABLE, "object_id", ids))
    found = top(catalog.url, 3)
    assert found.table["object_id"].to_pylist() == ids[order[[0, 2, 3]]].tolist()
    far = top(catalog.url, 30, fold_latent=1.5)
    vectors = dict(zip(ids.tolist(), matrix(TABLE["latent"]), strict=True))
    kept = np.stack([vectors[identity] for identity in far.table["object_id"].to_pylist()])
    gaps = np.linalg.norm(kept[:, None] - kept[None], axis=2) + 10 * np.eye(len(kept))
    assert gaps.min() > 1.5
    assert far.folded > 0


def brute(ra: np.ndarray, dec: np.ndarray, wanted: int, radius: float) -> list[int]:
    kept: list[int] = []
    for row in range(len(ra)):
        if all(separation(ra[row], dec[row], ra[k], dec[k]) > radius for k in kept):
            if len(kept) == wanted:
                break
            kept.append(row)
    return kept


@pytest.mark.parametrize("pole", [0.0, 89.9, -89.99])
@pytest.mark.parametrize("radius", [0.0005, 0.02, 2.0])
def test_folding_finds_every_pair_also_at_the_pole_and_over_ra_zero(pole: float, radius: float) -> None:
    rng = np.random.default_rng(4)
    ra = rng.uniform(359.9, 360.1, 300) % 360 if abs(pole) < 80 else rng.uniform(0, 360, 300)
    dec = pole + rng.uniform(-0.05, 0.05, 300) * (0.1 if abs(pole) > 89.95 else 1)
    folded = fold(np.arange(300), ra, dec, 40, radius=radius)
    assert folded.kept.tolist() == brute(ra, dec, 40, radius)
    assert folded.complete or folded.members.sum() == 300


def test_folding_does_not_depend_on_how_much_of_the_list_is_given() -> None:
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 0.1, (2, 500))
    ra[7] = dec[7] = np.nan
    whole = fold(np.arange(500), ra, dec, 10, radius=0.01)
    for length in (20, 60, 499):
        part = fold(np.arange(length), ra[:length], dec[:length], 10, radius=0.01)
        if part.complete:
            assert part.kept.tolist() == whole.kept.tolist()
            assert part.members.tolist() == whole.members.tolist()
    assert 7 in whole.kept


def test_neighbours_are_exact(catalog: Catalog) -> None:
    vectors, ids = matrix(TABLE["latent"]), np.asarray(TABLE["object_id"])
    distance = np.linalg.norm(vectors - vectors[17], axis=1)
    order = np.argsort(distance, kind="stable")
    found = like(catalog.url, int(ids[17]), 25, fold_radius=0)
    assert found.table["object_id"].to_pylist() == ids[order[1:26]].tolist()
    np.testing.assert_allclose(-np.asarray(found.table["rank_score"]), distance[order[1:26]], rtol=1e-5)
    assert found.by == f"likeness to {ids[17]} in latent"


def test_neighbours_in_columns_are_standardised(catalog: Catalog) -> None:
    values = np.stack([np.asarray(TABLE["size"], np.float64), np.asarray(TABLE["anomaly_score"], np.float64)], axis=1)
    scaled = (values - values.mean(0)) / values.std(0)
    distance = np.linalg.norm(scaled - scaled[3], axis=1)
    found = like(catalog.url, int(TABLE["object_id"][3].as_py()), 9, features=["size", "anomaly_score"], fold_radius=0)
    np.testing.assert_allclose(-np.asarray(found.table["rank_score"]), np.sort(distance)[1:10], rtol=1e-5)


def test_objects_without_a_vector_are_nobodys_neighbours(tmp_path: Path) -> None:
    vectors = matrix(TABLE["latent"])
    vectors[:50] = np.nan
    values = [None if row < 10 else vector.tolist() for row, vector in enumerate(vectors)]
    catalog = ranked_catalog(tmp_path / "c", with_column(TABLE, "latent", values))
    found = like(catalog.url, int(TABLE["object_id"][60].as_py()), 300)
    assert (found.ranked, len(found)) == (249, 249)
    for row in (5, 20):
        with pytest.raises(InputError, match="has no latent"):
            like(catalog.url, int(TABLE["object_id"][row].as_py()))


def test_only_the_parts_that_hold_the_list_are_read_whole(catalog: Catalog) -> None:
    assert query(catalog.url, units={"im_1"}).rows == 100
    assert query(catalog.url, units={"im_1"}).parts == 1
    assert query(catalog.url, units=set()).rows == 0
    assert query(catalog.url, units={"im_1"}, cone=(10.5, 0.5, 0.1)).rows < 100


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"score": "anomaly_scor"}, "nearest are anomaly_score"),
        ({"score": "nothing_like_it"}, "columns of numbers are anomaly_score, size: choose by --score"),
        ({"score": "kind"}, "column 'kind' is string, no number"),
        ({"score": "size +"}, "query failed"),
        ({"score": "size + nope"}, "nope"),
        ({"where": "nope > 1"}, "nope"),
        ({"where": "true) OR (true"}, None),
        ({"score": "size) FROM catalog; DROP VIEW catalog; SELECT (1"}, "query failed"),
        ({"score": "(SELECT max(a) FROM read_csv('/etc/hostname'))"}, "disabled"),
        ({"count": 0}, "must be 1 to"),
        ({"fold_radius": -1.0}, "must be 0 to 3600"),
        ({"fold_radius": float("nan")}, "must be 0 to 3600"),
        ({"fold_latent": float("inf")}, "distance of 0 or more"),
        ({"fold_latent": 1.0, "latent": "size"}, "no vector"),
    ],
)
def test_wrong_questions(catalog: Catalog, settings: dict[str, object], says: str | None) -> None:
    if says is None:  # parentheses that fit are SQL like any other
        assert len(top(catalog.url, **settings)) == 100  # type: ignore[arg-type]
        return
    with pytest.raises(InputError) as caught:
        top(catalog.url, **settings)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_neighbours(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no object 5"):
        like(catalog.url, 5)
    with pytest.raises(InputError, match="nearest are latent"):
        like(catalog.url, 10**17, latent="latnt")
    with pytest.raises(InputError, match="column 'kind' is string"):
        like(catalog.url, 10**17, features=["kind"])
    flat = ranked_catalog(tmp_path / "c", with_column(TABLE, "size", [1.0] * 300))
    with pytest.raises(InputError, match="'size' has one value"):
        like(flat.url, 10**17, features=["size"])


def test_scores_of_several_bundles_must_be_chosen() -> None:
    one = schema([Column("a_anomaly_score", "float32")])
    assert score_sql(one) == ('"a_anomaly_score"', "a_anomaly_score")
    two = schema([Column("a_anomaly_score", "float32"), Column("b_anomaly_score", "float32")])
    with pytest.raises(InputError, match="a_anomaly_score, b_anomaly_score"):
        score_sql(two)
    with pytest.raises(InputError, match="no columns of numbers"):
        score_sql(schema([]))


def test_a_latent_space_of_a_bundle_is_found(tmp_path: Path) -> None:
    fields = [Column("b_latent", "float32[4]"), Column("a", "float32")]
    catalog = Catalog.create(str(tmp_path / "c"), schema(fields), {})
    assert Space.of(catalog).name == "b_latent"
    assert DECLARED.field("latent").type.list_size == Space.of(catalog).size


def test_an_empty_catalog_has_an_empty_list(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, {})
    found = top(catalog.url)
    assert (len(found), found.objects) == (0, 0)
    assert found.table.column_names[:4] == ["rank", "rank_score", "folded", "object_id"]
