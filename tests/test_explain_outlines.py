"""Outlines of explanations: those of the label maps where the catalog has them, of a window or a resampled stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.core.errors import InputError
from astroml_plugin.explanation.label_outlines import TileLabels, nearest_pixels
from tests import spotter, universe
from workflows.explain import explain
from workflows.infer import infer
from workflows.query import query


def _why(catalog: str, name: str) -> pa.Table:
    text = f"SELECT * FROM catalog JOIN {name} USING (object_id, tile) ORDER BY rank"
    return query(catalog, text).to_arrow()


def test_pixels_of_stamps_are_those_that_the_engine_cuts() -> None:
    """Of a stamp as it is, and of one whose pixels are two of the image: the nearest pixel has the same light."""
    from astroml_plugin import cutouts as cut
    from astroml_plugin.pixels import Tile

    y, x = np.mgrid[:96, :96].astype(np.float32)
    tile = cut.to_device(Tile((x + 100 * y)[None]), ("r",), "cpu", 0.2, [31.4])
    at_x, at_y, jacobian = np.array([40.3, 51.0]), np.array([47.9, 60.5]), np.zeros((2, 2, 2))
    plain = cut.around(tile, at_x, at_y, 16, origin=(3, 5), jacobian=jacobian)
    place, steps = np.full(2, 8), np.ones(2)
    across, up = (nearest_pixels(one, place, steps, 16) - first for one, first in ((at_x, 3), (at_y, 5)))
    np.testing.assert_array_equal(plain.image[:, 0], across[:, None, :] + 100 * up[:, :, None])
    coarse = cut.around_resampled(tile, at_x, at_y, 16, 2.0, origin=(3, 5), jacobian=jacobian)
    across, up = (nearest_pixels(one, place, 2 * steps, 16) - first for one, first in ((at_x, 3), (at_y, 5)))
    light = coarse.image[:, 0].numpy() / 4  # a ramp: the light of a new pixel is that of its middle
    assert np.abs(light - (across[:, None, :] + 100 * up[:, :, None])).max() <= 51  # half a pixel along both axes


def test_a_label_outlines_its_own_object_and_nothing_beyond_the_tile() -> None:
    labels = np.zeros((20, 30), np.uint32)
    labels[4:8, 25:30], labels[10:12, 3:5] = 7, 9
    rows = pa.table(
        {
            "label_id": pa.array([7, 9, None, 7], pa.int32()),
            "x": [127.0, 103.0, 127.0, 103.0],
            "y": [206.0, 210.0, 206.0, 210.0],
        }
    )
    at = torch.full((4, 2), 8)
    found = TileLabels(labels, (100, 200)).outlines(rows, at, np.ones(4), 16)
    assert found.sum((1, 2)).tolist() == [20, 4, 0, 0]
    assert found[0, 6:10, 6:11].all()  # x 127 is the tile's pixel 27, and the stamp's 8
    assert not found[0, :, 11:].any()
    halved = TileLabels(labels, (100, 200)).outlines(rows, at, np.full(4, 2.0), 16)
    assert halved[0].sum() in (4, 6)


@pytest.fixture(scope="module")
def spotted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the matched filter finds on a small sky, measured by a bundle of classes too; with label maps."""
    folder = tmp_path_factory.mktemp("spotted")
    with spotter.small_sky(folder):
        infer(
            str(folder / "survey.zarr"), bundle=[str(folder / "spots"), str(folder / "kind")], out=str(folder / "cat")
        )
        yield folder


def test_outlines_are_those_of_the_label_maps(spotted: Path) -> None:
    catalog = str(spotted / "cat")
    fast = {"method": "gradient", "maps": "none"}
    explain(catalog, top=0, by="kind_p_star", name="stars", **fast)
    rows = _why(catalog, "stars")
    assert rows["outline_stored"].to_pylist() == [True] * rows.num_rows
    image = read_labels(catalog, image="field")
    whole = image.object_ids()
    height, width = whole.shape
    areas = []
    for row in rows.to_pylist():
        x, y = (int(np.floor(row[axis] + 0.5)) - 16 for axis in "xy")  # stamps have 32 pixels
        part = whole[max(y, 0) : min(y + 32, height), max(x, 0) : min(x + 32, width)]
        areas.append(int((part == row["object_id"]).sum()))
    assert image.contested == 0
    assert rows["outline_area"].to_pylist() == areas
    found = explain(catalog, top=5, by="spots_area", name="spots", number="output_0", **fast)
    assert any("(those of the label maps)" in sentence for sentence in found.words)
    five = _why(catalog, "spots")
    seen, whole_area = (np.asarray(five[name]) for name in ("outline_area", "spots_area"))
    assert (seen <= whole_area).all()  # a window of 24 pixels may cut an object
    assert (seen > 0.8 * whole_area).all()


def test_tiles_without_a_label_map_are_outlined_by_their_light(spotted: Path) -> None:
    catalog = str(spotted / "cat")
    maps = LabelMaps.open(catalog)
    rows = query(catalog, "SELECT tile, count(*) AS n FROM catalog GROUP BY tile ORDER BY n DESC").to_arrow()
    index = {info.name: info.index for info in maps.iter_tiles()}
    kept = maps.read(index[rows["tile"][0].as_py()])
    maps.remove(index[rows["tile"][0].as_py()])
    try:
        found = explain(catalog, top=0, by="kind_p_star", name="part", method="gradient", maps="none")
    finally:
        maps.write(index[rows["tile"][0].as_py()], kept)
    by_tile = _why(catalog, "part").group_by("tile").aggregate([("outline_stored", "mean")])
    stored = dict(zip(by_tile["tile"].to_pylist(), by_tile["outline_stored_mean"].to_pylist(), strict=True))
    assert stored.pop(rows["tile"][0].as_py()) == 0
    assert set(stored.values()) == {1.0}
    assert any("of them of the label maps" in sentence for sentence in found.words)


def test_an_explanation_with_outlines_of_another_kind_is_not_mixed(spotted: Path) -> None:
    import json

    catalog = str(spotted / "cat")
    explain(catalog, top=3, by="kind_p_star", name="older", method="gradient", maps="none")
    place = Path(catalog, "explanations", "older", "explanation.json")
    record = json.loads(place.read_text())
    assert record["identity"].pop("outlines") == "label maps"
    place.write_text(json.dumps(record))  # as one of a former version of this package
    with pytest.raises(InputError, match="made with another way to outline objects: choose another --name"):
        explain(catalog, top=3, by="kind_p_star", name="older", method="gradient", maps="none")


@pytest.mark.slow
def test_peaks_of_the_shipped_segmentation_are_explained(tmp_path: Path) -> None:
    """Why this peak: the number is that of the catalog, the window holds all that makes it, the object made it."""
    survey, catalog = str(tmp_path / "survey.zarr"), str(tmp_path / "cat")
    universe.make_survey(survey, shape=(300, 640), tile_size=512, halo=128)
    infer(survey, bundle="segmentation", out=catalog)
    there = query(catalog, "SELECT count(*) AS n FROM catalog WHERE p_object < 0.9999").to_arrow()["n"][0].as_py()
    assert there > 5
    found = explain(catalog, top=6, by="p_object", where="p_object < 0.9999", name="peaks", forwards=60)
    assert (found.bundle, found.number) == ("segmentation", "logit_object")
    rows = _why(catalog, "peaks")
    odds = np.asarray(rows["value"], np.float64)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), np.asarray(rows["p_object"]), atol=2e-3)
    assert rows["outline_stored"].to_pylist() == [True] * 6
    assert np.median(np.asarray(rows["completeness_error"])) < 0.01
    inside, area = (np.asarray(rows[name], np.float64) for name in ("outline_fraction", "outline_area"))
    side = 2 * len(rows["radial_profile"][0].as_py())
    assert (inside > 5 * area / side**2).all()  # far more than their share of the pixels
