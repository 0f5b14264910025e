"""Explaining a catalog: columns beside its rows and maps, resumed, on surveys and stamps, refused in words."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.annotation_files import Annotation
from astroml_plugin.catalog.schema import matrix
from astroml_plugin.compute.cluster import connect
from astroml_plugin.core.errors import InputError
from astroml_plugin.explanation.store import ExplanationStore
from astroml_plugin.explanation.trust import SCHEMA, trust_of
from tests import planted, spotter, universe
from workflows.cli import main
from workflows.cluster import cluster
from workflows.cutouts import cutouts
from workflows.explain import explain, show
from workflows.infer import infer
from workflows.query import query
from workflows.verify import verify

COUNT = 40


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Survey, objects and a bundle, and the catalog that was made of them."""
    folder = tmp_path_factory.mktemp("sky")
    survey = universe.make_survey(str(folder / "survey.zarr"), bands=("g", "r"))
    table = universe.make_objects(folder / "objects.parquet", count=COUNT)
    bundle = universe.make_bundle(str(folder / "kind"), bands=("g", "r"))
    infer(survey.url, bundle=bundle, out=str(folder / "catalog"), objects=table)
    return folder


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Stamps whose class has a planted cause, and a bundle that has learned it."""
    folder = tmp_path_factory.mktemp("marked")
    source, bundle = (
        planted.store(str(folder / "stamps.zarr"), "corner"),
        planted.bundle(str(folder / "marks"), "corner"),
    )
    infer(source, bundle=bundle, out=str(folder / "catalog"))
    return folder


def _rows(catalog, name="explained"):
    text = f"SELECT * FROM catalog JOIN {name} USING (object_id, tile) ORDER BY rank"
    return query(str(catalog), text).to_arrow()


def test_the_top_of_a_catalog_is_explained_beside_its_rows(marked, capsys):
    catalog = marked / "catalog"
    before = {file: file.read_bytes() for file in (catalog / "parts").rglob("*.parquet")}
    assert main(["explain", str(catalog), "--top", "12", "--by", "p_marked", "--name", "marks"]) == 0
    said = capsys.readouterr().out
    assert "one ninth of the stamp, at high x and low y" in said
    found = _rows(catalog, "marks")
    assert found["rank"].to_pylist() == list(range(1, 13))
    chances = query(str(catalog), "SELECT p_marked FROM catalog ORDER BY p_marked DESC LIMIT 12").to_arrow()
    assert found["p_marked"].to_pylist() == chances["p_marked"].to_pylist()
    odds = np.asarray(found["value"])
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), np.asarray(found["p_marked"]), atol=1e-4)
    assert found["complete"].to_pylist() == [True] * 12
    assert (matrix(found["cell_fraction"]).argmax(1) == 2).all()
    store = ExplanationStore.of(str(catalog), "marks")
    maps = np.asarray(store.maps()[:], np.float64)
    assert maps.shape == (12, 3, 24, 24)
    np.testing.assert_allclose(
        maps.sum((1, 2, 3))[found["map_row"].to_numpy()], odds - np.asarray(found["baseline_value"]), rtol=0.01
    )
    assert {file: file.read_bytes() for file in (catalog / "parts").rglob("*.parquet")} == before
    assert verify(str(catalog)).is_whole


def test_a_second_run_skips_what_is_done_and_a_stopped_one_goes_on(marked):
    catalog, order = str(marked / "catalog"), {"by": "p_marked", "where": "object_id < 30"}
    first = explain(catalog, name="twice", top=0, **order)
    assert (first.rows, first.rows_skipped, first.objects) == (30, 0, 30)
    again = explain(catalog, name="twice", top=0, **order)
    assert (again.rows, again.rows_skipped) == (0, 30)
    assert again.words == first.words
    store = ExplanationStore.of(catalog, "twice")
    maps, rows = store.maps()[:], _rows(catalog, "twice")
    Path(store.url, "blocks", "000002.parquet").unlink()  # as if it had been stopped before
    annotated = Annotation(catalog, "twice")
    Path(catalog, sorted(annotated.files())[0]).unlink()
    assert not verify(catalog).damages
    third = explain(catalog, name="twice", top=0, **order)
    assert 0 < third.rows < 30
    assert third.rows + third.rows_skipped == 30
    np.testing.assert_array_equal(store.maps()[:], maps)
    assert _rows(catalog, "twice").equals(rows)
    assert "twice" in show(third)


def test_a_sample_is_judged_once_and_told_with_intervals(marked, capsys):
    catalog = str(marked / "catalog")
    order = {"by": "p_marked", "where": "object_id < 30", "forwards": 17}
    plain = explain(catalog, name="judged", top=0, maps="none", **order)
    assert plain.trust is None
    some = explain(catalog, name="judged", top=0, maps="none", faithfulness=8, **order)
    assert (some.rows, some.trust.objects) == (0, 8)
    store = ExplanationStore.of(catalog, "judged")
    first = store.judged()
    more = explain(catalog, name="judged", top=0, maps="none", faithfulness=20, **order)
    again = store.judged()
    assert more.trust.objects == 20
    kept = again.filter(pc.is_in(again["object_id"], value_set=first["object_id"]))
    assert kept.equals(first)  # an object is judged alike whatever else is
    files = sorted(Path(store.url, "judged").iterdir())
    assert explain(catalog, name="judged", top=0, maps="none", faithfulness=20, **order).trust == more.trust
    assert sorted(Path(store.url, "judged").iterdir()) == files
    assert more.trust.deletion.low > 0.2
    assert abs(more.trust.all_layers.value) < 0.3
    assert not more.trust.warnings()
    assert any("random order" in sentence for sentence in more.words)
    assert main(["explain", catalog, "--name", "judged", "--faithfulness", "1", "--by", "p_marked"]) == 2
    assert "64 are usual" in capsys.readouterr().err


def test_maps_that_are_no_better_than_chance_are_named():
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(0, 1, 50) for name in ("deletion", "insertion", "last_layer")}
    rest = {"object_id": np.arange(50), "tile": ["t"] * 50, "difference": np.ones(50), "all_layers": np.full(50, 0.9)}
    trust = trust_of(pa.table({**rest, **columns}).select(SCHEMA.names).cast(SCHEMA))
    assert [one.split(" ")[-1] for one in trust.warnings()] == ["--number.", "network."]
    assert trust_of(SCHEMA.empty_table()) is None


def test_rows_of_a_survey_are_explained_as_they_were_measured(sky):
    catalog = str(sky / "catalog")
    result = explain(catalog, top=0, number="logit_galaxy", by="p_galaxy", maps="none", forwards=17)
    found = _rows(catalog)
    assert result.objects == found.num_rows == COUNT
    assert result.differs < 1e-4  # the same stamps: read, cut, centred, resampled
    assert result.maps is None
    assert set(found["forwards"].to_pylist()) == {17}
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(found["value"]))), np.asarray(found["p_galaxy"]), atol=1e-4)
    with pytest.raises(InputError, match="has no maps"):
        ExplanationStore.of(catalog, "explained").maps()
    assert matrix(found["band_fraction"]).shape == (COUNT, 2)


def test_stamps_cut_from_a_survey_are_explained_as_its_rows(sky, tmp_path):
    stamps, catalog = str(tmp_path / "stamps.zarr"), str(tmp_path / "catalog")
    cutouts(str(sky / "survey.zarr"), objects=str(sky / "objects.parquet"), out=stamps, size=64)
    infer(stamps, bundle=str(sky / "kind"), out=catalog)
    found = {}
    for place in (str(sky / "catalog"), catalog):
        result = explain(
            place, top=0, by="p_galaxy", number="logit_galaxy", name="rows_of", method="gradient", maps="none"
        )
        assert result.differs < 1e-4
        rows = _rows(place, "rows_of").sort_by("object_id")
        found[place] = rows.select(["object_id", "value", "outline_fraction", "outline_area", "outline_stored"])
    of_survey, of_stamps = found.values()
    assert of_survey["object_id"].to_pylist() == of_stamps["object_id"].to_pylist()
    for name in ("value", "outline_fraction", "outline_area"):
        np.testing.assert_allclose(of_survey[name].to_numpy(), of_stamps[name].to_numpy(), atol=2e-3, err_msg=name)
    assert not any(of_stamps["outline_stored"].to_pylist())  # nobody has outlined objects that were given


@pytest.mark.slow
def test_objects_that_a_plug_in_finds_are_explained_by_its_maps(tmp_path):
    with spotter.small_sky(tmp_path):
        catalog = str(tmp_path / "catalog")
        infer(str(tmp_path / "survey.zarr"), bundle=[str(tmp_path / "spots"), str(tmp_path / "kind")], out=catalog)
        found = explain(catalog, top=5, by="spots_area", name="why", number="output_0")
        rows = _rows(catalog, "why")
        assert (found.bundle, found.number, rows.num_rows) == ("spots", "output_0", 5)
        assert min(rows["completeness_error"].to_pylist()) <= 1e-3
        assert np.mean(rows["outline_fraction"].to_pylist()) > 0.5
        assert (np.asarray(rows["value"]) > spotter.THRESHOLD / 2).all()
        other = explain(catalog, top=5, by="kind_p_star", name="stars")
        assert (other.bundle, other.number) == ("kind", "logit_star")
        assert other.differs < 1e-4
        assert main(["explain", catalog, "--top", "5"]) == 2  # of which bundle?


def test_what_cannot_be_explained_is_one_sentence(sky, marked, tmp_path, capsys):
    catalog = str(sky / "catalog")
    survey = str(sky / "survey.zarr")
    wrong = {
        "no column 'p_quasar'": ["--by", "p_quasar"],
        "is string, no number": ["--by", "label"],
        "say which column ranks": [],
        "did not measure this catalog": ["--by", "p_star", "--bundle", "lens"],
        "is not what the catalog was made from": ["--by", "p_star", "--source", str(marked / "stamps.zarr")],
        "give the survey or stamps of this catalog": ["--by", "p_star", "--source", str(tmp_path / "nowhere.zarr")],
        "did you mean 'logit_star'": ["--by", "p_star", "--number", "logit_stat"],
        "no row of the catalog has": ["--by", "p_star", "--where", "object_id = 1"],
        "the query failed": ["--by", "p_star", "--where", "nonsense"],
        "--top -1": ["--by", "p_star", "--top", "-1"],
        "must be one of": ["--by", "p_star", "--method", "magic"],
        "cannot name an annotation": ["--by", "p_star", "--name", "catalog"],
    }
    for said, options in wrong.items():
        assert main(["explain", catalog, "--name", "x", *options]) == 2, said
        assert said in capsys.readouterr().err
    assert main(["explain", survey, "--by", "p_star"]) == 2
    explain(catalog, name="few", top=3, by="p_star", maps="none", forwards=17)
    with pytest.raises(InputError, match="another list of objects"):
        explain(catalog, name="few", top=4, by="p_star", maps="none", forwards=17)
    with pytest.raises(InputError, match="another forwards"):
        explain(catalog, name="few", top=3, by="p_star", maps="none", forwards=18)


def test_names_of_other_annotations_are_left_alone(marked):
    catalog = str(marked / "catalog")
    annotation = Annotation(catalog, "groups")
    annotation.write_record({"identity": {"kind": "clusters"}, "head": "0", "columns": [], "about": {}})
    with pytest.raises(InputError, match="annotation of another kind"):
        explain(catalog, name="groups", by="p_marked", top=3)
    Path(annotation.url, "annotation.json").unlink()
    explain(catalog, name="mine", by="p_marked", top=3, maps="none")
    with pytest.raises(InputError):
        cluster(catalog, name="mine", clusters=2)


@pytest.mark.slow
def test_worker_processes_give_what_threads_give(sky):
    catalog = str(sky / "catalog")
    given = {
        "top": 20,
        "by": "p_galaxy",
        "number": "logit_galaxy",
        "forwards": 17,
        "faithfulness": 6,
        "maps": "float32",
    }
    with connect("processes", workers=2, threads=1) as client:
        apart = explain(catalog, name="apart", client=client, **given)
    here = explain(catalog, name="here", **given)
    assert (apart.rows, apart.failed, apart.words) == (here.rows, (), here.words)
    stores = [ExplanationStore.of(catalog, name) for name in ("apart", "here")]
    np.testing.assert_allclose(*(np.asarray(store.maps()[:], float) for store in stores), rtol=2e-3, atol=1e-3)
    assert stores[0].done() == stores[1].done()
    for name in SCHEMA.names[2:]:
        np.testing.assert_allclose(*(store.judged()[name].to_numpy() for store in stores), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_changed_source_fails_and_is_tried_again(tmp_path):
    source, bundle = (
        planted.store(str(tmp_path / "stamps.zarr"), "band"),
        planted.bundle(str(tmp_path / "marks"), "band"),
    )
    catalog = str(tmp_path / "catalog")
    infer(source, bundle=bundle, out=catalog)
    shard = next(Path(source, "image", "c").rglob("0")).parent
    shard = sorted(file for file in Path(source, "image", "c").rglob("*") if file.is_file())[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    failed = explain(catalog, top=0, by="p_marked", name="why", maps="none")
    assert failed.failed
    assert 0 < failed.rows < failed.objects
    assert Catalog.open(catalog)
    assert len(_rows(catalog, "why")) == failed.rows
    shard.write_bytes(whole)
    done = explain(catalog, top=0, by="p_marked", name="why", maps="none")
    assert (done.failed, done.rows + done.rows_skipped) == ((), done.objects)
    assert len(_rows(catalog, "why")) == done.objects
    assert any("band r" in sentence for sentence in done.words)
    assert json.loads(Path(catalog, "explanations", "why", "explanation.json").read_text())["bands"] == ["g", "r", "i"]
