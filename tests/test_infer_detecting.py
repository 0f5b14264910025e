"""Objects found in whole tiles: once each, whole, with the same ids in any tiling, measured by the other bundles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xarray

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.cluster import connect
from astroml_plugin.errors import InputError
from astroml_plugin.flags import ObjectFlag
from astroml_plugin.survey import Survey
from tests import spotter, universe
from workflows.infer import InferResult, dry_run, infer, plan, run_unit
from workflows.query import query

TILINGS = ((192, 32), (164, 41), (512, 32))


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with spotter.installed(tmp_path_factory.mktemp("installed")) as environment:
        yield environment


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with connect("local", threads=2) as client:
        yield client


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory, registered: object, client: object) -> Path:
    """One sky in three tilings, three bundles, and the catalog of each tiling."""
    folder = tmp_path_factory.mktemp("sky")
    spotter.make_bundle(str(folder / "spots"))
    universe.make_bundle(str(folder / "kind"))
    universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
    for number, (tile_size, halo) in enumerate(TILINGS):
        universe.make_survey(str(folder / f"survey{number}.zarr"), tile_size=tile_size, halo=halo)
        run(folder, folder / f"catalog{number}", client, source=folder / f"survey{number}.zarr")
    return folder


def run(sky: Path, out: Path, client: object, **changes: Any) -> InferResult:
    settings = {"bundle": str(sky / "spots"), **changes}
    return infer(str(settings.pop("source", sky / "survey0.zarr")), out=str(out), client=client, **settings)


def rows(out: Path) -> pa.Table:
    """The catalog without what may differ between tilings, in a fixed order."""
    table = query(str(out), "SELECT * EXCLUDE (tile, label_id) FROM catalog").to_arrow()
    return table.sort_by([("object_id", "ascending"), ("image", "ascending")])


def assert_same(one: pa.Table, two: pa.Table) -> None:
    """Equal row for row, numbers with a fraction to rounding: tiles count pixels from different corners."""
    assert one.schema.names == two.schema.names
    assert one["object_id"].to_pylist() == two["object_id"].to_pylist()
    for name in one.schema.names:
        left, right = one[name].combine_chunks(), two[name].combine_chunks()
        if pa.types.is_floating(left.type):
            near = 1e-4 if name in ("x", "y") else 1e-8 if name in ("ra", "dec") else 1e-3
            np.testing.assert_allclose(left.to_numpy(False), right.to_numpy(False), rtol=0, atol=near, err_msg=name)
        else:
            assert left.equals(right), name


def test_three_tilings_of_one_sky_give_the_same_objects(sky: Path) -> None:
    first = rows(sky / "catalog0")
    assert first.num_rows > 40
    assert len(set(first["object_id"].to_pylist())) == first.num_rows
    assert pc.all(first["primary"]).as_py()
    assert set(first["parent"].to_pylist()) <= set(first["object_id"].to_pylist())
    assert any(parent != own for parent, own in zip(first["parent"].to_pylist(), first["object_id"].to_pylist()))
    for number in (1, 2):
        assert_same(first, rows(sky / f"catalog{number}"))


def test_label_maps_of_three_tilings_are_one_picture(sky: Path) -> None:
    pictures = [read_labels(str(sky / f"catalog{number}")) for number in range(3)]
    assert [picture.contested for picture in pictures] == [0, 0, 0]
    assert pictures[0].labels.shape == (300, 400)
    first = pictures[0].object_ids()
    for other in pictures[1:]:
        np.testing.assert_array_equal(first, other.object_ids())
    ids, counts = np.unique(first[first >= 0], return_counts=True)
    table = rows(sky / "catalog0")
    np.testing.assert_array_equal(ids, table["object_id"].to_numpy())
    np.testing.assert_array_equal(counts, table["area"].to_numpy())


def test_a_tile_keeps_its_own_objects_whole_and_shows_its_neighbours(sky: Path) -> None:
    catalog = sky / "catalog0"
    maps, survey = LabelMaps.open(str(catalog)), Survey.open(str(sky / "survey0.zarr"))
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


def test_found_objects_are_measured_as_if_they_had_been_given(sky: Path, tmp_path: Path, client: object) -> None:
    others = [str(sky / "kind"), str(sky / "shape")]
    together = [others[0], str(sky / "spots"), others[1]]
    run(sky, tmp_path / "found", client, bundle=together)
    found = rows(tmp_path / "found")
    assert {"spots_area", "spots_flags", "spots_parent", "kind_p_star", "shape_e1", "flags"} <= set(found.schema.names)
    given = query(str(tmp_path / "found"), "SELECT object_id, ra, dec FROM catalog").to_arrow()
    run(sky, tmp_path / "given", client, bundle=others, objects=given)
    expected = rows_of(tmp_path / "given")
    assert found.num_rows == expected.num_rows > 40
    for name in expected.schema.names:
        if name in ("flags", "tile"):
            continue
        one, two = found[name].combine_chunks(), expected[name].combine_chunks()
        if pa.types.is_floating(one.type):
            np.testing.assert_allclose(one.to_numpy(False), two.to_numpy(False), rtol=2e-4, atol=2e-5, err_msg=name)
        else:
            assert one.equals(two), name


def rows_of(out: Path) -> pa.Table:
    return query(str(out)).to_arrow().sort_by("object_id")


def test_what_is_lost_is_made_again_byte_for_byte(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    shutil.copytree(sky / "catalog0", out)
    assert run(sky, out, client).units_done == 0
    part = next((out / "parts").rglob("*.parquet"))
    shard = out / "labels.zarr" / "label" / "c" / "2" / "0" / "0"
    kept = {path: path.read_bytes() for path in (part, shard)}
    part.unlink()
    shard.unlink()
    again = run(sky, out, client)
    assert again.units_done in (1, 2)
    assert {path: path.read_bytes() for path in kept} == kept
    assert_same(rows(out), rows(sky / "catalog0"))


def test_label_maps_may_be_left_away_and_made_later(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    first = run(sky, out, client, labels=False)
    assert not (out / "labels.zarr").exists()
    with pytest.raises(InputError, match="no label maps"):
        read_labels(str(out))
    assert run(sky, out, client, labels=False).units_done == 0
    assert run(sky, out, client).units_done == first.units_done
    np.testing.assert_array_equal(read_labels(str(out)).object_ids(), read_labels(str(sky / "catalog0")).object_ids())
    assert_same(rows(out), rows(sky / "catalog0"))


def test_an_unfinished_neighbour_is_named(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    run(sky, out, client, shard=(0, 2))
    picture = read_labels(str(out), tile="field_r0_c0")
    assert "field_r0_c1" in picture.missing
    with pytest.raises(InputError, match="field_r0_c1 has no label map yet"):
        read_labels(str(out), tile="field_r0_c1")
    run(sky, out, client, shard=(1, 2))
    assert read_labels(str(out), tile="field_r0_c1").missing == ()
    assert_same(rows(out), rows(sky / "catalog0"))


def test_planned_units_find_objects_anywhere(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    units = list(plan(str(sky / "survey0.zarr"), bundle=str(sky / "spots"), out=str(out)))
    assert [unit.rows for unit in units] == [None] * len(units)
    for unit in units:
        run_unit(unit)
    assert run(sky, out, client).units_done == 0
    assert_same(rows(out), rows(sky / "catalog0"))


def test_a_merged_catalog_keeps_its_labels(sky: Path, tmp_path: Path) -> None:
    from workflows.compact import compact

    shutil.copytree(sky / "catalog0", tmp_path / "catalog")
    compact(str(tmp_path / "catalog"))
    assert not list((tmp_path / "catalog" / "parts").glob("[0-9]*/*.parquet"))
    merged, plain = (
        read_labels(str(folder / "catalog")) if folder is tmp_path else read_labels(str(sky / "catalog0"))
        for folder in (tmp_path, sky)
    )
    np.testing.assert_array_equal(merged.object_ids(), plain.object_ids())


def test_labels_go_to_fits_with_the_tiles_coordinates(sky: Path, tmp_path: Path) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    from workflows.labels import labels

    result = labels(str(sky / "catalog0"), tile="field_r1_c1", to=str(tmp_path / "tile.fits"))
    with fits.open(tmp_path / "tile.fits", checksum=True) as opened:
        picture, table, wcs = opened[0].data, opened["OBJECTS"].data, WCS(opened[0].header)
    assert (result.height, result.width) == picture.shape == (192, 192)
    row = query(str(sky / "catalog0"), "SELECT * FROM catalog WHERE tile = 'field_r1_c1' AND area > 40").to_arrow()
    for one in row.to_pylist():
        x, y = wcs.all_world2pix(one["ra"], one["dec"], 0)
        assert picture[round(float(y)), round(float(x))] == one["label_id"]
        assert table["object_id"][table["label"] == one["label_id"]] == one["object_id"]
    labels(str(sky / "catalog0"), box=(100, 50, 180, 90), to=str(tmp_path / "box.fits"))
    assert fits.getdata(tmp_path / "box.fits").shape == (40, 80)
    for wrong in ({"tile": "nothing"}, {"image": "nothing"}, {"box": (5, 5, 5, 9)}, {"tile": "a", "image": "b"}):
        with pytest.raises(InputError):
            labels(str(sky / "catalog0"), to=str(tmp_path / "no.fits"), **wrong)
    with pytest.raises(InputError, match=r"\.fits"):
        labels(str(sky / "catalog0"), to=str(tmp_path / "no.png"))


def test_wrong_combinations_are_refused_before_anything_starts(sky: Path, tmp_path: Path, client: object) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=match):
            run(sky, tmp_path / "catalog", client, **changes)
        assert not (tmp_path / "catalog").exists()

    objects = universe.make_objects(tmp_path / "objects.parquet")
    refused("leave --objects away", objects=objects)
    spotter.make_bundle(str(tmp_path / "more"))
    refused("both find objects", bundle=[str(sky / "spots"), str(tmp_path / "more")])
    refused("stamps of objects that are known", source=universe.make_stamps(str(tmp_path / "stamps.zarr")))
    universe.make_survey(str(tmp_path / "narrow.zarr"), halo=16)
    refused("needs a halo of 32 px.* has 16", source=tmp_path / "narrow.zarr")
    refused("or a bundle that finds them", bundle=str(sky / "kind"))
    with pytest.raises(InputError, match="leave --objects away"):
        dry_run(str(sky / "survey0.zarr"), bundle=str(sky / "spots"), objects=objects)


def test_a_dry_run_says_that_objects_are_yet_to_be_found(sky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from workflows.cli import main

    planned = dry_run(str(sky / "survey0.zarr"), bundle=str(sky / "spots"))
    assert (planned.rows, planned.detecting) == (None, "spots")
    given = dry_run(str(sky / "survey0.zarr"), bundle=str(sky / "kind"))
    assert planned.memory > given.memory
    out = ["--out", "nowhere", "--dry-run"]
    assert main(["infer", str(sky / "survey0.zarr"), "--bundle", str(sky / "spots"), *out]) == 0
    assert "when spots has found them" in capsys.readouterr().out


def test_the_command_line_finds_and_exports(sky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from workflows.cli import main

    out = str(tmp_path / "catalog")
    assert main(["infer", str(sky / "survey0.zarr"), "--bundle", str(sky / "spots"), "--out", out]) == 0
    assert main(["labels", out, "--tile", "field_r0_c0", "--to", str(tmp_path / "tile.fits")]) == 0
    assert "192 x 192 px" in capsys.readouterr().out
    assert (tmp_path / "tile.fits").stat().st_size > 192 * 192 * 4
    bare = str(tmp_path / "bare")
    assert main(["infer", str(sky / "survey0.zarr"), "--bundle", str(sky / "spots"), "--out", bare, "--no-labels"]) == 0
    assert not os.path.exists(bare + "/labels.zarr")
    assert main(["labels", bare, "--to", str(tmp_path / "none.fits")]) == 2


def test_a_failing_unit_leaves_the_others(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = spotter.SpotTask.detect

    def careless(self: spotter.SpotTask, maps: np.ndarray, field: Any) -> Any:
        found = real(self, maps, field)
        if field.origin == (0, 0):
            found.labels[:] = np.roll(found.labels, 30, 0)
        return found

    monkeypatch.setattr(spotter.SpotTask, "detect", careless)
    result = run(sky, tmp_path / "catalog", client)
    assert result.units_failed == 1
    reason = Catalog.open(str(tmp_path / "catalog")).failures()["reason"][0].as_py()
    assert "lie outside their labels" in reason
    monkeypatch.undo()
    assert run(sky, tmp_path / "catalog", client).units_done == 1
    assert_same(rows(tmp_path / "catalog"), rows(sky / "catalog0"))


def test_overlapping_images_show_each_place_once_as_primary(sky: Path, tmp_path: Path, client: object) -> None:
    source, out = str(tmp_path / "two.zarr"), tmp_path / "catalog"
    universe.make_survey(source)
    run(sky, out, client, source=source)
    assert pc.all(rows(out)["primary"]).as_py()
    universe.make_survey(source, name="second", dec=2.0 + 60 * universe.SCALE / 3600)
    run(sky, out, client, source=source)
    run(sky, tmp_path / "fresh", client, source=source)
    table = rows(out)
    assert_same(table, rows(tmp_path / "fresh"))
    survey = Survey.open(source)
    images = survey.images()
    for row in table.to_pylist():
        edges = {}
        for name, image in images.items():
            x, y = image.wcs().to_pixel(row["ra"], row["dec"])
            if image.tile_of(x, y)[0] >= 0:
                edges[name] = min(x[0], 399 - x[0], y[0], 299 - y[0])
        best = max(edges.values())
        assert row["primary"] == (edges[row["image"]] == best), row
    assert 0 < pc.sum(table["primary"]).as_py() < table.num_rows


def test_without_a_wcs_ids_come_from_pixels(sky: Path, tmp_path: Path, client: object) -> None:
    ids = []
    for number, (tile_size, halo) in enumerate(TILINGS[:2]):
        source = str(tmp_path / f"plain{number}.zarr")
        universe.make_survey(source, wcs=False, tile_size=tile_size, halo=halo)
        run(sky, tmp_path / f"catalog{number}", client, source=source)
        table = rows(tmp_path / f"catalog{number}")
        assert table["ra"].null_count == table.num_rows > 40
        ids.append(table["object_id"].to_pylist())
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0])
    assert min(ids[0]) >= 1 << 62


# ---- bad pixels --------------------------------------------------------------------------------------------------


def altered(folder: Path, change: Any, **survey: Any) -> str:
    """A survey whose parent image, variance and mask went through `change` before tiles were cut of it."""
    source = str(folder / "altered.zarr")
    universe.make_survey(source, change=change, **survey)
    return source


def test_bad_pixels_cost_no_unit(sky: Path, tmp_path: Path, client: object) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image[:, 40:44] = np.nan  # a stripe
        mask[:, 130:260, 120:270] = 2  # all of an inner box and its halo
        mask[:, 270:280, 300:310] = 4
        variance[:, :60, 300:] = 0

    results = {}
    for number, (tile_size, halo) in enumerate(TILINGS[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = altered(folder, change, tile_size=tile_size, halo=halo)
        assert run(sky, folder / "catalog", client, source=source).units_failed == 0
        results[number] = rows(folder / "catalog")
        everything = read_labels(str(folder / "catalog")).labels
        assert not everything[150:240, 140:250].any()
    assert_same(results[0], results[1])


def test_a_tile_without_a_usable_pixel_is_an_empty_unit(sky: Path, tmp_path: Path, client: object) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        mask[:, :180, :180] = 2

    result = run(sky, tmp_path / "catalog", client, source=altered(tmp_path, change))
    assert result.units_failed == 0
    done = Catalog.open(str(tmp_path / "catalog")).current()
    assert dict(zip(done["unit"].to_pylist(), done["rows"].to_pylist()))["field_r0_c0"] == 0
    assert not LabelMaps.open(str(tmp_path / "catalog")).read(0).any()


def test_surveys_without_variance_or_with_bands_missing_are_searched(sky: Path, tmp_path: Path, client: object) -> None:
    bands = ("g", "r")
    spots = spotter.make_bundle(str(tmp_path / "anyspots"), ("any",), any_band=True)

    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image[0] = np.nan
        mask[0] = 1

    source = str(tmp_path / "bands.zarr")
    universe.make_survey(source, bands=bands, name="both")
    universe.make_survey(source, bands=bands, name="red", change=change, dec=40.0)
    result = run(sky, tmp_path / "catalog", client, source=source, bundle=spots)
    assert result.units_failed == 0
    table = rows(tmp_path / "catalog")
    assert {"flux_g", "flux_r"} <= set(table.schema.names)
    counts = {name: table.filter(pc.equal(table["image"], name)).num_rows for name in ("both", "red")}
    assert min(counts.values()) > 40
    one = run(sky, tmp_path / "one", client, source=source, bundle=spots, band="r")
    assert one.rows > 80
    assert "flux_g" not in rows(tmp_path / "one").schema.names
    plain = str(tmp_path / "plain.zarr")
    universe.make_survey(plain, variance=False)
    run(sky, tmp_path / "plain", client, source=plain)
    flags = rows(tmp_path / "plain")["flags"].to_numpy()
    assert len(flags) > 40
    assert ((flags & ObjectFlag.NO_VARIANCE) > 0).all()


def test_edges_and_what_is_larger_than_the_halo_are_flagged(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        y, x = np.mgrid[:300, :400]
        image[:] = 30 * np.exp(-((x - 200) ** 2 + (y - 150) ** 2) / (2 * 15.0**2))
        image += 100 * np.exp(-((x - 2) ** 2 + (y - 60) ** 2) / 18) + 100 * np.exp(
            -((x - 320) ** 2 + (y - 60) ** 2) / 18
        )

    monkeypatch.setattr(spotter, "RADIUS", 100)
    run(sky, tmp_path / "catalog", client, source=altered(tmp_path, change))
    table = rows(tmp_path / "catalog").to_pylist()
    flags = {(round(row["x"], -1), round(row["y"], -1)): row["flags"] for row in table if row["area"] > 30}
    border, alone = (next(bits for (x, y), bits in flags.items() if abs(x - at) < 20 and y == 60) for at in (0, 320))
    assert border & ObjectFlag.EDGE
    assert not border & ObjectFlag.TRUNCATED
    assert not alone & (ObjectFlag.EDGE | ObjectFlag.TRUNCATED)
    huge = max(table, key=lambda row: row["area"])
    assert huge["area"] > 2000
    assert huge["flags"] & ObjectFlag.TRUNCATED


def test_two_objects_with_one_peak_are_flagged(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astroml_plugin.inference import detecting

    real = detecting.object_ids

    def same(info: Any, wcs: Any, peak_x: np.ndarray, peak_y: np.ndarray) -> np.ndarray:
        ids = real(info, wcs, peak_x, peak_y)
        if info.name == "field_r0_c0":
            ids[peak_x < 90] = 7
        return ids

    monkeypatch.setattr(detecting, "object_ids", same)
    run(sky, tmp_path / "catalog", client)
    table = rows(tmp_path / "catalog")
    doubled = table.filter(pc.equal(table["object_id"], 7))
    assert doubled.num_rows > 1
    assert ((doubled["flags"].to_numpy() & ObjectFlag.DUPLICATE_ID) > 0).all()
    others = table.filter(pc.not_equal(table["object_id"], 7))
    assert not (others["flags"].to_numpy() & ObjectFlag.DUPLICATE_ID).any()
