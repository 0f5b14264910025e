"""Training and evaluating on a survey and a table: the very stamps of `cutouts`, the same network, nothing on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table

from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.cutting.view import SurveyStamps
from astroml_plugin.cutting.viewing import open_stamps
from astroml_plugin.inference.options import ObjectTable
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from tests import universe
from tests.test_workflows_cutouts import COUNT, SHAPE, faults
from workflows.cli import main
from workflows.cutouts import cutouts
from workflows.evaluate import evaluate
from workflows.infer import infer
from workflows.query import query
from workflows.train import train

torch.set_num_threads(1)

RECIPE = """
task = "classify"
[settings]
stamp_size = 24
label = "kind"
[network_arguments]
widths = [4, 8]
hidden = 8
[training]
epochs = 2
batch_size = 16
[split]
fractions = [0.6, 0.2, 0.2]
leaks = "drop"
[typicality]
fit = false
"""


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of twelve tiles with faults, and labels of objects of which two are on no tile."""
    folder = tmp_path_factory.mktemp("labelled")
    universe.make_survey(str(folder / "survey.zarr"), bands=("g", "r"), change=faults)
    universe.make_objects(folder / "placed.parquet", COUNT, SHAPE)
    table = pq.read_table(folder / "placed.parquet")
    lost = pa.table({"object_id": [7, 8], "ra": [10.0, float("nan")], "dec": [80.0, 2.0]})
    table = pa.concat_tables([table, lost])
    kinds = ["étoile" if number % 3 else "galaxy" for number in range(table.num_rows)]
    pq.write_table(table.append_column("kind", pa.array(kinds)), folder / "labels.parquet")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def stamps(sky: Path, client: object) -> Stamps:
    """The stamps of the same objects, on disk."""
    cutouts(
        str(sky / "survey.zarr"), objects=str(sky / "labels.parquet"), out=str(sky / "s.zarr"), size=24, client=client
    )
    return Stamps.open(str(sky / "s.zarr"))


@pytest.fixture(scope="module")
def view(sky: Path) -> SurveyStamps:
    """The same as a view."""
    result = cutouts(str(sky / "survey.zarr"), objects=str(sky / "labels.parquet"), out=str(sky / "l.view"), size=24)
    assert (result.kind, result.rows, result.unplaced, result.bytes) == ("view", COUNT, 2, 0)
    found = open_stamps(str(sky / "l.view"))
    assert isinstance(found, SurveyStamps)
    return found


def test_a_view_has_the_very_stamps_of_cutouts_and_no_pixels(sky: Path, stamps: Stamps, view: SurveyStamps) -> None:
    names = {path.name for path in (sky / "l.view").rglob("*") if path.is_file()}
    assert names == {"zarr.json", "table.parquet", "tiles.parquet", "unplaced.parquet"}
    assert [(one.start, one.stop) for one in view.units()] == [(one.start, one.stop) for one in stamps.units()]
    assert view.labels().equals(stamps.labels().drop_columns(["flags"]))
    assert view.facts == stamps.facts
    for block in stamps.units():
        for one, other in zip(view.read_block(block.index), stamps.read_block(block.index), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(view.read_mask(block.index), stamps.read_mask(block.index))
    rows = np.array([5, 3, COUNT - 1, 5])
    for one, other in zip(view.read_rows(rows), stamps.read_rows(rows), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(view.read_masks(rows), stamps.read_masks(rows))


@pytest.mark.parametrize("memory", [2e9, 1e5])
def test_batches_of_a_view_are_those_of_the_stamps(stamps: Stamps, view: SurveyStamps, memory: float) -> None:
    streams = [
        StampBatches(LabelledStamps(one.url), np.arange(COUNT), torch.arange(COUNT), bands=("r",), memory=memory)
        for one in (stamps, view)
    ]
    for epoch in (0, 1):
        for one, other in zip(*(stream.epoch(epoch) for stream in streams), strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert torch.equal(one.cutouts.image, other.cutouts.image)
            assert torch.equal(one.cutouts.valid, other.cutouts.valid)


def test_training_from_a_survey_gives_the_network_of_its_stamps(
    sky: Path, stamps: Stamps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(sky / "recipe.toml", data=stamps.url, out=tmp_path / "stamps")
    command = ["train", str(sky / "recipe.toml"), "--data", str(sky / "survey.zarr")]
    assert main([*command, "--labels", str(sky / "labels.parquet"), "--out", str(tmp_path / "survey")]) == 0
    assert "2 of the 122 objects of" in (told := capsys.readouterr().err)
    assert "no finite position 1, outside every tile 1" in told
    one, other = (ModelBundle.load(tmp_path / name) for name in ("stamps", "survey"))
    for name in ("weights.safetensors", "training_objects.safetensors"):
        assert (tmp_path / "stamps" / name).read_bytes() == (tmp_path / "survey" / name).read_bytes()
    assert one.card.metrics == other.card.metrics
    assert one.card.training["split_ids"] == other.card.training["split_ids"]
    assert other.card.training["sources"][0]["name"] == "survey"
    assert "/" not in json.dumps(other.card.training["sources"])
    again = train(sky / "recipe.toml", data=sky / "survey.zarr", labels=sky / "labels.parquet", out=tmp_path / "survey")
    assert again.skipped
    own = evaluate(sky / "survey.zarr", labels=sky / "labels.parquet", bundle=tmp_path / "survey", out=tmp_path / "own")
    assert (own.split, own.objects) == ("test", other.card.training["objects"]["test"])
    cut = evaluate(stamps.url, bundle=tmp_path / "survey", out=tmp_path / "cut")
    assert cut.split == "unseen"
    assert cut.objects <= other.card.training["objects"]["test"]  # known again by pixels and places in another store


def test_evaluate_sees_the_stamps_that_infer_measures(sky: Path, tmp_path: Path, client: object) -> None:
    bundle = universe.make_bundle(str(tmp_path / "b"), task="classify", size=24, bands=("g", "r"))
    classes = ModelBundle.load(bundle).card.settings["classes"]
    table = pq.read_table(sky / "labels.parquet")
    kinds = [classes[number % len(classes)] for number in range(table.num_rows)]
    table = table.set_column(3, "label", pa.array(kinds))
    found = evaluate(sky / "survey.zarr", labels=table, bundle=bundle, out=tmp_path / "e", robustness=False)
    infer(str(sky / "survey.zarr"), bundle=bundle, objects=table, out=str(tmp_path / "c"), client=client)
    rows = query(str(tmp_path / "c"), "SELECT object_id, label FROM catalog ORDER BY object_id").to_arrow()
    truth = dict(zip(table["object_id"].to_pylist(), kinds, strict=True))
    right = [label == truth[one] for one, label in zip(*(rows[name].to_pylist() for name in ("object_id", "label")))]
    assert found.objects == len(right) == COUNT
    assert found.metrics["accuracy"] == pytest.approx(np.mean(right))


def labels_like(sky: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """The labels as somebody else may have them, and how to read them."""
    table = pq.read_table(sky / "labels.parquet").slice(0, COUNT)
    survey = Survey.open(str(sky / "survey.zarr"))
    ra, dec = (table[axis].to_numpy() for axis in ("ra", "dec"))
    own = Table({"number": table["object_id"].to_numpy(), "kind": table["kind"].to_pylist()})
    if name == "sexagesimal":
        words = SkyCoord(ra, dec, unit="deg").to_string("hmsdms", precision=6)
        own["RA"], own["DEC"] = zip(*(word.split() for word in words), strict=True)
        return own, {"columns": {"object_id": "number"}}
    if name == "pixels from 1":
        x, y = next(iter(survey.images().values())).wcs().to_pixel(ra, dec)  # type: ignore[union-attr]
        own["X_IMAGE"], own["Y_IMAGE"] = x + 1, y + 1
        return own, {"columns": {"object_id": "number"}}
    own["RAJ2000"], own["DEJ2000"] = ra, dec
    return own, {"columns": {"object_id": "number"}}


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["sexagesimal", "degrees", "pixels from 1"])
def test_labels_come_as_others_write_them(
    sky: Path, view: SurveyStamps, tmp_path: Path, suffix: str, kind: str
) -> None:
    own, how = labels_like(sky, kind)
    path = tmp_path / f"labels.{suffix}"
    if suffix == "fits":
        own["kind"] = [word.replace("é", "e") for word in own["kind"]]
        own.write(path)
    elif suffix == "parquet":
        pq.write_table(pa.table({column: own[column].tolist() for column in own.colnames}), path)
    else:
        own.write(path, format={"ecsv": "ascii.ecsv", "csv": "ascii.csv"}[suffix])
    result = cutouts(
        str(sky / "survey.zarr"),
        objects=ObjectTable(table=str(path), **how),
        out=str(tmp_path / "v.view"),
        size=24,
    )
    found = open_stamps(result.out).labels()
    assert found["object_id"].to_pylist() == view.labels()["object_id"].to_pylist()
    np.testing.assert_allclose(found["x"], view.labels()["x"], atol=1e-4)
    if suffix != "fits":
        assert found["kind"].to_pylist() == view.labels()["kind"].to_pylist()


def test_labels_by_ids_alone_take_their_places_from_a_catalog(sky: Path, tmp_path: Path, client: object) -> None:
    bundle = universe.make_bundle(str(tmp_path / "b"), task="classify", size=24, bands=("g", "r"))
    catalog = tmp_path / "c"
    infer(str(sky / "survey.zarr"), bundle=bundle, objects=sky / "labels.parquet", out=str(catalog), client=client)
    table = pq.read_table(sky / "labels.parquet").select(["object_id", "kind"])
    more = pa.concat_tables([table, pa.table({"object_id": [99], "kind": ["galaxy"]})])
    pq.write_table(more, tmp_path / "ids.parquet")
    more.to_pandas().to_csv(tmp_path / "ids.csv", index=False)
    for name in ("ids.parquet", "ids.csv"):
        out = tmp_path / f"of {name}"
        given = {"labels": str(tmp_path / name), "catalog": catalog}
        result = train(sky / "recipe.toml", data=sky / "survey.zarr", out=out, **given)
        assert result.notes == ("3 of the 123 ids of the table are not in the catalog",)
        assert sum(ModelBundle.load(out).card.training["objects"].values()) == COUNT - 1  # a place that is there twice
    other = universe.make_survey(str(tmp_path / "other.zarr"), bands=("g", "r"))
    with pytest.raises(InputError, match="its positions are of other images"):
        train(sky / "recipe.toml", data=other.url, out=tmp_path / "x", **given)
    with pytest.raises(InputError, match="none of the 1 ids"):
        train(
            sky / "recipe.toml",
            data=sky / "survey.zarr",
            labels=pa.table({"object_id": [5], "kind": ["galaxy"]}),
            catalog=catalog,
            out=tmp_path / "x",
        )


def test_what_is_twice_masked_or_elsewhere_is_told(sky: Path, tmp_path: Path) -> None:
    table = pq.read_table(sky / "labels.parquet").slice(0, COUNT)
    again = table.slice(0, 3).set_column(3, "kind", pa.array(["étoile", "étoile", "étoile"]))
    out = tmp_path / "b"
    result = train(sky / "recipe.toml", data=sky / "survey.zarr", labels=pa.concat_tables([table, again]), out=out)
    (told,) = result.notes
    assert "3 ids stand more than once in the table, 1 of them with other labels" in told
    masked = Table({name: table[name].to_pylist() for name in table.column_names})
    masked["kind"] = MaskedColumn(masked["kind"], mask=np.arange(COUNT) < 4)
    with pytest.raises(InputError, match=r"3 of 72 objects have no label in column 'kind'"):
        train(sky / "recipe.toml", data=sky / "survey.zarr", labels=masked, out=tmp_path / "m")
    (tmp_path / "open.toml").write_text(RECIPE.replace('label = "kind"', 'label = "kind"\nmissing = "leave_out"'))
    train(tmp_path / "open.toml", data=sky / "survey.zarr", labels=masked, out=tmp_path / "m")
    assert ModelBundle.load(tmp_path / "m").card.training["left_out"] == 5  # and a place that is there twice
    far = table.set_column(1, "ra", pa.array(table["ra"].to_numpy() + 50))
    with pytest.raises(InputError, match="none of the 120 objects lies on"):
        train(sky / "recipe.toml", data=sky / "survey.zarr", labels=far, out=tmp_path / "f")


def test_what_does_not_go_together_is_refused_in_a_sentence(sky: Path, stamps: Stamps, tmp_path: Path) -> None:
    survey, labels = str(sky / "survey.zarr"), str(sky / "labels.parquet")
    with pytest.raises(InputError, match="is a survey: give the labels of its objects"):
        train(sky / "recipe.toml", data=survey, out=tmp_path / "x")
    with pytest.raises(InputError, match="holds stamps, which have their own: leave the labels away"):
        train(sky / "recipe.toml", data=stamps.url, labels=labels, out=tmp_path / "x")
    with pytest.raises(InputError, match="2 tables of labels for 1 surveys"):
        train(sky / "recipe.toml", data=survey, labels=[labels, labels], out=tmp_path / "x")
    with pytest.raises(InputError, match=r"stamps of 80 px need a halo of 40 px"):
        train(sky / "recipe.toml", data=survey, labels=labels, size=80, out=tmp_path / "x")
    universe.make_survey(str(tmp_path / "one.zarr"), bands=("r",), name="one", seed=9)
    with pytest.raises(InputError, match=r'differ in bands .*: bands = \["r"\] in \[settings\]'):
        train(sky / "recipe.toml", data=[survey, tmp_path / "one.zarr"], labels=labels, out=tmp_path / "x")
    with pytest.raises(InputError, match="differ in size"):
        train(
            sky / "recipe.toml",
            data=[survey, stamps.url],
            labels=labels,
            size=32,
            out=tmp_path / "x",
        )
    with pytest.raises(InputError, match="is a view of labelled objects, for training alone"):
        open_source(cutouts(survey, objects=labels, out=str(tmp_path / "v.view")).out)
    with pytest.raises(InputError, match="holds something else"):
        cutouts(survey, objects=labels, out=str(tmp_path / "v.view"), size=20)


def test_a_tile_that_changed_since_is_not_cut(tmp_path: Path) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"))
    universe.make_objects(tmp_path / "o.parquet", 20)
    url = cutouts(survey.url, objects=str(tmp_path / "o.parquet"), out=str(tmp_path / "v.view"), size=24).out
    table = pq.read_table(Path(url) / "objects" / "tiles.parquet")
    pq.write_table(
        table.set_column(1, "checksum", pa.array(["0" * 64] * table.num_rows)), Path(url) / "objects" / "tiles.parquet"
    )
    with pytest.raises(CorruptError, match="has changed since its labelled objects were placed"):
        open_stamps(url).read_rows([0])


def test_a_crowded_tile_is_read_once_for_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"), shape=(120, 120))
    universe.make_objects(tmp_path / "o.parquet", 100, (120, 120))
    how = {"objects": str(tmp_path / "o.parquet"), "size": 24, "block": 8}
    url = cutouts(survey.url, out=str(tmp_path / "v.view"), **how).out
    opened, reads = open_stamps(url), []
    assert len(opened.units()) == 13
    read = Survey.read_tile
    monkeypatch.setattr(Survey, "read_tile", lambda *given, **more: reads.append(1) or read(*given, **more))
    data = LabelledStamps([url])
    data.read(data.blocks[0], np.arange(100), ("r",))
    assert len(data.pixel_hashes) == 100
    assert len(reads) <= 3  # one for each source object, and two threads may read at once
