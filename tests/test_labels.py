"""Label maps: owned objects whole, one picture from any tiling, readable by others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.survey import Survey
from tests.detection import assert_same, rows, run
from workflows.cli import main
from workflows.compact import compact
from workflows.query import query
from workflows.segmentation_map import segmentation_map


def test_label_maps_of_three_tilings_are_one_picture(spotted: Path) -> None:
    pictures = [read_labels(str(spotted / f"catalog{number}")) for number in range(3)]
    assert [picture.contested for picture in pictures] == [0, 0, 0]
    assert pictures[0].labels.shape == (300, 400)
    first = pictures[0].object_ids()
    for other in pictures[1:]:
        np.testing.assert_array_equal(first, other.object_ids())
    ids, counts = np.unique(first[first >= 0], return_counts=True)
    table = rows(spotted / "catalog0")
    np.testing.assert_array_equal(ids, table["object_id"].to_numpy())
    np.testing.assert_array_equal(counts, table["area"].to_numpy())


def test_a_tile_keeps_its_own_objects_whole_and_shows_its_neighbours(spotted: Path) -> None:
    catalog = spotted / "catalog0"
    maps, survey = LabelMaps.open(str(catalog)), Survey.open(str(spotted / "survey0.zarr"))
    stored = xarray.open_zarr(str(catalog / "labels.zarr"), consolidated=False)
    assert stored["label"].dims == ("tile", "y", "x")
    assert stored["label"].shape == (len(survey), 192, 192)
    across, everything = 0, read_labels(str(catalog)).object_ids()
    for info in survey.iter_tiles():
        own = query(
            str(catalog), f"SELECT label_id, area, object_id FROM catalog WHERE tile = '{info.name}'"
        ).to_arrow()
        label = maps.read(info.index)
        np.testing.assert_array_equal(label, stored["label"][info.index])
        ids, counts = np.unique(label[label > 0], return_counts=True)
        area = dict(zip(own["label_id"].to_pylist(), own["area"].to_pylist()))
        assert dict(zip(ids.tolist(), counts.tolist())) == area
        inner = label[32:-32, 32:-32]
        across += int(len(ids) and (np.isin(label, ids).sum() > np.isin(inner, ids).sum()))
        picture = read_labels(str(catalog), tile=info.name)
        np.testing.assert_array_equal(picture.labels[label > 0], label[label > 0])
        assert set(own["object_id"].to_pylist()) <= set(picture.objects["object_id"].to_pylist())
        whole = np.full(label.shape, -1)
        inside = info.outer.clipped(*info.image_shape)
        part = np.s_[
            inside.y0 - info.outer.y0 : inside.y1 - info.outer.y0, inside.x0 - info.outer.x0 : inside.x1 - info.outer.x0
        ]
        whole[part] = everything[inside.y0 : inside.y1, inside.x0 : inside.x1]
        np.testing.assert_array_equal(picture.object_ids(), whole)
    assert across > 3


def test_label_maps_may_be_left_away_and_made_later(spotted: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    first = run(spotted, out, client, label_maps=False)
    assert not (out / "labels.zarr").exists()
    with pytest.raises(InputError, match="no label maps"):
        read_labels(str(out))
    assert run(spotted, out, client, label_maps=False).units_done == 0
    assert run(spotted, out, client).units_done == first.units_done
    np.testing.assert_array_equal(
        read_labels(str(out)).object_ids(), read_labels(str(spotted / "catalog0")).object_ids()
    )
    assert_same(rows(out), rows(spotted / "catalog0"))


def test_an_unfinished_neighbour_is_named(spotted: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    run(spotted, out, client, shard=(0, 2))
    picture = read_labels(str(out), tile="field_r0_c0")
    assert "field_r0_c1" in picture.missing
    with pytest.raises(InputError, match="field_r0_c1 has no label map yet"):
        read_labels(str(out), tile="field_r0_c1")
    run(spotted, out, client, shard=(1, 2))
    assert read_labels(str(out), tile="field_r0_c1").missing == ()
    assert_same(rows(out), rows(spotted / "catalog0"))


def test_a_merged_catalog_keeps_its_labels(spotted: Path, tmp_path: Path) -> None:
    shutil.copytree(spotted / "catalog0", tmp_path / "catalog")
    compact(str(tmp_path / "catalog"))
    assert not list((tmp_path / "catalog" / "parts").glob("[0-9]*/*.parquet"))
    merged, plain = (read_labels(str(folder)).object_ids() for folder in (tmp_path / "catalog", spotted / "catalog0"))
    np.testing.assert_array_equal(merged, plain)


def test_labels_go_to_fits_with_the_tiles_coordinates(spotted: Path, tmp_path: Path) -> None:
    result = segmentation_map(str(spotted / "catalog0"), tile="field_r1_c1", to=str(tmp_path / "tile.fits"))
    with fits.open(tmp_path / "tile.fits", checksum=True) as opened:
        picture, table, wcs = opened[0].data, opened["OBJECTS"].data, WCS(opened[0].header)
    assert (result.height, result.width) == picture.shape == (192, 192)
    row = query(str(spotted / "catalog0"), "SELECT * FROM catalog WHERE tile = 'field_r1_c1' AND area > 40").to_arrow()
    for one in row.to_pylist():
        x, y = wcs.all_world2pix(one["ra"], one["dec"], 0)
        assert picture[round(float(y)), round(float(x))] == one["label_id"]
        assert table["object_id"][table["label"] == one["label_id"]] == one["object_id"]
    segmentation_map(str(spotted / "catalog0"), box=(100, 50, 180, 90), to=str(tmp_path / "box.fits"))
    assert fits.getdata(tmp_path / "box.fits").shape == (40, 80)
    for wrong in ({"tile": "nothing"}, {"image": "nothing"}, {"box": (5, 5, 5, 9)}, {"tile": "a", "image": "b"}):
        with pytest.raises(InputError):
            segmentation_map(str(spotted / "catalog0"), to=str(tmp_path / "no.fits"), **wrong)
    with pytest.raises(InputError, match=r"\.fits"):
        segmentation_map(str(spotted / "catalog0"), to=str(tmp_path / "no.png"))


def test_the_command_line_finds_and_exports(spotted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, find = str(tmp_path / "catalog"), ["infer", str(spotted / "survey0.zarr"), "--bundle", str(spotted / "spots")]
    assert main([*find, "--out", out]) == 0
    assert main(["segmentation-map", out, "--tile", "field_r0_c0", "--to", str(tmp_path / "tile.fits")]) == 0
    assert "192 x 192 px" in capsys.readouterr().out
    assert (tmp_path / "tile.fits").stat().st_size > 192 * 192 * 4
    bare = str(tmp_path / "bare")
    assert (
        main(["infer", str(spotted / "survey0.zarr"), "--bundle", str(spotted / "spots"), "--out", bare, "--no-labels"])
        == 0
    )
    assert not os.path.exists(bare + "/labels.zarr")
    assert main(["segmentation-map", bare, "--to", str(tmp_path / "none.fits")]) == 2
