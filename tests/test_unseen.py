"""A bundle is judged on no object that it was trained on, in whatever store, format, order or number it comes again."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.duplicates import CENTRE, centre_digests, place_cells
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training import known_objects
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.known_objects import KnownObjects
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.typicality_fit import TypicalitySettings
from astroml_plugin.training.unseen import Unseen, unseen_rows
from bundles.records import with_record
from tests.training_samples import class_stamps, write_stamps
from workflows.compare import compare
from workflows.evaluate import evaluate
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.train import train

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    found = read_recipe("classify")
    return replace(
        found,
        settings={"label": "kind", "names": {"1": "galaxy", "2": "star"}},
        network="strided_cnn",
        network_arguments={"widths": [4, 8], "hidden": 8},
        training=replace(found.training, epochs=1),
        typicality=TypicalitySettings(fit=False),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> tuple[Path, str, ModelBundle]:
    """A folder, the URL of the training stamps, and the bundle."""
    folder = tmp_path_factory.mktemp("seen")
    source = class_stamps(str(folder / "first.zarr"))
    train(recipe, data=source, out=str(folder / "b"))
    return folder, source, ModelBundle.load(folder / "b")


def pixels_of(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of all stamps."""
    stamps = Stamps.open(source)
    return stamps.read_rows(np.arange(stamps.count))[0], stamps.labels()["kind"].to_numpy()


def judged(model: ModelBundle, source: str) -> Unseen:
    """The objects of a source that the bundle may be judged on."""
    data = LabelledStamps([source])
    return unseen_rows(model, data, np.ones(data.labels.num_rows, bool), model.bands)


def test_the_same_data_ingested_again_give_the_same_figures(
    trained: tuple[Path, str, ModelBundle], tmp_path: Path
) -> None:
    folder, source, model = trained
    first = evaluate(source, bundle=folder / "b", out=tmp_path / "e1")
    image, kind = pixels_of(source)
    order = np.random.default_rng(0).permutation(len(image))
    np.savez(tmp_path / "again.npz", images=image[order], kind=kind[order], object_id=5_000 + order)
    again = ingest([str(tmp_path / "again.npz")], out=str(tmp_path / "again.zarr"), bands="g,r", pixel_scale=0.2).source
    found = evaluate(again, bundle=folder / "b", out=tmp_path / "e2")
    assert (first.split, found.split) == ("test", "unseen")
    assert found.objects == first.objects == model.card.training["objects"]["test"]
    assert found.metrics["accuracy"] == first.metrics["accuracy"]
    learned = len(image) - first.objects
    assert f"left out {learned} objects that the bundle was trained on" in found.left_out
    assert json.loads((tmp_path / "e2" / "metrics.json").read_text())["left_out"] == {
        "trained_on": learned,
        "not_told": 0,
    }


@pytest.mark.parametrize("change", ["subset", "flipped", "chunks", "bands"])
def test_training_objects_are_recognised(trained: tuple[Path, str, ModelBundle], tmp_path: Path, change: str) -> None:
    _, source, _ = trained
    image, kind = pixels_of(source)
    bands = ("g", "r")
    if change == "subset":
        image, kind = image[::3], kind[::3]
    if change == "flipped":
        image = image[:, :, ::-1]
    if change == "bands":
        image, bands = image[:, ::-1], ("r", "g")
    fresh, fresh_kind = pixels_of(class_stamps(str(tmp_path / "fresh.zarr"), 60, seed=9))
    both = np.concatenate([np.ascontiguousarray(image), fresh])
    labels = {"kind": np.concatenate([kind, fresh_kind])}
    url = write_stamps(str(tmp_path / "other.zarr"), both, labels, bands=bands, block=37)
    found = judged(trained[2], url)
    assert found.split == "unseen"
    assert (found.rows >= len(kind)).sum() == 60
    assert 0 < (found.rows < len(kind)).sum() < 0.35 * len(kind)
    assert len(found.rows) + found.known == len(both)


def test_other_data_are_scored_whole(trained: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    other = class_stamps(str(tmp_path / "other.zarr"), 80, seed=3)
    found = judged(trained[2], other)
    assert (len(found.rows), found.split, found.left_out) == (80, "all", "")


def test_nothing_left_is_said(trained: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    _, source, model = trained
    image, kind = pixels_of(source)
    ids = Stamps.open(source).labels()["object_id"].to_numpy()
    known = model.known_objects()
    assert known is not None
    learned = known.holds(centre_digests(image), np.full((len(ids), 2), np.nan))
    url = write_stamps(str(tmp_path / "s.zarr"), image[learned], {"kind": kind[learned]}, bands=("g", "r"))
    with pytest.raises(InputError, match=r"is left to evaluate on: left out \d+ objects.*give objects"):
        judged(model, url)


def test_a_bundle_without_a_record_warns(trained: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    _, _, model = trained
    ModelBundle.save(tmp_path / "old", model.network(), model.card)
    other = class_stamps(str(tmp_path / "other.zarr"), 80, seed=3)
    with pytest.warns(UserWarning, match="keeps no record of its training objects"):
        judged(ModelBundle.load(tmp_path / "old"), other)


def test_a_record_can_be_added_from_the_training_data_alone(
    trained: tuple[Path, str, ModelBundle], tmp_path: Path
) -> None:
    _, source, model = trained
    ModelBundle.save(tmp_path / "old", model.network(), model.card)
    with pytest.raises(InputError, match="was trained on other data than"):
        with_record(str(tmp_path / "old"), [class_stamps(str(tmp_path / "other.zarr"), 80, seed=3)])
    made = with_record(str(tmp_path / "old"), [source])
    assert made.card.weights_sha256 == model.card.weights_sha256
    one, two = made.known_objects(), model.known_objects()
    assert one is not None
    assert two is not None
    assert one.to_bytes() == two.to_bytes()


def test_a_record_that_is_gone_or_altered_is_refused(trained: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    _, _, model = trained
    known = model.known_objects()
    assert known is not None
    ModelBundle.save(tmp_path / "b", model.network(), model.card, known)
    other = class_stamps(str(tmp_path / "other.zarr"), 80, seed=3)
    path = tmp_path / "b" / known_objects.FILE
    whole = path.read_bytes()
    for data in (b"", whole[:-3], whole[:50] + b"x" + whole[51:]):
        path.write_bytes(data)
        with pytest.raises(InputError, match="absent or was altered"):
            judged(ModelBundle.load(tmp_path / "b"), other)
    path.unlink()
    with pytest.raises(InputError, match="absent or was altered"):
        judged(ModelBundle.load(tmp_path / "b"), other)


def test_compare_leaves_out_what_a_bundle_was_trained_on(
    trained: tuple[Path, str, ModelBundle], tmp_path: Path, recipe: Recipe
) -> None:
    folder, source, _ = trained
    image, kind = pixels_of(source)
    again = write_stamps(str(tmp_path / "again.zarr"), image, {"kind": kind}, bands=("g", "r"), block=50)
    other = replace(recipe, split=replace(recipe.split, seed=5, fractions=(0.4, 0.2, 0.4)))
    bundle = str(folder / "b")
    found = compare(other, data=again, out=tmp_path / "c", folds=0, methods=["network"], bundle=bundle, repeats=20)
    record = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert record["trained_on"]["b"] > 40
    assert record["left_out"]["network"] == 0
    assert "objects that b was trained on" in found.left_out
    assert record["left_out"]["b"] == record["trained_on"]["b"]


@pytest.mark.parametrize("side", [16, 23, 24, 25, 64])
def test_digests_of_centres(side: int) -> None:
    rng = np.random.default_rng(side)
    image = rng.integers(0, 255, (5, 2, side, side)).astype(np.uint8)
    first = centre_digests(image)
    assert len(set(first)) == 5
    wider = np.pad(image, ((0, 0), (0, 0), (3, 3), (5, 5)))
    assert side < CENTRE or (centre_digests(wider) == first).all()
    for same in (image.astype(np.float32), image.astype(">f4"), image[..., ::-1], image.transpose(0, 1, 3, 2)):
        np.testing.assert_array_equal(centre_digests(same), first)
    assert (centre_digests(image[:, ::-1]) != first).all()
    changed = image.astype(np.float32)
    changed[:, 0, side // 2, side // 2] += 0.25
    assert (centre_digests(changed) != first).all()
    flat = np.zeros((1, 2, side, side), np.float32)
    assert (centre_digests(flat) == 0).all()
    assert (centre_digests(np.full_like(flat, np.nan)) == 0).all()
    flat[0, 0, side // 2, side // 2] = 1
    assert (centre_digests(flat) != 0).all()
    assert (centre_digests(np.where(flat == 0, np.float32(-0.0), flat)) == centre_digests(flat)).all()


@settings(max_examples=200)
@given(st.floats(0, 360, exclude_max=True), st.floats(-89.99, 89.99), st.floats(0, 0.5), st.floats(0, 360))
def test_places_within_half_an_arcsec_are_found(ra: float, dec: float, distance: float, angle: float) -> None:
    digest, none = np.array([7], np.uint64), np.array([1], np.int64)
    known = KnownObjects.of(digest, none, np.array([[ra, dec]]))
    step = 0.98 * distance / 3600
    north = dec + step * np.cos(np.radians(angle))
    east = ra + step * np.sin(np.radians(angle)) / np.cos(np.radians(dec))
    assert known.holds(np.array([0], np.uint64), np.array([[east, north]]))[0]
    assert not known.holds(np.array([0], np.uint64), np.array([[ra, dec + 2 / 3600]]))[0]


def test_a_large_record_is_a_sample_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_objects, "KEPT", 1000)
    digests = np.random.default_rng(0).integers(1, 2**64 - 1, 4000, np.uint64, endpoint=True)
    known = KnownObjects.from_bytes(
        KnownObjects.of(digests, np.arange(4000) + 2**40, np.full((4000, 2), np.nan)).to_bytes(), "b"
    )
    assert len(known.pixels) == 1000
    assert known.fraction == pytest.approx(0.25, abs=0.02)
    seen = known.holds(digests, np.full((4000, 2), np.nan))
    np.testing.assert_array_equal(seen, known.covers(digests))
    assert known.shares_ids(np.arange(4000) + 2**40).sum() == 1000
    assert not known.shares_ids(np.arange(4000)).any()


def test_a_sampled_record_judges_on_what_it_can_tell(
    trained: tuple[Path, str, ModelBundle], tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_objects, "KEPT", 60)
    _, source, _ = trained
    train(recipe, data=source, out=str(tmp_path / "b"))
    image, kind = pixels_of(source)
    again = write_stamps(str(tmp_path / "again.zarr"), image, {"kind": kind}, bands=("g", "r"), block=50)
    found = judged(ModelBundle.load(tmp_path / "b"), again)
    assert "left out 60 objects" in found.left_out
    assert "of which its record cannot tell" in found.left_out
    assert 0 < len(found.rows) < 20


def test_survey_ids_with_other_pixels_are_told(
    trained: tuple[Path, str, ModelBundle], tmp_path: Path, recipe: Recipe
) -> None:
    _, source, _ = trained
    image, kind = pixels_of(source)
    ids = 2**40 + np.arange(len(kind))
    first = write_stamps(str(tmp_path / "a.zarr"), image, {"kind": kind}, bands=("g", "r"), object_id=ids)
    train(recipe, data=first, out=str(tmp_path / "b"))
    other = write_stamps(str(tmp_path / "o.zarr"), image // 2, {"kind": kind}, bands=("g", "r"), object_id=ids)
    with pytest.warns(UserWarning, match="have ids of training objects of bundle b and other pixels"):
        judged(ModelBundle.load(tmp_path / "b"), other)


def test_cells_of_places_differ() -> None:
    grid = np.stack(np.meshgrid(np.arange(40) / 3600, np.arange(40) / 3600), axis=-1).reshape(-1, 2)
    assert len(np.unique(place_cells(grid))) == 1600
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place_cells(np.array([[0.0, 90.0], [359.999999, -90.0]]))
