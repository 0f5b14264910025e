"""Objects found in whole tiles: once each, whole, with the same ids in any tiling, measured by the other bundles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from astroml_plugin.catalog import Catalog, exposures, primary
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.compute.cluster import connect
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.sky.wcs import separation
from tests import spotter, universe
from tests.detection import TILINGS, assert_same, rows, rows_of, run
from tests.overlaps import painted
from tests.test_faults import COMMAND, parts, wait_for
from workflows.cli import main
from workflows.infer import dry_run, plan, run_unit
from workflows.query import query

pytestmark = pytest.mark.usefixtures("spotting")  # every test finds the task, whichever runs first


def test_three_tilings_of_one_sky_give_the_same_objects(spotted: Path) -> None:
    first = rows(spotted / "catalog0")
    assert first.num_rows > 40
    assert len(set(first["object_id"].to_pylist())) == first.num_rows
    assert pc.all(first["primary"]).as_py()
    assert set(first["parent"].to_pylist()) <= set(first["object_id"].to_pylist())
    assert any(parent != own for parent, own in zip(first["parent"].to_pylist(), first["object_id"].to_pylist()))
    for number in (1, 2):
        assert_same(first, rows(spotted / f"catalog{number}"))


def test_found_objects_are_measured_as_if_they_had_been_given(spotted: Path, tmp_path: Path, client: object) -> None:
    others = [str(spotted / "kind"), str(spotted / "shape")]
    together = [others[0], str(spotted / "spots"), others[1]]
    run(spotted, tmp_path / "found", client, bundle=together)
    found = rows(tmp_path / "found")
    assert {"spots_area", "spots_flags", "spots_parent", "kind_p_star", "shape_e1", "flags"} <= set(found.schema.names)
    given = query(str(tmp_path / "found"), "SELECT object_id, ra, dec FROM catalog").to_arrow()
    run(spotted, tmp_path / "given", client, bundle=others, objects=given)
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


def test_what_is_lost_is_made_again_byte_for_byte(spotted: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    shutil.copytree(spotted / "catalog0", out)
    assert run(spotted, out, client).units_done == 0
    part = next((out / "parts").rglob("*.parquet"))
    shard = out / "labels.zarr" / "label" / "c" / "2" / "0" / "0"
    kept = {path: path.read_bytes() for path in (part, shard)}
    part.unlink()
    shard.unlink()
    again = run(spotted, out, client)
    assert again.units_done in (1, 2)
    assert {path: path.read_bytes() for path in kept} == kept
    assert_same(rows(out), rows(spotted / "catalog0"))


def test_planned_units_find_objects_anywhere(spotted: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "catalog"
    units = list(plan(str(spotted / "survey0.zarr"), bundle=str(spotted / "spots"), out=str(out)))
    assert [unit.rows for unit in units] == [None] * len(units)
    for unit in units:
        run_unit(unit)
    assert run(spotted, out, client).units_done == 0
    assert_same(rows(out), rows(spotted / "catalog0"))


def test_wrong_combinations_are_refused_before_anything_starts(spotted: Path, tmp_path: Path, client: object) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=match):
            run(spotted, tmp_path / "catalog", client, **changes)
        assert not (tmp_path / "catalog").exists()

    objects = universe.make_objects(tmp_path / "objects.parquet")
    refused("leave --objects away", objects=objects)
    spotter.make_bundle(str(tmp_path / "more"))
    refused("both find objects", bundle=[str(spotted / "spots"), str(tmp_path / "more")])
    refused("stamps of objects that are known", source=universe.make_stamps(str(tmp_path / "stamps.zarr")))
    universe.make_survey(str(tmp_path / "narrow.zarr"), halo=16)
    refused("needs a halo of 32 px.* has 16", source=tmp_path / "narrow.zarr")
    refused("or a bundle that finds them", bundle=str(spotted / "kind"))
    with pytest.raises(InputError, match="leave --objects away"):
        dry_run(str(spotted / "survey0.zarr"), bundle=str(spotted / "spots"), objects=objects)


def test_a_dry_run_says_that_objects_are_yet_to_be_found(spotted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = dry_run(str(spotted / "survey0.zarr"), bundle=str(spotted / "spots"))
    assert (planned.rows, planned.detecting) == (None, "spots")
    given = dry_run(str(spotted / "survey0.zarr"), bundle=str(spotted / "kind"))
    assert planned.memory > given.memory
    out = ["--out", "nowhere", "--dry-run"]
    assert main(["infer", str(spotted / "survey0.zarr"), "--bundle", str(spotted / "spots"), *out]) == 0
    assert "when spots has found them" in capsys.readouterr().out


@pytest.mark.slow
def test_overlapping_images_show_each_source_once_as_primary(spotted: Path, tmp_path: Path, client: object) -> None:
    source, out, up = str(tmp_path / "two.zarr"), tmp_path / "catalog", 2.0 + 60 * universe.SCALE / 3600
    universe.make_survey(source, name="z_deep", change=painted(150.0, 2.0, 0.5))
    run(spotted, out, client, source=source)
    assert pc.all(rows(out)["primary"]).as_py()
    assert not (out / primary.INDEX).exists()
    universe.make_survey(source, name="shallow", dec=up, change=painted(150.0, up, 12.0, offset=0.5, seed=2))
    extended = run(spotted, out, client, source=source)
    assert extended.units_skipped == extended.units_done
    for shard in ((1, 2), (2, 2)):
        run(spotted, tmp_path / "fresh", client, source=source, shard=shard)
    table = rows(out)
    assert_same(table, rows(tmp_path / "fresh"))
    others = table.filter(pc.invert(table["primary"]))
    assert 40 < others.num_rows < table.num_rows / 2
    assert set(others["image"].to_pylist()) == {"shallow", "z_deep"}  # where the deep one cuts it off
    for row in others.to_pylist():
        near = separation(
            *(table.filter(table["primary"])[name].to_numpy() for name in ("ra", "dec")), row["ra"], row["dec"]
        )
        assert near.min() * 3600 < (1.01 if row["flags"] or row["image"] == "shallow" else 0.51)
    deep = table.filter(pc.and_(pc.equal(table["image"], "z_deep"), pc.equal(table["flags"], 0)))
    assert pc.all(deep["primary"]).as_py()
    record = Catalog.open(str(out)).runs()[-1]["primary"]
    assert record["matched_to_a_better_row"] == others.num_rows
    assert record["match_radius_arcsec"] == pytest.approx(0.5, abs=0.01)
    assert (record["rows_of_unknown_depth"], record["rows_without_psf"]) == (0, 0)
    told = {
        name: one
        for path in Catalog.open(str(out)).listing()[0]
        for name, one in exposures.read(str(out), path).items()
    }
    depths = {one.image: one.depth for one in told.values()}
    assert depths["z_deep"] - depths["shallow"] == pytest.approx(2.5 * np.log10(12 / 0.5), abs=0.01)
    spread = 5 * 0.5 * np.sqrt(4 * np.pi) * 4.5**0.5  # of a pixel, of a Gaussian PSF whose variance is 4.5 pixels
    assert depths["z_deep"] == pytest.approx(31.4 - 2.5 * np.log10(spread), abs=0.03)
    both = [str(spotted / "spots"), str(spotted / "kind")]
    run(spotted, tmp_path / "both", client, source=source, bundle=both)
    assert rows(tmp_path / "both")["primary"].equals(table["primary"])


def test_without_a_wcs_ids_come_from_pixels(spotted: Path, tmp_path: Path, client: object) -> None:
    ids = []
    for number, (tile_size, halo) in enumerate(TILINGS[:2]):
        source = str(tmp_path / f"plain{number}.zarr")
        universe.make_survey(source, wcs=False, tile_size=tile_size, halo=halo)
        run(spotted, tmp_path / f"catalog{number}", client, source=source)
        table = rows(tmp_path / f"catalog{number}")
        assert table["ra"].null_count == table.num_rows > 40
        ids.append(table["object_id"].to_pylist())
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0])
    assert min(ids[0]) >= 1 << 62


def test_shipped_bundles_measure_what_is_found_as_if_it_had_been_given(tmp_path: Path, client: object) -> None:
    source, out = str(tmp_path / "gri.zarr"), tmp_path / "found"
    universe.make_survey(source, bands=("g", "r", "i"), halo=40)
    spots = spotter.make_bundle(str(tmp_path / "spots"), ("r",))
    run(tmp_path, out, client, source=source, bundle=["ellipticity", spots, "lens"], band="r")
    found = rows(out)
    given = query(str(out), "SELECT object_id, ra, dec FROM catalog").to_arrow()
    again = {"objects": given, "options": {"recentre": False}}  # what segmentation finds is measured where it stands
    run(tmp_path, tmp_path / "given", client, source=source, bundle=["ellipticity", "lens"], band="r", **again)
    expected = rows_of(tmp_path / "given")
    names = [name for name in expected.schema.names if name.startswith(("ellipticity_", "lens_"))]
    assert len(names) > 12
    assert found.num_rows == expected.num_rows > 40
    for name in names:
        one, two = found[name].combine_chunks(), expected[name].combine_chunks()
        if pa.types.is_floating(one.type):
            np.testing.assert_allclose(one.to_numpy(False), two.to_numpy(False), rtol=2e-3, atol=2e-3, err_msg=name)
        elif name.endswith("_flags"):  # of a list, light that is off its place is flagged
            flags, off_centre = one.to_numpy(), two.to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN)
            np.testing.assert_array_equal(flags | off_centre, two.to_numpy(), err_msg=name)
        else:
            assert one.equals(two), name


@pytest.mark.slow
def test_a_killed_driver_leaves_what_it_has_found(spotted: Path, spotting: dict[str, str], tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"), shape=(700, 700), tile_size=164, halo=41)
    command = [*COMMAND, "infer", str(tmp_path / "survey.zarr"), "--bundle", str(spotted / "spots"), "--out"]

    def process(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, str(tmp_path / out)], env=spotting, text=True, stderr=subprocess.PIPE)

    def finish(running: subprocess.Popen[str]) -> None:
        _, said = running.communicate(timeout=200)
        assert running.returncode == 0, said

    finish(process("undisturbed"))
    killed = process("catalog")
    wait_for(lambda: parts(tmp_path / "catalog") >= 5, killed)
    killed.kill()
    killed.communicate()
    assert 5 <= parts(tmp_path / "catalog") < 81
    finish(process("catalog"))
    assert_same(rows(tmp_path / "catalog"), rows(tmp_path / "undisturbed"))
    pictures = [read_labels(str(tmp_path / out)).object_ids() for out in ("catalog", "undisturbed")]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.slow
def test_processes_find_what_threads_find(
    spotted: Path, spotting: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", spotting["PYTHONPATH"])
    with connect("processes", workers=2, threads=1) as processes:
        run(spotted, tmp_path / "catalog", processes)
    assert_same(rows(tmp_path / "catalog"), rows(spotted / "catalog0"))


def test_segmentation_finds_the_same_in_any_tiling(tmp_path: Path, client: object) -> None:
    """The shipped network, its blends and fluxes: nothing may depend on where tiles end."""
    found = []
    for tile_size, halo in ((400, 128), (640, 136)):
        source, out = str(tmp_path / f"{tile_size}.zarr"), tmp_path / f"catalog{tile_size}"
        universe.make_survey(source, tile_size=tile_size, halo=halo)
        result = run(tmp_path, out, client, source=source, bundle="segmentation")
        assert (result.units_failed, result.units_done) == (0, 9 if tile_size == 400 else 2)
        found.append((rows(out), read_labels(str(out)).object_ids()))
    assert found[0][0].num_rows > 30
    assert_same(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
