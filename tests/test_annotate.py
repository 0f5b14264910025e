"""New columns from stored vectors: right, joined by name, completed after a stop, never touching parts or pixels."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.annotating import heads
from astroml_plugin.catalog.annotation_files import Annotation, all_annotations
from astroml_plugin.catalog.compacting import compact
from astroml_plugin.catalog.schema import matrix, vectors
from astroml_plugin.catalog.streamed import CatalogRows
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from tests.ranked_catalogs import ranked_catalog, rows, with_column
from workflows.annotate import annotate, show
from workflows.cli import main
from workflows.cluster import cluster
from workflows.export import export
from workflows.query import query
from workflows.verify import verify

COUNT = 600


@pytest.fixture
def catalog(tmp_path):
    """Two kinds of objects that the first number of the vector tells apart; the first object has no vector."""
    table = rows(COUNT)
    values = matrix(table["latent"])
    values[:, 0] = np.where(np.arange(COUNT) % 3 == 0, 3, -3) + 0.3 * values[:, 0]
    values[0] = np.nan
    return ranked_catalog(tmp_path / "catalog", with_column(table, "latent", vectors(values)), source=None)


def _labels(count: int = 60) -> pa.Table:
    number = np.arange(1, count + 1) * 7 % COUNT
    kinds = np.where(number % 3 == 0, "odd", "plain")
    return pa.table({"object_id": number + 10**17, "kind": kinds})


def _parts(catalog: Catalog) -> dict[str, bytes]:
    folder = Path(catalog.url, "parts")
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


def test_classes_are_those_of_the_labels_and_parts_stay_as_they_are(catalog):
    before = _parts(catalog)
    result = annotate(catalog.url, name="kinds", labels=_labels(), label="kind")
    assert (result.rows, result.files, result.columns) == (COUNT, 3, ("p_odd", "p_plain", "class"))
    assert result.about["accuracy"] == 1.0
    assert result.about["labelled"] == {"odd": 20, "plain": 40}
    text = "SELECT object_id, class, p_odd, p_plain, anomaly_score FROM catalog JOIN kinds USING (object_id, tile)"
    table = query(catalog.url, text).to_arrow().sort_by("object_id")
    number = table["object_id"].to_numpy() - 10**17
    np.testing.assert_array_equal(number, np.arange(COUNT))
    assert table["class"].to_pylist() == [None, *np.where(number[1:] % 3 == 0, "odd", "plain").tolist()]
    assert table["p_odd"][0].as_py() is None  # without a vector there is no class
    total = table["p_odd"].to_numpy()[1:] + table["p_plain"].to_numpy()[1:]
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert _parts(catalog) == before
    assert verify(catalog.url).is_whole
    record = Annotation(catalog.url, "kinds").record()
    assert record["about"]["provenance"]["bundles"] == {"b": "1"}
    assert "accuracy 1.000 by 5-fold" in show(result)


def test_the_head_is_that_of_scikit_learn(catalog):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(1)
    for count in (2, 3):
        labels = np.array([f"k{number % count}" for number in range(90)])
        values = random.normal(size=(90, 5)) + np.arange(5) * (np.arange(90) % count)[:, None]
        head = heads.fit_classes(values, labels)
        again = heads.Head.from_bytes(head.to_bytes(), __import__("hashlib").sha256(head.to_bytes()).hexdigest())
        scaler = StandardScaler().fit(values)
        model = LogisticRegression(max_iter=2000).fit(scaler.transform(values), labels)
        found = again.apply(values, np.arange(90), ["t"] * 90)
        mine = np.stack([found[f"p_{name}"].to_numpy() for name in model.classes_], axis=1)
        np.testing.assert_allclose(mine, model.predict_proba(scaler.transform(values)), atol=1e-6)


def test_distances_are_those_of_the_nearest_example(catalog):
    ids = [10**17 + 5, 10**17 + 6]
    annotate(catalog.url, name="near", like=tuple(ids))
    text = "SELECT object_id, latent, distance, nearest FROM catalog JOIN near USING (object_id, tile)"
    table = query(catalog.url, text).to_arrow().sort_by("object_id")
    values = matrix(table["latent"]).astype(np.float64)
    far = np.linalg.norm(values[:, None] - values[[5, 6]][None], axis=2)[1:]
    np.testing.assert_allclose(table["distance"].to_numpy()[1:], far.min(axis=1), atol=1e-5)
    np.testing.assert_array_equal(table["nearest"].to_numpy()[1:], np.array(ids)[far.argmin(axis=1)])
    assert table["distance"][5].as_py() == 0


def test_clusters_are_the_same_however_the_rows_are_split(catalog, tmp_path):
    table = query(catalog.url, "SELECT * EXCLUDE (tile), 'im_0' AS tile FROM catalog").to_arrow()
    whole = ranked_catalog(tmp_path / "whole", table.drop_columns(["_healpix_29"]), parts=1)
    found = []
    for one in (catalog, whole):
        cluster(one.url, name="groups", clusters=2, bootstraps=0)
        text = "SELECT object_id, cluster, cluster_distance FROM catalog JOIN groups USING (object_id, tile)"
        found.append(query(one.url, text).to_arrow().sort_by("object_id"))
    assert found[0].equals(found[1])
    number = np.arange(1, COUNT)
    np.testing.assert_array_equal(
        found[0]["cluster"].to_numpy()[1:], (number % 3 == 0).astype(int)
    )  # 0: the larger one


def test_a_run_that_was_stopped_is_completed_with_the_same_head(catalog, monkeypatch):
    written, count = storage.write_table, []

    def stop(url, table, **options):
        if "/annotations/" in url:
            count.append(url)
            if len(count) > 1:
                raise KeyboardInterrupt
        written(url, table, **options)

    monkeypatch.setattr(storage, "write_table", stop)
    with pytest.raises(KeyboardInterrupt):
        cluster(catalog.url, name="groups", clusters=3, bootstraps=0)
    monkeypatch.undo()
    with pytest.raises(CorruptError, match=r"lacks the rows of 2 files.*plugin cluster"):
        query(catalog.url, "SELECT * FROM groups")
    head = Path(catalog.url, "annotations/groups/head.safetensors").read_bytes()
    result = cluster(catalog.url, name="groups", clusters=3, bootstraps=0)
    assert (result.files, result.files_skipped) == (2, 1)
    assert Path(catalog.url, "annotations/groups/head.safetensors").read_bytes() == head
    assert query(catalog.url, "SELECT count(*) AS n FROM groups").to_arrow()["n"][0].as_py() == COUNT
    assert cluster(catalog.url, name="groups", clusters=3, bootstraps=0).files == 0


def test_a_catalog_that_grows_or_is_compacted_is_annotated_again_where_it_must(catalog):
    first = cluster(catalog.url, name="groups", clusters=2, bootstraps=0)
    run = catalog.start_run({"kind": "infer"})
    more = with_column(rows(50, first=COUNT), "tile", ["new"] * 50)
    catalog.commit_manifest(run, [catalog.write_part("new", "b" * 16, more)])
    catalog.finish_run(run)
    with pytest.raises(CorruptError, match="lacks the rows of 1 file"):
        query(catalog.url, "SELECT * FROM groups")
    second = cluster(catalog.url, name="groups", clusters=2, bootstraps=0)
    assert (second.rows, second.files, second.files_skipped) == (50, 1, first.files)
    before = query(catalog.url, "SELECT * FROM groups ORDER BY object_id").to_arrow()
    compact(catalog.url)
    cluster(catalog.url, name="groups", clusters=2, bootstraps=0)
    assert query(catalog.url, "SELECT * FROM groups ORDER BY object_id").to_arrow().equals(before)
    assert len(Annotation(catalog.url, "groups").files()) < 4  # those of merged parts are gone


def test_exports_have_the_columns_of_annotations(catalog, tmp_path):
    annotate(catalog.url, name="kinds", labels=_labels(), label="kind")
    annotate(catalog.url, name="other", labels=_labels(), label="kind", seed=1)
    cluster(catalog.url, name="groups", clusters=2, bootstraps=0)
    out, how = tmp_path / "a.fits", {"annotations": ("kinds", "other", "groups")}
    assert export(catalog.url, to="fits", out=out, **how).rows == COUNT
    table = Table.read(out)
    assert {"kinds_p_odd", "kinds_class", "other_class", "cluster"} < set(table.colnames)
    joined = query(catalog.url, "SELECT * FROM catalog JOIN kinds USING (object_id, tile)").to_arrow()
    wanted = dict(zip(joined["object_id"].to_pylist(), joined["p_odd"].to_pylist(), strict=True))
    found = dict(zip(table["object_id"].tolist(), table["kinds_p_odd"].tolist(), strict=True))
    assert found.pop(10**17) is None  # it has no vector
    assert found == {name: value for name, value in wanted.items() if value is not None}
    with fits.open(out) as opened:
        header = opened[1].header
    assert header["ANNOT1"].startswith("kinds sha256:")
    assert "by annotate" in str(table["kinds_class"].info.description)
    where = {"where": "cluster = 1 AND kinds_p_odd > 0.5", "annotations": ("kinds", "other", "groups")}
    few = export(catalog.url, to="parquet", out=tmp_path / "b.parquet", columns=("object_id", "cluster"), **where)
    assert 0 < few.rows < COUNT
    assert set(pq.read_table(tmp_path / "b.parquet")["cluster"].to_pylist()) == {1}
    groups = CatalogRows.of(catalog.url, annotations=("groups",)).groups(1)  # each group reads its own files only
    parts = [CatalogRows.of(catalog.url, annotations=("groups",)).having(["cluster"], group) for group in groups]
    assert sum(rows.count() for rows in parts) == COUNT
    more = with_column(rows(5, first=COUNT), "tile", ["new"] * 5)
    run = catalog.start_run({"kind": "infer"})
    catalog.commit_manifest(run, [catalog.write_part("new", "b" * 16, more)])
    catalog.finish_run(run)
    with pytest.raises(CorruptError, match="kinds lacks the rows of 1 files"):
        export(catalog.url, to="fits", out=out, **how)


def test_verify_reads_annotations(catalog):
    for name in ("kinds", "groups"):
        cluster(catalog.url, name=name, clusters=2, bootstraps=0)
    path = next(Path(catalog.url, "annotations/kinds").glob("*/*.parquet"))
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    Path(catalog.url, "annotations/groups/annotation.json").write_text("{")
    told = {damage.path: damage.what for damage in verify(catalog.url).damages}
    assert set(told) == {str(path.relative_to(catalog.url)), "annotations/groups/annotation.json"}
    assert all("the same `astroml-plugin" in what for what in told.values())
    verify(catalog.url, repair=True)
    assert verify(catalog.url).is_whole
    with pytest.raises(CorruptError, match="lacks the rows of 1 file"):
        query(catalog.url, "SELECT * FROM kinds")
    for name in ("kinds", "groups"):
        cluster(catalog.url, name=name, clusters=2, bootstraps=0)
    assert query(catalog.url, "SELECT count(*) AS n FROM kinds").to_arrow()["n"][0].as_py() == COUNT
    assert query(catalog.url, "SELECT count(*) AS n FROM groups").to_arrow()["n"][0].as_py() == COUNT


def test_names_that_sql_takes_for_something_else_are_refused(catalog):
    number = np.arange(1, 61)
    kinds = pa.table({"object_id": number + 10**17, "kind": np.where(number % 2, "Star", "star")})
    with pytest.raises(InputError, match="p_Star and p_star differ in large and small letters only"):
        annotate(catalog.url, name="kinds", labels=kinds, label="kind")
    with pytest.raises(InputError, match="a word of SQL"):
        cluster(catalog.url, name="Order", clusters=2, bootstraps=0)
    cluster(catalog.url, name="kinds", clusters=2, bootstraps=0)
    with pytest.raises(InputError, match="SQL takes Kinds for it"):
        cluster(catalog.url, name="Kinds", clusters=2, bootstraps=0)


def test_rows_that_cannot_be_joined_have_none(tmp_path):
    table = rows(40)
    ids = table["object_id"].to_numpy().copy()
    ids[7] = ids[3]
    catalog = ranked_catalog(tmp_path / "c", with_column(table, "object_id", ids), parts=1)
    result = cluster(catalog.url, name="groups", clusters=2, bootstraps=0)
    assert (result.rows, result.left_out) == (38, 2)
    text = "SELECT count(*) AS n FROM catalog LEFT JOIN groups USING (object_id, tile)"
    assert query(catalog.url, text).to_arrow()["n"][0].as_py() == 40


def test_what_cannot_be_annotated_is_refused(catalog, tmp_path):
    one_label = pa.table({"object_id": [10**17 + 1, 10**17 + 2], "kind": ["odd", "odd"]})
    two = pa.table({"object_id": [10**17 + 1, 10**17 + 1], "kind": ["odd", "plain"]})
    for settings, words in (
        ({"name": "a"}, "either --labels"),
        ({"name": "a", "labels": _labels(), "like": (1,)}, "either --labels"),
        ({"name": "catalog", "like": (1,)}, "cannot name"),
        ({"name": "../x", "like": (1,)}, "cannot name"),
        ({"name": "a", "like": (1,), "latent": "size"}, "no vector"),
        ({"name": "a", "like": (1,), "latent": "latnt"}, "latent"),
        ({"name": "a", "like": (3,)}, "none of the 1 objects"),
        ({"name": "a", "labels": one_label, "label": "kind"}, "give 2 classes"),
        ({"name": "a", "labels": two, "label": "kind"}, "two labels"),
        ({"name": "a", "labels": _labels(), "label": "sort"}, "sort"),
        ({"name": "a", "labels": str(tmp_path / "no.csv")}, "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            annotate(catalog.url, **settings)
    assert not any(one.record() for one in all_annotations(catalog.url))
    cluster(catalog.url, name="a", clusters=2, bootstraps=0)
    with pytest.raises(InputError, match="another clusters"):
        cluster(catalog.url, name="a", clusters=3, bootstraps=0)
    Path(catalog.url, "annotations/a/head.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="not the one of its record"):
        cluster(catalog.url, name="a", clusters=2, bootstraps=0)


def test_the_page_of_annotations_runs_as_it_stands(catalog, tmp_path, monkeypatch, capsys):
    import re
    import shlex

    monkeypatch.chdir(tmp_path)
    lines = [f"{row['object_id']},{row['kind']}" for row in _labels().to_pylist()]
    Path("labels.csv").write_text("object_id,kind\n" + "\n".join(lines) + "\n")
    page = (Path(__file__).parents[1] / "docs" / "annotate.md").read_text()
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 4
    for line in commands:
        assert main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "accuracy 1.000" in told
    assert main(["annotate", "catalog", "--name", "again", "--like", str(10**17 + 5), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == COUNT
